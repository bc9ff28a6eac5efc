"""Reads ImageNet's TFRecord files as a data set."""

from __future__ import annotations

import concurrent.futures
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.sources.source import (
    MIB,
    Source,
    data_folder,
    first_broken_record,
    permutation,
    shuffle,
)
from efficientnetv2.data.sources.tfrecord_files import ShardFiles, find_shards, record_offsets
from hparams.config import Config
from hparams.errors import DataError
from hparams.label_kinds import ONE, SEVERAL

Record = dict[str, tf.Tensor]  # file (its name), index (in it), record (serialised)
Reader = Callable[[tf.Tensor], tf.data.Dataset]  # a file's number -> its records

_FILES_AT_ONCE = 16  # interleaved when shuffling
_COUNTING_THREADS = 16  # counting mostly waits for the disk

# ImageNet as tensorflow/tpu's imagenet_to_gcs writes it; labels count from 1.
_IMAGENET = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}
# ImageNet-21k as the official code reads it; labels count from 0.
_MULTI_LABEL = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "labels": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
}


def open_source(config: Config, split_file: pathlib.Path | None) -> RecordSource:
    """Opens the TFRecord files of ``data.data_dir``; their names tell the splits.

    Raises:
      DataError: if ``model.num_classes`` is not set, or as ``find_shards``.
    """
    del split_file
    if config.model.num_classes is None:
        raise DataError("TFRecord files do not store the number of classes; set model.num_classes")
    return RecordSource(
        find_shards(data_folder(config)),
        num_classes=config.model.num_classes,
        multi_label=config.data.multi_label,
        cache_bytes=config.data.cache_mib * MIB,
    )


class RecordSource(Source):
    """A data set of TFRecord files. A reference is a whole record, not yet parsed.

    With a seed, the files are permuted, 16 at a time are interleaved, and the records pass through
    a shuffle buffer; a split that is kept in memory is shuffled as a whole. With ``skip_broken``, a
    broken record becomes an empty one, on which ``load`` fails.

    Args:
      shards: files by split.
      num_classes: not stored in the files; the classes are named by their numbers.
      multi_label: images have any number of labels, as in ImageNet-21k.
      cache_bytes: splits up to this size are kept in memory.
    """

    def __init__(
        self,
        shards: ShardFiles,
        *,
        num_classes: int,
        multi_label: bool = False,
        cache_bytes: int = 0,
    ) -> None:
        self.class_names = [str(label) for label in range(num_classes)]
        self._shards = shards
        self.label_kind = SEVERAL if multi_label else ONE
        self._cache_bytes = cache_bytes
        # By (split, skip_broken). Kept, because what a data set caches is freed with it.
        self._readers: dict[tuple[str, bool], Reader] = {}
        self._cached: dict[tuple[str, bool], tf.data.Dataset] = {}

    @property
    def default_splits(self) -> tuple[str, str, str]:
        """Train, minival and validation."""
        return "train", "minival", "validation"

    def num_images(self, split: str) -> int:
        """Returns the number of records, counted in the files at the first call."""
        with concurrent.futures.ThreadPoolExecutor(_COUNTING_THREADS) as pool:
            count = sum(pool.map(_count_records, self._files(split)))
        if not count:
            raise DataError(f"'{self._files(split)[0]}' and the other files of {split} are empty")
        return count

    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        if self._fits(split):
            records = self._cached_records(split, skip_broken)
            return records if seed is None else shuffle(records, seed, buffer=count)
        reader = self._reader(split, skip_broken)
        files = len(self._files(split))
        if seed is None:
            return tf.data.Dataset.range(files).flat_map(reader)
        order = tf.data.Dataset.from_tensor_slices(permutation(files, seed))
        records = order.interleave(
            reader,
            cycle_length=_FILES_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return shuffle(records, seed, buffer=buffer)

    def name(self, reference: Record) -> tf.Tensor:
        """Returns ``train-00003-of-01024, record 17``; records count from 0."""
        index = tf.strings.as_string(reference["index"])
        return tf.strings.join([reference["file"], ", record ", index])

    def load(self, reference: Record) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Parses the record; see ``Source``. An ImageNet label out of range stays out of range."""
        if self.label_kind == SEVERAL:
            parsed = tf.io.parse_single_example(reference["record"], _MULTI_LABEL)
            return self.name(reference), parsed["image"], parsed["labels"]
        parsed = tf.io.parse_single_example(reference["record"], _IMAGENET)
        return self.name(reference), parsed["image/encoded"], parsed["image/class/label"] - 1

    def broken_file(self, split: str) -> str | None:
        """Names the first record whose checksum is wrong; see ``Source``."""
        return first_broken_record(self._files(split))

    def _files(self, split: str) -> Sequence[pathlib.Path]:
        if split not in self._shards:
            raise DataError(
                f"the TFRecord files have no split '{split}'; they have {', '.join(self._shards)}"
            )
        return self._shards[split]

    def _fits(self, split: str) -> bool:
        return sum(path.stat().st_size for path in self._files(split)) <= self._cache_bytes

    def _cached_records(self, split: str, skip_broken: bool) -> tf.data.Dataset:
        key = (split, skip_broken)
        if key not in self._cached:
            with tf.init_scope():  # outlives the graph that is being built
                files = tf.data.Dataset.range(len(self._files(split)))
                self._cached[key] = files.flat_map(self._reader(split, skip_broken)).cache()
        return self._cached[key]

    def _reader(self, split: str, skip_broken: bool) -> Reader:
        """Returns a function that maps a file's number to its records."""
        key = (split, skip_broken)
        if key not in self._readers:
            with tf.init_scope():
                self._readers[key] = _reader(self._files(split), skip_broken=skip_broken)
        return self._readers[key]


@functools.cache
def _count_records(path: pathlib.Path) -> int:
    return len(record_offsets(path))


def _reader(files: Sequence[pathlib.Path], *, skip_broken: bool) -> Reader:
    paths = tf.constant([str(path.absolute()) for path in files])
    names = tf.constant([path.name for path in files])
    offsets = _all_offsets(files) if skip_broken else None

    def records(number: tf.Tensor) -> tf.data.Dataset:
        if offsets is None:
            serialised = tf.data.TFRecordDataset(paths[number])
        else:
            serialised = _read_each(paths[number], offsets[number])
        return serialised.enumerate().map(
            lambda index, record: {"file": names[number], "index": index, "record": record}
        )

    return records


def _all_offsets(files: Sequence[pathlib.Path]) -> tf.RaggedTensor:
    offsets = [record_offsets(path) for path in files]
    return tf.RaggedTensor.from_row_lengths(np.concatenate(offsets), [len(o) for o in offsets])


def _read_each(path: tf.Tensor, offsets: tf.Tensor) -> tf.data.Dataset:
    """Reads the records of a file; a broken one becomes an empty string.

    TensorFlow's reader gives up a file at its first broken record. This one opens the file anew for
    each record, at its offset: slower, but a broken record costs one image.
    """

    def read_one(offset: tf.Tensor) -> tf.data.Dataset:
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=path, compression_type="", buffer_size=0, byte_offsets=offset
        )
        record = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
        broken = tf.data.Dataset.from_tensors("")
        return record.take(1).ignore_errors().concatenate(broken).take(1)

    return tf.data.Dataset.from_tensor_slices(offsets).flat_map(read_one)
