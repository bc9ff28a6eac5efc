"""Images that cannot be read: named in an error, or left out without a batch getting shorter."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from efficientnetv2.data.sources import DataError, Source

Nest = Any  # a nest of tensors


class SkippedLog:
    """The names of images that were left out, one a line in a file.

    The pipeline writes them from inside its graph, in whatever process that runs; an image that is
    met in every epoch stands there as often.

    Args:
      path: of the file; it need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def add(self, name: tf.Tensor) -> tf.Operation:
        """Writes a name; a graph operation."""
        return tf.print(name, output_stream=f"file://{self.path}")

    def names(self) -> list[str]:
        """Returns the names so far, each once, in the order in which they were met."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return list(dict.fromkeys(lines[:-1]))


def prepare_or_blank(
    examples: tf.data.Dataset,
    prepare: Callable[..., Nest],
    *,
    blank: Callable[..., Nest],
    name: Callable[..., tf.Tensor],
    log: SkippedLog,
) -> tf.data.Dataset:
    """Prepares examples one by one; one that fails is logged, and becomes a blank in its place.

    Args:
      examples: each of several parts, the last of which is its reference.
      prepare: takes the parts, returns a tuple of tensors; may fail.
      blank: takes the parts, returns a tuple of the same types.
      name: takes the reference, returns its name.
      log: of the names.

    Yields:
      bool, whether it was prepared, and the tuple.
    """

    @tf.autograph.experimental.do_not_convert
    def give_up(*parts: Nest) -> tuple[bool, Nest]:
        with tf.control_dependencies([log.add(name(parts[-1]))]):
            return False, tf.nest.map_structure(tf.identity, blank(*parts))

    @tf.autograph.experimental.do_not_convert
    def try_one(*parts: Nest) -> tuple[bool, Nest]:
        return True, prepare(*parts)

    @tf.autograph.experimental.do_not_convert
    def attempt(*parts: Nest) -> tf.data.Dataset:
        # A data set is the only place where a graph may fail and go on.
        example = tf.data.Dataset.from_tensors(parts)
        made = example.map(try_one).ignore_errors()
        return made.concatenate(example.map(give_up)).take(1)

    # One after the other: data sets inside a parallel map or an interleave were seen to wait for
    # each other's threads for ever.
    return examples.flat_map(attempt).prefetch(tf.data.AUTOTUNE)


def replace_missing(is_good: tf.Tensor, batch: Nest) -> Nest:
    """Puts the next readable image of a batch in the place of each that is not.

    So the batch stays a function of its step, and as long as it was.

    Args:
      is_good: bool ``[B]``.
      batch: a nest of tensors ``[B, ...]``.

    Returns:
      The same nest; it fails if no image of the batch is readable.
    """
    good = tf.where(is_good)[:, 0]
    some = tf.debugging.Assert(tf.size(good) > 0, ["no image of a batch can be read"])
    with tf.control_dependencies([some]):
        here = tf.range(tf.size(is_good, out_type=tf.int64))
    following = tf.searchsorted(good, here) % tf.size(good)
    chosen = tf.where(is_good, here, tf.gather(good, following))
    return tf.cond(
        tf.reduce_all(is_good),
        lambda: batch,
        lambda: tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), batch),
    )


def raise_bad_image(
    error: tf.errors.OpError,
    source: Source,
    examples: tf.data.Dataset,
    *,
    split: str,
    prepare: Callable[..., Nest],
) -> None:
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
    return (text.partition("}} ")[2] or text).partition(" [Op:")[0][:160]
