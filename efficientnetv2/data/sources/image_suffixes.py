"""Knows image files by their suffix, and which of them can be read here. No TensorFlow here."""

from __future__ import annotations

import functools
import importlib.util
import os

# TensorFlow reads these, whatever is installed.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")
TENSORFLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP")
# Pillow reads these: suffix -> name of the format.
PILLOW_SUFFIXES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
}
# NumPy's arrays are images where images do not have 3 channels (model.channels): a folder of photos
# may hold arrays of something else.
NPY_SUFFIX = ".npy"
NPY_START = b"\x93NUMPY"
TIFF_STARTS = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b")
# Files with these suffixes are images, too, but nothing here reads them.
OTHER_IMAGES = {
    f".{suffix}"
    for suffix in (
        *(
            "3fr",
            "arw",
            "bpg",
            "cr2",
            "cr3",
            "crw",
            "dcm",
            "dds",
            "dib",
            "dng",
            "emf",
            "eps",
            "exr",
        ),
        *(
            "hdr",
            "icns",
            "ico",
            "j2k",
            "jls",
            "jp2",
            "jpf",
            "jpm",
            "jpx",
            "jxl",
            "jxr",
            "mrw",
            "nef",
        ),
        *(
            "nrw",
            "orf",
            "pam",
            "pbm",
            "pcx",
            "pef",
            "pgm",
            "pnm",
            "ppm",
            "psb",
            "psd",
            "raf",
            "ras",
        ),
        *(
            "raw",
            "rgb",
            "rw2",
            "sgi",
            "sr2",
            "srw",
            "svg",
            "tga",
            "wdp",
            "wmf",
            "xbm",
            "xcf",
            "xpm",
        ),
    )
}


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Returns the names of the image formats that can be read here, for example ``JPEG``."""
    return (*TENSORFLOW_FORMATS, *dict.fromkeys(filter(pillow_reads, PILLOW_SUFFIXES.values())))


@functools.cache
def pillow_reads(file_format: str) -> bool:
    """Returns whether Pillow is installed and reads TIFF, AVIF or HEIC files."""
    if importlib.util.find_spec("PIL") is None:
        return False
    if importlib.util.find_spec("pillow_heif") is not None and file_format == "HEIC":
        return True
    if file_format == "AVIF":
        from PIL import features

        with_avif = "avif" in features.modules  # Pillow 11.3 or newer
        return with_avif and bool(features.check("avif"))
    return file_format == "TIFF"


def readable_suffixes(*, arrays: bool = False) -> tuple[str, ...]:
    """Returns the suffixes of the images that can be read here, for example ``.jpg``.

    Args:
      arrays: whether NumPy's arrays are images, too.
    """
    own = (NPY_SUFFIX,) if arrays else ()
    return (*SUFFIXES, *(s for s in PILLOW_SUFFIXES if is_image(f"x{s}")), *own)


def is_image(path: str, *, arrays: bool = False) -> bool:
    """Returns whether a file name has the suffix of an image that can be read here.

    Args:
      path: of the file.
      arrays: as in ``readable_suffixes``.
    """
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    return (
        suffix in SUFFIXES
        or (suffix in PILLOW_SUFFIXES and pillow_reads(PILLOW_SUFFIXES[suffix]))
        or (arrays and suffix == NPY_SUFFIX)
    )
