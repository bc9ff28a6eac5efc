"""Mixes the images and targets of a training batch by mixup and CutMix.

mixup (arXiv 1710.09412) blends each image with another one of the batch; CutMix (arXiv 1905.04899)
replaces a box of it by the same box of the other one. The targets, one-hot or multi-hot, are mixed
with the same weights. Every draw is a function of the seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Union

import tensorflow as tf

from hparams.registry import UnknownNameError, did_you_mean

Alpha = Union[float, tf.Tensor]  # a scalar >= 0; as a tensor it may change from batch to batch
Batch = tuple[tf.Tensor, tf.Tensor]  # images [n, H, W, C] and targets float32 [n, K]
Box = tuple[tf.Tensor, tf.Tensor]  # centres and halves of the sides, float32 [2, n], y and x


def mix(
    images: tf.Tensor,
    targets: tf.Tensor,
    seed: tf.Tensor,
    *,
    mixup_alpha: Alpha,
    cutmix_alpha: Alpha,
    table: str = "default",
) -> Batch:
    """Mixes a batch by mixup, by CutMix, half by each, or not at all, depending on the alphas.

    If one alpha is above 0, its method mixes the whole batch. If both are, mixup takes the first
    B // 2 images and CutMix the others (one more where B is odd). If both are 0, the same tensors
    are returned. The larger an alpha, the more even the mixture (1: uniform weights).

    Each image has its own weight. In a blend it weighs at least as much as its partner; with CutMix
    it keeps what the box leaves, possibly nothing. Partners are taken from the unmixed batch. No
    image is its own partner, except in a batch of one, which stays as it is (with mixup: up to
    rounding).

    Args:
      images: float32 ``[B, H, W, C]``; any size may be dynamic.
      targets: float32 ``[B, K]``.
      seed: int64 ``[2]``; the same seed draws the same weights, boxes and partners.
      mixup_alpha: scalar >= 0, a number or a tensor; 0 is off.
      cutmix_alpha: as ``mixup_alpha``.
      table: row of ``MIXERS``: ``default``, or ``official``, which differs in three ways: partners
        are taken in reverse order within the part of the batch that one method mixes (the middle
        image of an odd part stays as it is), boxes have even sides, and all targets of CutMix are
        weighted by the mean of the boxes' areas instead of their own.

    Returns:
      Images and targets of the same shapes.

    Raises:
      UnknownNameError: if ``MIXERS`` has no row ``table``.
    """
    if table not in MIXERS:
        raise UnknownNameError(f"unknown mixer '{table}'{did_you_mean(table, MIXERS)}")
    mixed = MIXERS[table](images, targets, seed, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
    return tf.ensure_shape(mixed[0], images.shape), tf.ensure_shape(mixed[1], targets.shape)


def mixup(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, *, alpha: Alpha) -> Batch:
    """Mixes the whole batch by mixup; arguments and result as in ``mix``."""
    return mix(images, targets, seed, mixup_alpha=alpha, cutmix_alpha=0.0)


def cutmix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, *, alpha: Alpha) -> Batch:
    """Mixes the whole batch by CutMix; arguments and result as in ``mix``."""
    return mix(images, targets, seed, mixup_alpha=0.0, cutmix_alpha=alpha)


def _mix(
    images: tf.Tensor,
    targets: tf.Tensor,
    seed: tf.Tensor,
    *,
    mixup_alpha: Alpha,
    cutmix_alpha: Alpha,
    partners: Callable[..., tf.Tensor],
    box: Callable[..., Box],
    target_weights: Callable[[tf.Tensor], tf.Tensor],
) -> Batch:
    """Implements ``mix`` with a table's choice of partners, boxes and target weights."""
    shape = tf.shape(images)
    count, half = shape[0], shape[0] // 2
    mixup_alpha, cutmix_alpha = (tf.cast(a, tf.float32) for a in (mixup_alpha, cutmix_alpha))
    order_seed, mixup_seed, cutmix_seed = tf.unstack(tf.random.split(seed, 3))

    def pairs(part: slice, first: tf.Tensor) -> tuple[Batch, Batch]:
        order = partners(count, first, seed=order_seed)[part]
        own = images[part], targets[part]
        return own, (tf.gather(images, order), tf.gather(targets, order))

    def keep() -> Batch:
        return images, targets

    def blend_first(first: tf.Tensor) -> Batch:
        own, other = pairs(slice(None, first), first)
        beta = symmetric_beta(tf.random.stateless_uniform([2, first], mixup_seed), mixup_alpha)
        return blend(own, other, weight=tf.minimum(beta, 1 - beta))

    def paste_rest(first: tf.Tensor) -> Batch:
        own, other = pairs(slice(first, None), first)
        uniforms = tf.random.stateless_uniform([4, count - first], cutmix_seed)
        area = 1 - symmetric_beta(uniforms[:2], cutmix_alpha)
        size = tf.cast(shape[1:3], tf.float32)
        centre, half_sides = box(size, area, uniforms=uniforms[2:])
        return paste(own, other, centre=centre, half=half_sides, target_weights=target_weights)

    def blend_and_paste() -> Batch:
        first, rest = blend_first(half), paste_rest(half)
        return tf.concat([first[0], rest[0]], 0), tf.concat([first[1], rest[1]], 0)

    blend_all, paste_all = functools.partial(blend_first, count), functools.partial(paste_rest, 0)
    case = tf.cast(mixup_alpha > 0, tf.int32) + 2 * tf.cast(cutmix_alpha > 0, tf.int32)
    return tf.switch_case(case, [keep, blend_all, paste_all, blend_and_paste])


