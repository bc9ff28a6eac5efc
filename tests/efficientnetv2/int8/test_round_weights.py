"""Tests that kernels rounded for their inputs beat kernels rounded weight by weight."""

import numpy as np
import pytest

from efficientnetv2.int8 import round_weights
from efficientnetv2.int8.ranges import affine, best_range, quantise
from efficientnetv2.int8.round_weights import (
    channel_scales,
    round_depthwise,
    round_kernel,
    round_layer,
    round_to_nearest,
)


@pytest.fixture
def layer():
    rng = np.random.default_rng(4)
    inputs = np.maximum(rng.normal(size=(2000, 12)) @ rng.normal(size=(12, 40)), 0)  # correlated
    kernel = rng.normal(size=(40, 16)) * rng.uniform(0.1, 3, 16)
    return kernel, inputs, inputs @ kernel + rng.normal(size=16)


def error(kernel, bias, inputs, outputs):
    return np.square(inputs @ kernel + bias - outputs).mean()


def test_outputs_are_nearer_than_with_each_weight_at_its_nearest(layer):
    kernel, inputs, outputs = layer
    scales = channel_scales(kernel)
    nearest = round_to_nearest(kernel, scales)
    rounded, bias = round_layer(kernel, inputs, outputs)
    own_bias = outputs.mean(0) - inputs.mean(0) @ nearest
    assert error(rounded, bias, inputs, outputs) < 0.6 * error(nearest, own_bias, inputs, outputs)


def test_weights_are_steps_and_the_mean_stays(layer):
    kernel, inputs, outputs = layer
    rounded, bias = round_layer(kernel, inputs, outputs)
    steps = rounded / channel_scales(rounded)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    np.testing.assert_array_equal(np.abs(steps).max(axis=0).round(6), 127)
    np.testing.assert_allclose((inputs @ rounded + bias).mean(0), outputs.mean(0), atol=1e-9)


def test_blocks_of_rows_change_nothing(layer, monkeypatch):
    kernel, inputs, _ = layer
    covariance = np.cov(inputs.T)
    whole = round_kernel(kernel, covariance, channel_scales(kernel))
    monkeypatch.setattr(round_weights, "_BLOCK", 7)
    np.testing.assert_allclose(round_kernel(kernel, covariance, channel_scales(kernel)), whole)


def test_uncorrelated_inputs_leave_nothing_to_gain():
    kernel = np.random.default_rng(0).normal(size=(9, 5))
    scales = channel_scales(kernel)
    rounded = round_kernel(kernel, np.eye(9), scales)
    np.testing.assert_allclose(rounded, round_to_nearest(kernel, scales))


def test_depthwise_channels_are_layers_of_their_own():
    rng = np.random.default_rng(2)
    kernel, inputs = rng.normal(size=(9, 3)), rng.normal(size=(500, 9, 3)) + 1
    outputs = np.einsum("pnc,nc->pc", inputs, kernel) + 0.5
    rounded, bias = round_depthwise(kernel, inputs, outputs)
    for c in range(3):
        alone, own_bias = round_layer(kernel[:, c : c + 1], inputs[:, :, c], outputs[:, c : c + 1])
        np.testing.assert_allclose(rounded[:, c], alone[:, 0], rtol=1e-5)
        np.testing.assert_allclose(bias[c], own_bias[0], rtol=1e-5)


def test_a_channel_of_zeros():
    kernel = np.zeros((4, 2))
    rounded, bias = round_layer(kernel, np.ones((10, 4)), np.full((10, 2), 3.0))
    np.testing.assert_array_equal(rounded, 0)
    np.testing.assert_allclose(bias, 3)


def test_levels_contain_zero():
    assert affine(1.0, 3.0) == (0.0, 3.0)
    assert affine(-3.0, -1.0) == (-3.0, 0.0)
    low, high = affine(0.0, 0.0)
    assert low == 0.0 < high
    assert quantise(np.zeros(3), -0.37, 1.0).tolist() == [0, 0, 0]
    np.testing.assert_allclose(quantise(np.array([-9.0, 0.3, 300.0]), 0, 255), [0, 0, 255])


def test_a_few_large_values_are_cut_off():
    values = np.random.default_rng(0).uniform(-1, 1, 400_000)
    values[0] = 3
    low, high = best_range(values)
    assert 0.9 < high < 1.1
    assert -1.1 < low < -0.9
    whole = (values.min(), values.max())
    mean_square = [np.square(quantise(values, *r) - values).mean() for r in ((low, high), whole)]
    assert mean_square[0] < 0.8 * mean_square[1]


def test_what_a_later_function_ignores_is_not_kept():
    values = np.concatenate([np.linspace(-40, -20, 1000), np.linspace(-3, 3, 30_000)])
    low, high = best_range(values, through=lambda x: np.maximum(x, 0))
    assert high >= 2.5
    assert low > -40


def test_what_an_earlier_layer_lost_is_made_good():
    """Noise that the inputs predict: the refitted kernel removes it."""
    rng = np.random.default_rng(6)
    exact = rng.normal(size=(3000, 6))
    disturbed = exact + 0.2 * np.roll(exact, 1, axis=1)
    kernel = rng.normal(size=(6, 4))
    outputs = exact @ kernel
    rounded, bias = round_layer(kernel, disturbed, outputs)
    plain = round_to_nearest(kernel, channel_scales(kernel))
    assert error(rounded, bias, disturbed, outputs) < 0.3 * error(plain, 0, disturbed, outputs)
    unchanged, _ = round_layer(kernel, exact, outputs)
    np.testing.assert_allclose(unchanged, kernel, atol=2 * channel_scales(kernel).max())


def test_what_does_not_hold_for_other_images_is_not_learnt():
    """Noise that nothing predicts: a kernel that was fitted to it would be worse elsewhere."""
    rng = np.random.default_rng(7)
    inputs, kernel = rng.normal(size=(200, 40)), rng.normal(size=(40, 4))
    outputs = inputs @ kernel + 3 * rng.normal(size=(200, 4))
    rounded, _ = round_layer(kernel, inputs, outputs)
    fitted = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    assert np.abs(rounded - kernel).mean() < 0.15 * np.abs(fitted - kernel).mean()
    # An error that is the same for all images is learnt.
    lost = 0.1 * rng.normal(size=(40, 4))
    rounded, _ = round_layer(kernel, inputs, inputs @ (kernel + lost))
    assert np.abs(rounded - kernel - lost).mean() < 0.7 * np.abs(lost).mean()
