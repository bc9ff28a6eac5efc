"""The graph of a training step: what a loss of speed would change in it, counted, not timed."""

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
    _narrowed,
    silu,
    silu_and_mean,
)
from efficientnetv2.model.layers import STOCK_LAYERS
from efficientnetv2.train.learner import Learner, build_learner
from efficientnetv2.train.schedules import build_learning_rate
from efficientnetv2.train.sizes import staged
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.step import Trainer, build_trainer
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


def made() -> tuple[Learner, Trainer]:
    keras.utils.set_random_seed(3)
    plan = build_stages(CONFIG, num_images=80)
    learner = build_learner(CONFIG, build_learning_rate(CONFIG, plan))
    strategy, settings = tf.distribute.get_strategy(), staged(plan)
    return learner, build_trainer(
        CONFIG, learner, strategy, settings=settings, after_step=lambda _: None
    )


@pytest.fixture(scope="module")
def learner_and_trainer() -> tuple[Learner, Trainer]:
    """Trained for a step at each of two sizes."""
    learner, trainer = made()
    for size in (16, 24):
        trainer.set_input(batches(size))
        trainer.train(tf.constant(1))
    return learner, trainer


@pytest.fixture(scope="module")
def operations(learner_and_trainer) -> collections.Counter:
    """Number of operations of each type in the traced step, called functions included."""
    trainer = learner_and_trainer[1]
    graph = trainer._loop.get_concrete_function(trainer._batches, tf.constant(1)).graph
    graph_def = graph.as_graph_def()
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    return collections.Counter(node.op for node in nodes)


def test_all_sizes_are_one_trace(learner_and_trainer) -> None:
    assert learner_and_trainer[1].num_traces == 1


def test_batch_normalization_is_the_fused_kernel_both_ways(learner_and_trainer, operations) -> None:
    layers = learner_and_trainer[0].model.layers
    count = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert count == 6
    assert operations["FusedBatchNormV3"] == operations["FusedBatchNormGradV3"] == count


def test_convolutions_of_one_pixel_are_products(learner_and_trainer, operations) -> None:
    layers = learner_and_trainer[0].model.layers
    kernels = [layer.kernel_size for layer in layers if type(layer) is Convolution]
    spatial = sum(size != (1, 1) for size in kernels)
    assert (spatial, len(kernels)) == (2, 7)
    for operation in ("Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput"):
        assert operations[operation] == spatial
    # With the classifier: forward, and backward to the input and to the kernel.
    assert operations["MatMul"] == 3 * (len(kernels) - spatial + 1)


def test_no_layout_is_changed_and_no_gradient_is_spread_over_the_pixels(operations) -> None:
    assert operations["Transpose"] == 0
    # Of the losses of a batch, and of the pool before the classifier.
    assert operations["Tile"] + operations["BroadcastTo"] == 2
    assert operations["Conv2D"] > 0  # or there would be nothing to transpose


def test_the_activation_keeps_no_gate_and_its_gradient_is_compiled(operations) -> None:
    # One sigmoid is squeeze-and-excitation's, the others lie in the compiled gradient's functions.
    assert operations["PartitionedCall"] + operations["StatefulPartitionedCall"] >= 5
    assert operations["SigmoidGrad"] == 1


def test_an_update_is_one_kernel_a_variable(learner_and_trainer, operations) -> None:
    learner = learner_and_trainer[0]
    assert operations["ResourceApplyRMSProp"] == len(learner.variables)
    assert operations["ResourceApplyGradientDescent"] == len(learner.average.averages)
    assert operations["L2Loss"] <= 2 * len(learner.objective.decayed) + 2 * len(learner.variables)


def test_fifty_steps_equal_those_of_plain_layers() -> None:
    """Stock Keras layers and plain TensorFlow formulas: the losses agree to 1e-4."""
    learner, trainer = made()
    plain = build_model(CONFIG.model, layer_set=STOCK_LAYERS)
    plain.set_weights([w.numpy() for w in learner.model.weights])
    variables = [weight.value for weight in plain.trainable_variables]
    squares = [tf.Variable(tf.ones_like(v)) for v in variables]
    momenta = [tf.Variable(tf.zeros_like(v)) for v in variables]
    decayed = [w.value for w in plain.trainable_variables if "kernel" in w.name]
    rate = float(learner.optimizer.learning_rate)

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
            loss = tf.reduce_mean(loss) + CONFIG.train.weight_decay * tf.add_n(squared) / 2
        for v, s, m, g in zip(variables, squares, momenta, tape.gradient(loss, variables)):
            s.assign(CONFIG.train.rmsprop_decay * s + (1 - CONFIG.train.rmsprop_decay) * g**2)
            m.assign(CONFIG.train.momentum * m + rate * g / tf.sqrt(s + 1e-3))
            v.assign_sub(m)
        return loss

    trainer.set_input(batches(16))
    for images, targets in batches(16).take(50):
        learner.metrics.reset()
        loss = trainer.train(tf.constant(1))["loss"]
        np.testing.assert_allclose(loss, step(images, targets), atol=1e-4)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_activation_and_its_gradient_are_silu(dtype: tf.DType, seed: int) -> None:
    x = tf.cast(np.random.default_rng(seed).normal(0, 4, size=(2, 3, 5, 7)), dtype)
    found, gradients = [], []
    for function in (silu, lambda x: x * tf.sigmoid(x)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        found.append(tf.cast(y, tf.float32))
        gradients.append(tf.cast(tape.gradient(y, x), tf.float32))
    tolerance = 1e-6 if dtype == tf.float32 else 0.05
    np.testing.assert_allclose(found[0], found[1], atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(gradients[0], gradients[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_the_activation_with_its_mean_has_the_gradient_of_both(dtype: tf.DType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = tf.cast(rng.normal(0, 2, size=(2, 3, 5, 7)), dtype)
    weights = tf.constant(rng.normal(size=(2, 1, 1, 7)), tf.float32)

    def apart(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = x * tf.sigmoid(x)
        return y, tf.reduce_mean(y, [1, 2], keepdims=True)

    found = []
    for function in (silu_and_mean, apart):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, mean = (tf.cast(part, tf.float32) for part in function(x))
            total = tf.reduce_sum(y * tf.sin(mean * weights))
        found.append([y, mean, tf.cast(tape.gradient(total, x), tf.float32)])
    tolerance = {tf.float32: 1e-6, tf.float16: 0.01, tf.bfloat16: 0.05}[dtype]
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)


def test_whole_numbers_round_to_bfloat16_as_a_cast_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000  # halfway: to the even one
    values = np.concatenate([bits, ties]).view(np.float32)
    values = np.concatenate([values[~np.isnan(values)], [np.inf, -np.inf, 0.0, -0.0, 3.4e38]])
    values = tf.constant(values, tf.float32)
    compiled = tf.function(lambda x: _narrowed(x, tf.bfloat16), jit_compile=True)
    wanted = tf.bitcast(tf.cast(values, tf.bfloat16), tf.uint16)
    np.testing.assert_array_equal(tf.bitcast(compiled(values), tf.uint16), wanted)
    with np.errstate(invalid="ignore"):
        no_numbers = tf.constant(np.array([np.inf, -np.inf], np.float32) * np.float32(0))
    assert np.isnan(tf.cast(compiled(no_numbers), tf.float32)).all()


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
