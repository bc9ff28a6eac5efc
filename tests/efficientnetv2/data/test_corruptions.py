"""Tests corruptions of images against NumPy and Pillow, and that they are the same at each call."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return np.float32(rng.integers(60, 120, (8, 8, 3)).repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_change_a_little_and_always_alike(pixels, name):
    first, again = (CORRUPTIONS[name](tf.constant(pixels), tf.constant(7)) for _ in range(2))
    assert first.shape == pixels.shape and first.dtype == tf.float32
    np.testing.assert_array_equal(first, again)
    change = np.abs(first - pixels).mean()
    assert 0.5 < change < 60 and first.numpy().min() >= 0 and first.numpy().max() <= 255
    traced = tf.function(CORRUPTIONS[name])(tf.constant(pixels), tf.constant(7))
    np.testing.assert_allclose(traced, first, atol=1e-3)


@pytest.mark.parametrize("kind", ["blur", "noise", "brightness", "jpeg"])
def test_the_second_strength_is_stronger(pixels, kind):
    one, two = (
        np.abs(CORRUPTIONS[f"{kind}_{strength}"](tf.constant(pixels), tf.constant(0)) - pixels)
        for strength in (1, 2)
    )
    assert two.mean() > one.mean()


def test_each_image_has_its_own_noise(pixels):
    one, other = (CORRUPTIONS["noise_1"](tf.constant(pixels), tf.constant(n)) for n in (0, 1))
    assert np.abs(one - other).max() > 1
    assert np.std(one - pixels) == pytest.approx(0.04 * 255, rel=0.05)


def test_blur_is_a_gaussian(pixels):
    point = np.zeros((100, 100, 1), np.float32)
    point[50, 50] = 255
    found = CORRUPTIONS["blur_2"](tf.constant(point), tf.constant(0)).numpy()[..., 0]
    distance = (np.arange(100) - 50) ** 2
    expected = np.exp(-(distance[:, None] + distance) / (2 * 2**2))
    np.testing.assert_allclose(found, 255 * expected / expected.sum(), atol=0.1)
    assert found.sum() == pytest.approx(255, rel=1e-4)


def test_jpeg_is_that_of_the_quality(pixels):
    found = CORRUPTIONS["jpeg_2"](tf.constant(pixels), tf.constant(0)).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(pixels)).save(buffer, "JPEG", quality=25)
    assert np.abs(found - np.asarray(Image.open(buffer), np.float32)).mean() < 2
    grey = CORRUPTIONS["jpeg_2"](tf.constant(pixels[..., :1]), tf.constant(0))
    assert grey.shape == (64, 64, 1)


def test_pixels_beyond_the_range_of_bytes_are_cut_off():
    """Bicubic resizing leaves such pixels at edges; as bytes, the last few wrapped around."""
    beyond = np.random.default_rng(0).choice([-3, 258], (9, 7, 3)).astype("f4")
    number = tf.constant(0, tf.int64)
    for name in ("jpeg_1", "jpeg_2"):
        result = CORRUPTIONS[name](tf.constant(beyond), number)
        expected = CORRUPTIONS[name](tf.constant(beyond.clip(0, 255)), number)
        np.testing.assert_array_equal(result, expected)
