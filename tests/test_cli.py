"""The command line as a user meets it: help, configs, and mistakes that end in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, Refused, Zfrepro, composed, small_table

from zfrepro import provenance
from zfrepro.cli import COMMANDS, main
from zfrepro.options.arguments import for_hydra
from zfrepro.options.commands import OccludeConfig, TrainConfig
from zfrepro.options.compose import CONFIGS, conf_folder
from zfrepro.options.identity import write_config
from zfrepro.options.shared import DataConfig


def test_help_lists_every_command(zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro("--help", cwd=tmp_path).stdout
    for name, (line, _) in COMMANDS.items():
        assert name in text and line in text
    assert zfrepro("--version", cwd=tmp_path).stdout.startswith("zfrepro ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro(command, "--help", cwd=tmp_path).stdout
    head = (conf_folder() / f"{command}.yaml").read_text().splitlines()[0].lstrip("# ")
    assert head in text and f"zfrepro {command}" in text
    assert re.search(r"^  seed=0 +of initialisation", text, re.MULTILINE)


@pytest.mark.parametrize(("command", "own"), [("evaluate", "method="), ("depth", "configurations=")])
def test_readings_stand_last(command: str, own: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro(command, "--help", cwd=tmp_path).stdout
    assert text.index(f"  {own}") < text.index("  places=") < text.index("  weights=")


@pytest.mark.parametrize("command", COMMANDS)
def test_config_is_printed(command: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert "run: " in zfrepro(command, "--cfg", "job", cwd=tmp_path).stdout
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_every_config_has_a_command() -> None:
    files = {path.stem for path in conf_folder().glob("*.yaml")} - {"base"}
    assert files == set(COMMANDS)


def test_preset_chooses_and_the_command_line_wins(zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro("train", "preset=paper", "model=alexnet", "lr=0.5", "--cfg", "job", cwd=tmp_path).stdout
    assert (
        "name: alexnet\n" in text and "name: imagenet\n" in text and "lr: 0.5\n" in text and "run: ${preset}\n" in text
    )
    assert "epochs: 70\n" in text and "batch_size: 128\n" in text


# What a user gives, and what the one line says: the key, and what to do. Reports of a kind stand together.
MISTAKES = [
    # a command or key that there is not
    ("trian", "trian: no such command (did you mean train?)"),
    ("train epohcs=3", "epohcs: unknown key (did you mean epochs?)"),
    ("train +epohcs=3", "epohcs: unknown key (did you mean epochs?)"),
    ("train data.sizes=3", "data.sizes: unknown key (did you mean data.size?)"),
    ("train seed.x=3", "seed.x: unknown key; seed has no parts"),
    ("train model.layers.0.map=3", "model.layers.0.map: unknown key (did you mean model.layers.0.maps?)"),
    # the form
    ("train epochs", "epochs: options are given as key=value, as epochs=<value>"),
    ("train good", "good: options are given as key=value, as run=good"),
    ("train outputs/good", "outputs/good: options are given as key=value, as data=folder data.root=outputs/good"),
    ("evaluate outputs/good", "outputs/good: options are given as key=value"),
    ("evaluate nonsuch", "nonsuch: options are given as key=value"),
    ("train epochs 5", "epochs: options are given as key=value, as epochs=<value>"),
    ("train --epochs 5", "--epochs: options are given as key=value, without dashes: epochs=5"),
    ("train --epochs=5", "--epochs: options are given as key=value, without dashes: epochs=5"),
    ("train --epcohs 5", "--epcohs: no such flag; options are given as key=value, as epochs=5"),
    ("train =3", "=3: options are given as key=value"),
    ("train run=", "run=: a value is missing"),
    ("train data.root=", "data.root=: a value is missing"),
    ("train epochs=3<CR>", "epochs=3: ends in a carriage return"),
    ("train<CR>", "train: no such command (did you mean train?)"),
    ("train lr=[", "lr=[: no viable alternative at input '['"),
    # Hydra's flags and its own options
    ("train --badflag", "--badflag: no such flag"),
    ("train --cfg bad", "--cfg bad: must be followed by one of job, hydra, all"),
    ("train --cfg", "--cfg: must be followed by one of job, hydra, all"),
    ("train --package", "--package: must be followed by a name"),
    ("train -sc", "-sc: stands in place of a command"),
    ("train --config-name nope", "--config-name: the command chooses its config"),
    ("train -cp nope", "--config-path: the command chooses its config"),
    ("train --config-dir /nope", "--config-dir /nope: no such folder"),
    ("train --experimental-rerun file.pickle", "--experimental-rerun: runs what a pickle holds"),
    ("train --experimental-rerun=file.pickle", "--experimental-rerun: runs what a pickle holds"),
    ("train --resolve", "--resolve goes with --cfg job"),
    ("train -m --cfg job", "--multirun --cfg job: give one of"),
    ("train hydra.nonsense=3", "hydra.nonsense: no such option"),
    ("train hydra.job=null", "hydra.job=null: a value of another kind is needed"),
    ("train hydra.launcher=null -m", "hydra.launcher=null: Hydra says: "),
    ("train hydra/launcher=nope", "hydra/launcher=nope: no such file"),
    # files of conf/, left out or misspelt
    ("train model=zfnt", "model=zfnt: no such file in conf/model (did you mean zfnet?)"),
    ("train model=outputs", "model=outputs: names a file of conf/model; a layer table of your own must end in .yaml"),
    ("train model=null", "model=null: cannot be left out; `zfrepro train --help` lists them"),
    ("train data=null", "data=null: cannot be left out; there are caltech101"),
    ("train preset=null", "preset=null: cannot be left out; there are demo"),
    ("train preset=demos", "preset=demos: no such file in conf/preset (did you mean demo?)"),
    ("train data=3", "data=3: no such file in conf/data; there are caltech101"),
    ("train data=pets/", "data=pets/: names a kind of data set; for that folder give data=folder data.root=pets/"),
    ("train data=.", "data=.: names a kind of data set; for that folder give data=folder data.root=."),
    ("train ~model", "~model: an option cannot be taken away; give model=<another value>"),
    ("train ~epochs", "~epochs: an option cannot be taken away"),
    ("transfer ~per_class", "~per_class: an option cannot be taken away"),
    ("transfer ~per_class.table4", "~per_class.table4: an option cannot be taken away"),
    ("transfer scenes=null", "scenes=null: cannot be left out"),
    ("evaluate model=null", "model=null: evaluate takes the model of its run"),
    ("evaluate data=folder", "data=folder: evaluate takes the data of its run; give run=<name>, or data.root=<folder>"),
    ("evaluate --help model=null", "model=null: evaluate takes the model of its run"),
    ("import model=null", "model=null: cannot be left out"),
    ("summary preset=nope", "preset=nope: must be one of demo"),
    # values of another type
    ("train epochs=many", "epochs=many: must be a whole number"),
    ("train epochs=3.5", "epochs=3.5: must be a whole number"),
    ("train epochs=null", "epochs=null: must be a whole number"),
    ("train epochs=5,", "epochs=5,: must be one number, with a point before its decimals; -m tries several"),
    ("train lr=0,01", "lr=0,01: must be one number, with a point before its decimals"),
    ("train lr=fast", "lr=fast: must be a number"),
    ("train epochs=???", "epochs: a value is needed; give epochs=<value>"),
    ("train snapshot_epochs=1,2", "snapshot_epochs=1,2: must be a list, as snapshot_epochs=[1,2]"),
    ("train model.layers.0.maps=abc", "maps: Value 'abc' of type 'str' could not be converted to Integer"),
    ("train debug=maybe", "debug=maybe: must be true or false"),
    ("train outputs=null", "outputs=null: must be text"),
    ("train model.remove=3", "model.remove=3: must be a list, as [1,2]"),
    ("train model.remove=[a]", "model.remove[0]=a: must be a whole number"),
    ("occlude images=null", "images=null: must be a list, as [a,b]"),
    ("transfer per_class=null", "per_class=null: must be a mapping"),
    ("transfer per_class=[3]", "per_class=[3]: a value of another kind is needed"),
    ("transfer per_class.table4=null", "per_class.table4=null: must be a list"),
    ("train lr=${nope}", "lr: Interpolation key 'nope' not found"),
    # values that mean nothing
    ("train epochs=-1", "epochs=-1: must be 1 or more"),
    ("train epochs=99999999999999999999", "epochs=99999999999999999999: must be 1 or more and 2147483647 at most"),
    ("train batch_size=0", "batch_size=0: must be 1 or more"),
    ("train seed=-1", "seed=-1: must be 0 or more"),
    ("train lr=-0.1", "lr=-0.1: must be a positive number"),
    ("train lr=nan", "lr=nan: must be a positive number"),
    ("train lr=inf", "lr=inf: must be a positive number"),
    ("train momentum=1", "momentum=1.0: must be at least 0 and below 1"),
    ("train weight_decay=nan", "weight_decay=nan: must be at least 0"),
    ("train renorm_radius=0", "renorm_radius=0.0: must be a positive number, or null for off"),
    ("train precision=fp16", "precision=fp16: must be one of fp32, bf16, auto (did you mean bf16?)"),
    ("train device=cuda:7", "device=cuda:7: "),
    ("train device=gpu", "device=gpu: must be auto, cpu, cuda or cuda:<n>"),
    ("train schedule=plato", "schedule=plato: must be one of plateau, cosine"),
    ("train model=zfnet", "model.input_size=224: the crop is larger than the images"),
    ("train train_scale=[90,60]", "train_scale=[90, 60]: must be [S] or [min,max]"),
    ("train freeze=9", "freeze=9: must be at most 7"),
    ("train data.val_fraction=1", "data.val_fraction=1.0: must be between 0 and 1, both excluded"),
    ("train data.on_error=ignore", "data.on_error=ignore: must be one of raise, skip"),
    ("train ++model.norm_size=0", "model.norm_size=0: must be 1 or more"),
    ("train model.norm_size=0", "model.norm_size=0: must be 1 or more"),
    ("train model.layers.0.maps=0", "model.layers[0].maps=0: must be 1 or more"),
    ("train model.scale.6=-1", "model.scale.6=-1.0: must be a positive number"),
    ("train model.scale.99=2", "model.scale=99: the layers to choose from are 1, 2, 3, 4, 5, 6, 7"),
    ("train model.remove=[9]", "model.remove=9: the layers to choose from are 1, 2, 3, 4, 5, 6, 7"),
    ("train model.remove=[1,2,3,4,5]", "model.remove=[1, 2, 3, 4, 5]: must be such that a convolutional layer is left"),
    ("summary num_classes=0", "num_classes=0: must be 1 or more"),
    ("occlude others=4", "others=4: must be between 0 and 3"),
    ("occlude labels=[a]", "labels=['a']: 1 labels for 0 images"),
    ("occlude images=[a.jpg,,b.jpg]", "images=[a.jpg,,b.jpg]: an item of the list is empty"),
    ("invariance scale=1e30", "scale=1e+30: must be above 1 and at most 100"),
    ("invariance steps=4", "steps=4: must be odd"),
    ("invariance translation=-3", "translation=-3.0: must be above 0 and at most 4096, or null for 60 of 224 pixels"),
    ("filters dead=nan", "dead=nan: must be at least 0 and below 1"),
    ("filters lr=0", "lr=0.0: must be a positive number, or null for the run's own"),
    ("filters sibling_epochs=0", "sibling_epochs=0: must be 1 or more, or null for the run's own"),
    ("evolve alike_maps=-1", "alike_maps=-1: must be 1 or more"),
    ("correspond mask=1", "mask=1.0: must be between 0 and 1"),
    ("probe layers=[] softmax_layers=[]", "layers=[]: must be a list with a layer at least"),
    ("transfer per_class.table4=[]", "per_class.table4=[]: must have an item at least"),
    ("transfer per_class.tabel4=[15]", "per_class=tabel4: must be one of"),
    ("transfer tables=[tabel4]", "tables=['tabel4']: tabel4 must be one of"),
    # twice the same
    ("evaluate runs=[a,a]", "runs=['a', 'a']: has a twice; give it once"),
    ("invariance layers=[5,5]", "layers=[5, 5]: has 5 twice"),
    ("train model.remove=[3,3]", "model.remove=[3, 3]: has 3 twice"),
    ("transfer per_class.table4=[15,15]", "per_class.table4=[15, 15]: has 15 twice"),
    # runs and data
    ("train run=../elsewhere", "run=../elsewhere: must be a name"),
    ("train run=good/train", "run=good/train: lies within the run good; give another name"),
    ("import run=good/table3_ablation/x", "run=good/table3_ablation/x: lies within the run good"),
    ("evaluate run=nobody", "run=nobody: no trained run in outputs/nobody; train it with"),
    ("evaluate preset=nobody", "run=nobody: no trained run in outputs/nobody"),
    ("evolve run=goood", "run=goood: no trained run in outputs/goood (did you mean good?)"),
    ("train data=folder 'data.root=~/no such (folder)'", "/no such (folder): does not exist"),
    (
        "train data.root=pets",
        "data.root=pets: the embedded data set is drawn, and no folder is read for it; leave this out, or",
    ),
    ("prepare data.root=pets", "train on that folder with data=folder data.root=pets"),
    ("evaluate run=good data.root=outputs", "data.root=outputs: the embedded data set is drawn"),
    ("train data=tiny_imagenet data.root=/nowhere", "/nowhere"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the config of a run `good`, of which nothing may be lost."""
    (tmp_path / "outputs/good/train").mkdir(parents=True)
    write_config(
        tmp_path / "outputs/good/train/config.yaml", TrainConfig(preset="demo", model=small_table(), data=DATA)
    )
    return tmp_path


