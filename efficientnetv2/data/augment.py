"""Applies flips, rotations, colour jitter, RandAugment and its relatives, and cutout to an image.

Images are uint8 ``[S, S, 3]``; those of flips, rotations and random erasing float32.

Every draw is a function of the seed, and everything works inside ``Dataset.map``. S may be unknown
when the graph is built, and the magnitude is a tensor: neither a new image size nor a new magnitude
needs a new graph.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from efficientnetv2.data import default_ops, official_ops
from efficientnetv2.data.default_ops import DEFAULT, Op
from efficientnetv2.data.geometry import GREY, erase_box, erase_square, rotate_smoothly
from efficientnetv2.data.wide_space import BINS, WIDE
from hparams.registry import Registry


@dataclasses.dataclass(frozen=True)
class OpTable:
    """The operations by name, as RandAugment and as AutoAugment call them."""

    randaugment: Mapping[str, Op]
    autoaugment: Mapping[str, Op]


OP_TABLES: Registry[OpTable] = Registry("table of augmentation ops")
OP_TABLES.register("default", OpTable(DEFAULT, DEFAULT))
OP_TABLES.register("official", OpTable(official_ops.RANDAUGMENT, official_ops.AUTOAUGMENT))

# AutoAugment's policy v0, found on ImageNet (arXiv:1805.09501, as released). Each row is one
# sub-policy: operation, probability, magnitude; then the same of the second operation.
POLICY_V0 = (
    ("Equalize", 0.8, 1, "ShearY", 0.8, 4),
    ("Color", 0.4, 9, "Equalize", 0.6, 3),
    ("Color", 0.4, 1, "Rotate", 0.6, 8),
    ("Solarize", 0.8, 3, "Equalize", 0.4, 7),
    ("Solarize", 0.4, 2, "Solarize", 0.6, 2),
    ("Color", 0.2, 0, "Equalize", 0.8, 8),
    ("Equalize", 0.4, 8, "SolarizeAdd", 0.8, 3),
    ("ShearX", 0.2, 9, "Rotate", 0.6, 8),
    ("Color", 0.6, 1, "Equalize", 1.0, 2),
    ("Invert", 0.4, 9, "Rotate", 0.6, 0),
    ("Equalize", 1.0, 9, "ShearY", 0.6, 3),
    ("Color", 0.4, 7, "Equalize", 0.6, 0),
    ("Posterize", 0.4, 6, "AutoContrast", 0.4, 7),
    ("Solarize", 0.6, 8, "Color", 0.6, 9),
    ("Solarize", 0.2, 4, "Rotate", 0.8, 9),
    ("Rotate", 1.0, 7, "TranslateY", 0.8, 9),
    ("ShearX", 0.0, 0, "Solarize", 0.8, 4),
    ("ShearY", 0.8, 0, "Color", 0.6, 4),
    ("Color", 1.0, 0, "Rotate", 0.6, 2),
    ("Equalize", 0.8, 4, "Equalize", 0.0, 8),
    ("Equalize", 1.0, 4, "AutoContrast", 0.6, 2),
    ("ShearY", 0.4, 7, "SolarizeAdd", 0.6, 7),
    ("Posterize", 0.8, 2, "Solarize", 0.6, 10),
    ("Solarize", 0.6, 8, "Equalize", 0.6, 1),
    ("Color", 0.8, 6, "Rotate", 0.4, 5),
)

# AugMix leaves out what is a corruption of ImageNet-C: contrast, brightness, sharpness, noise.
_AUGMIX_OPS = (
    *("AutoContrast", "Equalize", "Posterize", "Rotate", "Solarize"),
    *("ShearX", "ShearY", "TranslateX", "TranslateY"),
)
_AUGMIX_CHAINS = 3
_AUGMIX_DEPTH = 3  # largest number of operations in a chain
_AUGMIX_SEVERITY = 3.0  # of the paper, where 10 is the full range, at magnitude 10

_ERASED_AREA = (0.02, 0.33)  # of the image
_ERASED_ASPECT = (0.3, 3.3)  # height divided by width
_ERASING_TRIES = 10


def rand_augment(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    magnitude: tf.Tensor | float,
    num_layers: int = 2,
    ops: str = "default",
) -> tf.Tensor:
    """Applies ``num_layers`` of the 16 operations, drawn uniformly (arXiv:1909.13719).

    Args:
      image: uint8 ``[S, S, 3]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      magnitude: strength of every operation, a float scalar of 0 or more; 10 is the official full
        range, and table 6 of the EfficientNetV2 paper goes from 5 to 25.
      num_layers: operations per image, one after the other.
      ops: row of ``OP_TABLES``.

    Returns:
      uint8 ``[S, S, 3]``.

    Raises:
      UnknownNameError: if there is no such table.
    """
    table = tuple(OP_TABLES[ops].randaugment.values())
    magnitude = tf.cast(tf.convert_to_tensor(magnitude, dtype_hint=tf.float64), tf.float64)
    uniforms = _uniform(seed, [num_layers, 4], stream="randaug")
    indices = tf.unstack(tf.cast(uniforms[:, 0] * len(table), tf.int32), num_layers)
    signs, centres = _signs_and_centres(uniforms[:, 1:])
    for index, sign, centre in zip(indices, signs, centres):
        image = _apply(table, index, image, magnitude, sign, centre)
    return image


def auto_augment(image: tf.Tensor, seed: tf.Tensor, *, ops: str = "default") -> tf.Tensor:
    """Applies one of the 25 sub-policies of AutoAugment's policy v0, drawn uniformly.

    Args:
      image: uint8 ``[S, S, 3]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      ops: row of ``OP_TABLES``.

    Returns:
      uint8 ``[S, S, 3]``.

    Raises:
      UnknownNameError: if there is no such table.
    """
    names, table = zip(*OP_TABLES[ops].autoaugment.items())
    rows = [[[names.index(n), p, m] for n, p, m in (row[:3], row[3:])] for row in POLICY_V0]
    uniforms = _uniform(seed, [2, 5], stream="autoaug")
    sub_policy = tf.constant(rows, tf.float32)[tf.cast(uniforms[0, 0] * len(rows), tf.int32)]
    is_skipped = uniforms[:, 1] >= sub_policy[:, 1]
    indices = tf.where(is_skipped, len(table), tf.cast(sub_policy[:, 0], tf.int32))
    magnitudes = tf.cast(sub_policy[:, 2], tf.float64)
    signs, centres = _signs_and_centres(uniforms[:, 2:])
    for index, *arguments in zip(tf.unstack(indices), tf.unstack(magnitudes), signs, centres):
        image = _apply(table, index, image, *arguments)
    return image


def trivial_augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Applies one of the 14 operations of the wide space, at one of 31 strengths.

    Operation and strength are drawn uniformly, and the sign where the operation has one
    (arXiv:2103.10158, algorithm 1 and table 1).

    Args:
      image: uint8 ``[S, S, 3]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.

    Returns:
      uint8 ``[S, S, 3]``.
    """
    table = tuple(WIDE.values())
    uniforms = _uniform(seed, [5], stream="trivial")
    index = tf.cast(uniforms[0] * len(table), tf.int32)
    magnitude = tf.floor(tf.cast(uniforms[1], tf.float64) * BINS)
    signs, centres = _signs_and_centres(uniforms[tf.newaxis, 2:])
    return _apply(table, index, image, magnitude, signs[0], centres[0])


