"""An experiment's folder of results, with their provenance."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro import papers
from zfrepro.errors import UserError
from zfrepro.files import move, pending, read_json, shown, waiting_lock, write_json
from zfrepro.options.identity import config_hash
from zfrepro.options.shared import Common
from zfrepro.provenance import provenance
from zfrepro.statistics import Measure, to_data


@dataclass
class Output:
    """The files of one experiment. They gather in a hidden folder and move into place together, `metrics.json` last, so
    that an interrupted experiment leaves the last whole result as it was."""

    folder: Path
    pending: Path
    config: Common
    checkpoint_hash: str | None
    part: str | None
    inputs: str
    started: float = field(default_factory=time.monotonic)
    names: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Where to write the file `name` now; it will stand in the experiment's folder after `done`."""
        self.names.append(name)
        return self.pending / name

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write a compressed .npz. Raises ValueError for an array of objects, which would be pickled."""
        if pickled := [key for key, array in arrays.items() if np.asarray(array).dtype.hasobject]:
            raise ValueError(f"{name}: {', '.join(pickled)}: an array of objects")
        with self.path(name).open("wb") as file:
            # NumPy before 2.3 takes allow_pickle= for one more array.
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def figure(self, name: str, figure: Any, dpi: int = 150) -> None:
        figure.savefig(self.path(name), dpi=dpi)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: str) -> None:
        """Write table.csv (plain numbers) and table.md (with `notes`: what ours were measured on). None: an empty cell."""
        with self.path("table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *[["" if cell is None else cell for cell in row] for row in rows]])
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
        self.path("table.md").write_text("\n".join(lines) + f"\n\n{notes}\n", encoding="utf-8")

    def table_with_others(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: str) -> dict[str, Any]:
        """`table`, of this part and of the others that stand there already and belong to the same checkpoint: a part's name, then
        its row. Returns what this part's metrics have to hold for the next one's table."""
        own = {"rows": [list(row) for row in rows], "notes": notes}
        standing = parts_of(self.folder, self.checkpoint_hash)
        parts = {name: part for name, part in standing.items() if _is_table(part, len(columns))} | {self.part: own}
        every = [[name, *row] for name, part in parts.items() for row in part["rows"]]
        self.table(["target", *columns], every, "\n\n".join(f"{name}: {part['notes']}" for name, part in parts.items()))
        return own

    def done(
        self,
        metrics: dict[str, Any],
        estimates: Mapping[str, Measure] | None = None,
        task: Mapping[str, Any] | None = None,
    ) -> None:
        """Move the files into place, write `metrics.json` with the provenance block, and say what was written.

        estimates: the numbers on which the papers' claims rest, by name; raises ValueError for a name on which no claim
        about this folder rests. task: whether the network knows its task, see `knowledge`.
        With a `part` (one layer of Fig. 2, say) the metrics go below that key, beside the other parts' that belong to
        the same checkpoint. Files of an earlier result that this one does not have are removed.
        """
        if unknown := set(estimates or ()) - papers.estimates_in(self.folder.name):
            raise ValueError(f"{self.folder.name}: no claim rests on {', '.join(sorted(unknown))}")
        if estimates is not None:
            metrics = {**metrics, "estimates": {name: to_data(measure) for name, measure in estimates.items()}}
        if task is not None:
            metrics = {**metrics, "task": task}
        self.folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(self.folder.parent / ".results.lock"):  # another process may be at another part
            origin = self._place(metrics)
        print(
            f"wrote {shown(self.folder)}{os.sep}: {', '.join([*self.names, 'metrics.json'])} ({origin['seconds']:.0f} s)"
        )

    def _place(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Files and metrics into place; returns the provenance."""
        target = self.folder / "metrics.json"
        origin = provenance(self.config, self.checkpoint_hash, time.monotonic() - self.started)
        identity = _identity(self.folder, self.config, self.inputs)
        origin |= {"config_hash": identity, "data_key": self.inputs or None}
        old = read_result(target)
        before = origin_of(old)
        files = {name for names in before.get("files", {}).values() for name in names}
        if not self.part or before.get("checkpoint_hash") != self.checkpoint_hash:
            old = before = {}
            target.unlink(missing_ok=True)  # never old metrics beside new arrays
        origin["files"] = {**before.get("files", {}), self.part or "all": self.names}
        if self.part:
            origin["parts"] = {**before.get("parts", {}), self.part: identity}
            origin["part_seconds"] = {**before.get("part_seconds", {}), self.part: origin["seconds"]}
            metrics = {**old, self.part: metrics}
        for name in files.difference(*origin["files"].values()):
            if (self.folder / name).resolve().is_relative_to(self.folder.resolve()):  # the list is read from a file
                (self.folder / name).unlink(missing_ok=True)
        for name in self.names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            move(self.pending / name, self.folder / name)
        write_json(target, {**metrics, "provenance": origin})
        return origin


