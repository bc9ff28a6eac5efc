"""Decodes image files to upright, opaque RGB images: the whole image, or a window of a JPEG.

Reads JPEG (RGB, grey, CMYK), PNG, GIF and WebP (first frame) and BMP, and what ``pillow_image``
reads; images are uint8 ``[H, W, 3]``. Grey becomes RGB, 16 bits become 8, and transparent pixels
become white (in GIF files black). Any other format is an ``InvalidArgumentError``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from efficientnetv2.data.orientation import (
    read_orientation,
    read_png_orientation,
    read_webp_orientation,
    stored_window,
    turn_upright,
    upright_size,
)
from efficientnetv2.data.pillow_image import decode_with_pillow

_Decoder = Callable[[tf.Tensor], tf.Tensor]
_RATIOS = (1, 2, 4, 8)  # a JPEG, stored in blocks of 8x8 pixels, can be decoded this much smaller
# PNG files with transparency: by colour type (byte 25), or by a tRNS chunk of up to 256 bytes,
# which stands before the pixels. \C is any byte.
_TRANSPARENT_PNG = r"\C{25}[\x04\x06]\C*|\C*\x00\x00[\x00\x01]\CtRNS\C*"
_PNG_HEADER_BYTES = 1 << 16
_WEBP_FLAGS = 20  # position of the extended format's flags
_WEBP_ANIMATED, _WEBP_EXIF, _WEBP_ALPHA = 0x02, 0x08, 0x10
_BMP_START_BYTES = 14 + 124 + 4 * 256  # the longest headers and a palette
_BMP_RUN_LENGTH = 1  # value of the header's field 'compression'


class JpegHeader(NamedTuple):
    """The facts about a JPEG that are known before it is decoded.

    Attributes:
      size: int32 ``[height, width]`` of the upright image; zeros if it must be decoded whole.
      orientation: int32 1..8 (EXIF).
    """

    size: tf.Tensor
    orientation: tf.Tensor


def read_jpeg_header(encoded: tf.Tensor) -> JpegHeader:
    """Reads the size and orientation of a JPEG; the size is 0 if the image is not a JPEG.

    It is also 0 if the last bytes of the file are not a JPEG's end marker. Decoded inside a window,
    a truncated file would pass or fail depending on where the window lies. Decoded whole, it always
    fails, and a complete JPEG with other bytes behind it succeeds.
    """
    last = tf.maximum(tf.strings.length(encoded) - 2, 0)
    ends = [tf.strings.substr(encoded, 0, 2), tf.strings.substr(encoded, last, 2)]

    def read() -> JpegHeader:
        orientation = read_orientation(encoded)
        stored_size = tf.io.extract_jpeg_shape(encoded)[:2]
        return JpegHeader(upright_size(stored_size, orientation), orientation)

    is_complete = tf.equal(tf.strings.join(ends), b"\xff\xd8\xff\xd9")
    return tf.cond(is_complete, read, lambda: JpegHeader(tf.zeros([2], tf.int32), tf.constant(1)))


def decode_jpeg_window(
    encoded: tf.Tensor,
    window: tf.Tensor,
    *,
    header: JpegHeader,
    smallest: int | tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes only a window of a JPEG: uint8 ``[h, w, 3]``.

    Within 8 pixels of the window's edge, values may differ by a few grey levels from those of the
    whole image, if the file stores its colours at half the resolution.

    Args:
      encoded: a JPEG.
      window: int32 ``[y, x, h, w]`` in the upright image.
      header: what ``read_jpeg_header`` returns for this JPEG.
      smallest: pixels, of both sides or int32 ``[height, width]``. The window is decoded 2, 4 or 8
        times smaller if its sides stay at least this long; None: at full resolution.
    """
    stored = stored_window(window, header.orientation, size=header.size)

    def decode(ratio: int) -> tf.Tensor:
        return tf.io.decode_and_crop_jpeg(encoded, stored // ratio, channels=3, ratio=ratio)

    if smallest is None:
        image = decode(1)
    else:
        fits = tf.reduce_min(window[2:] // smallest) >= _RATIOS[1:]
        ratios = [functools.partial(decode, ratio) for ratio in _RATIOS]
        image = tf.switch_case(tf.reduce_sum(tf.cast(fits, tf.int32)), ratios)
    return tf.ensure_shape(turn_upright(image, header.orientation), [None, None, 3])


# Traced once a process: each input pipeline uses it, and tracing its branches takes longer than
# tracing all the rest of a pipeline.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a whole image of any supported format: uint8 ``[H, W, 3]``."""
    image = _decode_by_start(encoded, _COMMON, default=_decode_rare)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_by_start(
    encoded: tf.Tensor, decoders: dict[bytes, _Decoder], *, default: _Decoder
) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 2)
    cases = [
        (tf.equal(start, key), functools.partial(decode, encoded))
        for key, decode in decoders.items()
    ]
    return tf.case(cases, default=functools.partial(default, encoded))


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return turn_upright(tf.io.decode_jpeg(encoded, channels=3), read_orientation(encoded))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # Alpha is requested only where the file has it: TensorFlow adds an alpha of 1, not 255, to
    # 1-bit images.
    header = tf.strings.substr(encoded, 0, _PNG_HEADER_BYTES)
    image = tf.cond(
        tf.strings.regex_full_match(header, _TRANSPARENT_PNG),
        lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    return turn_upright(image, read_png_orientation(encoded))


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_BMP_START_BYTES)
    fields = tf.bitcast(tf.reshape(start[10:34], [6, 4]), tf.int32)
    pixels, header_size, _, _, planes_and_bits, compression = tf.unstack(fields)
    message = "run-length encoded BMP files are not supported"
    tf.debugging.assert_none_equal(compression, _BMP_RUN_LENGTH, message=message)
    image = tf.io.decode_image(encoded, channels=0)

    def look_up() -> tf.Tensor:  # TensorFlow returns palette indices as grey levels
        palette = tf.reshape(start[14 + header_size : pixels], [-1, 4])  # blue, green, red, 0
        return tf.gather(palette[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    def blend() -> tf.Tensor:  # most writers leave the fourth byte at 0 and mean opaque
        has_alpha = tf.reduce_any(image[..., 3] > 0)
        return tf.cond(has_alpha, lambda: _on_white(image), lambda: image[..., :3])

    bits = planes_and_bits // (1 << 16)
    return tf.case([(tf.equal(bits, 8), look_up), (tf.equal(bits, 32), blend)], lambda: image)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_WEBP_FLAGS + 1)
    is_extended = tf.reduce_all(tf.equal(start[12:16], list(b"VP8X")))
    is_animated = is_extended & (start[_WEBP_FLAGS] & _WEBP_ANIMATED > 0)

    def declare_alpha() -> tf.Tensor:
        # If the file declares no alpha, TensorFlow writes the 4 channels of an animation into
        # memory for 3 (2.20 crashes). Declaring it avoids that.
        flags = bytes([_WEBP_ANIMATED | _WEBP_ALPHA])
        rest = tf.strings.substr(encoded, _WEBP_FLAGS + 1, tf.strings.length(encoded))
        return tf.strings.join([tf.strings.substr(encoded, 0, _WEBP_FLAGS), flags, rest])

    safe = tf.cond(is_animated, declare_alpha, lambda: encoded)
    image = tf.io.decode_image(safe, channels=0, expand_animations=False)
    opaque = tf.cond(tf.equal(tf.shape(image)[2], 4), lambda: _on_white(image), lambda: image)
    has_exif = is_extended & (start[_WEBP_FLAGS] & _WEBP_EXIF > 0)
    orientation = tf.cond(has_exif, lambda: read_webp_orientation(encoded), lambda: tf.constant(1))
    return turn_upright(opaque, orientation)


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:  # also rejects unknown formats
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_with_pillow(encoded: tf.Tensor) -> tf.Tensor:
    # Works only in the process that made the graph, so not in the workers of a tf.data service.
    image, problem = tf.numpy_function(
        decode_with_pillow, [encoded], [tf.uint8, tf.string], stateful=False
    )
    is_good = tf.debugging.Assert(tf.equal(problem, b""), [problem])
    with tf.control_dependencies([is_good]):
        return tf.identity(image)


_COMMON: dict[bytes, _Decoder] = {b"\xff\xd8": _decode_jpeg, b"\x89P": _decode_png}
_RARE: dict[bytes, _Decoder] = {
    b"BM": _decode_bmp,
    b"RI": _decode_webp,
    b"II": _decode_with_pillow,  # TIFF
    b"MM": _decode_with_pillow,
    b"\x00\x00": _decode_with_pillow,  # HEIC, AVIF
}


# Not inlined: the executor would visit all of its nodes even where the branch is not taken, and a
# small JPEG would take 5% longer.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_rare(encoded: tf.Tensor) -> tf.Tensor:
    return _decode_by_start(encoded, _RARE, default=_decode_gif)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    colour, alpha = tf.split(tf.cast(image, tf.float32), [3, 1], -1)
    return tf.cast(tf.round(255 - (255 - colour) * alpha / 255), tf.uint8)
