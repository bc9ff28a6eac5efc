"""Compares the loss terms with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.losses import (
    absolute_error,
    focal_loss,
    huber,
    loss_function,
    probabilities,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
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


def number_loss(loss):
    def mean(outputs: np.ndarray, targets: np.ndarray, *, label_smoothing: float) -> np.ndarray:
        assert label_smoothing == 0
        return loss(np.abs(outputs.astype(np.float64) - targets)).mean(-1)

    return mean


NUMPY_OF_NUMBERS = {
    "mse": number_loss(np.square),
    "mae": number_loss(np.abs),
    "huber": number_loss(lambda size: np.where(size <= 1, size**2 / 2, size - 0.5)),
}
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
        "mse": squared_error,
        "mae": absolute_error,
        "huber": huber,
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
        "linear": values,
    }[LOSSES[name].activation]
    np.testing.assert_allclose(probabilities(tf.constant(logits), name), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NUMPY_OF_NUMBERS)
def test_losses_of_numbers_are_the_mean_of_numpys(
    logits: np.ndarray, targets: np.ndarray, name: str
) -> None:
    options = {"label_smoothing": 0.0, "global_batch_size": len(logits)}
    loss = loss_function(name)(tf.constant(logits), tf.constant(targets), **options)
    expected = NUMPY_OF_NUMBERS[name](logits, targets, label_smoothing=0.0)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="no label smoothing"):
        loss_function(name)(logits, targets, label_smoothing=0.1, global_batch_size=8)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_multiply_the_loss_of_each_image(
    logits: np.ndarray, targets: np.ndarray, name: str
) -> None:
    weights = np.float32([0, 0.5, 1, 2, 3, 0, 1, 1])
    smoothing = 0.0 if LOSSES[name].is_regression else 0.1
    loss = loss_function(name)(
        tf.constant(logits),
        tf.constant(targets),
        label_smoothing=smoothing,
        global_batch_size=len(logits),
        weights=tf.constant(weights),
    )
    by_image = {**NUMPY, **NUMPY_OF_NUMBERS}[name](logits, targets, label_smoothing=smoothing)
    assert float(loss) == pytest.approx((weights * by_image).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sigmoid_sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_focal_loss_is_numpys(
    logits: np.ndarray, targets: np.ndarray, name: str, gamma: float, label_smoothing: float
) -> None:
    weights = np.linspace(0, 2, len(logits)).astype(np.float32)
    loss = focal_loss(
        tf.constant(logits),
        tf.constant(targets),
        loss_type=name,
        gamma=gamma,
        label_smoothing=label_smoothing,
        global_batch_size=8,
        weights=tf.constant(weights),
    )
    exact = logits.astype(np.float64)
    if name == "softmax":
        smooth = targets * (1 - label_smoothing) + label_smoothing / 5
        p = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
        by_image = -(smooth * (1 - p) ** gamma * np.log(p)).sum(-1)
    else:
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        p = 1 / (1 + np.exp(-exact))
        terms = smooth * (1 - p) ** gamma * np.log(p) + (1 - smooth) * p**gamma * np.log(1 - p)
        by_image = -(terms.mean(-1) if name == "sigmoid" else terms.sum(-1))
    assert float(loss) == pytest.approx((weights * by_image).mean(), rel=1e-4)
    if gamma == 0:
        expected = NUMPY[name](logits, targets, label_smoothing=label_smoothing)
        assert float(loss) == pytest.approx((weights * expected).mean(), rel=1e-4)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_the_gradient_of_the_focal_loss_is_finite_where_the_network_is_sure(name: str) -> None:
    logits = tf.Variable([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = focal_loss(
            logits,
            tf.constant([[1.0, 0.0]] * 3),
            loss_type=name,
            gamma=0.5,
            label_smoothing=0.0,
            global_batch_size=3,
        )
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()
    assert np.isfinite(float(loss))
