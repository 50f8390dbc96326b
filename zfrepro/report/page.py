"""The figures and tables of a run as the data of a page: whatever can be read is shown, whatever cannot is named."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from zfrepro import __version__, papers
from zfrepro.files import file_hash, read_json
from zfrepro.papers import Item, Paper
from zfrepro.report.panels import evolution_panel, feature_panel, occlusion_panel
from zfrepro.report.pieces import Picture, Table, picture, read_table, words
from zfrepro.results import origin_of

T = TypeVar("T")


@dataclass
class Section:
    """A figure or table on the page; where `measured` is False it says how to measure it."""

    id: str
    title: str
    caption: str
    command: str
    folder: str = ""  # "": the command prints it
    measured: bool = False
    possible: bool = True  # whether the command can make it
    problem: str = ""  # why there is nothing to show, where it is not simply missing
    damaged: list[str] = field(default_factory=list)  # files that cannot be read, each with the reason
    pictures: list[Picture] = field(default_factory=list)
    fold: bool = False  # the pictures only repeat what a panel shows
    tables: list[Table] = field(default_factory=list)
    tables_first: bool = False  # before the pictures
    facts: list[tuple[str, str]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    evolution: dict[str, Any] | None = None
    explorer: dict[str, Any] | None = None

    @property
    def again(self) -> str:
        """What makes a damaged result again."""
        return self.command if "resume=false" in self.command else f"{self.command} resume=false"


def render(template: str, **values: Any) -> str:
    """A page as HTML, which says when it was written and by which version; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("zfrepro.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    written = time.strftime("%d %B %Y, %H:%M")
    return environment.get_template(template).render(written=written, version=__version__, **values)


# ------------------------------------------------------------------------------------------------------------ sections


def read_section(folder: Path, run: str, paper: Paper, item: Item, imported: bool = False) -> Section:
    """What the run has of one figure or table. imported: the run's network was trained elsewhere."""
    command = f"zfrepro {item.command} run={run}{item.options}"
    section = Section(item.id, item.title, item.caption, command, item.folder)
    place = folder / item.folder
    metrics = None
    if item.folder and (place / "metrics.json").exists():
        metrics = attempt(section.damaged, place / "metrics.json", read_json)
        section.problem = "Its metrics.json cannot be read" if metrics is None else ""
    elif item.trains and imported:
        section.problem, section.possible = f"Not for this network: {item.trains}", False
    if metrics is None:
        section.tables = reported_tables(paper, item)
        return section
    section.measured, section.fold, section.tables_first = True, item.fold, item.tables_first
    read_origin(section, origin_of(metrics), folder, item)
    read_files(section, place, item)
    return section


def read_origin(section: Section, origin: Mapping[str, Any], folder: Path, item: Item) -> None:
    """How the result was made; {}: it does not say."""
    if not origin:
        section.damaged.append("metrics.json (it does not say how it was made)")
        return
    if isinstance(origin.get("command"), str):
        section.command = origin["command"]
    section.facts = attempt(section.damaged, Path("metrics.json"), lambda _: facts(origin, folder, item)) or []
    names = [name for part in origin.get("files", {}).values() for name in part]
    section.damaged += [f"{name} (missing)" for name in names if not (folder / item.folder / name).exists()]


def read_files(section: Section, place: Path, item: Item) -> None:
    """Tables, pictures and what one can touch."""
    damaged = section.damaged
    for path in sorted(place.glob("*.csv")):
        if table := attempt(damaged, path, lambda path: read_table(path, f"{item.title}: {words(path)}")):
            section.tables.append(table)
    # The figure itself, which has the folder's name, before what was measured beyond it.
    for path in sorted(place.glob("*.png"), key=lambda path: (path.stem not in place.name, path.name)):
        alt = f"{item.title}. {item.caption}: {words(path)}"
        if found := attempt(damaged, path, lambda path, alt=alt: picture(path, alt)):  # type: ignore[misc]
            section.pictures.append(found)
    if item.panel == "features":
        section.features = feature_panels(damaged, place)
    elif item.panel == "evolution":
        section.evolution = panel(damaged, place / "arrays.npz", evolution_panel)
    elif item.panel == "explorer":
        section.explorer = panel(damaged, place / "arrays.npz", occlusion_panel)


def feature_panels(damaged: list[str], folder: Path) -> list[dict[str, Any]]:
    """A panel for each layer that was visualised."""
    found = []
    for path in sorted(folder.glob("layer*.npz"), key=lambda path: (len(path.name), path.name)):
        layer = path.stem.removeprefix("layer")
        made = panel(damaged, path, lambda arrays, layer=layer: feature_panel(arrays, int(layer)))  # type: ignore[misc]
        if made:
            found.append(made)
    return found


def panel(damaged: list[str], path: Path, make: Callable[[Any], dict[str, Any] | None]) -> dict[str, Any] | None:
    """A panel from a file of arrays; None where it is missing or damaged (the picture is there all the same)."""

    def read(path: Path) -> dict[str, Any] | None:
        with np.load(path) as arrays:
            return make(arrays)

    return attempt(damaged, path, read) if path.exists() else None


def attempt(damaged: list[str], path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` makes of a file, or None, and the file's name among the damaged. A damaged file can raise anything: the
    page is there to show what is left."""
    try:
        return read(path)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        damaged.append(f"{path.name} ({why if len(why) < 120 else why[:117] + '...'})")
        print(f"{path}: cannot be read ({type(error).__name__}: {why})")
        return None


def reported_tables(paper: Paper, item: Item) -> list[Table]:
    """The paper's own numbers of a table that is not measured yet, and of those beside it."""
    folder = papers.reference(paper)
    paths = (*folder.glob(f"{item.id}_*.csv"), *(folder / f"{name}.csv" for name in item.context))
    return [read_table(path, f"{item.title}: reported in the paper") for path in paths]


# --------------------------------------------------------------------------------------------------------------- facts


def facts(origin: Mapping[str, Any], folder: Path, item: Item) -> list[tuple[str, str]]:
    """When, on what and how long, from a result's provenance."""
    found = []
    seconds = sum(origin.get("part_seconds", {}).values()) or origin.get("seconds") or 0
    if round(seconds):  # a table that was only written took nothing: its trainings did
        found.append(("Took", duration(seconds)))
    if memory := origin.get("peak_memory_bytes"):
        found.append(("Peak memory", f"{memory / 1e9:.1f} GB"))
    for key, title in (("device", "On"), ("finished", "Finished"), ("git_commit", "Commit"), ("seed", "Seed")):
        if (value := origin.get(key)) is not None:
            found.append((title, str(value)))
    if item.one_checkpoint and stale(origin.get("checkpoint_hash"), folder):
        found.append(("Mind", "made from other weights than the run has now; give the command again"))
    return found


def stale(checkpoint: str | None, folder: Path) -> bool:
    """Whether a result came from weights that the run no longer has."""
    files = sorted((folder / "train" / "checkpoints").glob("*.pt"))
    return bool(checkpoint and files) and all(_hash(path, path.stat().st_mtime_ns) != checkpoint for path in files)


@functools.cache
def _hash(path: Path, changed: int) -> str:
    """A checkpoint's hash, computed once for all the results of a page. changed: when it was, for the cache."""
    return file_hash(path)


def duration(seconds: float) -> str:
    """Seconds as one says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
