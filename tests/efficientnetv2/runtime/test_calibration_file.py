"""Tests calibration.json: what was written is read, and what is damaged is named."""

import json

import pytest

from efficientnetv2.runtime.calibration_file import (
    Calibration,
    read_temperature,
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
