"""Decoding, cropping and painting images of other numbers of channels than 3."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data.channel_image import decode_channels
from efficientnetv2.data.decode import decode_evaluation, decode_training
from efficientnetv2.data.image_formats import decode_image
from efficientnetv2.data.preprocess import denormalise, normalise, to_pixels
from efficientnetv2.data.schedule import StepSettings
from efficientnetv2.data.training_image import TrainingImage
from hparams.choices import Normalisation

LUMA = np.array([0.299, 0.587, 0.114])
SEED = tf.constant([3, 4], tf.int64)


def encode(array, file_format="PNG", **options):
    file = io.BytesIO()
    if file_format == "npy":
        np.save(file, array)
    else:
        Image.fromarray(array).save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3)).astype(np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_colours_become_brightness(pixels, file_format):
    data = encode(pixels, file_format)
    grey = decode_channels(tf.constant(data), 1)
    assert (grey.dtype, grey.shape) == (tf.float32, (40, 50, 1))
    np.testing.assert_allclose(grey[..., 0], decode_image(data).numpy() @ LUMA, atol=1e-3)


def test_grey_of_16_bits_keeps_its_precision(seed):
    deep = np.random.default_rng(seed).integers(0, 65536, (5, 6)).astype(np.uint16)
    for file_format in ("PNG", "TIFF", "npy"):
        grey = decode_channels(tf.constant(encode(deep, file_format)), 1)
        np.testing.assert_allclose(grey[..., 0], deep / 257, rtol=1e-5)


def test_a_window_of_a_jpeg_is_that_of_the_whole(pixels):
    data = encode(np.kron(pixels[:8, :8], np.ones((16, 16, 1), np.uint8)), "JPEG", quality=95)
    crop = {"image_size": 32, "preprocess": "v2", "area": (0.3, 0.6), "aspect": (1, 1)}
    colour, grey = (
        decode_training(tf.constant(data), SEED, channels=channels, **crop).numpy()
        for channels in (3, 1)
    )
    np.testing.assert_allclose(grey[..., 0], colour @ LUMA, atol=1e-2)


@pytest.mark.parametrize("resize", ["published", "squash", "crop", "letterbox"])
def test_floats_are_resized_and_not_clipped(resize):
    levels = (-3000.0, 0.5, 1e5, 7.0)
    data = tf.constant(encode(np.full((20, 30, 4), levels, np.float32), "npy"))
    settings = {"preprocess": "v2", "resize": resize, "channels": 4, "fill": levels}
    seen = decode_evaluation(data, image_size=16, **settings)
    np.testing.assert_allclose(seen, np.broadcast_to(levels, (16, 16, 4)), rtol=1e-4)
    trained = decode_training(
        data, SEED, image_size=48, area=(0.2, 1), aspect=(0.8, 1.2), **settings
    )
    np.testing.assert_allclose(trained, np.broadcast_to(levels, (48, 48, 4)), rtol=1e-4)


def test_what_is_around_a_letterboxed_image_has_the_means():
    data = tf.constant(encode(np.zeros((10, 20, 2), np.uint8), "npy"))
    seen = decode_evaluation(
        data, image_size=16, preprocess="v1", resize="letterbox", channels=2, fill=(5, 9)
    )
    np.testing.assert_allclose(seen[:4], np.broadcast_to((5, 9), (4, 16, 2)), atol=1e-5)
    np.testing.assert_allclose(seen[4:12], np.zeros((8, 16, 2)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_geometry_and_erasing_work_on_any_number_of_channels(seed, channels):
    """Each channel of an image with equal channels stays equal to the others, and in its range."""
    rng = np.random.default_rng(seed)
    one = rng.uniform(2000, 3000, (24, 24, 1)).astype(np.float32)
    data = tf.constant(encode(np.repeat(one, channels, -1), "npy"))
    transform = TrainingImage(
        preprocess="v2",
        vertical_flip=True,
        quarter_turns=True,
        rotate=45,
        cutout=0.5,
        random_erasing=1.0,
        measured=Normalisation((2500.0,) * channels, (300.0,) * channels, "mean_std"),
    )
    image = transform.image(data, SEED, settings_of(24)).numpy()
    assert (image.shape, image.dtype) == ((24, 24, channels), np.float32)
    assert 1999 < image.min() < image.max() < 3001
    np.testing.assert_allclose(image, np.repeat(image[..., :1], channels, -1), rtol=1e-6)
    assert np.mean(np.abs(image[..., 0] - 2500) < 1e-2) > 0.1  # painted with the mean


def settings_of(size):
    return StepSettings(
        image_size=tf.constant(size),
        magnitude=tf.constant(5.0),
        mixup_alpha=tf.constant(0.0),
        cutmix_alpha=tf.constant(0.0),
        dropout_rate=tf.constant(0.0),
        batch_size=tf.constant(1),
    )


@pytest.mark.parametrize("name", ["randaug", "augmix"])
def test_a_grey_image_is_augmented_as_its_colour_version(pixels, name):
    grey = pixels[..., 0].copy()
    common = {"preprocess": "v2", "name": name, "color_jitter": (0.4, 0.4, 0.4)}
    one = TrainingImage(**common, measured=Normalisation((99.0,), (50.0,), "mean_std"))
    colour = TrainingImage(**common).image(tf.constant(encode(grey)), SEED, settings_of(32))
    image = one.image(tf.constant(encode(grey)), SEED, settings_of(32))
    assert (image.shape, image.dtype) == ((32, 32, 1), tf.float32)
    difference = np.abs(image[..., 0] - colour.numpy()[..., 0].astype(np.float32))
    assert np.mean(difference > 1) < 0.02  # a rounding before it may be magnified by Equalize


def test_normalisation_is_undone_and_shown():
    row = Normalisation((1000.0, 5.0), (10.0, 0.5), "mean_std")
    pixels = np.float32([[[1000, 5], [1025, 3], [900, 5]]])
    normalised = normalise(tf.constant(pixels), row).numpy()
    np.testing.assert_allclose(normalised, [[[0, 0], [2.5, -4], [-10, 0]]], atol=1e-5)
    np.testing.assert_allclose(denormalise(normalised, row), pixels, rtol=1e-6)
    np.testing.assert_array_equal(to_pixels(normalised, row), [[[128] * 3, [255] * 3, [0] * 3]])
    four = Normalisation((0.0,) * 4, (1.0,) * 4, "mean_std")
    shown = to_pixels(np.float32([[[0, 2.5, -2.5, 9]]]), four)
    np.testing.assert_array_equal(shown, [[[128, 255, 0]]])
