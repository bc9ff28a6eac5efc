"""Computes activations and convolutions in fewer passes over memory, for speed on a CPU.

Results equal those of the stock layers up to rounding; docs/performance.md has measurements. On
other devices the stock kernels stay: cuDNN and XLA optimise in their own ways, and there was no
such device to measure on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.runtime.tensorflow_import import silence_native_output


def is_cpu_only() -> bool:
    """Whether TensorFlow sees no device but CPUs."""
    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


@tf.function(jit_compile=True, autograph=False)
def _silu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return _narrow(tf.cast(upstream, tf.float32) * _silu_slope(x), x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _silu_and_mean_gradient(x: tf.Tensor, upstream: tf.Tensor, of_mean: tf.Tensor) -> tf.Tensor:
    per_pixel = tf.cast(of_mean, tf.float32) / tf.cast(tf.shape(x)[1], tf.float32)
    upstream = tf.cast(upstream, tf.float32) + per_pixel[:, tf.newaxis]
    return _narrow(upstream * _silu_slope(x), x.dtype)


def _silu_slope(x: tf.Tensor) -> tf.Tensor:
    values = tf.cast(x, tf.float32)
    gate = tf.sigmoid(values)
    return gate * (1.0 + values * (1.0 - gate))


def _narrow(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Rounds float32 to the nearest number of ``dtype``; for bfloat16, by integer arithmetic.

    XLA's own cast to bfloat16 doubles the time of a loop on a CPU; this adds a seventh. Infinities
    stay what they are, and so does the NaN that processors produce.
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
    """Compiles once with stderr silenced: XLA reports its first use there at any log level."""
    with silence_native_output(), tf.init_scope():
        _silu_gradient(tf.zeros([1]), tf.zeros([1]))


@tf.custom_gradient
def silu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """``x * sigmoid(x)``, whose gradient is one compiled loop instead of six passes over memory.

    The gradient flattens its inputs, so one program serves all shapes with the same element count.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        flat = _silu_gradient(tf.reshape(x, [-1]), tf.reshape(upstream, [-1]))
        return tf.reshape(flat, tf.shape(x))

    return tf.nn.silu(x), gradient


