"""Layer tables of a user's own: `model=<path of a .yaml>`, given to Hydra beside those of conf/model."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from zfrepro.errors import UserError
from zfrepro.lists import read_text
from zfrepro.options.compose import parse_yaml, reading_yaml, to_dataclass
from zfrepro.options.shared import LayerConfig, ModelConfig

ALIASES = 16  # of anchors, in a table: each can at most double what it means
GROUP = "own"  # conf/model/own/<name>, in a folder of this process


class OwnTables:
    """The tables that a command line names by their files, and the folder in which Hydra finds them."""

    def __init__(self, derive: Callable[[Path, int | None], ModelConfig]) -> None:
        """derive: the table of an .onnx file's first layers (None: of all of them)."""
        self.derive = derive
        self.folder: tempfile.TemporaryDirectory[str] | None = None  # removed with this object
        self.given: dict[str, str] = {}  # what Hydra is told -> what the user wrote

    def placed(self, command: str, args: list[str]) -> list[str]:
        """The arguments with names that Hydra finds in place of paths. Raises UserError for a file that is no table.

        `import weights=net.onnx` without a model is given the file's own table: the size of the pictures and the run's
        name depend on it.
        """
        self.folder, self.given = None, {}
        values = dict(arg.split("=", 1) for arg in args if "=" in arg)
        changed = [self._named(arg) if arg.startswith("model=") else arg for arg in args]
        weights = Path(values.get("weights", "")).expanduser()
        if command == "import" and "model" not in values and weights.suffix.lower() == ".onnx" and weights.is_file():
            layers = values.get("layers", "")
            table = OmegaConf.structured(self.derive(weights, int(layers) if layers.isdigit() else None))
            table.name = plain_name(weights.stem)
            changed.insert(0, "model=" + self._put(weights.stem, table, ""))
        if self.folder is None:
            return changed
        place = Path(self.folder.name).as_posix().replace("'", r"\'")  # a user may be called O'Brien
        return [f"hydra.searchpath=['file://{place}']", *changed]  # Hydra wants its flags last

    def as_given(self, overrides: list[str]) -> list[str]:
        """The overrides as the user wrote them."""
        return [given for arg in overrides if (given := self.given.get(arg, arg))]

    def _named(self, arg: str) -> str:
        """model=<path> -> model=own/<name>; other models as they are."""
        paths = arg.removeprefix("model=").split(",")  # of a sweep
        if not all(path.lower().endswith((".yaml", ".yml")) for path in paths):
            return arg
        return "model=" + ",".join(self._put(Path(path).stem, read_table(path), f"model={path}") for path in paths)

    def _put(self, stem: str, table: DictConfig, given: str) -> str:
        """Write a table where Hydra looks for it; its name there."""
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="zfrepro-")
        name = f"{GROUP}/{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}"
        table.setdefault("name", plain_name(stem))
        path = Path(self.folder.name) / "model" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OmegaConf.to_yaml(table), encoding="utf-8")
        self.given[f"model={name}"] = given
        return name


def plain_name(stem: str) -> str:
    """A file's name as a run's may be."""
    return re.sub(r"[^\w.+=@-]", "_", stem).lstrip(".+=@-").rstrip(".") or "own"


def read_table(path: str) -> DictConfig:
    """A layer table in a YAML file. Raises UserError where it is none."""
    with reading_yaml(f"model={path}"):
        table = parse_yaml(read_text(Path(path).expanduser()), ALIASES)
    if not isinstance(table, DictConfig) or not ({"layers", "defaults"} & set(table)):
        raise UserError(f"model={path}: not a layer table; it needs input_size and layers, as those of conf/model have")
    if "layers" in table:
        _check_rows(path, table)
    return table


def _check_rows(path: str, table: DictConfig) -> None:
    """Each layer by itself: of all of them at once, OmegaConf does not say which one is wrong."""
    if OmegaConf.is_interpolation(table, "layers") or not isinstance(table.layers, ListConfig):
        raise UserError(f"model={path}: layers must be a list, as in conf/model")
    for number, row in enumerate(table.layers):
        if not isinstance(row, DictConfig):
            raise UserError(
                f"model={path}: layers[{number}]={row}: must be a layer, as {{kind: conv, maps: 8, kernel: 3}}"
            )
        try:
            to_dataclass(row, LayerConfig)
        except UserError as error:
            raise UserError(f"model={path}: layers[{number}].{error}") from error
