"""From the words of a shell to Hydra's: names and paths as people type them, and a line for each mistake of form.

Every key is looked up in the command's dataclass here, so that Hydra gets what it can set.
"""

from __future__ import annotations

import os
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from zfrepro.errors import MOST, UserError, nearest
from zfrepro.options.compose import choices, preset_pieces, type_of

# Hydra's flags that fit a command, and what may follow them. Not --experimental-rerun, which runs what a pickle holds, nor
# what chooses another config.
FLAGS: dict[str, Sequence[str] | None] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-dir": (),
    "--resolve": None,
    "--run": None,
    "--multirun": None,
    "--hydra-help": None,
}
SHORT = {"-c": "--cfg", "-i": "--info", "-p": "--package", "-cd": "--config-dir", "-r": "--run", "-m": "--multirun",
         "-cn": "--config-name", "-cp": "--config-path", "--shell-completion": "-sc"}  # fmt: skip
REFUSED = {
    "--experimental-rerun": "runs what a pickle holds; give the command and its options again",
    "--config-name": "the command chooses its config",
    "--config-path": "the command chooses its config; --config-dir adds a folder to conf/",
    "-sc": "stands in place of a command: zfrepro -sc install=bash",
}
FORM = "options are given as key=value"


def for_hydra(command: str, options: type, words: Sequence[str]) -> list[str]:
    """The words after a command, as Hydra wants them. Raises UserError for flags, forms and keys that there are not."""
    for word in words:
        if word.endswith("\r"):
            raise UserError(
                f"{word.strip()}: ends in a carriage return; give the script Unix line ends (dos2unix <script>)"
            )
    flags, pairs = _flags(options, list(words))
    _tell_twice(pairs)
    more = "--config-dir" in flags or any(word.lstrip("+").startswith("hydra.searchpath=") for word in pairs)
    pairs.sort(key=lambda word: not word.startswith("preset="))  # what is given beside a preset counts
    found = [one for word in pairs for one in _pair(command, options, word, "--multirun" in flags, more)]
    files = {pair.partition("=")[0]: pair for pair in found if not pair.startswith(("+", "hydra"))}  # one of a group
    return [*flags, *files.values(), *(pair for pair in found if pair.startswith(("+", "hydra")))]


def _tell_twice(pairs: Sequence[str]) -> None:
    """Say which value counts of an option that has two: the last, as everywhere in shells."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.lstrip("+").partition("=")
        key = key.rpartition("@")[2]  # data@scenes, scenes
        if given.get(key, value) != value:
            print(f"note: {key} is given twice; {key}={value} counts", file=sys.stderr)
        given[key] = value


def _flags(options: type, words: list[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with what follows them, and the other words."""
    flags, pairs = [], []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            pairs.append(word)
            continue
        name, _, value = word.partition("=")
        name = SHORT.get(name, name)
        if name not in FLAGS:
            raise UserError(_no_flag(options, name, value or (words[0] if words else "")))
        known = FLAGS[name]
        if known is not None and not value and words and (words[0] in known or name != "--info"):
            value = words.pop(0)
        if known is not None and (value not in known if known else not value) and (value or name != "--info"):
            what = f"one of {', '.join(known)}" if known else "a name"
            raise UserError(f"{name}{' ' * bool(value)}{value}: must be followed by {what}")
        if name == "--config-dir" and not Path(value).is_dir():
            raise UserError(f"--config-dir {value}: no such folder")
        flags += [name, value] if value else [name]
    modes = [name for name in ("--cfg", "--info", "--run", "--multirun") if name in flags]
    if len(modes) > 1 or ("--resolve" in flags and "--cfg" not in flags):
        raise UserError(f"{' '.join(flags)}: give one of --cfg, --info and --multirun; --resolve goes with --cfg job")
    return flags, pairs


def _no_flag(options: type, name: str, value: str) -> str:
    if name in REFUSED:
        return f"{name}: {REFUSED[name]}"
    key = name.lstrip("-")
    try:
        type_of(options, key)
        return f"{name}: {FORM}, without dashes: {key}={value or '<value>'}"
    except UserError as error:
        close = re.search(r"did you mean (.+)\?", str(error)) if len(key) > 2 else None
        return f"{name}: no such flag; {FORM}" + (f", as {close[1]}={value or '<value>'}" if close else "")


def _pair(command: str, options: type, word: str, sweeps: bool, more: bool) -> list[str]:
    """One key=value, checked, and quoted where Hydra's grammar asks for it. more: there are files beside those of conf/."""
    parts = re.fullmatch(r"(~|\+{0,2})([^=]*)(=?)(.*)", word, re.DOTALL)
    assert parts is not None
    prefix, key, sign, value = parts.groups()
    if key.startswith(("hydra.", "hydra/")) and sign:
        return [word]
    if prefix == "~":
        raise UserError(f"{word}: an option cannot be taken away; give {key}=<another value>")
    if not key or not sign:
        raise UserError(f"{word}: {FORM}{_meant(command, options, word)}")
    if not value.strip():
        raise UserError(f"{word}: a value is missing after the equals sign")
    key = key.rpartition("@")[2]  # data@scenes=... may be given as scenes=...
    if key == "preset" and command in ("summary", "doctor"):
        return [f"{group}={name}" for group, name in preset_pieces(value).items() if group in choices(command)]
    if key == "preset" and "preset" not in choices(command):
        key = "run"  # a preset is a recipe for training; everywhere else it names the run that was trained with it
    if key in choices(command):
        _check_choice(command, key, value, sweeps, more)
        return [f"{'data@' if key == 'scenes' else ''}{key}={value}"]
    return [f"++{_value(command, options, key, value, sweeps)}"]


