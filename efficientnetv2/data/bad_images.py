"""Handles images that cannot be read: names them in an error, or skips and logs them."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import tensorflow as tf

from efficientnetv2.data.image_size import wrong_size
from efficientnetv2.data.pillow_image import UNKNOWN_FORMAT
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_suffixes import readable_formats
from hparams.errors import DataError, tensorflow_message

Element = Any  # a nest of tensors

SKIPPED = "left out, because it cannot be read: "  # before the name of an image

ADVICE = "; data.on_bad_image=skip leaves such images out"

_plain = tf.autograph.experimental.do_not_convert


class SkippedLog:
    """The log of skipped images: a file with one name per line, or stderr.

    The pipeline writes it from inside its graph, in whatever process that runs. An image that is
    skipped in every epoch is listed once for each.

    Args:
      path: of the file; it need not exist yet. None: the names go to stderr.
    """

    def __init__(self, path: pathlib.Path | None = None) -> None:
        # Another process may have another working directory.
        self.path = None if path is None else path.absolute()

    def add(self, names: tf.Tensor) -> tf.Operation:
        """Appends names to the log, as a graph operation: a string scalar, one name per line."""
        if self.path is None:
            lines = tf.strings.regex_replace(names, r"(?m)^", SKIPPED)
            return tf.print(lines, output_stream=sys.stderr)
        return tf.print(names, output_stream=f"file://{self.path}")

    def names(self) -> list[str]:
        """Returns the names in the file, each once, in the order in which they were skipped."""
        if self.path is None or not self.path.exists():
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
        names = tf.unique(names).y  # data.repeats may bring one image several times
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
    skips: bool,
) -> NoReturn:
    """Raises a one-line error that names the image at which a pipeline failed.

    Args:
      error: what the pipeline raised; raised again if no image is at fault.
      source: the data set of the images.
      examples: tuples ``(..., reference)``, not yet prepared, one of which is the image at fault.
      split: name of the split.
      prepare: takes the parts of an example; fails on the image at fault.
      skips: whether the pipeline leaves out images that cannot be read, and failed because it would
        have had to leave out all of a batch.

    Raises:
      DataError: names the image or the file, and what is wrong.
    """
    before, advice = ("no image of a batch can be read: ", "") if skips else ("", ADVICE)
    try:
        for example in examples:
            try:
                prepare(*example)
            except tf.errors.OpError as cause:
                name = printable(source.name(example[-1]).numpy())
                why = reason(cause, _encoded(source, example[-1]))
                raise DataError(f"{before}cannot read '{name}': {why}{advice}") from None
    except tf.errors.OpError:
        broken = source.broken_file(split)
        if broken is not None:
            raise DataError(f"{before}{broken}{advice}") from None
    raise error


def _encoded(source: Source, reference: Element) -> bytes:
    try:
        return bytes(source.load(reference)[1].numpy())
    except tf.errors.OpError:
        return b""


_NO_IMAGE = "it is not an image"
# A part of TensorFlow's message -> what is wrong.
_REASONS = {
    "Input is empty": "the file is empty",
    "Invalid JPEG": "its JPEG data are broken or cut off",
    "PNG": "its PNG data are broken or cut off",
    "GIF": "its GIF data are broken or cut off",
    "BMP": "its BMP data are broken or cut off",
    "WebP": "its WebP data are broken or cut off",
}
_ASSERTIONS = re.compile(r"Summarized data: b'(.*?)'|assertion failed: \[(.*?)\]")


def unreadable_file(path: pathlib.Path, error: OSError | tf.errors.OpError, encoded: bytes) -> str:
    """Returns one line about an image file that cannot be read or decoded.

    Args:
      path: the file.
      error: what reading or decoding it raised.
      encoded: the file's bytes, if it could be read.
    """
    name = printable(path)
    if isinstance(error, OSError):
        return f"cannot read image '{name}': {error.strerror or error}"
    if not encoded:
        return f"image '{name}' is empty"
    if wrong_size(encoded) is not None:
        return f"cannot read image '{name}': {reason(error, encoded)}"
    formats = readable_formats()
    known = f"{', '.join(formats[:-1])} and {formats[-1]} are read"
    why = reason(error, encoded)
    return f"'{name}' is not an image or is damaged ({known if why.startswith(_NO_IMAGE) else why})"


def reason(error: tf.errors.OpError, encoded: bytes = b"") -> str:
    """Returns in a few words why an image could not be read.

    Args:
      error: what decoding it raised.
      encoded: the image's bytes, if there are any.
    """
    if isinstance(error, tf.errors.NotFoundError):
        return "the file is gone"
    if isinstance(error, tf.errors.PermissionDeniedError):
        return "permission denied"
    # Before the message proper may stand the lines of code that made the operation, and after it
    # the names of operations: both may hold any word.
    lines = error.message.partition("\n\t [[")[0].strip().split("\n")
    text = tensorflow_message(lines[-1], limit=160)
    if UNKNOWN_FORMAT in text:
        return f"{_NO_IMAGE} ({', '.join(readable_formats())})"
    assertion = _ASSERTIONS.search(text)
    if assertion:
        return assertion[1] or assertion[2]
    size = wrong_size(encoded)
    if size is not None:
        return size
    return next((words for sign, words in _REASONS.items() if sign in text), text)
