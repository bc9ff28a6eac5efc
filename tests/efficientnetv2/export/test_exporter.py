"""Tests exports of a run and of weights from the command line, with each format's own runtime."""

import csv
import dataclasses
import importlib.util
import json
import re

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from scipy.stats import binomtest
from tensorflow import keras

from efficientnetv2.cli import main
from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.sample_images import Images
from efficientnetv2.export.answers import ANSWERS, FirstClass
from efficientnetv2.export.formats import FORMATS, Limit
from efficientnetv2.export.verify import verify
from hparams import resolve
from hparams.label_kinds import NUMBERS

pytestmark = pytest.mark.slow  # most tests here train for several seconds

NAME = "efficientnetv2-b0"
BLOCKS = "[r1_k3_s2_e1_i8_o8_c1,r1_k3_s1_e4_i8_o8_se0.25]"
SETTINGS = f"model.blocks_args={BLOCKS},model.feature_size=16,train.isize=16,train.stages=1"
ONE_CLASS = FirstClass(np.zeros(0))
FILES = {
    "keras": f"{NAME}.keras",
    "saved_model": f"{NAME}_saved_model",
    "tflite": f"{NAME}.tflite",
    "tflite_fp16": f"{NAME}_fp16.tflite",
    "tflite_dynamic": f"{NAME}_dynamic.tflite",
    "tflite_int8": f"{NAME}_int8.tflite",
    "tflite_int16x8": f"{NAME}_int16x8.tflite",
    "tflite_auto": f"{NAME}_auto.tflite",
    "onnx": f"{NAME}.onnx",
    "onnx_int8": f"{NAME}_int8.onnx",
}
if importlib.util.find_spec("openvino") is not None:
    FILES |= {"openvino": f"{NAME}_openvino", "openvino_fp16": f"{NAME}_fp16_openvino"}


def command(*arguments):
    return main(["main_tf2.py", f"--model_name={NAME}", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """The run directory of a training of one epoch on the digits."""
    path = tmp_path_factory.mktemp("run")
    settings = f"{SETTINGS},eval.isize=16,train.epochs=1,data.data_dir={data_dir}"
    assert command("--mode=train", f"--model_dir={path}", f"--hparam_str={settings}") == 0
    return path


@pytest.fixture(scope="module")
def exported(run):
    formats = ",".join(FILES)
    code = command(
        "--mode=export",
        f"--model_dir={run}",
        f"--format={formats}",
        "--debug_int8",
        "--export_to_tpu",
        f"--serving_dir={run / 'models'}",
        "--max_loss=0.3",  # one of 360 images
    )
    assert code in (0, 2)  # 2: the 8-bit files are too far from the Keras model
    return run / "export"


def test_every_format_is_written_and_checked(exported):
    written = {path.name for path in exported.iterdir()}
    assert written == {*FILES.values(), "labels.txt", "export.json", "int8_layers.csv", "README.md"}
    result = json.loads((exported / "export.json").read_text())
    assert list(result["files"]) == list(FILES.values())
    assert result["images"] == 360
    assert result["output"] == "probabilities"
    for name, check in result["files"].items():
        # Of a network that has hardly learnt.
        in_8_bits = any(word in name for word in ("int8", "auto", "dynamic"))
        assert in_8_bits or check["fault"] is None
        assert check["agreement"] > (0.8 if in_8_bits else 0.99)
        assert abs(check["accuracy"] - result["keras_accuracy"]) < (0.04 if in_8_bits else 0.01)
        assert check["milliseconds"] > 0
        assert check["megabytes"] > 0.01
    auto = result["tflite_auto"]
    assert auto["max_loss"] == 0.3
    (chosen,) = [trial for trial in auto["trials"] if trial["chosen"]]
    check = result["files"][FILES["tflite_auto"]]
    assert chosen["lost"]["points"] <= 0.3
    assert check["fault"] is None
    lost = 100 * (result["keras_accuracy"] - check["accuracy"])
    assert chosen["lost"]["points"] == pytest.approx(lost, abs=1e-3)
    assert chosen["lost"]["low"] < chosen["lost"]["points"] < chosen["lost"]["high"]
    assert chosen["megabytes"] == check["megabytes"]
    with (exported / "int8_layers.csv").open() as file:
        layers = [row["layer"] for row in csv.DictReader(file)]
    assert layers[0] == "stem_conv"
    assert layers[-1] == "predictions"


@pytest.fixture(scope="module")
def pixels():
    return np.float32(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)))


