"""Defines, parses and checks the command line's flags, and prints its help. Needs no TensorFlow."""

from __future__ import annotations

import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from efficientnetv2.commands import MODE_NAMES, MODES
from efficientnetv2.commands.flag_table import FLAGS, Flag, short_flags
from efficientnetv2.commands.other_flags import our_words
from efficientnetv2.export.formats import FORMATS
from hparams.datasets import DATASETS, TFDS_PREFIX
from hparams.errors import UserError, shown
from hparams.model_names import split_weights
from hparams.registry import did_you_mean
from hparams.scalars import to_float, to_int
from hparams.weights import name_and_weights

HELP = """EfficientNetV2 for TensorFlow.

usage: {program} MODE [DATA] [flags], or --mode=MODE --data=DATA

modes:
{modes}

flags that matter:
  --model        what to train: efficientnetv2-s (default: {model_name}); -m, -l, -xl, -b0 to -b3,
                 efficientnet-b0 to -b8, -l2, efficientnet-lite0 to -lite4;
                 for comparison: resnet50, resnet152, efficientnet-b4-fused-1-3, -1-5, -1-7
  --data         your own images: photos/<class>/*.jpg or photos/{{train,val,test}}/<class>/*.jpg;
                 or a data set: {datasets};
                 tfds:NAME for any other set of TensorFlow Datasets
                 (default: {dataset_cfg})
  --epochs, --batch_size, --learning_rate, --image_size, --optimizer, --augment, --precision,
  --seed, --validate
                 what everyone sets; MODE --help says what each means there
  --model_dir    where everything is written and resumed from (default: runs/<model>-<data set>)
  --hparam_str   all other settings, for example "data.mixup_alpha=0.2,train.gclip=1", or a .yaml
                 file; docs/hparams.md lists all keys
  --weights      pretrained weights: imagenet, imagenet21k, imagenet21k-ft1k, jft, or a path;
                 --mode=train starts from them, --mode=infer needs no --model_dir with them
  --image_path   image file, folder, "*.jpg", list.txt or - (a list on standard input), for
                 --mode=infer; with --top_k=5, --output=all.csv (.json, .jsonl, .parquet), --flip,
                 --crops=5, --shard=3/64 (the third of 64 parts of the images),
                 --features (features.npz) and --explain (heat maps) in --output_dir
  --format       what --mode=export writes, separated by commas:
                 {formats};
                 with --image_path=FOLDER to calibrate and check on, --output_dir,
                 --nopreprocessing, --logits, --integer_io, --debug_int8
  --models       models to measure with --mode=benchmark, separated by commas (default:
                 --model_name); --batch_size, --image_scale (factor on each model's own sizes),
                 --steps

examples:
  {program} --model_name=efficientnetv2-s --mode=train
  {program} train photos --model=efficientnetv2-b0 --epochs=20 --image_size=96 --validate
  {program} infer new/ --model_dir=runs/efficientnetv2-b0-photos

MODE --help lists the flags of a mode, --helpfull every flag, --version the versions."""


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


