"""The page: whole where there is little, whole where there is much, and one file."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused, Zfrepro
from PIL import Image

from zfrepro.papers import vgg, zfnet
from zfrepro.papers.verdicts import NOT_MEASURED, VERDICTS, judge
from zfrepro.report import overview, page, panels, pieces
from zfrepro.report.claims import claim_row, judged
from zfrepro.report.network import Run
from zfrepro.statistics import Estimate, to_data

MEASURED = {"fig2", "fig4", "fig7", "table2"}  # what the fixture `reported` has
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Every element with its attributes; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def shown(reported: Path) -> Page:
    """The page of the run with a few experiments."""
    return Page((reported / "report" / "index.html").read_text())


@pytest.fixture
def empty(zfrepro: Zfrepro, tmp_path: Path) -> Path:
    """A run's folder with nothing but a page: its training has only begun."""
    (tmp_path / "nothing" / "train").mkdir(parents=True)
    zfrepro("report", f"outputs={tmp_path}", "run=nothing")
    return tmp_path / "nothing"


def sections(shown: Page) -> dict[str, str | None]:
    """Id -> whether it was measured, of the sections of figures and tables."""
    return {str(a["id"]): a["data-measured"] for a in shown.all("section") if "data-measured" in a}


# ------------------------------------------------------------------------------------------------------------ one file


def test_loads_nothing(reported: Path, shown: Page) -> None:
    text = (reported / "report" / "index.html").read_text()
    assert len(text) < 25e6
    for tag, attrs in shown.elements:
        for key in ("src", "srcset", "poster", "data", "action"):
            if value := attrs.get(key):
                assert value.startswith("data:"), f"<{tag} {key}={value[:80]}>"
        assert tag != "link" or str(attrs["href"]).startswith("data:")
        assert not [key for key in attrs if key.startswith("on")]
    assert set(re.findall(r"url\(\"?([a-z]+:)", text)) <= {"data:"}
    assert "@import" not in text and "fetch(" not in text and "XMLHttpRequest" not in text
    links = {str(a["href"]) for a in shown.all("a")}
    assert {link for link in links if not link.startswith("#")} == {zfnet.PAPER.url, "../../index.html"}


