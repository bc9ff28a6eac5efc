"""Runs the modes of the command line, one module each.

A mode first checks its flags without TensorFlow, then imports it and does the work.
``MODES`` is the table of modes; to add one, add a row and a module with a function ``run``.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hparams.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.runtime.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Mode:
    """Describes a value of ``--mode``.

    Attributes:
      module: name of its module in this folder; its ``run`` takes the flags and the signals that
        stop the work, and returns an ``Outcome``.
      meaning: one line for ``--help``.
      extras: the extras of the package that it needs, of ``EXTRAS``.
    """

    module: str
    meaning: str
    extras: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a mode.

    Attributes:
      value: what the Python API returns for it.
      code: the exit code: 0; 2 if something could not be used and has been named; 128 + N if
        signal N stopped the work, which is saved.
    """

    value: Any = None
    code: int = 0


# Extra of the package -> the modules that it brings, besides those that every mode needs.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("orbit", "tensorflow_datasets", "sklearn", "matplotlib", "imagehash", "jinja2"),
    "export": ("ai_edge_litert",),  # the packages of a single format are checked with it
    "search": ("optuna",),
}
PACKAGE = "efficientnetv2-tensorflow"

MODES: Mapping[str, Mode] = {
    "train": Mode(
        "train",
        "train, resuming what the model_dir holds; then evaluate on the test split",
        ("train",),
    ),
    "eval": Mode(
        "evaluate",
        "evaluate a trained model_dir, or follow the training that runs there",
        ("train",),
    ),
    "traineval": Mode(
        "train", "train, and evaluate on the minival split after each epoch", ("train",)
    ),
    "infer": Mode(
        "infer", "classify the images in --image_path, with a trained model_dir or --weights"
    ),
    "export": Mode(
        "export",
        "write a trained model_dir or --weights for servers, phones and browsers",
        ("train", "export"),
    ),
    "preview": Mode(
        "preview", "draw what the network will see in each stage, and the schedule", ("train",)
    ),
    "check": Mode(
        "check", "look for copies, leaks, broken files and wrong labels in your images", ("train",)
    ),
    "find_lr": Mode(
        "find_lr",
        "suggest a learning rate for a training: runs its first steps at a growing rate",
        ("train",),
    ),
    "benchmark": Mode(
        "benchmark",
        "measure what networks cost on this machine, in training and inference",
        ("train",),
    ),
    "search": Mode(
        "search",
        "look for the best network, or settings, for your data (search.* in --hparam_str)",
        ("train", "search"),
    ),
    "convert": Mode("convert", "write --weights in another format, the one that --output ends in"),
    "average": Mode(
        "average",
        "average the weights of several run directories of one network (a model soup)",
        ("train",),
    ),
    "models": Mode(
        "model_list", "list the networks, with their costs, accuracy and released weights"
    ),
}

# What others call a mode -> our name.
MODE_NAMES: Mapping[str, str] = {
    **{name: name for name in MODES},
    **dict.fromkeys(("evaluate", "test", "val", "valid", "validate"), "eval"),
    **dict.fromkeys(("predict", "inference"), "infer"),
    **dict.fromkeys(("soup", "model_soup", "average_weights"), "average"),
    **dict.fromkeys(("find-lr", "lr_find", "lr_finder"), "find_lr"),
    **dict.fromkeys(("fit", "finetune", "fine-tune"), "train"),
}


def run_mode(values: FlagValues, stop: StopRequest) -> Outcome:
    """Runs the mode that the flags name.

    Args:
      values: the flags, checked.
      stop: the signals that stop it; they must be listened to.

    Raises:
      UserError: if a package that the mode needs is not installed.
    """
    for extra in MODES[values.mode].extras:
        require_extra(extra, f"--mode={values.mode}")
    module = importlib.import_module(f"efficientnetv2.commands.{MODES[values.mode].module}")
    outcome: Outcome = module.run(values, stop)
    return outcome


def require_extra(extra: str, what: str) -> None:
    """Checks that the packages of an extra are installed, without importing them.

    Args:
      extra: a row of ``EXTRAS``.
      what: needs them, as the message calls it.

    Raises:
      UserError: if one is not; the message has the command that installs it.
    """
    require_packages(EXTRAS[extra], extra, what)


def require_packages(modules: Sequence[str], extra: str, what: str) -> None:
    """Checks that packages of an extra are installed, as ``require_extra``.

    Args:
      modules: the packages' names in ``import``.
      extra: brings them.
      what: needs them, as the message calls it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"{what} needs the package {module}, which is not installed: "
                f"pip install '{PACKAGE}[{extra}]'"
            )
