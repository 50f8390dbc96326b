"""`zfrepro filters`: first-layer filters and second-layer projections of two architectures (paper, section 4.1, Fig. 6).

Networks: `own`, the run's; `sibling`, the other architecture at the same scale; `without` renormalisation, the run's own
architecture and recipe; and `with` it, where `without` was trained by another recipe than the run's (else `own` is it).
Missing ones are trained, as ordinary runs below `fig6_filters/`.

`arrays.npz`: filters_<network> (N, 3, k, k) float32; projections_<own|sibling> (M, f, f, 3) float32, both signs, of the
strongest validation image of M second-layer maps, maps_<own|sibling> (M,); frequencies_<own|sibling> (F,) cycles per pixel
and power_<own|sibling> (F,): mean spectrum of the projections along one axis, over all frequencies of the other one.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from zfrepro import statistics
from zfrepro.figures.filters import draw_figure, draw_spectra
from zfrepro.knowledge import knows_its_task
from zfrepro.models.deconvnet import Rules
from zfrepro.options.commands import IMPORTED, FiltersConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.results import writing
from zfrepro.run import TrainedRun, open_run, open_source
from zfrepro.search import exact, top_images
from zfrepro.statistics import Measure, Missing, standard_error
from zfrepro.trainer import train
from zfrepro.trainer.recipe import FROM_SCRATCH, derive
from zfrepro.visualizer.features import chosen_maps, page_of
from zfrepro.workers import in_parallel

BANDS = (1 / 6, 1 / 3)  # cycles per pixel: low | middle | high, thirds of what pixels can hold along an axis
TITLES = {"without": "without renormalisation", "with": "the same training, with renormalisation"}


def filters(config: FiltersConfig) -> None:
    """Write `fig6_filters/`, after training what is missing."""
    run = open_source(config)
    folder = config.folder / "fig6_filters"
    runs = {"own": run}
    wanted = trainings(config, run)
    tasks = [partial(train, one) for one in wanted.values()]
    logs = [one.folder / "train.log" for one in wanted.values()]
    in_parallel(tasks, logs, config.workers, config.device, "training")
    runs |= {name: open_run(dataclasses.replace(config, run=one.run)) for name, one in wanted.items()}
    hashes = "-".join(one.checkpoint_hash for one in runs.values())
    with writing(folder, config, hashes, inputs=run.data.key) as out:
        if out is None:
            return
        rules = Rules(config.unpool, config.ties)
        arrays = {f"filters_{name}": first_filters(one) for name, one in runs.items()}
        common = min(first_filters(one).shape[-1] for one in runs.values())
        metrics: dict[str, Any] = {
            name: first_layer(one, config.dead, common) | trained(one) for name, one in runs.items()
        }
        for name in ("own", "sibling"):
            if name in runs and len(runs[name].network.conv_layers) > 1:
                second, peak = second_layer(runs[name], config, rules)
                arrays |= {f"{key}_{name}": value for key, value in second.items()}
                metrics[name] |= peak
        titles = {name: TITLES.get(name, one.config.model.name) for name, one in runs.items()}
        out.arrays("arrays.npz", **arrays)
        out.figure("filters.png", draw_figure(arrays, titles))
        if "power_own" in arrays:
            strides = {name: first_stride(one) for name, one in runs.items()}
            out.figure("spectra.png", draw_spectra(arrays, metrics, titles, strides, BANDS))
        out.table(*table(metrics, titles), notes=notes(config, runs))
        metrics = {"with": metrics["own"], **metrics}
        sibling = knows_its_task(runs["sibling"]) if "sibling" in runs else {}
        measures = estimates(runs, metrics, arrays, config.dead, sibling.get("why", ""))
        out.done(metrics, measures, knows_its_task(run))


# ----------------------------------------------------------------------------------------------------------- trainings


def trainings(config: FiltersConfig, run: TrainedRun) -> dict[str, TrainConfig]:
    """The trainings that the figure needs beside the run's own; they go on where they stopped, or say they are done."""
    if run.config.preset == IMPORTED:
        return {}
    own, per_class = run.config, config.data.per_class or run.config.data.per_class
    data = dataclasses.replace(own.data, per_class=per_class)
    given = {key: getattr(config, key) or getattr(own, key) for key in ("epochs", "lr", "input_scale")}
    name, radius = "fig6_filters/without_renormalisation", own.renorm_radius
    found = {"without": derive(own, config, name, data=data, **given, renorm_radius=None)}
    if radius is None or per_class != own.data.per_class or any(getattr(own, key) != given[key] for key in given):
        name, radius = "fig6_filters/with_renormalisation", radius or 0.1
        found["with"] = derive(own, config, name, data=data, **given, renorm_radius=radius)
    sibling = config.sibling or own.model.sibling
    if sibling:
        epochs, model = config.sibling_epochs or own.epochs, load_model(sibling, "sibling")
        found["sibling"] = derive(
            own, config, f"fig6_filters/{sibling}", data=data, model=model, epochs=epochs, **FROM_SCRATCH
        )
    return found


