"""Reads a user's own images as a data set: a folder of classes, or a table of labels."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnetv2.data.class_balance import draw, draw_probabilities
from efficientnetv2.data.quality.same_files import leak_notice
from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import HELD_OUT, ImageFile, ImageSplits
from efficientnetv2.data.sources.image_suffixes import PILLOW_SUFFIXES, TENSORFLOW_FORMATS
from efficientnetv2.data.sources.own_images import open_images
from efficientnetv2.data.sources.source import Source, permutation
from hparams.choices import NATURAL_SAMPLING
from hparams.config import Config
from hparams.errors import DataError
from hparams.label_kinds import NUMBERS, ONE


def open_source(config: Config, split_file: pathlib.Path | None) -> FolderSource:
    """Opens the folder or table ``data.data_dir``; ``split_file`` keeps its split.

    Raises:
      DataError: as ``open_images``, or if a ``tf.data`` service would have to read images that only
        this process can read, with Pillow.
    """
    is_new = split_file is not None and not split_file.exists()
    splits = open_images(config, split_file, writes=True)
    if is_new:
        splits = dataclasses.replace(
            splits, notices=[*splits.notices, *leak_notice(splits.root, splits.images)]
        )
    if config.data.service is not None:
        for image in itertools.chain(*splits.images.values()):
            if image.path.lower().endswith(tuple(PILLOW_SUFFIXES)):
                raise DataError(
                    f"data.service cannot read '{printable(image.path)}': its workers read "
                    f"{', '.join(TENSORFLOW_FORMATS)} only; convert such images, or do without it"
                )
    return FolderSource(splits, sampling=config.data.sampling)


class FolderSource(Source):
    """A data set of image files.

    A reference is an int64 index, so a split is shuffled as a whole without reading any file.

    Args:
      splits: the images by split.
      sampling: how often an epoch draws the training images of each class, a value of
        ``data.sampling``.
    """

    def __init__(self, splits: ImageSplits, *, sampling: str = NATURAL_SAMPLING) -> None:
        self.class_names = list(splits.class_names)
        self.label_kind = splits.kind
        self.notices = splits.notices
        self._root = splits.root
        # A worker of a tf.data service may have another working directory.
        root = splits.root.absolute()
        images = [image for split in splits.names for image in splits.images[split]]
        self._paths = tf.constant([os.fsencode(root / image.path) for image in images])
        self._labels: Any = _labels_tensor([image.label for image in images], splits)
        self._weights = _weights_tensor(splits, images)
        self.has_weights = self._weights is not None
        self._indices: dict[str, range] = {}
        start = 0
        for split in splits.names:
            self._indices[split] = range(start, start + len(splits.images[split]))
            start += len(splits.images[split])
        self._drawn: np.ndarray | None = None
        if sampling != NATURAL_SAMPLING:
            labels = np.array([image.label for image in splits.images["train"]])
            self._drawn = draw_probabilities(labels, sampling)

    @property
    def default_splits(self) -> tuple[str, str, str]:
        """Train, minival and test; of a fold, what it holds out takes the place of test."""
        return "train", "minival", HELD_OUT if HELD_OUT in self._indices else "test"

    def num_images(self, split: str) -> int:
        """Returns the number of images in train, minival, test or held_out."""
        return len(self._range(split))

    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        del buffer, skip_broken  # nothing is read here
        indices = self._range(split)
        if seed is None:
            return tf.data.Dataset.range(indices.start, indices.stop)
        if split == "train" and self._drawn is not None:
            return tf.data.Dataset.from_tensor_slices(draw(self._drawn, seed) + indices.start)
        return tf.data.Dataset.from_tensor_slices(permutation(count, seed) + indices.start)

    def name(self, reference: tf.Tensor) -> tf.Tensor:
        """Returns the file's absolute path."""
        return tf.gather(self._paths, reference)

    def load(self, reference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads the file; see ``Source``."""
        name = self.name(reference)
        return name, tf.io.read_file(name), tf.gather(self._labels, reference)

    def weight(self, reference: tf.Tensor) -> tf.Tensor:
        """Returns the image's weight; the mean over the training images is 1."""
        assert self._weights is not None
        return tf.gather(self._weights, reference)

    def class_counts(self) -> list[int]:
        """Returns the number of training images of each class, if an image has one."""
        if self.label_kind != ONE:
            return []
        indices = self._range("train")
        labels = self._labels[indices.start : indices.stop].numpy()
        return np.bincount(labels, minlength=self.num_classes).tolist()

    def target_statistics(self) -> tuple[list[float], list[float]]:
        """Returns mean and standard deviation of each number over the training images."""
        indices = self._range("train")
        targets = np.float64(self._labels[indices.start : indices.stop])
        mean, deviation = targets.mean(0), targets.std(0)
        for name, value, one in zip(self.class_names, deviation, targets[0]):
            if not value > 0:
                raise DataError(f"'{name}' is {one:g} in all training images: nothing to learn")
        return mean.tolist(), deviation.tolist()

    def _range(self, split: str) -> range:
        if split not in self._indices:
            raise DataError(
                f"'{self._root}' has no split '{split}'; it has {', '.join(self._indices)}"
            )
        if not self._indices[split]:
            raise DataError(
                f"'{self._root}' has too few images: its split '{split}' would be empty"
            )
        return self._indices[split]


def _labels_tensor(labels: Sequence[Any], splits: ImageSplits) -> tf.Tensor | tf.RaggedTensor:
    """Returns int64 ``[N]``; of several labels ragged ``[N, n]``; of numbers float32 ``[N, T]``."""
    if splits.kind == ONE:
        return tf.constant(labels, tf.int64)
    if splits.kind == NUMBERS:
        return tf.constant(labels, tf.float32, shape=(len(labels), len(splits.class_names)))
    flat = [number for numbers in labels for number in numbers]
    return tf.RaggedTensor.from_row_lengths(
        tf.constant(flat, tf.int64), [len(numbers) for numbers in labels]
    )


def _weights_tensor(splits: ImageSplits, images: Sequence[ImageFile]) -> tf.Tensor | None:
    """Returns float32 ``[N]``, with mean 1 over the training images; None: all weigh the same."""
    weights = np.array([image.weight for image in images])
    if len(np.unique(weights)) < 2:
        return None
    mean = np.mean([image.weight for image in splits.images["train"]])
    if mean <= 0:
        raise DataError("the weights of all training images are 0")
    return tf.constant(weights / mean, tf.float32)
