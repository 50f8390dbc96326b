"""The three panels of a page that one can touch, from the arrays behind Figures 2, 4 and 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zfrepro.figures.features import contrast
from zfrepro.figures.style import symmetric
from zfrepro.report.pieces import bytes_of, pixels_uri

# pixels: up to here a tile of Figures 2 and 4 is kept exactly; larger ones are compressed as photographs are
SMALL = 64


# -------------------------------------------------------------------------------------------- Figure 2: layers and maps


def feature_panel(arrays: Mapping[str, np.ndarray], layer: int) -> dict[str, Any] | None:
    """One layer: a picture for each map, its projections on the left and its patches on the right, 3 x 3 each."""
    projections, patches = arrays["projections"], arrays["patches"]
    activations, numbers, files = arrays["activations"], arrays["maps"], arrays["files"]
    if projections.shape[1] < 9:
        return None  # the panel's blocks are 3 x 3
    tile = projections.shape[2]
    gap = max(1, tile // 16)
    maps, data = [], []
    for row, count in enumerate(numbers.tolist()):
        own = projections[row]
        blocks = [bytes_of(symmetric(own, contrast(own))), patches[row]]
        maps.append(
            {
                "number": count,
                "uri": pixels_uri(block_pair(blocks, gap), lossless=tile <= SMALL),
                "range": f"{activations[row].min():.3g} to {activations[row].max():.3g}",
            }
        )
        data.append({"number": count, "activations": significant(activations[row], 4), "names": files[row].tolist()})
    side = 3 * tile + 2 * gap
    shared = {"layer": layer, "tile": tile, "gap": gap, "middle": 2 * gap, "width": 2 * side + 3 * gap, "height": side}
    return {"layer": layer, "maps": maps, "data": {**shared, "maps": data}}


def block_pair(blocks: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Two times nine tiles (9, t, t, 3) uint8 -> (3t + 2gap, 2(3t + 2gap) + 3gap, 4), see-through between the tiles."""
    tile = blocks[0].shape[1]
    side = 3 * tile + 2 * gap
    canvas = np.zeros((side, 2 * side + 3 * gap, 4), np.uint8)
    for block, left in zip(blocks, (0, side + 3 * gap), strict=True):
        for i, image in enumerate(block[:9]):
            y, x = i // 3 * (tile + gap), left + i % 3 * (tile + gap)
            canvas[y : y + tile, x : x + tile, :3] = image
            canvas[y : y + tile, x : x + tile, 3] = 255
    return canvas


def significant(values: np.ndarray, digits: int) -> list[Any]:
    """An array as nested lists of numbers with so many significant digits: a page of text, not of noise."""
    return np.vectorize(lambda value: float(f"{value:.{digits}g}"), otypes=[float])(values).tolist()


# -------------------------------------------------------------------------------------------------- Figure 4: evolution


def evolution_panel(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For each layer one picture, maps down and epochs across, through which the page's slider moves."""
    epochs = arrays["epochs"].tolist()
    layers = []
    for layer in sorted(int(name.removeprefix("projections_")) for name in arrays if name.startswith("projections_")):
        projections, images = arrays[f"projections_{layer}"], arrays[f"images_{layer}"]  # (R, E, f, f, 3), (R, E)
        rows, count, side = projections.shape[:3]
        shown = np.stack([bytes_of(symmetric(one, contrast(one))) for row in projections for one in row])
        shown = shown.reshape(projections.shape)
        sheet = shown.transpose(0, 2, 1, 3, 4).reshape(rows * side, count * side, 3)
        jumps = np.concatenate([np.zeros((rows, 1), bool), images[:, 1:] != images[:, :-1]], axis=1)
        frames = [
            {"map": number, "row": 100 * i / max(1, rows - 1), "jumps": "".join(map(str, jumps[i].astype(int)))}
            for i, number in enumerate(arrays[f"maps_{layer}"].tolist())
        ]
        uri = pixels_uri(sheet, lossless=side <= SMALL)
        layers.append({"layer": layer, "uri": uri, "frames": frames, "zoom_x": 100 * count, "zoom_y": 100 * rows})
    return {"data": {"epochs": epochs}, "layers": layers}


# -------------------------------------------------------------------------------------------------- Figure 7: occlusion


def occlusion_panel(arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The explorer's images and numbers: for every position of the square, row by row, what `arrays.npz` holds. None for a
    network without softmax: the picture shows all there is."""
    if np.isnan(arrays["probability"]).all():
        return None
    names = [str(name) for name in arrays["class_names"]]
    fields = ("probability", "top_probability", "activity")
    values = {
        name: arrays[name] for name in (*fields, "top_class", "labels", "maps", "clean_probability", "clean_activity")
    }
    images = []
    for i in range(len(arrays["images"])):
        image: dict[str, Any] = {name: significant(values[name][i].ravel(), 5) for name in fields}
        image |= {name: values[name][i].item() for name in ("clean_probability", "clean_activity")}
        image |= {"label": values["labels"][i].item(), "map": values["maps"][i].item()}
        images.append({**image, "top_class": values["top_class"][i].ravel().tolist()})
    return {
        "data": {
            "size": int(arrays["images"].shape[1]),
            "square": int(arrays["square"]),
            "layer": int(arrays["layer"]),
            "ys": arrays["ys"].tolist(),
            "xs": arrays["xs"].tolist(),
            "class_names": names,
            "fill": pixels_uri(arrays["fill_pixels"]),
            "images": images,
        },
        "thumbnails": [
            {"uri": pixels_uri(image), "name": f"{names[label]} ({name})"}
            for image, label, name in zip(
                arrays["images"], values["labels"].tolist(), arrays["names"].tolist(), strict=True
            )
        ],
    }