def _is_table(part: Any, width: int) -> bool:
    """Whether a stored part holds rows of so many cells, and notes."""
    if not isinstance(part, dict) or not isinstance(part.get("notes"), str) or not isinstance(part.get("rows"), list):
        return False
    return all(isinstance(row, list) and len(row) == width for row in part["rows"])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    return " ".join(str(value).split()).replace("|", r"\|")  # a class may be called a|b


@contextlib.contextmanager
def writing(
    folder: Path, config: Common, checkpoint_hash: str | None = None, part: str | None = None, inputs: str = ""
) -> Iterator[Output | None]:
    """An `Output` to fill within the block, or None (and a line that says so) where the same result stands there already.

    The same: made from the same checkpoint with the same options, and from the same `inputs`, the key of the data set that was
    read, a digest of a user's own pictures before it. `resume=false` makes it again. A block that ends without `done`, however it
    ends, leaves what stood there as it was.
    """
    if getattr(config, "resume", True) and _up_to_date(folder, config, checkpoint_hash, part, inputs):
        print(f"{shown(folder)}{os.sep}{part or ''}: up to date, nothing to do (resume=false makes it again)")
        yield None
        return
    with pending(folder.parent, f"{folder.name}.{part or 'all'}") as fresh:
        yield Output(folder, fresh, config, checkpoint_hash, part, inputs)


def _up_to_date(folder: Path, config: Common, checkpoint_hash: str | None, part: str | None, inputs: str) -> bool:
    """Whether the folder holds this very result, all files included."""
    origin = origin_of(read_result(folder / "metrics.json"))
    made = origin.get("parts", {}).get(part) if part else origin.get("config_hash")
    there = all((folder / name).exists() for name in origin.get("files", {}).get(part or "all", []))
    return bool(
        made == _identity(folder, config, inputs) and origin.get("checkpoint_hash") == checkpoint_hash and there
    )


def read_result(path: Path) -> dict[str, Any]:
    """The metrics that stand there; none where they are missing or damaged, which are to be made again."""
    try:
        return read_json(path) if path.exists() else {}
    except UserError:
        return {}


def parts_of(folder: Path, checkpoint_hash: str | None) -> dict[str, Any]:
    """The parts of a result that stand in a folder already, if they are of this checkpoint."""
    old = read_result(folder / "metrics.json")
    origin = origin_of(old)
    parts = {name: part for name, part in old.items() if name in origin.get("parts", {})}
    return parts if origin.get("checkpoint_hash") == checkpoint_hash else {}


def origin_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """How a result was made, as its `metrics.json` says; nothing where that is damaged, which is then to be made again."""
    origin = metrics.get("provenance")
    if not isinstance(origin, dict):
        return {}
    groups = [origin.get(key, {}) for key in ("files", "parts", "part_seconds")]
    whole = all(isinstance(group, dict) for group in groups) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in groups[0].values()
    )
    return origin if whole else {}


def _identity(folder: Path, config: Common, inputs: str) -> str:
    """What makes a result this one: options, other inputs, and the version of the code behind the numbers."""
    version = max((item.version for item in papers.items_in(folder.name)), default=1)
    read = f"-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}" if inputs else ""
    return config_hash(config) + read + (f"-v{version}" if version > 1 else "")
