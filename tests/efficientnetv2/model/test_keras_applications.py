"""Tests that our models equal ``keras.applications`` with the same weights, copied by name."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2 import get_model

TOLERANCE = 1e-4
V2 = {f"efficientnetv2-b{i}": f"EfficientNetV2B{i}" for i in range(4)}
V2 |= {f"efficientnetv2-{size}": f"EfficientNetV2{size.upper()}" for size in "sml"}
V1 = {f"efficientnet-b{i}": f"EfficientNetB{i}" for i in range(8)}
QUICK = ("efficientnetv2-b0",)
CASES = [
    pytest.param(name, twin, marks=() if name in QUICK else pytest.mark.slow)
    for name, twin in {**V2, **V1}.items()
]
SIZE = 64  # pixels: every layer has work to do, and 15 pairs of networks stay affordable


@pytest.fixture(autouse=True)
def _fresh_session():
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def _no_variables_left():
    yield
    keras.backend.clear_session(free_memory=False)  # else Keras would soon initialise them


def build_twins(name, twin, *, v1):
    # drop_connect_rate 0: stochastic depth off, so that training mode can be compared.
    overrides = {"survival_prob": 1.0, "dropout_rate": 0.0, "bn_momentum": 0.9}
    if name == "efficientnet-b3":
        overrides["round_down_limit"] = 0.1  # as the released weights; docs/parity.md
    with keras.StatelessScope(initialize_variables=False):  # both get the same values later
        theirs = _without_stochastic_depth(twin, v1=v1)
        ours = get_model(name, overrides=overrides, include_preprocessing=v1)
    return ours, theirs


def _without_stochastic_depth(twin, *, v1):
    constructor = getattr(keras.applications, twin)
    options = {} if v1 else {"include_preprocessing": False}
    shape = (SIZE, SIZE, 3)
    model = constructor(weights=None, input_shape=shape, classifier_activation=None, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def values_by_name(source, target):
    """Returns random values for both, as the initial ones leave every BatchNorm alike."""
    rng = np.random.default_rng(2104)
    values = {}
    for layer in target.layers:
        if not layer.weights:
            continue
        twin = source.get_layer(layer.name)
        assert [w.path for w in twin.weights] == [w.path for w in layer.weights]
        assert [w.shape for w in twin.weights] == [w.shape for w in layer.weights]
        # Tensors, which each call takes as they are.
        values |= {weight.path: tf.constant(drawn(rng, weight)) for weight in twin.weights}
    return values


@functools.cache
def normal_numbers():
    """Draws a million normal numbers once: a hundred million for each network take seconds."""
    return np.random.default_rng(2104).standard_normal(1_000_000, np.float32)


def drawn(rng, weight):
    if weight.name in ("gamma", "moving_variance"):
        return rng.uniform(0.8, 1.2, weight.shape).astype(np.float32)
    if weight.name in ("beta", "moving_mean", "bias"):
        return rng.normal(0, 0.1, weight.shape).astype(np.float32)
    # About as Keras's networks begin.
    *space, _, filters = weight.shape
    variance = 2 / (np.prod(space) * filters) if space else 1 / (3 * filters)
    start, size = rng.integers(500_000), np.prod(weight.shape)
    some = normal_numbers()[start : start + size] * np.float32(np.sqrt(variance))
    return np.resize(some, weight.shape)  # repeats them where they are too few


def call(model, values, images, *, training):
    """Calls the network with values for its variables, of which it has none itself."""
    state = [
        (v, values[v.path] if v.path in values else np.zeros(v.shape, v.dtype))
        for v in model.variables
    ]
    with keras.StatelessScope(state, initialize_variables=False):
        return model(images, training=training)


@pytest.mark.parametrize(("name", "twin"), CASES)
def test_inference_and_training_mode(name, twin, seed):
    v1 = name in V1
    ours, theirs = build_twins(name, twin, v1=v1)
    values = values_by_name(theirs, ours)
    pixels = np.random.default_rng(seed).uniform(0, 255, (4, SIZE, SIZE, 3)).astype(np.float32)
    images = pixels if v1 else (pixels - 128) / 128
    if v1:
        adapt(theirs.get_layer("normalization"))
    for training in (False, True):
        np.testing.assert_allclose(
            call(ours, values, images, training=training),
            call(theirs, values, images, training=training),
            atol=TOLERANCE,
            rtol=0,
            err_msg=f"training={training}",
        )


def adapt(normalization):
    """Sets this layer to what Keras's ImageNet weights contain."""
    deviation = np.array([[[[0.229, 0.224, 0.225]]]], np.float32)
    normalization.mean = np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
    normalization.variance = deviation**2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "twin"), [("efficientnetv2-b0", "EfficientNetV2B0")])
def test_preprocessing_inside_the_model(name, twin, seed):
    with keras.StatelessScope(initialize_variables=False):
        theirs = getattr(keras.applications, twin)(weights=None, input_shape=(SIZE, SIZE, 3))
        ours = get_model(name, include_preprocessing=True, classifier_activation="softmax")
    values = values_by_name(theirs, ours)
    pixels = np.random.default_rng(seed).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(
        call(ours, values, pixels, training=False),
        call(theirs, values, pixels, training=False),
        atol=1e-5,
        rtol=0,
    )
