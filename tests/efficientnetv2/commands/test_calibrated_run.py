"""Tests the temperature of a run: fitted after training, kept, removed, and used everywhere."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.special import softmax

import efficientnetv2 as env2
from efficientnetv2.data.eval_input import evaluation_pixels
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.reporting.prediction_journal import PredictionJournal

pytestmark = pytest.mark.slow  # all tests here read what a training wrote

MODEL = "--model=efficientnetv2-b0"
BLOCKS = "model.blocks_args=[r1_k3_s2_e1_i8_o16_c1],model.feature_size=16"
SETTINGS = f"{BLOCKS},train.stages=1,train.lr_sched=constant,eval.batch_size=64,train.ema_decay=0"
FLAGS = [MODEL, "--image_size=16", "--batch_size=64", "--learning_rate=0.02"]
FACTOR = 0.05  # a temperature that shows: the network has learned little


def train(main_tf2, run, data_dir, *flags, epochs=1):
    settings = f"--hparam_str={SETTINGS},data.data_dir={data_dir}"
    arguments = ["train", *FLAGS, settings, f"--epochs={epochs}", f"--model_dir={run}", *flags]
    result = main_tf2(*arguments, cwd=run.parent)
    assert result.returncode == 0, result.stderr
    return result


def set_temperature(run, value):
    (run / "calibration.json").write_text(json.dumps({"temperature": value}))


@pytest.fixture(scope="module")
def trained(main_tf2, data_dir, tmp_path_factory):
    """The run directory of a training, and what it printed."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    return run, train(main_tf2, run, data_dir).stdout


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run directory, with another temperature."""
    shutil.copytree(trained[0], tmp_path / "run")
    set_temperature(tmp_path / "run", FACTOR)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3))
        Image.fromarray(np.uint8(pixels)).save(folder / f"{number}.png")
    return folder


def probabilities(images, run, **options):
    found = env2.predict(images, "efficientnetv2-b0", model_dir=run, **options)
    return np.stack([prediction.probabilities for prediction in found])


def test_training_fits_the_temperature_on_minival(trained):
    run, output = trained
    content = json.loads((run / "calibration.json").read_text())
    assert "probabilities are calibrated: temperature" in output
    assert f"on {content['images']:,} minival images" in output
    assert content["images"] >= 50 and content["nll_calibrated"] <= content["nll"]
    assert "with the temperature in calibration.json" in (run / "report.html").read_text()


def test_an_evaluation_has_the_error_with_and_without_it(main_tf2, trained, run):
    result = main_tf2("eval", MODEL, f"--model_dir={run}", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    assert "ECE cal." in result.stdout
    metrics = json.loads((run / "eval.json").read_text())["raw"]
    before = json.loads((trained[0] / "eval.json").read_text())["raw"]
    assert metrics["loss"] == pytest.approx(before["loss"], rel=1e-5)
    assert metrics["ece"] != pytest.approx(metrics["ece_calibrated"], abs=1e-3)
    assert f"(ECE {metrics['ece_calibrated']:.4f})" in (run / "report.html").read_text()
    other = ["eval", MODEL, f"--weights={run}", f"--model_dir={run.parent / 'other'}"]
    result = main_tf2(*other, "--dataset_cfg=digits", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    own = json.loads((run.parent / "other" / "eval.json").read_text())["raw"]
    assert own["ece_calibrated"] == pytest.approx(metrics["ece_calibrated"], rel=1e-3)
    (run / "calibration.json").unlink()
    result = main_tf2("eval", MODEL, f"--model_dir={run}", cwd=run.parent)
    assert "ECE cal." not in result.stdout
    assert "ece_calibrated" not in json.loads((run / "eval.json").read_text())["raw"]


def test_a_changed_temperature_stays_until_training_goes_on(main_tf2, run, data_dir):
    before = (run / "calibration.json").read_bytes()
    result = train(main_tf2, run, data_dir)
    assert (run / "calibration.json").read_bytes() == before
    assert "probabilities are" not in result.stdout
    result = train(main_tf2, run, data_dir, "--extend", epochs=2)
    assert json.loads((run / "calibration.json").read_text())["images"] >= 50
    assert "probabilities are calibrated" in result.stdout


def test_predictions_are_those_of_the_divided_logits(run, images):
    loaded = env2.load_run(run)
    pixels = [
        evaluation_pixels(loaded.config, tf.constant(path.read_bytes()))
        for path in sorted(images.iterdir())
    ]
    logits = loaded.model(normalise(tf.stack(pixels), loaded.config.model.preprocess)).numpy()
    raw = probabilities(images, run, calibrated=False)
    np.testing.assert_allclose(raw, softmax(logits, -1), atol=1e-6)
    found = probabilities(images, run)
    np.testing.assert_allclose(found, softmax(logits / FACTOR, -1), atol=1e-6)
    assert np.abs(found - raw).max() > 0.01
    by_weights = env2.predict(images, "efficientnetv2-b0", weights=run)
    np.testing.assert_array_equal([one.probabilities for one in by_weights], found)


@pytest.mark.parametrize("logits", [False, True])
def test_exported_files_say_what_infer_says(run, images, logits):
    config = env2.load_run(run).config
    paths = sorted(images.iterdir())
    pixels = [evaluation_pixels(config, tf.constant(path.read_bytes())).numpy() for path in paths]
    formats = ["onnx"] if logits else ["saved_model", "tflite", "onnx"]
    outputs = {}
    for calibrated in (True, False):
        options = {"calibrated": calibrated, "logits": logits}
        folder = run / f"files-{calibrated}"
        files = env2.export(formats, model_dir=run, output_dir=folder, images=images, **options)
        expected = probabilities(images, run, calibrated=calibrated)
        metadata = json.loads((folder / "export.json").read_text())
        assert metadata.get("temperature") == (FACTOR if calibrated else None)
        for name, path in files.items():
            opened = FORMATS[name].open(path)
            found = np.concatenate([opened(np.float32(image)[np.newaxis]) for image in pixels])
            outputs[name, calibrated] = found
            shares = softmax(found, -1) if logits else found
            np.testing.assert_allclose(shares, expected, atol=1e-5, err_msg=name)
    if logits:
        np.testing.assert_allclose(
            outputs["onnx", True] * FACTOR, outputs["onnx", False], rtol=1e-4, atol=1e-4
        )


def test_the_int8_file_is_calibrated_too(run, images):
    pixels = np.asarray(Image.open(images / "0.png"), np.float32)[np.newaxis, 2:18, 2:18]
    found = {}
    for calibrated in (True, False):
        path = env2.export(
            "tflite_int8", model_dir=run, images=images, output_dir=run, calibrated=calibrated
        )
        servable = env2.export(
            "keras", model_dir=run, images=images, output_dir=run, calibrated=calibrated
        )
        found[calibrated] = FORMATS["tflite_int8"].open(path)(pixels)
        expected = FORMATS["keras"].open(servable)(pixels)
        np.testing.assert_allclose(found[calibrated], expected, atol=0.05)
    assert found[False][0, found[True].argmax()] == found[False].max()  # or one that is tied
    assert found[True].max() > found[False].max() + 0.1


def test_a_journal_does_not_mix_calibrated_with_raw(main_tf2, run, images, monkeypatch):
    output = run / "out.csv"
    command = ["infer", MODEL, f"--image_path={images}", f"--model_dir={run}"]
    command.append(f"--output={output}")

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "finish", fail)
        with pytest.raises(KeyboardInterrupt):
            main_tf2(*command, cwd=run)
    result = main_tf2(*command, "--nocalibrated", cwd=run)
    assert "going on after" not in result.stdout
    rows = list(csv.DictReader(output.read_text().splitlines()))
    raw = probabilities(images, run, calibrated=False).max(-1)
    np.testing.assert_allclose([float(row["probability_1"]) for row in rows], raw, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "infer", "export"])
def test_a_damaged_file_is_refused_in_one_line(run, images, mode):
    set_temperature(run, 0)
    command = [
        "-c",
        "from efficientnetv2.cli import main; import sys; code = main(sys.argv)\n"
        "assert 'tensorflow' not in sys.modules\nsys.exit(code)",
        mode,
        MODEL,
        f"--model_dir={run}",
    ]
    if mode != "eval":
        command.append(f"--image_path={images}")
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "calibration.json': the temperature must be 0.05..20, got 0" in result.stderr


def test_raw_probabilities_need_no_file_and_calibrated_ones_do(main_tf2, run, images):
    set_temperature(run, 0)
    command = ["infer", MODEL, f"--image_path={images}", f"--model_dir={run}"]
    assert main_tf2(*command, "--nocalibrated", cwd=run).returncode == 0
    (run / "calibration.json").unlink()
    assert main_tf2(*command, cwd=run).returncode == 0
    result = main_tf2(*command, "--calibrated", cwd=run)
    assert result.returncode == 2
    assert "--calibrated needs a run directory with calibration.json" in result.stderr


def test_other_modes_refuse_it(main_tf2, run):
    result = main_tf2("eval", MODEL, f"--model_dir={run}", "--nocalibrated", cwd=run)
    assert result.returncode == 2 and "calibrated" in result.stderr


def test_too_few_images_are_said(main_tf2, photos, tmp_path):
    settings = f"--hparam_str={SETTINGS},train.preset=none,train.min_steps=0"
    flags = [*FLAGS[:2], "--batch_size=16", settings, "--epochs=1", f"--model_dir={tmp_path}/few"]
    result = main_tf2("train", photos, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "not calibrated: minival has 8 images, 50 are needed" in result.stdout
    assert not (tmp_path / "few" / "calibration.json").exists()