@tf.custom_gradient
def silu_and_mean(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """``silu`` of ``[B, H, W, C]`` and its mean ``[B, 1, 1, C]``, with one gradient for both.

    A separate gradient of the mean would be broadcast over the pixels, divided, and added: three
    more passes over memory. Compiled once for each size.
    """

    def gradient(upstream: tf.Tensor, of_mean: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        by_pixel = [shape[0], shape[1] * shape[2], shape[3]]
        flat = _silu_and_mean_gradient(
            tf.reshape(x, by_pixel),
            tf.reshape(upstream, by_pixel),
            tf.reshape(of_mean, [shape[0], shape[3]]),
        )
        return tf.reshape(flat, shape)

    y = tf.nn.silu(x)
    return (y, tf.reduce_mean(y, [1, 2], keepdims=True)), gradient


class Silu(keras.layers.Layer):
    """The activation ``silu``, computed in the dtype of its input."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, autocast=False)
        _compile_quietly()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Activates each number."""
        return silu(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the input's shape."""
        return input_shape


class SiluAndMean(keras.layers.Layer):
    """The activation and its mean, ``silu_and_mean``, in the layer's compute dtype."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        _compile_quietly()

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Activates each number, and takes the mean of each channel of each image."""
        return silu_and_mean(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple[tuple, tuple]:
        """Returns the input's shape, and the same with one pixel."""
        return input_shape, (input_shape[0], 1, 1, input_shape[3])


def _product(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Multiplies two matrices of one dtype; a bfloat16 product is rounded once, at its end."""
    if left.dtype != tf.bfloat16 or _rounds_products_once():
        return tf.matmul(left, right)
    product = tf.matmul(tf.cast(left, tf.float32), tf.cast(right, tf.float32))
    return tf.cast(product, tf.bfloat16)


@functools.cache
def _rounds_products_once() -> bool:
    """Whether bfloat16 matrix products are added up in float32, as oneDNN does.

    On processors without AVX-512, TensorFlow takes a kernel of its own that rounds in between.
    """
    with tf.init_scope():
        # Integers of 8 bits: exact in bfloat16, and so are their products and sums in float32.
        left = tf.random.stateless_uniform([16, 64], [0, 1], -255, 256, tf.int32)
        right = tf.random.stateless_uniform([64, 16], [0, 2], -255, 256, tf.int32)
        exact = tf.matmul(tf.cast(left, tf.float32), tf.cast(right, tf.float32))
        product = tf.matmul(tf.cast(left, tf.bfloat16), tf.cast(right, tf.bfloat16))
        return bool(tf.reduce_all(product == tf.cast(exact, tf.bfloat16)))


class Convolution(keras.layers.Conv2D):
    """Conv2D that computes a 1x1 kernel without strides, channels last, as one matrix product."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves ``[B, H, W, C]``, adds the bias and activates."""
        images, kernel = self.cast_inputs(inputs, tf.convert_to_tensor(self.kernel))
        is_last = self.data_format == "channels_last"
        is_single = self.kernel_size == (1, 1) and self.strides == (1, 1) and self.groups == 1
        if is_product := is_single and is_last:
            pixels = tf.reshape(images, [-1, images.shape[-1]])
            outputs = _product(pixels, tf.reshape(kernel, [-1, self.filters]))
        else:
            outputs = self.convolution_op(images, kernel)
        if self.use_bias:  # right after the product: TensorFlow fuses both
            bias = tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype)
            outputs = tf.nn.bias_add(outputs, bias, data_format="NHWC" if is_last else "NCHW")
        outputs = self.cast_outputs(outputs)
        if is_product:
            shape = tf.shape(inputs)
            outputs = tf.reshape(outputs, [shape[0], shape[1], shape[2], self.filters])
        return outputs if self.activation is None else self.activation(outputs)

    def cast_inputs(self, images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both factors in the dtype in which they are multiplied."""
        return images, kernel

    def cast_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the product in the dtype of the layer's output."""
        return outputs


class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D whose kernel's gradient is computed in a fast way.

    TensorFlow's kernel for this gradient (oneDNN's) is slow for kernels of more than three columns,
    and for images that are so small that padding ``same`` surrounds them: 1 to 3 pixels, which the
    last stages of a network see if its input has 64 px or less. Here it is called for three columns
    at a time, with explicit padding. Only for kernels of 3x3 and 5x5, padding ``same``, channels
    last.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves each channel of ``[B, H, W, C]`` by itself."""
        if not self._is_plain:
            return super().call(inputs)
        return _depthwise(inputs, tf.convert_to_tensor(self.kernel), stride=self.strides[0])

    @property
    def _is_plain(self) -> bool:
        return (
            self.kernel_size in ((3, 3), (5, 5))
            and (self.padding, self.data_format) == ("same", "channels_last")
            and self.strides in ((1, 1), (2, 2))
            and (self.depth_multiplier, self.dilation_rate) == (1, (1, 1))
            and not self.use_bias
            and self.activation is keras.activations.linear
        )


def _depthwise(images: tf.Tensor, kernel: tf.Tensor, *, stride: int) -> tf.Tensor:
    """Convolves ``[B, H, W, C]`` with a square kernel ``[K, K, C, 1]``, K 3 or 5."""
    strides = [1, stride, stride, 1]

    @tf.custom_gradient
    def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            of_images = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding="SAME",
            )
            size = kernel.shape[0]
            return of_images, _kernel_gradient(images, upstream, size=size, stride=stride)

        outputs = tf.raw_ops.DepthwiseConv2dNative(
            input=images, filter=kernel, strides=strides, padding="SAME"
        )
        return outputs, gradient

    return convolve(images, kernel)


def _kernel_gradient(
    images: tf.Tensor, upstream: tf.Tensor, *, size: int, stride: int
) -> tf.Tensor:
    """Returns the gradient ``[K, K, C, 1]`` of the kernel, K = ``size``."""

    def in_strips() -> tf.Tensor:
        return _gradient_in_strips(images, upstream, size=size, stride=stride)

    def at_once() -> tf.Tensor:
        return _columns_gradient(images, upstream, (size, size, images.shape[-1]), stride=stride)

    if size > 3:
        return in_strips()
    # Larger images are faster without explicit padding.
    is_small = tf.reduce_min(tf.shape(images)[1:3]) <= stride + 1
    return tf.cond(is_small, in_strips, at_once)


def _gradient_in_strips(
    images: tf.Tensor, upstream: tf.Tensor, *, size: int, stride: int
) -> tf.Tensor:
    """Computes the gradient for three columns of the kernel at a time."""
    channels, added = images.shape[-1], size - 1
    if stride == 2:
        # Padding must be known when the graph is traced; the size of the images need not be. With a
        # row above and a column on the left, odd sizes have the same padding as even ones.
        is_odd = tf.shape(images)[1:3] % 2
        images = tf.pad(images, tf.pad(is_odd[:, tf.newaxis], [[1, 1], [0, 1]]))
        added = size - 2
    before, after = added // 2, added - added // 2
    strips = []
    for first in range(0, size, 3):
        columns = min(3, size - first)
        # The padding that these columns of the kernel reach. The second strip reaches none on the
        # left, and skips the first columns of the images.
        left, right = max(before - first, 0), max(after - (size - first - columns), 0)
        read = images[:, :, max(first - before, 0) :]
        padding = (before, after, left, right)
        shape = (size, columns, channels)
        strips.append(_columns_gradient(read, upstream, shape, stride=stride, padding=padding))
    return tf.concat(strips, axis=1)


def _columns_gradient(
    images: tf.Tensor,
    upstream: tf.Tensor,
    shape: tuple[int, int, int],
    *,
    stride: int,
    padding: tuple[int, int, int, int] | None = None,
) -> tf.Tensor:
    """Returns the gradient of a kernel of a ``shape`` (rows, columns, channels).

    ``padding`` is the number of pixels above, below, left and right; None: ``same``.
    """
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=images,
        filter_sizes=[*shape, 1],
        out_backprop=upstream,
        strides=[1, stride, stride, 1],
        padding="SAME" if padding is None else "EXPLICIT",
        explicit_paddings=[] if padding is None else [0, 0, *padding, 0, 0],
    )


class Bfloat16Convolution(Convolution):
    """Convolution that rounds images and kernel to bfloat16; its output is float32.

    Processors with bfloat16 instructions multiply about twice as fast, but gain little elsewhere:
    depthwise convolutions are slower in 16 bits. Squeeze-and-excitation, with one pixel per image,
    is not rounded: its few products do not make up for the casts.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # No autocast: inputs of 16 bits need not be widened first.
        super().__init__(*arguments, autocast=False, **options)

    def cast_inputs(self, images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds both to bfloat16."""
        if tuple(images.shape[1:3]) == (1, 1):
            return images, kernel
        return tf.cast(images, tf.bfloat16), tf.cast(kernel, tf.bfloat16)

    def cast_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Widens the product to float32."""
        return tf.cast(outputs, tf.float32)


class Bfloat16OutputConvolution(Bfloat16Convolution):
    """Bfloat16Convolution with bfloat16 output, which only an activation may read."""

    def cast_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Keeps 16 bits."""
        return outputs


class NarrowConvolution(Bfloat16Convolution):
    """Bfloat16Convolution before BatchNormalization and an activation, which also stay in bfloat16.

    Both then move half the memory, and nothing is widened for them and rounded for the next
    product. Where the number of channels is not a multiple of 16, the kernel of
    BatchNormalization takes several times as long in bfloat16, so the output is widened.
    """

    def cast_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Keeps 16 bits where that is faster."""
        return super().cast_outputs(outputs) if self.filters % 16 else outputs
