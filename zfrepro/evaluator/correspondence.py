"""`zfrepro correspond`: do features answer alike when the same part is masked in different images? (paper, section
4.3, Fig. 8, Table 1.)

For image i and a mask, eps_i = x_i - x~_i is what the mask takes from a layer's features. A part's score is the mean,
over ordered pairs i != j of a draw of images, of the share of entries in which sign(eps_i) and sign(eps_j) differ; sign
has three values. Low: the same features answer. Parts are compared with random places on the object apart from them.

Masks stand at the data set's key points (embedded data), or at a user's boxes, `parts=file.csv`:

    image,part,left,top,right,bottom
    rex.jpg,right_eye,210,180,260,225

one line an image and part, pixels of the picture file (right and bottom excluded), files relative to the .csv's
folder; every image needs every part. The part `object`, if given, bounds the random places, and is not compared itself.

`arrays.npz`: images (N, s, s, 3) uint8 of the draw; names; parts (P,); boxes (N, P, 4) and random_boxes (N, R, 4): y0,
x0, y1, x1 in pixels of the network's input; layers (L,); hamming (L, P + R, N, N): pairwise, the random places last.
`draws.npz`: scores (L, draws, P + 1) of random draws of images of the class (random places last); groups (L, G, P + 1)
of disjoint draws, of all classes that have the parts; group_class (G,); and of the same disjoint draws the two measures
beyond the paper, groups_changed (L, G, P + 1) and groups_other_part (L, G), and the matched places groups_matched (L, G, P).

The paper's measure counts features that neither mask touches as alike, so a mask that changes fewer features scores
lower wherever it stands, and masks far from the centre change fewer. Parts are therefore also compared with *matched* places:
for each image and part the random place that lies about as far from the centre and changes about as many features. On these
the claim is decided. Two more measures are free of that bias: the distance over the features that at least one of the two
masks changes, and the same part in two images against two different parts in two images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro import papers, statistics
from zfrepro.data import read_image
from zfrepro.data.decode import picture_size
from zfrepro.data.matching import Classes
from zfrepro.errors import UserError, require_layer
from zfrepro.evaluator import pictures as choice
from zfrepro.figures.correspondence import draw_masks, draw_scores
from zfrepro.files import as_named, digest
from zfrepro.forward import batch_size
from zfrepro.knowledge import knows_its_task
from zfrepro.lists import read_table
from zfrepro.options.commands import CorrespondConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Estimate, Measure, Missing, signed_rank

PARTS = ("right_eye", "left_eye", "nose")
COLUMNS = ("image", "part", "left", "top", "right", "bottom")
RANDOM_PLACES = 24  # for each image: their mean is compared with the parts, and from them the matched ones are chosen
ON_OBJECT = 0.8  # share of a random place that lies on the object, where the object has room for it
MIN_GROUPS = 6  # disjoint draws for a test to say anything


@dataclass(frozen=True)
class Subjects:
    """N images of one class with P named parts. Boxes: y0, x0, y1, x1 in pixels of the network's input."""

    class_name: str
    names: list[str]
    images: np.ndarray  # (N, S, S, 3) uint8, as packed
    parts: tuple[str, ...]
    boxes: np.ndarray  # (N, P, 4) int64
    random: np.ndarray  # (N, R, 4) int64

    def __len__(self) -> int:
        return len(self.images)


