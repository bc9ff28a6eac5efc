"""Says what ``train.quantise`` sets, takes from the float run, and cannot be combined with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hparams.channels import RGB
from hparams.config import Config
from hparams.label_kinds import NUMBERS, label_kind

NOT_QUANTISED, INT8 = "none", "int8"

# The fine-tuning is short and its network is the trained one, so nothing regularises it.
_SETTINGS: Mapping[str, Any] = {
    "train.preset": "none",
    "train.epochs": 5,
    "train.min_steps": 0,
    "train.batch_size": 32,
    "train.stages": 1,
    "train.size_schedule": "progressive",
    "train.optimizer": "adamw",
    "train.lr_base": 0.0001,
    "train.lr_sched": "cosine",
    "train.lr_warmup_epoch": 0.5,
    "train.weight_decay": 0.0,
    "train.ema_decay": 0.99,
    "train.label_smoothing": 0.0,
    "train.distill_weight": 1.0,
    "model.dropout_rate": 0.0,
    "model.dropout_base": None,
    "model.survival_prob": 1.0,
}
# Of the section ``train``; model, data and eval are taken whole.
_OF_TRAINING = ("train.loss_type", "train.class_weights")


def is_quantised(config: Config) -> bool:
    """Returns whether the network of a config is trained as its 8-bit file computes."""
    return bool(config.train.quantise != NOT_QUANTISED)


def is_requested(given: Mapping[str, Any]) -> bool:
    """Returns whether settings, by ``section.key``, ask for it; a wrong value is refused later."""
    return str(given.get("train.quantise", NOT_QUANTISED)).strip() != NOT_QUANTISED


def settings_of_quantisation(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that ``train.quantise`` implies, if the user gives no others.

    Args:
      given: ``section.key`` -> value; the float network of ``train.ft_init_ckpt`` is the teacher.
    """
    if not is_requested(given):
        return {}
    return {**_SETTINGS, "train.teacher": given.get("train.ft_init_ckpt")}


def settings_of_run(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a float run that its 8-bit training goes on with.

    Args:
      trained: ``section.key`` -> value of the float run.
    """
    kept = {
        key: value
        for key, value in trained.items()
        if (key.startswith(("model.", "data.", "eval.")) and key not in _SETTINGS)
        or key in _OF_TRAINING
    }
    return {**kept, "train.isize": trained["eval.isize"]}


def quantisation_problems(config: Config) -> list[str]:
    """Returns one line for each setting of a training that ``train.quantise`` cannot go with."""
    if not is_quantised(config):
        return []
    model, train = config.model, config.train
    own = f"train.quantise={train.quantise}"
    sizes_differ = train.size_schedule == "random" or train.stages > 1
    refused = {
        f"{model.model_name}: its weights cannot be read": model.family == "resnet",
        f"model.channels={model.channels}: give {RGB}": model.channels != RGB,
        "model.data_format=channels_first: 8-bit files are channels_last": (
            model.data_format != "channels_last"
        ),
        f"train.loss_type={train.loss_type}, which is for numbers": label_kind(config) == NUMBERS,
        f"train.precision={train.precision}: it computes in float32": train.precision != "float32",
        f"train.recipe={train.recipe}: it has settings of its own": train.recipe != "none",
        f"train.preset={train.preset}: it has settings of its own": train.preset != "none",
        "sizes that change: its ranges are for one image size; give train.stages=1 and no random "
        "sizes": sizes_differ,
        f"train.isize={train.isize} and eval.isize={config.eval.isize}: they must be the same": (
            train.isize != config.eval.isize
        ),
        f"model.dropout_rate={model.dropout_rate:g}: its network has no dropout; give 0": (
            model.dropout_rate > 0
        ),
        f"model.survival_prob={model.survival_prob:g}: its network has no stochastic depth; give "
        "1": model.survival_prob < 1,
        f"data.fold={config.data.fold}: train one network on all images": (
            config.data.fold is not None
        ),
        f"runtime.strategy={config.runtime.strategy}: it runs on one machine's CPU or GPUs": (
            config.runtime.strategy in ("tpu", "multi_worker")
        ),
    }
    return [f"{own} does not go with {text}" for text, is_so in refused.items() if is_so]
