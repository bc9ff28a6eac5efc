"""Tests that a network in training computes as its 8-bit file, and what its gradients are."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow import keras
from tensorflow.python.framework import ops

from efficientnetv2.data.preprocess import normalise
from efficientnetv2.export.litert import convert_int8
from efficientnetv2.export.servable import Servable
from efficientnetv2.int8.fake_quant import FakeQuantised
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold
from hparams import resolve
from hparams.choices import NORMALISATIONS

BLOCKS = {
    "relu6": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16"],
    "silu": ["r1_k3_s2_e4_i8_o16_c1", "r1_k3_s2_e4_i16_o16_se0.25"],
}
NORMALISATION = NORMALISATIONS["v1"]


def servable_of(act_fn, *, preprocessing=True, activation=None):
    settings = {"blocks_args": BLOCKS[act_fn], "act_fn": act_fn, "feature_size": 16}
    config = resolve(
        "efficientnetv2-b0", "digits", {f"model.{key}": value for key, value in settings.items()}
    )
    keras.utils.set_random_seed(2)
    model = build_model(
        config.model, include_preprocessing=preprocessing, classifier_activation=activation
    )
    return Servable(
        model=model,
        folded=fold(model),
        class_names=[str(digit) for digit in range(10)],
        image_size=16,
        preprocessing=preprocessing,
        output_name="logits",
        model_name=config.model.model_name,
        preprocess=config.model.preprocess,
        resize=config.data.resize,
        origin="random weights",
    )


def run_file(file, images):
    interpreter = Interpreter(model_content=file)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(image["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


@pytest.fixture(scope="module")
def pixels():
    """Smooth images, in which neighbouring pixels are alike as in photographs."""
    coarse = np.random.default_rng(1).uniform(0, 255, (300, 4, 4, 3))
    return np.float32(np.round(np.kron(coarse, np.ones((1, 4, 4, 1)))))


@pytest.fixture(scope="module", params=["relu6", "silu"])
def trained(request, pixels):
    """The kind of activation, and a network of it that was calibrated and then trained."""
    folded = servable_of(request.param).folded
    layer = FakeQuantised(folded, NORMALISATION)
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layer(images))
    calibrated = QuantisedNetwork(folded, pixels[:100])
    layer.calibrate_with(calibrated)
    normalised = normalise(pixels, NORMALISATION)
    np.testing.assert_allclose(
        model(normalised)[:9], calibrated(tf.constant(pixels[:9])), atol=0.02
    )
    brightness = pixels.mean((1, 2, 3))
    labels = tf.constant(np.digitize(brightness, np.quantile(brightness, np.arange(0.1, 1, 0.1))))
    optimizer = keras.optimizers.Adam(5e-3)
    ranges = layer.weights[0].numpy()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(normalised, training=True)
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss, gradients

    first, gradients = step()
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    assert [step() for _ in range(40)][-1][0] < first - 0.1
    np.testing.assert_array_equal(layer.weights[0].numpy(), ranges)
    return request.param, layer, model(normalised).numpy()


def test_the_file_is_the_network_that_was_trained(trained, pixels):
    act_fn, layer, logits = trained
    servable = servable_of(act_fn)
    network = layer.rounded(servable.folded)
    low, high = network.ranges["predictions"]
    outputs = run_file(convert_int8(servable, network, integer_io=False), pixels)
    steps = np.round(np.abs(outputs - logits) / ((high - low) / 255))
    # Where a value lies between two steps, to seven digits, the one or the other may be taken, and
    # what follows magnifies that.
    assert (steps <= 1).mean() == 1  # of all logits of all 300 images
    assert (steps == 0).mean() > 0.98
    assert np.std(logits, axis=0).min() > 3 * (high - low) / 255  # images do differ


def test_pixels_half_way_between_two_integers_are_rounded_as_in_the_file(trained, pixels):
    """A small image that is enlarged has many of them; LiteRT rounds them to the even integer."""
    act_fn, layer, _ = trained
    servable = servable_of(act_fn)
    network = layer.rounded(servable.folded)
    low, high = network.ranges["predictions"]
    half = np.minimum(pixels, 254) + np.float32(0.5)
    outputs = run_file(convert_int8(servable, network, integer_io=False), half)
    logits = layer(normalise(half, NORMALISATION))
    steps = np.round(np.abs(outputs - logits) / ((high - low) / 255))
    assert (steps <= 1).mean() > 0.999
    assert (steps == 0).mean() > 0.95


def test_probabilities_at_a_temperature(trained, pixels):
    act_fn, layer, logits = trained
    servable = servable_of(act_fn, activation="softmax")
    network = layer.rounded(servable.folded, divisor=2.0)
    expected = tf.nn.softmax(logits / 2)
    np.testing.assert_allclose(network(tf.constant(pixels)), expected, atol=1 / 256)


def test_normalised_images(trained, pixels):
    act_fn, layer, logits = trained
    network = layer.rounded(servable_of(act_fn, preprocessing=False).folded)
    outputs = network(normalise(pixels, NORMALISATION))
    assert np.square(outputs - logits).mean() < 0.01 * logits.var()


def test_building_the_network_leaves_no_gradients_behind():
    layer = FakeQuantised(servable_of("silu").folded, NORMALISATION)
    images = keras.Input((None, None, 3))
    before = len(ops.gradient_registry.list())
    assert layer(images).shape == (None, 10)
    assert len(ops.gradient_registry.list()) == before
