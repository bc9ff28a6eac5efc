"""Tests ``report.html`` of a run: what it says, and that a browser shows it."""

import dataclasses
import re

import numpy as np
import pytest

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.evaluation.evaluator import EvaluationResult
from efficientnetv2.evaluation.predictions import FullPredictions, Predictions, calibration_error
from efficientnetv2.reporting.curves import plot_curves
from efficientnetv2.reporting.run_page import write_run_page
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve

NAMES = [f"<i>{digit}</i> & co" for digit in range(10)]


def cells(text, heading):
    """Returns the rows of the table below a heading, as lists of text."""
    section = text[text.index(f"<h2>{heading}</h2>") :].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, flags=re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(10), 30)
    predicted = np.where(rng.random(300) < 0.8, label, rng.integers(0, 10, 300))
    return Predictions(np.arange(300), label, predicted, np.float32(rng.uniform(0.2, 1, 300)))


@pytest.fixture(scope="module")
def config(data_dir):
    settings = {"data.data_dir": data_dir, "train.epochs": 7, "eval.isize": 16}
    return resolve("efficientnetv2-b0", "digits", settings)


@pytest.fixture(scope="module")
def page(config, digits, predictions, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "a run")
    run.start(config, NAMES)
    run.create()
    records = [
        {"step": step, "loss": 1 / step, "accuracy": 0.5, "learning_rate": 0.1, "image_size": 16}
        for step in (1, 2, 3)
    ]
    plot_curves(records, run.curves_file, title="curves")
    metrics = {
        name: {"images": 300, "loss": 0.5, "top1": top1, "top5": 1.0, "balanced_accuracy": top1}
        for name, top1 in (("raw", 0.75), ("ema", 0.8125))
    }
    found = {"raw": predictions, "ema": predictions}
    images = EvaluationInput(config, digits, split="test")
    return write_run_page(config, run, EvaluationResult(images, NAMES, metrics, found))


def test_the_tables_are_those_of_the_predictions(page, predictions):
    text = page.read_text(encoding="utf-8")
    assert cells(text, "Result")[1:] == [
        ["raw", "0.7500", "1.0000", "0.5000", "0.7500"],
        ["EMA", "0.8125", "1.0000", "0.5000", "0.8125"],
    ]
    names = [name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for name in NAMES]
    rows = {row[0]: row for row in cells(text, "Classes, the worst first")[1:]}
    right = np.bincount(predictions.label[predictions.right], minlength=10) / 30
    assert list(rows) == sorted(names, key=lambda name: (right[names.index(name)], name))
    for name, share in zip(names, right):
        assert rows[name][1:3] == ["30", f"{share:.4f}"]
    matrix = predictions.confusion(10)
    shown = [[int(cell or 0) for cell in row[1:]] for row in cells(text, "Confusion")[1:]]
    np.testing.assert_array_equal(shown, matrix)
    assert f"(ECE {calibration_error(predictions):.4f})" in text
    counts = [int(row[1]) for row in cells(text, "Calibration")[1:]]
    assert sum(counts) == 300 and len(counts) == 12  # of 15 ranges, three are below 0.2


def test_the_error_with_the_temperature_is_beside_the_one_without(
    config, digits, predictions, tmp_path
):
    run = RunDirectory(tmp_path)
    calibrated = np.float32(np.where(predictions.right, 0.95, 0.3))
    found = dataclasses.replace(predictions, calibrated=calibrated)
    metrics = {"raw": {"images": 300, "loss": 0.5, "top1": 0.8, "nll_calibrated": 0.375}}
    images = EvaluationInput(config, digits, split="test")
    page = write_run_page(config, run, EvaluationResult(images, NAMES, metrics, {"raw": found}))
    section = page.read_text(encoding="utf-8").partition("<h2>Calibration</h2>")[2]
    after = calibration_error(dataclasses.replace(predictions, confidence=calibrated))
    assert f"(ECE {calibration_error(predictions):.4f}); with the temperature" in section
    assert f"by {100 * after:.1f} points (ECE {after:.4f})" in section
    assert "loss (NLL) is 0.5000, and 0.3750 with the temperature" in section
    assert section.partition("</section>")[0].count('src="data:image/png;base64,') == 1


def test_corruptions_are_a_table_beside_the_images_as_they_are(
    config, digits, predictions, tmp_path
):
    run = RunDirectory(tmp_path)
    metrics = {"images": 300, "loss": 0.5, "top1": 0.8, "ece": 0.1, "ece_calibrated": 0.05}
    metrics |= {"noise_1_top1": 0.7, "noise_1_loss": 0.9, "noise_1_ece": 0.25}
    metrics |= {"noise_1_ece_calibrated": 0.125}
    images = EvaluationInput(config, digits, split="test")
    found = EvaluationResult(images, NAMES, {"raw": metrics}, {"raw": predictions})
    text = write_run_page(config, run, found).read_text(encoding="utf-8")
    assert cells(text, "Under mild corruption") == [
        ["corruption", "top-1", "NLL", "ECE", "ECE cal."],
        ["none", "0.8000", "0.5000", "0.1000", "0.0500"],
        ["noise 1", "0.7000", "0.9000", "0.2500", "0.1250"],
    ]


