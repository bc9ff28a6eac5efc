"""Tests the fit of the temperature on logits whose best temperature is known, or searched for."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.evaluation.calibration import (
    calibrate,
    fit_temperature,
    fit_unknown,
    negative_log_likelihood,
)
from efficientnetv2.evaluation.metric_sums import metric_sums
from efficientnetv2.evaluation.predictions import Predictions, calibration_error

CLASSES = 5


def drawn(seed, *, factor, count=4000):
    """Returns logits that are too large by a factor, and labels drawn with the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, CLASSES))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    return np.float32(factor * logits), labels


def ece(logits, labels):
    """Returns the calibration error of softmax probabilities."""
    shares = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    values = (labels, shares.argmax(-1), np.float32(shares.max(-1)))
    return calibration_error(Predictions(np.arange(len(labels)), *values))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_minimum_of_a_grid(seed, factor):
    logits, labels = drawn(seed, factor=factor, count=1000)
    fitted = fit_temperature(logits, labels)
    losses = {}
    for step in (0.01, 0.0002):  # relative; first a coarse grid, then a fine one around its best
        centre = min(losses, key=lambda t: losses[t]) if losses else 1.0
        for exponent in range(-160, 161):
            value = centre * (1 + step) ** exponent
            shares = np.exp(np.float64(logits) / value)
            own = shares[np.arange(len(labels)), labels] / shares.sum(-1)
            losses[value] = -np.log(own).mean()
    assert fitted == pytest.approx(min(losses, key=lambda t: losses[t]), rel=1e-3)
    assert negative_log_likelihood(logits / fitted, labels) <= min(losses.values()) + 1e-9
    assert fitted == pytest.approx(factor, rel=0.1)


def test_calibrated_logits_keep_a_temperature_of_1(seed):
    assert fit_temperature(*drawn(seed, factor=1.0, count=40_000)) == pytest.approx(1, abs=0.02)


def test_the_error_of_a_network_that_is_too_sure_is_more_than_halved_on_other_images(seed):
    fitted = calibrate(*drawn(seed, factor=3.0, count=500))
    logits, labels = drawn(seed + 1, factor=3.0)
    before, after = ece(logits, labels), ece(logits / fitted.temperature, labels)
    assert before > 0.1 and after < before / 2


def test_what_is_kept_is_that_of_the_images(seed):
    logits, labels = drawn(seed, factor=3.0, count=500)
    fitted = calibrate(logits, labels)
    assert (fitted.images, fitted.temperature) == (500, fit_temperature(logits, labels))
    assert fitted.ece == pytest.approx(ece(logits, labels))
    assert fitted.ece_calibrated == pytest.approx(ece(logits / fitted.temperature, labels))
    assert fitted.nll == negative_log_likelihood(logits, labels)
    assert fitted.nll_calibrated < fitted.nll


def test_too_few_images_say_so(seed):
    logits, labels = drawn(seed, factor=3.0, count=60)
    assert calibrate(logits[:49], labels[:49]) == "minival has 49 images, 50 are needed"
    assert fit_unknown(np.ones(49), known_share=0.9) == "minival has 49 images, 50 are needed"


def test_images_that_are_all_right_are_right_but_once_in_so_many(seed):
    logits, _ = drawn(seed, factor=1.0, count=198)
    logits += logits == logits.max(-1, keepdims=True)  # none is in doubt
    fitted = fit_temperature(logits, logits.argmax(-1))
    right = tf.nn.softmax(logits / fitted).numpy().max(-1)
    assert right.mean() == pytest.approx(199 / 200, abs=1e-5) and 0.05 < fitted < 1
    assert calibrate(logits, logits.argmax(-1)).ece_calibrated < 0.02
    near = np.float32(1e-4 * logits)
    assert fit_temperature(near, near.argmax(-1)) == 0.05
    assert fit_temperature(np.float32(1e4 * logits), logits.argmax(-1)) == 20


@pytest.mark.parametrize("known_share", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("count", [50, 180, 1000])
def test_the_threshold_keeps_the_share_and_lies_between_two_images(seed, count, known_share):
    scores = np.random.default_rng(seed).uniform(0.2, 0.9, count)
    rule = fit_unknown(scores, known_share=known_share)
    kept = scores >= rule.threshold - 1e-6  # kept in six digits
    assert kept.mean() == pytest.approx(rule.kept) and rule.images == count
    assert known_share <= kept.mean() < known_share + 1 / count + 1e-9
    if known_share < 1:
        nearest = np.sort(np.abs(scores - rule.threshold))[:2]
        assert nearest == pytest.approx(nearest[::-1], abs=2e-6)


def test_probabilities_that_are_all_1_are_known():
    assert fit_unknown(np.ones(60), known_share=0.95).threshold == 0.99
    assert fit_unknown(np.ones(60), known_share=0.95).kept == 1
    assert fit_unknown(np.full(60, 0.5), known_share=0.95).kept == 1  # none is below the others


def test_logits_that_know_nothing_get_the_highest_temperature(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1000, (500, CLASSES))
    assert fit_temperature(logits, rng.integers(0, CLASSES, 500)) == pytest.approx(20, rel=1e-4)


def test_metrics_keep_the_calibrated_probability_beside_the_raw_one(seed):
    logits, labels = drawn(seed, factor=3.0, count=20)
    metrics = metric_sums("softmax", multi_label=False, scale=None, temperature=2.5)
    targets, is_real = tf.one_hot(labels, CLASSES), tf.ones([20], bool)
    rows = metrics.rows(tf.constant(logits), targets, is_real).numpy()
    found = metrics.predictions.from_rows(np.arange(20), rows[:, :-1])
    for values, scaled in ((found.confidence, logits), (found.calibrated, logits / 2.5)):
        np.testing.assert_allclose(values, tf.nn.softmax(scaled).numpy().max(-1), rtol=1e-5)
    assert found.as_calibrated().confidence is found.calibrated
    assert found.as_calibrated().predicted.tolist() == logits.argmax(-1).tolist()
    assert len(found.mistakes(3).calibrated) == len(found.mistakes(3).index) > 0
    plain = metric_sums("softmax", multi_label=False, scale=None)
    rows = plain.rows(tf.constant(logits), targets, is_real).numpy()
    assert plain.predictions.from_rows(np.arange(20), rows[:, :-1]).as_calibrated() is None