def test_links_and_labels_lead_somewhere(shown: Page) -> None:
    ids = [str(attrs["id"]) for _, attrs in shown.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in shown.elements:
        if tag == "a" and str(attrs["href"]).startswith("#"):
            assert str(attrs["href"])[1:] in ids
        for key in ("aria-labelledby", "aria-controls", "for"):
            if attrs.get(key):
                assert attrs[key] in ids, f"{key}={attrs[key]}"


def test_pictures_have_words(shown: Page) -> None:
    pictures = shown.all("img")
    assert len(pictures) > 20
    empty = [a for a in pictures if not a.get("alt")]
    assert len(empty) == 1, "only the dialog's, which gets the words of the picture that it enlarges"
    for tag, attrs in shown.elements:
        if tag == "canvas" or attrs.get("role") in ("img", "application", "region"):
            assert attrs.get("aria-label"), f"<{tag} {attrs}>"


def test_templates_are_in_the_package() -> None:
    names = {path.name for path in (files("zfrepro.report") / "templates").iterdir()}
    assert names == {"index.html.j2", "overview.html.j2", "page.html.j2", "page.js", "style.css"}


# --------------------------------------------------------------------------------------------------- what is there


def test_every_figure_and_table_has_its_place(shown: Page) -> None:
    assert list(sections(shown)) == [item.id for item in zfnet.ITEMS]
    assert {name for name, measured in sections(shown).items() if measured == "yes"} == MEASURED


SMALL = ("translation_first_minus_top", "scale_first_minus_top")  # what a claim rests on
DAMAGED, LACKING = ({"estimates": dict.fromkeys(SMALL, one)} for one in ("damaged", {"why": "it is dark"}))


@pytest.mark.parametrize(
    ("metrics", "helps"), [(None, True), ({"unreadable": True}, True), (DAMAGED, True), (LACKING, False)]
)
def test_what_was_run_and_lacked_something_is_not_to_be_run_again(metrics: dict[str, Any] | None, helps: bool) -> None:
    claim = next(claim for claim in zfnet.PAPER.claims if claim.id == "small_changes")
    row = claim_row(judge(claim, metrics), zfnet.PAPER, Run("r", "", imported=True))
    assert row["verdict"] == NOT_MEASURED and row["command"] == ("zfrepro invariance run=r" if helps else "")
    assert helps or row["why"] == "it is dark"


def test_what_is_missing_says_what_to_do(shown: Page, reported: Path) -> None:
    text = (reported / "report" / "index.html").read_text()
    for item in zfnet.ITEMS:
        part = text.split(f'<section id="{item.id}"')[1].split("</section>")[0]
        assert ("Not measured yet" in part) == (item.id not in MEASURED)
        assert f"zfrepro {item.command}" in part
        if item.id in MEASURED:
            assert "<dt>Finished</dt>" in part and "<dt>On</dt>" in part
    table5 = text.split('<section id="table5"')[1].split("</section>")[0]
    assert "74.2" in table5, "the paper's own numbers"


def test_every_picture_of_the_run_is_there(shown: Page, reported: Path) -> None:
    drawn = [path for item in zfnet.ITEMS for path in (reported / item.folder).glob("*.png")]
    drawn += (reported / "train").glob("*.png")
    assert len(drawn) >= 10
    words = " ".join(str(a.get("alt")) for a in shown.all("img"))
    for path in drawn:
        assert pieces.words(path) in words or path.stem in ("curves", "filters")


def test_panels_hold_the_numbers_of_the_arrays(reported: Path) -> None:
    text = (reported / "report" / "index.html").read_text()
    panel = json.loads(re.findall(r'id="explorer-data">(.*?)</script>', text, re.DOTALL)[0])
    with np.load(reported / "fig7_occlusion" / "arrays.npz") as arrays:
        assert panel["ys"] == arrays["ys"].tolist() and panel["xs"] == arrays["xs"].tolist()
        for i, image in enumerate(panel["images"]):
            for name in ("probability", "top_probability", "activity"):
                np.testing.assert_allclose(image[name], arrays[name][i].ravel(), rtol=1e-4)
            assert image["top_class"] == arrays["top_class"][i].ravel().tolist()
    layers = re.findall(r'<div class="features">\s*<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert [json.loads(layer)["layer"] for layer in layers] == [1, 2, 3, 4, 5]
    with np.load(reported / "fig2_features" / "layer3.npz") as arrays:
        maps = json.loads(layers[2])["maps"]
        assert [one["number"] for one in maps] == arrays["maps"].tolist()
        np.testing.assert_allclose([one["activations"] for one in maps], arrays["activations"], rtol=1e-3)
    assert json.loads(re.findall(r'id="evolution-data">(.*?)</script>', text, re.DOTALL)[0]) == {"epochs": [1, 2]}


def test_claims_as_data(reported: Path) -> None:
    written = json.loads((reported / "report" / "claims.json").read_text())
    [own] = judged(reported, "zfnet_demo")
    assert [c["id"] for c in written["claims"]] == [claim.id for claim in zfnet.CLAIMS]
    assert [c["verdict"] for c in written["claims"]] == [finding.verdict for finding in own.findings]
    assert sum(written["tally"].values()) == len(zfnet.CLAIMS)
    assert written["provenance"]["command"].startswith("zfrepro report")
    for claim in written["claims"]:
        assert claim["threshold"] and claim["reason"] and claim["statistic"]
        assert claim["paper"] == "zfnet" and (claim["verdict"] == NOT_MEASURED or claim["parts"])


# -------------------------------------------------------------------------------------------------- what is not there


def test_empty_run(empty: Path) -> None:
    shown = Page((empty / "report" / "index.html").read_text())
    assert set(sections(shown).values()) == {"no"} and len(sections(shown)) == len(zfnet.ITEMS)
    tally = json.loads((empty / "report" / "claims.json").read_text())["tally"]
    assert tally == {**dict.fromkeys(VERDICTS, 0), NOT_MEASURED: len(zfnet.CLAIMS)}
    assert "zfrepro train run=nothing" in (empty / "report" / "index.html").read_text()


def test_a_folder_is_no_run(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    assert "run=holiday: no such run" in refused("report", f"outputs={tmp_path}", "run=holiday")


def test_no_such_run(refused: Refused, reported: Path) -> None:
    assert "did you mean tiny?" in refused("report", f"outputs={reported.parent}", "run=tinny")


def section(folder: Path, name: str) -> str:
    """The text of one section of a run's page, which must be whole."""
    text = (folder / "report" / "index.html").read_text()
    Page(text)
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


# Rounds of damage: the file, what becomes of it, and the section that must say so, with the file's name.
DAMAGE = (
    (
        ("table2_imagenet/table.csv", b"", "table2"),
        ("fig7_occlusion/metrics.json", b'{"provenance": 3, "claims": [], "estimates": []}', "fig7"),
        ("fig4_evolution/evolution.png", b"", "fig4"),
        ("train/curves.png", b"\x89PNG\r\n\x1a\n", "run"),
    ),
    (
        ("table2_imagenet/table.csv", b"a,b\n1\n2,3,4\n", "table2"),
        ("fig7_occlusion/arrays.npz", b"", "fig7"),
        ("fig4_evolution/evolution.png", b"not a picture", "fig4"),
        ("train/config.yaml", b"model: [", "run"),
    ),
    (
        ("table2_imagenet/metrics.json", b'{"runs": ', "table2"),
        ("fig7_occlusion/arrays.npz", b"PK\x03\x04 not an archive", "fig7"),
        ("fig4_evolution/metrics.json", b"[1, 2]", "fig4"),
        ("train/checkpoints/best.pt", bytes(100), "run"),
    ),
    (
        ("table2_imagenet/table.csv", bytes(range(256)), "table2"),
        (
            "fig7_occlusion/metrics.json",
            b'{"provenance": {"seconds": "x", "files": 3, "command": 7}, "task": 1}',
            "fig7",
        ),
    ),
)


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_file_costs_only_itself(
    zfrepro: Zfrepro, reported: Path, tmp_path: Path, damage: tuple[tuple[str, bytes, str], ...]
) -> None:
    shutil.copytree(reported, tmp_path / "tiny")
    for name, content, _ in damage:
        (tmp_path / "tiny" / name).write_bytes(content)
    zfrepro("report", f"outputs={tmp_path}", "run=tiny")
    for name, _, where in damage:
        text = section(tmp_path / "tiny", where)
        assert "Unreadable" in text or "cannot be read" in text
        assert Path(name).name in text and "zfrepro " in text, "names the file, and the command that makes it again"
        assert "resume=false" in text or where == "run" or "cannot be read" in text
    assert "<img" in section(tmp_path / "tiny", "fig2")


def test_files_cut_in_the_middle(zfrepro: Zfrepro, reported: Path, tmp_path: Path) -> None:
    shutil.copytree(reported, tmp_path / "tiny")
    folder = tmp_path / "tiny"
    for name in (
        "fig4_evolution/evolution.png",
        "fig2_features/layer3.npz",
        "train/metrics.jsonl",
        "train/filters.png",
    ):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
    (folder / "fig2_features" / "layer2.npz").unlink()
    np.savez(folder / "fig7_occlusion" / "arrays.npz")
    zfrepro("report", f"outputs={tmp_path}", "run=tiny")
    assert "evolution.png" in section(folder, "fig4") and "evolution-data" in section(folder, "fig4")
    features = section(folder, "fig2")
    assert "layer3.npz" in features and "layer2.npz (missing)" in features and 'id="features-layer4"' in features
    training = section(folder, "run")
    assert "metrics.jsonl (1 of its lines cannot be read)" in training and "filters.png" in training
    assert "<dt>Epochs</dt><dd>1</dd>" in training, "what is whole is shown"
    assert "arrays.npz" in section(folder, "fig7") and "explorer-root" not in section(folder, "fig7")


# --------------------------------------------------------------------------------------------------------- several runs


@pytest.fixture(scope="module")
def two(zfrepro: Zfrepro, reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with the claims of two runs, one of them with results of both papers."""
    outputs = tmp_path_factory.mktemp("two")
    shutil.copytree(reported, outputs / "tiny")
    deep = outputs / "deep" / "vgg16"
    shutil.copytree(reported / "train", deep / "train")
    config = deep / "train" / "config.yaml"
    text = config.read_text().replace("name: zfnet_demo", "name: torchvision/vgg16")
    config.write_text(text.replace("preset: demo", "preset: imported"))
    scale, translation = Estimate(0.95, 0.93, 0.97, 200, "images"), Estimate(0.8, 0.7, 0.85, 9, "images")
    put(deep, "fig5_invariance", scale_r2=scale, translation_r2=translation)
    put(deep, "vgg_table11_transfer", both_minus_best=Estimate(1, 0.5, 1.5, 3, "folds", "points"))
    zfrepro("report", f"outputs={outputs}", "runs=[tiny,deep/vgg16]")
    return outputs


def put(folder: Path, item: str, **estimates: Estimate) -> None:
    """A result with these estimates."""
    (folder / item).mkdir()
    stored = {"estimates": {name: to_data(one) for name, one in estimates.items()}, "provenance": {"seconds": 1}}
    (folder / item / "metrics.json").write_text(json.dumps(stored))


def test_one_table_over_runs(two: Path) -> None:
    text = (two / "report" / "index.html").read_text()
    shown = Page(text)
    cells = [attrs for attrs in shown.all("a") if (attrs.get("class") or "").startswith("cell")]
    assert len(cells) == 18 + 38, "a cell a claim and run; tiny has nothing of the second paper"
    [cell] = [attrs for attrs in cells if "0.80 (95 %: 0.70 to 0.85; 9 images)" in str(attrs["title"])]
    assert str(cell["class"]).endswith("contradicted")
    assert cell["href"] == "../deep/vgg16/report/index.html#claim-quasi_linear"
    for attrs in cells:
        path, _, anchor = str(attrs["href"]).partition("#")
        assert f'id="{anchor}"' in (two / "report" / path).resolve().read_text()
    assert len([attrs for attrs in cells if "not for this network" in str(attrs["title"])]) > 5


def test_the_table_as_data(two: Path) -> None:
    stored = json.loads((two / "report" / "claims.json").read_text())
    by_id = {claim["id"]: claim for claim in stored["claims"]}
    assert len(by_id) == 38
    assert by_id["both_nets"]["runs"]["deep/vgg16"]["verdict"] == "reproduced"
    assert "tiny" not in by_id["both_nets"]["runs"]
    assert stored["tally"]["deep/vgg16"]["contradicted"] == 1


def test_the_table_as_text(two: Path) -> None:
    lines = (two / "report" / "claims.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) == 2 + 38 and {len(row) for row in cells} == {4}
    assert [row[3] for row in cells if row[0].startswith("For translation and scaling, the top")] == ["contradicted"]
    [both] = [row for row in cells if row[0].startswith("The descriptors of two nets")]
    assert both[2:] == ["", "reproduced"], "tiny has nothing of the second paper"


def test_own_paper_first_and_both_where_there_are_results(two: Path) -> None:
    deep = Page((two / "deep" / "vgg16" / "report" / "index.html").read_text())
    assert list(sections(deep)) == [item.id for paper in (vgg.PAPER, zfnet.PAPER) for item in paper.items]
    text = section(two / "deep" / "vgg16", "fig4")
    assert "Not for this network: it needs snapshots" in text and "zfrepro evolve" not in text
    assert "zfrepro summary run=deep/vgg16" in section(two / "deep" / "vgg16", "vgg_table1")
    tiny = Page((two / "tiny" / "report" / "index.html").read_text())
    assert list(sections(tiny)) == [item.id for item in zfnet.ITEMS]


def test_a_run_without_weights_has_a_name_alone() -> None:
    assert overview.markdown([], [(Run("lost", "zfrepro train run=lost"), [])])[0] == "| claim | of | lost |"


def test_all_runs_are_listed(two: Path) -> None:
    links = [str(attrs["href"]) for attrs in Page((two / "index.html").read_text()).all("a")]
    assert links == ["report/index.html", "deep/vgg16/report/index.html", "tiny/report/index.html"]
    assert all((two / link).exists() for link in links)


def test_runs_are_there_once(refused: Refused, reported: Path) -> None:
    for given, said in (("[tiny,tiny]", "has tiny twice"), ("[tiny,tinny]", "did you mean tiny?")):
        assert said in refused("report", f"outputs={reported.parent}", f"runs={given}")


def test_results_of_other_weights_are_marked(zfrepro: Zfrepro, reported: Path, tmp_path: Path) -> None:
    assert "made from other weights" not in (reported / "report" / "index.html").read_text()
    shutil.copytree(reported, tmp_path / "tiny")
    for path in (tmp_path / "tiny" / "train" / "checkpoints").glob("*.pt"):
        path.write_bytes(path.read_bytes() + b"\0")
    zfrepro("report", f"outputs={tmp_path}", "run=tiny")
    text = (tmp_path / "tiny" / "report" / "index.html").read_text()
    assert text.count("made from other weights") == 2  # Figures 2 and 7; 4 rests on all snapshots


def test_words_are_not_markup(zfrepro: Zfrepro, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    folder = tmp_path / "run" / "table2_imagenet"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"provenance": {"command": hostile, "device": hostile}}))
    (folder / "table.csv").write_text(f"model,{hostile}\n{hostile},1.5\n")
    (folder / "table.md").write_text(f"{hostile}\n")
    other = tmp_path / "run" / "fig7_occlusion"
    other.mkdir()
    (other / "metrics.json").write_text("{}")
    np.savez(other / "arrays.npz", **occlusion_arrays(hostile))
    zfrepro("report", f"outputs={tmp_path}", "run=run")
    text = (tmp_path / "run" / "report" / "index.html").read_text()
    assert hostile not in text and "onerror=alert(1)&gt;" in text
    Page(text)


def occlusion_arrays(name: str) -> dict[str, np.ndarray]:
    """The least that the explorer reads: one image, 2 x 3 positions."""
    maps = {key: np.full((1, 2, 3), 0.25) for key in ("probability", "top_probability", "activity")}
    one = {key: np.array([0.5]) for key in ("clean_probability", "clean_activity")}
    return {
        **maps,
        **one,
        "images": np.zeros((1, 8, 8, 3), np.uint8),
        "fill_pixels": np.zeros((8, 8, 3), np.uint8),
        "names": np.array([name]),
        "class_names": np.array([name, "b"]),
        "top_class": np.ones((1, 2, 3), int),
        "labels": np.array([0]),
        "maps": np.array([3]),
        "ys": np.array([0, 4]),
        "xs": np.array([0, 2, 4]),
        "square": np.array(4),
        "layer": np.array(5),
    }


# --------------------------------------------------------------------------------------------------------------- parts


def test_tables() -> None:
    rows = [["ours: a", "1234567", "12.345", "0.0671", "-"], ["b", "7", "", "0.5", "2"]]
    table = pieces.make_table("t", ["model", "parameters", "val_error", "score", "mixed"], rows, "")
    assert [column.numeric for column in table.columns] == [False, True, True, True, False]
    assert [cell.text for cell in table.rows[0].cells] == ["ours: a", "1,234,567", "12.3", "0.067", "-"]
    assert table.rows[0].cells[2].value == 12.345 and table.rows[1].cells[2].value is None
    assert [row.ours for row in table.rows] == [True, False]
    assert table.columns[2].title == "val error"


def test_columns_without_a_cell_are_left_out() -> None:
    rows = [["A", "64", "6.0", "", "29.6"], ["D", "[64;128]", "3.2", "", ""]]
    table = pieces.make_table("t", ["network", "train_s", "error", "error_std", "paper_error"], rows, "")
    assert [column.title for column in table.columns] == ["network", "train S", "error", "paper error"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["A", "64", "6.0", "29.6"],
        ["D", "[64;128]", "3.2", ""],
    ]
    assert len(pieces.make_table("t", ["a", "b"], [], "").columns) == 2
    spreads = pieces.make_table("t", ["std"], [["0.3"], ["1.4"]], "")  # the paper's, of Caltech-256
    assert [row.cells[0].text for row in spreads.rows] == ["0.3", "1.4"]
    with pytest.raises((IndexError, ValueError)):
        pieces.make_table("t", ["a", "b"], [["1", "2", "3"]], "")


def test_a_picture_called_like_its_folder_needs_no_caption(tmp_path: Path) -> None:
    folder = tmp_path / "vgg_table3_single_scale"
    folder.mkdir()
    for name in (folder.name, "by_size"):
        Image.new("RGB", (2, 2)).save(folder / f"{name}.png")
    assert pieces.picture(folder / f"{folder.name}.png", "").caption == ""
    assert pieces.picture(folder / "by_size.png", "").caption == "by size"


def test_time_that_rounds_to_nothing_is_not_told() -> None:
    item = next(item for item in vgg.ITEMS if item.folder)
    assert dict(page.facts({"seconds": 0.3}, Path(), item)) == {}
    assert dict(page.facts({"seconds": 0.3, "part_seconds": {"a": 61.0}}, Path(), item)) == {"Took": "1 min 1 s"}


def test_blocks() -> None:
    tiles = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 4, 4, 3), np.uint8)
    pair = panels.block_pair([tiles, tiles + 100], gap=2)
    assert pair.shape == (16, 38, 4)
    assert pair[0, 0].tolist() == [0, 0, 0, 255] and pair[15, 15, 0] == 8 and pair[15, 37, 0] == 108
    assert pair[6, 22 + 12, 0] == 105 and pair[4, 0, 3] == 0 and pair[0, 16:22, 3].sum() == 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert page.duration(seconds) == said


def test_evolution_panel_lays_out_maps_and_epochs() -> None:
    projections = np.zeros((2, 3, 4, 4, 3), np.float32)
    projections[1, 2] = 1.0
    arrays = {
        "epochs": np.array([1, 2, 5]),
        "projections_1": projections,
        "images_1": np.array([[7, 7, 8], [1, 2, 2]]),
        "maps_1": np.array([3, 9]),
    }
    layer = panels.evolution_panel(arrays)["layers"][0]
    assert [frame["jumps"] for frame in layer["frames"]] == ["001", "010"]
    assert [frame["row"] for frame in layer["frames"]] == [0, 100] and (layer["zoom_x"], layer["zoom_y"]) == (300, 200)


def test_a_picture_larger_than_webp_can_be_is_made_smaller(tmp_path: Path) -> None:
    """Such as the features of hundreds of maps; it is no damaged file."""
    noise = np.random.default_rng(0).integers(0, 256, (17_000, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "tall.png")
    found = pieces.picture(tmp_path / "tall.png", "")
    shown = Image.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2])))
    assert (found.width, found.height) == (40, 17_000) and shown.format == "WEBP" and shown.height == pieces.WEBP
