"""Reads images of any number of channels: ``.npy`` arrays, TIFF files and PNG files with alpha.

Arrays are parsed here, without unpickling anything. TIFF files are read by the package tifffile
where it is installed; without it Pillow reads those of one channel, and of four with 8 bits. No
TensorFlow here.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from efficientnetv2.data.sources.image_suffixes import NPY_START, TIFF_STARTS
from hparams.channels import GREY, count_text

# Type of the stored numbers -> what they are divided by: pixels are 0..255 in float32. Floats stay
# as they are.
DIVISORS = {"uint8": 1.0, "uint16": 257.0, "float32": 1.0}
_PNG_START = b"\x89PNG"
_KNOWN = "it is not an image of several channels (.npy, TIFF, or PNG with alpha)"
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow have it


def decode_array(encoded: bytes, channels: int) -> tuple[np.ndarray, bytes]:
    """Decodes an image: float32 ``[H, W, channels]``, pixels of 0..255 (floats as they are).

    Returns:
      The image, and an empty text; or a small image, and what is wrong with the file.
    """
    try:
        image = read_array(encoded, first_page=channels == GREY)
        stored = image.shape[-1]
        if stored in (3, 4) and channels == GREY and not encoded.startswith(NPY_START):
            image, stored = _grey(image), GREY
        problem = wrong_channels(stored, channels)
        if problem:
            raise ValueError(problem)
        pixels = scaled(image)
        if image.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError("it has values that are not finite (NaN or infinity)")
        return pixels, b""
    except ValueError as error:
        return np.zeros([1, 1, channels], np.float32), str(error).encode()


def wrong_channels(stored: int, channels: int) -> str:
    """Returns that a file has another number of channels than the network; "": it does not."""
    if stored == channels:
        return ""
    return f"it has {count_text(stored)}, but model.channels is {channels}"


def scaled(image: np.ndarray) -> np.ndarray:
    """Returns stored numbers as float32 pixels of 0..255; floats stay as they are."""
    divisor = DIVISORS.get(image.dtype.newbyteorder("=").name)
    if divisor is None:
        raise ValueError(
            f"its numbers are of the type {image.dtype.name}; convert them to uint8, uint16 or "
            "float32"
        )
    return image.astype(np.float32) / np.float32(divisor)


def _grey(image: np.ndarray) -> np.ndarray:
    """Returns the brightness of red, green and blue: float32 ``[H, W, 1]``, scaled to 0..255.

    A fourth channel, alpha, blends with white.
    """
    pixels = scaled(image)
    grey = pixels[..., :3] @ np.array(LUMA, np.float32)
    if pixels.shape[-1] == 4:
        grey = 255 - (255 - grey) * pixels[..., 3] / 255
    return grey[..., np.newaxis].astype(np.float32)


def read_array(encoded: bytes, *, first_page: bool = False) -> np.ndarray:
    """Reads an image as it is stored: ``[H, W, C]``, of any type of numbers.

    Args:
      encoded: the file's bytes.
      first_page: read only the first page of a TIFF file with a grey image a page; otherwise its
        pages are the channels.

    Raises:
      ValueError: says in a few words what is wrong with the file.
    """
    if encoded.startswith(NPY_START):
        return _read_npy(encoded)
    readers: dict[tuple[bytes, ...], Callable[[bytes], np.ndarray]] = {
        TIFF_STARTS: functools.partial(_read_tiff, first_page=first_page),
        (_PNG_START,): _read_with_pillow,
    }
    for starts, read in readers.items():
        if encoded.startswith(starts):
            image = read(encoded)
            return image[..., np.newaxis] if image.ndim == 2 else image
    if not encoded:
        raise ValueError("the file is empty")
    raise ValueError(_KNOWN)


# ---------------------------------------------------------------------- NumPy's files


def npy_shape(encoded: bytes) -> tuple[int, int, int]:
    """Returns height, width and channels as the first bytes of a ``.npy`` file state them.

    Raises:
      ValueError: if it is no image; says why.
    """
    shape, _, _, _ = _npy_header(encoded)
    return shape


def _npy_header(encoded: bytes) -> tuple[tuple[int, int, int], bool, np.dtype, int]:
    """Returns shape ``(H, W, C)``, whether columns come first, type, and where the data begin."""
    stream = io.BytesIO(encoded)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, is_fortran, dtype = read(stream)
    except Exception:  # a header may hold any text, which NumPy parses as Python
        raise ValueError("its header is broken or cut off") from None
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are not read")
    if dtype.newbyteorder("=").name not in DIVISORS:
        raise ValueError(
            f"its numbers are of the type {dtype}; convert them to uint8, uint16 or float32"
        )
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"its shape is {list(shape)}; an image is [height, width, channels], or "
            "[height, width] with 1 channel"
        )
    height, width, *rest = shape
    return (height, width, rest[0] if rest else 1), is_fortran, dtype, stream.tell()


def _read_npy(encoded: bytes) -> np.ndarray:
    shape, is_fortran, dtype, start = _npy_header(encoded)
    size = math.prod(shape) * dtype.itemsize  # a header may claim any size: allocate nothing yet
    if len(encoded) - start < size:
        raise ValueError(f"it is cut off: {len(encoded) - start:,} of {size:,} bytes are there")
    flat = np.frombuffer(encoded, dtype, count=math.prod(shape), offset=start)
    return flat.reshape(shape, order="F" if is_fortran else "C")


# ---------------------------------------------------------------------- TIFF and PNG


def _read_tiff(encoded: bytes, *, first_page: bool) -> np.ndarray:
    if importlib.util.find_spec("tifffile") is None:
        return _read_with_pillow(encoded)
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            return _pages(file, first_page=first_page)
    except ValueError as error:
        missing = "imagecodecs" in str(error)
        hint = "; pip install imagecodecs, or save it without compression" if missing else ""
        raise ValueError(f"its TIFF data cannot be read ({_one_line(error)}){hint}") from None
    except Exception as error:  # of any type, as the data may be anything
        raise ValueError(f"its TIFF data are broken or cut off ({_one_line(error)})") from None


def _pages(file: Any, *, first_page: bool) -> np.ndarray:
    """Returns the first page; or, of a file with one channel a page, all pages as channels."""
    first = file.pages[0]
    if first.axes == "YXS":
        return np.asarray(first.asarray())
    if first.axes == "SYX":  # stored channel by channel
        return np.moveaxis(first.asarray(), 0, -1)
    if first.axes != "YX":
        raise ValueError(f"its axes are {first.axes}, not those of an image")
    pages = [page for page in file.pages if page.shape == first.shape]
    if len(pages) > 1 and len(pages) == len(file.pages) and not first_page:
        return np.stack([page.asarray() for page in pages], -1)
    return np.asarray(first.asarray())


def _read_with_pillow(encoded: bytes) -> np.ndarray:
    from PIL import Image

    is_tiff = encoded.startswith(TIFF_STARTS)
    try:
        with Image.open(io.BytesIO(encoded), formats=["TIFF" if is_tiff else "PNG"]) as image:
            return np.asarray(image)
    except Image.UnidentifiedImageError:
        if is_tiff:
            raise ValueError(
                "Pillow cannot read this kind of TIFF file; pip install tifffile"
            ) from None
        raise ValueError("its PNG data are broken or cut off") from None
    except Exception:  # Pillow's plugins raise any type
        raise ValueError(f"its {'TIFF' if is_tiff else 'PNG'} data are broken or cut off") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
