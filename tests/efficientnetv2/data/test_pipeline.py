"""The training stream is a function of (seed, step); evaluation sees every image once."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.pipeline import (
    build_evaluation_batches,
    build_training_input,
    evaluation_image,
)
from hparams import resolve

SETTINGS = {"data.crop_area": [0.5, 1.0], "data.flip": True, "train.batch_size": 64}


@pytest.fixture(scope="module")
def config():
    return resolve("efficientnetv2-s", "digits", SETTINGS)


@pytest.fixture(scope="module")
def stream(config, digits):
    return build_training_input(config, digits)


def take(dataset, count):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(count)]


@pytest.fixture(scope="module")
def uninterrupted(stream):
    return take(stream.batches(image_size=16, start_step=0), 2 * stream.steps_per_epoch + 3)


def test_steps_per_epoch(stream):
    assert stream.steps_per_epoch == 1257 // 64


def test_batches_are_normalised_and_one_hot(uninterrupted):
    images, labels = uninterrupted[0]
    assert images.shape == (64, 16, 16, 3) and images.dtype == np.float32
    assert -1.0 <= images.min() < -0.9 and 0.9 < images.max() <= 1.0
    assert labels.shape == (64, 10)
    np.testing.assert_array_equal(labels.sum(-1), 1)


@pytest.mark.parametrize("step", [1, 18, 19, 20, 37, 38, 40])
def test_stream_from_any_step_equals_the_uninterrupted_one(step, stream, uninterrupted):
    images, labels = take(stream.batches(image_size=16, start_step=step), 1)[0]
    np.testing.assert_array_equal(images, uninterrupted[step][0])
    np.testing.assert_array_equal(labels, uninterrupted[step][1])


def test_the_programs_global_seed_does_not_matter(stream, uninterrupted):
    tf.random.set_seed(0)
    zero = take(stream.batches(image_size=16, start_step=0), 1)[0]
    tf.random.set_seed(99)
    other = take(stream.batches(image_size=16, start_step=0), 1)[0]
    np.testing.assert_array_equal(zero[0], other[0])
    np.testing.assert_array_equal(zero[0], uninterrupted[0][0])


def test_another_seed_is_another_stream(stream, uninterrupted):
    other = dataclasses.replace(stream, seed=stream.seed + 1)
    images, _ = take(other.batches(image_size=16, start_step=0), 1)[0]
    assert np.mean(images != uninterrupted[0][0]) > 0.3


def test_epochs_have_other_orders_crops_and_flips(stream, uninterrupted):
    first, second = uninterrupted[0], uninterrupted[stream.steps_per_epoch]
    assert np.mean(first[1] != second[1]) > 0.1
    assert np.mean(first[0] != second[0]) > 0.3


def plain(stream, **changes):
    """The stream without crops, so that images can be recognised."""
    return dataclasses.replace(stream, area=(1.0, 1.0), flip=False, **changes)


def test_an_epoch_uses_each_image_at_most_once(stream):
    batches = take(plain(stream).batches(image_size=8, start_step=0), stream.steps_per_epoch)
    images = np.concatenate([images for images, _ in batches])
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    assert len(images) == 19 * 64
    assert distinct > 0.99 * len(images)  # scikit-learn's digits hold a few equal images


def test_half_of_the_images_are_mirrored(stream):
    straight = plain(stream)
    flipped = dataclasses.replace(straight, flip=True)
    pairs = zip(
        take(straight.batches(image_size=8, start_step=0), 10),
        take(flipped.batches(image_size=8, start_step=0), 10),
    )
    mirrored = same = 0
    for (a, _), (b, _) in pairs:
        same += int(np.all(a == b, axis=(1, 2, 3)).sum())
        mirrored += int(np.all(a[:, :, ::-1] == b, axis=(1, 2, 3)).sum())
    assert same + mirrored >= 640
    assert 0.43 < mirrored / 640 < 0.57  # 640 coins: 3.5 standard deviations


def test_all_sizes_have_one_type(stream):
    specs = {str(stream.batches(image_size=s, start_step=0).element_spec) for s in (8, 16, 24)}
    assert len(specs) == 1
    assert "(64, None, None, 3)" in specs.pop()


@pytest.mark.parametrize("batch_size", [7, 64, 360, 500])
def test_evaluation_sees_every_image_once_in_order(batch_size, digits):
    config = resolve("efficientnetv2-s", "digits", {"eval.batch_size": batch_size})
    batches = list(build_evaluation_batches(config, digits, split="test"))
    labels = np.concatenate([labels for _, labels in batches])
    expected = [int(label) for _, label in digits.examples("test")]
    assert labels.tolist() == expected
    assert [len(images) for images, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_evaluation_images_are_those_of_inference(config, digits):
    images, _ = next(iter(build_evaluation_batches(config, digits, split="test")))
    encoded, _ = next(iter(digits.examples("test")))
    np.testing.assert_array_equal(images[0], evaluation_image(config, encoded))
