"""A configuration in; the source of its images out."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from efficientnetv2.data.sources.base import Source
from efficientnetv2.data.sources.builders import open_builder
from efficientnetv2.data.sources.errors import DataError
from efficientnetv2.data.sources.folder import FolderSource
from efficientnetv2.data.sources.listing import open_listing
from efficientnetv2.data.sources.records import RecordSource
from efficientnetv2.data.sources.shards import find_shards
from efficientnetv2.data.sources.tfds import TfdsSource
from hparams.resolve import Config

_MIB = 1 << 20


def build_source(config: Config, *, listing_file: pathlib.Path | None = None) -> Source:
    """Opens the data set that a configuration names.

    Args:
      config: the sections data and model; ``model.num_classes`` may be not set, except for TFRecord
        files.
      listing_file: where the split of a folder of images is kept, and read from if it is there.

    Raises:
      DataError: if it cannot be read.
    """
    if config.data.multi_label and config.data.source != "tfrecord":
        raise DataError(
            f"data.multi_label is for TFRecord files, and data.source is {config.data.source}"
        )
    return _OPENERS[config.data.source](config, listing_file)


def _open_tfds(config: Config, listing_file: pathlib.Path | None) -> Source:
    del listing_file  # its splits do not change
    builder = open_builder(config.data.tfds_name, data_dir=config.data.data_dir)
    return TfdsSource(builder, cache_bytes=config.data.cache_mib * _MIB)


def _open_folder(config: Config, listing_file: pathlib.Path | None) -> Source:
    return FolderSource(open_listing(_folder(config), listing_file))


def _open_tfrecord(config: Config, listing_file: pathlib.Path | None) -> Source:
    del listing_file  # its splits do not change
    if config.model.num_classes is None:
        raise DataError("TFRecord files do not tell their classes: set model.num_classes")
    return RecordSource(
        find_shards(_folder(config)),
        num_classes=config.model.num_classes,
        multi_label=config.data.multi_label,
        cache_bytes=config.data.cache_mib * _MIB,
    )


def _folder(config: Config) -> pathlib.Path:
    return pathlib.Path(config.data.data_dir).expanduser()


_OPENERS: dict[str, Callable[[Config, pathlib.Path | None], Source]] = {
    "tfds": _open_tfds,
    "folder": _open_folder,
    "tfrecord": _open_tfrecord,
}
