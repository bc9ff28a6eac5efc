"""Decodes with Pillow the image formats that TensorFlow does not know: TIFF, AVIF and HEIC.

Pillow is not required: without it, these are unknown formats. HEIC needs the package pillow-heif.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from efficientnetv2.data.sources.image_suffixes import TIFF_STARTS, pillow_reads

UNKNOWN_FORMAT = "Unknown image file format"  # TensorFlow's words, too
_BRANDS_END = 64  # the list of brands of a HEIC or AVIF file, of 4 bytes each, is shorter
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PILLOW_NAMES = {"HEIC": "HEIF"}


def decode_with_pillow(encoded: bytes) -> tuple[np.ndarray, bytes]:
    """Decodes a TIFF (first page), AVIF or HEIC file: uint8 ``[H, W, 3]``, upright and opaque.

    Of 16 bits the higher 8 are kept, and transparent pixels become white.

    Returns:
      The image, and an empty text; or a small image, and what is wrong with the file.
    """
    file_format = _format(encoded)
    if file_format is None or not pillow_reads(file_format):
        return _problem(UNKNOWN_FORMAT)
    from PIL import Image

    if file_format == "HEIC":
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        name = _PILLOW_NAMES.get(file_format, file_format)
        with Image.open(io.BytesIO(encoded), formats=[name]) as image:
            if image.mode in ("I", "F"):  # 32 bits: nobody knows which number is black, which white
                return _problem(f"its {file_format} pixels have 32 bits; convert it to 8 bits")
            return _opaque(image), b""
    except Image.DecompressionBombError:
        return _problem("it is too large for Pillow, which reads about 178 million pixels")
    except Exception:  # Pillow's plugins raise any type, and a bad image may not end the others
        return _problem(f"its {file_format} data are broken or cut off")


def keeps_precision(encoded: bytes) -> bool:
    """Returns whether a TIFF file has more than 8 bits a channel, which one channel can keep."""
    if not encoded.startswith(TIFF_STARTS):
        return False
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded), formats=["TIFF"]) as image:
            return image.mode.startswith("I") or image.mode == "F"
    except Exception:  # of any type; perhaps another reader knows this kind of TIFF file
        return True


def _format(encoded: bytes) -> str | None:
    if encoded.startswith(TIFF_STARTS):
        return "TIFF"
    if encoded[4:8] != b"ftyp":
        return None
    brands = encoded[8:_BRANDS_END]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if any(brand in brands for brand in _HEIC_BRANDS) else None


def _opaque(image: Any) -> np.ndarray:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, -1)
    has_alpha = "transparency" in upright.info or upright.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    if has_alpha:
        layer = upright.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(page, layer)
    return np.asarray(upright.convert("RGB"))


def _problem(text: str) -> tuple[np.ndarray, bytes]:
    return np.zeros([1, 1, 3], np.uint8), text.encode()
