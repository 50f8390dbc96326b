"""Bad input, and processes that are killed: `python scripts/torture.py [--inputs 200] [--kills 100] [--seed 0]
[--patience 600]`.

Bad input: every command is given what it cannot do: values of the wrong kind or size, keys and names that are not there, damaged
runs, files that are not what their names say. Each must end with status 2 and one line that names the culprit, change nothing
in the run, and come back: after a minute of the processor's time at most, however busy the machine, and --patience seconds on
the clock. Some of it is odd and not bad (lists with semicolons, output that nobody reads): there the command must do its work.

Kills: train, prepare, visualize, ablate, transfer and report are killed outright (SIGKILL) at random moments and given again.
Each must end as if nothing had happened: weights bit-identical, arrays equal, nothing left over, no half file taken for whole.

Not a part of the test suite: it takes minutes. Status 0 if nothing fell short.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

TINY = [
    "data.train_per_class=4",
    "data.val_per_class=2",
    "epochs=2",
    "batch_size=40",
    "warmup_steps=2",
    "precision=fp32",
]
RUN_COMMANDS = (
    "evaluate",
    "visualize",
    "evolve",
    "invariance",
    "filters",
    "occlude",
    "correspond",
    "ablate",
    "transfer",
    "probe",
)
LONGEST = 400  # signs in a line of refusal
SECONDS = 60  # of the processor's time that a refusal may take
PROGRESS = re.compile(r"\d+%\|")  # a bar, as of images that are packed before their number is known
PATIENCE = 3600.0  # seconds on the clock after which a command that works hangs


# -------------------------------------------------------------------------------------------------------------- bad input


@dataclass(frozen=True)
class Case:
    """A command's arguments, what its refusal must name, and what is broken first in a copy of the run."""

    args: list[str]
    names: str  # '': it must not be refused
    spoil: Callable[[Path], object] | None = None  # given the copy of the run's folder
    line: str = ""  # for a shell, in place of the arguments; `zfrepro` is a process of its own there

    def __str__(self) -> str:
        return self.line or f"zfrepro {' '.join(self.args)}"


def refusals() -> Iterator[Case]:
    """Bad input of every kind over all commands; endless kinds come in one example each."""
    yield from bad_words()
    yield from bad_values()
    yield from bad_groups()
    yield from damaged_runs()
    yield from bad_files()
    yield from bad_weights()
    yield from bad_layouts()
    yield from odd_lists()
    yield from surroundings()


def bad_words() -> Iterator[Case]:
    """Commands and keys that are not there, and the form of a command line."""
    for command in (*RUN_COMMANDS, "train", "report", "import", "prepare", "summary", "doctor"):
        yield Case([command, "sed=1"], "sed")
        yield Case([command, "device=gpu"], "device")
        yield Case([command, "precision=fp8"], "precision")
        yield Case([command, "seed=-1"], "seed")
        yield Case([command, "seed=seven"], "seed")
        yield Case([command, "--badflag"], "badflag")
        yield Case([command, "run=../elsewhere"], "run")
    yield Case(["tain"], "tain")
    yield Case(["train", "--epochs", "5"], "epochs")
    yield Case(["train", "epochs", "5"], "epochs")
    yield Case(["train", "=3"], "=3")
    yield Case(["train", "epochs=="], "epochs")
    yield Case(["train", "--cfg", "bad"], "cfg")
    yield Case(["train", "--config-name", "nope"], "config-name")
    yield Case(["train", "--experimental-rerun", "x.pickle"], "experimental-rerun")
    for command in (*RUN_COMMANDS, "report"):
        yield Case([command, "run=nonsuch"], "nonsuch")


