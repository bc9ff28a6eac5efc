"""Tests get_model beyond its numbers: sizes, layouts, gradients, saving and error messages."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2 import get_model
from hparams import ConfigError

TINY = {
    "blocks_args": [
        "r1_k3_s1_e1_i8_o8_c1",
        "r2_k3_s2_e4_i8_o16_c1",
        "r2_k5_s2_e4_i16_o16_se0.25",
        "r1_k3_s2_e1_i16_o24_se0.25",
        "r1_k3_s2_e6_i24_o24",
    ],
    "feature_size": 32,
}


def tiny(**options):
    return get_model("efficientnetv2-s", num_classes=5, overrides=TINY, **options)


@pytest.fixture
def images(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


def test_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown model 'efficientnetv2-t'; did you mean"):
        get_model("efficientnetv2-t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "sum"}, "pooling must be None, 'avg' or 'max', got 'sum'"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"input_shape": (32, 32)}, r"input_shape must have 3 entries, got \(32, 32\)"),
        ({"input_shape": (32, 32, None)}, "input_shape must give the number of channels"),
        ({"weights": "nowhere.h5"}, "there are no weights 'nowhere.h5'"),
        ({"overrides": {"dropout": 0.1}}, "unknown key 'dropout'"),
        ({"overrides": "survival_prob=2"}, "model.survival_prob must be at most 1, got 2.0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        get_model("efficientnetv2-b0", **options)


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnet-b0", "efficientnet-lite0"])
def test_only_stock_layers(name):
    for layer in get_model(name).layers:
        assert type(layer).__module__.startswith("keras.src."), layer


@pytest.mark.usefixtures("without_weights")
def test_the_number_of_classes_may_come_from_the_overrides():
    model = get_model("efficientnetv2-s", overrides={**TINY, "num_classes": 7})
    assert model.output_shape == (None, 7)
    both = get_model("efficientnetv2-s", num_classes=3, overrides={**TINY, "num_classes": 7})
    assert both.output_shape == (None, 3)
    assert get_model("efficientnetv2-s", overrides=TINY).output_shape == (None, 1000)


@pytest.mark.parametrize("size", [(33, 64), (64, 96), (224, 100)])
def test_any_height_and_width(size):
    assert tiny()(tf.zeros([1, *size, 3])).shape == (1, 5)


def test_height_and_width_are_dynamic_by_default():
    assert tiny().input_shape == (None, None, None, 3)
    assert tiny(input_shape=(48, 32, 1)).input_shape == (None, 48, 32, 1)


@pytest.mark.slow
def test_every_parameter_has_a_gradient(images):
    keras.utils.set_random_seed(1)
    # Stochastic depth off: it could drop both images, and a block would have no gradient.
    model = get_model("efficientnetv2-b0", num_classes=5, overrides={"survival_prob": 1.0})
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True) ** 2)
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables])):
        assert gradient is not None, variable.path
        assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable.path


def test_endpoints_by_name_and_by_features_only(images):
    whole, pyramid = tiny(), tiny(features_only=True)
    pyramid.set_weights(whole.get_weights()[: len(pyramid.weights)])
    outputs = pyramid(images)
    assert [features.shape[1] for features in outputs.values()] == [32, 16, 8, 4, 2]
    for name, features in outputs.items():
        by_name = keras.Model(whole.input, whole.get_layer(name).output)
        np.testing.assert_array_equal(by_name(images), features)


@pytest.mark.slow
@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize(
    "name", ["efficientnetv2-s", "efficientnetv2-m", "efficientnetv2-b3", "efficientnet-b1"]
)
def test_five_endpoints(name):
    model = get_model(name, features_only=True, input_shape=(64, 64, 3))
    shapes = {name: features.shape[1] for name, features in model.output.items()}
    assert shapes == {f"reduction_{index}": 64 >> index for index in range(1, 6)}


@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (2, 2, 2, 32)), ("avg", (2, 32)), ("max", (2, 32))]
)
def test_without_top(pooling, shape, images):
    assert tiny(include_top=False, pooling=pooling)(images).shape == shape


def test_classifier_activation(images):
    logits, probabilities = tiny(), tiny(classifier_activation="softmax")
    probabilities.set_weights(logits.get_weights())
    np.testing.assert_allclose(probabilities(images), tf.nn.softmax(logits(images)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("efficientnetv2-s", [128, 128, 128], [128, 128, 128]),
        ("efficientnetv2-b0", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("efficientnet-b0", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("efficientnet-lite0", [127, 127, 127], [128, 128, 128]),
    ],
)
def test_preprocessing_inside_equals_preprocessing_outside(name, mean, deviation, images):
    options = {"num_classes": 5, "overrides": TINY}
    inside = get_model(name, include_preprocessing=True, **options)
    outside = get_model(name, **options)
    outside.set_weights(inside.get_weights())
    pixels = (images + 1) * 127.5
    normalised = (pixels - np.float32(mean)) / np.float32(deviation)
    np.testing.assert_allclose(inside(pixels), outside(normalised), atol=1e-5)


def _pixels(images, channels):
    """Pixels of 0..255 with this many channels; those of a grey picture repeat one."""
    pixels = (images + 1) * 127.5
    return pixels[..., :1] if channels == 1 else np.tile(pixels, (1, 1, 1, 2))[..., :channels]


@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnetv2-b0", "efficientnet-b0"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_grey_picture_is_normalised_as_its_rgb_version(name, data_format, images):
    options = {"num_classes": 5, "overrides": {**TINY, "data_format": data_format}}
    is_last = data_format == "channels_last"
    shape = (None, None, 1) if is_last else (1, 64, 64)
    grey = get_model(name, include_preprocessing=True, input_shape=shape, **options)
    rgb = get_model(name, include_preprocessing=True, **options)
    pixels = _pixels(images, 1)
    if not is_last:
        pixels = np.moveaxis(pixels, -1, 1)
    inside = keras.Model(grey.input, grey.get_layer("rescaling").output)(pixels)
    expected = keras.Model(rgb.input, rgb.get_layer("rescaling").output)(
        np.repeat(pixels, 3, axis=-1 if is_last else 1)
    )
    np.testing.assert_allclose(np.broadcast_to(inside, expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_more_channels_are_normalised_as_red_green_and_blue_in_turn(channels, images):
    model = get_model(
        "efficientnet-b0",
        num_classes=5,
        overrides=TINY,
        include_preprocessing=True,
        input_shape=(None, None, channels),
    )
    pixels = _pixels(images, channels)
    mean = np.tile([123.675, 116.28, 103.53], 2)[:channels]
    deviation = np.tile([58.395, 57.12, 57.375], 2)[:channels]
    normalised = keras.Model(model.input, model.get_layer("rescaling").output)(pixels)
    np.testing.assert_allclose(normalised, (pixels - mean) / deviation, atol=1e-5)


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("shape", [(None, None, 3), (3, 64, 48)])
def test_channels_first_builds(shape):
    overrides = {**TINY, "data_format": "channels_first"}
    model = get_model("efficientnetv2-s", num_classes=5, overrides=overrides, input_shape=shape)
    assert model.input_shape == (None, 3, *(shape[1:] if shape[0] else (None, None)))
    assert model.count_params() == tiny().count_params()
    assert model.output_shape == (None, 5)


@pytest.mark.usefixtures("without_weights")
def test_survival_probability_falls_linearly_from_1():
    model = get_model("efficientnetv2-s", overrides={"survival_prob": 0.6})
    assert model.get_layer("block1b_drop").rate == pytest.approx(0.4 * 1 / 40)
    assert model.get_layer("block6o_drop").rate == pytest.approx(0.4 * 39 / 40)


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize(
    ("overrides", "names"),
    [({"survival_prob": 1.0}, ["top_dropout"]), ({"dropout_rate": 0.0, "survival_prob": 1.0}, [])],
)
def test_no_dropout_layer_stands_where_nothing_drops(overrides, names):
    model = get_model("efficientnetv2-b0", overrides=overrides)
    dropouts = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropouts == names


def test_initial_values_follow_the_papers_code():
    keras.utils.set_random_seed(3)
    model = get_model("efficientnetv2-b0", num_classes=100)
    conv = model.get_layer("top_conv").kernel.numpy()  # 1x1, 1280 out
    assert conv.std() == pytest.approx(np.sqrt(2 / 1280), rel=0.01)
    assert np.abs(conv).max() > 3.5 * conv.std()  # not truncated at 2 deviations
    depthwise = model.get_layer("block6c_dwconv2").kernel.numpy()  # 3x3, counts as 1 out
    assert depthwise.std() == pytest.approx(np.sqrt(2 / 9), rel=0.05)
    dense = model.get_layer("predictions").kernel.numpy()
    assert np.abs(dense).max() == pytest.approx(1000**-0.5, rel=0.01)  # as with 1,000 classes
    assert dense.std() == pytest.approx(1000**-0.5 / np.sqrt(3), rel=0.02)


OPEN_ELSEWHERE = """
import importlib.util, sys
import numpy as np, tensorflow as tf
assert importlib.util.find_spec("efficientnetv2") is None
for name in sys.argv[1:]:
    model = tf.keras.models.load_model(f"{name}.keras")
    np.save(f"{name}.npy", model(np.load("in.npy")))
"""


@pytest.mark.slow
def test_saved_models_open_without_this_package(images, tmp_path):
    names = ["efficientnetv2-b0", "efficientnet-lite0"]
    models = [get_model(name, num_classes=5, include_preprocessing=True) for name in names]
    for name, model in zip(names, models):
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "in.npy", images)
    # -I: no PYTHONPATH and no current folder, so that only installed packages can be imported.
    subprocess.run([sys.executable, "-I", "-c", OPEN_ELSEWHERE, *names], check=True, cwd=tmp_path)
    for name, model in zip(names, models):
        output = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(output, model(images), err_msg=name)


def test_weights_file_round_trip(images, tmp_path):
    model = tiny()
    model.save_weights(tmp_path / "w.weights.h5")
    again = tiny(weights=tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(again(images), model(images))
