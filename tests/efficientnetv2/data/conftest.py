"""Lets pipelines of the digits start quickly."""

import pytest
import tensorflow as tf

from efficientnetv2.data import training_image
from efficientnetv2.data.decode import random_window


def decode_digit(encoded, seed, *, image_size, preprocess, area, aspect, resize, **_):
    """Does what ``decode_training`` does with a digit: enlarges, crops and resizes it."""
    target = [image_size, image_size]
    larger = tf.image.resize(tf.io.decode_png(encoded, channels=3), target)
    window = random_window(tf.shape(larger)[:2], seed, area=area, aspect=aspect)
    y, x, height, width = tf.unstack(window)
    return tf.image.resize(larger[y : y + height, x : x + width], target)


@pytest.fixture(scope="module")
def only_digits():
    """Decodes training images as digits: the graph of all file formats takes long to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_image, "decode_training", decode_digit)
        yield
