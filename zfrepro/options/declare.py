"""How an option is declared: its default, its meaning and its check in one place, the metadata of a dataclass's field.

    epochs: int = option(70, "passes over the training images", at_least(1))

Help, checks and identity read that place; a field without it is refused by a test. What several options must fulfil together
stands in a method `check(self)` of their dataclass, whose `UserError`s begin with the option's name.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from zfrepro.errors import UserError, nearest

Check = Callable[[Any], str | None]  # what is wrong with a value, as 'must be 1 or more'; None: nothing
LARGEST = 2**31 - 1


def option(default: Any, meaning: str, check: Check, *, neutral: bool = False, later: bool = False) -> Any:
    """A dataclass's field.

    meaning: what it is, in words; 'null: ...' says what null stands for. neutral: it says where, how fast or how talkative,
    never what: it changes no number beyond rounding, and so no identity. later: runs were made before there was this option,
    as its default has it, which is therefore no part of an identity.
    """
    about = {"meaning": meaning, "check": check, "neutral": neutral, "later": later, "default": default}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def group(options: type, meaning: str) -> Any:
    """A field that holds options of its own; they are checked one by one."""
    return dataclasses.field(
        default_factory=options, metadata={"meaning": meaning, "check": anything, "neutral": False}
    )


def check_options(config: Any, prefix: str = "") -> None:
    """Refuse impossible values with a UserError that names the option, `prefix` and its own name."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_options(value, f"{key}.")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for number, item in enumerate(value):
                check_options(item, f"{key}[{number}].")
        elif isinstance(value, dict):
            for name, item in value.items():
                _check(f"{key}.{name}", item, field)
        elif value is not None:
            _check(key, value, field)
    if hasattr(config, "check"):
        try:
            config.check()
        except UserError as error:
            raise UserError(f"{prefix}{error}") from error


def _check(key: str, value: Any, field: dataclasses.Field[Any]) -> None:
    wrong = field.metadata["check"](value)
    if wrong:
        null = re.search(r"null: ([^;]+)", field.metadata["meaning"])
        raise UserError(f"{key}={value}: {wrong}" + (f", or null for {null[1]}" if null else ""))


# ---------------------------------------------------------------------------------------------------------------- checks


def anything(value: Any) -> None:
    """Whatever the type allows; for what only the command itself can judge."""


def within(interval: str) -> Check:
    """Numbers of an interval, as '[0, 1)' (at least 0, below 1) or '(0, inf)'; never infinite, never NaN."""
    ends = re.fullmatch(r"([\[(])(.+), (.+)([\])])", interval)
    assert ends is not None
    low, high = float(ends[2]), float(ends[3])
    words = f"{'at least' if ends[1] == '[' else 'above'} {ends[2]}"
    if math.isfinite(high):
        words += f" and {'at most' if ends[4] == ']' else 'below'} {ends[3]}"
    if ends[1] + ends[4] in ("[]", "()") and math.isfinite(high):
        words = f"between {ends[2]} and {ends[3]}" + (", both excluded" if ends[1] == "(" else "")

    def check(value: float) -> str | None:
        above = low <= value if ends[1] == "[" else low < value
        below = value <= high if ends[4] == "]" else value < high
        return None if above and below else f"must be {words}"

    return check


def positive(value: float) -> str | None:
    """Any number above 0."""
    return None if 0 < value < math.inf else "must be a positive number"


def at_least(low: int) -> Check:
    """Whole numbers from `low` on, as far as 32 bits go."""

    def check(value: int) -> str | None:
        most = f" and {LARGEST} at most" if value > LARGEST else ""
        return None if low <= value <= LARGEST else f"must be {low} or more{most}"

    return check


def one_of(*choices: str) -> Check:
    """One of these names."""

    def check(value: str) -> str | None:
        return None if value in choices else f"must be one of {', '.join(choices)}{nearest(value, choices)}"

    return check


def matching(pattern: str, words: str) -> Check:
    """Text that fits a regular expression; `words` say which."""
    return lambda value: None if re.fullmatch(pattern, value) else f"must be {words}"


def each(check: Check, *, some: bool = False, repeated: bool = False) -> Check:
    """A list whose items all pass `check`; some: one at least; repeated: an item may stand there twice."""

    def check_list(values: list[Any]) -> str | None:
        wrong = next((f"{value} {wrong}" for value in values if (wrong := check(value))), None)
        twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
        if some and not values:
            return "must have an item at least"
        return wrong or (f"has {twice} twice; give it once" if twice is not None and not repeated else None)

    return check_list