def blend(own: Batch, other: Batch, *, weight: tf.Tensor) -> Batch:
    """Returns ``(1 - weight) own + weight other`` of images and targets; weight float32 ``[n]``."""
    images, targets = (_weighted(a, b, weight=weight) for a, b in zip(own, other))
    return images, targets


def paste(
    own: Batch,
    other: Batch,
    *,
    centre: tf.Tensor,
    half: tf.Tensor,
    target_weights: Callable[[tf.Tensor], tf.Tensor],
) -> Batch:
    """Replaces the pixels of a box of each image by those of its partner.

    Args:
      own: n images and their targets.
      other: their partners.
      centre: float32 ``[2, n]``, y and x of each box's centre; pixel 0 reaches from 0 to 1.
      half: float32 ``[2, n]``, half of each box's height and width. A box takes the pixels whose
        centres lie inside it; what extends over the border is cut off.
      target_weights: ``own_area`` or ``mean_area``: maps the fraction of each image that its box
        replaced to the partner's weight in the target, both float32 ``[n]``.
    """
    count, height, width, channels = tf.unstack(tf.shape(own[0]))
    rows = _inside(height, centre[0], half=half[0])
    columns = _inside(width, centre[1], half=half[1])
    # The mask repeats a column for each channel: a selection among equal shapes is three times as
    # fast as one that broadcasts a mask of one channel.
    mask = rows[:, :, tf.newaxis] & tf.repeat(columns, channels, axis=1)[:, tf.newaxis]
    flat = [count, height, width * channels]
    images = tf.where(mask, tf.reshape(other[0], flat), tf.reshape(own[0], flat))

    replaced = _count(rows) * _count(columns) / tf.cast(height * width, tf.float32)
    targets = _weighted(own[1], other[1], weight=target_weights(replaced))
    return tf.reshape(images, tf.shape(own[0])), targets


