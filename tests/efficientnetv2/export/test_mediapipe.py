"""Opens LiteRT files in MediaPipe's image classifier, as apps for Android and iOS do."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow import keras

import efficientnetv2 as env2
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.litert import convert, convert_int8
from efficientnetv2.export.servable import build_servable
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.model.factory import build_model
from hparams import resolve
from hparams.channels import normalisation_of
from tests.package_folder import classify_with_mediapipe

from .conftest import SETTINGS, with_random_batchnorm

pytestmark = pytest.mark.slow  # installs a package of 40 MB

NAMES = ["Löwe", "red panda", "a/b", *[f"digit {number}" for number in range(3, 10)]]
TINY = {"model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"], "model.feature_size": 8}


def servable_with(name, images, *, loss_type="softmax", preprocessing=True):
    """A network whose scores differ widely between the images and between classes."""
    settings = {**SETTINGS, **TINY, "data.data_dir": "x", "model.num_classes": 10}
    settings = {
        **settings,
        "train.loss_type": loss_type,
        "data.multi_label": loss_type == "sigmoid",
    }
    config = resolve(name, "folder", settings)
    keras.utils.set_random_seed(3)
    model = with_random_batchnorm(build_model(config.model))
    classifier = model.get_layer("predictions")
    logits = model.predict(normalise(images, normalisation_of(config.model)), verbose=0)
    scale = 2 / logits.std(axis=0)
    kernel, _ = classifier.get_weights()
    classifier.set_weights([kernel * scale, -logits.mean(axis=0) * scale])
    thresholds = np.full(10, 0.5, np.float32) if loss_type == "sigmoid" else None
    loaded = LoadedModel(model, config, NAMES, "random weights", thresholds)
    return build_servable(loaded, preprocessing=preprocessing, logits=False)


def int8_file(servable, inputs, *, integer_io):
    return convert_int8(servable, QuantisedNetwork(servable.folded, inputs), integer_io=integer_io)


@pytest.fixture(scope="module")
def exported(pixels, tmp_path_factory):
    """Name -> LiteRT file, network, and the images as its interpreter takes them."""
    v1 = servable_with("efficientnet-b0", pixels)
    several = servable_with("efficientnet-b0", pixels, loss_type="sigmoid")
    assert v1.preprocess == several.preprocess == "v1"
    rows = {
        "v1_float32": (convert(v1, "float32"), v1, pixels),
        "v1_float16": (convert(v1, "float16"), v1, pixels),
        "v1_dynamic": (convert(v1, "dynamic"), v1, pixels),
        "v1_int8": (int8_file(v1, pixels, integer_io=False), v1, pixels),
        "v1_integer_io": (int8_file(v1, pixels, integer_io=True), v1, pixels),
        "several": (convert(several, "float32"), several, pixels),
        "several_integer_io": (int8_file(several, pixels, integer_io=True), several, pixels),
    }
    for name in ("efficientnetv2-s", "efficientnet-lite0", "efficientnet-b0"):
        raw = servable_with(name, pixels, preprocessing=False)
        inputs = np.float32((pixels - raw.normalisation.mean) / raw.normalisation.deviation)
        rows[f"{raw.preprocess}_without"] = (convert(raw, "float32"), raw, inputs)
    rows["takes_0_to_1"] = of_unit_range(pixels, tmp_path_factory.mktemp("unit"))
    return rows


def of_unit_range(pixels, folder):
    """A user's model that normalises 0..1, which an app does not know by itself."""
    images = keras.Input(pixels.shape[1:])
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(
        keras.layers.Rescaling(2, -1)(images)
    )
    keras.utils.set_random_seed(0)
    x = keras.layers.Dense(10, kernel_initializer=keras.initializers.RandomNormal(stddev=3))(
        keras.layers.GlobalAveragePooling2D()(x)
    )
    model = keras.Model(images, keras.layers.Softmax()(x), name="unit")
    path = env2.export(
        "tflite", model, images=pixels / 255, class_names=NAMES, output_dir=folder, verbose=False
    )
    return path.read_bytes(), SimpleNamespace(model=model), pixels / 255


@pytest.fixture(scope="module")
def found(exported, pixels, mediapipe, tmp_path_factory):
    """Name -> what MediaPipe says of each image, class name -> score; or its error."""
    files = tmp_path_factory.mktemp("files")
    np.save(files / "images.npy", pixels.astype(np.uint8))
    for name, (file, _, _) in exported.items():
        (files / f"{name}.tflite").write_bytes(file)
    return classify_with_mediapipe(mediapipe, files)


def scores(interpreter, inputs):
    """Returns the outputs of a file for each image, float ``[N, 10]``."""
    interpreter.allocate_tensors()
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for pixels in inputs:
        interpreter.set_tensor(image["index"], pixels[np.newaxis].astype(image["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output["index"])[0].astype(np.float32))
    step, zero = output["quantization"]
    return np.stack(rows) if step == 0 else (np.stack(rows) - zero) * step


OPENED = (
    "v1_float32",
    "v1_float16",
    "v1_dynamic",
    "v1_int8",
    "v1_integer_io",
    "several",
    "several_integer_io",
    "v2_without",
    "lite_without",
    "takes_0_to_1",
)


@pytest.mark.parametrize("name", OPENED)
def test_mediapipe_gives_our_names_and_scores(name, exported, found):
    file, servable, inputs = exported[name]
    assert not isinstance(found[name], str), found[name]
    assert all(set(image) == set(NAMES) for image in found[name])
    by_mediapipe = np.array([[image[label] for label in NAMES] for image in found[name]])
    by_litert = scores(Interpreter(model_content=file), inputs)
    np.testing.assert_allclose(by_mediapipe, by_litert, atol=0.01)
    by_keras = servable.model.predict(inputs, verbose=0)
    assert by_keras.std(axis=0).max() > 0.1  # otherwise any file would agree
    if "int" not in name and "dynamic" not in name:
        np.testing.assert_allclose(by_mediapipe, by_keras, atol=0.01)
    sums = by_mediapipe.sum(axis=1)
    assert np.abs(sums - 1).max() > 0.5 if "several" in name else np.abs(sums - 1).max() < 0.05


def test_mediapipe_refuses_to_normalise_each_channel_by_itself(found):
    """What docs/deploying.md says about --nopreprocessing: no wrong scores, but an error."""
    assert "Per-channel image normalization is not available" in found["v1_without"]


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tensorflow_lite_gives_the_scores_of_litert(name, exported):
    file, _, inputs = exported[name]
    by_litert = scores(Interpreter(model_content=file), inputs[:8])
    by_tensorflow = scores(tf.lite.Interpreter(model_content=file), inputs[:8])
    np.testing.assert_allclose(by_tensorflow, by_litert, atol=0.01)
