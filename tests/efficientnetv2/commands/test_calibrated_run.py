"""Tests the temperature of a run: fitted after training, kept, removed, and used everywhere."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnx
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

# Part of a format's name -> how far its outputs may be from those of Python.
ALLOWED = {"int8": 0.15, "int16x8": 0.15, "auto": 0.15, "dynamic": 0.15, "fp16": 0.03, "": 1e-4}
MODEL_FILE = "model.tflite"  # of a page
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


def set_temperature(run, value, **more):
    (run / "calibration.json").write_text(json.dumps({"temperature": value, **more}))


def metadata_of(name, path):
    """Returns the metadata inside an exported file; those of Keras are beside it."""
    if name == "keras":
        return json.loads((path.parent / "export.json").read_text())
    if name == "saved_model":
        return json.loads((path / "assets" / "metadata.json").read_text())
    if name.startswith("onnx"):
        props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        return {key: json.loads(value) for key, value in props.items() if key != "labels"}
    if name.startswith("openvino"):
        import openvino

        model = openvino.Core().read_model(path / "model.xml")
        rows = {key: model.get_rt_info(["model_info", key]) for key in ("temperature", "unknown")}
        return {key: json.loads(row.astype(str)) for key, row in rows.items()}
    with zipfile.ZipFile(path / MODEL_FILE if name.startswith("web") else path) as archive:
        return json.loads(archive.read("metadata.json"))


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


@pytest.fixture(scope="module")
def many_images(tmp_path_factory):
    """Images between black and noise, of which the network is more or less sure."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(24):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (16, 16, 3)) * (number / 24) + rng.uniform(0, 10)
        Image.fromarray(np.uint8(pixels)).save(folder / f"{number:02}.png")
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
    rule = content["unknown"]
    assert rule["kept"] >= 0.95 and rule["images"] == content["images"]
    assert f"unknown if its best probability is below {rule['threshold']:.4f}, as" in output
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


def test_every_file_says_unknown_where_infer_does(run, many_images):
    scores = np.sort(probabilities(many_images, run).max(-1))
    middle = int(np.diff(scores[6:18]).argmax()) + 6  # the widest gap
    threshold = float(scores[middle : middle + 2].mean())
    rule = {"label": "unknown", "score": "max_probability", "threshold": threshold}
    set_temperature(run, FACTOR, unknown=rule)
    predictions = env2.predict(many_images, "efficientnetv2-b0", model_dir=run)
    expected = np.array([prediction.is_unknown for prediction in predictions])
    score = np.array([prediction.probabilities.max() for prediction in predictions])
    assert 6 < expected.sum() < 18
    paths = sorted(many_images.iterdir())
    pixels = [np.float32(Image.open(path))[np.newaxis] for path in paths]
    has_openvino = importlib.util.find_spec("openvino") is not None  # an extra
    formats = [name for name in FORMATS if has_openvino or "openvino" not in name]
    files = env2.export(formats, model_dir=run, images=many_images)
    for name, path in files.items():
        metadata = metadata_of(name, path)
        assert metadata["unknown"] == rule
        opened = FORMATS[name].open(path)
        found = np.array(
            [opened(image).max() < metadata["unknown"]["threshold"] for image in pixels]
        )
        # A network that has learned little, with a temperature that magnifies its logits 20 times.
        near = next(allowed for part, allowed in ALLOWED.items() if part in name)
        is_clear = np.abs(score - threshold) > near
        assert is_clear.sum() >= 8 and set(expected[is_clear]) == {True, False}, name
        np.testing.assert_array_equal(found[is_clear], expected[is_clear], err_msg=name)


def test_files_of_predictions_say_unknown_when_asked(main_tf2, run, images):
    set_temperature(run, FACTOR, unknown={"threshold": 1.0})
    command = ["infer", MODEL, f"--image_path={images}", f"--model_dir={run}", "--top_k=2"]
    command.append(f"--output={run / 'out.csv'}")
    result = main_tf2(*command, "--allow_unknown", cwd=run)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("png  unknown  ") == 3
    rows = list(csv.DictReader((run / "out.csv").read_text().splitlines()))
    assert [row["answer"] for row in rows] == ["unknown"] * 3
    best = [float(row["probability_1"]) for row in rows]
    np.testing.assert_allclose(best, probabilities(images, run).max(-1), atol=1e-6)
    assert main_tf2(*command, cwd=run).returncode == 0
    header = "image,class_1,probability_1,class_2,probability_2\n"
    assert (run / "out.csv").read_text().startswith(header)


