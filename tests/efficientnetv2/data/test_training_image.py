"""A training image's augmentations: their order, their schedule, and zero strengths."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.schedule import StepSettings
from efficientnetv2.data.training_image import TrainingImage, jitter_strengths

pytestmark = pytest.mark.usefixtures("only_digits")
SETTINGS = StepSettings(32, 8.0, 0.0, 0.0, 0.0, 16)
JITTER = (0.3, 0.2, 0.4, 0.05)
PLAIN = TrainingImage("v2", flip=False)
ALL = dataclasses.replace(
    PLAIN,
    vertical_flip=True,
    quarter_turns=True,
    rotate=40.0,
    color_jitter=JITTER,
    name="augmix",
    cutout=0.25,
)


@pytest.fixture(scope="module")
def encoded(digits):
    """One digit."""
    reference = next(iter(digits.references("train", seed=None, buffer=1)))
    return digits.load(reference)[1]


def images_of(transform, encoded, seed, *, count=8, settings=SETTINGS):
    """Images ``[count, S, S, 3]`` of one digit, each with another seed."""
    seeds = tf.constant([[seed, index] for index in range(count)], tf.int64)
    return np.array([transform.image(encoded, one, settings) for one in tf.unstack(seeds)])


def test_the_order_is_the_stated_one(encoded, seed):
    expected = []
    for index, image in enumerate(images_of(PLAIN, encoded, seed)):
        key = tf.constant([seed, index], tf.int64)
        image = augment.flip_vertically(tf.constant(image), key)
        image = augment.turn_quarters(image, key)
        image = augment.rotate(image, key, degrees=40.0)
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        image = augment.color_jitter(image, key, strengths=JITTER)
        image = augment.aug_mix(image, key, magnitude=8.0)
        expected.append(augment.cutout(image, key, size=0.25))
    ours = images_of(ALL, encoded, seed)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, expected)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(encoded, seed):
    ours = images_of(ALL, encoded, seed)
    np.testing.assert_array_equal(ours, images_of(ALL, encoded, seed))
    others = images_of(ALL, encoded, seed + 1)
    assert not any(np.array_equal(one, other) for one, other in zip(ours, others))


@pytest.mark.parametrize(
    "change",
    [{"vertical_flip": True}, {"quarter_turns": True}, {"rotate": 90.0}, {"color_jitter": JITTER}],
    ids=str,
)
def test_what_is_added_does_not_change_the_other_draws(change, encoded, seed):
    # Cutout's square stays where it is; all else of the image may change.
    whole = images_of(PLAIN, encoded, seed)
    before = images_of(dataclasses.replace(PLAIN, cutout=0.25), encoded, seed)
    after = images_of(dataclasses.replace(PLAIN, cutout=0.25, **change), encoded, seed)
    square = (before == 128).all(-1) & (np.abs(whole - 128) > 1).all(-1)
    assert (after[square] == 128).all() and square.any((1, 2)).all()
    assert (before != after).any((1, 2, 3)).sum() >= 2


def test_zero_strengths_leave_every_bit(encoded, seed):
    off = dataclasses.replace(PLAIN, rotate=0.0, color_jitter=(0.0,) * 4)
    ours = images_of(off, encoded, seed)
    assert ours.dtype == np.float32  # nothing needed bytes
    np.testing.assert_array_equal(ours, images_of(PLAIN, encoded, seed))


def test_the_magnitude_of_the_stage_is_that_of_augmix(encoded, seed):
    mixed = dataclasses.replace(PLAIN, name="augmix")
    plain = images_of(PLAIN, encoded, seed, count=16)
    changes = []
    for magnitude in (1.0, 10.0, 30.0):
        settings = dataclasses.replace(SETTINGS, magnitude=magnitude)
        images = images_of(mixed, encoded, seed, count=16, settings=settings)
        changes.append(np.abs(images - plain).mean())
    assert changes[0] < 0.8 * changes[1] < 0.8 * changes[2], changes


def test_one_number_of_jitter_is_for_three():
    assert jitter_strengths([0.4]) == (0.4, 0.4, 0.4, 0.0)
    assert jitter_strengths([0.4, 0.1, 0.2]) == (0.4, 0.1, 0.2, 0.0)
    assert jitter_strengths([0.4, 0.1, 0.2, 0.05]) == (0.4, 0.1, 0.2, 0.05)
