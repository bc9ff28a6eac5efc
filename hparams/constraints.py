"""Finds combinations of config values that are valid one by one but cannot be run together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from hparams import keys
from hparams.architecture import require_buildable, scaled_architecture, total_stride
from hparams.block_strings import BlockStringError, decode_block, round_repeats
from hparams.channels import channel_problems
from hparams.choices import AUGMENTATIONS, LOSSES, NATURAL_SAMPLING, NO_PRESET
from hparams.class_weights import BALANCED, given_weights, needs_counts
from hparams.config import Config
from hparams.errors import UserError, shortened, shown
from hparams.evaluation_rules import evaluation_problems
from hparams.factors import FACTORS
from hparams.folds import MOST_FOLDS, parse_fold
from hparams.image_constraints import image_problems
from hparams.label_kinds import LABEL_KINDS, NUMBERS, ONE, label_kind
from hparams.limits import SMALLEST_FLOAT
from hparams.models import MODELS
from hparams.recipes import RECIPES
from hparams.registry import UnknownNameError
from hparams.scalars import to_float
from hparams.search_space import space_problems
from hparams.train_keys import BASE_BATCH

# A network that shrinks images by 32 is trained on 8 px or more: smaller images are a single pixel
# after two blocks, and BatchNorm then divides by the deviation of next to nothing (with 1 px, the
# loss of the second step is not finite).
_PIXELS_LOST = 4
_LARGEST_PORT = 65_535
_LARGEST_FACTOR = 1000  # of a learning rate


def find_conflicts(config: config_dict.ConfigDict, *, with_sizes: bool = True) -> list[str]:
    """Returns one line for each problem; an empty list means that the config can be run.

    Args:
      config: of values that fit their keys.
      with_sizes: whether the image sizes, the batch and the learning rate are final. A preset
        chooses them, so what conflicts with those before it may fit those after it.
    """
    return [
        *(_size_problems_of_training(config) if with_sizes else ()),
        *_data_problems(config),
        *channel_problems(config),
        *_label_problems(config),
        *_search_problems(config),
        *_train_problems(config),
        *_model_problems(config.model),
    ]


# ---------------------------------------------------------------------- data and image sizes


def _label_problems(config: config_dict.ConfigDict) -> list[str]:
    """Returns what does not fit the kind of the labels."""
    train = config.train
    kind = label_kind(config)
    problems = []
    if kind != ONE and config.data.source == "tfds":
        problems.append(
            f"TensorFlow Datasets have one class an image here, but data.multi_label="
            f"{config.data.multi_label}, train.loss_type={train.loss_type} is for "
            f"{LABEL_KINDS[kind].text}"
        )
    if kind == NUMBERS:
        loss = f"train.loss_type={train.loss_type} is for numbers"
        if config.data.multi_label:
            problems.append(f"{loss}, data.multi_label=true for classes; give one of them")
        if train.label_smoothing:
            problems.append(f"{loss}, train.label_smoothing for classes; give 0")
        if train.teacher is not None:
            problems.append(f"{loss}, train.teacher for classes")
    problems += _balance_problems(config, kind)
    problems += evaluation_problems(config, kind)
    if len(config.model.target_mean) != len(config.model.target_deviation):
        problems.append("model.target_mean and model.target_deviation must be equally long")
    return problems


def _balance_problems(config: config_dict.ConfigDict, kind: str) -> list[str]:
    """Returns what is wrong with the settings for rare and frequent classes."""
    train, sampling = config.train, config.data.sampling
    weights = given_weights(config)
    text = ",".join(weights)
    problems = []
    numbers = [number for number in map(_number, weights) if number is not None]
    num_classes = config.model.num_classes
    if weights not in ([], [BALANCED]):
        if len(numbers) < len(weights) or max(numbers, default=0.0) <= 0:
            problems.append(
                f"train.class_weights must be none, balanced, or a number for each class, such as "
                f"[1,2.5], got {shown(text)}"
            )
        elif num_classes is not None and len(weights) != num_classes:
            problems.append(
                f"train.class_weights has {len(weights)} numbers for {num_classes} classes"
            )
    given = {
        f"train.class_weights={text}": bool(weights),
        f"train.logit_adjustment={train.logit_adjustment}": train.logit_adjustment > 0,
        f"data.sampling={sampling}": sampling != NATURAL_SAMPLING,
    }
    problems += [
        f"{setting} is for images of one class, not for {LABEL_KINDS[kind].text}"
        for setting, is_set in given.items()
        if is_set and kind != ONE
    ]
    if train.logit_adjustment and not LOSSES[train.loss_type].shares_target:
        problems.append(
            f"train.logit_adjustment needs train.loss_type=softmax, not {train.loss_type}"
        )
    if train.focal_gamma and kind == NUMBERS:
        problems.append("train.focal_gamma is for classes, not for numbers")
    if train.focal_gamma and train.teacher is not None:
        problems.append("train.focal_gamma has no meaning with train.teacher")
    if needs_counts(config) and config.data.source != "folder":
        problems.append(
            "class weights, sampling and logit adjustment by the number of images of a class are "
            f"for your own images, not for {config.data.ds_name}"
        )
    return problems


def _number(text: str) -> float | None:
    """Returns a number of at least 0; None: it is none."""
    try:
        number = to_float(text)
    except ValueError:
        return None
    return number if number >= 0 else None


def _data_problems(config: config_dict.ConfigDict) -> list[str]:
    data, train = config.data, config.train
    problems = []
    if data.source != "tfds" and data.data_dir is None:
        problems.append(f"{data.ds_name} needs the folder of its files: --data_dir=FOLDER")
    if data.service is not None:
        match = re.fullmatch(r"grpc://[^:/\s]+:([0-9]{1,5})", data.service)
        if match is None or not 1 <= int(match[1]) <= _LARGEST_PORT:
            problems.append(f"data.service must be grpc://host:port, got {shown(data.service)}")
    problems += _fold_problems(data)
    if train.scale_batch_with_size and train.size_schedule != "progressive":
        problems.append("train.scale_batch_with_size needs train.size_schedule=progressive")
    for key in ("crop_area", "crop_aspect"):
        low, high = data[key]
        if not 0 < low <= high:
            problems.append(
                f"data.{key} must be [smallest, largest] with both above 0, got {[low, high]}"
            )
    return problems + image_problems(config)


def _size_problems_of_training(config: config_dict.ConfigDict) -> list[str]:
    """Returns what does not fit the image sizes, the batch or the learning rate."""
    data, train = config.data, config.train
    problems = []
    sizes_differ = train.size_schedule == "random" or (
        train.size_schedule == "progressive" and train.stages > 1
    )
    if sizes_differ and data.ibase > train.isize:
        problems.append(f"data.ibase ({data.ibase}) must not exceed train.isize ({train.isize})")
    piece = train.batch_size // train.accumulate
    if data.repeats > 1 and data.repeats >= piece:
        problems.append(
            f"data.repeats={data.repeats} fills the {piece} images that are trained on at once "
            "(train.batch_size / train.accumulate) with one image; give at most "
            f"{max(piece - 1, 1)}"
        )
    if train.batch_size % train.accumulate:
        problems.append(
            f"train.batch_size ({train.batch_size}) must be divisible by train.accumulate "
            f"({train.accumulate})"
        )
    peak = train.lr_base * train.batch_size / BASE_BATCH
    if train.lr_min > peak:
        problems.append(
            f"train.lr_min ({train.lr_min:g}) must not exceed the peak learning rate, "
            f"train.lr_base x train.batch_size / {BASE_BATCH} = {peak:g}"
        )
    return problems


def _fold_problems(data: config_dict.ConfigDict) -> list[str]:
    if data.fold is None:
        return []
    try:
        parse_fold(data.fold)
    except ValueError:
        return [
            f"data.fold must say which fold of how many, as 2/5 (1/5 to 5/5; at most {MOST_FOLDS} "
            f"folds), got {shown(data.fold)}"
        ]
    if data.source != "folder":
        return [f"data.fold is for your own images, not for {data.ds_name}"]
    return []


# Argument of an augmentation -> the keys that only augmentations with this argument read.
_KEYS_OF_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "magnitude": tuple(FACTORS["magnitude"].keys),
    "num_layers": ("data.randaug_layers",),
    "ops": ("data.augment_ops",),
}
_MIXING = (*FACTORS["mixup_alpha"].keys, *FACTORS["cutmix_alpha"].keys)


def find_unused_changes(config: config_dict.ConfigDict, before: Mapping[str, Any]) -> list[str]:
    """Returns one line for each value that was changed and is not read by the augmentation.

    Args:
      config: with the changes.
      before: ``section.key`` -> value without them; a key that is left out has its default.
    """
    augname = config.data.augname
    taken = set(AUGMENTATIONS[augname].arguments)
    if any(keys.value_of(config, key) for key in _MIXING):
        taken.add("ops")  # mixup and CutMix have an official table, too
    problems = []
    for argument, names in _KEYS_OF_ARGUMENTS.items():
        takers = [name for name, row in AUGMENTATIONS.items() if argument in row.arguments]
        takers += ["mixing"] if argument == "ops" else []
        problems += [
            f"{name}={keys.value_of(config, name)} has no effect with data.augname={augname}, only "
            f"with {', '.join(takers)}"
            for name in names
            if argument not in taken
            and keys.value_of(config, name) != before.get(name, keys.KEYS[name].default)
        ]
    return problems


def find_training_conflicts(config: Config) -> list[str]:
    """Returns one line for each problem that matters only for training, as ``find_conflicts``."""
    data, train, model = config.data, config.train, config.model
    size, key = train.isize, "train.isize"
    is_progressive = train.size_schedule == "progressive" and train.stages > 1
    if (is_progressive or train.size_schedule == "random") and data.ibase < size:
        size, key = data.ibase, "data.ibase"
    stride = 32 if model.family == "resnet" else total_stride(scaled_architecture(model))
    return _size_problems(key, size, stride=stride, network=model.model_name)


def _size_problems(key: str, size: int, *, stride: int, network: str) -> list[str]:
    smallest = -(-stride // _PIXELS_LOST)
    if size >= smallest:
        return []
    return [
        f"{key}={size} is too small for {network}, which shrinks images by {stride}: give at least "
        f"{smallest}, or blocks with fewer strides of 2"
    ]


# ---------------------------------------------------------------------- architecture search

_SEARCH_SPACE_KEYS = ("operations", "kernels", "expansions", "layers")


def _search_problems(config: config_dict.ConfigDict) -> list[str]:
    search = config.search
    problems = space_problems(config)
    for key in _SEARCH_SPACE_KEYS:
        values = list(search[key])
        if not values:
            problems.append(f"search.{key} must not be empty")
        elif len(set(values)) < len(values):
            problems.append(f"search.{key} must not repeat a value, got {shown(values)}")
    even = [kernel for kernel in search.kernels if kernel % 2 == 0]
    if even:
        problems.append(f"search.kernels must be odd, got {shown(even)}")
    if not search.study_name:
        problems.append("search.study_name must not be empty")
    storage = search.storage
    if storage is not None and "://" not in storage and not storage.startswith("journal:"):
        problems.append(
            f"search.storage must be a URL such as postgresql://user@host/name, or journal:FILE, "
            f"got {shown(storage)}"
        )
    problems += _backbone_problems(list(search.backbone))
    if search.space:  # the backbone and its variations are not used
        return problems
    return problems or _largest_network_problems(search)


def _largest_network_problems(search: config_dict.ConfigDict) -> list[str]:
    """Returns what is wrong with the largest network of the search space."""
    model = keys.default_config().model
    backbone = list(search.backbone)
    if _is_model_name(backbone):
        for name, value in MODELS[backbone[0]].overrides().items():
            if name.startswith("model."):
                model[name.removeprefix("model.")] = value
    else:
        model.blocks_args = backbone
    model.feature_size = search.feature_size or model.feature_size
    try:
        start = scaled_architecture(model)
        stages = [
            dataclasses.replace(
                stage,
                num_repeat=round_repeats(stage.num_repeat, depth=max(search.layers)),
                kernel_size=max(search.kernels),
                expand_ratio=max(search.expansions),
            )
            for stage in start.stages
        ]
        require_buildable(dataclasses.replace(start, stages=tuple(stages)))
    except UserError as error:
        return [f"the largest network of the search space (search.*) is too large: {error}"]
    stride = total_stride(start)
    return _size_problems("search.isize", search.isize, stride=stride, network="search.backbone")


def _is_model_name(backbone: list[str]) -> bool:
    return len(backbone) == 1 and "_" not in backbone[0]  # block strings have a "_"


def _backbone_problems(backbone: list[str]) -> list[str]:
    if _is_model_name(backbone):
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
    recipe = RECIPES.get(train.recipe)
    if recipe is not None and recipe.replaces and train.preset != NO_PRESET:
        problems.append(
            f"train.preset={train.preset} chooses what train.recipe={train.recipe} sets; give one "
            "of them"
        )
    for key in ("varsexp", "weight_decay_vars"):
        error = _expression_error(train[key] or "")
        if error:
            problems.append(
                f"train.{key} is not a regular expression: {error}: {shown(train[key])}"
            )
    problems += [_lr_scale_problem(item) for item in train.lr_scales if _lr_scale_problem(item)]
    if train.size_schedule == "random" and train.size_steps and runtime.xla:
        problems.append(
            "runtime.xla compiles once for each image size, so sizes cannot change within an "
            "epoch: give train.size_steps=0 (one size per epoch)"
        )
    problems += _teacher_problems(train)
    if runtime.strategy == "tpu" and runtime.xla:
        problems.append("runtime.xla is for GPUs and CPUs; a TPU always compiles, so leave it out")
    first, last = train.profile
    if not (1 <= first <= last or first == last == 0):
        problems.append(
            "train.profile must be [first step, last step], counted from 1, or [0, 0] for none, "
            f"got {[first, last]}"
        )
    return problems


# What is said of the teacher, and has no effect without one.
_OF_TEACHER = ("teacher_model", "distill_temperature", "distill_weight")


def _teacher_problems(train: config_dict.ConfigDict) -> list[str]:
    if train.teacher is None:
        return [
            f"train.{key}={train[key]} has no effect without a teacher: give train.teacher"
            for key in _OF_TEACHER
            if train[key] != keys.KEYS[f"train.{key}"].default
        ]
    if train.teacher_model is None:
        return []
    try:
        family = MODELS[train.teacher_model].family
    except UnknownNameError as error:
        return [f"train.teacher_model: {error}"]
    if family == "resnet":
        return [f"train.teacher_model: weights of {train.teacher_model} cannot be read"]
    return []


def _expression_error(expression: str) -> str:
    """Returns what is wrong with a regular expression, or an empty string."""
    try:
        re.compile(expression)
    except (re.error, OverflowError) as error:  # a{99999999999} overflows
        return shortened(str(error))
    except RecursionError:
        return "it is nested too deeply"
    return ""


def _lr_scale_problem(item: str) -> str:
    """Returns what is wrong with an item of train.lr_scales, or an empty string."""
    expression, _, factor = item.rpartition(":")
    try:
        is_factor = SMALLEST_FLOAT <= to_float(factor) <= _LARGEST_FACTOR
    except ValueError:
        is_factor = False
    if is_factor and expression and not _expression_error(expression):
        return ""
    return (
        f"train.lr_scales must hold expression:factor with a factor above 0 and at most "
        f"{_LARGEST_FACTOR}, got {shown(item)}; to freeze variables, use train.varsexp"
    )


# ---------------------------------------------------------------------- model

# The only keys that have an effect on a ResNet, whose body is built by keras.applications.
_RESNET_KEYS = (
    *("preprocess", "bn_momentum", "bn_type", "bn_mode"),
    *("dropout_rate", "dropout_base", "num_classes", "target_mean", "target_deviation"),
    *("channels", "pixel_mean", "pixel_deviation"),
)


def _model_problems(model: config_dict.ConfigDict) -> list[str]:
    resnets = [name for name, row in MODELS.items() if row.family == "resnet"]
    if model.model_name not in resnets:
        if model.family == "resnet":
            return [f"model.family=resnet is only for {' and '.join(resnets)}"]
        problems = _block_problems(model.blocks_args, key="model.blocks_args")
        return problems or _scaling_problems(model)
    row = {"model.model_name": model.model_name, **MODELS[model.model_name].overrides()}
    return [
        f"model.{key} cannot be changed for {model.model_name}"
        for key, value in model.items()
        if key not in _RESNET_KEYS
        and value != row.get(f"model.{key}", keys.KEYS[f"model.{key}"].default)
    ]


def _scaling_problems(model: config_dict.ConfigDict) -> list[str]:
    """Returns what is wrong with a network that has valid blocks, after scaling."""
    try:
        architecture = scaled_architecture(model)
        require_buildable(architecture, num_classes=model.num_classes or 1000)
    except UserError as error:
        return [
            f"model.width_coefficient={model.width_coefficient:g} and model.depth_coefficient="
            f"{model.depth_coefficient:g} are too large for these blocks: {error}"
            if (model.width_coefficient, model.depth_coefficient) != (1.0, 1.0)
            else f"model.blocks_args: {error}"
        ]
    return []


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
                f"{key}: '{shortened(text)}' takes {spec.input_filters} channels, but the stage "
                f"before it outputs {previous.output_filters}"
            )
    return problems
