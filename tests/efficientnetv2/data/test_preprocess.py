"""Normalisation is undone to the very pixels."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.preprocess import denormalise, normalise, to_pixels
from hparams.choices import AUGMENTATIONS, NORMALISATIONS


@pytest.mark.parametrize("preprocess", NORMALISATIONS)
def test_pixels_come_back_as_they_were(preprocess: str) -> None:
    pixels = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3) % 256
    normalised = normalise(tf.constant(pixels), preprocess).numpy()
    np.testing.assert_allclose(denormalise(normalised, preprocess), pixels, atol=1e-4)
    back = to_pixels(normalised, preprocess)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


def test_values_beyond_the_pixels_are_clipped_and_others_rounded() -> None:
    images = np.float32([[-9.0, 9.0, (100.6 - 128) / 128]])
    np.testing.assert_array_equal(to_pixels(images, "v2"), [[0, 255, 101]])
    np.testing.assert_allclose(denormalise(images, "v2"), [[0, 255, 100.6]], rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, row in AUGMENTATIONS.items() if row.function])
def test_each_augmentation_has_its_function(name: str) -> None:
    row = AUGMENTATIONS[name]
    known = {"magnitude": 5.0, "num_layers": 1, "ops": "default"}
    arguments = {argument: known[argument] for argument in row.arguments}
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), tf.uint8)
    outcome = getattr(augment, row.function)(image, tf.constant([0, 3], tf.int64), **arguments)
    assert outcome.dtype == tf.uint8 and outcome.shape == (8, 8, 3)
