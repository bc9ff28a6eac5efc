"""Opens the data set of a config, with the module of this folder that ``data.source`` names."""

from __future__ import annotations

import importlib
import pathlib

from efficientnetv2.data.sources.source import Source
from hparams.channels import require_files
from hparams.config import Config
from hparams.label_kinds import require_kind


def build_source(config: Config, *, split_file: pathlib.Path | None = None) -> Source:
    """Opens the data set that a config names.

    Args:
      config: the sections data and model; ``model.num_classes`` may be unset, except for TFRecord
        files.
      split_file: the file that keeps the split of a user's own images; read if it exists, otherwise
        written. None: neither.

    Raises:
      DataError: if the data set cannot be opened, or its labels are of another kind than the loss
        and ``data.multi_label`` are for.
    """
    require_files(config)
    module = importlib.import_module(f"efficientnetv2.data.sources.{config.data.source}")
    source: Source = module.open_source(config, split_file)
    require_kind(config, source.label_kind)
    return source
