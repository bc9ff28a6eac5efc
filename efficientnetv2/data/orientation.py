"""Reads the EXIF orientation of a JPEG, PNG or WebP file, and turns the image upright.

A camera stores what its sensor saw and notes in tag 274 of the EXIF header how to turn that upright
(CIPA DC-008, Exif 2.32, section 4.6.4). All of this is TensorFlow operations on the file's bytes.
"""

from __future__ import annotations

import functools

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
# A JFIF segment, then a table of 64 numbers: as most JPEG files without Exif begin. (\C matches any
# byte; other patterns match only UTF-8.)
_NO_EXIF = r"\C{6}JFIF\C{12}\x00\x43\x00\C*"
_START_BYTES = 28
_MARKER_BYTES = 8  # marker, length, and "Exif" if that is what the segment holds
_MAX_SEGMENTS = 1000
_FIRST_TABLE, _FIRST_APP, _SCAN = 0xC0, 0xE0, 0xDA  # markers; Exif is an application's segment
_TABLES_BYTES = 1 << 13  # in which Exif behind tables is looked for
_TIFF = r"((?:II\x2a\x00|MM\x00\x2a)\C*)"
_PNG_EXIF = rf"\C*?eXIf{_TIFF}"
_WEBP_EXIF = rf"\C*?EXIF\C{{4}}(?:Exif\x00\x00)?{_TIFF}"
_PNG_BYTES = 1 << 16  # at the start and at the end of a PNG, in which its Exif is looked for
_WEBP_BYTES = 1 << 18  # at the end of a WebP


# Not inlined: the executor would visit all nodes of these functions even where they are not called,
# and a small JPEG would take longer.
_separately = functools.partial(
    tf.function,
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)


def read_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG, int32 1..8; 1 (upright) if it has none."""
    start = tf.strings.substr(encoded, 0, _START_BYTES)
    has_none = tf.strings.regex_full_match(start, _NO_EXIF)
    return tf.cond(has_none, lambda: tf.constant(1), lambda: _find_orientation(encoded))


def read_png_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a PNG (chunk eXIf), int32 1..8; 1 if it has none."""
    length = tf.strings.length(encoded)
    rest = tf.minimum(tf.maximum(length - _PNG_BYTES, _PNG_BYTES), length)
    ends = [tf.strings.substr(encoded, at, _PNG_BYTES) for at in (tf.constant(0), rest)]
    return _parse_match(tf.strings.join(ends), _PNG_EXIF)


def read_webp_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a WebP (chunk EXIF), int32 1..8; 1 if it has none."""
    end = tf.maximum(tf.strings.length(encoded) - _WEBP_BYTES, 0)
    return _parse_match(tf.strings.substr(encoded, end, _WEBP_BYTES), _WEBP_EXIF)


@_separately
def _find_orientation(encoded: tf.Tensor) -> tf.Tensor:
    tiff = _find_tiff(encoded)
    return tf.cond(tiff > 0, lambda: _parse(encoded, tiff), lambda: tf.constant(1))


def _find_tiff(encoded: tf.Tensor) -> tf.Tensor:
    """Returns where the TIFF header of a JPEG's Exif segment begins, or 0 if there is none."""
    last = tf.maximum(tf.strings.length(encoded) - _MARKER_BYTES, 0)

    def segment(position: tf.Tensor) -> tf.Tensor:
        part = tf.strings.substr(encoded, tf.minimum(position, last), _MARKER_BYTES)
        return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=_MARKER_BYTES), tf.int32)

    def holds_exif(part: tf.Tensor) -> tf.Tensor:
        return (part[1] == 0xE1) & tf.reduce_all(part[4:8] == list(b"Exif"))

    def following(position: tf.Tensor, part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = 2 + 256 * part[2] + part[3]
        position += tf.where(part[1] == 0xFF, 1, size)  # a byte that fills, or not
        return position, segment(position)

    def search(position: tf.Tensor, *, lowest: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Goes on as long as markers are at least ``lowest``, and not that of Exif."""

        def goes_on(position: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
            is_header = (part[0] == 0xFF) & (part[1] >= lowest) & (part[1] != _SCAN)
            return (position < last) & is_header & ~holds_exif(part)

        start = [position, segment(position)]
        position, part = tf.while_loop(goes_on, following, start, maximum_iterations=_MAX_SEGMENTS)
        return position, (position < last) & holds_exif(part)

    position, is_found = search(tf.constant(2), lowest=_FIRST_APP)
    # Hardly any file has Exif behind the tables of numbers, and going through them takes time.
    tables = tf.strings.substr(encoded, tf.minimum(position, last), _TABLES_BYTES)
    is_late = ~is_found & tf.strings.regex_full_match(tables, r"\C*Exif\x00\x00\C*")
    position, is_found = tf.cond(
        is_late, lambda: search(position, lowest=_FIRST_TABLE), lambda: (position, is_found)
    )
    return tf.where(is_found, position + 10, 0)


def _parse_match(data: tf.Tensor, pattern: str) -> tf.Tensor:
    """Parses the TIFF header that the pattern's group matches."""

    @_separately
    def parse(data: tf.Tensor) -> tf.Tensor:
        return _parse(tf.strings.regex_replace(data, pattern, r"\1"), tf.constant(0))

    has_exif = tf.strings.regex_full_match(data, pattern)
    return tf.cond(has_exif, lambda: parse(data), lambda: tf.constant(1))


def _parse(encoded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in the TIFF header that begins at byte ``tiff``."""
    # Padded with zeros, and never read beyond the end: the picture behind a damaged header may
    # well be intact.
    header = tf.strings.substr(
        encoded, tf.minimum(tiff, tf.strings.length(encoded)), _SEGMENT_BYTES
    )
    data = tf.io.decode_raw(header, tf.uint8, fixed_length=_SEGMENT_BYTES)
    is_little_endian = tf.equal(data[0], ord("I"))
    weights = tf.where(is_little_endian, [1, 256], [256, 1])

    def number(position: tf.Tensor) -> tf.Tensor:
        inside = tf.minimum(position, _SEGMENT_BYTES - 2)
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
