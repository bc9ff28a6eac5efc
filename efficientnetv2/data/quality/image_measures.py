"""Measures single images for ``--mode=check``: can it be read, how large, how sharp, how alike.

Images are read by Pillow, so no TensorFlow is needed. A JPEG is decoded at a reduced scale where
that suffices; all of its data are read all the same, so one that is cut off is noticed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from efficientnetv2.data.array_image import read_array
from efficientnetv2.data.sources.image_suffixes import NPY_START, TIFF_STARTS, pillow_reads

_GREY_SIDE = 256  # pixels: longest side of the grey image on which contrast and sharpness are taken
_ORIENTATION = 274  # EXIF tag: how to turn the stored pixels upright
_AHEAD = 64  # images that may be read before their turn


@dataclasses.dataclass(frozen=True)
class ImageMeasures:
    """What was measured of an image file.

    Attributes:
      problem: why it cannot be read, in a few words; empty: it can, and the others hold.
      height: pixels, after it is turned upright as its EXIF header says.
      width: as height.
      is_turned: whether its EXIF header turns it.
      contrast: standard deviation of its grey levels, of 0..255.
      sharpness: standard deviation of the Laplacian of its grey levels, over ``contrast``: about 1
        for a sharp photograph of 256 pixels, below 0.05 for a blurred one.
      digest: of the file's bytes.
      bits: perceptual hash, 64 bits; alike images differ in few of them.
    """

    problem: str = ""
    height: int = 0
    width: int = 0
    is_turned: bool = False
    contrast: float = 0.0
    sharpness: float = 0.0
    digest: bytes = b""
    bits: int = 0


def measure_images(paths: Iterable[pathlib.Path]) -> Iterator[ImageMeasures]:
    """Yields the measures of images in their order, measured in parallel on all cores."""
    workers = os.cpu_count() or 1
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # of Pillow, on files that are odd and can be read
        waiting: list[concurrent.futures.Future[ImageMeasures]] = []
        try:
            for path in paths:
                waiting.append(pool.submit(measure_image, path))
                if len(waiting) > _AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def measure_image(path: pathlib.Path) -> ImageMeasures:
    """Measures an image; one that cannot be read has a ``problem`` and no measures."""
    try:
        encoded = path.read_bytes()
    except FileNotFoundError:
        return ImageMeasures(problem="the file is gone")
    except OSError as error:
        return ImageMeasures(problem=error.strerror or str(error))
    if not encoded:
        return ImageMeasures(problem="the file is empty")
    try:
        return _measured(encoded)
    except Exception as error:  # Pillow's plugins raise any type
        return ImageMeasures(problem=_reason(error))


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if type(error) is ValueError and str(error):  # of ``read_array``, in whole words
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "it is too large for Pillow, which reads about 178 million pixels"
    return f"it is broken or cut off ({error})" if str(error) else "it is broken or cut off"


def _measured(encoded: bytes) -> ImageMeasures:
    with open_image(encoded) as image:
        turn = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size[::-1] if turn in (5, 6, 7, 8) else image.size
        grey = grey_image(image, side=_GREY_SIDE)
    levels = np.asarray(grey, np.float32)
    contrast = float(levels.std())
    return ImageMeasures(
        height=height,
        width=width,
        is_turned=turn in range(2, 9),
        contrast=contrast,
        sharpness=_edges(levels) / contrast if contrast > 0 else 0.0,
        digest=hashlib.blake2b(encoded, digest_size=16).digest(),
        bits=_perceptual_hash(grey),
    )


def open_image(encoded: bytes) -> Any:
    """Opens an image with Pillow; the pixels are not decoded yet.

    Of ``.npy`` files, and of TIFF files that Pillow cannot read, it is the mean of the channels.

    Raises:
      ValueError: if such a file cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    if encoded.startswith(NPY_START):
        return _mean_of_channels(encoded)

    if pillow_reads("HEIC"):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        if encoded.startswith(TIFF_STARTS):
            return _mean_of_channels(encoded)
        raise


def _mean_of_channels(encoded: bytes) -> Any:
    """Returns the mean of an image's channels as a grey Pillow image, from black to white."""
    from PIL import Image

    levels = np.nan_to_num(read_array(encoded).astype(np.float32).mean(-1))
    low, high = float(levels.min()), float(levels.max())
    return Image.fromarray(np.uint8((levels - low) / max(high - low, 1e-12) * 255))


def grey_image(image: Any, *, side: int) -> Any:
    """Returns the grey levels of an opened image with its longer side reduced to ``side`` pixels.

    A smaller image keeps its size. It is turned upright as its EXIF header says, transparent pixels
    become white, 16 bits are scaled to 8, and a JPEG is decoded at the smallest scale that is
    still larger.
    """
    from PIL import Image, ImageOps

    image.draft("L", (side, side))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        levels = np.asarray(image, np.float32)
        image = Image.fromarray(np.uint8(levels / max(1.0, float(levels.max())) * 255))
    elif "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    grey = image.convert("L")
    if max(grey.size) > side:
        scale = side / max(grey.size)
        size = [max(1, round(length * scale)) for length in grey.size]
        grey = grey.resize(size, Image.Resampling.BOX)
    return grey


def _edges(levels: np.ndarray) -> float:
    """Returns the standard deviation of the Laplacian: its variance is a usual measure of focus."""
    if min(levels.shape) < 3:
        return 0.0
    middle = levels[1:-1, 1:-1]
    neighbours = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    return float((neighbours - 4 * middle).std())


def _perceptual_hash(grey: Any) -> int:
    import imagehash

    bits = imagehash.phash(grey).hash.ravel()  # of the 8 x 8 lowest frequencies: above the median?
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
