"""Tests the activation memory of training, by hand and in the table of docs/recipes.md."""

import pathlib

import pytest
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.model.complexity import activation_bytes

pytestmark = pytest.mark.usefixtures("without_weights")

RECIPES = pathlib.Path(__file__).parents[3] / "docs" / "recipes.md"


def test_a_network_by_hand():
    images = keras.Input((4, 6, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(images)
    x = keras.layers.BatchNormalization()(x)
    activated = keras.layers.Activation("silu")(x)
    scale = keras.layers.GlobalAveragePooling2D(keepdims=True)(activated)
    scale = keras.layers.Conv2D(5, 1)(scale)
    x = keras.layers.Multiply()([activated, scale])
    x = keras.layers.Add()([x, activated])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(7)(x))
    feature_map = 2 * 3 * 5
    # Inputs of the convolution; of BatchNorm, activation and product; of the 1x1 convolution, the
    # product and the classifier.
    values = 4 * 6 * 3 + 3 * feature_map + 5 + 5 + 5
    assert activation_bytes(model) == 4 * values
    assert activation_bytes(model, bytes_per_value=2) == 2 * values


def test_the_size_must_be_fixed():
    with pytest.raises(ValueError, match="fixed input size"):
        activation_bytes(get_model("efficientnetv2-b0"))


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnet-lite0", "resnet50"])
def test_a_network_of_any_size_takes_the_size_as_an_argument(name):
    fixed = activation_bytes(get_model(name, input_shape=(75, 75, 3)))
    assert activation_bytes(get_model(name), image_size=75) == pytest.approx(fixed, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnetv2-m", "efficientnetv2-l"])
def test_the_table(name):
    (row,) = [line for line in RECIPES.read_text().splitlines() if line.startswith(f"| {name} |")]
    size, single, half, batch, network = (float(cell) for cell in row.split("|")[2:-1])
    model = get_model(name, input_shape=(int(size), int(size), 3))
    mib = activation_bytes(model) / 2**20
    assert single == pytest.approx(mib, abs=0.05)
    assert half == pytest.approx(mib / 2, abs=0.05)
    assert batch == pytest.approx(mib / 2 * 4096 / 1024, abs=0.5)
    assert network == pytest.approx(model.count_params() * 20 / 2**30, abs=0.0051)
