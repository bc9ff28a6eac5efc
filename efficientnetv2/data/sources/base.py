"""What every kind of data set gives: references to its images in an order, and what they refer to.

An order is drawn over references, which are cheap where the kind allows it; files are read, and
records parsed, only in ``load``, which runs in parallel.
"""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

Reference = Any  # a tensor or a dict of tensors, of one type within a source

_SEED = 2104_00298  # fills the half of a seed that the caller does not give


class Source(abc.ABC):
    """One data set.

    All but ``broken_file`` may be called while a graph is built, and gives graph operations that
    can be sent to another process.

    Attributes:
      class_names: in the order of the labels.
    """

    class_names: list[str]

    @property
    @abc.abstractmethod
    def default_splits(self) -> tuple[str, str, str]:
        """Train, minival and eval, where the configuration names none.

        Raises:
          DataError: if there is no sensible choice.
        """

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @abc.abstractmethod
    def num_images(self, split: str) -> int:
        """Returns the number of images in a split, which is at least 1.

        Raises:
          DataError: if there is no such split, or no image in it.
        """

    @tf.autograph.experimental.do_not_convert  # a caller's graph would convert all of this, too
    def references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, skip_broken: bool = False
    ) -> tf.data.Dataset:
        """Returns a reference to every image of a split, each exactly once.

        Args:
          split: one of the source's.
          seed: int64 scalar, which may be symbolic: the order is a function of it alone. None: the
            order is fixed.
          buffer: encoded images held to shuffle, where the files are read in order.
          skip_broken: leave out, or refer to, what cannot be read from a file of many images,
            instead of failing there; ``load`` fails on such a reference.

        Raises:
          DataError: as ``num_images``. (In a function that AutoGraph converts, it comes out as an
            error of TensorFlow's: call ``num_images`` first.)
        """
        return self._references(
            split, seed=seed, buffer=buffer, count=self.num_images(split), skip_broken=skip_broken
        )

    @abc.abstractmethod
    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        """As ``references``, for a split of ``count`` images."""

    @abc.abstractmethod
    def name(self, reference: Reference) -> tf.Tensor:
        """Returns a string scalar that tells a person which image a reference is."""

    @abc.abstractmethod
    def load(self, reference: Reference) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads what a reference refers to.

        Returns:
          Its name and the encoded image: string scalars; its label: int64 scalar, or ``[n]`` if
          images have any number of labels. The label is not checked.
        """

    def broken_file(self, split: str) -> str | None:
        """Reads the files of a split and says which has a broken record; None: they are whole.

        It reads everything: for finding out why reading failed.
        """
        del split
        return None


def permutation(size: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns 0 .. size - 1 in an order drawn from an int64 scalar seed alone: int64 ``[size]``."""
    both = tf.stack([tf.cast(seed, tf.int64), tf.constant(_SEED, tf.int64)])
    # "philox": the same on every kind of device.
    return tf.random.experimental.stateless_shuffle(
        tf.range(size, dtype=tf.int64), both, alg="philox"
    )


def shuffle(dataset: tf.data.Dataset, seed: tf.Tensor, *, buffer: int) -> tf.data.Dataset:
    """Shuffles through a buffer; the order is a function of an int64 scalar seed alone."""

    def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
        # This function is traced into a graph of its own, whose seed is set here: it would be the
        # program's global seed, and have a say in the order.
        tf.compat.v1.set_random_seed(_SEED)
        return dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(tf.cast(seed, tf.int64)).flat_map(shuffled)


def first_broken_record(paths: Iterable[str | pathlib.Path]) -> str | None:
    """Names the first record, in TFRecord files, whose checksum is wrong; None: there is none."""
    for path in paths:
        index = 0
        try:
            for _ in tf.data.TFRecordDataset(str(path)):
                index += 1
        except tf.errors.DataLossError:
            return f"record {index} of '{path}' is broken"
    return None
