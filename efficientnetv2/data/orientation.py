"""Reads the EXIF orientation of a JPEG, and turns the image upright.

A camera stores what its sensor saw and notes in tag 274 of the EXIF header how to turn that upright
(CIPA DC-008, Exif 2.32, section 4.6.4). All of this is TensorFlow operations on the file's bytes.
"""

from __future__ import annotations

import tensorflow as tf

# How to turn a stored image upright: (swap rows and columns, then reverse rows, reverse columns).
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_TAG = 274
_ENTRY_BYTES = 12  # tag, type, count, value
_SEGMENT_BYTES = 1 << 16  # no segment of a JPEG is longer
# Start of image, marker and length (6 bytes), Exif; or the same after a JFIF segment (18 bytes).
# \C matches any byte; other patterns match only UTF-8.
_EXIF = r"\C{6}(\C{18})?Exif\C*"
_EXIF_BYTES = 28


def read_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG, int32 1..8; 1 (upright) if it has none."""
    start = tf.strings.substr(encoded, 0, _EXIF_BYTES)
    has_exif = tf.strings.regex_full_match(start, _EXIF)
    return tf.cond(has_exif, lambda: _parse(encoded), lambda: tf.constant(1))


def _parse(encoded: tf.Tensor) -> tf.Tensor:
    # Padded with zeros, and never read beyond the end: the picture behind a damaged header may
    # well be intact.
    data = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_SEGMENT_BYTES)
    tiff = tf.where(tf.equal(data[6], ord("E")), 12, 30)  # where the TIFF header begins
    is_little_endian = tf.equal(data[tiff], ord("I"))
    weights = tf.where(is_little_endian, [1, 256], [256, 1])

    def number(position: tf.Tensor) -> tf.Tensor:
        inside = tf.minimum(tiff + position, _SEGMENT_BYTES - 2)
        pairs = tf.gather(data, inside[..., tf.newaxis] + [0, 1])
        return tf.reduce_sum(tf.cast(pairs, tf.int32) * weights, -1)

    # The directory's offset has 4 bytes, of which 2 are zero in a segment of 64 KB.
    directory = number(tf.where(is_little_endian, 4, 6))
    entries = directory + 2 + _ENTRY_BYTES * tf.range(number(directory))
    value = tf.reduce_max(tf.where(tf.equal(number(entries), _TAG), number(entries + 8), 1))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored image, uint8 ``[H, W, 3]``, upright; 5 to 8 swap its height and width."""

    def turn() -> tf.Tensor:
        swap, reverse = _steps(orientation)
        turned = tf.transpose(image, tf.where(swap, [1, 0, 2], [0, 1, 2]))
        return tf.raw_ops.Reverse(tensor=turned, dims=tf.concat([reverse, [False]], 0))

    return tf.cond(orientation > 1, turn, lambda: image)


def upright_size(stored_size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the size of a stored image when turned upright: int32 ``[height, width]``."""
    return tf.where(orientation >= 5, stored_size[::-1], stored_size)


def stored_window(window: tf.Tensor, orientation: tf.Tensor, *, size: tf.Tensor) -> tf.Tensor:
    """Returns where a window of the upright image lies in the stored one.

    Args:
      window: int32 ``[y, x, h, w]`` in the upright image.
      orientation: int32 1..8.
      size: int32 ``[height, width]`` of the upright image.
    """

    def turn() -> tf.Tensor:
        swap, reverse = _steps(orientation)
        begin, sides = window[:2], window[2:]
        pair = tf.stack([tf.where(reverse, size - begin - sides, begin), sides])
        return tf.reshape(tf.where(swap, pair[:, ::-1], pair), [4])

    return tf.cond(orientation > 1, turn, lambda: window)


def _steps(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    steps = tf.gather(tf.constant(list(_STEPS.values())), orientation - 1)
    return steps[0], steps[1:]