DATA = DataConfig(name="embedded", size=64)


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes_end_in_one_line(line: str, said: str, refused: Refused, folder: Path) -> None:
    words = [word.replace("<CR>", "\r") for word in shlex.split(line)]
    assert said in refused(*words, cwd=folder)
    assert not list(folder.glob("outputs/**/checkpoints/*"))


@pytest.mark.parametrize(
    ("command", "given", "handed_on"),
    [
        ("train", "data.root=/data/my pics (1)", "++data.root='/data/my pics (1)'"),
        ("correspond", "parts=it's.csv", r"++parts='it\'s.csv'"),
        ("train", "outputs=/plain/path-1.0", "++outputs=/plain/path-1.0"),
        ("train", "data.root='/quoted already'", "++data.root='/quoted already'"),
        ("train", "data.root=/a,b", "++data.root='/a,b'"),
        ("train", "data.root=/back\\", "++data.root='/back\\\\'"),
        ("train", "run=2024_01_15", "++run='2024_01_15'"),  # not the number 20240115
        ("train", "run=true", "++run='true'"),
        ("train", "run=${hydra:job.num}", "++run=${hydra:job.num}"),
        ("train", "+run=demo", "++run=demo"),
        ("train", "lr=1e-3", "++lr=1e-3"),
        ("train", "model=alexnet", "model=alexnet"),
        ("train", "preset=paper", "preset=paper"),
        ("occlude", "preset=paper", "++run=paper"),
        ("summary", "preset=paper", "model=zfnet"),
        ("doctor", "preset=paper", "data=imagenet"),
        ("transfer", "scenes=voc2012", "data@scenes=voc2012"),
        ("transfer", "per_class.table4=[3]", "++per_class={table4: [3]}"),
        ("occlude", "images=dog.jpg", "++images=[dog.jpg]"),
        ("occlude", "images=[dog (1).jpg]", "++images=['dog (1).jpg']"),
        ("occlude", "images=[été.jpg, a=b.jpg]", "++images=['été.jpg','a=b.jpg']"),
        ("occlude", "images=[~/x.jpg,img[1].jpg]", "++images=['~/x.jpg','img[1].jpg']"),
        ("occlude", "images=['a, b.jpg',c.jpg]", "++images=['a, b.jpg',c.jpg]"),
        ("occlude", "images=[]", "++images=[]"),
        ("occlude", "labels=[carpenter's kit]", r"++labels=['carpenter\'s kit']"),
        ("occlude", "hydra.verbose=true", "hydra.verbose=true"),
    ],
)
def test_names_as_people_type_them(command: str, given: str, handed_on: str) -> None:
    assert for_hydra(command, CONFIGS[command], [given]) == [handed_on]