def test_mistakes_are_shown_with_their_images_the_surest_first(page, predictions):
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg;base64,') == 24
    first = predictions.mistakes(1)
    detail = re.search(r"named (.*?)<br><span class=\"soft\">(.*?)</span>", text)
    assert detail[1] == f"&lt;i&gt;{first.predicted[0]}&lt;/i&gt; &amp; co"
    assert (
        detail[2] == f"{first.confidence[0]:.0%}, is &lt;i&gt;{first.label[0]}&lt;/i&gt; &amp; co"
    )


def test_settings_environment_and_command_are_there(page, config):
    text = page.read_text(encoding="utf-8")
    settings = dict(cells(text, "Settings")[1:])
    assert settings["train.epochs"] == "7" and settings["eval.isize"] == "16"
    assert "train.seed" not in settings  # as by default
    assert {"efficientnetv2", "tensorflow", "devices"} <= {
        row[0] for row in cells(text, "Environment")
    }
    command = re.search(r"<pre>(.*?)</pre>", text)[1]
    assert command.startswith(
        "efficientnetv2 train --model_name=efficientnetv2-b0 --dataset_cfg=digits"
    )
    assert "config.yaml" in command and "&#39;" in command  # quoted: the folder has a space


def test_nothing_comes_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    assert "<i>0</i>" not in text and "{{" not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    assert page.stat().st_size < 5_000_000


@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_it_without_an_error(page, seen_in_browser, width):
    assert seen_in_browser(page, width=width) == ("26 pictures, 0 broken, 0 too wide", [])


def test_numbers_have_a_picture_and_the_largest_errors(config, digits, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    settings = {"train.loss_type": "mse", "train.label_smoothing": 0, "data.data_dir": "angles.csv"}
    numbers = resolve("efficientnetv2-b0", "folder", settings)
    targets = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    outputs = targets + np.where(np.arange(40) == 17, 5, 0.1)[:, None].astype(np.float32)
    found = FullPredictions(np.arange(40), outputs, targets)
    metrics = {"raw": {"images": 40, "loss": 0.1, "r2": 0.5, "mae": 0.1, "rmse": 0.2}}
    images = EvaluationInput(config, digits, split="test")
    text = write_run_page(
        numbers, run, EvaluationResult(images, ["angle"], metrics, {"raw": found}), eval_name="b"
    ).read_text(encoding="utf-8")
    assert (run.path / "report_b.html").exists()
    assert cells(text, "Numbers")[1][0] == "angle" and "Predicted against true" in text
    assert re.search(r"angle predicted 5\.436<br>", text) and "Confusion" not in text


def test_without_images_there_is_a_page(config, digits, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    metrics = {"raw": {"images": 0, "loss": 0.0, "top1": 0.0}}
    images = EvaluationInput(config, digits, split="test")
    text = write_run_page(config, run, EvaluationResult(images, NAMES, metrics, {})).read_text(
        encoding="utf-8"
    )
    assert "Settings" in text and "mistakes" not in text


def test_many_classes_have_their_most_frequent_confusions(config, digits, predictions, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    names = [f"class {number}" for number in range(60)]
    metrics = {"raw": {"images": 300, "loss": 0.5, "top1": 0.8}}
    images = EvaluationInput(config, digits, split="test")
    page = write_run_page(
        config, run, EvaluationResult(images, names, metrics, {"raw": predictions})
    )
    rows = cells(page.read_text(encoding="utf-8"), "Most frequent confusions")[1:]
    matrix = predictions.confusion(60)
    np.fill_diagonal(matrix, 0)
    assert len(rows) == 20
    assert [int(row[2]) for row in rows] == sorted(matrix.ravel(), reverse=True)[:20]
    for label, other, count in rows:
        assert matrix[names.index(label), names.index(other)] == int(count)


def test_an_evaluation_with_other_settings_says_so(config, digits, predictions, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.start(config, NAMES)
    other = resolve(
        "efficientnetv2-b0",
        "digits",
        {"data.data_dir": config.data.data_dir, "train.epochs": 7, "eval.isize": 24},
    )
    images = EvaluationInput(other, digits, split="test")
    metrics = {"raw": {"images": 300, "loss": 0.5, "top1": 0.8}}
    page = write_run_page(
        other, run, EvaluationResult(images, NAMES, metrics, {"raw": predictions})
    )
    text = page.read_text(encoding="utf-8")
    assert "other settings than it was trained with: eval.isize=24<" in text
    assert dict(cells(text, "Settings")[1:])["eval.isize"] == "16"