@pytest.mark.parametrize("format_name", ["saved_model", "tflite", "onnx"])
def test_float_files_say_what_keras_says(exported, format_name, pixels):
    expected = keras.models.load_model(exported / FILES["keras"])(pixels).numpy()
    run_file = FORMATS[format_name].open(exported / FILES[format_name])
    outputs = np.concatenate([run_file(image[np.newaxis]) for image in pixels])
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)


def test_signatures_of_the_saved_model(exported, pixels):
    expected = keras.models.load_model(exported / FILES["keras"])(pixels).numpy()
    loaded = tf.saved_model.load(str(exported / FILES["saved_model"]))
    signatures = loaded.signatures
    encoded = [tf.io.encode_png(tf.cast(image, tf.uint8)) for image in pixels]
    by_bytes = signatures["serving_bytes"](image_bytes=tf.stack(encoded))["probabilities"]
    assert by_bytes.shape == (3, 10)
    np.testing.assert_allclose(by_bytes.numpy().sum(axis=1), 1, atol=1e-5)
    compiled = signatures["serving_xla"](image=tf.constant(pixels))["probabilities"]
    np.testing.assert_allclose(compiled, expected, atol=1e-5)
    features = signatures["features"](image=tf.zeros([2, 40, 24, 3]))["features"]
    assert features.shape == (2, 16)
    assets = exported / FILES["saved_model"] / "assets"
    assert (assets / "labels.txt").read_text().split() == list("0123456789")
    assert json.loads((assets / "metadata.json").read_text())["image_size"] == 16


