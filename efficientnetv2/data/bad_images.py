"""Handles images that cannot be read: names them in an error, or skips and logs them."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NoReturn

import tensorflow as tf

from efficientnetv2.data.sources import Source
from hparams.errors import DataError, tensorflow_message

Element = Any  # a nest of tensors

_plain = tf.autograph.experimental.do_not_convert


class SkippedLog:
    """The log file of skipped images: one name per line.

    The pipeline writes it from inside its graph, in whatever process that runs. An image that is
    skipped in every epoch is listed once for each.

    Args:
      path: of the file; it need not exist yet.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.absolute()  # another process may have another working directory

    def add(self, names: tf.Tensor) -> tf.Operation:
        """Appends names to the file, as a graph operation: a string scalar, one name per line."""
        return tf.print(names, output_stream=f"file://{self.path}")

    def names(self) -> list[str]:
        """Returns the names so far, each once, in the order in which they were skipped."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return list(dict.fromkeys(lines[:-1]))


def prepare_readable(
    examples: tf.data.Dataset,
    prepare: Callable[..., Element],
    *,
    batch_size: int,
    drop_remainder: bool,
    name: Callable[..., tf.Tensor],
    log: SkippedLog,
) -> tf.data.Dataset:
    """Prepares examples in batches, leaving out those that fail and logging their names.

    Args:
      examples: tuples whose last part is the image's reference.
      prepare: takes the parts of an example and returns a tuple of tensors; fails if the image
        cannot be read.
      batch_size: examples per batch, before those that fail are left out.
      drop_remainder: whether to drop a last batch of fewer examples.
      name: takes a reference and returns the image's name.
      log: gets the names of the images left out.

    Yields:
      ``(positions, *tensors)``: int64 ``[b]``, the ascending positions in the batch of the examples
      that could be prepared, and the tensors ``[b, ...]`` of these; b may be 0.
    """

    @_plain
    def attempt(*batch: Element) -> tf.data.Dataset:
        # Inside a graph, only a data set can go on after an error: each batch is one of its own.
        # Data sets nested in a parallel map would wait for its threads; so the batches are
        # prepared one after the other, and the examples of a batch in parallel.
        prepared = tf.data.Dataset.from_tensor_slices(batch).enumerate()
        prepared = prepared.map(
            _plain(lambda position, parts: (position, *prepare(*parts))),
            num_parallel_calls=os.cpu_count(),
            deterministic=True,
        ).ignore_errors()
        empty = tf.nest.map_structure(_empty_batch, prepared.element_spec)
        one_batch = prepared.batch(batch_size).concatenate(tf.data.Dataset.from_tensors(empty))
        return one_batch.take(1).map(
            _plain(lambda positions, *rest: (log_failures(positions, batch[-1]), *rest))
        )

    @_plain
    def log_failures(positions: tf.Tensor, references: Element) -> tf.Tensor:
        count = tf.shape(tf.nest.flatten(references)[0], tf.int64)[0]
        failed = tf.sets.difference([tf.range(count)], [positions]).values
        failures = tf.nest.map_structure(lambda tensor: tf.gather(tensor, failed), references)
        names = tf.map_fn(name, failures, fn_output_signature=tf.string)
        lines = tf.strings.reduce_join(names, separator="\n")
        logged = tf.cond(tf.size(failed) > 0, lambda: log.add(lines), tf.no_op)
        with tf.control_dependencies([logged]):
            return tf.identity(positions)

    batches = examples.batch(batch_size, drop_remainder=drop_remainder)
    return batches.flat_map(attempt).prefetch(tf.data.AUTOTUNE)


def _empty_batch(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([0, *(size or 0 for size in spec.shape)], spec.dtype)


def fill_gaps(positions: tf.Tensor, batch: Element, *, batch_size: int) -> Element:
    """Fills the positions of skipped examples with the next readable example of the batch.

    So the batch keeps its length, and stays a function of its step alone.

    Args:
      positions: int64 ``[b]``, ascending: where the readable examples stood.
      batch: a nest of tensors ``[b, ...]``: the readable examples.
      batch_size: B.

    Returns:
      A nest of tensors ``[B, ...]``; fails if b is 0.
    """
    count = tf.size(positions)
    not_empty = tf.debugging.Assert(count > 0, ["no image of a batch can be read"])
    with tf.control_dependencies([not_empty]):
        all_positions = tf.range(batch_size, dtype=tf.int64)
    next_readable = tf.searchsorted(positions, all_positions) % count
    filled = tf.cond(
        count == batch_size,
        lambda: batch,
        lambda: tf.nest.map_structure(lambda tensor: tf.gather(tensor, next_readable), batch),
    )
    return tf.nest.map_structure(
        lambda tensor: tf.ensure_shape(tensor, [batch_size, *tensor.shape[1:]]), filled
    )


def raise_bad_image(
    error: tf.errors.OpError,
    source: Source,
    examples: tf.data.Dataset,
    *,
    split: str,
    prepare: Callable[..., Element],
) -> NoReturn:
    """Raises a one-line error that names the image at which a pipeline failed.

    Args:
      error: what the pipeline raised; raised again if no image is at fault.
      source: the data set of the images.
      examples: tuples ``(..., reference)``, not yet prepared, one of which is the image at fault.
      split: name of the split.
      prepare: takes the parts of an example; fails on the image at fault.

    Raises:
      DataError: names the image or the file, and what is wrong.
    """
    advice = "; data.on_bad_image=skip leaves such images out"
    try:
        for example in examples:
            try:
                prepare(*example)
            except tf.errors.OpError as cause:
                name = source.name(example[-1]).numpy().decode(errors="replace")
                raise DataError(f"cannot read '{name}': {reason(cause)}{advice}") from None
    except tf.errors.OpError:
        broken = source.broken_file(split)
        if broken is not None:
            raise DataError(f"{broken}{advice}") from None
    raise error


_REASONS = {
    "Input is empty": "the file is empty",
    "Unknown image file format": "it is not an image (JPEG, PNG, GIF, BMP, WebP)",
    "Invalid JPEG": "its JPEG data are broken or cut off",
    "Invalid PNG": "its PNG data are broken or cut off",
    "PNG": "its PNG data are broken or cut off",
    "GIF": "its GIF data are broken or cut off",
    "BMP": "its BMP data are broken or cut off",
    "Permission denied": "permission denied",
    "No such file": "the file is gone",
}


def reason(error: tf.errors.OpError) -> str:
    """Returns in a few words why an image could not be read."""
    text = " ".join(error.message.split())
    assertion = re.search(r"Summarized data: b'(.*?)'", text)
    if assertion:
        return assertion[1]
    for sign, words in _REASONS.items():
        if sign in text:
            return words
    return tensorflow_message(text, limit=160)