def test_of_an_option_with_two_values_the_last_counts_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for_hydra("train", TrainConfig, ["epochs=3", "seed=1", "epochs=3"])
    assert capsys.readouterr().err == ""
    for_hydra("train", TrainConfig, ["epochs=3", "seed=1", "++epochs=4"])
    assert capsys.readouterr().err == "note: epochs is given twice; epochs=4 counts\n"
    for_hydra("transfer", CONFIGS["transfer"], ["scenes=embedded", "data@scenes=folder"])
    assert capsys.readouterr().err == "note: scenes is given twice; scenes=folder counts\n"


def test_a_file_with_commas_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b.jpg").touch()
    for given in ("images=a, b.jpg", "images=[a, b.jpg]"):
        assert for_hydra("occlude", OccludeConfig, [given]) == ["++images=['a, b.jpg']"]
    assert for_hydra("occlude", OccludeConfig, ["images=c, b.jpg"]) == ["++images=[c,b.jpg]"]
    assert len(for_hydra("occlude", OccludeConfig, [f"images=[{'c.jpg,' * 999}c.jpg]"])[0]) > 5999


def test_sweeps_stay_sweeps() -> None:
    words = ["-m", "seed=1,2", "run=a b,c", "images=[x y.jpg],[z.jpg]", "model=zfnet,alexnet", "lr=choice(1,2)"]
    assert for_hydra("train", TrainConfig, [word for word in words if "images" not in word]) == [
        "--multirun", "model=zfnet,alexnet", "++seed=1,2", "++run='a b',c", "++lr=choice(1,2)",
    ]  # fmt: skip
    assert for_hydra("occlude", CONFIGS["occlude"], ["-m", words[3]])[1] == "++images=['x y.jpg'],[z.jpg]"


