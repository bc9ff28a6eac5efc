"""Guards the speed of a training step by counting the operations in its graph, not by timing."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.model.kernels import (
    Bfloat16Convolution,
    Convolution,
    NarrowConvolution,
    _narrow,
    silu,
    silu_and_mean,
)
from efficientnetv2.model.layers import STOCK_LAYERS
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer, build_trainer
from efficientnetv2.train.train_state import TrainState, build_train_state
from hparams import resolve

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_se0.25"],
    "model.feature_size": 16,
    "model.survival_prob": 1.0,
    "model.dropout_base": 0.0,
    "model.dropout_rate": 0.0,
    "train.optimizer": "rmsprop",
    "train.lr_sched": "constant",
    "train.lr_warmup_epoch": 0.0,
    "train.ema_decay": 0.99,
    "train.gclip": 0.0,
    "train.batch_size": 8,
    "train.stages": 1,
}
CONFIG = resolve("efficientnetv2-s", "digits", SETTINGS)


def batches(size: int) -> tf.data.Dataset:
    rng = np.random.default_rng(size)
    images = rng.normal(size=(50, 8, size, size, 3)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(0, 10, (50, 8))]
    any_size = tf.TensorSpec([8, None, None, 3]), tf.TensorSpec([8, 10])
    data = tf.data.Dataset.from_generator(lambda: zip(images, targets), output_signature=any_size)
    return data.repeat()


def build() -> tuple[TrainState, Trainer]:
    keras.utils.set_random_seed(3)
    plan = build_stages(CONFIG, num_images=80)
    train_state = build_train_state(CONFIG, build_learning_rate(CONFIG, plan))
    strategy, settings = tf.distribute.get_strategy(), stage_settings(plan)
    return train_state, build_trainer(
        CONFIG, train_state, strategy, settings=settings, after_step=lambda _: None
    )


@pytest.fixture(scope="module")
def state_and_trainer() -> tuple[TrainState, Trainer]:
    """Returns a train state and trainer after one step at each of two image sizes."""
    train_state, trainer = build()
    for size in (16, 24):
        trainer.set_input(batches(size))
        trainer.train(tf.constant(1))
    return train_state, trainer


@pytest.fixture(scope="module")
def operations(state_and_trainer) -> collections.Counter:
    """Counts the operations of each type in the traced step, called functions included."""
    trainer = state_and_trainer[1]
    graph = trainer._loop.get_concrete_function(trainer._batches, tf.constant(1)).graph
    graph_def = graph.as_graph_def()
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    return collections.Counter(node.op for node in nodes)


def test_all_sizes_are_one_trace(state_and_trainer) -> None:
    assert state_and_trainer[1].num_traces == 1


def test_batch_normalization_is_the_fused_kernel_both_ways(state_and_trainer, operations) -> None:
    layers = state_and_trainer[0].model.layers
    count = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert count == 6
    assert operations["FusedBatchNormV3"] == operations["FusedBatchNormGradV3"] == count


def test_convolutions_of_one_pixel_are_products(state_and_trainer, operations) -> None:
    layers = state_and_trainer[0].model.layers
    kernels = [layer.kernel_size for layer in layers if type(layer) is Convolution]
    spatial = sum(size != (1, 1) for size in kernels)
    assert (spatial, len(kernels)) == (2, 7)
    for operation in ("Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput"):
        assert operations[operation] == spatial
    # With the classifier: forward, and backward to the input and to the kernel.
    assert operations["MatMul"] == 3 * (len(kernels) - spatial + 1)


def test_no_layout_is_changed_and_no_gradient_is_spread_over_the_pixels(operations) -> None:
    assert operations["Transpose"] == 0
    # One for the losses of the batch, one for the pool before the classifier.
    assert operations["Tile"] + operations["BroadcastTo"] == 2
    assert operations["Conv2D"] > 0  # or there would be nothing to transpose


def test_the_activation_keeps_no_gate_and_its_gradient_is_compiled(operations) -> None:
    # One sigmoid belongs to squeeze-and-excitation; the others are inside compiled functions.
    assert operations["PartitionedCall"] + operations["StatefulPartitionedCall"] >= 5
    assert operations["SigmoidGrad"] == 1


def test_an_update_is_one_kernel_a_variable(state_and_trainer, operations) -> None:
    train_state = state_and_trainer[0]
    assert operations["ResourceApplyRMSProp"] == len(train_state.variables)
    assert operations["ResourceApplyGradientDescent"] == len(train_state.average.averages)
    assert operations["L2Loss"] <= len(train_state.objective.weight_decay.variables) + 2 * len(
        train_state.variables
    )


@pytest.mark.slow
def test_fifty_steps_equal_those_of_plain_layers() -> None:
    """Compares with stock Keras layers and plain TensorFlow formulas: losses agree to 1e-4."""
    train_state, trainer = build()
    plain = build_model(CONFIG.model, layer_set=STOCK_LAYERS)
    plain.set_weights([w.numpy() for w in train_state.model.weights])
    variables = [weight.value for weight in plain.trainable_variables]
    squares = [tf.Variable(tf.ones_like(v)) for v in variables]
    momenta = [tf.Variable(tf.zeros_like(v)) for v in variables]
    decayed = [w.value for w in plain.trainable_variables if "kernel" in w.name]
    rate = float(train_state.optimizer.learning_rate)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = keras.losses.categorical_crossentropy(
                targets,
                plain(images, training=True),
                from_logits=True,
                label_smoothing=CONFIG.train.label_smoothing,
            )
            squared = [tf.reduce_sum(kernel**2) for kernel in decayed]
            loss = tf.reduce_mean(loss)
            objective = loss + CONFIG.train.weight_decay * tf.add_n(squared) / 2
        for v, s, m, g in zip(variables, squares, momenta, tape.gradient(objective, variables)):
            s.assign(CONFIG.train.rmsprop_decay * s + (1 - CONFIG.train.rmsprop_decay) * g**2)
            m.assign(CONFIG.train.momentum * m + rate * g / tf.sqrt(s + 1e-3))
            v.assign_sub(m)
        return loss

    trainer.set_input(batches(16))
    for images, targets in batches(16).take(50):
        train_state.metrics.reset()
        loss = trainer.train(tf.constant(1))["loss"]
        np.testing.assert_allclose(loss, step(images, targets), atol=1e-4)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_activation_and_its_gradient_are_silu(dtype: tf.DType, seed: int) -> None:
    x = tf.cast(np.random.default_rng(seed).normal(0, 4, size=(2, 3, 5, 7)), dtype)
    outputs, gradients = [], []
    for function in (silu, lambda x: x * tf.sigmoid(x)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        outputs.append(tf.cast(y, tf.float32))
        gradients.append(tf.cast(tape.gradient(y, x), tf.float32))
    tolerance = 1e-6 if dtype == tf.float32 else 0.05
    np.testing.assert_allclose(outputs[0], outputs[1], atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(gradients[0], gradients[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_the_activation_with_its_mean_has_the_gradient_of_both(dtype: tf.DType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = tf.cast(rng.normal(0, 2, size=(2, 3, 5, 7)), dtype)
    weights = tf.constant(rng.normal(size=(2, 1, 1, 7)), tf.float32)

    def apart(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = x * tf.sigmoid(x)
        return y, tf.reduce_mean(y, [1, 2], keepdims=True)

    results = []
    for function in (silu_and_mean, apart):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, mean = (tf.cast(part, tf.float32) for part in function(x))
            total = tf.reduce_sum(y * tf.sin(mean * weights))
        results.append([y, mean, tf.cast(tape.gradient(total, x), tf.float32)])
    tolerance = {tf.float32: 1e-6, tf.float16: 0.01, tf.bfloat16: 0.05}[dtype]
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)


def test_whole_numbers_round_to_bfloat16_as_a_cast_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000  # halfway: to the even one
    values = np.concatenate([bits, ties]).view(np.float32)
    values = np.concatenate([values[~np.isnan(values)], [np.inf, -np.inf, 0.0, -0.0, 3.4e38]])
    values = tf.constant(values, tf.float32)
    compiled = tf.function(lambda x: _narrow(x, tf.bfloat16), jit_compile=True)
    expected = tf.bitcast(tf.cast(values, tf.bfloat16), tf.uint16)
    np.testing.assert_array_equal(tf.bitcast(compiled(values), tf.uint16), expected)
    with np.errstate(invalid="ignore"):
        nans = tf.constant(np.array([np.inf, -np.inf], np.float32) * np.float32(0))
    assert np.isnan(tf.cast(compiled(nans), tf.float32)).all()


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"strides": 2}, {"groups": 2}])
def test_a_convolution_of_one_pixel_is_keras_conv2d(options: dict, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 5, 3, 4)).astype(np.float32)
    kinds = Convolution, keras.layers.Conv2D
    ours, stock = (kind(6, 1, padding="same", **options) for kind in kinds)
    ours.build(x.shape)
    stock.build(x.shape)
    stock.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), stock(x), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"kernel_size": 3}, {"kernel_size": 3, "strides": 2}])
def test_bfloat16_rounds_what_a_convolution_multiplies_and_what_comes_out(
    options: dict, seed: int
) -> None:
    x = tf.constant(np.random.default_rng(seed).normal(size=(2, 5, 3, 4)), tf.float32)
    settings = {"kernel_size": 1, "padding": "same", "bias_initializer": "ones", **options}
    ours, stock = Bfloat16Convolution(6, **settings), keras.layers.Conv2D(6, **settings)
    ours.build(x.shape)
    stock.build(x.shape)
    stock.set_weights([rounded(ours.kernel), ours.bias])
    assert ours(x).dtype == tf.float32
    product = rounded(stock(rounded(x)) - 1)
    np.testing.assert_array_equal(ours(x), rounded(product + 1))


def rounded(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def test_bfloat16_does_not_round_squeeze_and_excitation(seed: int) -> None:
    x = tf.constant(np.random.default_rng(seed).normal(size=(2, 1, 1, 4)), tf.float32)
    ours, plain = Bfloat16Convolution(6, 1), Convolution(6, 1)
    for layer in (ours, plain):
        layer.build(x.shape)
    plain.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ours(x), plain(x))


@pytest.mark.parametrize(("filters", "dtype"), [(16, tf.bfloat16), (24, tf.float32)])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_what_is_normalised_and_activated_stays_narrow_where_that_gains(
    filters: int, dtype: tf.DType, kernel_size: int, seed: int
) -> None:
    x = tf.constant(np.random.default_rng(seed).normal(size=(2, 5, 3, 4)), tf.float32)
    narrow = NarrowConvolution(filters, kernel_size, use_bias=False)
    wide = Bfloat16Convolution(filters, kernel_size, use_bias=False)
    for layer in (narrow, wide):
        layer.build(x.shape)
    wide.set_weights(narrow.get_weights())
    assert narrow(x).dtype == dtype
    np.testing.assert_array_equal(tf.cast(narrow(x), tf.float32), wide(x))
