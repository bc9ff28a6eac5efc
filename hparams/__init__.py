"""What to run: model and data set names in, one locked and checked configuration out.

Nothing in this package imports TensorFlow, so that a wrong flag or config key is answered at once.
"""

import hparams.ablations  # noqa: F401 - adds its rows to the table of networks
from hparams.errors import UserError
from hparams.overrides import ConfigError
from hparams.resolve import load_config, resolve, save_config

__all__ = ["ConfigError", "UserError", "load_config", "resolve", "save_config"]
