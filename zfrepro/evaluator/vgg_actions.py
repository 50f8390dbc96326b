"""VGG's Table 12: what a person in a box does, from the whole image, and from the image and the box (Appendix B).

The descriptors of the image and of what lies in the box, each of unit length, are stacked. On the embedded data set the objects
of the scenes stand in: which class is the one in the box?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from zfrepro import papers
from zfrepro.data import Split
from zfrepro.errors import UserError
from zfrepro.evaluator.average_precision import mean_precision, precision_gain
from zfrepro.evaluator.describers import Descriptors, Method, Net, last_of_vgg, named, preferred, sizes_of, together
from zfrepro.evaluator.descriptors import Cut, Pool, unit_length
from zfrepro.evaluator.one_against_all import score_images
from zfrepro.evaluator.target import Target
from zfrepro.figures.transfer import Bar, draw_bars
from zfrepro.knowledge import knows_its_task
from zfrepro.options.commands import TransferConfig
from zfrepro.results import Output

TABLE12 = "vgg_table12_actions"
WAYS = ("image only", "image and bounding box")  # as the paper's last two rows


@dataclass(frozen=True)
class Instances:
    """M things in boxes."""

    images: np.ndarray  # (M,) rows of the split
    boxes: np.ndarray  # (M, 4)
    marks: np.ndarray  # (M, C) 1 where it is of the class (several may be), else 0

    @classmethod
    def of(cls, split: Split, classes: int, people: bool) -> Instances:
        """All boxes of a split. people: each row is a person with one box, its marks the actions; else a box has a class."""
        if split.boxes is None or not len(split.boxes.corners):
            raise UserError(
                "data: it knows no boxes; Table 12 needs voc2012_actions, or the embedded data set's scenes"
            )
        images = split.boxes.images
        if people and split.multi is not None:
            return cls(images, split.boxes.corners, np.asarray(split.multi)[images])
        return cls(images, split.boxes.corners, (split.boxes.labels[:, None] == np.arange(classes)).astype(np.int8))


def action_part(config: TransferConfig, nets: Sequence[Net], target: Target, out: Output) -> None:
    """Mean average precision on the validation images' boxes, with and without what lies in the box."""
    data = target.data
    people = target.config.name == "voc2012_actions"
    train, test = (Instances.of(split, data.num_classes, people) for split in (data.train, data.val))
    cuts = Cut(data.train.images, train.images, train.boxes), Cut(data.val.images, test.images, test.boxes)
    whole = Descriptors.of(nets, Pool.of(data), config)
    pool = Pool(f"{data.manifest['name']}_boxes", f"{data.key} boxes", cuts)
    boxed = Descriptors.of(nets, pool, config)
    first, count = len(data.train), len(train.marks)
    scores: dict[tuple[str, str], np.ndarray] = {}
    methods = combinations(nets, config.join or "mean")
    for method in tqdm(methods, desc=f"{target.name}, boxes: SVMs", unit="method", disable=None):
        images = whole.rows(method, train.images), whole.rows(method, first + test.images)
        boxes = boxed.rows(method, np.arange(count)), boxed.rows(method, count + np.arange(len(test.marks)))
        both = tuple(unit_length(np.concatenate(pair, axis=1)) for pair in zip(images, boxes))
        for way, (own, other) in zip(WAYS, (images, both)):
            found, _ = score_images(own, other, train.marks, config.costs, config.seed, mean_precision)
            scores[named(nets, method), way] = found
    write(nets, target, out, scores, test.marks, methods)


def combinations(nets: Sequence[Net], join: str) -> list[Method]:
    """Each network, and VGG's together."""
    return [*(preferred(net, index, join) for index, net in enumerate(nets)), *together(nets, join)]


def write(
    nets: Sequence[Net], target: Target, out: Output, scores: Mapping[tuple[str, str], np.ndarray], truth: np.ndarray,
    methods: Sequence[Method],
) -> None:  # fmt: skip
    """Table, picture, arrays, metrics; the claim rests on VGG's networks, together if there are several."""
    sizes = {named(nets, method): sizes_of(nets, method) for method in methods}
    values = {key: 100 * mean_precision(found, truth) for key, found in scores.items()}
    rows: list[tuple[Any, ...]] = [
        (f"the paper's, voc2012: {row['method']}", None, row["voc2012_action_map"])
        for row in papers.reported("vgg_table12_actions")
    ]
    bars = [Bar(label, value, None, True) for label, _, value in rows]
    for (name, way), value in values.items():
        rows.append((f"ours: {name}, {way}", sizes[name], value))
        bars.append(Bar(f"{name}, {way}", value, None, False))
    said = notes(nets, target, len(truth))
    shown = out.table_with_others(["method", "scales", "mean_average_precision"], rows, said)
    names = np.array([", ".join(key) for key in scores])
    out.arrays(f"{target.slug}.npz", methods=names, scores=np.stack(list(scores.values())), truth=truth)
    out.figure(f"{target.slug}.png", draw_bars(bars, f"Table 12: {target.name}", "mean average precision (%)"))
    last = named(nets, last_of_vgg(nets, methods))
    gain = precision_gain(scores[last, WAYS[1]], scores[last, WAYS[0]], truth, "boxes")
    metrics = {
        "methods": {f"{name}, {way}": value for (name, way), value in values.items()},
        "target_key": target.data.key,
        **shown,
    }
    out.done(metrics, {"box_minus_image": gain}, knows_its_task(nets[0].run))
    for (name, way), value in values.items():
        print(f"{target.name}, boxes, {name}, {way}: {value:.1f} % mean average precision")


def notes(nets: Sequence[Net], target: Target, count: int) -> str:
    """What ours were measured on."""
    described = "; ".join(
        f"{net.run.config.run}: {net.model} trained on {net.run.config.data.name}, layer {net.layer}" for net in nets
    )
    what = (
        "people"
        if target.config.name == "voc2012_actions"
        else "objects, whose class is asked for instead of an action,"
    )
    return (
        f"Mean average precision in percent. The paper's: actions of PASCAL VOC 2012, test, networks trained on ImageNet. Ours: "
        f"{target.name}, {count} {what} in the validation images, {target.data.num_classes} classes. {described}. Descriptors as "
        "in Table 11, of the image and of what lies in the box."
    )
