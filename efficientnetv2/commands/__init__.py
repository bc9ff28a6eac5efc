"""Runs the modes of the command line, one module each.

A mode first checks its flags without TensorFlow, then imports it and does the work.
``MODES`` is the table of modes; to add one, add a row and a module with a function ``run``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absl.flags import FlagValues


@dataclasses.dataclass(frozen=True)
class Mode:
    """Describes a value of ``--mode``.

    Attributes:
      module: name of its module in this folder; ``run`` takes the flags, returns the exit code.
      meaning: one line for ``--help``.
    """

    module: str
    meaning: str


MODES: Mapping[str, Mode] = {
    "train": Mode(
        "train", "train, resuming what the model_dir holds; then evaluate on the test split"
    ),
    "eval": Mode(
        "evaluate", "evaluate a trained model_dir, or follow the training that runs there"
    ),
    "traineval": Mode("train", "train, and evaluate on the minival split after each epoch"),
    "infer": Mode("infer", "name what is in --image_path, with a trained model_dir or --weights"),
    "export": Mode(
        "export", "write a trained model_dir or --weights for servers, phones and browsers"
    ),
    "preview": Mode("preview", "draw what the network will see in each stage, and the schedule"),
    "benchmark": Mode(
        "benchmark", "measure what networks cost on this machine, in training and inference"
    ),
    "search": Mode(
        "search", "look for the best network for your data and device (search.* in --hparam_str)"
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
    **dict.fromkeys(("fit", "finetune", "fine-tune"), "train"),
}


def run_mode(values: FlagValues) -> int:
    """Runs the mode that the flags name; returns the exit code."""
    module = importlib.import_module(f"efficientnetv2.commands.{MODES[values.mode].module}")
    code: int = module.run(values)
    return code
