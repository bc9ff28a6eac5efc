"""No key of the configuration is ignored: a training, a preview or a search reads each."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from efficientnetv2 import modes, opening
from efficientnetv2.search import engine
from efficientnetv2.search.messages import Found, Job
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.stopping import StopRequest
from efficientnetv2.train.strategy import build_strategy
from hparams import UserError, resolve
from hparams.base import KEYS
from hparams.resolve import Config, with_facts

SMALL = {
    "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
    "model.feature_size": 8,
    "train.epochs": 1,
    "train.batch_size": 256,
    "data.augname": "randaug",
}


class Section:
    """One section of a configuration, which notes what is read of it."""

    def __init__(self, name: str, values: Any, seen: set[str]) -> None:
        self._name, self._values, self._seen = name, values, seen

    def __getattr__(self, key: str) -> Any:
        self._seen.add(f"{self._name}.{key}")
        return getattr(self._values, key)

    __getitem__ = __getattr__


class Noted:
    """A configuration of such sections; as a whole it is only written to a file and compared."""

    def __init__(self, config: Config, seen: set[str]) -> None:
        self._config, self._seen = config, seen

    def __getattr__(self, section: str) -> Section:
        return Section(section, getattr(self._config, section), self._seen)

    def to_dict(self) -> dict:
        return self._config.to_dict()

    def __iter__(self):
        return iter(self._config)

    def __getitem__(self, section: str) -> Any:
        return self._config[section]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The keys that modes read from now on."""
    keys: set[str] = set()
    monkeypatch.setattr(
        opening, "with_facts", lambda config, facts: Noted(with_facts(config, facts), keys)
    )
    return keys


def test_each_key_is_read(
    seen: set[str], data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**SMALL, "data.data_dir": data_dir, "train.optimizer": "rmsprop"}
    given["train.size_schedule"] = "random"
    noted = Noted(resolve("efficientnetv2-b0", "digits", given), seen)
    run = RunDirectory(tmp_path / "run")
    options = {"validate": True, "archive_best": False, "eval_name": None}
    assert modes.train(noted, run, **options, stop=StopRequest()) == 0
    given["train.size_schedule"] = "progressive"
    noted = Noted(resolve("efficientnetv2-b0", "digits", given), seen)
    assert modes.preview(noted, RunDirectory(tmp_path / "preview")) == 0
    for strategy in ("tpu", "multi_worker"):  # neither is here
        given["runtime.strategy"] = strategy
        with pytest.raises(UserError):
            build_strategy(Noted(resolve("efficientnetv2-b0", "digits", given), seen))
    monkeypatch.setattr(engine, "run_trial", found_by_a_trial)
    noted = Noted(resolve("efficientnetv2-b0", "digits", "search.trials=1"), seen)
    assert engine.search(noted, tmp_path / "search", StopRequest()) == 0
    assert set(KEYS) - seen == set()


def found_by_a_trial(job: Job, **_: Any) -> Found:
    """What a trial would find; what its training reads is seen elsewhere."""
    job.folder.mkdir(parents=True, exist_ok=True)
    return Found(0.5, 0.1, 0.0, 1, 0.0, 1.0, 1000, 1, False)