def _meant(command: str, options: type, word: str) -> str:
    """What a word without an equals sign may be meant as."""
    if _is_there(f"outputs/{word}/train"):
        return f", as run={word}"
    if _is_there(word) and "data" in choices(command):
        return f", as data=folder data.root={word}"
    try:
        type_of(options, word)
    except UserError:
        return ""
    return f", as {word}=<value>"


def _is_there(path: str) -> bool:
    """Whether there is such a file or folder; text that is too long for a name, at which pathlib would raise, is none."""
    return os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111


def _value(command: str, options: type, key: str, value: str, sweeps: bool) -> str:
    """key=value of an option that is no file of conf/."""
    if key in ("model", "data") and not (key == "data" and value.startswith("{")):
        raise UserError(
            f"{key}={value}: {command} takes the {key} of its run; give run=<name>"
            + ", or data.root=<folder>" * (key == "data")
        )
    kind = type_of(options, key)
    if kind is str:
        return f"{key}={_text(value, sweeps)}"
    if kind == list[str]:
        return f"{key}={_list(key, value, sweeps)}"
    if typing.get_origin(kind) is list and "," in value and value[0] != "[" and not sweeps:
        raise UserError(f"{key}={value}: must be a list, as {key}=[{value}]")
    if kind in (int, float) and "," in value and not sweeps:
        raise UserError(f"{key}={value}: must be one number, with a point before its decimals; -m tries several")
    parent, _, last = key.rpartition(".")
    if parent and typing.get_origin(type_of(options, parent)) is dict:
        return f"{parent}={{{last}: {value}}}"  # numbers as keys stay numbers
    return f"{key}={value}"


def _check_choice(command: str, key: str, value: str, sweeps: bool, more: bool) -> None:
    """A file of conf/, or several for a sweep."""
    if sweeps and re.fullmatch(r"\w+\(.*\)", value):
        return  # choice(...), glob(...)
    names = choices(command)[key]
    there = f"there are {', '.join(names)}" if len(names) <= MOST else f"`zfrepro {command} --help` lists them"
    for name in _split(value) if sweeps else [value]:
        if name.strip("'\"") in names:
            continue
        if name in ("null", "None", "none"):
            raise UserError(f"{key}={name}: cannot be left out; {there}")
        if key == "data" and (name.endswith(("/", "\\")) or _is_there(name)):
            raise UserError(f"data={name}: names a kind of data set; for that folder give data=folder data.root={name}")
        if key == "model" and _is_there(name):
            raise UserError(f"model={name}: names a file of conf/model; a layer table of your own must end in .yaml")
        if not more:
            raise UserError(
                f"{key}={name}: no such file in conf/{'data' if key == 'scenes' else key}{nearest(name, names)}; {there}"
            )


# ---------------------------------------------------------------------------------------------------------------- quotes

PLAIN = re.compile(r"(?!(?:true|false|null|none|inf|nan)$)[A-Za-z_./][\w./:%@+-]*", re.ASCII | re.IGNORECASE)
ITEM = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*?)\s*(,|$)""")


def _text(value: str, sweeps: bool) -> str:
    """Text: a path, a name; in a sweep several, with commas between them. null stays null."""
    if sweeps and (re.fullmatch(r"\w+\(.*\)", value) or "," in value):
        return value if value.endswith(")") else ",".join(_quoted(item) for item in _split(value))
    return value if value == "null" else _quoted(value)


def _list(key: str, value: str, sweeps: bool) -> str:
    """A list of texts, as [a b.jpg,c.jpg]; one alone needs no brackets, a file with commas in its name no quotes. In a
    sweep, commas stand between the lists."""
    if sweeps:
        return ",".join(
            _list(key, item, False) for item in re.split(r"(?<=\]),(?=\[)" if value[0] == "[" else ",", value)
        )
    inner = value[1:-1] if value[0] == "[" and value[-1] == "]" else value
    items = [inner] if _is_there(inner) else _split(inner) if inner.strip() else []
    if "" in items:
        raise UserError(f"{key}={value}: an item of the list is empty")
    return value if value == "null" else f"[{','.join(map(_quoted, items))}]"


def _split(value: str) -> list[str]:
    """Items between commas; a comma within quotes, which open an item, belongs to it."""
    items, place, more = [], 0, ","
    while more:
        match = ITEM.match(value, place)
        assert match is not None
        items.append(match[1])
        place, more = match.end(), match[2]
    return items


def _quoted(value: str) -> str:
    """Text as Hydra's grammar wants it: in quotes unless it is a plain word, quoted already, or refers to another option."""
    closed = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if closed or "${" in value or PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"
