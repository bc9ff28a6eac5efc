"""Reads overrides from text, YAML files or mappings, and checks values against their keys."""

from __future__ import annotations

import numbers
import operator
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

from hparams import keys
from hparams.errors import LONGEST_MESSAGE, UserError, one_line, shortened, shown
from hparams.factors import Key
from hparams.limits import MOST_CLASSES, SMALLEST_FLOAT
from hparams.registry import did_you_mean
from hparams.renamed_keys import RENAMED_KEYS, current_setting
from hparams.scalars import CONVERTERS
from hparams.yaml_file import YamlError, read_yaml

Overrides = Union[str, "os.PathLike[str]", Mapping[str, Any], None]
_LONGEST_TEXT = 65_536  # characters of settings, as many as a YAML file may have
_LONGEST_LIST = 1000  # items of a value; a network has 7 stages
# Keys with an item for each class or number, of which there may be many.
_OF_CLASSES = (
    "train.class_counts",
    "train.class_weights",
    "model.target_mean",
    "model.target_deviation",
)
_MOST_HINTS = 8  # unknown keys that are looked up one by one; more are no misspellings
_UNSET = ("", "none", "None", "null")
_DEEPEST = 3  # levels of a nested mapping that are searched for keys, which have two


class ConfigError(UserError):
    """A config that cannot be run; the message joins ``problems``, as many as fit into it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(_joined([one_line(problem) for problem in problems]))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (list(self.problems),)  # so that it can be copied and pickled


def _joined(problems: list[str]) -> str:
    problems = list(dict.fromkeys(problems))
    count, length = 0, 0
    for problem in problems:
        length += len(problem) + len("; ")
        if count and length > LONGEST_MESSAGE - len("; and 10000 more problems"):
            break
        count += 1
    rest = len(problems) - count
    more = f"; and {rest} more problem{'s' * (rest > 1)}" if rest else ""
    return "; ".join(problems[:count]) + more


def read_overrides(
    overrides: Overrides, *, section: str | None = None, is_path: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Reads overrides in any form.

    Args:
      overrides: ``"train.epochs=3,data.flip=false"``, the path of a ``.yaml`` file, a mapping
        from keys to values (flat or nested), or None.
      section: the section of keys that come without one.
      is_path: whether a string is the path of a YAML file, whatever its ending.

    Returns:
      ``section.key`` -> value, with values not checked yet, and former keys under their names of
      now (``hparams.renamed_keys``); and one line for each unknown key, key that is given twice,
      unreadable file or malformed item.
    """
    pairs, problems = _pairs(overrides, is_path=is_path)
    known: dict[str, Any] = {}
    unknown = 0
    for name, value in pairs:
        full, value = current_setting(
            f"{section}.{name}" if section and "." not in name else name, value
        )
        if full in known:
            former = [old for old, row in RENAMED_KEYS.items() if row.key == full]
            also = f" (its former name is {former[0]})" if former else ""
            problems.append(f"key {shown(full)} is given twice{also}")
        elif full in keys.KEYS:
            known[full] = value
        else:
            unknown += 1
            if unknown <= _MOST_HINTS:
                problems.append(f"unknown key {shown(name)}{key_hint(full)}")
    if unknown > _MOST_HINTS:
        problems.append(f"{unknown - _MOST_HINTS} more unknown keys; docs/hparams.md lists all")
    return known, problems


Pairs = list[tuple[str, Any]]


def overrides_text(settings: Mapping[str, Any]) -> str:
    """Returns settings as one text, which ``--hparam_str`` and ``read_overrides`` take.

    >>> overrides_text({"train.lr_base": 0.0125, "data.flip": True, "data.crop_area": [0.5, 1.0]})
    'train.lr_base=0.0125,data.flip=true,data.crop_area=[0.5,1.0]'
    """
    return ",".join(f"{key}={value_text(value)}" for key, value in settings.items())