def trained(run: TrainedRun) -> dict[str, Any]:
    """What a network's numbers rest on."""
    own = {key: getattr(run.config, key) for key in ("run", "lr", "input_scale", "renorm_radius")}
    return {**own, "model": run.config.model.name, "epochs": run.epoch}


# --------------------------------------------------------------------------------------------------------- first layer


def first_filters(run: TrainedRun) -> np.ndarray:
    """(N, channels, k, k) float32."""
    filters: np.ndarray = run.network.conv(run.network.conv_layers[0]).weight.detach().cpu().numpy()
    return filters


def first_stride(run: TrainedRun) -> int:
    """Pixels between neighbouring units of the first convolution."""
    return int(run.network.conv(run.network.conv_layers[0]).stride[0])


def first_layer(run: TrainedRun, dead: float, common: int) -> dict[str, Any]:
    """How unequal the filters are, how many are dead, and which frequencies they hold (percent of a filter's power, mean
    and standard error over the filters that are not dead), as far as windows of `common` pixels can tell."""
    values = first_filters(run)
    rms, is_dead = rms_of(values), dead_filters(run, dead)
    shares = 100 * band_shares(values[~is_dead], common)
    bands = {}
    for number, band in enumerate(("low", "middle", "high")):
        bands[band] = float(shares[:, number].mean())
        bands[f"{band}_error"] = float(standard_error(shares[:, number]))
    return {
        "rms_max_over_median": float(rms.max() / np.median(rms)),
        "rms_max": float(rms.max()),
        "rms_median": float(np.median(rms)),
        "filters": len(values),
        "dead_filters": int(is_dead.sum()),
        "dead_share": 100 * float(is_dead.mean()),
        **bands,
    }


def rms_of(filters: np.ndarray) -> np.ndarray:
    """(N,) root mean squares of filters (N, channels, k, k)."""
    rms: np.ndarray = np.sqrt((filters**2).mean((1, 2, 3)))
    return rms


def dead_filters(run: TrainedRun, dead: float) -> np.ndarray:
    """(N,) which first-layer filters no validation image excites, or whose RMS is below that share of the median."""
    rms = rms_of(first_filters(run))
    silent = top_images(run)[run.network.conv_layers[0]].values[:, 0] <= 0
    is_dead: np.ndarray = silent | (rms < dead * np.median(rms))
    return is_dead


def band_shares(filters: np.ndarray, common: int, size: int = 64) -> np.ndarray:
    """Share of each filter's power, summed over its channels, in the low, middle and high radial band: (N, 3).

    A filter is seen through all its windows of common x common pixels: a larger filter resolves its spectrum more finely,
    and would show less of one and the same spectrum in the middle band than a smaller one.
    """
    windows = sliding_window_view(filters, (common, common), axis=(2, 3))  # (N, C, places, places, common, common)
    power = (np.abs(np.fft.fft2(windows, s=(size, size))) ** 2).sum((1, 2, 3))
    line = np.fft.fftfreq(size)
    radius = np.hypot(line[:, None], line[None])
    inside = np.stack([radius < BANDS[0], (radius >= BANDS[0]) & (radius < BANDS[1]), radius >= BANDS[1]])
    by_band = np.einsum("nyx,byx->nb", power, inside.astype(float))
    shares: np.ndarray = by_band / by_band.sum(1, keepdims=True)
    return shares


