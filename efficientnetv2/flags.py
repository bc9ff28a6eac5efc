"""Defines, parses and checks the command line's flags, and prints its help. Needs no TensorFlow."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from efficientnetv2.commands import MODES
from efficientnetv2.export.formats import FORMATS
from hparams.datasets import DATASETS
from hparams.errors import UserError
from hparams.registry import did_you_mean

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


def define_flags(defaults: Mapping[str, Any]) -> flags.FlagValues:
    """Returns the flags of the official ``cflags.py`` and our own, not parsed yet.

    Args:
      defaults: flag name -> default, where it differs from the default here.
    """
    values = flags.FlagValues()

    def string(name: str, default: str | None, text: str) -> None:
        flags.DEFINE_string(name, defaults.get(name, default), text, flag_values=values)

    def boolean(name: str, default: bool, text: str) -> None:
        flags.DEFINE_bool(name, defaults.get(name, default), text, flag_values=values)

    string("mode", "train", f"one of {', '.join(MODES)}")
    string("model_name", "efficientnetv2-s", "name of the model")
    string("dataset_cfg", None, "name of the data set")
    string("model_dir", None, "run directory; default: runs/<model>-<data set>")
    string("data_dir", None, "folder of your own images, or of the data set of --dataset_cfg")
    string("hparam_str", "", "comma-separated key=value settings, or a .yaml file")
    string("sweeps", "", "more key=value settings, applied after --hparam_str")
    string("weights", None, "pretrained weights: the name of a release, or a path")
    _define_inference_flags(values)
    _define_export_flags(values)
    string("eval_name", None, "write the evaluation to eval_<name>.json")
    boolean(
        "archive_ckpt",
        True,
        "--mode=traineval: keep the checkpoint with the best minival accuracy in best/",
    )
    boolean("use_tpu", False, "train on a TPU: the same as runtime.strategy=tpu")
    string("tpu", None, "TPU name or grpc:// address; implies --use_tpu; default: this machine's")
    string("gcp_project", None, "project of the Cloud TPU")
    string("tpu_zone", None, "zone of the Cloud TPU")
    string("tpu_job_name", None, "job name of the TPU workers")
    boolean("export_to_tpu", False, "--mode=export: add an XLA signature to the SavedModel")
    boolean("help", False, "show the help and exit")
    boolean("helpfull", False, "show all flags and exit")
    _define_benchmark_flags(values)
    return values


def _define_inference_flags(values: flags.FlagValues) -> None:
    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, None, f"--mode=infer: {text}", flag_values=values)

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_bool(name, False, f"--mode=infer: {text}", flag_values=values)

    string("image_path", "image file, folder, or pattern such as 'photos/*.jpg'")
    string("output", "file for all predictions: .csv, .json or .parquet")
    string(
        "output_dir", "folder of what --features and --explain write; default: the run directory"
    )
    boolean("flip", "average over each image and its mirror image")
    boolean("features", "write the input of the classifier to features.npz")
    boolean("explain", "draw a heat map of the top class over each image, in explain/")
    flags.DEFINE_enum(
        "crops",
        "1",
        ["1", "5"],
        "--mode=infer: crops of each image to average over",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "top_k",
        5,
        "--mode=infer: classes to name for each image",
        lower_bound=1,
        flag_values=values,
    )


def _define_export_flags(values: flags.FlagValues) -> None:
    def boolean(name: str, default: bool, text: str) -> None:
        flags.DEFINE_bool(name, default, f"--mode=export: {text}", flag_values=values)

    flags.DEFINE_list(
        "format",
        ["saved_model", "tflite"],
        f"--mode=export: formats to write, separated by commas, of {', '.join(FORMATS)}",
        flag_values=values,
    )
    boolean("preprocessing", True, "include the preprocessing: the input is pixels of 0..255")
    boolean("logits", False, "output logits instead of probabilities")
    boolean("integer_io", False, "uint8 input and output in the int8 file, instead of float32")
    boolean("debug_int8", False, "write the int8 error of each layer to int8_layers.csv")


def _define_benchmark_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "models",
        None,
        "--mode=benchmark: model names, separated by commas; default: --model_name",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", 16, "--mode=benchmark: images a step", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "image_scale",
        1.0,
        "--mode=benchmark: factor on each model's own image sizes",
        lower_bound=0.01,
        upper_bound=4.0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "steps", 20, "--mode=benchmark: timed steps", lower_bound=1, flag_values=values
    )


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
        raise UserError(f"unknown mode '{values.mode}'{did_you_mean(values.mode, MODES)}")
    if values.eval_name and re.fullmatch(r"[\w.-]+", values.eval_name) is None:
        raise UserError(
            "--eval_name becomes part of a file name: use letters, digits, '_', '-' and '.', got "
            f"'{values.eval_name}'"
        )
    if values.export_to_tpu and values.mode != "export":
        raise UserError("--export_to_tpu needs --mode=export")
    _check_formats(values)
    if values["use_tpu"].present and not values.use_tpu and values.tpu:
        raise UserError(f"--tpu={values.tpu} contradicts --nouse_tpu")
    return values


def _check_formats(values: flags.FlagValues) -> None:
    for name in values.format:
        if name not in FORMATS:
            raise UserError(f"unknown --format '{name}'{did_you_mean(name, FORMATS)}")
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
