"""Tests that no config key is ignored: a training, a preview or a search reads each."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from efficientnetv2.commands import preview, train
from efficientnetv2.data import open_data
from efficientnetv2.data.class_balance import class_weights
from efficientnetv2.data.sources import build_source
from efficientnetv2.evaluation.thresholds import fit_thresholds
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.search import engine
from efficientnetv2.search.messages import TrialJob, TrialResult
from efficientnetv2.train.strategy import build_strategy
from efficientnetv2.train.target_scale import target_scale
from efficientnetv2.train.teacher import build_teacher
from hparams import UserError, presets, resolve
from hparams.channels import normalisation_of
from hparams.config import Config
from hparams.keys import KEYS
from hparams.resolve import with_facts

pytestmark = pytest.mark.slow  # most tests here train for several seconds

SMALL = {
    "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
    "model.feature_size": 8,
    "train.epochs": 1,
    "train.batch_size": 256,
    "data.augname": "randaug",
}


class RecordedSection:
    """A config section that records which of its keys are read."""

    def __init__(self, name: str, values: Any, read_keys: set[str]) -> None:
        self._name, self._values, self._read_keys = name, values, read_keys

    def __getattr__(self, key: str) -> Any:
        self._read_keys.add(f"{self._name}.{key}")
        return getattr(self._values, key)

    __getitem__ = __getattr__


class RecordedConfig:
    """A config of such sections; reading it as a whole, to write or compare it, is not recorded."""

    def __init__(self, config: Config, read_keys: set[str]) -> None:
        self._config, self._read_keys = config, read_keys

    def __getattr__(self, section: str) -> RecordedSection:
        return RecordedSection(section, getattr(self._config, section), self._read_keys)

    def to_dict(self) -> dict:
        return self._config.to_dict()

    def __iter__(self):
        return iter(self._config)

    def __getitem__(self, section: str) -> Any:
        return self._config[section]


@pytest.fixture
def read_keys(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The keys that modes read from now on."""
    keys: set[str] = set()
    monkeypatch.setattr(
        open_data,
        "with_facts",
        lambda config, facts: RecordedConfig(with_facts(config, facts), keys),
    )
    return keys


def test_each_key_is_read(
    read_keys: set[str], data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SMALL, "data.data_dir": data_dir, "train.optimizer": "rmsprop"}
    settings["train.size_schedule"] = "random"
    recorded = RecordedConfig(resolve("efficientnetv2-b0", "digits", settings), read_keys)
    run = RunDirectory(tmp_path / "run")
    options = {"validate": True, "keep_best": False, "eval_name": None}
    assert train.train(recorded, run, **options, stop=StopRequest()) == 0
    taught = {**settings, "train.teacher": str(run.path), "model.num_classes": 10}
    assert build_teacher(RecordedConfig(resolve("efficientnetv2-b0", "digits", taught), read_keys))
    settings["train.size_schedule"] = "progressive"
    recorded = RecordedConfig(resolve("efficientnetv2-b0", "digits", settings), read_keys)
    assert preview.preview(recorded, RunDirectory(tmp_path / "preview"))
    for strategy in ("tpu", "multi_worker"):  # neither is here
        settings["runtime.strategy"] = strategy
        with pytest.raises(UserError):
            build_strategy(
                RecordedConfig(resolve("efficientnetv2-b0", "digits", settings), read_keys)
            )
    # The preset and the recipe are read before there is a whole config.
    monkeypatch.setattr(
        presets,
        "resolve",
        lambda *row, **options: RecordedConfig(resolve(*row, **options), read_keys),
    )
    presets.resolve_for_images("efficientnetv2-b0", "mnist")
    monkeypatch.setattr(engine, "run_trial", fake_trial)
    recorded = RecordedConfig(resolve("efficientnetv2-b0", "digits", "search.trials=1"), read_keys)
    assert engine.search(recorded, tmp_path / "search", StopRequest())
    read_own_images(read_keys, tmp_path)
    assert set(KEYS) - read_keys == set()


def read_own_images(read_keys: set[str], folder: pathlib.Path) -> None:
    """Opens a table of labels, with what only rare classes and numbers need."""
    for number in range(40):
        (folder / f"{number}.png").touch()
    rows = [f"{number}.png,{number % 2}" for number in range(40)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    settings = {
        "data.data_dir": str(folder / "labels.csv"),
        "train.class_weights": "balanced",
        "train.class_counts": [20, 20],
        "model.pixel_mean": [100.0] * 3,
        "model.pixel_deviation": [50.0] * 3,
        "model.target_mean": [1.0],
        "model.target_deviation": [2.0],
    }
    config = RecordedConfig(resolve("efficientnetv2-b0", "folder", settings), read_keys)
    assert build_source(config).num_classes == 2
    assert class_weights(config) is not None
    assert target_scale(config.model) is not None
    assert normalisation_of(config.model).deviation == (50.0,) * 3
    run = RunDirectory(folder / "several")
    assert fit_thresholds(config, build_source(without_minival(folder)), run, workers=None) is None


def without_minival(folder: pathlib.Path) -> Config:
    """Returns the config of a table of several labels an image, none of them in minival."""
    (folder / "several.csv").write_text("path,labels,split\n0.png,a|b,train\n1.png,a,test\n")
    settings = {"data.data_dir": str(folder / "several.csv"), "train.loss_type": "sigmoid"}
    return resolve("efficientnetv2-b0", "folder", {**settings, "data.multi_label": True})


def fake_trial(job: TrialJob, **_: Any) -> TrialResult:
    """Stands in for a trial, whose training reads the keys that the training above reads."""
    job.folder.mkdir(parents=True, exist_ok=True)
    return TrialResult(0.5, 0.1, 0.0, 1, 0.0, 1.0, 1000, 1, False)
