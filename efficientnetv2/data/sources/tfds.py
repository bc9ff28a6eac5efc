"""Reads a data set of TensorFlow Datasets."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnetv2.data.sources.source import MIB, Source, first_broken_record, shuffle
from efficientnetv2.data.sources.tfds_builders import one_line, open_builder
from hparams.config import Config
from hparams.errors import DataError

Example = dict[str, tf.Tensor]  # split, index (in it), image (encoded), label


class TfdsSource(Source):
    """A data set of TensorFlow Datasets. A reference is an example, its image still encoded.

    With a seed, examples are read in a fixed order and pass through a shuffle buffer; a split that
    is kept in memory is shuffled as a whole. ``skip_broken`` leaves out a broken record and the
    rest of its file.

    Args:
      builder: of the data set, prepared; its features include an image and a label.
      cache_bytes: splits up to this size are kept in memory.

    Raises:
      DataError: if it is not clear which features are the image and the label.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, *, cache_bytes: int = 0) -> None:
        features = builder.info.features
        self._image = _feature_of(builder, tfds.features.Image, "image")
        self._label = _feature_of(builder, tfds.features.ClassLabel, "label")
        self.class_names = list(features[self._label].names)
        self._builder = builder
        self._cache_bytes = cache_bytes
        # (split, skip_broken) -> examples. Kept, because what a data set caches is freed with it.
        self._examples: dict[tuple[str, bool], tf.data.Dataset] = {}

    @property
    def default_splits(self) -> tuple[str, str, str]:
        """Train, minival and eval; see ``choose_splits``."""
        # A data set mocked by tfds.testing knows no splits, and serves any.
        return choose_splits(self._builder.name, list(self._builder.info.splits) or ["train"])

    def num_images(self, split: str) -> int:
        """Returns the number of images in a split such as ``train[:90%]``."""
        if self._builder.info.splits:
            count = self._info(split).num_examples
        else:
            with tf.init_scope():  # a number, also while a graph is being built
                count = int(self._read(split).cardinality())
        if count <= 0:
            raise DataError(f"split '{split}' of '{self._builder.name}' holds no image")
        return count

    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        key = (split, skip_broken)
        is_cached = self._num_bytes(split) <= self._cache_bytes
        if key not in self._examples:
            with tf.init_scope():  # outlives the graph that is being built
                examples = self._read(split, skip_broken=skip_broken)
                self._examples[key] = examples.cache() if is_cached else examples
        if seed is None:
            return self._examples[key]
        return shuffle(self._examples[key], seed, buffer=count if is_cached else buffer)

    def name(self, reference: Example) -> tf.Tensor:
        """Returns ``cifar10 train[2500:], example 17``; examples count from 0."""
        index = tf.strings.as_string(reference["index"])
        return tf.strings.join([f"{self._builder.name} ", reference["split"], ", example ", index])

    def load(self, reference: Example) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns what the reference holds; see ``Source``."""
        return self.name(reference), reference["image"], reference["label"]

    def broken_file(self, split: str) -> str | None:
        """Names the first record whose checksum is wrong; see ``Source``."""
        if not self._builder.info.splits:
            return None
        return first_broken_record(
            sorted({f.filename for f in self._info(split).file_instructions})
        )

    def _info(self, split: str) -> tfds.core.SplitInfo:
        try:
            return self._builder.info.splits[split]
        except (ValueError, KeyError) as error:
            raise DataError(
                f"'{self._builder.name}' has no split '{split}': {one_line(error)}"
            ) from None

    def _num_bytes(self, split: str) -> float:
        """Returns the size of the examples in the files; infinite if it is not known."""
        if not self._builder.info.splits:
            return float("inf")
        return sum(
            pathlib.Path(f.filename).stat().st_size * f.take / max(f.examples_in_shard, 1)
            for f in self._info(split).file_instructions
        )

    def _read(self, split: str, *, skip_broken: bool = False) -> tf.data.Dataset:
        dataset = self._builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                {self._image: True, self._label: True},
                decoders={self._image: tfds.decode.SkipDecoding()},
            ),
            read_config=tfds.ReadConfig(try_autocache=False, assert_cardinality=not skip_broken),
        )
        if skip_broken:
            dataset = dataset.ignore_errors()
        return dataset.enumerate().map(
            lambda index, example: {
                "split": split,
                "index": index,
                "image": example[self._image],
                "label": tf.cast(example[self._label], tf.int64),
            }
        )


def open_source(config: Config, split_file: pathlib.Path | None) -> TfdsSource:
    """Opens the data set of ``data.tfds_name``; its splits do not change, so none are written."""
    del split_file
    builder = open_builder(config.data.tfds_name, data_dir=config.data.data_dir)
    return TfdsSource(builder, cache_bytes=config.data.cache_mib * MIB)


def choose_splits(name: str, splits: Sequence[str]) -> tuple[str, str, str]:
    """Chooses disjoint splits to train on, to select models by and to evaluate on.

    The eval split is ``test``, else ``validation``, else a tenth of ``train``. The minival split is
    ``validation`` if that is not the eval split, else a tenth of ``train``.

    Args:
      name: name of the data set, for the error message.
      splits: names of the splits that it has.

    Returns:
      The splits train, minival and eval, in the notation of TensorFlow Datasets.

    Raises:
      DataError: if there is no split ``train``.

    >>> choose_splits("cifar10", ["train", "test"])
    ('train[10%:]', 'train[:10%]', 'test')
    """
    if "train" not in splits:
        raise DataError(
            f"'{name}' has no split 'train' (it has {', '.join(sorted(splits))}); set "
            "data.train_split, data.minival_split and data.eval_split"
        )
    if "test" in splits and "validation" in splits:
        return "train", "validation", "test"
    for held_out in ("test", "validation"):
        if held_out in splits:
            return "train[10%:]", "train[:10%]", held_out
    return "train[20%:]", "train[:10%]", "train[10%:20%]"


def _feature_of(builder: tfds.core.DatasetBuilder, kind: type, name: str) -> str:
    """Returns the feature of a kind: the one called ``name``, else the only one."""
    features = builder.info.features
    candidates = [key for key in features if isinstance(features[key], kind)]
    if name in candidates:
        return name
    if len(candidates) != 1:
        listed = ", ".join(f"{key} ({type(features[key]).__name__})" for key in features)
        raise DataError(
            f"'{builder.name}' has {len(candidates) or 'no'} features of the type {kind.__name__}, "
            f"and none is called '{name}'; it has {listed}"
        )
    return candidates[0]
