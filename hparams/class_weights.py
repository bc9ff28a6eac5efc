"""Reads ``train.class_weights``, and says what needs the number of images of each class."""

from __future__ import annotations

from ml_collections import config_dict

from hparams.choices import NATURAL_SAMPLING
from hparams.config import Config

BALANCED = "balanced"
_NONE = "none"


def given_weights(config: Config | config_dict.ConfigDict) -> list[str]:
    """Returns the items of ``train.class_weights``: ``balanced``, or numbers; empty: no weights."""
    weights = list(config.train.class_weights)
    return [] if weights == [_NONE] else weights


def needs_counts(config: Config | config_dict.ConfigDict) -> bool:
    """Returns whether training depends on the number of training images of each class."""
    return (
        given_weights(config) == [BALANCED]
        or config.train.logit_adjustment > 0
        or config.data.sampling != NATURAL_SAMPLING
    )
