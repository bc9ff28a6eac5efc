"""A configuration in; what is wrong in combinations of values that are each right, out."""

from __future__ import annotations

import re

from ml_collections import config_dict

from hparams import base
from hparams.models import MODELS
from hparams.search import impossible_blocks, impossible_search


def impossible(config: config_dict.ConfigDict) -> list[str]:
    """Returns one line for each combination that cannot be run."""
    problems = []
    if config.data.source != "tfds" and config.data.data_dir is None:
        problems.append(f"{config.data.ds_name} needs the folder of its files: --data_dir=FOLDER")
    service = config.data.service
    if service is not None and re.fullmatch(r"grpc://[^:/]+:\d+", service) is None:
        problems.append(f"data.service must be grpc://host:port, got '{service}'")
    if config.train.scale_batch_with_size and config.train.size_schedule != "progressive":
        problems.append("train.scale_batch_with_size needs train.size_schedule=progressive")
    train = config.train
    sizes_differ = train.size_schedule == "random" or (
        train.size_schedule == "progressive" and train.stages > 1
    )
    if sizes_differ and config.data.ibase > train.isize:
        problems.append(
            f"data.ibase ({config.data.ibase}) must not exceed train.isize ({config.train.isize})"
        )
    for key in ("crop_area", "crop_aspect"):
        low, high = config.data[key]
        if not 0 < low <= high:
            problems.append(f"data.{key} must rise from above 0, got {[low, high]}")
    problems += impossible_search(config.search)
    return problems + _impossible_step(config) + _impossible_model(config.model)


def _impossible_step(config: config_dict.ConfigDict) -> list[str]:
    train, runtime = config.train, config.runtime
    problems = []
    if train.batch_size % train.accumulate:
        problems.append(
            f"train.batch_size ({train.batch_size}) must divide by train.accumulate "
            f"({train.accumulate})"
        )
    for key in ("varsexp", "weight_decay_vars"):
        try:
            re.compile(train[key] or "")
        except re.error as error:
            problems.append(f"train.{key} is no regular expression: {error}: '{train[key]}'")
    problems += [_wrong_scale(text) for text in train.lr_scales if _wrong_scale(text)]
    if train.size_schedule == "random" and train.size_steps and runtime.xla:
        problems.append("runtime.xla compiles for each size: give train.size_steps=0 (an epoch)")
    if runtime.strategy == "tpu" and runtime.xla:
        problems.append("runtime.xla is for GPUs and CPUs: a TPU compiles in any case")
    first, last = train.profile
    if not (1 <= first <= last or first == last == 0):
        problems.append(f"train.profile must be two steps from 1 on, rising, got {[first, last]}")
    return problems


def _wrong_scale(text: str) -> str:
    """What is wrong with an item of train.lr_scales; nothing: an empty string."""
    expression, _, factor = text.rpartition(":")
    try:
        re.compile(expression)
        is_right = bool(expression) and 0 < float(factor) < float("inf")
    except (re.error, ValueError):
        is_right = False
    if is_right:
        return ""
    return (
        f"train.lr_scales must hold expression:factor with a factor above 0, got '{text}'; "
        "train.varsexp leaves variables as they are"
    )


# All that can be changed of a body from keras.applications; it is otherwise as it is.
_RESNET_KEYS = (
    *("preprocess", "bn_momentum", "bn_type", "bn_mode"),
    *("dropout_rate", "dropout_base", "num_classes"),
)


def _impossible_model(model: config_dict.ConfigDict) -> list[str]:
    resnets = [name for name, row in MODELS.items() if row.family == "resnet"]
    if model.model_name not in resnets:
        if model.family == "resnet":
            return [f"model.family=resnet is for {' and '.join(resnets)} alone"]
        return impossible_blocks(model.blocks_args, key="model.blocks_args")
    row = {"model.model_name": model.model_name, **MODELS[model.model_name].overrides()}
    return [
        f"model.{key} cannot be changed for {model.model_name}"
        for key, value in model.items()
        if key not in _RESNET_KEYS
        and value != row.get(f"model.{key}", base.KEYS[f"model.{key}"].default)
    ]
