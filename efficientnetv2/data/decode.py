"""Decodes, crops and resizes images for training and for evaluation.

``data.resize`` (a row of ``hparams.choices.RESIZES``) says how an image that is not square becomes
a square. Results are float32 ``[S, S, C]``, 0..255. Every image is decoded once; a JPEG only inside
the window that is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from efficientnetv2.data.channel_image import decode_channels, decode_window, read_header
from efficientnetv2.data.letterbox import fitted_size, paint, place_whole, place_window
from hparams.channels import RGB
from hparams.choices import RESIZES

_CROP_PADDING = 32  # pixels: the published evaluation crop leaves S / (S + 32) of the shorter side
_TORCH = "torch_"  # begins the rows of NORMALISATIONS that resize as torchvision and timm do
_TORCH_CROP_PCT = 0.875  # 224 of 256 pixels
# A JPEG is never decoded to less than this many times the result's size: that would save no more
# time (benchmarks/decode.py), and would blur what evaluation sees sharp.
_SMALLEST_DECODED = 2
_LONGEST_ENLARGED = 8  # an image that is enlarged becomes at most this many times as long as a crop
_V2_WHOLE_IMAGE_FROM = 320  # pixels: V2 models evaluated at this size or more see the whole image


def random_window(
    shape: tf.Tensor, seed: tf.Tensor, *, area: Sequence[float], aspect: Sequence[float]
) -> tf.Tensor:
    """Draws int32 ``[y, x, h, w]`` inside an image (Inception's random crop).

    Args:
      shape: int32 ``[height, width]`` of the image.
      seed: int64 ``[2]``; the same seed draws the same window.
      area: smallest and largest fraction of the image's area, in (0, 1].
      aspect: smallest and largest ratio of width to height.

    Returns:
      The window; the whole image if 10 draws find none that fits.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([shape, [3]], 0),
        bounding_boxes=tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def decode_training(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: int | tf.Tensor,
    preprocess: str,
    area: Sequence[float],
    aspect: Sequence[float],
    resize: str = "published",
    channels: int = RGB,
    fill: Sequence[float] | None = None,
) -> tf.Tensor:
    """Returns a random crop, resized to float32 ``[image_size, image_size, C]``, 0..255.

    It is cut from the whole image (``resize`` is published or squash), from the largest central
    square (crop), or from the whole image on its grey square (letterbox, see ``place_window``). It
    is resized as ``decode_evaluation`` resizes, so that a network is evaluated on what it was
    trained on. Two cases differ:

    - An image with both sides shorter than ``image_size`` is enlarged (its shorter side to
      ``image_size``; with letterbox its longer side), then cropped, and the crop resized
      bilinearly whatever ``preprocess`` is. Its own pixels would allow few windows (an 8x8 digit
      has nine of 75% or more), all of them coarse.
    - A JPEG is decoded 2, 4 or 8 times smaller if the window is then still at least twice as large
      as the result. That averages pixels that resizing alone would skip: in a photo of 12
      megapixels, values differ by 3 to 15 of 255 on average.

    Args:
      encoded: one image.
      seed: as in ``random_window``.
      image_size: pixels; a scalar int32 tensor where it is known only at run time.
      preprocess: as in ``decode_evaluation``.
      area: as in ``random_window``.
      aspect: as in ``random_window``.
      resize: a row of ``hparams.choices.RESIZES``.
      channels: C, as in ``decode_channels``.
      fill: the level of each channel around a letterboxed image; None: that of ``resize``.

    Raises:
      tf.errors.InvalidArgumentError: if the image is damaged, truncated or of an unknown format.
    """
    levels = None if fill is None else tuple(fill)
    decode = _traced(preprocess, tuple(area), tuple(aspect), resize, channels, levels)
    image = decode(encoded, seed, tf.convert_to_tensor(image_size))
    side = tf.get_static_value(image_size)
    return tf.ensure_shape(image, [side, side, channels])


@functools.cache
def _traced(
    preprocess: str,
    area: tuple[float, float],
    aspect: tuple[float, float],
    resize: str,
    channels: int,
    fill: tuple[float, ...] | None,
) -> Callable[..., tf.Tensor]:
    """Returns a decoder of training images that is traced once for all input pipelines."""
    draw = functools.partial(random_window, area=area, aspect=aspect)
    row = RESIZES[resize]
    if row.fill is not None:
        levels = row.fill if fill is None else fill
        decode = functools.partial(_decode_letterbox, fill=levels)
    else:
        decode = functools.partial(_decode_training, is_square=row.kept == "square")
    decode = functools.partial(decode, draw=draw, preprocess=preprocess, channels=channels)
    return tf.function(decode, autograph=False)


def _decode_training(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    image_size: tf.Tensor,
    *,
    draw: Callable[..., tf.Tensor],
    preprocess: str,
    is_square: bool,
    channels: int,
) -> tf.Tensor:
    header = read_header(encoded, channels)
    draw = functools.partial(draw, seed=seed)
    target = tf.stack([image_size, image_size])

    def crop_jpeg() -> tf.Tensor:
        if is_square:
            begin, square = tf.split(central_square(header.size), 2)
            window = draw(square) + tf.pad(begin, [[0, 2]])
        else:
            window = draw(header.size)
        smallest = _SMALLEST_DECODED * image_size
        image = decode_window(encoded, window, header=header, channels=channels, smallest=smallest)
        return _resize(image, target, preprocess=preprocess)

    def crop_decoded() -> tf.Tensor:
        image = decode_channels(encoded, channels)
        if is_square:
            image = _cut(image, central_square(tf.shape(image)[:2]))
        size = tf.shape(image)[:2]

        def crop_enlarged() -> tf.Tensor:
            enlarged = _enlarged(size, image_size)
            larger = _resize(image, enlarged, preprocess=preprocess)
            return tf.image.resize(_cut(larger, draw(enlarged)), target)

        def crop() -> tf.Tensor:
            return _resize(_cut(image, draw(size)), target, preprocess=preprocess)

        return tf.cond(tf.reduce_max(size) < image_size, crop_enlarged, crop)

    used = tf.reduce_min(header.size) if is_square else tf.reduce_max(header.size)
    return tf.cond(used >= image_size, crop_jpeg, crop_decoded)


def _decode_letterbox(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    image_size: tf.Tensor,
    *,
    draw: Callable[..., tf.Tensor],
    preprocess: str,
    fill: float | Sequence[float],
    channels: int,
) -> tf.Tensor:
    header = read_header(encoded, channels)
    place = functools.partial(
        place_window, side=image_size, draw=functools.partial(draw, seed=seed)
    )
    painted = functools.partial(paint, side=image_size, fill=fill)

    def crop_jpeg() -> tf.Tensor:
        placement = place(header.size)
        smallest = _SMALLEST_DECODED * placement.size
        image = decode_window(
            encoded, placement.window, header=header, channels=channels, smallest=smallest
        )
        return painted(_resize(image, placement.size, preprocess=preprocess), placement)

    def crop_decoded() -> tf.Tensor:
        image = decode_channels(encoded, channels)
        size = tf.shape(image)[:2]

        def crop_enlarged() -> tf.Tensor:
            enlarged = fitted_size(size, image_size)
            larger = _resize(image, enlarged, preprocess=preprocess)
            placement = place(enlarged)
            part = tf.image.resize(_cut(larger, placement.window), placement.size)
            return painted(part, placement)

        def crop() -> tf.Tensor:
            placement = place(size)
            part = _cut(image, placement.window)
            return painted(_resize(part, placement.size, preprocess=preprocess), placement)

        return tf.cond(tf.reduce_max(size) < image_size, crop_enlarged, crop)

    return tf.cond(tf.reduce_max(header.size) >= image_size, crop_jpeg, crop_decoded)


def _enlarged(size: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    """Returns the size to which an image is enlarged before it is cropped, rounded up."""
    by_shorter = -(-size * image_size // tf.reduce_min(size))
    # A line of 1 x 200 pixels would take 100 MB if its shorter side counted.
    longest = _LONGEST_ENLARGED * image_size
    by_longer = -(-size * longest // tf.reduce_max(size))
    return tf.where(tf.reduce_max(by_shorter) > longest, by_longer, by_shorter)


def decode_evaluation(
    encoded: tf.Tensor,
    *,
    image_size: int,
    preprocess: str,
    resize: str = "published",
    crop_pct: float | None = None,
    channels: int = RGB,
    fill: Sequence[float] | None = None,
) -> tf.Tensor:
    """Returns the image as evaluation sees it: float32 ``[image_size, image_size, C]``.

    Args:
      encoded: one image.
      image_size: pixels.
      preprocess: ``v2`` and ``lite`` resize bilinearly, ``v1`` bicubically (a few values overshoot
        0..255), those of torch with antialiasing and to whole numbers, as Pillow does.
      resize: a row of ``hparams.choices.RESIZES``. Published is the centre crop of
        ``central_window``; with ``v2`` at 320 pixels and more, it is the whole image. With those of
        torch the whole image is resized, and the centre then cut.
      crop_pct: ``eval.crop_pct``.
      channels: as in ``decode_training``.
      fill: as in ``decode_training``.

    Raises:
      tf.errors.InvalidArgumentError: as in ``decode_training``.
    """
    part = _kept_part(resize, image_size=image_size, preprocess=preprocess, crop_pct=crop_pct)
    is_torch = preprocess.startswith(_TORCH)
    window_of = functools.partial(central_window, image_size=image_size, crop_pct=crop_pct)
    if part == "published" and preprocess != "v2" and not is_torch:
        image = _decode_centre(encoded, functools.partial(window_of, round_up=True), channels)
    else:
        # Decoded whole, then cut: a JPEG decoded inside a window differs by a few grey levels near
        # the window's edge, and the published V2 accuracies were measured this way.
        image = decode_channels(encoded, channels)
    if part == "published" and preprocess == "v2":
        image = _cut(image, window_of(tf.shape(image)[:2], round_up=False))
    elif part == "published" and is_torch:
        image = _resize_then_cut(
            image, image_size, preprocess=preprocess, crop_pct=crop_pct or _TORCH_CROP_PCT
        )
    elif part == "square":
        image = _cut(image, central_square(tf.shape(image)[:2]))
    grey = RESIZES[resize].fill
    if grey is None and not (part == "published" and is_torch):
        image = _resize(image, [image_size, image_size], preprocess=preprocess)
    elif grey is not None:
        placement = place_whole(tf.shape(image)[:2], image_size)
        image = _resize(image, placement.size, preprocess=preprocess)
        image = paint(image, placement, side=image_size, fill=grey if fill is None else fill)
    return tf.ensure_shape(image, [image_size, image_size, channels])


def _kept_part(resize: str, *, image_size: int, preprocess: str, crop_pct: float | None) -> str:
    """Returns the part of an image that evaluation sees: published, square or whole."""
    kept = RESIZES[resize].kept
    is_large_v2 = preprocess == "v2" and image_size >= _V2_WHOLE_IMAGE_FROM
    return "whole" if kept == "published" and is_large_v2 and crop_pct is None else kept


def _resize_then_cut(
    image: tf.Tensor, image_size: int, *, preprocess: str, crop_pct: float
) -> tf.Tensor:
    """Resizes the shorter side to ``image_size / crop_pct``, then cuts the central square."""
    shape = tf.shape(image)[:2]
    # Of a line of pixels, what is far from the centre would only take memory.
    kept = tf.minimum(shape, _LONGEST_ENLARGED * tf.reduce_min(shape))
    image, shape = _cut(image, tf.concat([(shape - kept) // 2, kept], 0)), kept
    shorter = _torch_resize_size(image_size, crop_pct)
    image = _resize(image, shape * shorter // tf.reduce_min(shape), preprocess=preprocess)
    # tf.round and Python's round, which torchvision uses, take the even one of two neighbours.
    offset = tf.cast(tf.round((tf.shape(image)[:2] - image_size) / 2), tf.int32)
    return _cut(image, tf.concat([offset, [image_size, image_size]], 0))


def _torch_resize_size(image_size: int, crop_pct: float) -> int:
    return math.floor(image_size / crop_pct + 1e-3)  # 240 / (240 / 255) is 254.99...


def describe_resize(
    resize: str,
    *,
    image_size: int,
    preprocess: str,
    crop_pct: float | None = None,
    channels: int = RGB,
) -> str:
    """Says what a program has to do with an image before an exported network sees it.

    Args:
      resize: a row of ``hparams.choices.RESIZES``.
      image_size: S, pixels, of evaluation.
      preprocess: as in ``decode_evaluation``.
      crop_pct: as in ``decode_evaluation``.
      channels: as in ``decode_training``.

    >>> describe_resize("crop", image_size=224, preprocess="v2")
    'cut the largest central square, and resize it (bilinear) to 224 x 224 pixels'
    """
    how = "bicubic" if preprocess == "v1" or "bicubic" in preprocess else "bilinear"
    is_torch = preprocess.startswith(_TORCH)
    how += " with antialiasing" if is_torch else ""
    target = f"{image_size} x {image_size} pixels"
    fill = RESIZES[resize].fill
    if fill is not None:
        level = f"grey level {fill}" if channels == RGB else "the mean of each channel"
        return (
            f"scale the whole image ({how}) so that its longer side is {image_size} pixels, and "
            f"centre it on {target} of {level}"
        )
    part = _kept_part(resize, image_size=image_size, preprocess=preprocess, crop_pct=crop_pct)
    if part == "published" and is_torch:
        shorter = _torch_resize_size(image_size, crop_pct or _TORCH_CROP_PCT)
        return (
            f"resize the image ({how}) so that its shorter side is {shorter} pixels, and cut the "
            f"central {target}"
        )
    share = f"{image_size}/{image_size + _CROP_PADDING}" if crop_pct is None else f"{crop_pct:.4g}"
    share += " of the shorter side long"
    cut = {
        "whole": "take the whole image",
        "square": "cut the largest central square",
        "published": f"cut the central square that is {share}",
    }[part]
    return f"{cut}, and resize it ({how}) to {target}"


def _decode_centre(
    encoded: tf.Tensor, window_of: Callable[[tf.Tensor], tf.Tensor], channels: int
) -> tf.Tensor:
    header = read_header(encoded, channels)

    def crop_jpeg() -> tf.Tensor:
        return decode_window(encoded, window_of(header.size), header=header, channels=channels)

    def crop_decoded() -> tf.Tensor:
        image = decode_channels(encoded, channels)
        return _cut(image, window_of(tf.shape(image)[:2]))

    return tf.cond(tf.reduce_max(header.size) > 0, crop_jpeg, crop_decoded)


def central_window(
    shape: tf.Tensor, *, image_size: int, round_up: bool, crop_pct: float | None = None
) -> tf.Tensor:
    """Returns int32 ``[y, x, h, w]``: a central square, S / (S + 32) of the shorter side long.

    Args:
      shape: int32 ``[height, width]`` of the image.
      image_size: S, pixels.
      round_up: whether offsets of half a pixel round up (V1) or down (V2).
      crop_pct: another share of the shorter side; None: S / (S + 32).
    """
    fraction = crop_pct or image_size / (image_size + _CROP_PADDING)
    side = tf.cast(fraction * tf.cast(tf.reduce_min(shape), tf.float32), tf.int32)
    side = tf.maximum(side, 1)  # of an image one pixel high or wide, that pixel
    offset = (shape - side + (1 if round_up else 0)) // 2
    return tf.concat([offset, [side, side]], 0)


def central_square(shape: tf.Tensor) -> tf.Tensor:
    """Returns int32 ``[y, x, h, w]``: the largest central square of an image ``[height, width]``.

    Offsets of half a pixel round down.
    """
    side = tf.reduce_min(shape)
    return tf.concat([(shape - side) // 2, [side, side]], 0)


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    y, x, height, width = tf.unstack(window)
    return image[y : y + height, x : x + width]


def _resize(image: tf.Tensor, size: tf.Tensor | list[int], *, preprocess: str) -> tf.Tensor:
    if preprocess.startswith(_TORCH):
        method = "bicubic" if "bicubic" in preprocess else "bilinear"
        resize = functools.partial(tf.image.resize, method=method, antialias=True)
        if image.shape[-1] != RGB:
            return resize(image, size)
        # As Pillow, with which these networks learned: whole numbers after each direction.
        size = tf.convert_to_tensor(size)
        for target in (tf.stack([tf.shape(image)[0], size[1]]), size):
            image = tf.round(tf.clip_by_value(resize(image, target), 0, 255))
        return image
    if preprocess != "v1":
        return tf.image.resize(image, size)
    # TensorFlow 1's kernel, corners aligned to pixel 0: the V1 weights were trained with it.
    images = tf.raw_ops.ResizeBicubic(images=[image], size=size, half_pixel_centers=False)
    return tf.squeeze(images, 0)
