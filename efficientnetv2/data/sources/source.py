"""Defines the interface of every kind of data set: ordered references to images, and their loading.

Shuffling works on references, which are cheap if the kind of data set allows it. Files are read and
records parsed only in ``load``, which runs in parallel.
"""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from hparams.config import Config
from hparams.label_kinds import ONE

Reference = Any  # a tensor or a dict of tensors, of one type within a source

MIB = 1 << 20
_SEED = 2104_00298  # fills the half of a seed that the caller does not give


class Source(abc.ABC):
    """A data set of labelled images.

    All methods but ``broken_file`` may be called while a graph is built; the operations that they
    create can be sent to another process.

    Attributes:
      class_names: in the order of the labels.
      label_kind: what labels the images have, a row of ``hparams.label_kinds.LABEL_KINDS``.
      has_weights: whether images have weights in the loss; see ``weight``.
      notices: what a person should know of the data before they are used, one line each.
    """

    class_names: list[str]
    label_kind: str = ONE
    has_weights: bool = False
    notices: Sequence[str] = ()

    @property
    @abc.abstractmethod
    def default_splits(self) -> tuple[str, str, str]:
        """The splits train, minival and eval that are used if the config names none.

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

    @tf.autograph.experimental.do_not_convert  # else converted with every caller's graph
    def references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, skip_broken: bool = False
    ) -> tf.data.Dataset:
        """Returns a reference to every image of a split, each exactly once.

        Args:
          split: name of the split.
          seed: int64 scalar, which may be symbolic: the order is a function of it alone. None: the
            order is fixed.
          buffer: encoded images in the shuffle buffer, if the files are read in order.
          skip_broken: whether to go on where a file of many images has a broken record: either its
            reference is left out, or ``load`` fails on it.

        Raises:
          DataError: as ``num_images``. (Inside a function that AutoGraph converts, it is raised as
            an error of TensorFlow's: call ``num_images`` first.)
        """
        return self._references(
            split, seed=seed, buffer=buffer, count=self.num_images(split), skip_broken=skip_broken
        )

    @abc.abstractmethod
    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        """Implements ``references`` for a split of ``count`` images."""

    @abc.abstractmethod
    def name(self, reference: Reference) -> tf.Tensor:
        """Returns the name of an image for messages and logs, a string scalar."""

    @abc.abstractmethod
    def load(self, reference: Reference) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads the image and the label of a reference.

        Returns:
          The name and the encoded image, string scalars; the label, an int64 scalar, ``[n]`` if
          images have any number of labels, or float32 ``[T]`` if they have numbers. The label is
          not checked.
        """

    def weight(self, reference: Reference) -> tf.Tensor:
        """Returns the weight of an image in the loss, a float32 scalar, if ``has_weights``."""
        raise NotImplementedError

    def class_counts(self) -> list[int]:
        """Returns the number of training images of each class, if an image has one.

        Empty, if only reading all of the data would tell.
        """
        return []

    def target_statistics(self) -> tuple[list[float], list[float]]:
        """Returns mean and standard deviation of each number over the training images.

        Raises:
          DataError: if all training images have the same number.
        """
        raise NotImplementedError

    def broken_file(self, split: str) -> str | None:
        """Returns a message that names the first broken record of a split; None: there is none.

        It reads all files of the split, to find out why reading failed.
        """
        del split
        return None


def data_folder(config: Config) -> pathlib.Path:
    """Returns the folder of the data's files; ``~`` is the user's home."""
    return pathlib.Path(config.data.data_dir or "").expanduser()


def permutation(size: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns int64 ``[size]``: 0 .. size - 1 in an order that depends on the seed alone.

    Args:
      size: number of elements.
      seed: int64 scalar.
    """
    full_seed = tf.stack([tf.cast(seed, tf.int64), tf.constant(_SEED, tf.int64)])
    # "philox": the same on every kind of device.
    return tf.random.experimental.stateless_shuffle(
        tf.range(size, dtype=tf.int64), full_seed, alg="philox"
    )


def shuffle(dataset: tf.data.Dataset, seed: tf.Tensor, *, buffer: int) -> tf.data.Dataset:
    """Shuffles through a buffer; the order depends on the seed (int64 scalar) alone."""

    def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
        # This function is traced into a graph of its own. Without a seed of that graph, the
        # program's global seed would change the order, too.
        tf.compat.v1.set_random_seed(_SEED)
        return dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(tf.cast(seed, tf.int64)).flat_map(shuffled)


def first_broken_record(paths: Iterable[str | pathlib.Path]) -> str | None:
    """Returns a message on the first TFRecord with a wrong checksum; None: there is none."""
    for path in paths:
        index = 0
        try:
            for _ in tf.data.TFRecordDataset(str(path)):
                index += 1
        except tf.errors.DataLossError:
            return f"record {index} of '{path}' is broken"
    return None
