"""Tests that Keras models of our network and any head give their own logits."""

import re

import numpy as np
import pytest
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.checkpoints.keras_file import ConfigLayer, KerasLayer
from efficientnetv2.checkpoints.keras_head import find_head
from hparams.errors import WeightsError

NETWORK = {"blocks_args": ["r1_k3_s2_e2_i8_o8_se0.25"], "feature_size": 8}
L = keras.layers
HEADS = {
    "dense": lambda: [L.Dense(3)],
    "softmax": lambda: [L.Dropout(0.3), L.Dense(3, activation="softmax", name="predictions")],
    "softmax layer": lambda: [L.Dense(3, name="logits"), L.Softmax()],
    "no bias": lambda: [L.Dense(3, use_bias=False)],
    "batch norm": lambda: [L.BatchNormalization(epsilon=0.01), L.Dropout(0.1), L.Dense(3)],
    "no scale": lambda: [L.BatchNormalization(scale=False), L.Dense(3)],
    "two linear": lambda: [L.Dense(5), L.BatchNormalization(), L.Dense(3, activation="sigmoid")],
}
UNLIKE = {
    "hidden": (
        lambda: [L.Dense(5, activation="relu"), L.Dense(3)],
        "Dense layer '.*' with act.*relu",
    ),
    "activation": (lambda: [L.Dense(5), L.ReLU(), L.Dense(3)], "ReLU layer '"),
    "norm": (lambda: [L.LayerNormalization(), L.Dense(3)], "LayerNormalization layer '"),
}


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])


def sequential(head):
    backbone = get_model("efficientnetv2-b0", include_top=False, pooling="avg", overrides=NETWORK)
    return keras.Sequential([keras.Input((32, 32, 3)), backbone, *head])


def functional(head):
    """Builds a model as the Keras documentation shows, with pixels of 0..255."""
    backbone = get_model("efficientnetv2-b0", include_top=False, overrides=NETWORK)
    inputs = keras.Input((32, 32, 3))
    x = L.RandomFlip()(inputs)
    x = L.GlobalAveragePooling2D()(backbone(x, training=False))
    for layer in head:
        x = layer(x)
    return keras.Model(inputs, x)


def logits_of(model):
    """Returns the model without its last activation."""
    last = model.layers[-1]
    if isinstance(last, L.Softmax):
        return keras.Model(model.inputs[0], last.input)
    last.activation = keras.activations.linear
    return model


@pytest.fixture
def images(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("build", [sequential, functional])
@pytest.mark.parametrize("head", HEADS)
def test_logits_of_any_linear_head(tmp_path, seed, images, build, head, suffix):
    theirs = build(HEADS[head]())
    randomise(theirs, seed)
    theirs.save(tmp_path / f"x.{suffix}")
    ours = get_model(
        "efficientnetv2-b0", num_classes=3, weights=tmp_path / f"x.{suffix}", overrides=NETWORK
    )
    expected = logits_of(theirs)(images, training=False)
    np.testing.assert_allclose(ours(images), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("head", UNLIKE)
def test_a_head_that_we_cannot_have(tmp_path, caplog, head):
    build, reason = UNLIKE[head]
    sequential(build()).save(tmp_path / "x.keras")
    with pytest.raises(
        WeightsError, match="has no classifier that this network can have: .*" + reason
    ):
        get_model(
            "efficientnetv2-b0",
            weights=tmp_path / "x.keras",
            overrides={**NETWORK, "num_classes": 3},
        )
    # For another task, the body is enough.
    get_model("efficientnetv2-b0", num_classes=4, weights=tmp_path / "x.keras", overrides=NETWORK)
    assert re.search("new, with initial values: predictions/kernel", caplog.text)


def test_two_dense_layers_in_a_file_without_config(tmp_path):
    sequential([L.Dense(5), L.Dense(3)]).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match=r"it has 2 Dense layers \(dense"):
        get_model(
            "efficientnetv2-b0",
            weights=tmp_path / "x.weights.h5",
            overrides={**NETWORK, "num_classes": 3},
        )


@pytest.mark.slow
def test_the_network_of_keras_applications(tmp_path, seed, images):
    body = keras.applications.EfficientNetB0(weights=None, include_top=False, pooling="avg")
    theirs = keras.Sequential([keras.Input((32, 32, 3)), body, L.Dense(3, name="head")])
    theirs.save_weights(tmp_path / "x.weights.h5")
    ours = get_model("efficientnet-b0", num_classes=3, weights=tmp_path / "x.weights.h5")
    # Without released weights, Keras leaves out the last part of its normalisation.
    features = keras.Model(body.get_layer("stem_conv_pad").input, body.output)(images)
    np.testing.assert_allclose(ours(images), theirs.layers[-1](features), atol=1e-4)


def head_of(*shapes, units=8):
    """A BatchNormalization of these values before a Dense, behind the end of the body."""
    rng = np.random.default_rng(0)
    values = [(name, rng.uniform(1, 2, shape)) for name, shape in zip("abcd", shapes)]
    dense = KerasLayer((), "d", (("kernel", rng.normal(size=(units, 3))), ("bias", np.zeros(3))))
    config = [
        ConfigLayer((), "top_bn", "BatchNormalization", {"epsilon": 1e-3}),
        ConfigLayer((), "pool", "GlobalAveragePooling2D", {"keepdims": False}),
        ConfigLayer((), "n", "BatchNormalization", {"epsilon": 1e-3}),
        ConfigLayer((), "d", "Dense", {"activation": "softmax"}),
    ]
    return [KerasLayer((), "n", tuple(values)), dense], config


def test_a_head_whose_values_do_not_fit_its_settings_is_named():
    assert find_head(*head_of(*[(8,)] * 4)).kernel.shape == (8, 3)
    with pytest.raises(WeightsError, match="'n' does not have the weights of its settings"):
        find_head(*head_of((8,), (8,)))
    for shapes in ([(7,)] * 4, [(8,), (8,), (7,), (8,)]):
        head = find_head(*head_of(*shapes))
        assert head.kernel is None and "its head has the" in head.note