def value_text(value: Any) -> str:
    """Returns the value of a setting as ``overrides_text`` writes it.

    >>> value_text(0.0125), value_text(True), value_text(None)
    ('0.0125', 'true', 'none')
    """
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def merge_overrides(overrides: Iterable[Overrides]) -> tuple[dict[str, Any], list[str]]:
    """Reads several overrides, of which later ones win; the result is as of ``read_overrides``."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for item in overrides:
        item_values, item_problems = read_overrides(item)
        values.update(item_values)
        problems += item_problems
    return values, problems


def _pairs(overrides: Overrides, *, is_path: bool) -> tuple[Pairs, list[str]]:
    """Returns pairs of a key as it is written and its value; and problems."""
    if overrides is None:
        return [], []
    if isinstance(overrides, os.PathLike):
        overrides, is_path = os.fspath(overrides), True
    if isinstance(overrides, str):
        is_yaml = is_path or is_yaml_path(overrides)
        return _read_yaml(overrides) if is_yaml else _read_text(overrides)
    if isinstance(overrides, Mapping):
        return list(_flatten(overrides)), []
    return [], [
        "settings are text such as 'train.epochs=3', the path of a .yaml file, or a mapping, got "
        f"{shown(overrides)}"
    ]


def is_yaml_path(text: str) -> bool:
    """Whether settings are the path of a YAML file."""
    return text.endswith((".yaml", ".yml")) and "=" not in text


def key_hint(name: str) -> str:
    """Returns what follows the message of an unknown key: the one that was probably meant."""
    if name in RENAMED_KEYS:
        return f"; it is {RENAMED_KEYS[name].key} now"
    # A key without its section, or with the wrong one: suggest the key of that name.
    same = [key for key in keys.KEYS if key.split(".")[1] == name.split(".")[-1]]
    if same:
        return f"; did you mean '{same[0]}'?"
    hint = did_you_mean(name, keys.KEYS)
    return hint if "did you mean" in hint else "; docs/hparams.md lists all keys"


def _read_text(text: str) -> tuple[Pairs, list[str]]:
    if len(text) > _LONGEST_TEXT:
        return [], [f"settings of {len(text)} characters; give at most {_LONGEST_TEXT}"]
    pairs: Pairs = []
    problems = []
    for item in filter(None, (part.strip() for part in _split_items(text))):
        name, equals, value = item.partition("=")
        if equals and name.strip():
            pairs.append((name.strip(), value.strip()))
        else:
            problems.append(f"{shown(item)} is not of the form key=value")
    return pairs, problems


def _split_items(text: str) -> list[str]:
    """Splits at the commas outside of ``[...]``, which may hold further brackets.

    A ``[`` that is never closed holds nothing.
    """
    partners: list[int] = []  # of brackets that are open
    closed: set[int] = set()  # brackets with a partner
    for index, letter in enumerate(text):
        if letter == "[":
            partners.append(index)
        elif letter == "]" and partners:
            closed |= {partners.pop(), index}
    items, start, depth = [], 0, 0
    for index, letter in enumerate(text):
        if index in closed:
            depth += 1 if letter == "[" else -1
        elif letter == "," and not depth:
            items.append(text[start:index])
            start = index + 1
    return [*items, text[start:]]


def _read_yaml(path: str) -> tuple[Pairs, list[str]]:
    file = f"config file '{shortened(path, limit=120)}'"
    try:
        content = read_yaml(pathlib.Path(path))
    except OSError as error:
        return [], [f"cannot read {file}: {error.strerror or error}"]
    except YamlError as error:
        return [], [f"{file} {error}"]
    except ValueError as error:  # a NUL in the path
        return [], [f"cannot read {file}: {error}"]
    if content is None:
        return [], []
    if not isinstance(content, Mapping):
        return [], [f"{file} must hold keys and values, got {shown(content)}"]
    return list(_flatten(content)), []


def _flatten(
    tree: Mapping[Any, Any], prefix: str = "", level: int = 1
) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and level < _DEEPEST:
            yield from _flatten(value, f"{prefix}{name}.", level + 1)
        else:
            yield f"{prefix}{name}", value


# ---------------------------------------------------------------------- checking values


def checked(name: str, value: Any) -> Any:
    """Converts a value to the type of its key, and checks its range.

    Args:
      name: ``section.key``.
      value: of the key's type, or text.

    Raises:
      ConfigError: if the value does not fit the key.
    """
    key = keys.KEYS[name]
    is_unset = value is None or (isinstance(value, str) and value in _UNSET)
    if key.default is None and is_unset:
        return None
    if key.kind is not list:
        return _checked_scalar(name, value, kind=key.kind, key=key)
    if isinstance(value, str):
        # The official code writes lists as a|b, without brackets; within brackets a | may belong to
        # a regular expression.
        separators = r"," if value.startswith("[") else r"[,|]"
        parts = re.split(separators, value.removeprefix("[").removesuffix("]"))
        value = [part.strip() for part in parts if part.strip()]
    if key.takes_one and isinstance(value, numbers.Real):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ConfigError([f"{name} must be a list, got {shown(value)}"])
    if key.length is not None and len(value) != key.length:
        raise ConfigError([f"{name} must have {key.length} items, got {shown(list(value))}"])
    most = MOST_CLASSES if name in _OF_CLASSES else _LONGEST_LIST
    if len(value) > most:
        raise ConfigError([f"{name} must have at most {most} items, got {len(value)}"])
    if key.takes_numbers:
        value = [str(item) if type(item) in (int, float) else item for item in value]
    return [_checked_scalar(name, item, kind=key.item, key=key) for item in value]


def _checked_scalar(name: str, value: Any, *, kind: type, key: Key) -> Any:
    try:
        value = CONVERTERS[kind](value)
    except ValueError:
        article = "an" if kind is int else "a"
        raise ConfigError(
            [f"{name} must be {article} {kind.__name__}, got {shown(value)}"]
        ) from None
    if key.is_path and value.startswith("~/"):
        value = str(pathlib.Path(value).expanduser())
    if key.choices and value not in key.choices:
        hint = did_you_mean(value, key.choices)
        choices = ", ".join(key.choices)
        raise ConfigError([f"{name} must be one of {choices}, got {shown(value)}{hint}"])
    for limit, right, words in (
        (key.low, operator.ge, "at least"),
        (key.above, operator.gt, "above"),
        (key.high, operator.le, "at most"),
    ):
        if limit is not None and not right(value, limit):
            raise ConfigError([f"{name} must be {words} {limit_text(limit)}, got {shown(value)}"])
    if kind is float and 0 < abs(value) < SMALLEST_FLOAT:
        raise ConfigError([f"{name} must be 0 or at least 1.2e-38, as in float32, got {value!r}"])
    return value


def limit_text(limit: float) -> str:
    """Returns a limit of a key as it is written in messages and in docs/hparams.md."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
