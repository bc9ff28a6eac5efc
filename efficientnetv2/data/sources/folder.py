"""A listing of image files in; references (their indices), encoded images and labels out."""

from __future__ import annotations

import os

import tensorflow as tf

from efficientnetv2.data.sources.base import Source, permutation
from efficientnetv2.data.sources.errors import DataError
from efficientnetv2.data.sources.listing import SPLITS, Listing


class FolderSource(Source):
    """A folder of image files. A reference is an int64 index; shuffling is perfect, and reads none.

    Args:
      listing: its files.
    """

    def __init__(self, listing: Listing) -> None:
        self.class_names = list(listing.class_names)
        self._data_dir = listing.data_dir
        # A worker of a tf.data service may run in another folder.
        root = listing.data_dir.absolute()
        images = [image for split in SPLITS for image in listing.images[split]]
        self._paths = tf.constant([os.fsencode(f"{root}/{image.path}") for image in images])
        self._labels = tf.constant([image.label for image in images], tf.int64)
        self._indices: dict[str, range] = {}
        start = 0
        for split in SPLITS:
            self._indices[split] = range(start, start + len(listing.images[split]))
            start += len(listing.images[split])

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
