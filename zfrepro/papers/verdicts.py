"""From intervals to verdicts: pure functions of an experiment's `metrics.json`, the same for every claim of every paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zfrepro.papers.paper import Claim, Paper, Part
from zfrepro.statistics import Estimate, Measure, Missing, exact, from_data, needed

REPRODUCED, CONTRADICTED, UNDECIDED, NOT_MEASURED = "reproduced", "contradicted", "undecided", "not measured"
VERDICTS = (REPRODUCED, CONTRADICTED, UNDECIDED, NOT_MEASURED)
UNREADABLE = "its metrics.json cannot be read"

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Half:
    """A part of a claim, judged on one measurement."""

    part: Part
    measure: Measure
    verdict: str
    where: str = ""  # on what, where an item measures several things: a target data set

    @property
    def says(self) -> str:
        """The half-sentence, and on what."""
        return self.part.says + (f" ({self.where})" if self.where else "")

    @property
    def measured(self) -> str:
        """The number with its interval, in words; or why there is none."""
        return self.measure.why if isinstance(self.measure, Missing) else written(self.measure)


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict; `why` says in a line what is missing where it was not measured."""

    claim: Claim
    verdict: str
    halves: tuple[Half, ...] = ()
    why: str = ""

    @property
    def measured(self) -> str:
        return "; ".join(f"{half.says}: {half.measured}" for half in self.halves)

    @property
    def remark(self) -> str:
        """Which half fails or is open, and what would decide it; empty where nothing is to be said."""
        said = []
        for half in self.halves:
            if half.verdict == CONTRADICTED:
                said.append(f"contradicted: {half.says}" if len(self.halves) > 1 else "")
            elif half.verdict == UNDECIDED and isinstance(half.measure, Estimate):
                said.append((f"open: {half.says}; " if len(self.halves) > 1 else "") + more(half.measure, half.part))
            elif half.verdict == NOT_MEASURED and self.verdict != NOT_MEASURED:
                said.append(f"not measured: {half.says} ({half.measured})")
        return ". ".join(line for line in said if line)


# ------------------------------------------------------------------------------------------------------------- deciding


def decide(estimate: Estimate, part: Part) -> str:
    """Whether an estimate's interval lies beyond a part's bound, wholly on the other side of it, or holds it."""
    low, high = distance(estimate, part)
    if low > 0:
        return REPRODUCED
    return CONTRADICTED if high < 0 else UNDECIDED


def distance(estimate: Estimate, part: Part) -> tuple[float, float]:
    """The interval as a distance from the bound, positive where the part holds."""
    low, high, bound = estimate.low, estimate.high, part.bound
    if part.relation == "above":
        return low - bound, high - bound
    if part.relation == "below":
        return bound - high, bound - low
    if part.relation == "within":
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return bound - max(abs(low), abs(high)), bound - nearest
    raise ValueError(f"{part.estimate}: no such relation as {part.relation}")


def standardised(half: Half) -> tuple[float, float, float] | None:
    """Low, value and high on an axis where 0 is the bound and 1 what the paper reports; None where not measured."""
    if isinstance(half.measure, Missing):
        return None
    value, scale = (distance(exact(x, ""), half.part)[0] for x in (half.measure.value, half.part.typical))
    low, high = distance(half.measure, half.part)
    return low / scale, value / scale, high / scale


def judge(claim: Claim, metrics: Metrics | None) -> Finding:
    """The verdict on one claim. metrics: of its experiment, None where that was not run."""
    if metrics is None:
        return Finding(claim, NOT_MEASURED)
    if metrics.get("unreadable"):
        return Finding(claim, NOT_MEASURED, why=UNREADABLE)
    if claim.needs_task and (why := ignorance(metrics)):
        return Finding(claim, NOT_MEASURED, why=why)
    groups = list(groups_of(metrics))
    if not groups:
        return Finding(claim, NOT_MEASURED, why="made by an earlier version, without intervals")
    halves = tuple(half for part in claim.parts for half in _halves(part, groups))
    worst_first = (CONTRADICTED, NOT_MEASURED, UNDECIDED, REPRODUCED)
    verdict = min((half.verdict for half in halves), key=worst_first.index)
    missing = dict.fromkeys(half.measured for half in halves if half.verdict == NOT_MEASURED)
    return Finding(claim, verdict, halves, "; ".join(missing) if verdict == NOT_MEASURED else "")


