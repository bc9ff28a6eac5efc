"""Exported files see images that are not square as Python does, or say what has to be done."""

import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data import sample_images as images
from efficientnetv2.data.eval_input import evaluation_pixels
from efficientnetv2.export.litert import convert
from efficientnetv2.export.saved_model import write_saved_model
from hparams import resolve

from .conftest import SETTINGS, servable_of

LETTERBOX = {"data.resize": "letterbox"}
WORDS = (
    "scale the whole image (bilinear) so that its longer side is 32 pixels, and centre it on "
    "32 x 32 pixels of grey level 128"
)


def file_of(shape, file_format, orientation=1):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([2 * rows, 2 * columns, 200 - rows], -1).astype(np.uint8)
    file, header = io.BytesIO(), Image.Exif()
    header[274] = orientation
    Image.fromarray(pixels).save(file, file_format, exif=header)
    return file.getvalue()


@pytest.fixture(scope="module")
def config():
    v2 = {"model.preprocess": "v2"}
    return resolve("efficientnetv2-b0", "digits", {**SETTINGS, **LETTERBOX, **v2})


@pytest.fixture(scope="module")
def letterboxed():
    return servable_of(logits=True, **LETTERBOX, **{"model.preprocess": "v2"})


def test_a_saved_model_fed_bytes_gives_pythons_logits(letterboxed, config, tmp_path):
    write_saved_model(letterboxed, tmp_path / "model", config=config, with_xla=False)
    files = [
        file_of((40, 100), "PNG"),
        file_of((90, 60), "JPEG", 6),
        file_of((1, 70), "PNG"),
    ]
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    logits = loaded.signatures["serving_bytes"](image_bytes=tf.constant(files))["logits"]
    pixels = tf.stack([evaluation_pixels(config, tf.constant(data)) for data in files])
    np.testing.assert_allclose(logits, letterboxed.model(pixels), atol=1e-4)
    squashed = resolve("efficientnetv2-b0", "digits", {**SETTINGS, "model.preprocess": "v2"})
    others = tf.stack([evaluation_pixels(squashed, tf.constant(data)) for data in files])
    assert np.abs(logits - letterboxed.model(others)).max() > 0.01
    described = json.loads((tmp_path / "model" / "assets" / "metadata.json").read_text())
    assert (described["resize"], described["resize_steps"]) == ("letterbox", WORDS)


def test_a_litert_file_says_what_to_do_with_an_image_that_is_not_square(letterboxed, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(convert(letterboxed, "float32"))
    assert WORDS.encode() in file.read_bytes()  # in the description of the input
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("metadata.json"))["resize_steps"] == WORDS


def test_images_to_calibrate_and_check_with_are_those_of_evaluation(config, tmp_path):
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((20, 80, 3), 10 * number, np.uint8)).save(paths[-1])
    calibration, verification = images.file_images(config, paths)
    expected = [evaluation_pixels(config, tf.constant(path.read_bytes())) for path in paths]
    np.testing.assert_array_equal(verification.pixels, np.rint(expected[1::2]))
    with_bars = (calibration.pixels == 128).any(axis=(1, 2, 3))
    assert 0.2 < with_bars.mean() <= 1  # also of those that are cut at random
