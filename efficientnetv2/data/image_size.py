"""Reads the size of an encoded image from its first bytes, to explain why it cannot be decoded."""

from __future__ import annotations

import struct

_MAX_SIDE = 1 << 27  # pixels: TensorFlow decodes no image with a longer side,
_MAX_PIXELS = 1 << 29  # or with more pixels (a BMP: bytes, 2^30)
_MAX_BMP_PIXELS = (1 << 30) // 4
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_NO_FRAME = {0xC4, 0xC8, 0xCC}  # of the markers C0 .. CF, the others begin a frame


def stored_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns ``(height, width)`` as a JPEG, PNG, GIF or BMP file states them, in pixels.

    None: the file states none, or has another format.
    """
    try:
        if encoded.startswith(b"\x89PNG"):
            width, height = struct.unpack(">II", encoded[16:24])
        elif encoded.startswith(b"GIF8"):
            width, height = struct.unpack("<HH", encoded[6:10])
        elif encoded.startswith(b"BM"):
            width, height = struct.unpack("<ii", encoded[18:26])
        elif encoded.startswith(b"\xff\xd8"):
            return _jpeg_size(encoded)
        else:
            return None
    except struct.error:  # the file is too short
        return None
    return abs(height), width  # the height of a BMP stored from top to bottom is negative


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # a byte that fills
            position += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME:
            height, width = struct.unpack(">HH", encoded[position + 5 : position + 9])
            return height, width
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return None


def wrong_size(encoded: bytes) -> str | None:
    """Returns that an image is too large or too small to be decoded; None: it is neither.

    >>> wrong_size(b"GIF89a" + bytes(4))
    'it is too small: 0 x 0 pixels'
    """
    size = stored_size(encoded)
    if size is None:
        return None
    height, width = size
    text = f"{width:,} x {height:,} pixels"
    if min(size) <= 0:
        return f"it is too small: {text}"
    limit = _MAX_BMP_PIXELS if encoded.startswith(b"BM") else _MAX_PIXELS
    if max(size) >= _MAX_SIDE or height * width >= limit:
        return f"it is too large: {text}, and at most {limit - 1:,} can be decoded"
    return None
