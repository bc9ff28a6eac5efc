"""Data set names in; encoded images (``string`` scalars) with int64 labels and class names out."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnetv2.data import digits
from hparams.errors import UserError

# Builders that make their files from an installed package, so that they need no network.
_LOCAL_BUILDERS = {"digits": digits.Digits}


class DataError(UserError):
    """A data set that cannot be read; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One prepared data set.

    Attributes:
      builder: the TensorFlow Datasets builder; its features have an ``image`` and a ``label``.
    """

    builder: tfds.core.DatasetBuilder

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self.builder.info.features["label"].names)

    def num_images(self, split: str) -> int:
        """Returns the number of images in a split such as ``train[:90%]``."""
        return int(self.builder.info.splits[split].num_examples)

    def examples(self, split: str) -> tf.data.Dataset:
        """Returns (encoded image, label) pairs, each image once, always in the same order."""
        dataset = self.builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
        )
        return dataset.map(lambda example: (example["image"], tf.cast(example["label"], tf.int64)))


def open_source(tfds_name: str, *, data_dir: str | None = None) -> Source:
    """Opens a data set, preparing it first where that needs no network.

    Args:
      tfds_name: name in TensorFlow Datasets.
      data_dir: folder of prepared data; None: ``~/tensorflow_datasets``.

    Raises:
      DataError: if the data set is unknown to TensorFlow Datasets, not prepared in ``data_dir``, or
        the folder cannot be written.
    """
    if tfds_name in _LOCAL_BUILDERS:
        return Source(_prepare(tfds_name, data_dir=data_dir))
    where = data_dir or _default_data_dir()
    try:
        builder = tfds.builder(tfds_name, data_dir=where)
    except tfds.core.DatasetNotFoundError:
        raise DataError(f"TensorFlow Datasets knows no data set '{tfds_name}'") from None
    if not builder.is_prepared():
        raise DataError(
            f"data set '{tfds_name}' is not prepared in '{where}'; prepare it there with "
            f"'tfds build {tfds_name} --data_dir={where}', or name its folder by --data_dir"
        )
    return Source(builder)


def _default_data_dir() -> str:
    return str(pathlib.Path("~/tensorflow_datasets").expanduser())


def _prepare(name: str, *, data_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        builder = _LOCAL_BUILDERS[name](data_dir=data_dir)
        if not builder.is_prepared():
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
    except OSError as error:
        where = data_dir or _default_data_dir()
        raise DataError(
            f"cannot prepare '{name}' in '{where}': {error.strerror or error}"
        ) from None
    return builder
