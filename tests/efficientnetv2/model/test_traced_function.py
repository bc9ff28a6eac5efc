"""Tests that a traced function is freed with its graph, and computes what it did."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from tensorflow.python.framework import ops

from efficientnetv2.model.kernels import silu
from efficientnetv2.model.traced_function import function_without_gradient, outputs_of

IMAGES = tf.constant(np.random.default_rng(0).normal(size=(2, 3)), tf.float32)


def network():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="silu")(inputs)
    return keras.Model(inputs, keras.layers.Activation("silu")(hidden))


def traced(model, make):
    return make(lambda images: model(images, training=False), autograph=False)


def test_the_graph_and_its_network_are_freed():
    model = network()
    function = traced(model, function_without_gradient)
    np.testing.assert_allclose(function(IMAGES), model(IMAGES), rtol=1e-6)
    graph = weakref.ref(function.get_concrete_function(IMAGES).graph)
    weights = weakref.ref(model.weights[0])
    assert graph() is not None and weights() is not None
    del function, model
    keras.backend.clear_session()
    gc.collect()
    assert graph() is None and weights() is None


@pytest.mark.parametrize("activation", [tf.nn.silu, silu])
def test_gradients_inside_the_function(activation):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = activation(x)
        return tape.gradient(y, x)

    gate = tf.sigmoid(IMAGES)
    expected = gate * (1 + IMAGES * (1 - gate))
    function = function_without_gradient(gradient)
    np.testing.assert_allclose(function(IMAGES), expected, rtol=1e-5, atol=1e-6)
    rows = IMAGES[:1]  # traced anew
    np.testing.assert_allclose(function(rows), expected[:1], rtol=1e-5, atol=1e-6)


def test_a_gradient_through_the_function_is_an_error():
    function = function_without_gradient(tf.nn.silu)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        with pytest.raises(LookupError, match="No gradient defined"):
            tape.gradient(function(IMAGES), IMAGES)


def test_other_functions_keep_their_gradients():
    other = tf.function(tf.nn.silu)
    other(IMAGES)
    function_without_gradient(tf.nn.silu)(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        result = other(IMAGES)
    assert tape.gradient(result, IMAGES) is not None


def test_outputs_are_those_of_predict():
    model = network()
    images = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    before = len(ops.gradient_registry.list())
    outputs = outputs_of(model, images, batch_size=3)
    assert outputs.shape == (7, 4)
    assert len(ops.gradient_registry.list()) == before
    np.testing.assert_allclose(outputs, model.predict(images, verbose=0), rtol=1e-6, atol=1e-7)
