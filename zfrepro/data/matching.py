"""Classes by name: which of a network's classes a data set's are, where the two number them differently.

A class has an id of its data set (a WordNet id such as n02123045, or a folder's name) and a readable name, perhaps with
synonyms ('tabby, tabby cat').
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from zfrepro.errors import listed

NAMED = 5  # classes that a message names
UNNAMED = " (an imported one's are named by `zfrepro import classes=<file>`)"


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet ids of ILSVRC2012's thousand classes in the order of every network trained on them: sorted."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class Classes:
    ids: Sequence[str]  # as many as names, or none
    names: Sequence[str]


@dataclass(frozen=True)
class Matching:
    """Which class of a network each class of a data set is."""

    numbers: np.ndarray  # (classes of the data set,) int64; -1: none
    missing: list[str]  # names of the data set's classes that the network does not have
    ambiguous: list[str]  # ... that several classes of the network are called

    def note(self) -> str:
        """What could not be matched, in a line; '' where all was."""
        parts = [
            f"{len(names)} of {len(self.numbers)} classes of the data set {what} ({listed(names, NAMED)})"
            for names, what in (
                (self.missing, f"are none of the network's{UNNAMED * (len(self.missing) == len(self.numbers))}"),
                (self.ambiguous, "may be several of the network's"),
            )
            if names
        ]
        return "; ".join(parts)


def match_classes(network: Classes, data: Classes) -> Matching:
    """By id; then by name as it is written; then by name or synonym whatever the case, '_' and '-' as spaces."""
    numbers = np.full(len(data.names), -1, np.int64)
    missing: list[str] = []
    ambiguous: list[str] = []
    ids = data.ids or data.names
    for label, (own, name) in enumerate(zip(ids, data.names, strict=True)):
        found = candidates(network, own) or candidates(network, name)
        if len(found) == 1:
            numbers[label] = found[0]
        else:
            (ambiguous if found else missing).append(name)
    return Matching(numbers, missing, ambiguous)


def candidates(classes: Classes, given: str) -> list[int]:
    """The numbers of the classes that `given`, an id or a name, may mean: of the strictest reading that fits any."""
    wnid = re.match(r"n\d{8}\b|n\d{8}(?=_)", given)
    readings: tuple[tuple[Sequence[str], str, Callable[[str], Sequence[str]]], ...] = (
        (classes.ids, given, lambda text: [text]),
        (classes.ids, wnid.group() if wnid else given, lambda text: [text]),
        (classes.names, given, lambda text: [text]),
        (classes.names, plain(given), lambda text: [plain(text)]),
        (classes.ids, plain(given), lambda text: [plain(text)]),
        (classes.names, plain(given.split(",")[0]), lambda text: [plain(one) for one in text.split(",")]),
    )
    for texts, wanted, forms in readings:
        if found := [number for number, text in enumerate(texts) if wanted in forms(text)]:
            return found
    return []


def plain(name: str) -> str:
    """In lower case, words apart by one space, an accented letter one sign (a Mac's folders have two)."""
    return " ".join(re.split(r"[\s_\-]+", unicodedata.normalize("NFC", name.strip().casefold())))