def correspond(config: CorrespondConfig) -> None:
    """Write `table1_correspondence/`: Table 1, Figure 8 and the numbers behind them."""
    run = open_run(config)
    top = run.network.conv_layers[-1]
    layers = list(config.layers) or sorted({top, run.network.feature_layers[-1]})  # one where nothing is above
    for layer in layers:
        require_layer("layers", layer, run.network.feature_layers)
    subjects = [subjects_of_file(run, config)] if config.parts else subjects_of_data(run, config)
    chosen = _chosen(run, subjects, config)
    fill = choice.fill_input(run, config.fill, config.seed)
    given = run.data.key
    if config.parts:  # all that the file comes to: the places of the object are in the random ones, which it bounds
        called = np.array([chosen.class_name, *chosen.names, *chosen.parts])
        given = digest(chosen.images, chosen.boxes, chosen.random, called)
    folder = config.folder / "table1_correspondence"
    with writing(folder, config, run.checkpoint_hash, inputs=given) as out:
        if out is None:
            return
        count, generator = config.num_images, np.random.default_rng(config.seed)
        most = min(config.batch_size, batch_size(run.network, layers, run.device.type))
        distances = {one.class_name: distances_of(run, one, fill, layers, most) for one in subjects}
        own = distances[chosen.class_name].hamming
        first = generator.permutation(len(chosen))[:count]
        parts = len(chosen.parts)
        shown = own[:, :, first][..., first]  # (L, P + R, n, n)
        draws = np.stack(
            [scores(own, generator.permutation(len(chosen))[:count], parts) for _ in range(config.draws)], axis=1
        )
        groups = disjoint_groups(subjects, distances, count, generator)
        table = [score_pairs(shown[i], parts) for i in range(len(layers))]
        names, images = (*chosen.parts, "random"), [chosen.names[i] for i in first]
        metrics: dict[str, Any] = {"class": chosen.class_name, "images": images, "fill": config.fill}
        for i, layer in enumerate(layers):
            metrics[f"layer{layer}"] = _layer_metrics(names, table[i], draws[i], groups, i)
        crops = run.crops(chosen.images[first]).numpy()
        filled = choice.fill_pixels(run, fill)
        reported = _reported(names, layers, run.config.model.name)
        out.figure("masks.png", draw_masks(crops, chosen.boxes[first], chosen.random[first, :2], filled, chosen.parts))
        out.figure("scores.png", draw_scores(names, layers, table, draws, reported))
        _table(out, names, layers, table, draws, chosen, count, reported)
        out.arrays(
            "arrays.npz",
            images=crops,
            names=np.array(images),
            parts=np.array(chosen.parts),
            boxes=chosen.boxes[first],
            random_boxes=chosen.random[first],
            layers=np.array(layers),
            hamming=shown,
        )
        out.arrays(
            "draws.npz",
            scores=draws,
            groups=groups.hamming,
            groups_changed=groups.changed,
            groups_other_part=groups.other_part,
            groups_matched=groups.matched,
            group_class=np.array(groups.classes),
        )
        out.done(metrics, relative_gaps(groups, layers), knows_its_task(run))
        _print(metrics, layers)


# ---------------------------------------------------------------------------------------------------------- the images


def subjects_of_data(run: TrainedRun, config: CorrespondConfig) -> list[Subjects]:
    """Validation images of every class whose images show all PARTS. Raises UserError where the data set has none."""
    data, split = run.squares, run.squares.val
    if split.truth is None or not set(PARTS) <= set(data.keypoint_names):
        raise UserError(
            f"run={config.run}: its data set knows no {', '.join(PARTS)}; "
            f"give parts=<file.csv> with lines {','.join(COLUMNS)}"
        )
    size, start = run.network.input_size, (data.size - run.network.input_size) // 2
    side = max(1, round(config.mask * size))
    columns = [data.keypoint_names.index(part) for part in PARTS]
    points = np.asarray(split.truth.keypoints[:, columns], dtype=np.float64) - start  # (N, P, 2): x, y in the crop
    with np.errstate(invalid="ignore"):
        corners = np.round(points[..., ::-1] - side / 2)  # y, x
        seen = ((corners >= 0) & (corners + side <= size)).all((1, 2))
    generator, found = np.random.default_rng(config.seed), []
    for label in np.unique(split.labels[seen]):
        rows = np.flatnonzero(seen & (split.labels == label))
        low = corners[rows].astype(np.int64)
        boxes = np.concatenate([low, low + side], -1)
        masks = run.crops(np.stack([split.truth.masks[row] for row in rows])).numpy() / 255.0
        random = np.stack([random_places(m, b, RANDOM_PLACES, generator) for m, b in zip(masks, boxes)])
        own = choice.take(run, rows)
        found.append(Subjects(data.class_names[label], own.names, own.images, PARTS, boxes, random))
    return found