def bad_values() -> Iterator[Case]:
    """Values that an option cannot have."""
    bad = {
        "train": ["epochs=0", "epochs=1.5", "epochs=null", "batch_size=-3", "batch_size=1000000", "lr=nan", "lr=0",
                  "lr=inf", "momentum=1",
                  "momentum=-0.1", "weight_decay=-1", "schedule=linear", "patience=0", "warmup_steps=-1", "renorm_radius=0",
                  "renorm_radius=nan", "augmentation=none", "init=xavier", "input_scale=0", "snapshot_epochs=[0]",
                  "snapshot_epochs=3", "checkpoint_every=0", "resume=perhaps", "model.input_size=0", "model.input_size=99999",
                  "model.remove=[9]", "model.remove=[3,3]", "model.scale={3:0}", "model.scale={3:nan}", "++model.norm_size=0",
                  "data.size=3", "data.per_class=0", "data.val_fraction=2", "data.workers=-1", "data.on_error=ignore",
                  "freeze=-1", "freeze=99", "init_from=nonsuch"],
        "evaluate": ["batch_size=0", "runs=[a,a]", "runs=[nonsuch]", "method=dance", "test_scales=[3]", "test_scales=[nan]"],
        "visualize": ["layer=9", "layer=0", "layer=five", "num_maps=0", "maps=[9999]", "maps=[-1]", "num_images=0",
                      "num_images=100000", "split=test", "unpool=min"],
        "evolve": ["num_maps=0", "alike_maps=-1", "alike_maps=0", "epochs_shown=[77]", "epochs_shown=[1]"],
        "invariance": ["layers=[9]", "layers=[5,5]", "translation=-1", "scale=1", "scale=1e30", "scale=nan", "rotation=0",
                       "rotation=361", "steps=4", "steps=1", "fill=red", "claims_images=-1", "num_images=0"],
        "filters": ["dead=nan", "dead=-1", "lr=0", "sibling_epochs=0", "epochs=0", "input_scale=0", "sibling=nonsense",
                    "num_maps=0", "workers=-1"],
        "occlude": ["layer=9", "square=0", "square=9999", "stride=0", "fill=red", "others=9", "claims_images=-1",
                    "images=[nonsuch.png]", "labels=[cat]"],
        "correspond": ["class_name=nonsuch", "parts=nonsuch.csv", "layers=[9]", "layers=[5,5]", "num_images=1",
                       "num_images=99999", "mask=0", "mask=1", "mask=nan", "fill=red", "draws=0"],
        "ablate": ["variant=nonsuch", "seeds=[1,1]", "seeds=[-1]", "epochs=0", "batch_size=0", "lr=0", "lr=nan", "dropout=1",
                   "dropout=-0.1", "average=[nonsuch]", "data.per_class=0"],
        "transfer": ["tables=[table9]", "layer=99", "folds=0", "test_per_class=0", "parts=1", "strengths=[0]", "strengths=[]",
                     "dtype=int8", "pool=0", "scratch_steps=0", "overlap=2", "overlap=0", "per_class.table4=[0]",
                     "per_class.table4=[99999]"],
        "probe": ["layers=[99]", "layers=[]", "softmax_layers=[99]", "per_class=0", "per_class=99999", "costs=[0]", "costs=[nan]",
                  "scalings=[none]", "folds=0", "pool=-1"],
        "summary": ["num_classes=0", "num_classes=-1", "model=nonsuch", "model.remove=[1,2,3,4,5,6,7]"],
        "import": ["weights=nonsuch.pth", "model=torchvision/resnet50", "model=zfnet"],
        "report": ["runs=[nonsuch]"],
    }  # fmt: skip
    for command, options in bad.items():
        for option in options:
            key = option.partition("=")[0].lstrip("+").split(".")[0]
            yield Case([command, option, *(["softmax_layers=[]"] if option == "layers=[]" else [])], key)


