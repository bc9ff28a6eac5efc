"""Opens the data set of a config, with the module of this folder that ``data.source`` names."""

from __future__ import annotations

import importlib
import pathlib

from efficientnetv2.data.sources.source import Source
from hparams.config import Config
from hparams.errors import DataError


def build_source(config: Config, *, split_file: pathlib.Path | None = None) -> Source:
    """Opens the data set that a config names.

    Args:
      config: the sections data and model; ``model.num_classes`` may be unset, except for TFRecord
        files.
      split_file: the file that keeps the split of a folder of images; read if it exists, otherwise
        written. None: neither.

    Raises:
      DataError: if the data set cannot be opened.
    """
    if config.data.multi_label and config.data.source != "tfrecord":
        raise DataError(
            f"data.multi_label is for TFRecord files only, but data.source is {config.data.source}"
        )
    module = importlib.import_module(f"efficientnetv2.data.sources.{config.data.source}")
    source: Source = module.open_source(config, split_file)
    return source
