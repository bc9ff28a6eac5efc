"""Reads ``search.space``: the settings that a search chooses, with their ranges.

An item is ``key:low..high``, ``key:low..high:log`` or ``key:value|value``, for example
``train.lr_base:0.001..0.1:log`` and ``train.optimizer:adamw|lion``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Union

from ml_collections import config_dict

from hparams.choices import AUGMENTATIONS, OPTIMIZERS
from hparams.config import Config, SearchSection
from hparams.errors import shown
from hparams.factors import FACTORS
from hparams.keys import KEYS, value_of
from hparams.overrides import ConfigError, checked, key_hint

_FORM = "key:low..high, key:low..high:log or key:value|value"


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included.

    Attributes:
      low: smallest number; an int for whole numbers.
      high: largest number, above ``low``.
      is_log: whether equal ratios are equally likely, not equal differences.
    """

    low: float
    high: float
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        return isinstance(self.low, int)

    def at(self, share: float) -> float:
        """Returns the number at a share of the range, 0 <= share < 1.

        >>> Range(0.001, 0.1, is_log=True).at(0.5), Range(1, 4).at(0.5)
        (0.01, 3)
        """
        low, high = self.low, self.high + self.is_whole
        if self.is_log:
            number = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            number = low + share * (high - low)
        if self.is_whole:
            return min(max(math.floor(number), self.low), self.high)
        return self.rounded(number)

    def rounded(self, number: float) -> float:
        """Returns a number of the range in four digits, as it is shown and trained with."""
        if self.is_whole:
            return int(number)
        return min(max(float(f"{number:.4g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.is_log else ''}"


Values = Union[tuple[Any, ...], Range]  # to choose one from


# ---------------------------------------------------------------------- keys that are not chosen

_NETWORK = "is part of the network, which stays; without search.space a search chooses networks"
_IMAGES = "says which images there are"
_SPEED = "is not about how well a network learns"
_EVALUATION = "changes the evaluation, not the training"
_ONE_SIZE = "has no effect: the images of a trial have one size"


def trial_settings(search: SearchSection) -> dict[str, Any]:
    """Returns the settings that all trials of a search have in common: a short training."""
    return {
        "train.epochs": search.epochs,
        "train.min_steps": 0,
        "train.stages": 1,
        "train.isize": search.isize,
        "train.size_schedule": "fixed",
        "train.scale_batch_with_size": False,
        "train.patience": 0,
        "train.profile": [0, 0],
        "eval.isize": search.isize,
        "runtime.keep_checkpoint_max": 1,
        "runtime.save_checkpoint_epochs": 1,
    }


# Keys whose values a search does not use -> what they are in all trials, or why.
NOT_OF_TRIALS: Mapping[str, str] = {
    "train.epochs": "is search.epochs in all trials",
    **dict.fromkeys(("train.isize", "eval.isize"), "is search.isize in all trials"),
    **dict.fromkeys(("train.min_steps", "train.patience"), "is off in all trials"),
    **dict.fromkeys(
        ("train.stages", "train.size_schedule", "train.size_steps", "train.stage_rule"), _ONE_SIZE
    ),
    **dict.fromkeys(("train.adaptive_regularisation", "train.scale_batch_with_size"), _ONE_SIZE),
    **dict.fromkeys((factor.first for factor in FACTORS.values()), _ONE_SIZE),
}
# Keys, or sections -> why they cannot be chosen; that of a key counts more.
_REFUSED: Mapping[str, str] = {
    **NOT_OF_TRIALS,
    "search.": "is a setting of the search itself",
    "runtime.": _SPEED,
    "eval.": _EVALUATION,
    **dict.fromkeys(("train.preset", "train.recipe"), "chooses other settings"),
    "train.seed": "is no setting that makes a training better",
    **dict.fromkeys(("data.ds_name", "data.source", "data.tfds_name", "data.data_dir"), _IMAGES),
    **dict.fromkeys(("data.multi_label", "data.on_bad_image", "model.num_classes"), _IMAGES),
    **dict.fromkeys(("data.path_column", "data.label_columns", "data.target_columns"), _IMAGES),
    "data.leave_out": _IMAGES,
    **dict.fromkeys(("data.split_column", "data.group_column", "data.weight_column"), _IMAGES),
    **dict.fromkeys(("data.train_split", "data.minival_split", "data.eval_split"), _IMAGES),
    **dict.fromkeys(("data.cache_mib", "data.service", "data.service_streams"), _SPEED),
    "data.shuffle_buffer": _SPEED,
    **dict.fromkeys(("model.target_mean", "model.target_deviation", "train.class_counts"), _IMAGES),
    **dict.fromkeys(("train.best_metric", "train.min_precision", "train.known_share"), _EVALUATION),
}
# The keys of the section model that belong to the training.
_OF_MODEL = (
    *("model.bn_momentum", "model.bn_epsilon", "model.bn_type", "model.bn_mode"),
    *("model.survival_prob", "model.dropout_rate"),
)


@dataclasses.dataclass(frozen=True)
class _Need:
    """When a key has an effect: if the value of another key fits."""

    key: str
    fits: Callable[[Any], bool]


def _with_row(key: str, table: Mapping[str, Any], argument: str) -> _Need:
    """Returns the need of a choice of ``key`` whose row has an argument."""
    rows = [
        name
        for name, row in table.items()
        if argument
        in (row.arguments.values() if isinstance(row.arguments, Mapping) else row.arguments)
    ]
    return _Need(key, lambda value: value in rows)


_NEEDS: Mapping[str, _Need] = {
    "train.momentum": _with_row("train.optimizer", OPTIMIZERS, "train.momentum"),
    "train.rmsprop_decay": _with_row("train.optimizer", OPTIMIZERS, "train.rmsprop_decay"),
    "data.ram": _with_row("data.augname", AUGMENTATIONS, "magnitude"),
    "data.randaug_layers": _with_row("data.augname", AUGMENTATIONS, "num_layers"),
    "data.augment_ops": _with_row("data.augname", AUGMENTATIONS, "ops"),
    "train.gclip_per_variable": _Need("train.gclip", lambda value: value > 0),
    **dict.fromkeys(
        ("train.lr_decay_factor", "train.lr_decay_epoch"),
        _Need("train.lr_sched", lambda value: value == "exponential"),
    ),
    **dict.fromkeys(
        ("train.lr_min", "train.lr_decay_in_warmup"),
        _Need("train.lr_sched", lambda value: value != "constant"),
    ),
}


# ---------------------------------------------------------------------- reading


def read_space(items: Iterable[str]) -> dict[str, Values]:
    """Reads ``search.space``.

    >>> read_space(["train.lr_base:0.001..0.1:log", "data.flip:true|false"])
    {'train.lr_base': Range(low=0.001, high=0.1, is_log=True), 'data.flip': (True, False)}

    Returns:
      Key -> the values to choose from.

    Raises:
      ConfigError: if an item is not of this form, or its key cannot be chosen or not have such
        values.
    """
    space: dict[str, Values] = {}
    problems = []
    for item in items:
        key, _, text = (part.strip() for part in item.partition(":"))
        try:
            values = _read_item(item, key, text)
            if key in space:
                raise ConfigError([f"{key} is there twice"])
            space[key] = values
        except ConfigError as error:
            problems += [f"search.space: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return space


def _read_item(item: str, key: str, text: str) -> Values:
    if not text:
        raise ConfigError([f"an item is {_FORM}, got {shown(item)}; write the list in [ ]"])
    if key not in KEYS:
        raise ConfigError([f"unknown key {shown(key)}{key_hint(key)}"])
    _require_choosable(key)
    if ".." in text:
        return _read_range(key, text)
    values = tuple(_checked_item(key, part.strip()) for part in text.split("|"))
    if len(values) < 2:
        raise ConfigError([f"{key} has one value, {shown(text)}; give it as {key}={text} instead"])
    if len(set(values)) < len(values):
        raise ConfigError([f"{key} must not repeat a value, got {shown(text)}"])
    return values


def _checked_item(key: str, text: str) -> Any:
    """Returns a value of a key; of a list that may be given as one number, that number."""
    value = checked(key, text)
    if not KEYS[key].takes_one:
        return value
    if len(value) != 1:
        raise ConfigError([f"{key} is chosen as one number, got {shown(text)}"])
    return value[0]


def _require_choosable(key: str) -> None:
    reason = _REFUSED.get(key) or _REFUSED.get(f"{key.split('.')[0]}.")
    if reason is None and key.startswith("model.") and key not in _OF_MODEL:
        reason = _NETWORK
    is_free_text = KEYS[key].kind is str and not KEYS[key].choices
    is_list = KEYS[key].kind is list and not KEYS[key].takes_one
    if reason is None and (is_list or is_free_text):
        reason = "is neither a number, nor one of some names, nor true or false"
    if reason is not None:
        raise ConfigError([f"{key} {reason}"])


def _read_range(key: str, text: str) -> Range:
    if KEYS[key].kind not in (int, float) and not KEYS[key].takes_one:
        raise ConfigError([f"{key} is no number; give its values as {key}:value|value"])
    numbers, _, scale = (part.strip() for part in text.partition(":"))
    first, _, last = (part.strip() for part in numbers.partition(".."))
    low, high = _checked_item(key, first), _checked_item(key, last)
    if scale not in ("", "log"):
        raise ConfigError([f"{key}: after a range there is nothing or :log, got {shown(scale)}"])
    if low >= high:
        raise ConfigError([f"{key}: the range {numbers} is empty; give a smaller number first"])
    if scale and low <= 0:
        raise ConfigError([f"{key}: a range with :log begins above 0, got {shown(numbers)}"])
    return Range(low, high, is_log=bool(scale))


# ---------------------------------------------------------------------- checks


def space_problems(config: config_dict.ConfigDict | Config) -> list[str]:
    """Returns what is wrong with ``search.space`` and its sampler, one line each."""
    search = config.search
    if not search.space:
        return []
    try:
        space = read_space(search.space)
    except ConfigError as error:
        return list(error.problems)
    problems = [_effect_problem(key, space, config) for key in space]
    if search.sampler == "rl":
        problems.append("search.sampler=rl chooses networks; with search.space give tpe or random")
    return [problem for problem in problems if problem]


def _effect_problem(
    key: str, space: Mapping[str, Values], config: config_dict.ConfigDict | Config
) -> str:
    need = _NEEDS.get(key)
    if need is None:
        return ""
    values = ends(space.get(need.key, (value_of(config, need.key),)))
    if any(map(need.fits, values)):
        return ""
    return f"search.space: {key} has no effect with {need.key}={', '.join(map(str, values))}"


def ends(values: Values) -> Sequence[Any]:
    """Returns the smallest and the largest number of a range, or all values."""
    return (values.low, values.high) if isinstance(values, Range) else values
