"""Turns model and data set names plus overrides into one validated, immutable config.

Nothing in this package imports TensorFlow, so that a wrong flag or key is reported at once.
"""

from hparams.errors import UserError
from hparams.overrides import ConfigError
from hparams.resolve import load_config, resolve, save_config

__all__ = ["ConfigError", "UserError", "load_config", "resolve", "save_config"]
