"""A run's own data set: what its checkpoint remembers of it, and whether what lies there now is still the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zfrepro.data.identity import identify, read_originals
from zfrepro.data.locating import locate
from zfrepro.data.packed import Packed
from zfrepro.data.packing import find_packed, open_data
from zfrepro.data.sources import Source
from zfrepro.errors import UserError, listed
from zfrepro.options.shared import DataConfig

DRAWN_SPLITS = ("caltech101", "caltech256", "folder")  # may have to be split by us
NAMED = 3  # classes that a message names


@dataclass(frozen=True)
class Known:
    """What a checkpoint remembers of the data that it was trained on."""

    key: str
    class_ids: Sequence[str]  # empty: of an earlier version of the program, whose keys knew where the data lay
    split: Mapping[str, Sequence[int]]  # train, val -> images of each class


def remember(data: Packed) -> dict[str, Any]:
    """A checkpoint's entries about its data: plain values."""
    counts = {split.name: np.bincount(split.labels, minlength=data.num_classes) for split in (data.train, data.val)}
    split = {name: count.tolist() for name, count in counts.items()}
    return {"data_key": data.key, "class_ids": list(data.class_ids), "split": split}


def recall(state: Mapping[str, Any]) -> Known | None:
    """What `remember` left in a checkpoint; None where it was not trained on any data here."""
    try:
        if "data_key" in state:
            split = {name: [int(count) for count in state["split"][name]] for name in ("train", "val")}
            return Known(str(state["data_key"]), [str(name) for name in state["class_ids"]], split)
        key = state.get("trainer", {}).get("data_key")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            "what the checkpoint says of its data is damaged; move it away, or train again with resume=false"
        ) from error
    return Known(str(key), [], {}) if key else None


def open_own(config: DataConfig, known: Known | None, run: str, progress: bool = True) -> Packed:
    """The data set that a run was trained on: at `config.root`, or packed if the originals are gone.

    Raises UserError where neither is there, and where what is there is not the same any more.
    """
    if known is None:
        return open_data(config, progress)
    try:
        base = locate(config)
    except UserError:
        if (packed := find_packed(config, known.key)) is not None:
            return packed
        raise
    if identify(config, base).key == known.key:
        return open_data(config, progress)
    if (base is None or not known.class_ids) and (packed := find_packed(config, known.key)) is not None:
        return packed
    if base is None:
        raise UserError(
            f"run={run}: this version of zfrepro draws the embedded data set otherwise than it was when the run was "
            "trained, and the old one is not in the cache any more; train again with run=<another name>"
        )
    if not known.class_ids:
        if config.name not in DRAWN_SPLITS:
            return open_data(config, progress)
        raise UserError(
            f"run={run}: was trained by an earlier version of zfrepro, whose packed data set is not in {config.cache_folder} any "
            "more, and whose split cannot be drawn again; train again with run=<another name>"
        )
    raise UserError(
        f"data.root={config.root or base}: is not what run={run} was trained on: "
        f"{difference(known, find_packed(config, known.key), read_originals(config, base, progress))}; give data.root=<the data "
        "as it was>, or train on what is there now with run=<another name>"
    )


def difference(known: Known, then: Packed | None, now: Source) -> str:
    """What became of the data, in a few words. then: as packed in training, if it is still there."""
    gone = [name for name in known.class_ids if name not in set(now.class_ids)]
    new = [name for name in now.class_ids if name not in set(known.class_ids)]
    if gone or new:
        parts = ((names, word) for names, word in ((gone, "missing"), (new, "more")) if names)
        return " and ".join(
            f"{len(names)} class{'es' * (len(names) > 1)} {word} ({listed(names, NAMED)})" for names, word in parts
        )
    if list(known.class_ids) != list(now.class_ids):
        return "its classes have another order"
    before = np.sum([known.split["train"], known.split["val"]], axis=0)
    after = np.bincount(np.concatenate([now.train.labels, now.val.labels]), minlength=len(now.class_ids))
    if len(changed := np.flatnonzero(before != after)):
        first = int(changed[0])
        others = f" (and {len(changed) - 1} more classes changed)" if len(changed) > 1 else ""
        return f"class {now.class_ids[first]} had {before[first]} pictures and has {after[first]} now{others}"
    names = Counter([*now.train.files, *now.val.files])
    if then is not None and (other := sorted((names - Counter([*then.train.files, *then.val.files])).elements())):
        return f"{len(other)} of its pictures have other names, the first: {other[0]}"
    return "there are as many pictures of the same classes, but their contents or names or their split are not the same"
