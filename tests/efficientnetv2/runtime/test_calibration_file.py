"""Tests calibration.json: what was written is read, and what is damaged is named."""

import json

import pytest

from efficientnetv2.runtime.calibration_file import (
    Calibration,
    UnknownRule,
    read_temperature,
    read_threshold,
    write_calibration,
)
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams import resolve


@pytest.fixture(scope="module")
def config():
    return resolve("efficientnetv2-b0", "digits")


def test_a_temperature_is_read_as_it_was_written(config, tmp_path):
    run = RunDirectory(tmp_path)
    assert read_temperature(run, config) is None and read_temperature(None, config) is None
    write_calibration(run, Calibration(4 / 3, 125, 0.2, 0.1, 0.05, 0.01))
    assert read_temperature(run, config) == 4 / 3
    content = json.loads(run.calibration_file.read_text())
    assert content == {
        "temperature": 4 / 3,
        "images": 125,
        "nll": 0.2,
        "nll_calibrated": 0.1,
        "ece": 0.05,
        "ece_calibrated": 0.01,
    }
    run.calibration_file.write_text('{"temperature": 2}')  # by hand
    assert read_temperature(run, config) == 2.0


def test_a_threshold_is_read_with_and_without_a_temperature(config, tmp_path):
    run = RunDirectory(tmp_path)
    assert read_threshold(run, config) is None and read_threshold(None, config) is None
    rule = UnknownRule(0.625, 125, 0.952)
    for calibration in (Calibration(1.5, 125, 0.2, 0.1, 0.05, 0.01), None):
        write_calibration(run, calibration, rule)
        assert read_threshold(run, config) == 0.625
        assert read_temperature(run, config) == (calibration and 1.5)
        assert json.loads(run.calibration_file.read_text())["unknown"] == {
            "label": "unknown",
            "score": "max_probability",
            "threshold": 0.625,
            "images": 125,
            "kept": 0.952,
        }
    sigmoid = resolve("efficientnetv2-b0", "digits", {"train.loss_type": "sigmoid"})
    assert read_threshold(run, sigmoid) == 0.625
    numbers = {"data.data_dir": "photos", "train.loss_type": "mse", "train.label_smoothing": 0.0}
    assert read_threshold(run, resolve("efficientnetv2-b0", "folder", numbers)) is None


@pytest.mark.parametrize("value", ["2", "-0.1", "true", '"0.5"', "null", "NaN", "[0.5]"])
def test_a_threshold_that_is_none_is_named(config, tmp_path, value):
    run = RunDirectory(tmp_path)
    run.calibration_file.write_text(f'{{"temperature": 1.5, "unknown": {{"threshold": {value}}}}}')
    with pytest.raises(RunError, match=r"threshold of unknown must be 0..1, got .*; correct it"):
        read_threshold(run, config)
    run.calibration_file.write_text('{"unknown": 0.5}')
    with pytest.raises(RunError, match=r"threshold of unknown must be 0..1, got None"):
        read_threshold(run, config)


@pytest.mark.parametrize(
    "settings",
    [
        {"train.loss_type": "sigmoid"},
        {"data.multi_label": True},
        {"data.multi_label": True, "train.loss_type": "sigmoid"},
    ],
)
def test_only_a_softmax_that_names_one_class_has_one(settings, tmp_path):
    run = RunDirectory(tmp_path)
    run.calibration_file.write_text("damaged, and not looked at")
    settings = {"data.data_dir": "photos", **settings}
    assert read_temperature(run, resolve("efficientnetv2-b0", "folder", settings)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged: it is not JSON; correct it, or remove"),
        ("\xff", "is damaged: it is not JSON"),
        ("[1.5]", "is damaged: it has no 'temperature'"),
        ("{}", "is damaged: it has no 'temperature'"),
        ('{"temperature": "1.5"}', "temperature must be 0.05..20, got '1.5'"),
        ('{"temperature": true}', "temperature must be 0.05..20, got True"),
        ('{"temperature": 0}', "temperature must be 0.05..20, got 0"),
        ('{"temperature": -1.5}', "temperature must be 0.05..20, got -1.5"),
        ('{"temperature": 20.5}', "temperature must be 0.05..20, got 20.5"),
        ('{"temperature": NaN}', "temperature must be 0.05..20, got nan"),
    ],
)
def test_a_file_that_is_none_is_named(config, tmp_path, text, message):
    run = RunDirectory(tmp_path)
    run.calibration_file.write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=message) as caught:
        read_temperature(run, config)
    assert "\n" not in str(caught.value)