def parse(values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagValues:
    """Parses ``argv`` (the program's name first) and checks the flags themselves.

    Raises:
      UserError: if a flag or the mode is unknown, a value has the wrong type, flags contradict each
        other, or there is an argument that is not a flag.
    """
    values.set_gnu_getopt(True)  # flags may come after arguments
    try:
        rest = values([argv[0], *our_words(argv[1:], values)])[1:]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if values.help or values.helpfull or values.version:
        if rest and rest[0] in MODE_NAMES and not values["mode"].present:
            _give(values, "mode", rest[0])
        return values
    _take_arguments(values, rest)
    if values.mode not in MODE_NAMES:
        raise UserError(f"unknown mode {shown(values.mode)}{did_you_mean(values.mode, MODES)}")
    called, values.mode = values.mode, MODE_NAMES[values.mode]
    _take_validate(values)
    _check_flags(values)
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
    return values


def _check_flags(values: flags.FlagValues) -> None:
    if values.eval_name and re.fullmatch(r"[\w.-]{1,100}", values.eval_name) is None:
        raise UserError(
            "--eval_name becomes part of a file name: use letters, digits, '_', '-' and '.', at "
            f"most 100, got '{values.eval_name[:100]}'"
        )
    for name, row in FLAGS.items():
        _require_used(values, name, row)
        if row.default is None and values[name].value == "" and name not in _TPU_FLAGS:
            raise UserError(f"--{name} is empty; give it a value, or leave it out")
        if row.is_path and values[name].value is not None:
            values[name].value = _plain_path(values[name].value)


def _plain_path(text: str) -> str:
    """Returns a path with the home folder for ``~``, and without the ``/`` that completion adds."""
    if text.startswith("~/"):
        text = str(pathlib.Path(text).expanduser())
    return text.rstrip("/") or text


def _take_arguments(values: flags.FlagValues, rest: list[str]) -> None:
    """Reads arguments without a name: a mode, and the data."""
    if rest and not values["mode"].present:
        if rest[0] not in MODE_NAMES:
            hint = did_you_mean(rest[0], MODE_NAMES)
            raise UserError(f"unexpected argument {shown(rest[0])}: no mode{hint}")
        _give(values, "mode", rest.pop(0))
    takes = "pattern" if values.mode == "models" else "data"
    if rest and not values[takes].present:
        _give(values, takes, rest.pop(0))
    if rest:
        raise UserError(f"unexpected argument {shown(rest[0])}; flags are written --name=value")


def _give(values: flags.FlagValues, name: str, value: str) -> None:
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
        _give(values, stands_for, value)


def _flag_of_data(values: flags.FlagValues) -> str:
    if values.data is None:
        return "data_dir"
    if values.mode in FLAGS["image_path"].modes:
        return "image_path"
    is_folder = pathlib.Path(_plain_path(values.data)).exists()
    is_name = values.data in DATASETS or values.data.lower().startswith(TFDS_PREFIX)
    if is_folder and is_name:
        raise UserError(
            f"--data={values.data} is a folder here, and the name of a data set; give "
            f"--data_dir={values.data} or --dataset_cfg={values.data}"
        )
    if is_name:
        return "dataset_cfg"
    if not is_folder and "/" not in values.data:
        hint = did_you_mean(values.data, DATASETS)
        raise UserError(f"--data: no folder and no data set {shown(values.data)}{hint}")
    return "data_dir"


def _check_short_flags(values: flags.FlagValues) -> None:
    from hparams.overrides import ConfigError, checked  # --help need not wait for PyYAML

    for key, name in short_flags(values).items():
        try:
            checked(key, values[name].value)
        except ConfigError as error:
            raise UserError(f"--{name}: {error}") from None


def _take_weights_from_name(values: flags.FlagValues) -> None:
    """Reads a ``--model_name`` with weights behind it as both flags."""
    network, named = split_weights(values.model_name)
    if named is None:
        return
    if values.mode not in FLAGS["weights"].modes:
        raise UserError(f"--mode={values.mode} takes no weights; give --model_name={network}")
    values.model_name, values.weights = name_and_weights(values.model_name, values.weights)


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
            if values[flag].value and flag not in available:
                raise UserError(f"--{flag} needs --format={format_name}")


def help_text(values: flags.FlagValues, *, program: str) -> str:
    """Returns what ``--help`` (or, with every flag, ``--helpfull``) prints."""
    if values.helpfull:
        rows = [
            f"  --{name}: {values[name].help} (default: {values[name].default!r})"
            for name in sorted(values)
        ]
        return "\n".join([f"flags of {program}:", *rows])
    mode = MODE_NAMES.get(values.mode) if values["mode"].present else None
    if mode is not None:
        rows = [
            textwrap.fill(
                row.text, 100, initial_indent=f"  --{name:<14} ", subsequent_indent=" " * 19
            )
            for name, row in FLAGS.items()
            if mode in row.modes and name not in ("mode", "version", "help", "helpfull")
        ]
        head = f"usage: {program} {mode} [DATA] [flags]\n\n{MODES[mode].meaning}\n\nflags:"
        return "\n".join([head, *rows])
    modes = "\n".join(f"  {name:<10} {mode.meaning}" for name, mode in MODES.items())
    return HELP.format(
        program=program,
        modes=modes,
        formats=textwrap.fill(", ".join(FORMATS), width=80, subsequent_indent=" " * 17),
        model_name=values["model_name"].default,
        dataset_cfg=values["dataset_cfg"].default or "digits, or the images in --data_dir",
        datasets=textwrap.fill(
            ", ".join(name for name in DATASETS if name != "folder"),
            width=78,
            subsequent_indent=" " * 17,
        ),
    )