def bad_groups() -> Iterator[Case]:
    """Whole groups that are no group."""
    for command in ("train", "prepare", "import", "summary"):
        yield Case([command, "model=null"], "model")
        yield Case([command, "model=3"], "model")
    for command in ("train", "prepare", "import", "transfer", "probe", "doctor"):
        yield Case([command, "data=null"], "data")
        yield Case([command, "data=3"], "data")
        yield Case([command, "data=nonsuch"], "data")
    yield Case(["train", "preset=null"], "preset")
    yield Case(["train", "preset=nonsuch"], "preset")
    yield Case(["transfer", "per_class=null"], "per_class")
    yield Case(["transfer", "~per_class"], "per_class")
    yield Case(["transfer", "~per_class.table4"], "per_class")
    yield Case(["evaluate", "--help", "model=null"], "model")


def damaged_runs() -> Iterator[Case]:
    """Runs whose files were damaged."""

    def write(name: str, content: bytes) -> Callable[[Path], object]:
        return lambda run: (run / "train" / name).write_bytes(content)

    def cut(name: str) -> Callable[[Path], object]:
        return lambda run: os.truncate(run / "train" / name, (run / "train" / name).stat().st_size // 2)

    for command in RUN_COMMANDS:
        yield Case([command], "config.yaml", write("config.yaml", b"{"))
        yield Case([command], "config.yaml", write("config.yaml", b"- a list\n"))
    for command in ("evaluate", "visualize", "occlude", "probe"):
        for content in (b"", b"PK\x03\x04", b"<html>not found</html>", pickled()):
            yield Case([command], "best.pt", write("checkpoints/best.pt", content))
        yield Case([command], "best.pt", cut("checkpoints/best.pt"))
        yield Case([command], "best.pt", lambda run: (run / "train" / "checkpoints" / "best.pt").unlink())
        yield Case([command], "config.yaml", write("config.yaml", b"epochs: [1, 2]\n"))
    for name, value in (("model", {}), ("class_names", 3), ("mean", "grey"), ("scale", None), ("epoch", -1)):
        yield Case(["evaluate"], "best.pt", partial(with_entry, name, value))
    for text in ("sed: 1", "epochs: many", "epochs: 1\nepochs: 2", "a: *b", "\x00"):
        yield Case(["evaluate"], "config.yaml", write("config.yaml", text.encode()))
    yield Case(["report"], "", write("metrics.jsonl", b"\xff\x00 not JSON\n[]\n"))
    yield Case(["report"], "", write("curves.png", b"no picture"))
    yield Case(["evolve"], "epoch_1.pt", cut("checkpoints/epoch_1.pt"))
    yield Case(["train", *TINY], "last.pt", cut("checkpoints/last.pt"))
    yield Case(["train", *(option.replace("epochs=2", "epochs=3") for option in TINY)], "epochs")
    yield Case(["train", *TINY[:2], "batch_size=100000", "resume=false"], "batch_size")  # what stood there stays
    yield Case(["evaluate", "runs=[tiny,copy]"], "runs=copy", lambda run: shutil.copytree(run, run.with_name("copy")))


def with_entry(name: str, value: object, run: Path) -> None:
    """Give the run's best checkpoint, a sound torch file, another value of an entry."""
    import torch

    path = run / "train" / "checkpoints" / "best.pt"
    torch.save(torch.load(path, weights_only=True) | {name: value}, path)


def pickled() -> bytes:
    """A hostile pickle: it must not be run."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch torture-was-here",)

    return pickle.dumps({"model": Evil()})


def bad_files() -> Iterator[Case]:
    """Files of a user that are not what they should be; the working folder holds them (see `bad_folder`)."""
    for picture in ("text.png", "empty.png", "cut.png", "pipe.png", "folder.png"):
        yield Case(["occlude", f"images=[{picture}]"], picture)
        yield Case(["invariance", f"images=[{picture}]"], picture)
    for parts in (
        "no_header.csv",
        "no_numbers.csv",
        "outside.csv",
        "twice.csv",
        "one_image.csv",
        "binary.csv",
        "long.csv",
    ):
        yield Case(["correspond", f"parts={parts}"], parts)
    for root in ("empty_folder", "one_class", "empty_class", "text.png", "cut.zip", "evil.zip", "nonsuch"):
        yield Case(["train", "data=folder", f"data.root={root}", "run=other"], root)
        yield Case(["prepare", "data=folder", f"data.root={root}", "run=other"], root)
    for weights in ("text.png", "empty.png", "cut.zip"):
        yield Case(["import", "model=torchvision/alexnet", f"weights={weights}", "data=embedded", "run=other"], weights)

    for images in (
        "[whole.png,nonsuch.png]",
        "nonsuch*.png",
        "[https://nowhere.invalid/a.png]",
        "[whole.png,,whole.png]",
    ):
        yield Case(["occlude", f"images={images}"], "images" if ",," in images else images.strip("[]").split(",")[-1])
    for labels in ("[nonsuch]", "[dog,cat]", "[9999]", "['']"):
        yield Case(["occlude", "images=[whole.png]", f"labels={labels}"], "labels")


def bad_weights() -> Iterator[Case]:
    """Files of weights that hold something else, for a sound table; see `weights_folder`."""
    for name in ("tensor.pt", "list.pt", "empty.pt", "alphabet.pt", "texts.pt", "hostile.pt", "other.pt", "nan.pt", "net.h5",
                 "net.safetensors", "net.onnx", "net.npz", "pipe.png", "folder.png"):  # fmt: skip
        given = ["model=zfnet_demo", "mean=[0.5]", "std=[0.5]", "data=embedded", "run=other"]
        yield Case(["import", f"weights={name}", *given], name)


def weights_folder(here: Path) -> None:
    """Lay out what `bad_weights` names."""
    import torch

    filters = torch.zeros(32, 3, 7, 7)
    held = {
        "tensor.pt": filters, "list.pt": [filters], "empty.pt": {}, "texts.pt": {"a": "b"}, "other.pt": {"a.weight": filters},
        "nan.pt": {"a.weight": filters / 0, "a.bias": torch.zeros(32)},
        "alphabet.pt": {f"{n}.weight": filters for n in sorted(map(str, range(11)))},
    }  # fmt: skip
    for name, value in held.items():
        torch.save(value, here / name)
    (here / "hostile.pt").write_bytes(pickled())
    (here / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (here / "net.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (here / "net.onnx").write_text("no network", encoding="utf-8")
    np.savez(here / "net.npz", a=np.zeros(3))


# What lies in a folder of pictures of classes -> its files, pictures but for .csv and .tar; '/' at the end: an empty folder.
LAYOUTS = {
    "val_flat": ["train/a/0.png", "train/b/0.png", "val/0.png"],
    "val_other": ["train/a/0.png", "train/b/0.png", "val/c/0.png"],
    "val_bare": ["train/a/0.png", "train/b/0.png", "val/a/", "val/b/"],
    "one_picture": ["a/0.png", "b/0.png"],
    "tars": ["a/0.tar", "b/0.tar"],
    "too_deep": ["a/x/0.png", "b/x/0.png", "c/x/0.png"],
    "two_forms": ["\u00e9/0.png", "\u00e9/1.png", "e\u0301/0.png", "e\u0301/1.png"],
    "flat": ["0.png", "1.png"],
}
BOXES = [
    "a/9.png,1,1,9,9,", "a/0.png,1,1,999,9,", "a/0.png,9,1,1,9,", "a/0.png,.1,.1,.9,.9,", "a/0.png,1,1,9,9,nonsuch",
    "a/0.png,1", "a/0.png,x,1,9,9,", "a/0.png,2,2,8,8,", ",1,1,9,9,",
]  # fmt: skip


def bad_layouts() -> Iterator[Case]:
    """Folders of pictures that are no data set, and boxes that are none; see `layout_folder`."""
    for root in (*LAYOUTS, *(f"boxes_{number}" for number in range(len(BOXES)))):
        name = "boxes.csv" if root.startswith("boxes") else root
        yield Case(["train", "data=folder", f"data.root={root}", "run=other"], name)
        yield Case(["prepare", "data=folder", f"data.root={root}", "run=other"], name)


def layout_folder(here: Path) -> None:
    """Lay out what `bad_layouts` names."""
    for root, names in LAYOUTS.items():
        for name in names:
            (here / root / name).parent.mkdir(parents=True, exist_ok=True)
            make = Path.mkdir if name.endswith("/") else picture if name.endswith(".png") else Path.touch
            make(here / root / name)
    for number, line in enumerate(BOXES):
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            (here / f"boxes_{number}" / name).parent.mkdir(parents=True, exist_ok=True)
            picture(here / f"boxes_{number}" / name)
        table = f"image,left,top,right,bottom,class\na/0.png,2,2,8,8,\n{line}\n"
        (here / f"boxes_{number}" / "boxes.csv").write_text(table, encoding="utf-8")


def odd_lists() -> Iterator[Case]:
    """Tables as spreadsheets write them: read if they are sound, refused by name if not; see `list_folder`."""
    for name in ("bom", "semicolons", "utf16", "windows"):
        yield Case(["correspond", f"parts={name}_sound.csv", "num_images=2", "draws=5"], "")
        yield Case(["correspond", f"parts={name}_wrong.csv", "num_images=2", "draws=5"], f"{name}_wrong.csv, line 3")


def list_folder(here: Path) -> None:
    """Lay out what `odd_lists` names."""
    sound = "image,part,left,top,right,bottom\nwhole.png,nose,30,20,40,30\nsecond.png,nose,35,30,45,40\n"
    picture(here / "second.png")
    for kind, text in (("sound", sound), ("wrong", sound.replace("35,", "x,"))):
        (here / f"bom_{kind}.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
        (here / f"semicolons_{kind}.csv").write_bytes(text.replace(",", ";").encode())
        (here / f"utf16_{kind}.csv").write_bytes(text.replace(",", "\t").encode("utf-16"))
        (here / f"windows_{kind}.csv").write_bytes(text.replace("\n", "\r\n").encode())


def surroundings() -> Iterator[Case]:
    """Variables, limits and streams of the shell."""
    tiny, other = " ".join(TINY), f"train {' '.join(TINY)} run=other"
    for line in (
        "zfrepro --help | head -1", "zfrepro train --help | true", "zfrepro summary >&-", "zfrepro summary 2>&-",
        "LC_ALL=nonsuch zfrepro summary", "LC_ALL=C PYTHONIOENCODING=ascii zfrepro report run=tiny",
        "OMP_NUM_THREADS=many zfrepro evaluate run=tiny 2>&-", "MPLBACKEND=nonsuch zfrepro report run=tiny",
        "TERM=nonsuch COLUMNS=-3 zfrepro summary", f"HOME=/nowhere zfrepro prepare {tiny}",
    ):  # fmt: skip
        yield Case([], "", line=line)
    for line, names in {
        f"ZFREPRO_CACHE=text.png zfrepro prepare {tiny}": "text.png",
        f"RANK=zero WORLD_SIZE=2 zfrepro {other}": "RANK=zero",
        f"RANK=0 WORLD_SIZE=many zfrepro {other}": "WORLD_SIZE=many",
        f"RANK=0 WORLD_SIZE=2 zfrepro {other}": "RANK=0, WORLD_SIZE=2",
        f"MASTER_ADDR=nonsuch.invalid MASTER_PORT=29500 RANK=1 WORLD_SIZE=2 zfrepro {other}": "MASTER_ADDR=nonsuch.invalid",
        f"ulimit -f 50; zfrepro {other}": "ulimit -f",
        f"ulimit -n 20; zfrepro {other}": "ulimit -n",
        "zfrepro --help > /dev/full": "no space",
    }.items():
        yield Case([], names, line=line)


def bad_folder(here: Path) -> None:
    """Lay out what the cases name."""
    weights_folder(here)
    layout_folder(here)
    list_folder(here)
    (here / "text.png").write_text("no picture", encoding="utf-8")
    (here / "empty.png").touch()
    os.mkfifo(here / "pipe.png")
    (here / "folder.png").mkdir()
    picture(here / "whole.png")
    (here / "cut.png").write_bytes((here / "whole.png").read_bytes()[:200])
    header = "image,part,left,top,right,bottom\n"
    (here / "no_header.csv").write_text("whole.png,nose,1,1,9,9\n", encoding="utf-8")
    (here / "no_numbers.csv").write_text(header + "whole.png,nose,a,b,c,d\n", encoding="utf-8")
    (here / "outside.csv").write_text(
        header + "whole.png,nose,900,900,990,990\nother.png,nose,1,1,9,9\n", encoding="utf-8"
    )
    (here / "twice.csv").write_text(header + "whole.png,nose,1,1,9,9\nwhole.png,nose,1,1,9,9\n", encoding="utf-8")
    (here / "one_image.csv").write_text(header + "whole.png,nose,1,1,9,9\n", encoding="utf-8")
    (here / "binary.csv").write_bytes(os.urandom(500))
    (here / "long.csv").write_text(header + "x" * 200_000 + ",nose,1,1,9,9\n", encoding="utf-8")
    (here / "empty_folder").mkdir()
    for name in ("one_class/a", "empty_class/a", "empty_class/b"):
        (here / name).mkdir(parents=True)
    for name in ("one_class/a", "empty_class/a"):
        for number in range(4):
            picture(here / name / f"{number}.png")
    with zipfile.ZipFile(here / "evil.zip", "w") as archive:
        archive.writestr("../../torture-was-here", "x")
    whole = (here / "evil.zip").read_bytes()
    (here / "cut.zip").write_bytes(whole[: len(whole) // 2])


def picture(path: Path) -> None:
    """A small random picture."""
    from PIL import Image

    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (70, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def try_case(case: Case, sound: Path, here: Path, patience: float) -> str:
    """Why a case falls short, '' if it does not. sound: the outputs folder of an intact run; here: the working folder;
    patience: seconds on the clock."""
    outputs = here / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    shutil.copytree(sound, outputs)
    if case.spoil:
        case.spoil(outputs / "tiny")
    before = fingerprint(outputs)
    status, error = in_a_shell(case.line, here, patience) if case.line else forked(given(case), here, patience)
    if status in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return f"takes more than {SECONDS} s of the processor's time"
    lines = [line for line in error.strip().splitlines() if line.strip() and not PROGRESS.search(line)]
    if not case.names:
        return "" if status == 0 and "Traceback" not in error else f"status {status}: {lines[-1:]}"
    if status != 2:
        return f"status {status}" + (f": {lines[-1][:160]}" if lines else "")
    if len(lines) != 1:
        return f"{len(lines)} lines on stderr: {lines[-1][:160] if lines else ''}"
    if case.names.lower() not in lines[0].lower():
        return f"does not name {case.names}: {lines[0][:200]}"
    if len(lines[0]) > LONGEST:
        return f"{len(lines[0])} signs in one line"
    if fingerprint(outputs) != before:
        return "the run's files have changed"
    if list(here.rglob("torture-was-here")):
        return "hostile content was run"
    return ""


def given(case: Case) -> list[str]:
    """The arguments, with the run where the command has one."""
    named = any(arg.startswith("run=") for arg in case.args[1:])
    alone = case.args[0] in ("tain", "summary", "doctor", "import", "prepare") or "--help" in case.args
    return [*case.args, *([] if named or alone else ["run=tiny"])]


def in_a_shell(line: str, here: Path, patience: float) -> tuple[int, str]:
    """Status and stderr of a line; -1 where it hangs."""
    program = f'ulimit -S -t {SECONDS}; zfrepro() {{ "{sys.executable}" -m zfrepro "$@"; }}; set -o pipefail; '
    try:
        done = subprocess.run(
            ["bash", "-c", program + line], cwd=here, capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, "hangs"
    return done.returncode, done.stderr.decode(errors="replace")


def forked(args: list[str], here: Path, patience: float) -> tuple[int, str]:
    """Status and stderr of a command; -1 where it hangs."""
    child = Child(args, here, SECONDS)
    status = child.wait(patience)
    if status is None:
        child.kill(group=True)
        return -1, "hangs"
    return status, child.error()


class Child:
    """A command in a fork of this process, which has everything loaded, so that its time goes into its work; it leads a
    group of its own. limit: on the processor's time, in seconds."""

    def __init__(self, args: list[str], here: Path, limit: int | None = None) -> None:
        self.err = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.chdir(here)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.err.fileno(), 2)
            sys.argv = ["zfrepro", *args]
            os._exit(_status())

    def wait(self, seconds: float) -> int | None:
        """The exit status; None where it has not ended by then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None

    def kill(self, group: bool) -> None:
        """Kill it outright, with what it has begun or alone."""
        os.killpg(self.pid, signal.SIGKILL) if group else os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def error(self) -> str:
        """What it wrote to stderr."""
        self.err.seek(0)
        return self.err.read().decode(errors="replace")


def _status() -> int:
    """Run the command of sys.argv; its exit status, 1 after a traceback."""
    from zfrepro.cli import main

    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


def load() -> None:
    """What commands import, once for all children."""
    import torch

    for name in ("trainer", "visualizer.features", "evaluator.ablation", "evaluator.transfer", "report.report"):
        importlib.import_module(f"zfrepro.{name}")
    torch.set_num_threads(1)  # no team of threads that a fork would lose


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of a run with its content, locks aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------------------------------------------------------ kills


def stages() -> dict[str, list[str]]:
    """The commands that are killed, with options that make them short."""
    return {
        "train": ["train", *TINY, "snapshot_epochs=[1,2]", "checkpoint_every=1"],
        "prepare": ["prepare", "data.train_per_class=40", "data.val_per_class=4"],
        "visualize": ["visualize", "num_maps=4"],
        "ablate": ["ablate", "variant=alexnet_no_6_7", "seeds=[0,1]", "data.per_class=1", "epochs=1", "workers=2"],
        "transfer": [
            "transfer", "folds=1", "per_class.table4=[2]", "tables=[table4]", "scratch_steps=10", "scratch_doublings=0",
            "test_per_class=2",
        ],
        "report": ["report"],
    }  # fmt: skip


def lay_out(name: str, base: Path, here: Path) -> None:
    """What the command finds: an empty folder, or the tiny run; the packed data, unless it is to pack them."""
    shutil.rmtree(here / "outputs", ignore_errors=True)
    shutil.rmtree(here / "cache", ignore_errors=True)
    if name != "prepare":
        shutil.copytree(base / "cache", here / "cache")
    shutil.copytree(base / ("empty" if name == "train" else "outputs"), here / "outputs")
    os.environ["ZFREPRO_CACHE"] = str(here / "cache")


def undisturbed(name: str, args: list[str], base: Path, here: Path) -> tuple[float, dict[str, str]]:
    """How long the command takes, and what it leaves."""
    lay_out(name, base, here)
    before, process = time.monotonic(), Child([*args, "run=tiny"], here)
    if process.wait(PATIENCE) != 0:
        raise SystemExit(f"{name} fails undisturbed: {process.error()}")
    return time.monotonic() - before, content(here / ("outputs" if name != "prepare" else "cache"))


def kill_and_repeat(
    name: str, args: list[str], reference: dict[str, str], base: Path, here: Path, moment: float
) -> str:
    """Kill the command after `moment` seconds, give it again; why it falls short of the reference, '' if it does not."""
    lay_out(name, base, here)
    process = Child([*args, "run=tiny"], here)
    if process.wait(moment) is None:
        process.kill(group=name != "ablate")  # ablate's workers must notice by themselves
    again = Child([*args, "run=tiny"], here)
    if status := again.wait(PATIENCE):
        return f"given again it ends with {status}: {again.error().strip()[-200:]}"
    if status is None:
        again.kill(group=True)
        return "given again it hangs"
    if left := [str(path.relative_to(here)) for path in here.rglob(".*.tmp")]:
        return f"left over: {left[:3]}"
    found = content(here / ("outputs" if name != "prepare" else "cache"))
    differing = [key for key in reference.keys() | found.keys() if reference.get(key) != found.get(key)]
    return f"differs from the undisturbed: {sorted(differing)[:3]}" if differing else ""


def content(folder: Path) -> dict[str, str]:
    """What must not differ: weights, arrays, tables, pictures; not the clock's and the process's traces."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".pt":
            import torch

            state = torch.load(path, weights_only=True)
            found[name] = hashlib.sha256(b"".join(t.numpy().tobytes() for t in state["model"].values())).hexdigest()
        elif path.suffix in (".npy", ".png"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = hashlib.sha256(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest()
        elif path.name in ("metrics.json", "manifest.json", "claims.json"):
            json.loads(path.read_text(encoding="utf-8"))
            found[name] = "whole"
    return found


# ------------------------------------------------------------------------------------------------------------------- main


def report_line(what: str, tried: int, short: list[str]) -> None:
    """The figures of a part, and what fell short."""
    print(f"{what}: {tried} tried, {len(short)} fall short")
    for line in short:
        print(f"  {line}")


def bad_input(count: int, seed: int, patience: float, base: Path) -> bool:
    """All or a random part of the refusals; True if none falls short."""
    cases = list(refusals())
    chosen = random.Random(seed).sample(cases, min(count, len(cases)))
    here = base / "bad"
    here.mkdir()
    bad_folder(here)
    os.environ["ZFREPRO_CACHE"] = str(base / "cache")
    short = []
    for case in chosen:
        why = try_case(case, base / "outputs", here, patience)
        if why:
            short.append(f"{case}: {why}")
    report_line("bad input", len(chosen), short)
    return not short


def kills(count: int, seed: int, base: Path) -> bool:
    """Kills in turn over the commands, at random moments; True if none falls short."""
    generator, short, here = random.Random(seed), [], base / "kills"
    here.mkdir()
    references, lengths = {}, {}
    for name, args in stages().items():
        lengths[name], references[name] = undisturbed(name, args, base, here)
    done = 0
    try:
        for number in range(count):
            name = list(stages())[number % len(stages())]
            moment = generator.uniform(0, lengths[name])
            why = kill_and_repeat(name, stages()[name], references[name], base, here, moment)
            line = f"{name}, which takes {lengths[name]:.1f} s, killed after {moment:.2f} s: {why or 'nothing lost'}"
            short += [line] if why else []
            done += 1
            print(f"  {done} of {count}: {line}", flush=True)
    finally:  # an interrupt loses nothing of what was tried
        report_line("kills", done, short)
    return not short


def main() -> int:
    """Make a tiny run, then torture it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=200, help="how many bad inputs, drawn from all there are")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patience", type=float, default=600, help="seconds on the clock after which a bad input hangs"
    )
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        (base / "empty").mkdir()
        os.environ |= {"ZFREPRO_CACHE": str(base / "cache"), "OMP_NUM_THREADS": "1"}
        load()
        process = Child([*stages()["train"], "run=tiny"], base)
        if process.wait(600) != 0:
            print(f"the tiny run cannot be trained: {process.error()}")
            return 1
        good = bad_input(args.inputs, args.seed, args.patience, base) if args.inputs else True
        good &= kills(args.kills, args.seed, base) if args.kills else True
        return 0 if good else 1
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