def subjects_of_file(run: TrainedRun, config: CorrespondConfig) -> Subjects:
    """A user's pictures and boxes. Raises UserError for whatever is wrong with the file, with its line."""
    assert config.parts is not None
    path = Path(config.parts).expanduser()
    boxes = read_parts(path)
    parts = tuple(dict.fromkeys(part for image in boxes.values() for part in image if part != "object"))
    generator, found = np.random.default_rng(config.seed), []
    size, start = run.mean.shape[0], (run.mean.shape[0] - run.network.input_size) // 2
    for name, own in boxes.items():
        if missing := [part for part in parts if part not in own]:
            raise UserError(f"{path}: {name} has no line for {', '.join(missing)}; every image needs every part")
        file = path.parent / as_named(path.parent, name)
        pixels = read_image(file, size)
        height, width = picture_size(file)
        placed = {
            part: place_box(box, (width, height), size, start, run.network.input_size, f"{path}: {name}, {part}")
            for part, box in own.items()
        }
        mask = np.zeros((run.network.input_size,) * 2)
        y0, x0, y1, x1 = placed.get("object", np.array([0, 0, *mask.shape]))
        mask[y0:y1, x0:x1] = 1
        here = np.stack([placed[part] for part in parts])
        found.append((name, pixels, here, random_places(mask, here, RANDOM_PLACES, generator)))
    names, images, here, random = zip(*found)
    return Subjects(path.stem, list(names), np.stack(images), parts, np.stack(here), np.stack(random))


def read_parts(path: Path) -> dict[str, dict[str, tuple[float, ...]]]:
    """image -> part -> left, top, right, bottom, in the file's order. Raises UserError for a file that is not so."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for row in read_table(path, COLUMNS, "parts"):
        box, image, part = row.pixels(*COLUMNS[2:]), row["image"].replace("\\", "/"), row["part"]
        if not image or not part or part == "random":
            raise UserError(f"{row.where}: needs an image and the name of a part ('random' is taken)")
        if part in found.setdefault(image, {}):
            raise UserError(f"{row.where}: {image} has {part} twice")
        found[image][part] = box
    if len(found) < 2 or not any(part != "object" for own in found.values() for part in own):
        raise UserError(f"{path}: needs parts in at least two images, to compare them in pairs")
    return found


def place_box(box: Sequence[float], shape: tuple[int, int], size: int, start: int, crop: int, where: str) -> np.ndarray:
    """A box of a picture of `shape` (width, height) -> y0, x0, y1, x1 in the network's input, cut at its border.

    The picture's smaller side becomes `size`, its centre is kept (as packed), the crop begins at `start`. Raises
    UserError for a box that is empty or outside.
    """
    left, top, right, bottom = box
    width, height = shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        given = f"{left:g},{top:g},{right:g},{bottom:g}"
        raise UserError(f"{where}: the box {given} is empty or outside the image of {width} x {height} pixels")
    scale = size / min(width, height)
    x0, x1 = ((value - width / 2) * scale + size / 2 - start for value in (left, right))
    y0, y1 = ((value - height / 2) * scale + size / 2 - start for value in (top, bottom))
    found = np.array([round(y0), round(x0), max(round(y1), round(y0) + 1), max(round(x1), round(x0) + 1)])
    found = found.clip(0, crop)
    if found[2] <= found[0] or found[3] <= found[1]:
        raise UserError(f"{where}: the box lies outside the centre of the picture, which is all that the network sees")
    return found


def random_places(mask: np.ndarray, boxes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, 4) boxes as large as the parts' on average, on the object, apart from the parts.

    mask: (s, s) in [0, 1]; boxes: (P, 4). At least ON_OBJECT of a box lies on the object, or as much as is possible;
    where no place is apart from the parts, those that overlap least are taken.
    """
    high, wide = (max(1, round(float((boxes[:, i + 2] - boxes[:, i]).mean()))) for i in (0, 1))
    on_object = F.avg_pool2d(torch.from_numpy(mask)[None], (high, wide), 1)[0].numpy()
    y, x = np.indices(on_object.shape)
    overlap = np.zeros(on_object.shape)
    for y0, x0, y1, x1 in boxes:
        common = np.clip(np.minimum(y + high, y1) - np.maximum(y, y0), 0, None)
        overlap += common * np.clip(np.minimum(x + wide, x1) - np.maximum(x, x0), 0, None)
    apart = overlap <= overlap.min()
    room = min(ON_OBJECT, float(on_object[apart].max()))
    places = np.argwhere(apart & (on_object >= room))
    corner = places[generator.choice(len(places), count, replace=len(places) < count)]
    return np.concatenate([corner, corner + [high, wide]], 1)


