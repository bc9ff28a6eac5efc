"""Defines the flags, and checks their values: those of the command line and of the Python API.

Needs no TensorFlow.
"""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from efficientnetv2.commands import MODE_NAMES, MODES
from efficientnetv2.commands.auto_batch import is_auto, require_auto_used
from efficientnetv2.commands.flag_table import FLAGS, Flag, short_flags
from efficientnetv2.export.formats import FORMATS
from hparams.datasets import is_dataset_name
from hparams.errors import UserError, shown
from hparams.folds import parse_count
from hparams.model_names import split_weights
from hparams.overrides import Overrides, is_yaml_path, overrides_text, read_overrides
from hparams.published_weights import BEST, why_best
from hparams.registry import did_you_mean
from hparams.remote_weights import network_of_remote
from hparams.scalars import to_float, to_int
from hparams.weights import name_and_weights

_TPU_FLAGS = ("tpu", "gcp_project", "tpu_zone", "tpu_job_name")  # empty means not given


def define_flags(defaults: Mapping[str, Any]) -> flags.FlagValues:
    """Returns the flags of the official ``cflags.py`` and our own, not parsed yet.

    Args:
      defaults: flag name -> default, where it differs from that in ``FLAGS``.
    """
    values = flags.FlagValues()
    for name, row in FLAGS.items():
        _define(values, name, row, defaults.get(name, row.default))
    return values


class _Integer(flags.IntegerParser):
    """Takes what ``hparams`` takes for an integer: no ``1_000``, no digits of other scripts."""

    def convert(self, argument: Any) -> int:
        """Returns the number; raises ValueError."""
        try:
            return to_int(argument)
        except ValueError:
            raise ValueError(f"{shown(argument)} is not a whole number") from None


class _Float(flags.FloatParser):
    """Takes what ``hparams`` takes for a real number: no ``nan`` either."""

    def convert(self, argument: Any) -> float:
        """Returns the number; raises ValueError."""
        try:
            return to_float(argument)
        except ValueError:
            raise ValueError(f"{shown(argument)} is not a number") from None


def _define(values: flags.FlagValues, name: str, row: Flag, default: Any) -> None:
    some = set(row.modes) < set(MODES)
    text = f"--mode={_either(row.modes)}: {row.text}" if some else row.text
    if isinstance(row.default, bool):
        flags.DEFINE_bool(name, default, text, flag_values=values)
    elif isinstance(row.default, int):
        flags.DEFINE(_Integer(*row.limits), name, default, text, flag_values=values)
    elif isinstance(row.default, float):
        flags.DEFINE(_Float(*row.limits), name, default, text, flag_values=values)
    elif isinstance(row.default, list):
        flags.DEFINE_list(name, default, text, flag_values=values)
    elif row.choices:
        flags.DEFINE_enum(name, default, row.choices, text, flag_values=values)
    else:
        flags.DEFINE_string(name, default, text, flag_values=values)


def flag_error(error: flags.Error) -> UserError:
    """Returns what the user is told of an error of a flag's value."""
    wrong = re.match(r"flag --(\w+)=(.*): \('Non-boolean argument", str(error), re.DOTALL)
    if wrong is None:
        return UserError(str(error))
    name, value = wrong.groups()
    return UserError(f"--{name}={value} is neither true nor false; give --{name} or --no{name}")


def check_flags(values: flags.FlagValues) -> None:
    """Checks the flags themselves, and reads each short name as the flag that it stands for.

    Args:
      values: the flags, with ``mode`` one of ``MODE_NAMES``; changed in place.

    Raises:
      UserError: if the mode does not use a flag that was given, a value is of no use, or flags
        contradict each other.
    """
    called, values.mode = values.mode, MODE_NAMES[values.mode]
    _take_validate(values)
    _check_values(values)
    _take_model_and_data(values)
    _take_weights_from_name(values)
    if "tune" in called and values.weights is None:
        raise UserError(
            f"--mode={called} needs weights to start from: --weights=imagenet, or a path"
        )
    _check_short_flags(values)
    _check_formats(values)
    if values["use_tpu"].present and not values.use_tpu and values.tpu:
        raise UserError(f"--tpu={values.tpu} contradicts --nouse_tpu")


def _check_values(values: flags.FlagValues) -> None:
    if values.eval_name and re.fullmatch(r"[\w.-]{1,100}", values.eval_name) is None:
        raise UserError(
            "--eval_name becomes part of a file name: use letters, digits, '_', '-' and '.', at "
            f"most 100, got '{values.eval_name[:100]}'"
        )
    for name, row in FLAGS.items():
        _require_used(values, name, row)
        if values.mode in row.defaults and not values[name].present:
            values[name].value = row.defaults[values.mode]
        if row.default is None and values[name].value == "" and name not in _TPU_FLAGS:
            raise UserError(f"--{name} is empty; give it a value, or leave it out")
        if row.is_path and isinstance(values[name].value, str):
            values[name].value = _plain_path(values[name].value)
    if values.folds is not None:
        parse_count(values.folds)


