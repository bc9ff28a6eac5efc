"""Compares the loss terms with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.losses import (
    loss_function,
    probabilities,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    summed_sigmoid_cross_entropy,
)
from hparams.choices import LOSSES
from hparams.keys import KEYS


def numpy_softmax(logits: np.ndarray, targets: np.ndarray, *, label_smoothing: float) -> np.ndarray:
    logits = logits.astype(np.float64)
    targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(targets * log_probabilities).sum(-1)


def numpy_sigmoid(logits: np.ndarray, targets: np.ndarray, *, label_smoothing: float) -> np.ndarray:
    """Takes -log(p) of each label and -log(1 - p) of each other class; p is the sigmoid."""
    logits = logits.astype(np.float64)
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    has, has_not = np.logaddexp(0, -logits), np.logaddexp(0, logits)
    return (targets * has + (1 - targets) * has_not).mean(-1)


def numpy_sigmoid_sum(
    logits: np.ndarray, targets: np.ndarray, *, label_smoothing: float
) -> np.ndarray:
    return logits.shape[-1] * numpy_sigmoid(logits, targets, label_smoothing=label_smoothing)


NUMPY = {
    "softmax": numpy_softmax,
    "sigmoid": numpy_sigmoid,
    "sigmoid_sum": numpy_sigmoid_sum,
}
both_losses = pytest.mark.parametrize("name", NUMPY)


@pytest.fixture
def logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (8, 5)).astype(np.float32)


@pytest.fixture
def targets(seed: int) -> np.ndarray:
    """Returns mixed targets in the first half, one-hot ones in the second."""
    mixed = np.random.default_rng(seed + 1).dirichlet(np.ones(5), 4)
    return np.concatenate([mixed, np.eye(5)[[0, 4, 2, 2]]]).astype(np.float32)


def test_the_table_has_a_loss_for_each_choice_of_the_configuration() -> None:
    assert {
        "softmax": softmax_cross_entropy,
        "sigmoid": sigmoid_cross_entropy,
        "sigmoid_sum": summed_sigmoid_cross_entropy,
    } == {name: loss_function(name) for name in LOSSES}
    assert tuple(LOSSES) == KEYS["train.loss_type"].choices


@both_losses
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("number", [int, float, tf.constant])
def test_cross_entropy_is_the_mean_of_numpys(
    logits: np.ndarray, targets: np.ndarray, name: str, label_smoothing: float, number: type
) -> None:
    loss = loss_function(name)(
        tf.constant(logits),
        tf.constant(targets),
        label_smoothing=label_smoothing,
        global_batch_size=number(8),
    )
    expected = NUMPY[name](logits, targets, label_smoothing=label_smoothing).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_binary_cross_entropy_of_several_labels_and_of_none() -> None:
    logits, targets = tf.constant([[2.0, -1.0, 0.5], [3.0, 0.0, 0.0]]), [[1.0, 0, 1.0], [0.0] * 3]
    loss = sigmoid_cross_entropy(
        logits, tf.constant(targets), label_smoothing=0.0, global_batch_size=2
    )
    p = 1 / (1 + np.exp(-np.array(logits, np.float64)))
    terms = -np.log([[p[0, 0], 1 - p[0, 1], p[0, 2]], 1 - p[1]])
    np.testing.assert_allclose(loss, terms.mean(), rtol=1e-6)


@both_losses
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_replicas_losses_add_up_to_the_mean_over_the_global_batch(
    logits: np.ndarray, targets: np.ndarray, name: str, cut: int
) -> None:
    parts = [
        loss_function(name)(
            tf.constant(logits[images]),
            tf.constant(targets[images]),
            label_smoothing=0.1,
            global_batch_size=8,
        )
        for images in (slice(None, cut), slice(cut, None))
    ]
    losses = NUMPY[name](logits, targets, label_smoothing=0.1)
    np.testing.assert_allclose(parts, [losses[:cut].sum() / 8, losses[cut:].sum() / 8], rtol=1e-6)
    np.testing.assert_allclose(sum(parts), losses.mean(), rtol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("softmax", 2000.0), ("sigmoid", 1000.0)])
def test_cross_entropy_of_huge_logits_does_not_overflow(name: str, expected: float) -> None:
    logits = np.array([[1000.0, -1000.0]], np.float32)
    loss = loss_function(name)(
        tf.constant(logits), tf.constant([[0.0, 1.0]]), label_smoothing=0.0, global_batch_size=1
    )
    assert float(loss) == expected


@both_losses
def test_cross_entropy_of_float16_logits_is_computed_in_float32(
    targets: np.ndarray, name: str
) -> None:
    logits = np.linspace(-40, 40, 40).reshape(8, 5).astype(np.float16)
    loss = loss_function(name)(
        tf.constant(logits), tf.constant(targets), label_smoothing=0.1, global_batch_size=8
    )
    expected = NUMPY[name](logits, targets, label_smoothing=0.1).mean()
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_entropys_gradient_is_softmax_minus_smoothed_targets(
    logits: np.ndarray, targets: np.ndarray
) -> None:
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = softmax_cross_entropy(
            inputs, tf.constant(targets), label_smoothing=0.1, global_batch_size=16
        )
    exponentials = np.exp(logits.astype(np.float64))
    softmax = exponentials / exponentials.sum(-1, keepdims=True)
    expected = (softmax - (0.9 * targets + 0.1 / 5)) / 16
    np.testing.assert_allclose(tape.gradient(loss, inputs), expected, atol=1e-7)


def test_binary_cross_entropys_gradient_is_sigmoid_minus_smoothed_targets(
    logits: np.ndarray, targets: np.ndarray
) -> None:
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = sigmoid_cross_entropy(
            inputs, tf.constant(targets), label_smoothing=0.1, global_batch_size=16
        )
    sigmoid = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = (sigmoid - (0.9 * targets + 0.1 / 2)) / 5 / 16
    np.testing.assert_allclose(tape.gradient(loss, inputs), expected, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_are_those_that_the_loss_means(name: str, logits: np.ndarray) -> None:
    values = np.float64(logits)
    expected = {
        "softmax": np.exp(values) / np.exp(values).sum(-1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-values)),
    }[LOSSES[name].activation]
    np.testing.assert_allclose(probabilities(tf.constant(logits), name), expected, rtol=1e-5)