def aug_mix(image: tf.Tensor, seed: tf.Tensor, *, magnitude: tf.Tensor | float) -> tf.Tensor:
    """Blends an image with a blend of three chains of operations (arXiv:1912.02781, algorithm 1).

    Each chain applies one to three of nine operations, drawn uniformly, to the image. The weights
    of the chains are uniform on the simplex (Dirichlet of 1, 1, 1), and the share of the image
    itself is uniform (Beta of 1, 1). The operations are those of RandAugment here. The loss that
    the paper adds, Jensen and Shannon's divergence between three views of an image, is left out.

    Args:
      image: uint8 ``[S, S, 3]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      magnitude: float scalar of 0 or more. Each operation has a strength of its own, drawn
        uniformly from 0 to ``0.3 * magnitude``, of which 10 is the full range; so a magnitude of
        10 is the paper's severity, 3.

    Returns:
      uint8 ``[S, S, 3]``.
    """
    table = tuple(DEFAULT[name] for name in _AUGMIX_OPS)
    severity = tf.cast(magnitude, tf.float64) * (_AUGMIX_SEVERITY / 10)
    uniforms = _uniform(seed, [1 + _AUGMIX_CHAINS * (2 + 3 * _AUGMIX_DEPTH)], stream="augmix")
    share, chains = uniforms[0], tf.reshape(uniforms[1:], [_AUGMIX_CHAINS, -1])
    exponentials = -tf.math.log1p(-chains[:, 0])
    weights = (1.0 - share) * exponentials / tf.reduce_sum(exponentials)
    mixed = share * tf.cast(image, tf.float32)
    for weight, draws in zip(tf.unstack(weights), tf.unstack(chains[:, 1:])):
        chain = _augmix_chain(image, table, draws, severity=severity)
        mixed += weight * tf.cast(chain, tf.float32)
    return tf.cast(mixed + 0.5, tf.uint8)


