"""The house: imports point down only and never in a circle, and only figures/ draws."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import zfrepro

PACKAGE = Path(zfrepro.__file__).parent
TIERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("report", "tools"),
    ("visualizer", "evaluator"),
    ("trainer",),
    ("search", "features", "knowledge"),
    ("forward",),
    ("run",),
    ("data", "models", "figures", "results"),
    ("vision", "workers", "provenance", "checkpoints"),
    ("papers",),
    ("statistics",),
    ("options",),
    ("files", "devices", "boxes", "lists"),
    ("errors",),
)
RANK = {name: rank for rank, tier in enumerate(TIERS) for name in tier}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The room of the house that a file belongs to: the first part of its place in the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zfrepro":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("zfrepro.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert imports(path) == {"api"}  # for type checkers alone: `import zfrepro` loads none of it
        return
    for other in imports(path) - {here}:
        assert other in RANK, f"{path}: imports {other}, which has no place in the house"
        assert RANK[other] > RANK[here], f"{path}: {here} imports {other}, which stands beside or above it"


def dotted(path: Path) -> str:
    """A file as imports name it: zfrepro.models.table."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_file_imports_itself_through_others() -> None:
    modules, graph = {dotted(path) for path in FILES}, {}
    for path in FILES:
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = {(node.module or "", f"{node.module}.{alias.name}") for node in nodes for alias in node.names}
        graph[dotted(path)] = {whole if whole in modules else home for home, whole in names} & modules
    assert graph["zfrepro.models.window"] >= {"zfrepro.models.deconvnet", "zfrepro.models.table"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_only_figures_draw() -> None:
    drawing = {
        room(path) for path in FILES if re.search(r"^\s*(import|from) matplotlib", path.read_text(), re.MULTILINE)
    }
    assert drawing <= {"figures"}


def test_every_room_is_known() -> None:
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert rooms <= set(RANK), f"without a place in the house: {rooms - set(RANK)}"


def without_encoding(code: str) -> list[int]:
    """Lines that read or write text in whatever encoding the machine has."""
    elsewhere = {"Image", "tarfile", "zipfile", "os", "self", "bench"}  # their open() opens no text
    found = []
    for node in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        given = {word.arg: word.value for word in node.keywords}
        if isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, ast.unparse(node.func.value)
        else:
            name, owner = getattr(node.func, "id", ""), ""
        place = 1 if name == "fdopen" or (name == "open" and not owner) else 0
        if (name == "open" and owner not in elsewhere) or name in ("fdopen", "NamedTemporaryFile", "TemporaryFile"):
            usual = ast.Constant("r" if name in ("open", "fdopen") else "w+b")
            mode = given.get("mode", node.args[place] if len(node.args) > place else usual)
            text = not (isinstance(mode, ast.Constant) and "b" in str(mode.value))
        else:
            text = (name in ("read_text", "write_text") and bool(owner)) or {"text", "universal_newlines"} & set(given)
        if text and "encoding" not in given:
            found.append(node.lineno)
    return found


def test_what_reads_or_writes_text_is_found() -> None:
    bad = ["open(p)", "open(p, 'w')", "p.open()", "p.open('a', buffering=1)", "p.read_text()", "(a / b).write_text(t)",
           "open(p, mode)", "subprocess.run(c, text=True)", "TemporaryFile('w')", "os.fdopen(1, 'w')"]  # fmt: skip
    good = ["open(p, 'rb')", "p.open('r+b')", "p.open(mode='wb')", "p.read_text(encoding='utf-8')", "write_text(p, t)",
            "Image.open(p)", "tarfile.open(p)", "p.open('w', encoding='utf-8')", "TemporaryFile()"]  # fmt: skip
    assert (
        [code for code in bad if not without_encoding(code)] == [code for code in good if without_encoding(code)] == []
    )


def test_every_text_file_has_its_encoding_said() -> None:
    """A machine's own would do until a run goes to another machine."""
    scripts = sorted((PACKAGE.parent / "scripts").glob("*.py"))
    assert scripts
    found = {path.name: lines for path in [*FILES, *scripts] if (lines := without_encoding(path.read_text("utf-8")))}
    assert found == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_asserts_do_no_work(path: Path) -> None:
    """`python -O` leaves them out: they narrow types for the type checker, and no more."""
    narrowing = re.compile(r"(isinstance\([\w., ]+\)|[\w.]+ is not None)( and |$)")
    asserted = [
        ast.unparse(node.test) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)
    ]
    assert not [test for test in asserted if narrowing.sub("", test)]
