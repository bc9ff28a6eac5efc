"""Compares the L2 term with NumPy; test_optimizers.py has decay beside the update."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.weight_decay import WeightDecay

FIRST = tf.constant(0, tf.int64)


def l2_term(*kernels: np.ndarray, factor: float) -> tf.Tensor:
    variables = [keras.Variable(kernel, dtype=str(kernel.dtype)) for kernel in kernels]
    return WeightDecay(factor, variables=variables).l2_term(FIRST)


@pytest.mark.parametrize("factor", [1e-5, 0.3])
def test_l2_term_is_half_the_sum_of_squares(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 3, 2, 4), (4, 5), (1,)]]
    expected = factor * sum((kernel.astype(np.float64) ** 2).sum() for kernel in kernels) / 2
    np.testing.assert_allclose(l2_term(*kernels, factor=factor), expected, rtol=1e-6)


def test_l2_terms_gradient_is_the_factor_times_the_weight() -> None:
    kernel = keras.Variable(np.array([[1.0, -2.0], [0.5, 4.0]], np.float32))
    with tf.GradientTape() as tape:
        term = WeightDecay(0.1, variables=[kernel]).l2_term(FIRST)
    np.testing.assert_allclose(tape.gradient(term, kernel.value), 0.1 * kernel.numpy(), rtol=1e-6)


def test_l2_term_of_float16_kernels_does_not_overflow() -> None:
    term = l2_term(np.full([100, 100], 8.0, np.float16), factor=1e-3)
    np.testing.assert_allclose(term, 1e-3 * 10_000 * 64 / 2, rtol=1e-6)


@pytest.mark.parametrize("kernels", [[], [np.array([3.0, 4.0], np.float32)]])
def test_l2_term_without_weight_decay_is_zero(kernels: list) -> None:
    assert float(l2_term(*kernels, factor=0.0)) == 0.0


def test_the_factor_grows_by_its_share_a_step() -> None:
    decay = WeightDecay(0.2, growth=0.5)
    np.testing.assert_allclose([decay.at(tf.constant(n)) for n in (0, 1, 4)], [0.2, 0.3, 0.6])