def _augmix_chain(
    image: tf.Tensor, table: tuple[Op, ...], draws: tf.Tensor, *, severity: tf.Tensor
) -> tf.Tensor:
    """Applies one to three operations, by draws in [0, 1): their number, then three of each."""
    number = 1 + tf.cast(draws[0] * _AUGMIX_DEPTH, tf.int32)
    each = tf.reshape(draws[1:], [_AUGMIX_DEPTH, 3])
    indices = tf.cast(each[:, 0] * len(table), tf.int32)
    indices = tf.where(tf.range(_AUGMIX_DEPTH) < number, indices, len(table))
    strengths = tf.cast(each[:, 1], tf.float64) * severity
    signs = tf.where(each[:, 2] < 0.5, -1.0, 1.0)
    for index, *arguments in zip(*map(tf.unstack, (indices, strengths, signs))):
        image = _apply(table, index, image, *arguments, tf.zeros([2]))
    return image


def color_jitter(image: tf.Tensor, seed: tf.Tensor, *, strengths: Sequence[float]) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in this order.

    Args:
      image: uint8 ``[S, S, 3]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      strengths: four numbers. The first three, in [0, 1], are of brightness, contrast and
        saturation, each of which is multiplied by a factor drawn uniformly from ``1 - strength``
        to ``1 + strength``. By the fourth, in [0, 0.5], hues are turned at most, as a share of the
        colour circle. What has a strength of 0 stays as it is.

    Returns:
      uint8 ``[S, S, 3]``.
    """
    changes = _uniform(seed, [4], stream="jitter") * 2.0 - 1.0
    ops = (default_ops.brightness, default_ops.contrast, default_ops.color, default_ops.hue)
    for op, strength, change in zip(ops, strengths, tf.unstack(changes)):
        if strength:
            image = op(image, strength * change)
    return image


def grey_as_colour(image: tf.Tensor, operation: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Applies an operation for colour images to a grey one, ``[S, S, 1]``, repeated thrice."""
    return operation(tf.repeat(image, 3, axis=-1))[..., :1]


