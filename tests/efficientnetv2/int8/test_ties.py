"""Tests that values half way between two levels are rounded as LiteRT rounds them."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow import keras

from efficientnetv2.int8.rounded_network import RoundedNetwork, Runner, run_network
from efficientnetv2.runtime.tensorflow_import import silence_native_output

SIDE, CHANNELS = 4, 8
LOW, HIGH = -101.0, 154.0  # levels are whole numbers, and 0 is an odd one
IMAGES = np.random.default_rng(0).integers(LOW, HIGH + 1, (200, SIDE, SIDE, CHANNELS))
KERNEL = np.random.default_rng(1).integers(-127, 128, (1, 1, CHANNELS, CHANNELS))
KERNEL[:, :, 0] = 127  # so that the steps of the weights are 1


def convolution(x):
    return keras.layers.Conv2D(CHANNELS, 1, name="last")(x)


def mean(x):
    return keras.layers.GlobalAveragePooling2D(keepdims=True, name="last")(x)


def addition(x):
    return keras.layers.Add(name="last")([x, keras.layers.MaxPooling2D(3, 1, "same")(x)])


def product(x):
    return keras.layers.Multiply(name="last")([x, keras.layers.MaxPooling2D(3, 1, "same")(x)])


def run_file(network):
    shape = [None, SIDE, SIDE, CHANNELS]
    function = tf.function(network.__call__, input_signature=[tf.TensorSpec(shape)])
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with silence_native_output():  # it warns that nobody gave statistics of the inputs
        content = converter.convert()
    interpreter = Interpreter(model_content=content)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(image["index"], IMAGES.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], np.float32(IMAGES))
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


@pytest.mark.parametrize(
    ("build", "step"), [(convolution, 512.0), (mean, 1.0), (addition, 2.0), (product, 64.0)]
)
def test_ties_are_those_of_the_file(build, step):
    image = keras.Input((SIDE, SIDE, CHANNELS), name="image")
    folded = keras.Model(image, build(image))
    weights = {"last": (np.float32(KERNEL), np.zeros(CHANNELS, np.float32))}
    ranges = {"image": (LOW, HIGH), "last": (step * LOW, step * HIGH)}
    network = RoundedNetwork(folded, weights=weights, ranges=ranges)
    images = tf.constant(IMAGES, tf.float32)

    def run(*, exact):
        runner = Runner(lambda _: weights["last"], lambda key, *_, **__: ranges[key], exact=exact)
        return run_network(folded, images, runner).numpy()

    expected = run_file(network)
    assert np.std(expected) > step
    np.testing.assert_array_equal(run(exact=True), expected)
    if build is not addition:  # where LiteRT, too, takes the larger level
        assert (run(exact=False) != expected).any()
