"""Defines the kinds of labels that an image may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hparams.choices import LOSSES
from hparams.config import Config
from hparams.errors import DataError

ONE = "one"
SEVERAL = "several"
NUMBERS = "numbers"
UNKNOWN = "unknown"  # the answer for an image of none of the classes
KNOWN_SHARE = 0.95  # of the images of the classes, that are not to be named so
DEFAULT_THRESHOLD = 0.5  # from which probability on an image has a class, until one is chosen


@dataclasses.dataclass(frozen=True)
class LabelKind:
    """One kind of labels.

    Attributes:
      text: what an image has, in words.
      settings: config key -> the value that the kind demands, or that suits it.
      metric: by which the best weights are chosen, a row of ``METRICS``.
      training_metric: what training reports besides the loss, a row of ``TRAINING_METRICS``.
    """

    text: str
    settings: Mapping[str, object]
    metric: str
    training_metric: str


LABEL_KINDS: Mapping[str, LabelKind] = {
    ONE: LabelKind(
        "one class",
        {"data.multi_label": False, "train.loss_type": "softmax"},
        metric="top1",
        training_metric="accuracy",
    ),
    SEVERAL: LabelKind(
        "any number of classes",
        {"data.multi_label": True, "train.loss_type": "sigmoid"},
        metric="pr_auc",
        training_metric="accuracy",
    ),
    NUMBERS: LabelKind(
        "numbers",
        {"data.multi_label": False, "train.loss_type": "mse", "train.label_smoothing": 0.0},
        metric="r2",
        training_metric="mae",
    ),
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of an evaluation by which the best weights can be chosen; higher is better.

    Attributes:
      title: its name in tables and plots.
      kinds: of labels that it is computed for.
    """

    title: str
    kinds: tuple[str, ...]


METRICS: Mapping[str, Metric] = {
    "top1": Metric("top-1", (ONE, SEVERAL)),
    "balanced_accuracy": Metric("balanced", (ONE,)),
    "macro_f1": Metric("macro F1", (ONE,)),
    "pr_auc": Metric("PR AUC", (SEVERAL,)),
    "r2": Metric("R2", (NUMBERS,)),
}
TRAINING_METRICS: Mapping[str, str] = {"accuracy": "accuracy", "mae": "mean error"}  # -> title


def best_metric(config: Config) -> str:
    """Returns the metric by which the best weights are chosen, a row of ``METRICS``."""
    return config.train.best_metric or LABEL_KINDS[label_kind(config)].metric


def label_kind(config: Config) -> str:
    """Returns the kind of the labels that a network with this config is for."""
    if LOSSES[config.train.loss_type].is_regression:
        return NUMBERS
    return SEVERAL if config.data.multi_label else ONE


def require_kind(config: Config, kind: str) -> None:
    """Checks that the labels of a data set are what a config is for.

    Args:
      config: the sections train and data.
      kind: of the labels of the data, a row of ``LABEL_KINDS``.

    Raises:
      DataError: if they are not.
    """
    wanted = label_kind(config)
    if kind != wanted:
        settings = (
            f"data.multi_label={config.data.multi_label}, train.loss_type={config.train.loss_type}"
        )
        raise DataError(
            f"the images of {config.data.data_dir or config.data.ds_name} have "
            f"{LABEL_KINDS[kind].text} each, but {settings} is for {LABEL_KINDS[wanted].text}"
        )
