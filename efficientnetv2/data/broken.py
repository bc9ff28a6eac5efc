"""Images that cannot be read: named in an error, or left out without a batch getting shorter."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NoReturn

import tensorflow as tf

from efficientnetv2.data.sources import DataError, Source
from hparams.errors import tensorflows_words

Nest = Any  # a nest of tensors

_plain = tf.autograph.experimental.do_not_convert


class SkippedLog:
    """The names of images that were left out, one a line in a file.

    The pipeline writes them from inside its graph, in whatever process that runs; an image that is
    met in every epoch stands there as often.

    Args:
      path: of the file; it need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.absolute()  # another process has another current directory

    def add(self, names: tf.Tensor) -> tf.Operation:
        """Writes names, a string scalar with one a line; a graph operation."""
        return tf.print(names, output_stream=f"file://{self.path}")

    def names(self) -> list[str]:
        """Returns the names so far, each once, in the order in which they were met."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return list(dict.fromkeys(lines[:-1]))


def prepare_readable(
    examples: tf.data.Dataset,
    prepare: Callable[..., Nest],
    *,
    batch_size: int,
    drop_remainder: bool,
    name: Callable[..., tf.Tensor],
    log: SkippedLog,
) -> tf.data.Dataset:
    """Prepares examples in batches; those that fail are logged and left out.

    Args:
      examples: each of several parts, the last of which is its reference.
      prepare: takes the parts, returns a tuple of tensors; may fail.
      batch_size: examples that are tried for a batch.
      drop_remainder: leave out a last batch of fewer examples.
      name: takes the reference, returns its name.
      log: of the names.

    Yields:
      int64 ``[b]``, the places in the batch that could be prepared, rising, and the tuple of
      tensors ``[b, ...]`` for these; b may be 0.
    """

    @_plain
    def attempt(*batch: Nest) -> tf.data.Dataset:
        # A data set is the only place where a graph may fail and go on. Data sets inside one whose
        # own calls are parallel wait for its threads; so batches follow each other, and the
        # examples of a batch are prepared side by side.
        made = tf.data.Dataset.from_tensor_slices(batch).enumerate()
        made = made.map(
            _plain(lambda place, parts: (place, *prepare(*parts))),
            num_parallel_calls=os.cpu_count(),
            deterministic=True,
        ).ignore_errors()
        nothing = tf.nest.map_structure(_none_of, made.element_spec)
        made = made.batch(batch_size).concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
        return made.map(_plain(lambda places, *rest: (report(places, batch[-1]), *rest)))

    @_plain
    def report(places: tf.Tensor, references: Nest) -> tf.Tensor:
        count = tf.shape(tf.nest.flatten(references)[0], tf.int64)[0]
        failed = tf.sets.difference([tf.range(count)], [places]).values
        failures = tf.nest.map_structure(lambda tensor: tf.gather(tensor, failed), references)
        names = tf.map_fn(name, failures, fn_output_signature=tf.string)
        lines = tf.strings.reduce_join(names, separator="\n")
        logged = tf.cond(tf.size(failed) > 0, lambda: log.add(lines), tf.no_op)
        with tf.control_dependencies([logged]):
            return tf.identity(places)

    batches = examples.batch(batch_size, drop_remainder=drop_remainder)
    return batches.flat_map(attempt).prefetch(tf.data.AUTOTUNE)


def _none_of(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([0, *(size or 0 for size in spec.shape)], spec.dtype)


def fill(places: tf.Tensor, batch: Nest, *, batch_size: int) -> Nest:
    """Puts the next readable example of a batch in each place that has none.

    So the batch stays a function of its step, and as long as it was.

    Args:
      places: int64 ``[b]``, rising.
      batch: a nest of tensors ``[b, ...]``.
      batch_size: B.

    Returns:
      A nest of tensors ``[B, ...]``; it fails if b is 0.
    """
    count = tf.size(places)
    some = tf.debugging.Assert(count > 0, ["no image of a batch can be read"])
    with tf.control_dependencies([some]):
        wanted = tf.range(batch_size, dtype=tf.int64)
    following = tf.searchsorted(places, wanted) % count
    filled = tf.cond(
        count == batch_size,
        lambda: batch,
        lambda: tf.nest.map_structure(lambda tensor: tf.gather(tensor, following), batch),
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
    prepare: Callable[..., Nest],
) -> NoReturn:
    """Raises a one-line error that names the image at which a pipeline failed.

    Args:
      error: what the pipeline raised; raised again if no image is at fault.
      source: of the images.
      examples: (..., reference), among which it is, not yet prepared.
      split: of the source.
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
    "Unknown image file format": "it is no image (JPEG, PNG, GIF, BMP, WebP)",
    "Invalid JPEG": "its JPEG data are broken or cut off",
    "Invalid PNG": "its PNG data are broken or cut off",
    "PNG": "its PNG data are broken or cut off",
    "GIF": "its GIF data are broken or cut off",
    "BMP": "its BMP data are broken or cut off",
    "Permission denied": "permission denied",
    "No such file": "the file is gone",
}


def reason(error: tf.errors.OpError) -> str:
    """Says in a few words why an image could not be read."""
    text = " ".join(error.message.split())
    asserted = re.search(r"Summarized data: b'(.*?)'", text)
    if asserted:
        return asserted[1]
    for sign, words in _REASONS.items():
        if sign in text:
            return words
    return tensorflows_words(text, limit=160)