def test_predictions_know_whether_they_are_unknown(run, images):
    set_temperature(run, FACTOR, unknown={"threshold": 1.0})
    first, *_ = env2.predict(images, "efficientnetv2-b0", model_dir=run)
    assert first.is_unknown and first.answer == "unknown" != first.class_name
    frame = env2.predictions_to_frame([first], top_k=1, allow_unknown=True)
    assert frame.columns.tolist() == ["image", "answer", "class_1", "probability_1"]
    assert frame["answer"].tolist() == ["unknown"]
    set_temperature(run, FACTOR, unknown={"threshold": 0.0})
    first, *_ = env2.predict(images, "efficientnetv2-b0", model_dir=run)
    assert not first.is_unknown and first.answer == first.class_name
    set_temperature(run, FACTOR, unknown={"threshold": 1.0})
    first, *_ = env2.predict(images, "efficientnetv2-b0", model_dir=run, calibrated=False)
    assert not first.is_unknown


def test_an_evaluation_looks_at_unknown_and_corrupted_images_and_at_views(main_tf2, run, images):
    set_temperature(run, 0.5, unknown={"threshold": 0.5})
    command = ["eval", MODEL, f"--model_dir={run}"]
    result = main_tf2(*command, f"--unknown={images}", "--corruptions", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    assert "unk. AUROC" in result.stdout and "\nnoise 2 " in result.stdout
    page = (run / "report.html").read_text()
    assert "<h2>Under mild corruption</h2>" in page and "<td>jpeg 1</td>" in page
    plain = json.loads((run / "eval.json").read_text())["raw"]
    assert plain["unknown_images"] == 3 and 0 <= plain["unknown_auroc"] <= 1
    best = probabilities(images, run).max(-1)
    assert plain["unknown_found"] == pytest.approx((best < 0.5).mean())
    assert plain["noise_2_loss"] != plain["loss"] and plain["blur_1_ece_calibrated"] >= 0
    result = main_tf2(*command, "--flip", "--crops=5", "--eval_name=views", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    views = json.loads((run / "eval_views.json").read_text())["raw"]
    assert views["images"] == plain["images"] and views["loss"] != plain["loss"]
    assert "unknown_auroc" not in views


def test_an_evaluation_of_views_is_that_of_their_predictions(main_tf2, run, tmp_path, images):
    """The images of a folder, evaluated with ten views each, against ``predict``."""
    names = env2.load_run(run).class_names
    for number, name in enumerate(names):
        for split in ("train", "val", "test"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for copy in range(2):
                rng = np.random.default_rng([number, copy])
                image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
                image.save(tmp_path / "data" / split / name / f"{copy}.png")
    set_temperature(run, 0.5)
    options = {"crops": 5, "flip": True}
    metrics = env2.evaluate(
        data=tmp_path / "data", weights=run, model_dir=tmp_path / "other", **options
    )["raw"]
    found = env2.predict(tmp_path / "data" / "test", "efficientnetv2-b0", model_dir=run, **options)
    labels = [names.index(prediction.path.parent.name) for prediction in found]
    own = [prediction.probabilities[label] for prediction, label in zip(found, labels)]
    assert metrics["images"] == 20
    assert metrics["nll_calibrated"] == pytest.approx(-np.log(own).mean(), rel=1e-3)
    right = [prediction.probabilities.argmax() for prediction in found] == np.array(labels)
    assert metrics["top1"] == pytest.approx(np.mean(right), abs=0.051)  # of raw probabilities


def test_unknown_is_refused_in_one_line(main_tf2, run):
    command = ["eval", MODEL, f"--model_dir={run}", f"--unknown={run / 'nowhere'}"]
    result = main_tf2(*command, cwd=run)
    assert result.returncode == 2 and "--unknown '" in result.stderr
    assert "does not exist" in result.stderr and result.stderr.count("\n") == 1


def test_unknown_needs_its_threshold(main_tf2, run, images):
    command = ["infer", MODEL, f"--image_path={images}", f"--model_dir={run}", "--allow_unknown"]
    result = main_tf2(*command, cwd=run)
    assert result.returncode == 2
    assert "--allow_unknown needs a run directory whose calibration.json has a" in result.stderr
    result = main_tf2(*command, "--nocalibrated", cwd=run)
    assert result.returncode == 2
    assert "--allow_unknown needs calibrated probabilities; drop --nocalibrated" in result.stderr


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
