"""Shows 100 photographs to every program that runs a float file of one network.

The network is EfficientNet-Lite0 with its ImageNet weights. Each program has to name the class that
Keras names, wherever Keras's first two classes are not nearly equal.
"""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

import efficientnetv2 as env2
from benchmarks.fine_tuning import packaged_weights
from efficientnetv2.export.formats import FORMATS
from tests.package_folder import classify_with_mediapipe

from .page_browser import browse

pytestmark = pytest.mark.slow  # opens all kinds of files of a whole network

NAME, SIDE, COUNT = "efficientnet-lite0", 224, 100
PYTHON = ("saved_model", "tflite", "onnx", "openvino")
TIE = 0.01  # of probability


@pytest.fixture(scope="module")
def pixels():
    """Pieces of two photographs, uint8 ``[100, 224, 224, 3]``, which need no resizing."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    pieces = []
    for number in range(COUNT):
        image = photographs[number % 2]
        y, x = (rng.integers(length - SIDE) for length in image.shape[:2])
        pieces.append(image[y : y + SIDE, x : x + SIDE])
    return np.stack(pieces)


@pytest.fixture(scope="module")
def photos(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def files(photos, tmp_path_factory):
    """Format -> path of the file of the network."""
    return env2.export(
        ["keras", *PYTHON, "web"],
        NAME,
        weights=packaged_weights(),
        images=photos,
        overrides={"data.resize": "squash"},
        output_dir=tmp_path_factory.mktemp("files"),
    )


@pytest.fixture(scope="module")
def labels(files):
    return (files["saved_model"] / "assets" / "labels.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def expected(files, pixels):
    """What Keras gives, ``[100, 1000]``."""
    return tf.keras.models.load_model(files["keras"]).predict(np.float32(pixels), verbose=0)


def require_same_class(outputs, expected, names=None):
    """Compares outputs ``[N, K]``, or the names of the first classes, with what Keras gives."""
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > TIE
    assert clear.sum() > 60 and len(set(expected[clear].argmax(axis=1))) > 10
    given = np.argmax(outputs, axis=1) if names is None else np.array(outputs)
    wanted = expected.argmax(axis=1) if names is None else np.array(names)[expected.argmax(axis=1)]
    assert (given == wanted)[clear].all()


@pytest.mark.parametrize("name", PYTHON)
def test_python_runtimes(files, expected, pixels, name):
    run = FORMATS[name].open(files[name])
    outputs = np.concatenate([run(np.float32(image[np.newaxis])) for image in pixels])
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    require_same_class(outputs, expected)


def test_mediapipe(files, labels, expected, pixels, mediapipe, tmp_path):
    np.save(tmp_path / "images.npy", pixels)
    (tmp_path / "lite0.tflite").write_bytes(files["tflite"].read_bytes())
    found = classify_with_mediapipe(mediapipe, tmp_path)["lite0"]
    require_same_class([max(scores, key=scores.get) for scores in found], expected, labels)


def test_the_messages_of_tensorflow_serving(files, expected, photos, serving_apis):
    request = serving_apis.predict_pb2.PredictRequest()
    encoded = [path.read_bytes() for path in sorted(photos.iterdir())]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(encoded))
    serve = tf.saved_model.load(str(files["saved_model"])).signatures["serving_bytes"]
    inputs = {key: tf.constant(tf.make_ndarray(x)) for key, x in request.inputs.items()}
    require_same_class(serve(**inputs)["probabilities"].numpy(), expected)


def test_a_browser(files, labels, expected, photos, litert_js, tmp_path):
    names = sorted(path.name for path in photos.iterdir())
    folders = {"lite0": files["web"], "images": photos, "npm": litert_js / "node_modules"}
    plan = {"names": names, "cases": [], "readings": []}
    (seen,) = browse(["/lite0/"], folders, plan, profile=tmp_path).seen
    answers = {card["file"]: card["answer"] for card in seen["cards"]}
    require_same_class([answers[name] for name in names], expected, labels)
