"""Labels by name: a network's classes and a data set's, numbered differently, spelt differently, or not the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Zfrepro
from zfrepro.data.embedded_kinds import SOURCE_CLASSES
from zfrepro.data.matching import Classes, candidates, imagenet_wnids, match_classes, plain
from zfrepro.errors import UserError
from zfrepro.evaluator.pictures import class_number

NETWORK = Classes(
    ["n01440764", "n02012849", "n03126707", "n02113186", "n02963159", "n02123045"],
    ["tench, Tinca tinca", "crane", "crane", "Cardigan", "cardigan", "tabby, tabby cat"],
)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("n02123045", [5]), ("n02123045_tabby", [5]), ("n02123045 tabby", [5]), ("n99999999", []), ("tench", [0]),
        ("Tinca_tinca", [0]), ("TABBY-CAT", [5]), ("cardigan", [4]), ("Cardigan", [3]), ("CARDIGAN", [3, 4]),
        ("crane", [1, 2]), ("cat", []), ("", []), ("tabby, tabby cat", [5]), ("tabby, something else", [5]),
    ],
)  # fmt: skip
def test_what_a_name_or_an_id_may_mean(given: str, numbers: list[int]) -> None:
    assert candidates(NETWORK, given) == numbers


def test_classes_are_matched_by_id_before_name_and_the_rest_is_named() -> None:
    data = Classes(["n02963159", "tabby_cat", "crane", "zebra"], ["Cardigan", "x", "crane", "zebra"])
    found = match_classes(NETWORK, data)
    assert found.numbers.tolist() == [4, 5, -1, -1]
    assert found.missing == ["zebra"] and found.ambiguous == ["crane"]
    assert "1 of 4 classes of the data set are none of the network's (zebra)" in found.note()
    assert "may be several of the network's (crane)" in found.note()
    assert "classes=<file>" not in found.note()
    assert "classes=<file>" in match_classes(Classes([], ["class 0", "class 1"]), data).note()
    same = match_classes(NETWORK, NETWORK)
    assert same.numbers.tolist() == list(range(6)) and same.note() == ""
    without_ids = match_classes(Classes([], NETWORK.names), Classes(NETWORK.ids, ["tench", *NETWORK.names[1:]]))
    assert without_ids.numbers.tolist() == [0, -1, -1, 3, 4, 5]


def test_imagenets_ids_are_in_the_order_of_torchvisions_names() -> None:
    from zfrepro.vision import torchvision

    names = torchvision.models.AlexNet_Weights.DEFAULT.meta["categories"]
    ids = imagenet_wnids()
    assert len(ids) == len(set(ids)) == len(names) == 1000 and list(ids) == sorted(ids)
    for wnid, words in torchvision.datasets.Imagenette._WNID_TO_CLASS.items():
        assert names[ids.index(wnid)] in words
    assert plain(" French__horn-x ") == "french horn x"


def foreign(outputs: Path, run: str, change: Any) -> None:
    """A copy of the tiny run as if it had been imported: its classes in the reverse order, the data unknown to it."""
    shutil.copytree(outputs / "tiny" / "train", outputs / run / "train")
    path = outputs / run / "train" / "checkpoints" / "best.pt"
    state = torch.load(path, weights_only=True)
    for key in ("data_key", "split"):
        del state[key]
    state["class_names"], state["class_ids"] = list(reversed(state["class_names"])), list(reversed(state["class_ids"]))
    last = str(max(int(key.split(".")[1]) for key in state["model"]))
    for key, values in state["model"].items():
        if key.split(".")[1] == last:
            state["model"][key] = values.flip(0)
    change(state)
    torch.save(state, path)
    (path.parent / "last.pt").unlink()
    (outputs / run / "train" / "metrics.jsonl").unlink()


def errors(outputs: Path, run: str) -> dict[str, float]:
    metrics = json.loads((outputs / run / "table2_imagenet" / "metrics.json").read_text())
    return dict(metrics["runs"][run])


def test_another_numbering_changes_no_error(tiny_run: Path, tmp_path: Path, zfrepro: Zfrepro) -> None:
    shutil.copytree(tiny_run / "tiny", tmp_path / "tiny")
    count = len(SOURCE_CLASSES)
    where = (f"outputs={tmp_path}", "precision=fp32", "device=cpu")
    foreign(tmp_path, "ids", lambda state: None)
    foreign(tmp_path, "names", lambda state: state.pop("class_ids"))
    for run in ("tiny", "ids", "names"):
        assert "network's" not in zfrepro("evaluate", *where, f"run={run}").stderr
    assert errors(tmp_path, "ids") == errors(tmp_path, "names") == errors(tmp_path, "tiny")

    def rename(state: dict[str, Any]) -> None:
        state.pop("class_ids")
        state["class_names"][5:] = [f"other {n}" for n in range(len(state["class_names"]) - 5)]

    foreign(tmp_path, "few", rename)
    done = zfrepro("evaluate", *where, "run=few")
    assert f"{count - 5} of {count} classes of the data set are none of the network's" in done.stderr
    assert f"10 validation images, 5 classes (of the network's {count})" in (
        tmp_path / "few" / "table2_imagenet" / "table.md"
    ).read_text(encoding="utf-8")

    foreign(
        tmp_path, "none", lambda state: state.update(class_names=[f"other {n}" for n in range(count)], class_ids=[])
    )
    done = zfrepro("evaluate", *where, "run=none", check=False)
    assert done.returncode == 2 and "no class of the data set is one of the network's" in done.stderr
    few = "num_images=2", "claims_images=3"
    zfrepro("invariance", *where, "run=none", "steps=3", *few)
    zfrepro("occlude", *where, "run=none", "square=20", "stride=18", *few)
    for folder, measured in (
        ("fig5_invariance", "scale_first_minus_top"),
        ("fig7_occlusion", "projection_correlation"),
    ):
        found = json.loads((tmp_path / "none" / folder / "metrics.json").read_text())
        assert "no class of the data set is one of the network's" in found["claims"]["probabilities"]
        assert found["task"]["known"] is None, "it is not at chance: what is true is not known"
        assert "value" in found["estimates"][measured]


def test_a_number_is_a_class_s_own_where_classes_are_called_by_numbers() -> None:
    """Folders 1 to 3, as of Oxford's flowers: there is no 0, not even as the first of them."""
    flowers, pets = Classes(["1", "2", "3"], ["1", "2", "3"]), Classes(["cat", "dog"], ["cat", "dog"])
    assert class_number(flowers, "2") == 1 and class_number(pets, "1") == 1
    with pytest.raises(UserError, match="labels=0: no class of this run"):
        class_number(flowers, "0")


def test_a_class_whose_name_looks_the_same_is_it() -> None:
    """As a Mac writes an accented letter, and as a keyboard does."""
    assert candidates(Classes(["e\u0301te\u0301", "hiver"], ["e\u0301te\u0301", "hiver"]), "\u00e9t\u00e9") == [0]
