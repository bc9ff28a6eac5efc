"""Lists the settings that everyone sets under a short name: ``epochs`` for ``train.epochs``.

The command line's flags (``--epochs=20``) and the arguments of Python functions (``epochs=20``) are
both made from this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hparams.errors import UserError, shortened
from hparams.keys import KEYS
from hparams.overrides import ConfigError, Overrides, checked, read_overrides

_PLANNING = ("train", "traineval", "preview", "find_lr")
_READING = (*_PLANNING, "search", "eval", "check")


@dataclasses.dataclass(frozen=True)
class ShortName:
    """A short name for config keys, which check its value.

    Attributes:
      text: its meaning, one line.
      keys: mode -> the config keys that it stands for there.
    """

    text: str
    keys: Mapping[str, Sequence[str]]

    @property
    def is_path(self) -> bool:
        """Whether its value may name a file or folder."""
        return any(KEYS[key].is_path for keys in self.keys.values() for key in keys)


def _short(text: str, **modes_of_key: Sequence[str]) -> ShortName:
    """Returns a row of the table; ``modes_of_key`` is ``section__key`` -> modes."""
    keys: dict[str, list[str]] = {}
    for name, modes in modes_of_key.items():
        for mode in modes:
            keys.setdefault(mode, []).append(name.replace("__", "."))
    return ShortName(text, keys)


SHORT_NAMES: Mapping[str, ShortName] = {
    "preset": _short(
        "own images: auto, fast or best chooses size, length and regularisation; none: no choice",
        train__preset=_PLANNING,
    ),
    "recipe": _short(
        "settings that belong together: paper, official, torchvision, fast or fixres",
        train__recipe=_PLANNING,
    ),
    "epochs": _short(
        "passes over the training images; search: of each trial",
        train__epochs=_PLANNING,
        search__epochs=("search",),
    ),
    "batch_size": _short(
        "images a step; train: auto takes as many as fit into memory; benchmark: 16 by default",
        train__batch_size=(*_PLANNING, "search", "benchmark"),
        eval__batch_size=("eval", "infer", "export"),
    ),
    "learning_rate": _short(
        "peak learning rate for a batch of 256; proportional to the batch size",
        train__lr_base=(*_PLANNING, "search"),
    ),
    "image_size": _short(
        "pixels: image size of the last stage and of evaluation; the first stage has half of it; "
        "search: of each trial",
        train__isize=_PLANNING,
        data__ibase=_PLANNING,
        eval__isize=(*_PLANNING, "eval", "infer", "export"),
        search__isize=("search",),
    ),
    "optimizer": _short("optimizer", train__optimizer=(*_PLANNING, "search")),
    "resize": _short(
        KEYS["data.resize"].meaning,
        data__resize=(*_READING, "infer", "export"),
    ),
    "augment": _short(
        KEYS["data.augname"].meaning,
        data__augname=(*_PLANNING, "search"),
    ),
    "precision": _short(
        "float32, bfloat16 or float16", train__precision=(*_PLANNING, "search", "benchmark")
    ),
    "quantise": _short(
        "int8: fine-tune the run of --weights as its 8-bit file will compute",
        train__quantise=("train", "traineval", "preview"),
    ),
    "teacher": _short(
        "trained network to learn from besides the labels: a run directory, a release or a file",
        train__teacher=_PLANNING,
    ),
    **{
        name: _short(KEYS[f"data.{name}"].meaning, **{f"data__{name}": _READING})
        for name in (
            *("path_column", "label_columns", "target_columns"),
            *("split_column", "group_column", "weight_column"),
        )
    },
    "seed": _short("seed of everything random", train__seed=(*_PLANNING, "search")),
}


def short_settings(
    given: Mapping[str, Any],
    longhand: Mapping[str, Overrides],
    *,
    mode: str = "train",
    prefix: str = "",
) -> dict[str, Any]:
    """Returns the config keys that short names stand for, with their values.

    >>> short_settings({"image_size": 96}, {})
    {'train.isize': 96, 'data.ibase': 48, 'eval.isize': 96}

    Args:
      given: short name -> value.
      longhand: where else keys may be given, by its name in messages -> what it gives.
      mode: decides which keys a short name stands for.
      prefix: of short names in messages, such as ``--``.

    Raises:
      UserError: if ``longhand`` gives such a key another value.
    """
    names = {key: name for name in given for key in SHORT_NAMES[name].keys.get(mode, ())}
    settings = {key: given[name] for key, name in names.items()}
    if "data.ibase" in settings:
        settings["data.ibase"] = max(1, checked("train.isize", settings["train.isize"]) // 2)
    for place, overrides in longhand.items():
        for key, value in read_overrides(overrides)[0].items():
            if key == "data.ibase":
                settings.pop(key, None)
            elif key in settings and not _is_same(key, value, settings[key]):
                short = f"{prefix}{names[key]}={settings[key]}"
                other = f"{key}={shortened(str(value))} of {place}"
                raise UserError(f"{short} contradicts {other}; give one of them")
    return settings


def _is_same(key: str, one: Any, other: Any) -> bool:
    try:
        return bool(checked(key, one) == checked(key, other))
    except ConfigError:
        return True  # the config will say what is wrong
