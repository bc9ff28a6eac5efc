"""Tests that ResNets equal ``keras.applications``, with our input, layers and classifier."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.model.batch_norm import FusedBatchNormalization
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import StepContext, StepDropout, training_layers
from hparams import ConfigError, resolve

pytestmark = pytest.mark.slow  # most tests here train for several seconds

CLASSES = 7
# name -> Keras's constructor, and its layer at the end of each size.
TWINS = {
    "resnet50": (
        "ResNet50",
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out"),
    ),
    "resnet152": (
        "ResNet152",
        ("conv1_relu", "conv2_block3_out", "conv3_block8_out", "conv4_block36_out"),
    ),
}
PYRAMID = [(32, 64), (16, 256), (8, 512), (4, 1024), (2, 2048)]  # pixels of 64, channels


@pytest.fixture
def images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 64, 64, 3)).astype(np.float32)


def random_values(weights: list[keras.Variable], *, seed: int) -> list[np.ndarray]:
    """Draws new statistics, scales and offsets: initially all BatchNorms are alike."""
    rng = np.random.default_rng(seed)
    values = []
    for weight in weights:
        value = weight.numpy()
        if weight.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.6, 1.0, value.shape)
        elif weight.name in ("beta", "moving_mean", "bias"):
            value = rng.normal(0, 0.1, value.shape)
        values.append(value)
    return values


@pytest.fixture(scope="module", params=TWINS)
def twins(request: pytest.FixtureRequest) -> tuple[keras.Model, keras.Model, tuple[str, ...]]:
    """(ours, theirs, their layer names), of the same weights."""
    keras.utils.set_random_seed(2104)
    twin, names = TWINS[request.param]
    theirs = getattr(keras.applications, twin)(
        weights=None, input_shape=(64, 64, 3), classes=CLASSES, classifier_activation=None
    )
    ours = get_model(request.param, num_classes=CLASSES, overrides="dropout_rate=0")
    assert [(w.path, w.shape) for w in ours.weights] == [(w.path, w.shape) for w in theirs.weights]
    values = random_values(theirs.weights, seed=2104)
    for model in (ours, theirs):
        model.set_weights(values)
    return ours, theirs, (*names, "conv5_block3_out")


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    """ResNet50 with default settings."""
    keras.utils.set_random_seed(2104)
    return get_model("resnet50", num_classes=CLASSES)


def test_logits_are_those_of_keras(twins: tuple, images: np.ndarray) -> None:
    ours, theirs, _ = twins
    expected = theirs(images, training=False)
    assert float(tf.math.reduce_std(expected)) > 0.01
    np.testing.assert_allclose(ours(images, training=False), expected, atol=1e-5, rtol=1e-5)


def test_features_at_each_size_are_those_of_keras(twins: tuple, images: np.ndarray) -> None:
    ours, theirs, names = twins
    features = keras.Model(
        ours.input, [ours.get_layer(f"reduction_{n}").output for n in range(1, 6)]
    )
    expected = keras.Model(theirs.input, [theirs.get_layer(name).output for name in names])
    for number, (a, b) in enumerate(zip(features(images), expected(images)), start=1):
        assert a.shape[2:] == PYRAMID[number - 1]
        scale = float(tf.reduce_max(tf.abs(b)))
        np.testing.assert_allclose(a, b, atol=1e-5 * scale, err_msg=f"reduction_{number}")


@pytest.mark.usefixtures("without_weights")
def test_features_only_gives_the_endpoints_and_no_head(resnet50: keras.Model) -> None:
    pyramid = get_model("resnet50", features_only=True, input_shape=(64, 64, 3))
    shapes = {name: tuple(features.shape) for name, features in pyramid.output.items()}
    assert shapes == {
        f"reduction_{n}": (None, size, size, channels)
        for n, (size, channels) in enumerate(PYRAMID, start=1)
    }
    classifier = 2048 * CLASSES + CLASSES
    assert pyramid.count_params() == resnet50.count_params() - classifier


def test_every_layer_of_the_body_can_be_an_output(resnet50: keras.Model) -> None:
    outputs = [layer.output for layer in resnet50.layers]
    assert len(outputs) == len(resnet50.layers) > 175
    assert len(keras.Model(resnet50.input, outputs).layers) == len(resnet50.layers)


def test_every_parameter_has_a_gradient(resnet50: keras.Model, images: np.ndarray) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(resnet50(images, training=True) ** 2)
    variables = resnet50.trainable_variables
    assert len(variables) == 53 * 2 + 53 * 2 + 2  # convolutions, BatchNorms, classifier
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables])):
        assert gradient is not None, variable.path
        assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable.path


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("shape", [(28, 33, 3), (None, 48, 1)])
def test_any_height_and_width_and_number_of_channels(shape: tuple) -> None:
    model = get_model("resnet50", num_classes=CLASSES, input_shape=shape)
    assert model.input_shape == (None, *shape)
    batch = [2, *(size or 40 for size in shape)]
    assert model(keras.KerasTensor(batch)).shape == (2, CLASSES)


def test_defaults(resnet50: keras.Model) -> None:
    assert resnet50.name == "resnet50"
    assert resnet50.input_shape == (None, None, None, 3)
    assert resnet50.get_layer("top_dropout").rate == 0.3
    norms = [v for v in resnet50.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1.001e-5)}
    assert len(norms) == 53


@pytest.mark.usefixtures("without_weights")
def test_batchnorm_momentum_and_dropout_are_the_configurations() -> None:
    model = get_model("resnet50", overrides="bn_momentum=0.8,dropout_rate=0")
    norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.8}
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize(("pooling", "shape"), [(None, (2, 2, 2, 2048)), ("max", (2, 2048))])
def test_without_top(pooling: str | None, shape: tuple) -> None:
    images = keras.KerasTensor([2, 64, 64, 3])
    features = get_model("resnet50", include_top=False, pooling=pooling)(images)
    assert features.shape == shape


@pytest.mark.usefixtures("without_weights")
def test_the_number_of_classes_is_the_data_sets() -> None:
    assert build_model(resolve("resnet50", "digits").model).output_shape == (None, 10)


def test_preprocessing_inside_equals_preprocessing_outside(
    resnet50: keras.Model, images: np.ndarray
) -> None:
    options = {"num_classes": CLASSES, "classifier_activation": "softmax"}
    inside = get_model("resnet50", include_preprocessing=True, **options)
    inside.set_weights(resnet50.get_weights())
    pixels = np.clip(images * 60 + 128, 0, 255)
    mean, deviation = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    expected = tf.nn.softmax(resnet50((pixels - mean) / deviation))
    np.testing.assert_allclose(inside(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("key", ["act_fn=silu", "bn_epsilon=0.001", "survival_prob=0.8"])
def test_keys_without_effect_are_refused(key: str) -> None:
    message = f"^model.{key.partition('=')[0]} cannot be changed for resnet50$"
    with pytest.raises(ConfigError, match=message):
        get_model("resnet50", overrides=key)


def test_training_layers_make_the_same_network(resnet50: keras.Model, images: np.ndarray) -> None:
    context = StepContext(step=tf.Variable(0, dtype=tf.int64), dropout_rate=0.5, seed=0)
    config = resolve("resnet50", "digits", f"model.num_classes={CLASSES}").model
    trained = build_model(config, layer_set=training_layers(context))
    for kind in ("weights", "trainable_variables"):
        names = [[(w.path, w.shape) for w in getattr(model, kind)] for model in (resnet50, trained)]
        assert names[0] == names[1]
    layers = [type(layer) for layer in trained.layers]
    assert (layers.count(FusedBatchNormalization), layers.count(StepDropout)) == (53, 1)
    assert not {keras.layers.BatchNormalization, keras.layers.Dropout} & set(layers)
    norm = trained.get_layer("conv3_block1_0_bn")
    assert (norm.momentum, norm.epsilon) == (config.bn_momentum, config.bn_epsilon)
    values = random_values(resnet50.weights, seed=1)
    trained.set_weights(values)
    stock = keras.models.clone_model(resnet50)
    stock.set_weights(values)
    expected = stock(images, training=False)
    np.testing.assert_allclose(trained(images, training=False), expected, atol=1e-5, rtol=1e-5)


OPEN_ELSEWHERE = """
import importlib.util, sys
import numpy as np, tensorflow as tf
assert importlib.util.find_spec("efficientnetv2") is None
model = tf.keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model(np.load(sys.argv[2])))
"""


def test_saved_model_opens_without_this_package(images: np.ndarray, tmp_path) -> None:
    model = get_model("resnet50", num_classes=CLASSES, include_preprocessing=True)
    model.set_weights(random_values(model.weights, seed=2))
    model.save(tmp_path / "x.keras")
    np.save(tmp_path / "in.npy", images)
    files = [str(tmp_path / file) for file in ("x.keras", "in.npy", "out.npy")]
    # -I: no PYTHONPATH and no current folder, so that only installed packages can be imported.
    subprocess.run([sys.executable, "-I", "-c", OPEN_ELSEWHERE, *files], check=True, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), model(images))
