"""Table 3: the rows' edits against the paper's words, and the bookkeeping around the trainings (which a stub stands in for)."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import composed, narrow
from zfrepro import papers
from zfrepro.checkpoints import save_checkpoint
from zfrepro.data import open_data
from zfrepro.errors import UserError
from zfrepro.evaluator.ablation import VARIANTS, ablate, edited, seeds_of
from zfrepro.evaluator.errors import top_errors
from zfrepro.evaluator.testing import posteriors
from zfrepro.files import write_text
from zfrepro.models.network import Network, initialise
from zfrepro.models.summary import on_paper
from zfrepro.options.commands import AblateConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.identity import write_config
from zfrepro.run import open_run

Put = Callable[[Any], Any]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put another function in the place of `train`, and a narrow AlexNet beside the narrow run; returns the function."""
    siblings = {"alexnet_demo": narrow("alexnet_demo")}
    monkeypatch.setattr("zfrepro.evaluator.ablation.load_model", siblings.__getitem__)

    def put(function: Any) -> Any:
        monkeypatch.setattr("zfrepro.trainer.several.train", function)
        return function

    return put


def config(outputs: Path, *overrides: str) -> AblateConfig:
    return composed("ablate", AblateConfig, f"outputs={outputs}", "run=tiny", "precision=fp32", "workers=1", *overrides)


