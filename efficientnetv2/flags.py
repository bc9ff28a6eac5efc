"""Defines, parses and checks the command line's flags, and prints its help. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from efficientnetv2.commands import MODES
from efficientnetv2.export.formats import FORMATS
from hparams.datasets import DATASETS
from hparams.errors import UserError, shown
from hparams.registry import did_you_mean
from hparams.scalars import to_float, to_int
from hparams.weights import name_and_weights

HELP = """EfficientNetV2 for TensorFlow.

usage: python {program} --mode=MODE [flags]

modes:
{modes}

flags that matter:
  --model_name   what to train: efficientnetv2-s (default: {model_name}); -m, -l, -xl, -b0 to -b3,
                 efficientnet-b0 to -b8, -l2, efficientnet-lite0 to -lite4;
                 for comparison: resnet50, resnet152, efficientnet-b4-fused-1-3, -1-5, -1-7
  --dataset_cfg  what to train on: {datasets};
                 tfds:NAME for any other set of TensorFlow Datasets
                 (default: {dataset_cfg})
  --model_dir    where everything is written and resumed from (default: runs/<model>-<data set>)
  --data_dir     your own images: photos/<class>/*.jpg or photos/{{train,val,test}}/<class>/*.jpg;
                 with --dataset_cfg the folder of that data set (default: ~/tensorflow_datasets)
  --hparam_str   settings, for example "train.epochs=3,train.batch_size=32", or a .yaml file;
                 docs/hparams.md lists all keys
  --weights      pretrained weights: imagenet, imagenet21k, imagenet21k-ft1k, jft, or a path;
                 --mode=train starts from them, --mode=infer needs no --model_dir with them
  --image_path   image file, folder or "*.jpg", for --mode=infer; with
                 --top_k=5, --output=all.csv (.json, .parquet), --flip, --crops=5,
                 --features (features.npz) and --explain (heat maps) in --output_dir
  --format       what --mode=export writes, separated by commas:
                 {formats};
                 with --image_path=FOLDER to calibrate and check on, --output_dir,
                 --nopreprocessing, --logits, --integer_io, --debug_int8
  --models       models to measure with --mode=benchmark, separated by commas (default:
                 --model_name); --batch_size, --image_scale (factor on each model's own sizes),
                 --steps

examples:
  python {program} --model_name=efficientnetv2-s --mode=train
  python {program} --model_name=efficientnetv2-b0 --mode=traineval --hparam_str="train.epochs=5"
  python {program} --model_name=efficientnetv2-b0 --mode=train --data_dir=photos/
  python {program} --model_name=efficientnetv2-b0 --mode=infer --data_dir=photos/ --image_path=new/

--helpfull lists every flag."""


_TPU_FLAGS = ("tpu", "gcp_project", "tpu_zone", "tpu_job_name")  # empty means not given
_TRAINING = ("train", "traineval")
_DEVICE_MODES = (*_TRAINING, "eval", "search")
_WITH_DATA = tuple(mode for mode in MODES if mode != "benchmark")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Attributes:
      default: its type is the flag's: bool, int, float, list of str, or str (None: not given).
      text: one line for ``--helpfull``.
      modes: the modes that use it; the others refuse it.
      instead: mode -> what does the same there, with ``{value}`` for the value of the flag.
      choices: the allowed values; empty: any.
      limits: smallest and largest number; None: no limit.
      is_path: whether it names a file or folder, so that ``~`` is the home folder.
    """

    default: Any
    text: str
    modes: Sequence[str] = tuple(MODES)
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    choices: Sequence[str] = ()
    limits: tuple[float | None, float | None] = (None, None)
    is_path: bool = False


def _for(modes: Sequence[str], text: str) -> dict[str, str]:
    return dict.fromkeys(modes, text)


_DATA_INSTEAD = _for((*_TRAINING, "eval", "preview", "search"), "--data_dir={value}")
_RUN_INSTEAD = _for((*_TRAINING, "preview", "search", "benchmark"), "--model_dir={value}")
_BATCH_INSTEAD = {
    **_for((*_TRAINING, "preview", "search"), '--hparam_str="train.batch_size={value}"'),
    **_for(("eval", "infer", "export"), '--hparam_str="eval.batch_size={value}"'),
}

# To add a flag, add a row; the mode reads it from the ``FlagValues``.
FLAGS: Mapping[str, Flag] = {
    "mode": Flag("train", f"one of {', '.join(MODES)}"),
    "model_name": Flag("efficientnetv2-s", "name of the model"),
    "dataset_cfg": Flag(None, "name of the data set", _WITH_DATA),
    "model_dir": Flag(None, "run directory; default: runs/<model>-<data set>", is_path=True),
    "data_dir": Flag(
        None,
        "folder of your own images, or of the data set of --dataset_cfg",
        _WITH_DATA,
        is_path=True,
    ),
    "hparam_str": Flag("", "comma-separated key=value settings, or a .yaml file", is_path=True),
    "sweeps": Flag("", "more key=value settings, applied after --hparam_str", is_path=True),
    "weights": Flag(
        None, "pretrained weights: the name of a release, or a path", _WITH_DATA, is_path=True
    ),
    "eval_name": Flag(None, "write the evaluation to eval_<name>.json", (*_TRAINING, "eval")),
    "archive_ckpt": Flag(
        True, "keep the checkpoint with the best minival accuracy in best/", ("traineval",)
    ),
    # ------------------------------------------------------------------------ TPU
    "use_tpu": Flag(False, "use a TPU: the same as runtime.strategy=tpu", _DEVICE_MODES),
    "tpu": Flag(
        None,
        "TPU name or grpc:// address; implies --use_tpu; default: this machine's",
        _DEVICE_MODES,
    ),
    "gcp_project": Flag(None, "project of the Cloud TPU", _DEVICE_MODES),
    "tpu_zone": Flag(None, "zone of the Cloud TPU", _DEVICE_MODES),
    "tpu_job_name": Flag(None, "job name of the TPU workers", _DEVICE_MODES),
    # ------------------------------------------------------------------ inference
    "image_path": Flag(
        None,
        "image file, folder, or pattern such as 'photos/*.jpg'",
        ("infer", "export"),
        _DATA_INSTEAD,
        is_path=True,
    ),
    "output": Flag(
        None,
        "file for all predictions: .csv, .json or .parquet",
        ("infer",),
        {**_RUN_INSTEAD, "eval": "--eval_name=NAME", "export": "--output_dir={value}"},
        is_path=True,
    ),
    "output_dir": Flag(
        None,
        "folder of the exported files, or of what --features and --explain write; default: inside "
        "the run directory",
        ("infer", "export"),
        {**_RUN_INSTEAD, "eval": "--model_dir={value}"},
        is_path=True,
    ),
    "flip": Flag(
        False,
        "average over each image and its mirror image",
        ("infer",),
        _for(_TRAINING, '--hparam_str="data.flip={value}"'),
    ),
    "features": Flag(False, "write the input of the classifier to features.npz", ("infer",)),
    "explain": Flag(False, "draw a heat map of the top class over each image", ("infer",)),
    "crops": Flag("1", "crops of each image to average over", ("infer",), choices=("1", "5")),
    "top_k": Flag(5, "classes to name for each image", ("infer",), limits=(1, 1_000_000)),
    # --------------------------------------------------------------------- export
    "format": Flag(
        ["saved_model", "tflite"],
        f"formats to write, separated by commas, of {', '.join(FORMATS)}",
        ("export",),
        {"infer": "--output=FILE.csv (or .json, .parquet)"},
    ),
    "preprocessing": Flag(
        True, "include the preprocessing: the input is pixels of 0..255", ("export",)
    ),
    "logits": Flag(False, "output logits instead of probabilities", ("export",)),
    "integer_io": Flag(
        False, "uint8 input and output in the int8 file, instead of float32", ("export",)
    ),
    "debug_int8": Flag(False, "write the int8 error of each layer to int8_layers.csv", ("export",)),
    "export_to_tpu": Flag(False, "add an XLA signature to the SavedModel", ("export",)),
    # ------------------------------------------------------------------ benchmark
    "models": Flag(
        None,
        "model names, separated by commas; default: --model_name",
        ("benchmark",),
        _for(_WITH_DATA, "--model_name={value}"),
    ),
    "batch_size": Flag(16, "images a step", ("benchmark",), _BATCH_INSTEAD, limits=(1, 100_000)),
    "image_scale": Flag(
        1.0,
        "factor on each model's own image sizes",
        ("benchmark",),
        _for(_TRAINING, '--hparam_str="train.isize=SIZE,eval.isize=SIZE" in pixels'),
        limits=(0.01, 4.0),
    ),
    "steps": Flag(
        20,
        "timed steps",
        ("benchmark",),
        _for(_TRAINING, '--hparam_str="train.epochs=N"'),
        limits=(1, 1_000_000),
    ),
    "help": Flag(False, "show the help and exit"),
    "helpfull": Flag(False, "show all flags and exit"),
}


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
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if values.help or values.helpfull:
        return values
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; flags are written --name=value")
    if values.mode not in MODES:
        raise UserError(f"unknown mode {shown(values.mode)}{did_you_mean(values.mode, MODES)}")
    if values.eval_name and re.fullmatch(r"[\w.-]{1,100}", values.eval_name) is None:
        raise UserError(
            "--eval_name becomes part of a file name: use letters, digits, '_', '-' and '.', at "
            f"most 100, got '{values.eval_name[:100]}'"
        )
    for name, row in FLAGS.items():
        _require_used(values, name, row)
        if row.default is None and values[name].value == "" and name not in _TPU_FLAGS:
            raise UserError(f"--{name} is empty; give it a value, or leave it out")
        if row.is_path and str(values[name].value).startswith("~/"):
            values[name].value = str(pathlib.Path(values[name].value).expanduser())
    _take_weights_from_name(values)
    _check_formats(values)
    if values["use_tpu"].present and not values.use_tpu and values.tpu:
        raise UserError(f"--tpu={values.tpu} contradicts --nouse_tpu")
    return values


def _take_weights_from_name(values: flags.FlagValues) -> None:
    """Reads a ``--model_name`` with weights behind it as both flags."""
    network, weights = name_and_weights(values.model_name, values.weights)
    if weights is None or weights == values.weights:
        return
    if values.mode not in FLAGS["weights"].modes:
        raise UserError(f"--mode={values.mode} takes no weights; give --model_name={network}")
    values.model_name, values.weights = network, weights


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
