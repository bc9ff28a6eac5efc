"""Draws and weights of rare and frequent classes."""

import numpy as np
import pytest
import sklearn.utils
import tensorflow as tf

from efficientnetv2.data.class_balance import (
    class_weights,
    draw,
    draw_probabilities,
    log_priors,
)
from hparams import resolve

COUNTS = [1000, 100, 10]
LABELS = np.repeat(range(3), COUNTS)


def config_of(**train):
    settings = {f"train.{name}": value for name, value in train.items()}
    return resolve("efficientnetv2-b0", "folder", {"data.data_dir": "x", **settings})


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        ("natural", [1000, 100, 10]),
        ("sqrt", [1000**0.5, 10, 10**0.5]),
        ("balanced", [1, 1, 1]),
    ],
)
def test_each_class_has_its_share_of_the_draws(sampling, shares):
    drawn = draw_probabilities(LABELS, sampling)
    assert drawn.mean() == pytest.approx(1)
    expected = len(LABELS) * np.array(shares) / np.sum(shares)
    np.testing.assert_allclose(np.bincount(LABELS, drawn), expected)
    for seed in range(5):
        indices = draw(drawn, tf.constant(seed, tf.int64)).numpy()
        assert len(indices) == len(LABELS)
        # Each image comes as often as it should, rounded up or down: so do the classes, nearly.
        times = np.bincount(indices, minlength=len(LABELS))
        assert (np.abs(times - drawn) < 1).all()
        counts = np.bincount(LABELS[indices], minlength=3)
        assert (np.abs(counts - expected) <= np.sqrt(expected) + 1).all()


def test_a_draw_is_a_function_of_the_seed_alone():
    drawn = draw_probabilities(LABELS, "balanced")
    graph = tf.function(lambda seed: draw(drawn, seed))
    one, other = (tf.constant(seed, tf.int64) for seed in (7, 8))
    np.testing.assert_array_equal(draw(drawn, one), graph(one))
    assert (draw(drawn, one).numpy() != draw(drawn, other).numpy()).mean() > 0.5


def test_a_frequent_class_is_seen_as_a_whole_over_the_epochs():
    drawn = draw_probabilities(LABELS, "balanced")
    seen = {int(index) for seed in range(12) for index in draw(drawn, tf.constant(seed, tf.int64))}
    assert len(seen) > 0.95 * len(LABELS)


def test_a_draw_is_in_random_order():
    labels = LABELS[draw(draw_probabilities(LABELS, "balanced"), tf.constant(1, tf.int64)).numpy()]
    batches = labels[:1088].reshape(-1, 64)
    shares = np.stack([np.bincount(batch, minlength=3) for batch in batches]) / 64
    assert (np.abs(shares - 1 / 3) < 0.25).all()


def test_balanced_weights_are_scikit_learns():
    weights = class_weights(config_of(class_weights=["balanced"], class_counts=COUNTS))
    expected = sklearn.utils.class_weight.compute_class_weight(
        "balanced", classes=np.arange(3), y=LABELS
    )
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_given_weights_have_mean_1_over_the_images():
    weights = class_weights(config_of(class_weights="[1,2.5,10]", class_counts=COUNTS))
    assert weights[LABELS].mean() == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[0], [1, 2.5, 10], rtol=1e-6)
    assert class_weights(config_of(class_weights=[1, 2.5, 10])).tolist() == [1, 2.5, 10]


@pytest.mark.parametrize("value", [[], "none", ["none"]])
def test_no_weights(value):
    assert class_weights(config_of(class_weights=value)) is None
    assert log_priors(config_of()) is None


def test_log_priors():
    priors = log_priors(config_of(logit_adjustment=1.5, class_counts=COUNTS))
    np.testing.assert_allclose(priors, 1.5 * np.log(np.array(COUNTS) / 1110), rtol=1e-6)
