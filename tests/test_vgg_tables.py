"""VGG's networks (its Tables 1 and 2; section 3.2's map sizes) against the paper's numbers and others' counts."""

from __future__ import annotations

import pytest

from zfrepro.models.network import multiply_adds
from zfrepro.models.summary import describe, on_paper
from zfrepro.models.table import op_sizes, ops_of, receptive_field
from zfrepro.options.compose import load_model
from zfrepro.papers import reported

# Table 1: 3x3 filters of each layer, "1" and "5" for other sizes, "p" where the stage is pooled. Table 2, torchvision's
# documentation and arithmetic: parameters with 1000 classes. Multiply-adds in G; receptive field of the last maps in px.
NETWORKS = {
    "vgg_a": ("3p 3p 33p 33p 33p", 132_863_336, 7.61, 150),
    "vgg_a_lrn": ("3p 3p 33p 33p 33p", 132_863_336, 7.61, 150),
    "vgg_b": ("33p 33p 33p 33p 33p", 133_047_848, 11.31, 156),
    "vgg_b_5x5": ("5p 5p 5p 5p 5p", 134_503_528, 9.36, 156),
    "vgg_c": ("33p 33p 331p 331p 331p", 133_638_952, 11.77, 156),
    "vgg_d": ("33p 33p 333p 333p 333p", 138_357_544, 15.47, 212),
    "vgg_e": ("33p 33p 3333p 3333p 3333p", 143_667_240, 19.63, 268),
}
# Everything divided by four, three pools, 20 classes: parameters in M, multiply-adds in M.
DEMOS = {"vgg_a": (2.25, 42.8), "vgg_a_lrn": (2.25, 42.8), "vgg_b": (2.27, 57.2), "vgg_b_5x5": (2.36, 55.6),
         "vgg_c": (2.30, 59.6), "vgg_d": (2.60, 78.9), "vgg_e": (2.93, 100.6)}  # fmt: skip
MAPS = (64, 128, 256, 512, 512)
# Smaller side of the test image: places along it (224 -> 1x1 ...), and the longer side of a 4:3 image with its places.
SCORE_MAPS = {224: 1, 256: 2, 288: 3, 352: 5, 384: 6, 416: 7, 512: 10, 341: 4, 683: 15}


def stages(name: str, pooled: int = 5) -> list[tuple[str, int, int, int]]:
    """(name, maps, kernel, pool) of each convolutional layer, from Table 1."""
    found = []
    for stage, filters in enumerate(NETWORKS[name][0].split(), 1):
        kernels = filters.rstrip("p")
        for number, kernel in enumerate(kernels, 1):
            pool = 2 if number == len(kernels) and stage <= pooled else 0
            found.append((f"conv{stage}_{number}", MAPS[stage - 1], int(kernel), pool))
    return found


CONFIGURATIONS = {"A": "vgg_a", "A-LRN": "vgg_a_lrn", "B": "vgg_b", "B with 5x5": "vgg_b_5x5", "C": "vgg_c", "D": "vgg_d",
                  "E": "vgg_e"}  # fmt: skip


def test_every_layer_is_the_papers() -> None:
    """Name, shape, normalisation, parameters and multiply-adds of all 94."""
    configs = {letter: load_model(name) for letter, name in CONFIGURATIONS.items()}
    described = {letter: describe(on_paper(config, 1000)) for letter, config in configs.items()}
    rows = reported("vgg_layers")
    assert len(rows) == sum(map(len, described.values())) == 94
    for row in rows:
        letter, number = str(row["config"]), int(row["layer"] or 0)
        own = described[letter][number - 1]
        output = row["output"] if row["kind"] == "conv" else str(int(float(str(row["output"]))))
        assert own[3:] == [output, own[4], f"{row['parameters']:,.0f}", f"{row['multiply_adds']:,.0f}"]
        if row["kind"] != "softmax":
            table = configs[letter].layers[number - 1]
            assert (table.name, table.kind, table.norm) == (row["name"], row["kind"], row["norm"])


@pytest.mark.parametrize("name", NETWORKS)
def test_full_networks(name: str) -> None:
    _, parameters, work, field = NETWORKS[name]
    config = load_model(name)
    network = on_paper(config, 1000)
    convs = [row for row in config.layers if row.kind == "conv"]
    assert [(row.name, row.maps, row.kernel, row.pool) for row in convs] == stages(name)
    assert all(row.stride == 1 and row.padding == row.kernel // 2 and row.pool_stride == 2 for row in convs)
    assert [(row.name, row.units, row.dropout) for row in config.layers[-2:]] == [
        ("fc6", 4096, 0.5),
        ("fc7", 4096, 0.5),
    ]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(multiply_adds(network).values()) / 1e9 == pytest.approx(work, abs=0.005)
    seen = receptive_field(ops_of(network.layers, len(convs)))
    assert (seen.size, seen.stride) == (field, 32)
    assert describe(network)[len(convs)][5] == "102,764,544"  # fc6


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_for_56_px_are_the_same_divided_by_four(name: str) -> None:
    parameters, work = DEMOS[name]
    config = load_model(f"{name}_demo")
    network = on_paper(config, 20)
    convs = [row for row in config.layers if row.kind == "conv"]
    expected = [(row, maps // 4, kernel, pool) for row, maps, kernel, pool in stages(name, pooled=3)]
    assert [(row.name, row.maps, row.kernel, row.pool) for row in convs] == expected
    assert [row.units for row in config.layers[-2:]] == [256, 256]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert sum(multiply_adds(network).values()) / 1e6 == pytest.approx(work, abs=0.06)
    assert network.side(len(convs)) == 7  # fc6 reads 7x7, as the paper's


@pytest.mark.parametrize("name", NETWORKS)
def test_score_maps_have_the_papers_sizes(name: str) -> None:
    """At a quarter of the size the small networks have the same."""
    for table, by in ((name, 1), (f"{name}_demo", 4)):
        ops = on_paper(load_model(table), 1000).ops
        assert {size: op_sizes(ops, size // by)[-1] for size in SCORE_MAPS} == SCORE_MAPS


def test_only_a_lrn_normalises() -> None:
    """Krizhevsky's numbers; at the demo's input scale of 0.1, squares are a hundredth and alpha is a hundred times as large."""
    for name in NETWORKS:
        for table, alpha in ((name, 1e-4), (f"{name}_demo", 1e-2 if name == "vgg_a_lrn" else 1e-4)):
            config = load_model(table)
            norms = [row.norm for row in config.layers]
            assert norms == ["before_pool" if name == "vgg_a_lrn" else "none", *["none"] * (len(norms) - 1)]
            assert (config.norm_size, config.norm_k, config.norm_beta) == (5, 2, 0.75)
            assert config.norm_alpha == pytest.approx(alpha)