def _plain_path(text: str) -> str:
    """Returns a path with the home folder for ``~``, and without the ``/`` that completion adds."""
    if text.startswith("~/"):
        text = str(pathlib.Path(text).expanduser())
    return text.rstrip("/") or text


def command_of(values: flags.FlagValues) -> str:
    """Returns the command line that gives these flags."""
    words = ["efficientnetv2", values.mode]
    for name in FLAGS:
        if not values[name].present or name in ("mode", "data", "model"):
            continue
        value = values[name].value
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no{name}")
        else:
            text = ",".join(value) if isinstance(value, list) else settings_text(value)
            words.append(f"--{name}={text}")
    return shlex.join(words)


def settings_text(value: Overrides, *, reads_files: bool = False) -> str:
    """Returns settings as the command line takes them; a Python program may give a dictionary.

    Args:
      value: of a flag for settings; of another flag, any text.
      reads_files: whether the name of a YAML file becomes what the file holds.
    """
    if not isinstance(value, Mapping) and not (reads_files and is_yaml_path(str(value))):
        return str(value)
    return overrides_text(read_overrides(value)[0])


def give(values: flags.FlagValues, name: str, value: str) -> None:
    """Sets a flag as if it had been written."""
    values[name].value = value
    values[name].present = 1


def _take_validate(values: flags.FlagValues) -> None:
    if values.validate and values.mode == "train":
        values.mode = "traineval"
    elif values["validate"].present and not values.validate and values.mode == "traineval":
        raise UserError("--novalidate contradicts --mode=traineval; give --mode=train")


def _take_model_and_data(values: flags.FlagValues) -> None:
    """Reads ``--model`` and ``--data`` as the flags that they stand for.

    Raises:
      UserError: if one of these is given as well, or ``--data`` is neither a folder nor a data set.
    """
    for name, stands_for in (("model", "model_name"), ("data", _flag_of_data(values))):
        if not values[name].present:
            continue
        value = values[name].value
        if FLAGS[stands_for].is_path:
            value = _plain_path(value)
        if values[stands_for].present and values[stands_for].value != value:
            raise UserError(f"--{name} and --{stands_for} say the same; give one of them")
        give(values, stands_for, value)


def _flag_of_data(values: flags.FlagValues) -> str:
    if values.data is None:
        return "data_dir"
    if values.mode in FLAGS["image_path"].modes:
        return "image_path"
    instead = f"--data_dir={values.data} or --dataset_cfg={values.data}"
    folder = pathlib.Path(_plain_path(values.data))
    is_name = is_dataset_name(values.data, folder, argument="--data", instead=instead)
    return "dataset_cfg" if is_name else "data_dir"


def _check_short_flags(values: flags.FlagValues) -> None:
    from hparams.overrides import ConfigError, checked  # --help need not wait for PyYAML

    for key, name in short_flags(values).items():
        if name == "batch_size" and is_auto(values):
            require_auto_used(values)
            continue
        try:
            checked(key, values[name].value)
        except ConfigError as error:
            raise UserError(f"--{name}: {error}") from None


def _take_weights_from_name(values: flags.FlagValues) -> None:
    """Reads a ``--model_name`` with weights behind it, or weights with a network, as both flags."""
    network = network_of_remote(values.weights)
    if network is not None and not values["model_name"].present:
        give(values, "model_name", network)
    network, named = split_weights(values.model_name)
    if named is None and values.weights != BEST:
        return
    if values.mode not in FLAGS["weights"].modes:
        raise UserError(f"--mode={values.mode} takes no weights; give --model_name={network}")
    is_best = values.weights == BEST
    values.model_name, values.weights = name_and_weights(values.model_name, values.weights)
    if is_best:
        print(why_best(values.model_name), flush=True)


def _require_used(values: flags.FlagValues, name: str, row: Flag) -> None:
    """Checks that the mode uses a flag that was given.

    Raises:
      UserError: if it does not; the message says which modes do, and what does the same here.
    """
    value, given, mode = values[name].value, values[name].present, values.mode
    if not given or mode in row.modes or (name == "use_tpu" and not value):
        return
    flag = f"--no{name}" if value is False else f"--{name}"
    text = f"{flag} belongs to --mode={_either(row.modes)}"
    if mode in row.instead:
        shown = str(value).lower() if isinstance(value, bool) else value
        raise UserError(f"{text}; with --mode={mode} give {row.instead[mode].format(value=shown)}")
    raise UserError(f"{text}, not to --mode={mode}")


def _either(modes: Sequence[str]) -> str:
    """Returns "a, b or c"."""
    *first, last = modes
    return f"{', '.join(first)} or {last}" if first else last


def _check_formats(values: flags.FlagValues) -> None:
    for name in values.format:
        if name not in FORMATS:
            raise UserError(f"unknown --format {shown(name)}{did_you_mean(name, FORMATS)}")
    if not values.format:
        raise UserError(f"--format is empty; give one or more of {', '.join(FORMATS)}")
    if values.mode != "export":
        return
    available = {flag for name in values.format for flag in FORMATS[name].options}
    for format_name, row in FORMATS.items():
        for flag in row.options:
            given = values[flag].value != values[flag].default
            if given and flag not in available:
                raise UserError(f"--{flag} needs --format={format_name}")
