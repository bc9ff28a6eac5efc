"""Loss terms against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.losses import l2_term, softmax_cross_entropy


def numpy_losses(logits: np.ndarray, targets: np.ndarray, *, label_smoothing: float) -> np.ndarray:
    logits = logits.astype(np.float64)
    targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(targets * log_probabilities).sum(-1)


@pytest.fixture
def logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (8, 5)).astype(np.float32)


@pytest.fixture
def targets(seed: int) -> np.ndarray:
    """Mixed targets in the first half, one-hot ones in the second."""
    mixed = np.random.default_rng(seed + 1).dirichlet(np.ones(5), 4)
    return np.concatenate([mixed, np.eye(5)[[0, 4, 2, 2]]]).astype(np.float32)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_the_mean_of_numpys(
    logits: np.ndarray, targets: np.ndarray, label_smoothing: float
) -> None:
    loss = softmax_cross_entropy(
        tf.constant(logits),
        tf.constant(targets),
        label_smoothing=label_smoothing,
        global_batch_size=8,
    )
    expected = numpy_losses(logits, targets, label_smoothing=label_smoothing).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_replicas_losses_add_up_to_the_mean_over_the_global_batch(
    logits: np.ndarray, targets: np.ndarray, cut: int
) -> None:
    parts = [
        softmax_cross_entropy(
            tf.constant(logits[images]),
            tf.constant(targets[images]),
            label_smoothing=0.1,
            global_batch_size=8,
        )
        for images in (slice(None, cut), slice(cut, None))
    ]
    losses = numpy_losses(logits, targets, label_smoothing=0.1)
    np.testing.assert_allclose(parts, [losses[:cut].sum() / 8, losses[cut:].sum() / 8], rtol=1e-6)
    np.testing.assert_allclose(sum(parts), losses.mean(), rtol=1e-6)


def test_cross_entropy_of_huge_logits_does_not_overflow() -> None:
    logits = np.array([[1000.0, -1000.0]], np.float32)
    loss = softmax_cross_entropy(
        tf.constant(logits), tf.constant([[0.0, 1.0]]), label_smoothing=0.0, global_batch_size=1
    )
    assert float(loss) == 2000.0


def test_cross_entropy_of_float16_logits_is_computed_in_float32(targets: np.ndarray) -> None:
    logits = np.linspace(-40, 40, 40).reshape(8, 5).astype(np.float16)
    loss = softmax_cross_entropy(
        tf.constant(logits), tf.constant(targets), label_smoothing=0.1, global_batch_size=8
    )
    expected = numpy_losses(logits, targets, label_smoothing=0.1).mean()
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


@pytest.mark.parametrize("weight_decay", [1e-5, 0.3])
def test_l2_term_is_half_the_sum_of_squares(seed: int, weight_decay: float) -> None:
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 3, 2, 4), (4, 5), (1,)]]
    term = l2_term([tf.constant(kernel) for kernel in kernels], weight_decay=weight_decay)
    expected = weight_decay * sum((kernel.astype(np.float64) ** 2).sum() for kernel in kernels) / 2
    np.testing.assert_allclose(term, expected, rtol=1e-6)


def test_l2_terms_gradient_is_weight_decay_times_the_weight() -> None:
    kernel = tf.constant([[1.0, -2.0], [0.5, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        term = l2_term([kernel], weight_decay=0.1)
    np.testing.assert_allclose(tape.gradient(term, kernel), 0.1 * kernel, rtol=1e-6)


def test_l2_term_of_float16_kernels_does_not_overflow() -> None:
    term = l2_term([tf.fill([100, 100], tf.constant(8.0, tf.float16))], weight_decay=1e-3)
    np.testing.assert_allclose(term, 1e-3 * 10_000 * 64 / 2, rtol=1e-6)


@pytest.mark.parametrize("kernels", [[], [[3.0, 4.0]]])
def test_l2_term_without_weight_decay_is_zero(kernels: list) -> None:
    assert float(l2_term([tf.constant(k) for k in kernels], weight_decay=0.0)) == 0.0
