"""Exports of a network that predicts numbers of very different size: each keeps its digits."""

import dataclasses

import numpy as np
import pytest
from tensorflow import keras

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.export.litert import convert, convert_int8, convert_int16x8, float_operators
from efficientnetv2.export.onnx_file import onnx_model, packed
from efficientnetv2.export.onnx_int8 import onnx_int8_bytes
from efficientnetv2.export.servable import build_servable
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold
from hparams import resolve

from .conftest import SETTINGS, with_random_batchnorm

MEAN, DEVIATION = [2000.37, 500_000.0, 3.0], [5.0, 200_000.0, 1.0]  # a year, a price, rooms
FORMATS_OF_LITERT = {  # -> root of the mean squared error, in deviations
    "tflite": 1e-4,
    "tflite_fp16": 0.02,
    "tflite_int8": 0.3,
    "tflite_int16x8": 0.05,
}


@pytest.fixture(scope="module")
def numbers(pixels):
    """A network whose numbers for the images have their mean and deviation."""
    settings = {
        **SETTINGS,
        "data.data_dir": "x",
        "train.loss_type": "mse",
        "train.label_smoothing": 0.0,
        "model.num_classes": 3,
        "model.target_mean": MEAN,
        "model.target_deviation": DEVIATION,
    }
    config = resolve("efficientnetv2-b0", "folder", settings)
    keras.utils.set_random_seed(0)
    loaded = LoadedModel(
        with_random_batchnorm(build_model(config.model)), config, ["y", "p", "r"], "random weights"
    )
    servable = build_servable(loaded, preprocessing=True, logits=False)
    classifier = servable.model.get_layer("predictions")
    inside = keras.Model(servable.model.input, classifier.output).predict(pixels, verbose=0)
    kernel, bias = classifier.get_weights()
    spread = inside.std(axis=0)
    classifier.set_weights([kernel / spread, (bias - inside.mean(axis=0)) / spread])
    return dataclasses.replace(servable, folded=fold(servable.model))


@pytest.fixture(scope="module")
def expected(numbers, pixels):
    outputs = numbers.model.predict(pixels, verbose=0)
    np.testing.assert_allclose(outputs.mean(axis=0), MEAN, rtol=1e-4)
    np.testing.assert_allclose(outputs.std(axis=0), DEVIATION, rtol=1e-3)
    return outputs


def errors(file, path, name, pixels, expected):
    """Returns, of each number, the root of the mean squared error in deviations."""
    path.write_bytes(file)
    run = FORMATS[name].open(path)
    outputs = np.concatenate([run(image[np.newaxis]) for image in pixels])
    return np.sqrt(np.mean(((outputs - expected) / DEVIATION) ** 2, axis=0))


def litert_file(servable, name, pixels):
    if name == "tflite_int8":
        network = QuantisedNetwork(servable.standardised, pixels)
        file = convert_int8(servable, network, integer_io=False)
        assert float_operators(file) == ["MUL (numbers_scaled)", "ADD (numbers)"]
        return file
    if name == "tflite_int16x8":
        network = QuantisedNetwork(servable.standardised, pixels, rounds_activations=False)
        return convert_int16x8(servable, network, pixels)
    return convert(servable, "float16" if name == "tflite_fp16" else "float32")


@pytest.mark.parametrize(("name", "allowed"), FORMATS_OF_LITERT.items())
def test_litert_files_keep_each_number(numbers, expected, pixels, tmp_path, name, allowed):
    file = litert_file(numbers, name, pixels)
    found = errors(file, tmp_path / "numbers.tflite", name, pixels, expected)
    assert found.max() < allowed
    assert found.max() < 4 * found.min() + 1e-4  # none is worse off for its unit


def test_onnx_files_keep_each_number(numbers, expected, pixels, tmp_path):
    pytest.importorskip("onnxruntime")
    for name, file, allowed in (
        ("onnx", packed(onnx_model(numbers), numbers), 1e-4),
        ("onnx_int8", onnx_int8_bytes(numbers, pixels), 0.4),
    ):
        assert errors(file, tmp_path / "n.onnx", name, pixels, expected).max() < allowed
