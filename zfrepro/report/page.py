"""A run's folders as the data of one page: pictures, tables, facts, and the three panels that one can touch."""

from __future__ import annotations

import base64
import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from zfrepro import papers
from zfrepro.errors import UserError
from zfrepro.figures.features import contrast
from zfrepro.figures.style import symmetric
from zfrepro.files import file_hash, read_json
from zfrepro.papers import Item, Paper

LARGE = 1_000_000  # bytes above which a picture is embedded as WebP: a page of some megabytes still opens at once
SMALL = (
    64  # pixels: up to here a tile of Figures 2 and 4 is kept exactly; larger ones are compressed as photographs are
)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    uri: str  # data URI
    width: int  # pixels
    height: int
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell; `value` is None for words."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A table's row; `ours`: measured here, not reported in the paper."""

    cells: list[Cell]
    ours: bool


@dataclass(frozen=True)
class Column:
    """A table's column."""

    title: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """A table that sorts."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: str = ""


@dataclass
class Section:
    """A figure or table on the page; where `measured` is False it says how to measure it."""

    id: str
    title: str
    caption: str
    command: str
    measured: bool = False
    problem: str = ""  # why there is nothing to show, where it is not simply missing
    pictures: list[Picture] = field(default_factory=list)
    fold: bool = False  # the pictures only repeat what a panel shows
    tables: list[Table] = field(default_factory=list)
    tables_first: bool = False  # before the pictures
    facts: list[tuple[str, str]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    evolution: dict[str, Any] | None = None
    explorer: dict[str, Any] | None = None


def render(**values: Any) -> str:
    """The page as HTML; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("zfrepro.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    return environment.get_template("page.html.j2").render(**values)


# ------ sections


def read_sections(folder: Path, run: str, paper: Paper) -> list[Section]:
    """A section for every figure and table of a paper, in the paper's order."""
    return [read_section(folder, run, paper, item) for item in paper.items]


def read_section(folder: Path, run: str, paper: Paper, item: Item) -> Section:
    """What the run has of one figure or table."""
    section = Section(item.id, item.title, item.caption, f"zfrepro {item.command} run={run}{item.options}")
    if not item.folder:
        section.tables = reported_tables(paper, item)
        return section
    place = folder / item.folder
    try:
        metrics = read_json(place / "metrics.json") if (place / "metrics.json").exists() else None
    except UserError:
        metrics, section.problem = None, "Its metrics.json cannot be read"
    if metrics is None:
        section.tables = reported_tables(paper, item)
        return section
    section.measured = True
    origin = metrics.get("provenance") or {}
    section.command = origin.get("command", section.command)
    section.facts = facts(origin, folder, item)
    section.tables = [
        read_table(path, item) for path in sorted(place.glob("*.csv")) if path.with_suffix(".md").exists()
    ]
    section.pictures = [picture(path, f"{item.title}. {item.caption}: {words(path)}") for path in picture_files(place)]
    section.fold, section.tables_first = item.fold, item.tables_first
    if item.panel == "features":
        section.features = feature_panels(place)
    elif item.panel == "evolution":
        section.evolution = optional(evolution_panel, place / "arrays.npz")
    elif item.panel == "explorer":
        section.explorer = optional(occlusion_panel, place / "arrays.npz")
    return section


def picture_files(folder: Path) -> list[Path]:
    """A folder's pictures: the figure itself, which has the folder's name, before what was measured beyond it."""
    return sorted(folder.glob("*.png"), key=lambda path: (path.stem not in folder.name, path.name))


def words(path: Path) -> str:
    """A file's name as words."""
    return path.stem.replace("_", " ")


def facts(origin: Mapping[str, Any], folder: Path, item: Item) -> list[tuple[str, str]]:
    """When, on what and how long, from a result's provenance."""
    found = []
    if (seconds := origin.get("seconds")) is not None:
        found.append(("Took", duration(sum(origin.get("part_seconds", {}).values()) or seconds)))
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
    if not checkpoint or not files:
        return False
    return all(file_hash(path) != checkpoint for path in files)


def duration(seconds: float) -> str:
    """Seconds as one says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def optional(make: Callable[[Any], dict[str, Any] | None], path: Path) -> dict[str, Any] | None:
    """A panel, or None where its file is missing or not what it should be (the picture is there all the same)."""
    try:
        with np.load(path) as arrays:
            return make(arrays)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        print(f"{path}: no panel for the page ({type(error).__name__}: {error})")
        return None


# -------- tables


def read_table(path: Path, item: Item) -> Table:
    """<name>.csv, with the notes below the table in <name>.md."""
    with path.open(newline="") as file:
        columns, *rows = list(csv.reader(file))
    lines = path.with_suffix(".md").read_text().splitlines()
    notes = " ".join(line for line in lines if line and not line.startswith("|"))
    return make_table(f"{item.title}: {words(path)}", columns, rows, notes)


def reported_tables(paper: Paper, item: Item) -> list[Table]:
    """The paper's own numbers of a table that is not measured yet, and of those beside it."""
    folder, found = papers.reference(paper), []
    for path in (*folder.glob(f"{item.id}_*.csv"), *(folder / f"{name}.csv" for name in item.context)):
        with path.open(newline="", encoding="utf-8") as file:
            columns, *rows = list(csv.reader(file))
        found.append(make_table(f"{item.title}: reported in the paper", columns, rows, ""))
    return found


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: str) -> Table:
    """A table of strings; a column whose cells are all numbers or empty sorts and aligns as numbers."""
    by_column = [[number(row[i]) for row in rows if row[i] != ""] for i in range(len(columns))]
    numeric = [bool(values) and all(value is not None for value in values) for values in by_column]
    formats = [decimals([v for v in values if v is not None]) for values in by_column]
    made = []
    for row in rows:
        cells = []
        for text, is_number, digits in zip(row, numeric, formats, strict=True):
            value = number(text) if is_number and text else None
            cells.append(Cell(text if value is None else f"{value:,.{digits}f}", value))
        made.append(Row(cells, any(text.lower().startswith("ours") for text in row)))
    heads = [Column(name.replace("_", " "), is_number) for name, is_number in zip(columns, numeric, strict=True)]
    return Table(title, heads, made, notes)