def _chosen(run: TrainedRun, subjects: list[Subjects], config: CorrespondConfig) -> Subjects:
    """The class of the figure and the table."""
    by_name = {one.class_name: one for one in subjects if len(one) >= config.num_images}
    if config.parts:
        if not by_name:
            there = f"{config.parts} has {len(subjects[0])} images only"
            raise UserError(f"num_images={config.num_images}: {there}; give fewer or add some")
        return subjects[0]
    name = "dog" if "dog" in by_name else next(iter(by_name), "")
    if config.class_name is not None:
        classes = Classes(run.class_ids, run.class_names)
        name = run.class_names[choice.class_number(classes, config.class_name, "class_name")]
    least = f"num_images={config.num_images}, mask={config.mask}"
    if not by_name:
        raise UserError(f"{least}: no class has so many validation images with every mask inside; give less of either")
    if name not in by_name:
        raise UserError(
            f"class_name={name}: too few validation images show all parts ({least}); there are {', '.join(by_name)}"
        )
    return by_name[name]


# --------------------------------------------------------------------------------------------------------- the measure


@torch.no_grad()
def signs(
    run: TrainedRun, images: np.ndarray, boxes: np.ndarray, fill: Tensor, layers: list[int], batch: int
) -> dict[int, Tensor]:
    """sign(x - x~) for each image under each of its masks: layer -> (M, N, D) int8. boxes: (N, M, 4).

    Clean and masked images pass in batches of one shape, the same image at the same place: a feature that the mask does
    not touch comes out bit for bit alike, and its sign is an exact zero.
    """
    found: dict[int, list[list[Tensor]]] = {layer: [[] for _ in range(boxes.shape[1])] for layer in layers}
    for start in range(0, len(images), batch):
        inputs = run.inputs(images[start : start + batch]).contiguous(memory_format=torch.channels_last)
        clean = run.network.features(inputs, layers)
        for m in range(boxes.shape[1]):
            masked = inputs.clone(memory_format=torch.preserve_format)
            for canvas, (y0, x0, y1, x1) in zip(masked, boxes[start : start + batch, m].tolist()):
                canvas[:, y0:y1, x0:x1] = fill[:, y0:y1, x0:x1]
            changed = run.network.features(masked, layers)
            for layer in layers:
                found[layer][m].append(torch.sign(clean[layer] - changed[layer]).flatten(1).to(torch.int8))
    return {layer: torch.stack([torch.cat(one) for one in variants]) for layer, variants in found.items()}


@dataclass(frozen=True)
class Distances:
    """Pairwise distances of N images' signs at L layers, float64; P parts, R random places."""

    hamming: np.ndarray  # (L, P + R, N, N): the paper's
    changed: np.ndarray  # (L, P + R, N, N): over the features that at least one of the two masks changes
    other_part: np.ndarray  # (L, N, N): image i under one part's mask, j under another's; mean over pairs of parts
    matched: np.ndarray  # (L, P, N, N): the paper's measure at the places matched to each part, see `matched_places`


def alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every pair of rows of a and b, (N, D) of -1, 0, 1: how many entries are alike, and how many are 0 in both."""
    same = [(a == value).double() @ (b == value).double().T for value in (-1, 0, 1)]
    return same[0] + same[1] + same[2], same[1]


def hamming_matrix(a: Tensor, b: Tensor, changed_only: bool = False) -> Tensor:
    """Share of entries that differ, for every pair of rows of (N, D) signs: (N, N) float64. `changed_only`: of those that
    are not 0 in both; 0 where there is none."""
    equal, zero = alike(a, b)
    compared = a.shape[1] - zero if changed_only else torch.full_like(zero, a.shape[1])
    return (a.shape[1] - equal) / compared.clamp(min=1)


def distances_of(run: TrainedRun, subjects: Subjects, fill: Tensor, layers: list[int], batch: int) -> Distances:
    """All pairs under each part's mask and each random place's."""
    boxes = np.concatenate([subjects.boxes, subjects.random], 1)
    found = signs(run, subjects.images, boxes, fill, layers, batch)
    away = distance_from_centre(boxes, run.network.input_size)
    each = [distances_at(found[layer], away, len(subjects.parts)) for layer in layers]
    return Distances(*(np.stack(arrays) for arrays in zip(*each)))


def distances_at(found: Tensor, away: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One layer's `Distances`. found: signs (P + R, N, D); away: the masks' distances from the centre (N, P + R)."""
    pairs = [(p, q) for p in range(parts) for q in range(parts) if p != q]
    other = [hamming_matrix(found[p], found[q]) for p, q in pairs]
    count = found.shape[1]
    places = matched_places((found != 0).sum(2).T.cpu().numpy(), away, parts)
    images = torch.arange(count)
    matched = [found[parts + torch.from_numpy(places[:, p]), images] for p in range(parts)]

    def stacked(matrices: Sequence[Tensor]) -> np.ndarray:
        return torch.stack(list(matrices)).cpu().numpy()

    return (
        stacked([hamming_matrix(one, one) for one in found]),
        stacked([hamming_matrix(one, one, True) for one in found]),
        stacked(other).mean(0) if other else np.full((count, count), np.nan),
        stacked([hamming_matrix(one, one) for one in matched]),
    )


def distance_from_centre(boxes: np.ndarray, size: int) -> np.ndarray:
    """(N, M) pixels between the middle of each box (N, M, 4) and that of the network's input."""
    y, x = ((boxes[..., i] + boxes[..., i + 2]) / 2 - size / 2 for i in (0, 1))
    distance: np.ndarray = np.hypot(y, x)
    return distance


def matched_places(changed: np.ndarray, away: np.ndarray, parts: int) -> np.ndarray:
    """(N, P) which of an image's R random places is most like each of its parts: in how many features its mask changes, and in
    its distance from the centre. changed, away: (N, P + R), the parts first.

    Both are compared as ratios: a place that changes half as many features is as unlike as one that changes twice as many.
    """
    unlike = sum(
        np.abs(np.log((one[:, None, parts:] + 1) / (one[:, :parts, None] + 1))) for one in (changed.astype(float), away)
    )
    places: np.ndarray = np.asarray(unlike).argmin(2)
    return places