# -------------------------------------------------------------------------------------------------------- second layer


def second_layer(
    run: TrainedRun, config: FiltersConfig, rules: Rules
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Projections of the strongest image of random second-layer maps, and how far the grid of the first layer's stride
    stands out of their spectrum."""
    layer = run.network.conv_layers[1]
    top = top_images(run)[layer]
    maps = chosen_maps(top, [], config.num_maps, config.seed, layer)
    top, _ = exact(run, "val", top.values.shape[1], layer, maps)
    projections = page_of(run, "val", layer, top.first(1), maps, rules)["projections"][:, 0]
    frequencies, power = axis_spectrum(projections)
    grid, side = 1 / first_stride(run), projections.shape[1]
    arrays = {"maps": maps, "projections": projections, "frequencies": frequencies, "power": power}
    if grid > 0.5:  # a stride of one leaves no grid
        return arrays, {}
    peak = {"grid_peak": grid_peak(frequencies, power, grid, side)}
    if len(projections) > 1:
        peak["grid_peak_error"] = grid_peak_error(projections, grid)
    return arrays, {"grid_frequency": grid, **peak}


def axis_spectrum(images: np.ndarray, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies 0..0.5 (cycles per pixel) and the mean power along an axis of images (M, f, f, 3), both axes averaged.

    A Hann window keeps the edges from spreading over all frequencies; every image weighs the same.
    """
    window = np.hanning(images.shape[1] + 2)[1:-1]
    total = np.zeros(size // 2 + 1)
    for image in images:
        lines = np.zeros(size // 2 + 1)
        for axis in (0, 1):
            spectrum = np.fft.rfft(image * np.expand_dims(window, tuple({0, 1, 2} - {axis})), n=size, axis=axis)
            lines += (np.abs(spectrum) ** 2).sum(tuple({0, 1, 2} - {axis}))
        if lines.sum() > 0:
            total += lines / lines.sum()
    return np.fft.rfftfreq(size), total / max(1, len(images))


def grid_peak(frequencies: np.ndarray, power: np.ndarray, grid: float, side: int) -> float:
    """Power at the grid's frequency over that of the neighbouring frequencies: 1 for a smooth spectrum.

    side: of the images, in pixels; it limits the resolution: a line seen through a Hann window is 4 / side wide. Geometric
    means, so that a spectrum that falls exponentially gives 1 as well. At 0.5 the spectrum is its own mirror image.
    """
    distance = np.abs(frequencies - grid)
    at = distance <= 1 / side
    beside = (distance > 2 / side) & (distance <= 4 / side)
    return float(np.exp(np.log(power[at]).mean() - np.log(power[beside]).mean()))


def grid_peak_error(images: np.ndarray, grid: float) -> float:
    """Standard error over the images of the peak in their mean spectrum: jackknife, each image left out in turn."""
    spectra = [axis_spectrum(image[None]) for image in images]
    frequencies, total = spectra[0][0], np.sum([power for _, power in spectra], axis=0)
    left = np.array([grid_peak(frequencies, total - power, grid, images.shape[1]) for _, power in spectra])
    return float(np.sqrt((len(left) - 1) * left.var()))


# -------------------------------------------------------------------------------------------------------------- claims


def estimates(
    runs: dict[str, TrainedRun], metrics: dict[str, Any], arrays: dict[str, np.ndarray], dead: float, lost: str = ""
) -> dict[str, Measure]:
    """The numbers on which the claims about Fig. 6 rest. lost: why the sibling shows nothing of what networks learn, if so."""
    found: dict[str, Measure] = {}
    unequal = {name: metrics[name]["rms_max_over_median"] for name in ("without", "with") if name in metrics}
    if len(unequal) == 2:
        note = f"{unequal['without']:.1f} without renormalisation, {unequal['with']:.1f} with it"
        found["dominance"] = statistics.exact(unequal["without"], "networks")
        found["dominance_over_renormalised"] = statistics.exact(
            unequal["without"] / unequal["with"], "networks", note=note
        )
    else:
        missing = Missing("a network trained without renormalisation is needed")
        found |= dict.fromkeys(("dominance", "dominance_over_renormalised"), missing)
    return found | compared(runs, metrics, arrays, dead, lost)


def compared(
    runs: dict[str, TrainedRun], metrics: dict[str, Any], arrays: dict[str, np.ndarray], dead: float, lost: str
) -> dict[str, Measure]:
    """ZFNet against AlexNet: the run's own network and its sibling, either way round. lost: see `estimates`."""
    names = {
        kind: name
        for name in ("own", "sibling")
        if name in runs
        for kind in KINDS
        if runs[name].config.model.name.startswith(kind)
    }
    if set(names) != set(KINDS) or lost:
        missing = Missing(
            f"{runs['sibling'].config.model.name}: {lost}" if lost else "a ZFNet and an AlexNet are needed"
        )
        return dict.fromkeys(
            ("fewer_dead_filters", "more_middle_band", "grid_peak_alexnet", "grid_peak_zfnet"), missing
        )
    of = {kind: metrics[name] for kind, name in names.items()}
    counts = ", ".join(f"{kind} {one['dead_filters']} of {one['filters']}" for kind, one in of.items())
    middle, common = {}, min(first_filters(runs[name]).shape[-1] for name in names.values())
    for kind, name in names.items():
        living = first_filters(runs[name])[~dead_filters(runs[name], dead)]
        middle[kind] = 100 * band_shares(living, common)[:, 1]
    bands = " and ".join(f"{middle[kind].mean():.1f} %" for kind in KINDS)
    found: dict[str, Measure] = {
        "fewer_dead_filters": statistics.exact(
            of["alexnet"]["dead_share"] - of["zfnet"]["dead_share"], "filters", "points", note=f"dead: {counts}"
        ),
        "more_middle_band": statistics.welch(middle["zfnet"], middle["alexnet"], "filters", "points", note=bands),
    }
    for kind, name in names.items():
        count = len(arrays.get(f"projections_{name}", ()))
        if "grid_peak" not in of[kind]:
            found[f"grid_peak_{kind}"] = Missing("a second convolutional layer above a stride is needed")
            continue
        error = of[kind].get("grid_peak_error", 0.0)
        found[f"grid_peak_{kind}"] = statistics.combined(
            of[kind]["grid_peak"], [(error**2, count - 1)], count, "projections"
        )
    return found


KINDS = ("zfnet", "alexnet")


# --------------------------------------------------------------------------------------------------------------- table


def table(metrics: dict[str, Any], titles: dict[str, str]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: a row a network."""
    measured = ["RMS max / median", "dead filters, %", "low, %", "middle, %", "high, %", "grid peak"]
    columns = ["network", "input scale", "renormalisation", *measured]
    keys = ("rms_max_over_median", "dead_share", "low", "middle", "high", "grid_peak")
    rows = []
    for name, m in metrics.items():
        radius = "off" if m["renorm_radius"] is None else m["renorm_radius"]
        rows.append([titles[name], f"±{128 * m['input_scale']:.3g}", radius, *map(m.get, keys)])
    return columns, rows


def notes(config: FiltersConfig, runs: dict[str, TrainedRun]) -> str:
    """What the table's numbers mean."""
    trained_for = ", ".join(f"{one.config.run}: {one.epoch} epochs" for one in runs.values())
    return (
        f"Dead: RMS below {config.dead:g} of the median, or excited by no validation image. Bands: mean share of a filter's "
        f"power below {BANDS[0]:.2f}, up to {BANDS[1]:.2f} and above cycles per pixel, all filters seen through windows of the "
        "smallest one's size. Grid peak: power of the second layer's projections at the frequency of the first layer's stride "
        f"over that of its neighbours. Trainings: {trained_for}. The paper shows these as pictures and reports no numbers."
    )