def number(text: str) -> float | None:
    """The number that a cell holds, if it does."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def decimals(values: Sequence[float]) -> int:
    """Decimals to show a column with: none for counts, one for percentages as in the paper, three for small values."""
    if all(value == int(value) for value in values):
        return 0
    return 3 if max(map(abs, values)) < 2 else 1


# ------ pictures


def picture(path: Path, alt: str) -> Picture:
    """A PNG file, embedded: as it is, or as WebP where it is large."""
    data, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if len(data) > LARGE:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "WEBP", quality=90)
            data, kind = buffer.getvalue(), "webp"
    return Picture(data_uri(data, kind), width, height, alt, words(path))


def data_uri(data: bytes, kind: str) -> str:
    """An image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def pixels_uri(pixels: np.ndarray, lossless: bool = True) -> str:
    """(h, w, 3 or 4) uint8 -> data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=lossless, quality=92, exact=True)
    return data_uri(buffer.getvalue(), "webp")


def bytes_of(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return np.rint(255 * values).astype(np.uint8)


# -------------------------------------------------------------------------------------------- Figure 2: layers and maps


def feature_panels(folder: Path) -> list[dict[str, Any]]:
    """A panel for each layer that was visualised."""
    found = []
    for path in sorted(folder.glob("layer*.npz"), key=lambda path: (len(path.name), path.name)):
        layer = int(path.stem.removeprefix("layer"))
        if panel := optional(lambda arrays, layer=layer: feature_panel(arrays, layer), path):  # type: ignore[misc]
            found.append(panel)
    return found


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


def occlusion_panel(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The explorer's images and numbers: for every position of the square, row by row, what `arrays.npz` holds."""
    names = [str(name) for name in arrays["class_names"]]
    fields = ("probability", "top_probability", "activity")
    values = {
        name: arrays[name] for name in (*fields, "top_class", "labels", "maps", "clean_probability", "clean_activity")
    }
    images = []
    for i in range(len(arrays["images"])):
        image: dict[str, Any] = {name: significant(values[name][i].ravel(), 5) for name in fields}
        image |= {
            "top_class": values["top_class"][i].ravel().tolist(),
            "label": int(values["labels"][i]),
            "map": int(values["maps"][i]),
        }
        image |= {name: float(values[name][i]) for name in ("clean_probability", "clean_activity")}
        images.append(image)
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
