"""The arithmetic of training on a CPU: what stock layers compute, in fewer passes over memory.

Images ``[B, H, W, C]`` in, the same numbers to rounding out. Measured in docs/performance.md. On
other devices the stock kernels stay: cuDNN and XLA have their own ways, and none was there to try.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.quiet import quiet


def is_cpu_alone() -> bool:
    """Whether TensorFlow has no accelerator here."""
    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


@tf.function(jit_compile=True, autograph=False)
def _silu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return _narrowed(tf.cast(upstream, tf.float32) * _silu_slope(x), x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _silu_and_mean_gradient(x: tf.Tensor, upstream: tf.Tensor, of_mean: tf.Tensor) -> tf.Tensor:
    share = tf.cast(of_mean, tf.float32) / tf.cast(tf.shape(x)[1], tf.float32)
    upstream = tf.cast(upstream, tf.float32) + share[:, tf.newaxis]
    return _narrowed(upstream * _silu_slope(x), x.dtype)


def _silu_slope(x: tf.Tensor) -> tf.Tensor:
    values = tf.cast(x, tf.float32)
    gate = tf.sigmoid(values)
    return gate * (1.0 + values * (1.0 - gate))


def _narrowed(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Rounds float32 to the nearest; to bfloat16 by whole numbers.

    XLA's own cast to bfloat16 doubles the time of a loop on a CPU; this adds a seventh. Infinities
    stay what they are, and so does what processors give for no number.
    """
    if dtype != tf.bfloat16:
        return tf.cast(values, dtype)
    half, last, sixteen = (tf.constant(value, tf.uint32) for value in (0x7FFF, 1, 16))
    bits = tf.bitcast(values, tf.uint32)
    is_odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, sixteen), last)
    upper = tf.bitwise.right_shift(bits + half + is_odd, sixteen)
    return tf.bitcast(tf.cast(upper, tf.uint16), tf.bfloat16)


@functools.cache
def _compile_quietly() -> None:
    """Compiles once, unheard: XLA tells stderr of a process's first time at any log level."""
    with quiet(), tf.init_scope():
        _silu_gradient(tf.zeros([1]), tf.zeros([1]))


@tf.custom_gradient
def silu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """``x * sigmoid(x)``, whose gradient is one compiled loop instead of six passes over memory.

    Seen as a vector: one compiled program serves all shapes of as many numbers.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        flat = _silu_gradient(tf.reshape(x, [-1]), tf.reshape(upstream, [-1]))
        return tf.reshape(flat, tf.shape(x))

    return tf.nn.silu(x), gradient


@tf.custom_gradient
def silu_and_mean(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """``silu`` of ``[B, H, W, C]`` and its mean ``[B, 1, 1, C]``, with one gradient for both.

    The mean's own gradient would be spread over the images first, divided, and added: three more
    passes over memory. Compiled once for each size.
    """

    def gradient(upstream: tf.Tensor, of_mean: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        by_pixel = [shape[0], shape[1] * shape[2], shape[3]]
        found = _silu_and_mean_gradient(
            tf.reshape(x, by_pixel),
            tf.reshape(upstream, by_pixel),
            tf.reshape(of_mean, [shape[0], shape[3]]),
        )
        return tf.reshape(found, shape)

    y = tf.nn.silu(x)
    return (y, tf.reduce_mean(y, [1, 2], keepdims=True)), gradient


class Silu(keras.layers.Layer):
    """The activation ``silu``, in the type of its input."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, autocast=False)
        _compile_quietly()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Activates each number."""
        return silu(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """An activation keeps its input's shape."""
        return input_shape


class SiluAndMean(keras.layers.Layer):
    """The activation and its mean, ``silu_and_mean``, in the type that the layer computes in."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        _compile_quietly()

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Activates each number, and takes the mean of each channel of each image."""
        return silu_and_mean(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple[tuple, tuple]:
        """The input's shape, and the same with one pixel."""
        return input_shape, (input_shape[0], 1, 1, input_shape[3])


class Convolution(keras.layers.Conv2D):
    """Conv2D; a 1x1 kernel without strides, channels last, is one matrix product."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves ``[B, H, W, C]``, adds the bias and activates."""
        images, kernel = self.factors(inputs, tf.convert_to_tensor(self.kernel))
        is_last = self.data_format == "channels_last"
        is_single = self.kernel_size == (1, 1) and self.strides == (1, 1) and self.groups == 1
        if is_product := is_single and is_last:
            pixels = tf.reshape(images, [-1, images.shape[-1]])
            outputs = tf.matmul(pixels, tf.reshape(kernel, [-1, self.filters]))
        else:
            outputs = self.convolution_op(images, kernel)
        if self.use_bias:  # next to the product: TensorFlow makes one operation of both
            bias = tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype)
            outputs = tf.nn.bias_add(outputs, bias, data_format="NHWC" if is_last else "NCHW")
        outputs = self.finished(outputs)
        if is_product:
            shape = tf.shape(inputs)
            outputs = tf.reshape(outputs, [shape[0], shape[1], shape[2], self.filters])
        return outputs if self.activation is None else self.activation(outputs)

    def factors(self, images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What is multiplied."""
        return images, kernel

    def finished(self, outputs: tf.Tensor) -> tf.Tensor:
        """What was multiplied."""
        return outputs


class Bfloat16Convolution(Convolution):
    """The same of numbers rounded to bfloat16; float32 comes out.

    Processors that multiply bfloat16 do it about twice as fast, and little else: depthwise
    convolutions lose time in 16 bits. Squeeze-and-excitation, of one pixel an image, is not
    rounded: its few products do not make up for the casts.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # What is 16 bits already need not be widened first.
        super().__init__(*arguments, autocast=False, **options)

    def factors(self, images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds to 16 bits."""
        if tuple(images.shape[1:3]) == (1, 1):
            return images, kernel
        return tf.cast(images, tf.bfloat16), tf.cast(kernel, tf.bfloat16)

    def finished(self, outputs: tf.Tensor) -> tf.Tensor:
        """Widens what was multiplied."""
        return tf.cast(outputs, tf.float32)


class UnwidenedConvolution(Bfloat16Convolution):
    """bfloat16 in and out, for an activation that is all that reads it."""

    def finished(self, outputs: tf.Tensor) -> tf.Tensor:
        """Leaves 16 bits."""
        return outputs


class NarrowConvolution(Bfloat16Convolution):
    """A convolution before BatchNormalization and an activation, which stay in bfloat16 with it.

    Both then move half the memory, and nothing is widened for them and rounded for the next
    product. Where channels are no multiple of 16, the kernel of BatchNormalization takes several
    times as long in bfloat16: these are widened.
    """

    def finished(self, outputs: tf.Tensor) -> tf.Tensor:
        """Leaves 16 bits where they gain."""
        return super().finished(outputs) if self.filters % 16 else outputs
