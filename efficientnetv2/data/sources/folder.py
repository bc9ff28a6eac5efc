"""Reads a folder of image files as a data set."""

from __future__ import annotations

import itertools
import os
import pathlib

import tensorflow as tf

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.folder_splits import SPLITS, FolderSplits, open_folder_splits
from efficientnetv2.data.sources.image_suffixes import PILLOW_SUFFIXES, TENSORFLOW_FORMATS
from efficientnetv2.data.sources.source import Source, data_folder, permutation
from hparams.config import Config
from hparams.errors import DataError


def open_source(config: Config, split_file: pathlib.Path | None) -> FolderSource:
    """Opens the folder ``data.data_dir``; ``split_file`` keeps its split.

    Raises:
      DataError: as ``open_folder_splits``, or if a ``tf.data`` service would have to read images
        that only this process can read, with Pillow.
    """
    may_be_missing = config.data.on_bad_image == "skip"
    splits = open_folder_splits(data_folder(config), split_file, may_be_missing=may_be_missing)
    if config.data.service is not None:
        for image in itertools.chain(*splits.images.values()):
            if image.path.lower().endswith(tuple(PILLOW_SUFFIXES)):
                raise DataError(
                    f"data.service cannot read '{printable(image.path)}': its workers read "
                    f"{', '.join(TENSORFLOW_FORMATS)} only; convert such images, or do without it"
                )
    return FolderSource(splits)


class FolderSource(Source):
    """A data set of image files in a folder.

    A reference is an int64 index, so a split is shuffled as a whole without reading any file.

    Args:
      splits: the folder's images by split.
    """

    def __init__(self, splits: FolderSplits) -> None:
        self.class_names = list(splits.class_names)
        self.notices = splits.notices
        self._data_dir = splits.data_dir
        # A worker of a tf.data service may have another working directory.
        root = splits.data_dir.absolute()
        images = [image for split in SPLITS for image in splits.images[split]]
        self._paths = tf.constant([os.fsencode(f"{root}/{image.path}") for image in images])
        self._labels = tf.constant([image.label for image in images], tf.int64)
        self._indices: dict[str, range] = {}
        start = 0
        for split in SPLITS:
            self._indices[split] = range(start, start + len(splits.images[split]))
            start += len(splits.images[split])

    @property
    def default_splits(self) -> tuple[str, str, str]:
        """Train, minival and test."""
        return "train", "minival", "test"

    def num_images(self, split: str) -> int:
        """Returns the number of images in train, minival or test."""
        return len(self._range(split))

    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        del buffer, skip_broken  # nothing is read here
        indices = self._range(split)
        if seed is None:
            return tf.data.Dataset.range(indices.start, indices.stop)
        return tf.data.Dataset.from_tensor_slices(permutation(count, seed) + indices.start)

    def name(self, reference: tf.Tensor) -> tf.Tensor:
        """Returns the file's absolute path."""
        return tf.gather(self._paths, reference)

    def load(self, reference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads the file; see ``Source``."""
        name = self.name(reference)
        return name, tf.io.read_file(name), tf.gather(self._labels, reference)

    def _range(self, split: str) -> range:
        if split not in self._indices:
            raise DataError(
                f"'{self._data_dir}' has no split '{split}'; it has {', '.join(SPLITS)}"
            )
        if not self._indices[split]:
            raise DataError(
                f"'{self._data_dir}' has too few images: its split '{split}' would be empty"
            )
        return self._indices[split]