def symmetric_beta(uniforms: tf.Tensor, alpha: Alpha) -> tf.Tensor:
    """Maps float32 ``[2, n]``, uniform in [0, 1), to ``[n]`` draws of Beta(alpha, alpha).

    ``1/2 + T / (2 sqrt(2 alpha + T^2))``, where T has Student's distribution with 2 alpha degrees
    of freedom: ``T = sqrt(2 alpha (u^(-1/alpha) - 1)) cos(2 pi v)`` (Bailey 1994, "Polar generation
    of random variates with the t-distribution"). This holds for every alpha > 0. The usual ratio of
    two gamma draws fails for small ones: TensorFlow clips draws that underflow to the same smallest
    number, so with an alpha of 0.01 one draw in six is exactly 1/2.
    """
    u, v = tf.unstack(uniforms)
    cosine = tf.cos(2 * math.pi * v)
    # T^2 / (2 alpha), from 0 to infinity; computed from 1 - u, which is uniform too and never 0.
    odds = tf.math.expm1(-tf.math.log1p(-u) / alpha) * cosine**2
    root = tf.sqrt(1 / (1 + 1 / odds))  # 2 |draw - 1/2|
    smaller = 1 / (1 + odds) / (2 * (1 + root))  # (1 - root) / 2, exact where root is nearly 1
    return tf.where(cosine < 0, smaller, 1 - smaller)


def _weighted(own: tf.Tensor, other: tf.Tensor, *, weight: tf.Tensor) -> tf.Tensor:
    weight = tf.reshape(weight, [-1] + [1] * (len(own.shape) - 1))
    return own * (1 - weight) + other * weight


def _inside(length: tf.Tensor, centre: tf.Tensor, *, half: tf.Tensor) -> tf.Tensor:
    pixels = tf.range(length, dtype=tf.float32) + 0.5
    return tf.abs(pixels - centre[:, tf.newaxis]) < half[:, tf.newaxis]


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)


def real_box(size: tf.Tensor, area: tf.Tensor, *, uniforms: tf.Tensor) -> Box:
    """Returns the centres and half sides of boxes, as ``paste`` takes them.

    The sides are not rounded, so that boxes cover ``area`` of small images too, on average.

    Args:
      size: float32 ``[2]``, the images' height and width.
      area: float32 ``[n]``, fraction of the image that each box covers before it is clipped.
      uniforms: float32 ``[2, n]``, in [0, 1): where the centre lies.
    """
    size = size[:, tf.newaxis]
    return uniforms * size, tf.sqrt(area) * size / 2


def even_box(size: tf.Tensor, area: tf.Tensor, *, uniforms: tf.Tensor) -> Box:
    """Returns boxes as ``real_box``, sides rounded down to even numbers and centres to integers."""
    centre, half = real_box(size, area, uniforms=uniforms)
    return tf.floor(centre), tf.floor(tf.floor(2 * half) / 2)


def shifted_partners(count: tf.Tensor, first: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Returns int32 ``[count]``: partners some places further on in the batch, wrapping around.

    A batch is in random order, so one random shift serves all images. No image is its own partner.
    """
    del first
    shift = tf.random.stateless_uniform([], seed, 1, tf.maximum(count, 2), tf.int32)
    return (tf.range(count) + shift) % count


def reversed_partners(count: tf.Tensor, first: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Returns int32 ``[count]``: the first ``first`` indices reversed, then the others reversed."""
    del seed
    index = tf.range(count)
    return tf.where(index < first, first - 1 - index, first + count - 1 - index)


def own_area(replaced: tf.Tensor) -> tf.Tensor:
    """Returns each image's own fraction of replaced pixels."""
    return replaced


def mean_area(replaced: tf.Tensor) -> tf.Tensor:
    """Returns the mean fraction of all images for each of them, as the official code does."""
    return tf.fill(tf.shape(replaced), tf.reduce_mean(replaced))


MIXERS: dict[str, Callable[..., Batch]] = {
    "default": functools.partial(
        _mix, partners=shifted_partners, box=real_box, target_weights=own_area
    ),
    "official": functools.partial(
        _mix, partners=reversed_partners, box=even_box, target_weights=mean_area
    ),
}