def test_the_model_card_says_what_was_measured(exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    result = json.loads((exported / "export.json").read_text())
    fields = yaml.safe_load(card.split("---\n")[1])
    assert fields["pipeline_tag"] == "image-classification" and "license" not in fields
    (entry,) = fields["model-index"][0]["results"]
    assert entry["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    accuracy = entry["metrics"][0]["value"]
    assert abs(accuracy - result["keras_accuracy"]) < 0.01
    low, high = binomtest(round(360 * accuracy), 360).proportion_ci(0.95, method="wilson")
    assert f"{accuracy:.1%}** of 360 images" in card
    assert f"95% interval: {low:.1%} to {high:.1%}" in card
    for name, check in result["files"].items():
        (row,) = [line for line in card.splitlines() if line.startswith(f"| `{name}`")]
        assert f"| {check['megabytes']:.2f} |" in row and f"| {check['accuracy']:.4f} |" in row
    assert "| epochs | 1 |" in card and "train.epochs: 1" in card
    assert str(exported) not in card and "data_dir" not in card


def test_the_code_of_the_model_card_runs(exported, tmp_path, monkeypatch, capfd):
    card = (exported / "README.md").read_text(encoding="utf-8")
    prepare, *uses = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(uses) == len({name.partition("_")[0] for name in FILES if name != "saved_model"}) + 1
    monkeypatch.chdir(exported)
    pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = keras.models.load_model(FILES["keras"])(np.float32(pixels)[np.newaxis])[0].numpy()
    for use in uses:
        names: dict = {}
        exec(prepare.replace("photo.jpg", str(tmp_path / "photo.png")) + use, names)
        # OpenVINO computes in 16 bits by itself where the processor can.
        allowed = 5e-3 if "openvino" in use else 1e-4
        np.testing.assert_allclose(names["probabilities"], expected, atol=allowed)
        assert f"{expected.argmax()} " in capfd.readouterr().out


def test_a_server_gets_the_next_version_if_it_is_right(exported, run, monkeypatch, capfd):
    models = run / "models"

    def contents(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*")}

    assert contents(models / "1") == contents(exported / FILES["saved_model"])
    assert "assets.extra/tf_serving_warmup_requests" in contents(models / "1")
    never = dataclasses.replace(FORMATS["saved_model"], limit=Limit(-1.0, 0.0))
    monkeypatch.setitem(FORMATS, "saved_model", never)
    export = "--mode=export", f"--model_dir={run}", f"--output_dir={run / 'again'}"
    assert command(*export, "--format=saved_model", f"--serving_dir={models}") == 2
    assert f"no new version in {models}" in capfd.readouterr().out
    assert [path.name for path in models.iterdir()] == ["1"]


def test_bytes_are_seen_as_in_evaluation(exported):
    """A picture that is not square is cropped and resized by the SavedModel."""
    resize = resolve(NAME, "digits").data.resize
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    encoded = tf.io.encode_png(picture)
    loaded = tf.saved_model.load(str(exported / FILES["saved_model"]))
    outputs = loaded.signatures["serving_bytes"](image_bytes=encoded[tf.newaxis])["probabilities"]
    image = decode_evaluation(encoded, image_size=16, preprocess="v1", resize=resize)
    expected = keras.models.load_model(exported / FILES["keras"])(image[tf.newaxis])
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_converters_command_line_takes_the_saved_model(exported):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(exported / FILES["saved_model"]))
    assert len(converter.convert()) > 0.9 * (exported / FILES["tflite"]).stat().st_size - 5000


def test_onnx_says_what_its_numbers_mean(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / FILES["onnx"]))
    assert [entry.name for entry in session.get_outputs()] == ["probabilities"]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["labels"].split("\n") == list("0123456789")
    assert json.loads(metadata["input_range"]) == [0, 255]
    assert json.loads(metadata["resize"]) == "squash"
    steps = "take the whole image, and resize it (bicubic) to 16 x 16 pixels"
    assert json.loads(metadata["resize_steps"]) == steps
    assert session.get_modelmeta().description.endswith(steps)


def test_a_file_that_disagrees_is_named(exported, pixels):
    path = exported / FILES["tflite"]
    expected = np.concatenate([FORMATS["tflite"].open(path)(image[np.newaxis]) for image in pixels])
    images = Images(pixels, expected.argmax(axis=1))
    assert verify("tflite", path, images, pixels, expected, ONE_CLASS).fault is None
    assert "differs by" in verify("tflite", path, images, pixels, expected + 0.02, ONE_CLASS).fault
    other = np.roll(expected, 1, axis=1)
    assert (
        "another class for 3 of 3 images"
        in verify("tflite_fp16", path, images, pixels, other, ONE_CLASS).fault
    )
    tie = expected.copy()
    rival = (expected.argmax(axis=1) + 1) % expected.shape[1]
    tie[np.arange(len(tie)), rival] = expected.max(axis=1) + 0.005
    check = verify("tflite_fp16", path, images, pixels, tie, ONE_CLASS)
    assert (check.fault, check.agreement, check.ties) == (None, 0.0, 1.0)
    wrong = Images(pixels, other.argmax(axis=1))
    assert verify("tflite_int8", path, wrong, pixels, other, ONE_CLASS).fault == (
        "gets 3 fewer of 3 images right (at most 1 is allowed)"
    )


def test_numbers_that_are_not_finite_are_a_fault(exported, pixels):
    labels = np.random.default_rng(0).normal(size=[len(pixels), 10])
    numbers = ANSWERS[NUMBERS](np.ones(10))
    check = verify(
        *("tflite", exported / FILES["tflite"], Images(pixels, labels), pixels * np.nan),
        *(labels, numbers),
    )
    assert check.fault == "has outputs that are not finite numbers"
    check = verify(
        "tflite_int8", exported / FILES["tflite"], Images(pixels, labels), pixels, labels, numbers
    )
    assert check.fault.startswith("lowers R2 by ")


def test_weights_and_a_folder_of_images(tmp_path, run, capfd):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for number in range(5):
        coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(picture).numpy())
    arguments = (
        "--mode=export",
        f"--weights={run}",
        f"--image_path={folder}",
        f"--output_dir={tmp_path / 'out'}",
        f"--hparam_str={SETTINGS},model.num_classes=10,eval.isize=16",
        "--format=tflite_int8",
    )
    assert command(*arguments, "--logits", "--nopreprocessing", "--integer_io") == 0
    printed = capfd.readouterr()
    assert "checked on 2 images" in printed.out
    assert printed.err == ""
    result = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (result["output"], result["input_range"]) == ("logits", "normalised")
    assert result["keras_accuracy"] is None
    (folder / "4.png").write_bytes(b"no image")
    assert command(*arguments) == 2
    assert "4.png' is not an image" in capfd.readouterr().err
