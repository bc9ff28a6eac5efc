"""AugMix's draws, and its strength at a magnitude."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.default_ops import Op
from tests.efficientnetv2.data.draws import SIGMAS, chi_square, distance, over_seeds, photo


def painter(*colour):
    """An op that paints the image in one colour."""
    return Op(lambda image: tf.zeros_like(image) + tf.constant(colour, tf.uint8))


def mixed_colours(monkeypatch, table, *, count, seed):
    """Shares ``[n, 3]`` of the colours of a table's ops after AugMix, of the whole."""
    monkeypatch.setattr(augment, "DEFAULT", table)
    monkeypatch.setattr(augment, "_AUGMIX_OPS", tuple(table))
    images = over_seeds(
        lambda image, seed: augment.aug_mix(image, seed, magnitude=10),
        [[[0, 0, 0]]],
        count=count,
        seed=seed,
    )
    return images[:, 0, 0] / 255


def test_augmix_keeps_a_uniform_share_of_the_image(monkeypatch, seed):
    white = mixed_colours(monkeypatch, {"White": painter(255, 255, 255)}, count=2000, seed=seed)
    uniform = np.linspace(0, 1, 20_001)
    assert distance(white[:, 0], uniform) < 2.2 / np.sqrt(2000)


def test_augmix_weighs_its_three_chains_evenly_on_the_simplex(monkeypatch, seed):
    table = {"R": painter(255, 0, 0), "G": painter(0, 255, 0), "B": painter(0, 0, 255)}
    shares = mixed_colours(monkeypatch, table, count=6000, seed=seed)
    total = shares.sum(1)
    # Where all chains end with other colours (6 of 27), and the image's own share is not so large
    # that the chains are a few grey levels.
    three = (shares > 0).all(1) & (total > 0.3)
    weights = shares[three] / total[three, np.newaxis]
    assert 0.13 < three.mean() < 6 / 27
    # Dirichlet(1, 1, 1): the share of each is Beta(1, 2); those of nearly 0 are not seen.
    expected = 1 - np.sqrt(np.linspace(0, 1, 20_001))
    for weight in weights.T:
        assert weight.mean() == pytest.approx(1 / 3, abs=0.03)
        assert distance(weight, expected) < 2.2 / np.sqrt(len(weights)) + 0.02


def test_a_chain_of_augmix_has_one_to_three_ops_of_even_strength_and_sign(monkeypatch, seed):
    # Each op adds 1 to channel 0; channels 1 and 2 have its strength and sign.
    def record(image, argument):
        pixel = tf.cast(image[0, 0], tf.float32)
        found = tf.stack([pixel[0] + 1, tf.abs(argument), tf.cast(argument > 0, tf.float32)])
        return tf.cast(found[tf.newaxis, tf.newaxis], tf.uint8)

    table = (
        Op(record, strength=lambda magnitude: 1 + tf.cast(magnitude, tf.float32), signed=True),
    )

    def chain(image, seed):
        draws = augment._uniform(seed, [10], stream="augmix")
        severity = tf.constant(200.0, tf.float64)
        return augment._augmix_chain(image, table, draws, severity=severity)

    drawn = over_seeds(chain, [[[0, 0, 0]]], count=3000, seed=seed)[:, 0, 0].astype(int)
    depth, strength, sign = drawn.T
    assert chi_square(np.bincount(depth - 1, minlength=3)) < SIGMAS
    assert strength.min() == 1 and strength.max() == 200
    assert chi_square(np.bincount((strength - 1) // 10, minlength=20)) < SIGMAS
    assert chi_square(np.bincount((depth - 1) * 2 + sign, minlength=6)) < SIGMAS


def test_augmix_at_magnitude_10_has_the_papers_severity_3(monkeypatch, seed):
    strengths = []
    monkeypatch.setattr(
        augment, "_apply", lambda _, __, image, strength, *rest: strengths.append(strength) or image
    )
    for index in range(100):
        augment.aug_mix(photo(4), [seed, index], magnitude=10)
    strengths = np.array([float(strength) for strength in strengths])
    assert 0 <= strengths.min() < 0.05 and 2.95 < strengths.max() < 3
    assert strengths.mean() == pytest.approx(1.5, abs=SIGMAS * 3 / np.sqrt(12 * 900))


def test_augmix_of_magnitude_0_changes_no_bit_if_every_op_has_a_strength(monkeypatch, seed):
    ops = tuple(name for name in augment._AUGMIX_OPS if augment.DEFAULT[name].strength)
    assert len(ops) == 7
    monkeypatch.setattr(augment, "_AUGMIX_OPS", ops)
    images = over_seeds(
        lambda image, seed: augment.aug_mix(image, seed, magnitude=0.0),
        photo(32),
        count=50,
        seed=seed,
    )
    np.testing.assert_array_equal(images, np.broadcast_to(photo(32), images.shape))
