"""Tests the training layers against Keras's own and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.batch_norm import FusedBatchNormalization
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import (
    STOCK_LAYERS,
    StepContext,
    StepDropout,
    conv_initializer,
    dense_initializer,
    training_layers,
)
from hparams.config import Config
from hparams.resolve import resolve

TINY = {
    "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"],
    "model.feature_size": 16,
}
PER_IMAGE = (None, 1, 1, 1)
BN_SETTINGS = {"momentum": 0.7, "epsilon": 0.02, "axis": 3}


def step_context(*, step: int = 0, dropout_rate: float = 0.5, seed: int = 0) -> StepContext:
    variable = tf.Variable(step, dtype=tf.int64)
    context = StepContext(step=variable, dropout_rate=dropout_rate, seed=seed)
    context.draw.assign(step)
    return context


@pytest.fixture
def images(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal([1.0, -2.0, 0.0], [0.5, 3.0, 1.0], (4, 3, 5, 3)).astype(np.float32)


@pytest.fixture
def bn_weights() -> list[np.ndarray]:
    """Gamma, beta, moving mean, moving variance."""
    rows = [[0.5, 1.5, -1.0], [0.1, -0.2, 3.0], [0.3, 0.2, 0.1], [0.9, 1.1, 2.0]]
    return list(np.array(rows, np.float32))


def normaliser(cls: type, weights: list[np.ndarray]) -> keras.layers.Layer:
    layer = cls(**BN_SETTINGS)
    layer.build((None, None, None, 3))
    layer.set_weights(weights)
    return layer


def test_fused_batchnorm_trains_like_kerass(
    images: np.ndarray, bn_weights: list[np.ndarray], seed: int
) -> None:
    upstream = np.random.default_rng(seed + 1).normal(size=images.shape).astype(np.float32)
    results = []
    for cls in (FusedBatchNormalization, keras.layers.BatchNormalization):
        layer, inputs = normaliser(cls, bn_weights), tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
        variables = [inputs, layer.gamma.value, layer.beta.value]
        results.append([outputs, *tape.gradient(outputs, variables, output_gradients=upstream)])
    for fused, stock, name in zip(*results, ("outputs", "inputs", "gamma", "beta")):
        np.testing.assert_allclose(fused, stock, atol=1e-5, err_msg=name)


def test_fused_batchnorm_moves_towards_the_mean_and_the_unbiased_variance(
    images: np.ndarray, bn_weights: list[np.ndarray]
) -> None:
    layer = normaliser(FusedBatchNormalization, bn_weights)
    mean, variance = bn_weights[2:]
    for scale in (1.0, 2.0, -0.5):
        batch = images * scale
        layer(batch, training=True)
        mean = 0.7 * mean + 0.3 * batch.mean((0, 1, 2))
        variance = 0.7 * variance + 0.3 * batch.var((0, 1, 2)) * 60 / 59
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)


def test_fused_batchnorm_infers_like_kerass(
    images: np.ndarray, bn_weights: list[np.ndarray]
) -> None:
    fused = normaliser(FusedBatchNormalization, bn_weights)
    stock = normaliser(keras.layers.BatchNormalization, bn_weights)
    np.testing.assert_array_equal(fused(images, training=False), stock(images, training=False))
    gamma, beta, mean, variance = bn_weights
    expected = (images - mean) / np.sqrt(variance + 0.02) * gamma + beta
    np.testing.assert_allclose(fused(images), expected, atol=1e-5)


def test_frozen_fused_batchnorm_keeps_its_statistics(
    images: np.ndarray, bn_weights: list[np.ndarray]
) -> None:
    layer = normaliser(FusedBatchNormalization, bn_weights)
    layer.trainable = False
    np.testing.assert_array_equal(layer(images, training=True), layer(images, training=False))
    np.testing.assert_array_equal(layer.moving_mean, bn_weights[2])


def test_fused_batchnorm_of_vectors_is_kerass(images: np.ndarray) -> None:
    fused, stock = (
        cls(momentum=0.7) for cls in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    rows = images.reshape(-1, 3)
    np.testing.assert_array_equal(fused(rows, training=True), stock(rows, training=True))
    np.testing.assert_array_equal(fused.moving_variance, stock.moving_variance)


def mask(
    context: StepContext,
    name: str = "drop",
    *,
    shape: tuple = (100, 50),
    rate: float = 0.5,
    noise_shape: tuple | None = None,
) -> np.ndarray:
    layer = StepDropout(rate, context=context, noise_shape=noise_shape, name=name)
    return layer(tf.ones(shape), training=True).numpy()


@pytest.mark.parametrize("noise_shape", [None, PER_IMAGE])
def test_dropout_leaves_inference_alone(images: np.ndarray, noise_shape: tuple | None) -> None:
    layer = StepDropout(0.9, context=step_context(), noise_shape=noise_shape, name="drop")
    np.testing.assert_array_equal(layer(images, training=False), images)
    np.testing.assert_array_equal(layer(images), images)


def test_the_mask_is_a_function_of_seed_name_and_step() -> None:
    context = step_context(step=7, seed=3)
    first = mask(context)
    context.step.assign(8)
    mask(context)
    context.step.assign(7)
    np.testing.assert_array_equal(mask(context), first)
    np.testing.assert_array_equal(mask(step_context(step=7, seed=3, dropout_rate=0.1)), first)


@pytest.mark.parametrize(
    ("step", "seed", "name"),
    [(8, 3, "drop"), (7, 4, "drop"), (7, 3, "drop2"), (3, 7, "drop"), (7 + 2**40, 3, "drop")],
)
def test_another_step_seed_or_name_has_an_independent_mask(step: int, seed: int, name: str) -> None:
    first = mask(step_context(step=7, seed=3))
    other = mask(step_context(step=step, seed=seed), name)
    correlation = np.corrcoef(first.ravel(), other.ravel())[0, 1]
    # Independent masks of 5000 elements correlate by 0.014 (one standard deviation).
    assert abs(correlation) < 0.07


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate: float) -> None:
    values = mask(step_context(), shape=(100_000,), rate=rate)
    kept = values != 0
    np.testing.assert_allclose(values[kept], 1 / (1 - rate), rtol=1e-6)
    # Five standard deviations of a binomial share and of the mean.
    tolerance = 5 * np.sqrt(rate * (1 - rate) / values.size)
    assert abs(kept.mean() - (1 - rate)) <= tolerance
    assert abs(values.mean() - 1) <= tolerance / (1 - rate) + 1e-6


def test_a_noise_shape_of_images_drops_whole_images() -> None:
    values = mask(step_context(), shape=(1000, 3, 2, 4), rate=0.25, noise_shape=PER_IMAGE)
    per_image = values[:, 0, 0, 0]
    np.testing.assert_array_equal(
        values, np.broadcast_to(per_image[:, None, None, None], (1000, 3, 2, 4))
    )
    np.testing.assert_allclose(np.unique(per_image), [0, 4 / 3], rtol=1e-6)
    assert abs((per_image == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 1000)


def test_the_gradient_passes_where_the_input_did(images: np.ndarray) -> None:
    inputs, layer = tf.constant(images), StepDropout(0.5, context=step_context(), name="drop")
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    np.testing.assert_allclose(tape.gradient(outputs, inputs) * images, outputs, rtol=1e-6)


def test_rate_and_step_take_effect_without_a_new_trace() -> None:
    context, traces = step_context(dropout_rate=0.0), []
    layer = training_layers(context).head_dropout(0.99, "top_dropout")

    @tf.function
    def run(inputs: tf.Tensor) -> tf.Tensor:
        traces.append(inputs)
        return layer(inputs, training=True)

    ones, masks = tf.ones((1000,)), []
    for rate, step in ((0.0, 0), (0.5, 0), (0.5, 1), (0.8, 1)):
        context.dropout_rate.assign(rate)
        context.draw.assign(step)
        masks.append(run(ones).numpy())
    assert len(traces) == 1
    assert layer.weights == []
    np.testing.assert_allclose([m.max() for m in masks], [1, 2, 2, 5], rtol=1e-6)
    assert (masks[0] == 1).all()
    assert (masks[1] != masks[2]).any()


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve("efficientnetv2-b0", "digits", TINY).model


def test_training_layers_make_the_same_weights_under_the_same_names(config: Config) -> None:
    stock = build_model(config, layer_set=STOCK_LAYERS)
    trained = build_model(config, layer_set=training_layers(step_context()))
    for kind in ("weights", "trainable_variables"):
        names = [[(w.path, w.shape) for w in getattr(model, kind)] for model in (stock, trained)]
        assert names[0] == names[1]
    kinds = {type(layer) for layer in trained.layers}
    assert {FusedBatchNormalization, StepDropout} <= kinds
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout}


def test_a_network_of_training_layers_infers_like_the_stock_one(config: Config, seed: int) -> None:
    stock = build_model(config)
    trained = build_model(config, layer_set=training_layers(step_context()))
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(0.5, 1.5, weight.shape) - 0.4 for weight in stock.weights]
    inputs = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    for model in (stock, trained):
        model.set_weights(weights)
    expected = stock(inputs, training=False)
    np.testing.assert_allclose(trained(inputs, training=False), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "fan_out"),
    [((3, 3, 64, 128), 9 * 128), ((5, 5, 4096, 1), 25), ((1, 1, 64, 512), 512)],
)
def test_convolutions_start_normal_with_the_variance_of_fan_out(
    shape: tuple[int, ...], fan_out: int, seed: int
) -> None:
    keras.utils.set_random_seed(seed)
    values = np.array(conv_initializer()(shape)) / np.sqrt(2 / fan_out)
    # Five standard deviations of a normal's sample mean, deviation and share beyond 2.
    assert abs(values.mean()) < 5 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 5 / np.sqrt(2 * values.size)
    assert abs((np.abs(values) > 2).mean() - 0.0455) < 5 * np.sqrt(0.0455 / values.size)


@pytest.mark.parametrize(
    ("features", "classes", "counted"),
    [
        (1280, 10, 1000),  # B0 on ten classes
        (1280, 1000, 1000),  # the official values: 1 / sqrt(classes)
        (1280, 4000, 4000),
        (640, 10, 640),
        (640, 1000, 1000),
    ],
)
def test_the_classifier_starts_uniform_with_small_logits(
    features: int, classes: int, counted: int, seed: int
) -> None:
    keras.utils.set_random_seed(seed)
    values = np.array(dense_initializer(features, classes)((features, classes)))
    bound = counted**-0.5
    assert 0.99 * bound < np.abs(values).max() <= bound
    # Five standard deviations of the mean of squares of a uniform.
    deviation = np.sqrt(0.8 / values.size)
    assert abs((values**2).mean() / (bound**2 / 3) - 1) < 5 * deviation
