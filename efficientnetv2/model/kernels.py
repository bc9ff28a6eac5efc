"""The arithmetic of training on a CPU: what stock layers compute, in fewer passes over memory.

Images ``[B, H, W, C]`` in, the same numbers to rounding out. Measured in docs/performance.md. On
other devices the stock kernels stay: cuDNN and XLA have their own ways, and none was there to try.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.quiet import quiet


def is_cpu_alone() -> bool:
    """Whether TensorFlow has no accelerator here."""
    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


@tf.function(jit_compile=True, autograph=False)
def _silu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    gate = tf.sigmoid(x)
    return upstream * gate * (1.0 + x * (1.0 - gate))


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


class Silu(keras.layers.Layer):
    """The activation ``silu``."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Activates each number."""
        return silu(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """An activation keeps its input's shape."""
        return input_shape


def activation(function: str, name: str) -> keras.layers.Layer:
    """Returns the layer of an activation: ``Silu``, or Keras's own for all else."""
    if function != "silu":
        return keras.layers.Activation(function, name=name)
    _compile_quietly()
    return Silu(name=name)


class Convolution(keras.layers.Conv2D):
    """Conv2D; a 1x1 kernel without strides, channels last, is one matrix product."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves ``[B, H, W, C]``, adds the bias and activates."""
        is_product = self.kernel_size == (1, 1) and self.strides == (1, 1) and self.groups == 1
        if not is_product or self.data_format != "channels_last":
            return super().call(inputs)
        matrix = tf.reshape(tf.convert_to_tensor(self.kernel), [-1, self.filters])
        product = self.product(tf.reshape(inputs, [-1, inputs.shape[-1]]), matrix)
        if self.use_bias:  # before the reshape: TensorFlow then adds it inside the product
            product = tf.nn.bias_add(product, tf.convert_to_tensor(self.bias))
        shape = tf.shape(inputs)
        product = tf.reshape(product, [shape[0], shape[1], shape[2], self.filters])
        return product if self.activation is None else self.activation(product)

    def product(self, rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Multiplies ``[P, C]`` by ``[C, N]``."""
        return tf.matmul(rows, matrix)


class Bfloat16Convolution(Convolution):
    """The same of numbers rounded to bfloat16; float32 goes in and comes out.

    Processors that multiply bfloat16 do it about twice as fast, and nothing else: kept in 16 bits
    between the layers, numbers only lose digits, and depthwise convolutions lose time as well.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves what is no matrix product."""
        return _in_bfloat16(super().convolution_op, inputs, kernel)

    def product(self, rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Multiplies ``[P, C]`` by ``[C, N]``."""
        return _in_bfloat16(super().product, rows, matrix)


def _in_bfloat16(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], inputs: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    rounded = (tf.cast(tf.convert_to_tensor(tensor), tf.bfloat16) for tensor in (inputs, kernel))
    return tf.cast(function(*rounded), tf.float32)
