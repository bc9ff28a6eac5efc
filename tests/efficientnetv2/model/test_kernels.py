"""Tests of the depthwise convolution of training against Keras's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model import kernels
from efficientnetv2.model.kernels import DepthwiseConvolution

SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (1, 5), (6, 2))


def _results(
    layer: keras.layers.DepthwiseConv2D, images: np.ndarray, *, xla: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns outputs and the gradients of images and kernel, traced for images of any size."""
    signature = tf.TensorSpec([None, None, None, images.shape[-1]])

    @tf.function(input_signature=[signature], autograph=False, jit_compile=xla)
    def run(images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs * tf.cos(outputs))
        return outputs, *tape.gradient(loss, (images, layer.kernel.value))

    return tuple(value.numpy() for value in run(tf.constant(images)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"kernel_size": 5},
        {"kernel_size": 5, "strides": 2},
        {"kernel_size": 7},
        {"strides": 3},
        {"padding": "valid"},
    ],
)
def test_it_convolves_and_differentiates_like_kerass(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    arguments = {"kernel_size": 3, "padding": "same", "use_bias": False, **options}
    if arguments["padding"] == "valid" and min(size) < 3:
        size = (size[0] + 3, size[1] + 3)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, *size, 16)).astype(np.float32)
    ours, kerass = DepthwiseConvolution(**arguments), keras.layers.DepthwiseConv2D(**arguments)
    for layer in (ours, kerass):
        layer.build(images.shape)
    kerass.kernel.assign(ours.kernel)

    for actual, expected in zip(_results(ours, images), _results(kerass, images), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 4)])
def test_xla_compiles_the_gradient(kernel_size: int, size: tuple[int, int]) -> None:
    layer = DepthwiseConvolution(kernel_size, padding="same", use_bias=False, strides=2)
    images = np.random.default_rng(0).normal(size=(4, *size, 16)).astype(np.float32)
    layer.build(images.shape)

    for compiled, plain in zip(_results(layer, images, xla=True), _results(layer, images)):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(4, 1), (2, 2), (6, 2)])
def test_gradients_in_bfloat16_are_right_for_few_pixels(
    size: tuple[int, int], strides: int
) -> None:
    # TensorFlow's own kernel (oneDNN's) returns whatever was in memory for some of these.
    layer = DepthwiseConvolution(5, padding="same", strides=strides, use_bias=False)
    images = np.random.default_rng(0).normal(size=(4, *size, 16)).astype(np.float32)
    layer.build(images.shape)
    upstream = np.ones(layer.compute_output_shape(images.shape), np.float32)

    def gradient(dtype: tf.DType) -> np.ndarray:
        values = tf.cast(images, dtype), tf.cast(upstream, dtype)
        return kernels._kernel_gradient(*values, size=5, stride=strides).numpy()

    narrow = gradient(tf.bfloat16).astype(np.float32)
    np.testing.assert_allclose(narrow, gradient(tf.float32), rtol=0.02, atol=0.1)


def test_a_gradient_of_small_images_reaches_every_value_of_the_kernel_that_meets_a_pixel() -> None:
    layer = DepthwiseConvolution(3, padding="same", use_bias=False)
    images = np.ones((1, 2, 2, 1), np.float32)
    layer.build(images.shape)
    layer.kernel.assign(tf.zeros_like(layer.kernel))

    *_, gradient = _results(layer, images)

    # The number of pixels under each value; the derivative of x cos(x) at 0 is 1.
    np.testing.assert_array_equal(gradient[:, :, 0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