def judge_all(paper: Paper, metrics: Mapping[str, Metrics | None]) -> list[Finding]:
    """The verdicts on a paper's claims. metrics: by the id of the item, None or missing where it was not made."""
    return [judge(claim, metrics.get(claim.item)) for claim in paper.claims]


def _halves(part: Part, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Half]:
    """A part on everything that it was measured on; where one of them was measured, those that were not are left out."""
    found: list[tuple[str, Measure]] = []
    for where, estimates in groups:
        if part.estimate in estimates:
            found.append((where, _read(estimates[part.estimate])))
    measured = [(where, measure) for where, measure in found if isinstance(measure, Estimate)]
    if not measured:
        whys = dict.fromkeys(measure.why for _, measure in found if isinstance(measure, Missing))
        return [Half(part, Missing("; ".join(whys) or f"{part.says}: not in this result"), NOT_MEASURED)]
    several = len(measured) > 1
    return [Half(part, one, decide(one, part), where if several else "") for where, one in measured]


def _read(data: Any) -> Measure:
    try:
        return from_data(data)
    except ValueError:
        return Missing(UNREADABLE)


def groups_of(metrics: Metrics) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The estimates of a result, and of each of its parts (a layer of Fig. 2, a target of Table 7): (part's name, them)."""
    if isinstance(metrics.get("estimates"), Mapping):
        yield "", metrics["estimates"]
    for name, part in metrics.items():
        if isinstance(part, Mapping) and isinstance(part.get("estimates"), Mapping):
            yield name.replace("_", " "), part["estimates"]


def ignorance(metrics: Metrics) -> str:
    """Why the network of a result says nothing about what networks learn; empty where it is not known to be at chance."""
    for part in (metrics, *metrics.values()):
        task = part.get("task") if isinstance(part, Mapping) else None
        if isinstance(task, Mapping) and task.get("known") is False:
            return str(task.get("why") or "the network does no better than chance")
    return ""


# ---------------------------------------------------------------------------------------------------------------- words


def written(e: Estimate) -> str:
    """'23.5 points (95 %: 20.4 to 26.6; 5 nets)'."""
    digits = decimals(e)
    value = f"{_signless(e.value, digits)}{_unit(e.unit)}"
    if e.exact:
        inside = f"{counted(e.n, e.of)}, all alike" if e.n > 1 else ""
    elif not e.bounded:
        inside = f"{counted(e.n, e.of)}: no spread is known"
    else:
        inside = f"{e.confidence:g} %: {_signless(e.low, digits)} to {_signless(e.high, digits)}; {counted(e.n, e.of)}"
    said = "; ".join(text for text in (inside, e.note) if text)
    return f"{value} ({said})" if said else value


def short(e: Estimate) -> str:
    """'23.5 points (20.4 to 26.6)'."""
    digits = decimals(e)
    ends = f" ({_signless(e.low, digits)} to {_signless(e.high, digits)})" if e.bounded and not e.exact else ""
    return f"{_signless(e.value, digits)}{_unit(e.unit)}{ends}"


def decimals(e: Estimate) -> int:
    """Decimals for a number: one for percent and points, two for ratios, more where the interval is narrow."""
    usual = 1 if e.unit in ("%", "points") else 2
    width = e.high - e.low
    return max(usual, min(4, -math.floor(math.log10(width)))) if 0 < width < math.inf else usual


def _signless(value: float, digits: int) -> str:
    """A number without a sign before zeros."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def counted(n: int, of: str) -> str:
    """'1 net', '5 nets'."""
    return f"{n:,} {of.removesuffix('s') if n == 1 else of}"


def more(e: Estimate, part: Part) -> str:
    """How many nets, folds or images would decide an open part."""
    if not e.bounded:
        return f"{counted(e.n, e.of)}: more are needed for a spread"
    if e.exact:
        return "exactly at the threshold"
    bounds = (part.bound,) if part.relation != "within" else (-part.bound, part.bound)
    counts = [needed(e, bound) for bound in bounds if e.low <= bound <= e.high]
    if any(count is None for count in counts) and e.shared:
        return f"no number of {e.of} in reach would decide it on these images"
    if any(count is None for count in counts):
        return f"so close to the threshold that no number of {e.of} in reach would decide it"
    return f"about {counted(max(count or 0 for count in counts), e.of)} would decide it, if value and spread stay"
