"""Runs, names and files that a command cannot work on are refused before anything is trained, with the option that names them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import Refused

from zfrepro.checkpoints import load_checkpoint, save_checkpoint
from zfrepro.errors import UserError
from zfrepro.options.tables import read_table


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """Runs: tiny, group/inner, boxes, whose config says that its network gives boxes, bought, that it was imported, and
    elsewhere, which was imported with its classes in another order."""
    here = tmp_path_factory.mktemp("refusals")
    for name in ("tiny", "boxes", "bought", "elsewhere", "group/inner"):
        shutil.copytree(tiny_run / "tiny" / "train", here / name / "train")
    config = here / "boxes" / "train" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    text = text.replace("regression: null", "regression: pcr").replace("init_from: null", "init_from: group/inner")
    config.write_text(text, encoding="utf-8")
    for name in ("bought", "elsewhere"):
        config = here / name / "train" / "config.yaml"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("preset: demo", "preset: imported"), encoding="utf-8")
    weights = here / "elsewhere" / "train" / "checkpoints" / "best.pt"
    state = load_checkpoint(weights)
    del state["data_key"]
    state |= {name: state[name][::-1] for name in ("class_names", "class_ids")}
    save_checkpoint(weights, state)
    weights.with_name("last.pt").unlink()
    return here


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ablate", "run=boxes"], "run=boxes: its network gives boxes, not classes; give run=group/inner"),
        (["ablate", "run=bought"], "run=bought: was imported, so there is no training to vary"),
        (["filters", "run=boxes"], "run=boxes: its network gives boxes"),
        (["localize", "run=boxes"], "run=boxes: its network gives boxes"),
        (["localize", "classes_from=[boxes]"], "classes_from=boxes: its network gives boxes"),
        (
            ["localize", "runs=[nonsuch]"],
            "runs=nonsuch: no trained run in .*there are: bought, boxes, elsewhere, group/inner, tiny",
        ),
        (["localize", "runs=[tiny]"], "runs=.*must be other runs than run=tiny"),
        (
            ["localize", "run=elsewhere"],
            "run=elsewhere: its network tells other classes apart .* zfrepro train run=elsewhere_head",
        ),
        (["localize", "scales=[8]"], "scales=.*must be 56 pixels or more"),
        (["depth", "run=tiny/train"], "run=tiny/train: no trained run"),
        (["depth", "scales=[64,96,9999]"], "scales=.*9999 must be between 1 and 4096"),
        (["ablate", "data.root=nonsuch"], "data.root=nonsuch: must be a folder that is there"),
        (["filters", "data.root=nonsuch"], "data.root=nonsuch: must be a folder that is there"),
        (["evaluate", "runs=[tiny,nonsuch]"], "runs=nonsuch: no trained run"),
        (["evaluate", "runs=[../tiny]"], "runs=.*must be a name"),
        (["evaluate", "test_scales=[8]"], "test_scales=.*must be sizes of at least the network's input, 56"),
        (["transfer", "protocol=vgg", "runs=[nonsuch]"], "runs=nonsuch: no trained run"),
        (["transfer", "runs=[tiny]"], "runs=.*must be left out, or given with protocol=vgg"),
        (["transfer", "data.per_class=5"], "data.per_class=5: must be null: per_class or images_per_class says"),
        (["transfer", "protocol=vgg", "folds=2"], "folds=2: must be left out, or given with protocol=zfnet"),
        (["report", "runs=[/tmp]"], "runs=.*must be a name"),
        (["report", "runs=[tiny,tiny/]"], "runs=.*tiny/ must be a name"),
        (["report", "run=group//inner"], "run=group//inner: must be a name"),
        (["report", "run=group"], "run=group: no such run"),
        (["report", "run=tiny/train"], "run=tiny/train: no such run"),
        (["correspond", "class_name=nonsuch"], "class_name=nonsuch: no class of this run"),
        (["occlude", "images=[https://a.invalid/b.png]"], "images=https://a.invalid/b.png: must be a file; fetch"),
        (["evolve", "epochs_shown=[2]"], r"epochs_shown=\[2\]: must be two or more of the snapshot epochs 1, 2"),
        (["visualize", "maps=[9999]"], "maps=9999: must be between 0 and"),
    ],
)
def test_what_does_not_fit_is_told_first(words: list[str], says: str, outputs: Path, refused: Refused) -> None:
    before = sorted(path for path in outputs.rglob("*") if path.suffix != ".lock")
    run = [] if any(word.startswith("run=") for word in words) else ["run=tiny"]
    assert re.search(says, refused(*words, f"outputs={outputs}", *run))
    assert sorted(path for path in outputs.rglob("*") if path.suffix != ".lock") == before


def test_a_table_whose_anchors_would_not_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)), "layers: *a39"]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=f"model={path}: holds too many YAML anchors"):
        read_table(str(path))
    path.write_text("row: &row {maps: 3, kernel: 3}\ninput_size: 9\nlayers: [*row, *row]\n", encoding="utf-8")
    assert len(read_table(str(path)).layers) == 2
    path.write_text("[" * 1000, encoding="utf-8")
    with pytest.raises(UserError, match=f"model={path}: not readable as YAML"):
        read_table(str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layers: &a [*a]", "not readable as YAML \\(nested without end\\)"),
        ("layers: [{kind: conv, map: 3}]", "layers\\[0\\].map: unknown key \\(did you mean maps"),
        (
            "layers: [{kind: conv, maps: 3, kernel: 3}, {kind: conv, maps: 3, kernel: three}]",
            "layers\\[1\\].kernel=three: must be a whole number",
        ),
        ("layers: [{kind: conv, maps: 3, kernel: -3}]", "layers\\[0\\].kernel=-3: must be 0 or more"),
        ("layers: [7]", "layers\\[0\\]=7: must be a layer"),
        ("layers: [null]", "layers\\[0\\]=None: must be a layer"),
        ("layers: 3", "layers must be a list"),
        ("layers: ${oc.env:HOME}", "layers must be a list"),
        ("layers: []\nlayers: []", "line 3: found duplicate key layers"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_place(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"input_size: 9\n{text}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"^model={path}: .*{says}"):
        read_table(str(path))