class Stub:
    """A trainer that writes freshly drawn weights and invented metrics; finished runs are left alone, as by the real one."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing, self.trained = failing, list[TrainConfig]()

    def __call__(self, config: TrainConfig) -> None:
        folder = config.folder / "train"
        if (folder / "metrics.jsonl").exists():
            return
        name = config.run.rpartition("/")[2]
        if name in self.failing:
            raise RuntimeError(f"no luck with {name}")
        self.trained.append(config)
        data = open_data(config.data)
        network = Network(config.model, data.num_classes)
        initialise(network, "he", config.seed)
        write_config(folder / "config.yaml", config)
        state = {
            "model": network.state_dict(),
            "class_names": list(data.class_names),
            "mean": torch.from_numpy(data.mean.copy()),
            "scale": torch.tensor(config.input_scale),
            "epoch": config.epochs,
        }
        save_checkpoint(folder / "checkpoints" / "last.pt", state)
        lines = [{"epoch": n + 1, "seconds": 2.0 * (n + 1)} for n in range(config.epochs)]
        write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def test_every_row_of_the_paper_is_a_variant_and_its_edit_says_the_same() -> None:
    rows, models = papers.reported("table3_ablation"), {name: load_model(name) for name in ("alexnet", "zfnet")}
    assert len(rows) == len(VARIANTS) == 12
    for row, variant in zip(rows, VARIANTS):
        words = str(row["variant"])
        model = edited(models["zfnet"], variant)
        layers, base = on_paper(model, 0).widths, on_paper(models[str(row["base"])], 0).widths
        expected = dict(base)
        if match := re.search(r"removed layers? ([\d ]+)", words):
            for number in match.group(1).split():
                del expected[int(number)]
        if match := re.search(r"layers 6 7 at (\d+) units", words):
            expected |= {6: int(match.group(1)), 7: int(match.group(1))}
        if match := re.search(r"layers 3 4 5 at (\d+) (\d+) (\d+) maps", words):
            expected |= dict(zip((3, 4, 5), map(int, match.groups())))
        assert layers == expected, variant
        assert (expected == base) == (variant in ("alexnet", "zfnet"))


def test_edits_apply_at_another_scale_and_to_the_sibling() -> None:
    wide = edited(load_model("zfnet_demo"), "zfnet_maps_512_fc_8192")
    assert list(on_paper(wide, 0).widths.values()) == [32, 96, 171, 341, 192, 1024, 1024]
    other = edited(load_model("zfnet_demo"), "alexnet_no_3_4")
    assert (other.layers[0].kernel, other.layers[0].stride) == (11, 4)  # AlexNet's
    assert on_paper(other, 5).feature_layers == [1, 2, 5, 6, 7]


def test_dropout_is_taken_out_where_there_is_any() -> None:
    assert [layer.dropout for layer in edited(load_model("zfnet_demo"), "zfnet", 0.1).layers] == [
        0,
        0,
        0,
        0,
        0,
        0.1,
        0.1,
    ]
    assert [layer.dropout for layer in edited(load_model("zfnet_demo"), "zfnet").layers][-1] == 0.3


def test_a_model_of_another_family_is_refused() -> None:
    with pytest.raises(UserError, match="alexnet and zfnet"):
        edited(dataclasses.replace(load_model("zfnet"), name="vgg16"), "zfnet")
    with pytest.raises(UserError, match="sibling"):
        edited(dataclasses.replace(load_model("zfnet"), sibling=None), "alexnet")


def test_table_from_several_seeds(tiny_run: Path, trainer: Put) -> None:
    stub = trainer(Stub())
    ablate(config(tiny_run, "seeds=[0,3]", "epochs=2", "data.per_class=1"))
    folder = tiny_run / "tiny" / "table3_ablation"
    assert len(stub.trained) == 24
    assert {run.run for run in stub.trained} >= {"tiny/table3_ablation/alexnet", "tiny/table3_ablation/alexnet_s3"}
    assert all(run.epochs == 2 and run.data.per_class == 1 for run in stub.trained)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["paper_val_top1_error"] for row in rows[:2]] == ["40.5", "45.4"]
    metrics = json.loads((folder / "metrics.json").read_text())
    own = metrics["variants"]["zfnet"]
    nets = np.array(list(own["runs"].values()))
    assert own["val_top1_error"] == pytest.approx(nets[:, 1].mean())
    assert own["val_top1_error_std"] == pytest.approx(nets[:, 1].std(ddof=1))
    assert float(rows[7]["val_top1_error"]) == pytest.approx(nets[:, 1].mean())
    assert own["seconds"] == 4.0
    assert rows[-1]["variant"].startswith("average of 2 nets: zfnet")
    assert metrics["averages"]["zfnet"]["val_top1_error"] == pytest.approx(float(rows[-1]["val_top1_error"]))
    both = [open_run(config(tiny_run, f"run=tiny/table3_ablation/{name}"), "last") for name in ("zfnet", "zfnet_s3")]
    together = np.mean([posteriors(net, net.data.val, "ten_crop") for net in both], axis=0)
    assert list(metrics["averages"]["zfnet"].values()) == pytest.approx(top_errors(together, both[0].data.val.labels))
    assert np.load(folder / "arrays.npz")["errors"].shape == (12, 2, 3)
    assert (folder / "ablation.png").stat().st_size > 10_000
    before = (folder / "metrics.json").stat().st_mtime_ns
    ablate(config(tiny_run, "seeds=[0,3]", "epochs=2", "data.per_class=1"))
    assert len(stub.trained) == 24  # nothing was trained again
    assert (folder / "metrics.json").stat().st_mtime_ns == before


def test_a_failing_variant_does_not_take_the_others_along(tiny_run: Path, trainer: Put) -> None:
    own = ["epochs=1", "data.per_class=1", "seeds=[7]"]
    trainer(Stub(failing=("zfnet_fc_8192_s7",)))
    with pytest.raises(UserError, match=r"1 of 12 trainings failed: zfnet_fc_8192_s7 \(no luck") as caught:
        ablate(config(tiny_run, *own))
    assert caught.value.status == 1  # type: ignore[attr-defined]
    metrics = json.loads((tiny_run / "tiny" / "table3_ablation" / "metrics.json").read_text())
    assert metrics["variants"]["zfnet_fc_8192"] == {"nets": 0}
    assert metrics["variants"]["zfnet_maps_512_fc_8192"]["nets"] == 1
    second = trainer(Stub())
    ablate(config(tiny_run, *own))  # the table is made again once it is there
    assert [run.run for run in second.trained] == ["tiny/table3_ablation/zfnet_fc_8192_s7"]
    metrics = json.loads((tiny_run / "tiny" / "table3_ablation" / "metrics.json").read_text())
    assert metrics["variants"]["zfnet_fc_8192"]["nets"] == 1


def test_networks_of_another_recipe_stand_beside_these(tiny_run: Path, trainer: Put) -> None:
    """Other options train other networks, whose names say so, and throw nothing away: the old ones are there afterwards."""
    own, stub = ["epochs=1", "data.per_class=3", "seeds=[11]", "variant=alexnet_no_7"], trainer(Stub())
    ablate(config(tiny_run, *own))
    for other in ("lr=0.5", "dropout=0.4", "batch_size=3"):
        ablate(config(tiny_run, *own, other))
        ablate(config(tiny_run, *own, other))  # is there now
    ablate(config(tiny_run, *own, "device=cpu", "precision=auto"))  # the same network
    plain, *others = [run.run for run in stub.trained]
    assert plain == "tiny/table3_ablation/alexnet_no_7_s11"
    assert len(set(others)) == 3 and all(re.fullmatch(rf"{plain}-[0-9a-f]{{8}}", name) for name in others)


def test_a_request_to_stop_is_no_failure(tiny_run: Path, trainer: Put) -> None:
    class Interrupted(Exception):
        status = 130

    def stopped(config: TrainConfig) -> None:
        raise Interrupted

    trainer(stopped)
    with pytest.raises(Interrupted):
        ablate(config(tiny_run, "seeds=[8]"))


def test_one_variant_alone_is_trained_for_a_sweep(tiny_run: Path, trainer: Put) -> None:
    stub = trainer(Stub())
    ablate(config(tiny_run, "variant=alexnet_no_7", "seeds=[9]", "epochs=1"))
    assert [run.run for run in stub.trained] == ["tiny/table3_ablation/alexnet_no_7_s9"]
    with pytest.raises(UserError, match="did you mean alexnet_no_7"):
        ablate(config(tiny_run, "variant=alexnet_no7"))


def test_rows_that_matter_less_get_one_net() -> None:
    config = AblateConfig(run="r", seeds=[3, 4, 5], once=["alexnet_no_7"])
    assert seeds_of(config, "alexnet_no_7") == [3] and seeds_of(config, "zfnet") == [3, 4, 5]
    assert seeds_of(AblateConfig(run="r", seed=7), "zfnet") == [7]