def test_what_stands_beside_a_preset_counts(zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert zfrepro("summary", "model=alexnet", "preset=paper", cwd=tmp_path).stdout.startswith(
        "alexnet: input 3x224x224"
    )
    assert "data=imagenet: " in zfrepro("doctor", "preset=paper", cwd=tmp_path).stdout


def test_files_in_a_folder_of_ones_own(zfrepro: Zfrepro, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/small.yaml").write_text((conf_folder() / "model/zfnet_demo.yaml").read_text())
    done = zfrepro("train", "--config-dir", "mine", "model=small", "--cfg", "job", cwd=tmp_path)
    assert "name: zfnet_demo" in done.stdout
    assert "model=other: no such file" in refused("train", "--config-dir", "mine", "model=other", cwd=tmp_path)


def test_the_command_line_is_known_and_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["zfrepro", "summary", "num_classes=7", "run=a b"]
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "run=a b: must be a name" in capsys.readouterr().err
    given.pop()
    with pytest.raises(SystemExit):
        main()
    assert sys.argv is given and provenance.invocation == ["summary", "num_classes=7"]


def test_what_is_typed_is_what_the_option_holds() -> None:
    given = [
        "images=[it's \\ (1).jpg,été.jpg,'a, b.jpg',3.jpg,null]",
        "labels=[carpenter's kit,true,3,a\"b,-]",
        "run=1_000",
    ]
    config = composed("occlude", OccludeConfig, *for_hydra("occlude", OccludeConfig, given))
    assert config.images == ["it's \\ (1).jpg", "été.jpg", "a, b.jpg", "3.jpg", "null"]
    assert config.labels == ["carpenter's kit", "true", "3", 'a"b', "-"] and config.run == "1_000"


def test_every_failing_job_of_a_sweep_is_told(zfrepro: Zfrepro, tmp_path: Path) -> None:
    done = zfrepro("train", "-m", "lr=-1,-2", "hydra.sweep.dir=.", cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        "zfrepro: lr=-1.0: must be a positive number",
        "zfrepro: lr=-2.0: must be a positive number",
    ]


@pytest.mark.parametrize(("options", "size"), [([], 64), (["model=zfnet"], 256), (["model.input_size=112"], 128)])
def test_pictures_are_packed_a_little_larger_than_the_input(
    options: list[str], size: int, zfrepro: Zfrepro, tmp_path: Path
) -> None:
    text = zfrepro("train", "data=folder", *options, "--cfg", "job", "--resolve", cwd=tmp_path).stdout
    assert f"\n  size: {size}\n" in text


def test_debug_shows_the_traceback(zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert "Traceback" in zfrepro("train", "epochs=0", "debug=true", cwd=tmp_path, check=False).stderr


def test_read_only_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    line = refused("train", *TINY, cwd=tmp_path)
    assert "outputs" in line


def program(
    *args: str, cwd: Path, env: dict[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, after some lines of Python."""
    code = f"import sys; sys.argv[0] = 'zfrepro'\n{before}\nfrom zfrepro.cli import main\nmain()"
    call = [sys.executable, "-c", code, *args]
    return subprocess.run(call, env={**os.environ, **(env or {})}, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["train", "--cfg", "job"]])
def test_help_does_not_load_torch(words: list[str], tmp_path: Path) -> None:
    seen = "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    assert program(*words, cwd=tmp_path, before=seen).stderr.split() == ["False"]


def shell(call: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """zfrepro <call>, as bash understands it."""
    line = f"set -o pipefail; {sys.executable} -u -m zfrepro {call}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("call", ["--help | head -1", "train --help | true", "summary >&-", "train --cfg job 2>&-"])
def test_output_that_nobody_reads(call: str, tmp_path: Path) -> None:
    done = shell(call, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_training_outlives_its_reader(tmp_path: Path, cache: Path) -> None:
    done = shell(f"train {' '.join(TINY)} 2>&1 | head -1", tmp_path)
    assert done.returncode == 0 and (tmp_path / "outputs/demo/train/curves.png").exists()


TERMINAL = """
import os, pty, sys
from zfrepro.cli import _patient_streams
ours, theirs = pty.openpty()
os.dup2(theirs, 1)
os.dup2(theirs, 2)
sys.stdout, sys.__stdout__ = [open(1, "w", closefd=False)] * 2
_patient_streams()
print("heard", flush=True)
os.close(ours)
os.close(theirs)
for stream in (sys.stdout, sys.stderr):
    print("unheard", file=stream, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such terminals here")
def test_work_goes_on_in_a_terminal_that_was_closed() -> None:
    assert subprocess.run([sys.executable, "-c", TERMINAL], check=False).returncode == 0


def test_what_is_killed_keeps_its_log() -> None:
    """As in a batch system's log file."""
    code = "import os, zfrepro.cli as c; c._patient_streams(); print('said'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stdout == b"said\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_onto_a_full_disk(tmp_path: Path) -> None:
    done = shell("--help > /dev/full", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "no space left" in done.stderr


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path) -> None:
    def missing(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", missing)
    for name in ("HOME", "ZFREPRO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert "data.cache=~/.cache/zfrepro: you have no home folder; give data.cache=" in refused("train", cwd=tmp_path)
    assert "outputs=~/runs: you have no home folder" in refused("train", "outputs=~/runs", cwd=tmp_path)


def test_an_empty_cache_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for empty in ("", " "):
        monkeypatch.setenv("ZFREPRO_CACHE", empty)
        assert DATA.cache_folder == tmp_path.resolve() / ".cache/zfrepro"
    monkeypatch.setenv("ZFREPRO_CACHE", "/elsewhere")
    assert DATA.cache_folder == Path("/elsewhere")
    assert dataclasses.replace(DATA, cache="/own").cache_folder == Path("/own")


def test_words_outside_the_character_set(tmp_path: Path) -> None:
    done = program("größe", cwd=tmp_path, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 2 and "no such command" in done.stderr and len(done.stderr.splitlines()) == 1


def test_shell_completion(tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        env = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line)), "_TYPER": ""}
        call = [sys.executable, "-m", "zfrepro", "-sc", "query=bash"]
        return subprocess.run(call, env=env, capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert complete("zfrepro ev")[0] == "evaluate"
    assert "model=alexnet" in complete("zfrepro train model=al")
    assert "preset=" in complete("zfrepro train pre")
    install = [sys.executable, "-m", "zfrepro", "-sc", "install=bash"]
    assert "complete" in subprocess.run(install, capture_output=True, text=True, cwd=tmp_path).stdout
