"""Colour jitter, flips and rotations: their pixels, and what they draw."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from efficientnetv2.data import augment, default_ops, geometry
from tests.efficientnetv2.data.draws import SIGMAS, chi_square, distance, over_seeds, photo

# Pixels from whose means over channels, and differences, the factors can be read.
PAIR = np.array([[[90, 90, 90], [110, 110, 110]], [[110, 110, 110], [90, 90, 90]]])
COLOUR = np.full([2, 2, 3], (125, 100, 75))


@pytest.mark.parametrize(
    ("number", "image", "factor"),
    [
        (0, PAIR, lambda images: images.mean((1, 2, 3)) / 100),
        (1, PAIR, lambda images: (images[:, 0, 1, 0] - images[:, 0, 0, 0]) / 20),
        (2, COLOUR, lambda images: (images[:, 0, 0, 0] - images[:, 0, 0, 2]) / 50),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter_draws_its_factors_evenly(number, image, factor, seed):
    strengths = np.eye(4)[number] * 0.5
    images = over_seeds(
        lambda image, seed: augment.color_jitter(image, seed, strengths=strengths),
        image,
        count=1500,
        seed=seed,
    )
    factors = factor(images.astype(float))
    step = 1 / 20  # of one grey level
    assert 0.5 - step <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5 + step
    assert factors.mean() == pytest.approx(1, abs=SIGMAS / np.sqrt(12 * 1500))
    assert (factors < 1 - step).mean() == pytest.approx((factors > 1 + step).mean(), abs=0.1)
    assert np.histogram(factors, 5, (0.5, 1.5))[0].min() > 200


def test_jitter_turns_hues_to_both_sides(seed):
    red = np.full([2, 2, 3], (200, 100, 100))
    images = over_seeds(
        lambda image, seed: augment.color_jitter(image, seed, strengths=(0, 0, 0, 0.1)),
        red,
        count=500,
        seed=seed,
    )[:, 0, 0].astype(float)
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in images])
    hues = (hues + 0.5) % 1 - 0.5
    assert -0.101 < hues.min() < -0.09 and 0.09 < hues.max() < 0.101
    assert hues.mean() == pytest.approx(0, abs=SIGMAS * 0.2 / np.sqrt(12 * 500))


def test_jitter_is_what_pillow_makes_of_the_same_factors(seed):
    picture = load_sample_image("flower.jpg")[200:264, 200:264]
    strengths = np.array([0.4, 0.3, 0.6])
    for index in range(5):
        draws = augment._uniform([seed, index], [4], stream="jitter").numpy()[:3]
        theirs = Image.fromarray(picture)
        for kind, factor in zip(
            ("Brightness", "Contrast", "Color"), 1 + strengths * (2 * draws - 1)
        ):
            theirs = getattr(ImageEnhance, kind)(theirs).enhance(factor)
        ours = augment.color_jitter(picture, [seed, index], strengths=(*strengths, 0.0))
        difference = np.abs(ours.numpy().astype(int) - np.array(theirs))
        assert difference.max() <= 4  # Pillow cuts off fractions after each of the three
        assert difference.mean() < 1.5


def test_jitter_of_no_strength_changes_no_bit(seed):
    ours = augment.color_jitter(photo(16), [seed, 1], strengths=(0.0,) * 4)
    np.testing.assert_array_equal(ours, photo(16))


# ---------------------------------------------------------------------- flips and rotations


def test_half_of_the_images_are_mirrored_top_to_bottom(seed):
    image = photo(6).numpy()
    images = over_seeds(augment.flip_vertically, image, count=400, seed=seed)
    flipped = (images == image[::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(images[~flipped], np.broadcast_to(image, images[~flipped].shape))
    assert flipped.sum() == pytest.approx(200, abs=SIGMAS * 10)


def test_quarter_turns_are_exact_and_equally_frequent(seed):
    image = photo(6).numpy()
    images = over_seeds(augment.turn_quarters, image, count=800, seed=seed)
    found = np.array([(images == np.rot90(image, k)).all((1, 2, 3)) for k in range(4)])
    np.testing.assert_array_equal(found.sum(0), 1)
    assert chi_square(found.sum(1)) < SIGMAS


@pytest.mark.parametrize("degrees", [30.0, 180.0])
def test_images_are_turned_by_all_angles_alike(degrees, seed):
    image = np.full([41, 41, 3], 128.0, np.float32)
    image[18:23, 35:38] = 255  # at the right of the centre
    images = over_seeds(
        lambda image, seed: augment.rotate(tf.cast(image, tf.float32), seed, degrees=degrees),
        image,
        count=600,
        seed=seed,
    )
    light = images[..., 0] - 128
    rows, columns = np.mgrid[-20:21, -20:21]
    angles = np.degrees(np.arctan2(-(light * rows).sum((1, 2)), (light * columns).sum((1, 2))))
    assert np.abs(angles).max() < degrees + 0.5
    assert distance(angles, np.linspace(-degrees, degrees, 20_001)) < 2.2 / np.sqrt(600)


def bilinear(image, degrees):
    """The image turned counter-clockwise about its centre, a pixel at a time; 128 outside."""
    side = len(image)
    bordered = np.pad(image.astype(float), ((1, 2), (1, 2), (0, 0)), constant_values=128)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.full(image.shape, 128.0)
    for row, column in np.ndindex(side, side):
        y, x = row - (side - 1) / 2, column - (side - 1) / 2
        source = np.array([cosine * y + sine * x, -sine * y + cosine * x]) + (side - 1) / 2
        if (source <= -1).any() or (source >= side).any():
            continue
        top, left = np.floor(source).astype(int)
        down, right = source - np.floor(source)
        square = bordered[top + 1 : top + 3, left + 1 : left + 3]
        upper, lower = square[:, 0] * (1 - right) + square[:, 1] * right
        turned[row, column] = upper * (1 - down) + lower * down
    return turned


@pytest.mark.parametrize("degrees", [0.0, 17.0, -45.0, 90.0, 180.0])
@pytest.mark.parametrize("side", [8, 13])
def test_a_smooth_rotation_is_the_bilinear_one(degrees, side):
    image = tf.cast(photo(side), tf.float32)
    ours = geometry.rotate_smoothly(image, tf.constant(degrees)).numpy()
    np.testing.assert_allclose(ours, bilinear(image.numpy(), degrees), atol=0.05)
    if degrees % 90 == 0:
        np.testing.assert_allclose(ours, np.rot90(image, degrees // 90), atol=0.05)
    if degrees == 0:
        np.testing.assert_array_equal(ours, image)


@pytest.mark.parametrize("turn", [0.0, 0.1, -0.25, 0.5])
def test_hue_turns_each_pixel_in_the_colour_circle(turn):
    image = photo(12).numpy()
    ours = default_ops.hue(image, tf.constant(turn)).numpy().reshape(-1, 3)
    for before, after in zip(image.reshape(-1, 3) / 255, ours):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(after, np.array(expected) * 255, atol=0.51)
    if turn == 0:
        np.testing.assert_array_equal(ours, image.reshape(-1, 3))
