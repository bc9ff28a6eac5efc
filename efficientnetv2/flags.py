"""Parses the command line, and prints its help. Needs no TensorFlow."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from absl import flags

from efficientnetv2.commands import MODE_NAMES, MODES
from efficientnetv2.commands.flag_table import FLAGS
from efficientnetv2.commands.flag_values import check_flags, flag_error, give
from efficientnetv2.commands.other_flags import our_words
from efficientnetv2.export.formats import FORMATS
from hparams.datasets import DATASETS
from hparams.errors import UserError, shown
from hparams.registry import did_you_mean

HELP = """EfficientNetV2 for TensorFlow.

usage: {program} MODE [DATA] [flags], or --mode=MODE --data=DATA

modes:
{modes}

flags that matter:
  --model        what to train: efficientnetv2-s (default: {model_name}); -m, -l, -xl, -b0 to -b3,
                 efficientnet-b0 to -b8, -l2, efficientnet-lite0 to -lite4;
                 for comparison: resnet50, resnet152, efficientnet-b4-fused-1-3, -1-5, -1-7
  --data         your own images: photos/<class>/*.jpg or photos/{{train,val,test}}/<class>/*.jpg,
                 or a table of labels: labels.csv (--label_columns, --target_columns, ...);
                 or a data set: {datasets};
                 tfds:NAME for any other set of TensorFlow Datasets
                 (default: {dataset_cfg})
  --preset       your own images: auto (default), fast or best chooses size, length and
                 regularisation of the training from the images; the other flags count more
  --epochs, --batch_size, --learning_rate, --image_size, --resize, --optimizer, --augment,
  --precision, --seed, --validate
                 what everyone sets; MODE --help says what each means there
  --model_dir    where everything is written and resumed from (default: runs/<model>-<data set>)
  --hparam_str   all other settings, for example "data.mixup_alpha=0.2,train.gclip=1", or a .yaml
                 file; docs/hparams.md lists all keys
  --weights      pretrained weights: imagenet, imagenet21k, imagenet21k-ft1k, jft, best, or a path;
                 --mode=train starts from them, --mode=infer needs no --model_dir with them
  --image_path   image file, folder, "*.jpg", list.txt or - (a list on standard input), for
                 --mode=infer; with --top_k=5, --output=all.csv (.json, .jsonl, .parquet), --flip,
                 --crops=5, --shard=3/64 (the third of 64 parts of the images),
                 --features (features.npz) and --explain (heat maps) in --output_dir
  --format       what --mode=export writes, separated by commas:
                 {formats};
                 with --image_path=FOLDER to calibrate and check on, --output_dir,
                 --nopreprocessing, --logits, --integer_io, --debug_int8, --serving_dir,
                 --license
  --models       models to measure with --mode=benchmark, separated by commas (default:
                 --model_name); --batch_size, --image_scale (factor on each model's own sizes),
                 --steps
  --steps        also: of --mode=find_lr (100), which takes the other flags of a training

examples:
  {program} --model_name=efficientnetv2-s --mode=train
  {program} train photos --model=efficientnetv2-b0 --epochs=20 --image_size=96 --validate
  {program} infer new/ --model_dir=runs/efficientnetv2-b0-photos

MODE --help lists the flags of a mode, --helpfull every flag, --version the versions."""


# Mode -> the flags whose values may stand without a name, in this order; the others take --data.
_ARGUMENTS = {"models": ("pattern",), "convert": ("weights", "output")}


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
        raise flag_error(error) from None
    if values.help or values.helpfull or values.version:
        if rest and rest[0] in MODE_NAMES and not values["mode"].present:
            give(values, "mode", rest[0])
        return values
    _take_arguments(values, rest)
    if values.mode not in MODE_NAMES:
        raise UserError(f"unknown mode {shown(values.mode)}{did_you_mean(values.mode, MODES)}")
    check_flags(values)
    return values


def _take_arguments(values: flags.FlagValues, rest: list[str]) -> None:
    """Reads arguments without a name: a mode, and the data."""
    if rest and not values["mode"].present:
        if rest[0] not in MODE_NAMES:
            hint = did_you_mean(rest[0], MODE_NAMES)
            raise UserError(f"unexpected argument {shown(rest[0])}: no mode{hint}")
        give(values, "mode", rest.pop(0))
    if MODE_NAMES.get(values.mode) == "average" and rest and not values["runs"].present:
        values["runs"].value, rest = rest, []
        values["runs"].present = 1
    for name in _ARGUMENTS.get(values.mode, ("data",)):
        if rest and not values[name].present:
            give(values, name, rest.pop(0))
    if rest:
        raise UserError(f"unexpected argument {shown(rest[0])}; flags are written --name=value")


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