def score_pairs(hamming: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std over the ordered pairs i != j: (P + 1,) each, the random places (all of them together) last.

    hamming: (P + R, n, n).
    """
    pairs = hamming[:, ~np.eye(hamming.shape[1], dtype=bool)]  # (P + R, n * (n - 1))
    split = [*pairs[:parts], pairs[parts:].ravel()]
    return np.array([values.mean() for values in split]), np.array([values.std() for values in split])


def scores(hamming: np.ndarray, rows: np.ndarray, parts: int) -> np.ndarray:
    """Means of one draw of images at every layer: (L, P + 1). hamming: (L, P + R, N, N)."""
    return np.stack([score_pairs(layer[:, rows][:, :, rows], parts)[0] for layer in hamming])


@dataclass(frozen=True)
class Groups:
    """Scores of G draws that share no image, of every class; see `Distances`."""

    hamming: np.ndarray  # (L, G, P + 1), random places last
    changed: np.ndarray  # (L, G, P + 1)
    other_part: np.ndarray  # (L, G)
    matched: np.ndarray  # (L, G, P): the random places that are like each part
    classes: list[str]  # (G,)


def disjoint_groups(
    subjects: list[Subjects], distances: dict[str, Distances], count: int, generator: np.random.Generator
) -> Groups:
    """Every class's images in a random order, cut into draws of `count`."""
    paper_way, changed, other, matched, classes = [], [], [], [], []
    for one in subjects:
        found, order = distances[one.class_name], generator.permutation(len(one))
        for group in range(len(one) // count):
            rows = order[group * count : (group + 1) * count]
            paper_way.append(scores(found.hamming, rows, len(one.parts)))
            changed.append(scores(found.changed, rows, len(one.parts)))
            apart = ~np.eye(count, dtype=bool)
            other.append(found.other_part[:, rows][:, :, rows][:, apart].mean(1))
            matched.append(found.matched[:, :, rows][..., rows][:, :, apart].mean(2))
            classes.append(one.class_name)
    ways = [np.stack(scored, 1) for scored in (paper_way, changed, other, matched)]
    return Groups(ways[0], ways[1], ways[2], ways[3], classes)


# -------------------------------------------------------------------------------------------------------------- output


def _layer_metrics(
    names: Sequence[str], table: tuple[np.ndarray, np.ndarray], draws: np.ndarray, groups: Groups, layer: int
) -> dict[str, Any]:
    """One layer's numbers: the draw of the table, intervals over draws, and paired tests on disjoint draws.

    draws: (draws, P + 1); layer: its place in `groups`.
    """
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    own, changed, other = groups.hamming[layer], groups.changed[layer], groups.other_part[layer]
    parts, random = own[:, :-1].mean(1), own[:, -1]
    enough = len(own) >= MIN_GROUPS
    paired = _paired(parts, random, "random_minus_parts")
    return {
        "draw": {name: {"mean": m, "std": s} for name, m, s in zip(names, *table)},
        "draws": {name: {"mean": draws[:, i].mean(), "low": low[i], "high": high[i]} for i, name in enumerate(names)},
        "disjoint_draws": len(own),
        **paired,
        "random_minus_parts_relative": float((random - parts).mean() / random.mean()) if random.mean() > 0 else None,
        "p_value_parts_below_random": paired["p_value"],
        "p_values": {n: signed_rank(own[:, i], random) if enough else None for i, n in enumerate(names[:-1])},
        "over_changed_features": {
            "parts": float(changed[:, :-1].mean()),
            "random": float(changed[:, -1].mean()),
            **_paired(changed[:, :-1].mean(1), changed[:, -1], "random_minus_parts"),
        },
        "over_matched_places": {
            "parts": float(parts.mean()),
            "random": float(groups.matched[layer].mean()),
            **_paired(parts, groups.matched[layer].mean(1), "random_minus_parts"),
        },
        "same_part_against_other_part": {
            "same": float(parts.mean()),
            "other": float(other.mean()),
            **_paired(parts, other, "other_minus_same"),
        },
    }


def relative_gaps(groups: Groups, layers: Sequence[int]) -> dict[str, Measure]:
    """Table 1's claim: how much less parts differ than the random places matched to them, in percent of these places' distance,
    over draws that share no image; at the lower of the layers, and at the upper one minus half of that."""
    names = ("gap_lower", "gap_upper_minus_half_lower")
    count, order = len(groups.classes), np.argsort(layers)
    if len(layers) < 2 or count < MIN_GROUPS:
        why = (
            "two layers are needed, layers=[a,b]"
            if len(layers) < 2
            else f"{count} draws share no image; {MIN_GROUPS} are needed"
        )
        return dict.fromkeys(names, Missing(why))
    random = groups.matched.mean(-1)  # (L, G)
    if not (random.mean(1) > 0).all():
        dead = layers[int(np.argmin(random.mean(1)))]
        return dict.fromkeys(names, Missing(f"layer {dead} answers to no mask"))
    gaps = 100 * (random - groups.hamming[..., :-1].mean(-1)) / random.mean(1, keepdims=True)
    lower, upper = gaps[order[0]], gaps[order[-1]]
    note = f"layer {layers[order[0]]}: {lower.mean():.1f} %, layer {layers[order[-1]]}: {upper.mean():.1f} %"
    return {
        "gap_lower": statistics.mean(lower, "draws", "%", f"layer {layers[order[0]]}"),
        "gap_upper_minus_half_lower": statistics.paired(upper, lower / 2, "draws", "points", note),
    }


def _paired(low: np.ndarray, high: np.ndarray, name: str) -> dict[str, float | None]:
    """Mean of high - low over disjoint draws, its 95 % interval (Student's t), and the test of low < high."""
    difference = high - low
    found: dict[str, float | None] = {name: float(difference.mean()), f"{name}_low": None, f"{name}_high": None}
    found["p_value"] = None
    if len(difference) >= MIN_GROUPS and not np.isnan(difference).any():
        over = statistics.mean(difference, "draws")
        assert isinstance(over, Estimate)
        found |= {f"{name}_low": over.low, f"{name}_high": over.high}
        found["p_value"] = signed_rank(low, high)
    return found


def _reported(names: Sequence[str], layers: list[int], model: str) -> list[list[tuple[float, float] | None]]:
    """The paper's mean and std, layer by layer and part by part; None where it has none: layers of another `model` are not
    the paper's."""
    same = papers.zfnet.PAPER.is_about(model)
    rows = {str(row["occlusion"]): row for row in papers.reported("table1_correspondence")} if same else {}

    def pair(row: dict[str, Any], layer: int) -> tuple[float, float] | None:
        mean, std = (row.get(f"layer{layer}_{kind}") for kind in ("mean", "std"))
        return None if mean is None or std is None else (mean, std)

    return [[pair(rows.get(name, {}), layer) for name in names] for layer in layers]


def _table(
    out: Output, names: Sequence[str], layers: list[int], table: list[tuple[np.ndarray, np.ndarray]], draws: np.ndarray,
    chosen: Subjects, count: int, reported: list[list[tuple[float, float] | None]],
) -> None:  # fmt: skip
    """Table 1: the paper's numbers beside ours."""
    columns = ["occlusion"]
    for layer in layers:
        ours = ("mean", "std", "draws_mean", "draws_low", "draws_high")
        columns += [f"layer{layer}_paper_mean", f"layer{layer}_paper_std", *(f"layer{layer}_{key}" for key in ours)]
    rows = []
    for p, name in enumerate(names):
        row: list[str | None] = [name]
        for i in range(len(layers)):
            low, high = np.percentile(draws[i, :, p], [2.5, 97.5])
            own = (table[i][0][p], table[i][1][p], draws[i, :, p].mean(), low, high)
            row += [None if value is None else f"{value:.3f}" for value in (*(reported[i][p] or (None, None)), *own)]
        rows.append(row)
    out.table(
        columns,
        rows,
        f"Normalised Hamming distance of the signs, mean and std over the ordered pairs of {count} images of "
        f"'{chosen.class_name}'; draws: mean and 95 % interval over random draws of {count} of {len(chosen)} images. "
        "Paper: five images of dogs.",
    )


def _print(metrics: dict[str, Any], layers: list[int]) -> None:
    """The claim in two lines a layer."""
    for layer in layers:
        one = metrics[f"layer{layer}"]
        drawn = ", ".join(f"{name} {value['mean']:.3f}" for name, value in one["draws"].items())
        print(f"layer {layer}: {drawn}")
        if one["p_value"] is None:
            continue
        changed, other = one["over_changed_features"], one["same_part_against_other_part"]
        found = [
            ("random - parts", one["random_minus_parts"], one["p_value"]),
            ("over changed features", changed["random_minus_parts"], changed["p_value"]),
            ("other part - same part", other["other_minus_same"], other["p_value"]),
        ]
        # one part has no other
        said = [f"{what} {value:+.3f} (p = {p:.1e})" for what, value, p in found if p is not None]
        print(f"  {one['disjoint_draws']} disjoint draws: {'; '.join(said)}")
