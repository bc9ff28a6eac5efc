"""Tests that folding BatchNormalization changes a network's layers and not its outputs."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold, for_inference
from efficientnetv2.model.kernels import Bfloat16OutputConvolution, Convolution
from hparams import resolve

from .conftest import SETTINGS, servable_of, with_random_batchnorm

FAMILIES = {
    "efficientnetv2-b0": {},
    "efficientnet-b0": {},
    "efficientnet-lite0": {"model.blocks_args": ["r2_k3_s1_e4_i8_o8"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_function_stays(name, pixels):
    servable = servable_of(name, logits=True, **FAMILIES[name])
    kinds = [type(layer) for layer in servable.folded.layers]
    assert keras.layers.BatchNormalization not in kinds
    assert keras.layers.Dropout not in kinds
    before, after = (
        model.predict(pixels, verbose=0) for model in (servable.model, servable.folded)
    )
    np.testing.assert_allclose(after, before, atol=2e-6 * np.abs(before).max())
    assert before.std() > 0.01


def test_the_fast_network_is_the_same_function_by_products(servable, pixels):
    fast = for_inference(servable.model)
    expected = servable.model(pixels)
    np.testing.assert_allclose(fast(pixels), expected, atol=2e-6 * np.abs(expected).max())
    graph = tf.function(fast).get_concrete_function(tf.TensorSpec([None, None, None, 3])).graph
    operations = collections.Counter(operation.type for operation in graph.get_operations())
    kernels = [layer.kernel_size for layer in fast.layers if isinstance(layer, Convolution)]
    spatial = sum(size != (1, 1) for size in kernels)
    assert 0 < operations["Conv2D"] == spatial < len(kernels)
    assert operations["MatMul"] == len(kernels) - spatial + 1  # and the classifier
    assert not operations["Rsqrt"] + operations["Transpose"] + operations["FusedBatchNormV3"]


@pytest.mark.slow
def test_products_of_bfloat16_come_near(servable, pixels):
    fast = for_inference(servable.model, precision="bfloat16")
    assert not any(type(layer) is Convolution for layer in fast.layers)
    expected = servable.model.predict(pixels, verbose=0)
    outputs = fast.predict(pixels, verbose=0)
    assert outputs.dtype == np.float32
    assert 0 < np.abs(outputs - expected).max() < 0.05 * np.abs(expected).max()
    with pytest.raises(ValueError, match="got 'float16'"):
        for_inference(servable.model, precision="float16")


def test_bfloat16_stays_in_activations_that_convolutions_alone_read(servable, pixels):
    fast = for_inference(servable.model, precision="bfloat16")
    names = {layer.name for layer in fast.layers if type(layer) is Bfloat16OutputConvolution}
    # stem_conv and those of block 1 are also read by an addition.
    assert names == {"block2a_expand_conv", "block3a_expand_conv", "block3b_expand_conv"}
    graph = tf.function(fast).get_concrete_function(tf.TensorSpec([None, None, None, 3])).graph
    gates = [o.outputs[0].dtype for o in graph.get_operations() if o.type == "Sigmoid"]
    assert gates.count(tf.bfloat16) == len(names) < len(gates)

    read_layers = ("block2a_expand_activation", "block3a_expand_bn", "block3b_expand_activation")
    outputs = [servable.model.get_layer(name).output for name in read_layers]
    part = keras.Model(servable.model.input, outputs)
    inside = for_inference(part, precision="bfloat16")
    assert not any(type(layer) is Bfloat16OutputConvolution for layer in inside.layers)
    for outputs, expected in zip(inside(pixels), part(pixels)):
        assert outputs.dtype == tf.float32
        np.testing.assert_allclose(outputs, expected, atol=0.05 * np.abs(expected).max())


def test_other_sizes_and_endpoints_stay(servable, pixels):
    folded = keras.Model(servable.folded.input, servable.folded.get_layer("avg_pool").output)
    plain = keras.Model(servable.model.input, servable.model.get_layer("avg_pool").output)
    larger = np.kron(pixels, np.ones((1, 2, 3, 1), np.float32))
    np.testing.assert_allclose(folded.predict(larger, verbose=0), plain(larger), atol=1e-5)


@pytest.mark.slow
def test_a_network_of_another_package(pixels):
    config = resolve("resnet50", "digits", {"eval.isize": 32})
    model = with_random_batchnorm(build_model(config.model))
    folded = fold(model)
    assert len(folded.layers) < len(model.layers) - 50
    expected = model.predict(pixels[:2], verbose=0)
    np.testing.assert_allclose(
        folded.predict(pixels[:2], verbose=0), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_normalization_that_cannot_be_folded_stays():
    image = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3, name="shared")(image)
    normalised = keras.layers.BatchNormalization(name="after_shared")(shared)
    activated = keras.layers.Conv2D(4, 3, activation="relu")(
        keras.layers.Add()([shared, normalised])
    )
    out = keras.layers.BatchNormalization(name="after_activation")(activated)
    model = with_random_batchnorm(keras.Model(image, out))
    folded = fold(model)
    assert {"after_shared", "after_activation"} <= {layer.name for layer in folded.layers}
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4")
    np.testing.assert_allclose(folded(images), model(images), atol=1e-6)


def channel_attention():
    """ECA: a pool whose reshape is no squeeze-and-excitation."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    gate = keras.layers.GlobalAveragePooling2D()(x)
    gate = keras.layers.Reshape((-1, 1))(gate)
    gate = keras.layers.Conv1D(1, 3, padding="same", activation="sigmoid")(gate)
    return keras.Model(image, keras.layers.Multiply()([x, keras.layers.Reshape((1, 1, -1))(gate)]))


def pool_that_is_read_twice():
    image = keras.Input((8, 8, 3))
    pool = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    reshaped = keras.layers.Conv2D(5, 1)(keras.layers.Reshape((1, 1, 4))(pool))
    return keras.Model(image, [keras.layers.Dense(2)(pool), reshaped])


def inner_results_returned():
    """What Grad-CAM is computed from: a convolution before its normalisation, and the answer."""
    image = keras.Input((8, 8, 3))
    convolution = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.BatchNormalization()(convolution)
    pool = keras.layers.GlobalAveragePooling2D()(x)
    scale = keras.layers.Conv2D(4, 1)(keras.layers.Reshape((1, 1, 4))(pool))
    return keras.Model(image, [convolution, pool, keras.layers.Multiply()([x, scale])])


@pytest.mark.parametrize(
    "build", [channel_attention, pool_that_is_read_twice, inner_results_returned]
)
def test_any_network_stays_the_same_function(build):
    model = with_random_batchnorm(build())
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4")
    for folded in (fold(model), for_inference(model)):
        expected, outputs = (keras.tree.flatten(network(images)) for network in (model, folded))
        for ours, theirs in zip(outputs, expected):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_settings_name_a_squeeze_and_excitation():
    assert any("se" in blocks for blocks in SETTINGS["model.blocks_args"])


@pytest.mark.parametrize("model", ["b0.keras", None, keras.Sequential(), keras.layers.ReLU()])
def test_only_functional_models_are_folded(model):
    with pytest.raises(TypeError, match=r"^model must be a functional model"):
        for_inference(model)


@pytest.mark.parametrize("precision", ["float16", 16, ["float32"], None])
def test_unknown_precisions(servable, precision):
    with pytest.raises(ValueError, match=r"^precision must be 'float32' or 'bfloat16', got "):
        for_inference(servable.model, precision=precision)
