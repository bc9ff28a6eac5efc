"""Finds combinations of config values that are valid one by one but cannot be run together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml_collections import config_dict

from hparams import keys
from hparams.block_strings import BlockStringError, decode_block
from hparams.models import MODELS
from hparams.registry import UnknownNameError


def find_conflicts(config: config_dict.ConfigDict) -> list[str]:
    """Returns one line for each problem; an empty list means that the config can be run."""
    return [
        *_data_problems(config),
        *_search_problems(config.search),
        *_train_problems(config),
        *_model_problems(config.model),
    ]


# ---------------------------------------------------------------------- data and image sizes


def _data_problems(config: config_dict.ConfigDict) -> list[str]:
    data, train = config.data, config.train
    problems = []
    if data.source != "tfds" and data.data_dir is None:
        problems.append(f"{data.ds_name} needs the folder of its files: --data_dir=FOLDER")
    if data.service is not None and re.fullmatch(r"grpc://[^:/]+:\d+", data.service) is None:
        problems.append(f"data.service must be grpc://host:port, got '{data.service}'")
    if train.scale_batch_with_size and train.size_schedule != "progressive":
        problems.append("train.scale_batch_with_size needs train.size_schedule=progressive")
    sizes_differ = train.size_schedule == "random" or (
        train.size_schedule == "progressive" and train.stages > 1
    )
    if sizes_differ and data.ibase > train.isize:
        problems.append(f"data.ibase ({data.ibase}) must not exceed train.isize ({train.isize})")
    for key in ("crop_area", "crop_aspect"):
        low, high = data[key]
        if not 0 < low <= high:
            problems.append(
                f"data.{key} must be [smallest, largest] with both above 0, got {[low, high]}"
            )
    return problems


# ---------------------------------------------------------------------- architecture search

_SEARCH_SPACE_KEYS = ("operations", "kernels", "expansions", "layers")


def _search_problems(search: config_dict.ConfigDict) -> list[str]:
    problems = []
    for key in _SEARCH_SPACE_KEYS:
        values = list(search[key])
        if not values:
            problems.append(f"search.{key} must not be empty")
        elif len(set(values)) < len(values):
            problems.append(f"search.{key} must not repeat a value, got {values}")
    even = [kernel for kernel in search.kernels if kernel % 2 == 0]
    if even:
        problems.append(f"search.kernels must be odd, got {even}")
    if not search.study_name:
        problems.append("search.study_name must not be empty")
    storage = search.storage
    if storage is not None and "://" not in storage and not storage.startswith("journal:"):
        problems.append(
            f"search.storage must be a URL such as postgresql://user@host/name, or journal:FILE, "
            f"got '{storage}'"
        )
    return problems + _backbone_problems(list(search.backbone))


def _backbone_problems(backbone: list[str]) -> list[str]:
    if len(backbone) == 1 and "_" not in backbone[0]:  # a model name: block strings have a "_"
        try:
            family = MODELS[backbone[0]].family
        except UnknownNameError as error:
            return [f"search.backbone: {error}"]
        if family == "resnet":
            return [f"search.backbone: {backbone[0]} has no stages to search over"]
        return []
    return _block_problems(backbone, key="search.backbone")


# ---------------------------------------------------------------------- training


def _train_problems(config: config_dict.ConfigDict) -> list[str]:
    train, runtime = config.train, config.runtime
    problems = []
    if train.batch_size % train.accumulate:
        problems.append(
            f"train.batch_size ({train.batch_size}) must be divisible by train.accumulate "
            f"({train.accumulate})"
        )
    for key in ("varsexp", "weight_decay_vars"):
        try:
            re.compile(train[key] or "")
        except re.error as error:
            problems.append(f"train.{key} is not a regular expression: {error}: '{train[key]}'")
    problems += [_lr_scale_problem(item) for item in train.lr_scales if _lr_scale_problem(item)]
    if train.size_schedule == "random" and train.size_steps and runtime.xla:
        problems.append(
            "runtime.xla compiles once for each image size, so sizes cannot change within an "
            "epoch: give train.size_steps=0 (one size per epoch)"
        )
    if runtime.strategy == "tpu" and runtime.xla:
        problems.append("runtime.xla is for GPUs and CPUs; a TPU always compiles, so leave it out")
    first, last = train.profile
    if not (1 <= first <= last or first == last == 0):
        problems.append(
            "train.profile must be [first step, last step], counted from 1, or [0, 0] for none, "
            f"got {[first, last]}"
        )
    return problems


def _lr_scale_problem(item: str) -> str:
    """Returns what is wrong with an item of train.lr_scales, or an empty string."""
    expression, _, factor = item.rpartition(":")
    try:
        re.compile(expression)
        is_valid = bool(expression) and 0 < float(factor) < float("inf")
    except (re.error, ValueError):
        is_valid = False
    if is_valid:
        return ""
    return (
        f"train.lr_scales must hold expression:factor with a factor above 0, got '{item}'; "
        "to freeze variables, use train.varsexp"
    )


# ---------------------------------------------------------------------- model

# The only keys that have an effect on a ResNet, whose body is built by keras.applications.
_RESNET_KEYS = (
    *("preprocess", "bn_momentum", "bn_type", "bn_mode"),
    *("dropout_rate", "dropout_base", "num_classes"),
)


def _model_problems(model: config_dict.ConfigDict) -> list[str]:
    resnets = [name for name, row in MODELS.items() if row.family == "resnet"]
    if model.model_name not in resnets:
        if model.family == "resnet":
            return [f"model.family=resnet is only for {' and '.join(resnets)}"]
        return _block_problems(model.blocks_args, key="model.blocks_args")
    row = {"model.model_name": model.model_name, **MODELS[model.model_name].overrides()}
    return [
        f"model.{key} cannot be changed for {model.model_name}"
        for key, value in model.items()
        if key not in _RESNET_KEYS
        and value != row.get(f"model.{key}", keys.KEYS[f"model.{key}"].default)
    ]


def _block_problems(blocks: Sequence[str], *, key: str) -> list[str]:
    """Returns one line for each block string that is wrong or does not fit the one before it.

    Args:
      blocks: one block string per stage.
      key: the config key that holds them, for the messages.
    """
    if not blocks:
        return [f"{key} must hold at least one block string"]
    problems = []
    specs = []
    for text in blocks:
        try:
            specs.append(decode_block(text))
        except BlockStringError as error:
            problems.append(f"{key}: {error}")
    if problems:
        return problems
    for text, previous, spec in zip(blocks[1:], specs, specs[1:]):
        if spec.input_filters != previous.output_filters:
            problems.append(
                f"{key}: '{text}' takes {spec.input_filters} channels, but the stage before it "
                f"outputs {previous.output_filters}"
            )
    return problems