def flip_vertically(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors half of the images top to bottom: ``[S, S, C]`` of any type; seed int64 ``[2]``."""
    is_flipped = _uniform(seed, [], stream="vertical") < 0.5
    return tf.cond(is_flipped, lambda: tf.reverse(image, [0]), lambda: image)


def turn_quarters(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Turns an image by 0, 90, 180 or 270 degrees, all equally likely; no pixel changes.

    Args:
      image: ``[S, S, C]`` of any type; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
    """
    quarters = tf.cast(_uniform(seed, [], stream="quarters") * 4, tf.int32)
    return tf.ensure_shape(tf.image.rot90(image, quarters), image.shape)


def rotate(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    degrees: float,
    colour: Sequence[float] | None = None,
) -> tf.Tensor:
    """Turns an image about its centre by an angle drawn uniformly; outside of it is grey.

    Args:
      image: float32 ``[S, S, C]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      degrees: the largest angle to either side, in [0, 180].
      colour: C levels of what is outside; None: grey.

    Returns:
      float32 ``[S, S, C]``, interpolated bilinearly.
    """
    angle = (_uniform(seed, [], stream="rotate") * 2.0 - 1.0) * degrees
    if colour is None:
        return rotate_smoothly(image, angle)
    levels = tf.constant(colour, tf.float32)  # 0 is outside, about the levels
    return rotate_smoothly(image - levels, angle, fill=0.0) + levels


def cutout(
    image: tf.Tensor, seed: tf.Tensor, *, size: float, colour: Sequence[float] | None = None
) -> tf.Tensor:
    """Paints a grey square about a random pixel (arXiv:1708.04552; EfficientNetV2, section 5.3).

    Args:
      image: ``[S, S, C]``, uint8 or float32; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      size: side of the square divided by that of the image, in (0, 1]. The square is cut off at
        the image's border.
      colour: C levels of the square; None: grey.

    Returns:
      ``[S, S, C]`` of the image's type.

    Raises:
      ValueError: if ``size`` is out of its range.
    """
    if not 0 < size <= 1:
        raise ValueError(f"cutout's size is a fraction of the image's side in (0, 1], got {size}")
    colour = (GREY,) * image.shape[-1] if colour is None else colour
    centre = _uniform(seed, [2], stream="cutout")
    return erase_square(image, tf.constant(size), centre, colour=colour)


def random_erase(
    image: tf.Tensor, seed: tf.Tensor, *, probability: float, colour: Sequence[float]
) -> tf.Tensor:
    """Paints a random rectangle of the image (arXiv:1708.04896, algorithm 1).

    It covers 2% to 33% of the area, drawn uniformly; its height is 0.3 to 3.3 times its width, and
    the logarithm of that is drawn uniformly. It lies inside the image: up to ten shapes are drawn
    until one fits, and nothing is painted if none does. The numbers, and one colour where the paper
    has noise, are those of torchvision's RandomErasing.

    Args:
      image: float32 ``[S, S, C]``; S may be unknown.
      seed: int64 ``[2]``; the same seed gives the same result.
      probability: of painting, in [0, 1].
      colour: C levels, such as red, green and blue, in the image's unit.

    Returns:
      float32 ``[S, S, C]``.

    Raises:
      ValueError: if ``probability`` is out of its range.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of random erasing is in [0, 1], got {probability}")
    uniforms = _uniform(seed, [2 * _ERASING_TRIES + 3], stream="erasing")
    is_painted, corner, shapes = uniforms[0] < probability, uniforms[1:3], uniforms[3:]
    areas, aspects = tf.unstack(tf.reshape(shapes, [2, _ERASING_TRIES]))
    side = tf.cast(tf.shape(image)[0], tf.float32)
    area = side * side * _between(areas, _ERASED_AREA)
    root = tf.exp(_between(aspects, tuple(math.log(x) / 2 for x in _ERASED_ASPECT)))
    sizes = tf.round(tf.sqrt(area)[:, tf.newaxis] * tf.stack([root, 1.0 / root], axis=1))
    fits = tf.reduce_all(sizes < side, axis=1)
    size = tf.gather(sizes, tf.argmax(fits))
    size = tf.where(is_painted & tf.reduce_any(fits), size, tf.zeros_like(size))
    # All corners from which the box ends inside are equally likely.
    begin = tf.cast(corner * (side - size + 1.0), tf.int32)
    end = begin + tf.cast(size, tf.int32)
    return erase_box(image, begin, end, colour=tf.constant(colour, image.dtype))


def _between(uniforms: tf.Tensor, ends: Sequence[float]) -> tf.Tensor:
    return ends[0] + uniforms * (ends[1] - ends[0])


def _uniform(seed: tf.Tensor, shape: list[int], *, stream: str) -> tf.Tensor:
    """Draws all random numbers of an image, float32 in [0, 1); ``stream`` names their user."""
    salt = tf.constant([0, int.from_bytes(stream.encode(), "big")], tf.int64)
    return tf.random.stateless_uniform(shape, tf.cast(seed, tf.int64) + salt, alg="philox")


def _signs_and_centres(uniforms: tf.Tensor) -> tuple[list, list]:
    """Returns a sign, 1 or -1, and a centre ``[2]`` for each row of ``[n, 3]``."""
    signs = tf.where(uniforms[:, 0] < 0.5, -1.0, 1.0)
    return tf.unstack(signs), tf.unstack(uniforms[:, 1:])


def _apply(
    table: tuple[Op, ...], index: tf.Tensor, image: tf.Tensor, *arguments: tf.Tensor
) -> tf.Tensor:
    """Runs only operation ``index`` of ``table``, or none if it is ``len(table)``.

    ``arguments`` are the magnitude, the sign and the centre.
    """
    # Not tf.switch_case: it is lowered to a graph in which each image visits the dead operations of
    # all branches, which takes longer than a cheap operation at 128 pixels.
    with tf.device("CPU:0"):  # images are prepared there; some operations have no GPU kernel
        return tf.raw_ops.StatelessCase(
            branch_index=index,
            input=[image, *arguments],
            Tout=[tf.uint8],
            branches=_branches(table),
            output_shapes=[image.shape],
        )[0]


@functools.cache
def _branches(table: tuple[Op, ...]) -> list:
    """Returns one traced function per operation, and a last one that leaves the image alone."""
    signature = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "magnitude": tf.TensorSpec([], tf.float64),
        "sign": tf.TensorSpec([], tf.float32),
        "centre": tf.TensorSpec([2], tf.float32),
    }

    def traced(op: Op) -> tf.types.experimental.ConcreteFunction:
        @tf.function(autograph=False)
        def branch(
            image: tf.Tensor, magnitude: tf.Tensor, sign: tf.Tensor, centre: tf.Tensor
        ) -> tf.Tensor:
            return op(image, magnitude=magnitude, sign=sign, centre=centre)

        return branch.get_concrete_function(**signature)

    with tf.init_scope():
        return [traced(op) for op in (*table, Op(tf.identity))]
