"""Reads overrides from text, YAML files or mappings, and checks values against their keys."""

from __future__ import annotations

import operator
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Union

import yaml

from hparams import keys
from hparams.errors import UserError
from hparams.factors import Key
from hparams.registry import did_you_mean

Overrides = Union[str, Mapping[str, Any], None]
_COMMA = re.compile(r",(?![^\[]*\])")  # a comma that is not inside [...]


class ConfigError(UserError):
    """A config that cannot be run; the message joins ``problems``, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (list(self.problems),)  # so that it can be copied and pickled


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
      ``section.key`` -> value, with values not checked yet; and one line for each unknown key,
      unreadable file or malformed item.
    """
    problems: list[str] = []
    pairs: dict[str, Any] = {}
    if isinstance(overrides, str):
        if is_path or _is_yaml_path(overrides):
            pairs, problems = _read_yaml(overrides)
        else:
            pairs, problems = _read_text(overrides)
    elif overrides is not None:
        pairs = _flatten(overrides)
    known: dict[str, Any] = {}
    for name, value in pairs.items():
        full = f"{section}.{name}" if section and "." not in name else name
        if full in keys.KEYS:
            known[full] = value
        else:
            problems.append(f"unknown key '{name}'{_key_hint(full)}")
    return known, problems


def _is_yaml_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) and "=" not in text


def _key_hint(name: str) -> str:
    # A key without its section, or with the wrong one: suggest the key of that name.
    same = [key for key in keys.KEYS if key.split(".")[1] == name.split(".")[-1]]
    if same:
        return f"; did you mean '{same[0]}'?"
    hint = did_you_mean(name, keys.KEYS)
    return hint if "did you mean" in hint else "; docs/hparams.md lists all keys"


def _read_text(text: str) -> tuple[dict[str, Any], list[str]]:
    pairs: dict[str, Any] = {}
    problems = []
    for item in filter(None, (part.strip() for part in _COMMA.split(text))):
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            problems.append(f"'{item}' is not of the form key=value")
        elif name in pairs:
            problems.append(f"key '{name}' is given twice")
        else:
            pairs[name] = value.strip()
    return pairs, problems


def _read_yaml(path: str) -> tuple[dict[str, Any], list[str]]:
    try:
        content = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"cannot read config file '{path}': {error.strerror or error}"]
    except (yaml.YAMLError, ValueError) as error:
        return {}, [f"config file '{path}' is not YAML: {' '.join(str(error).split())}"]
    if content is None:
        return {}, []
    if not isinstance(content, Mapping):
        return {}, [f"config file '{path}' must hold keys and values, got {content!r}"]
    return _flatten(content), []


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


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
    if key.default is None and (value is None or value in ("", "none", "None", "null")):
        return None
    if key.kind is not list:
        return _checked_scalar(name, value, kind=key.kind, key=key)
    if isinstance(value, str):
        # The official code writes lists as a|b, without brackets; within brackets a | may belong to
        # a regular expression.
        separators = r"," if value.startswith("[") else r"[,|]"
        parts = re.split(separators, value.removeprefix("[").removesuffix("]"))
        value = [part.strip() for part in parts if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ConfigError([f"{name} must be a list, got {value!r}"])
    if key.length is not None and len(value) != key.length:
        raise ConfigError([f"{name} must have {key.length} items, got {list(value)!r}"])
    return [_checked_scalar(name, item, kind=key.item, key=key) for item in value]


def _checked_scalar(name: str, value: Any, *, kind: type, key: Key) -> Any:
    try:
        value = _CONVERTERS[kind](value)
    except (TypeError, ValueError, OverflowError):
        article = "an" if kind is int else "a"
        raise ConfigError([f"{name} must be {article} {kind.__name__}, got {value!r}"]) from None
    if key.choices and value not in key.choices:
        hint = did_you_mean(value, key.choices)
        raise ConfigError([f"{name} must be one of {', '.join(key.choices)}, got '{value}'{hint}"])
    for limit, right, words in (
        (key.low, operator.ge, "at least"),
        (key.above, operator.gt, "above"),
        (key.high, operator.le, "at most"),
    ):
        if limit is not None and not right(value, limit):
            raise ConfigError([f"{name} must be {words} {limit:g}, got {value!r}"])
    return value


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError(value)
    return words[value.lower()]


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value, flags=re.ASCII) is None:
        raise ValueError(value)
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(value)
    if isinstance(value, str) and "_" in value:
        raise ValueError(value)
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
}
