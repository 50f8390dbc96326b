"""What a paper is made of, as data: items (its figures and tables), claims with their thresholds, reported numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Item:
    """A figure or table: the command that makes it and the sub-folder of the run that it is written to."""

    id: str
    title: str
    command: str
    folder: str  # "": the command prints it
    caption: str
    version: int = 1  # of the code behind the numbers: raise it when they change, and old results are made again
    panel: str = ""  # what one can touch on the page: features | evolution | explorer
    fold: bool = False  # the pictures only repeat what the panel shows
    tables_first: bool = False  # before the pictures
    options: str = ""  # what the command needs to make it
    one_checkpoint: bool = False  # made from the run's own weights alone
    context: tuple[str, ...] = ()  # more tables of the paper that belong here, names in reference/
    trains: str = ""  # why a network that was not trained here has none


@dataclass(frozen=True)
class Part:
    """Half a sentence of a claim: an estimate, and on which side of a bound its interval must lie."""

    estimate: str  # its name in the item's metrics.json
    says: str  # the half-sentence
    relation: str  # above | below | within (the bound, to either side of zero)
    bound: float
    typical: float  # what the paper reports, or, where it reports none, what one would call clear; scales the picture
    unit: str = ""

    @property
    def threshold(self) -> str:
        """'above 15 points'."""
        sign = "±" if self.relation == "within" else ""
        unit = self.unit.removesuffix("s") if abs(self.bound) == 1 else self.unit
        return f"{self.relation} {sign}{self.bound:g} {unit}".rstrip()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what decides whether it is reproduced: stated here, the same for every run."""

    id: str
    item: str  # id of the figure or table whose experiment measures it
    sentence: str  # the claim in our words
    statistic: str  # what is measured
    reason: str  # why this statistic and these bounds
    parts: tuple[Part, ...]  # all of them must hold
    needs_task: bool = True  # says nothing of a network that is no better than chance
    options: str = ""  # what the item's command needs for this claim; {run}: the run's name

    @property
    def threshold(self) -> str:
        """The bounds in words and numbers."""
        return "; ".join(f"{part.says}: {part.threshold}" for part in self.parts)


@dataclass(frozen=True)
class Paper:
    """A paper. Its reported numbers are `reference/*.csv` beside its code."""

    id: str  # name of the folder
    title: str
    authors: str  # and year
    url: str
    models: tuple[str, ...]  # how the names of its networks begin, here and in torchvision
    items: tuple[Item, ...]
    claims: tuple[Claim, ...] = field(repr=False)

    def is_about(self, model: str) -> bool:
        """Whether a model's layers are numbered and built as in this paper: its name, folders aside."""
        return model.rpartition("/")[2].startswith(self.models)
