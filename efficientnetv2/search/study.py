"""Opens the Optuna study of a search, and reads and writes the baseline's result in it.

User attributes of a study: ``config``, the values that must be the same for all its trials;
``backbone``, the accuracy and size of the baseline, which is the backbone in a search for networks;
``seconds DEVICE``, its step time on a device, if it is timed.
Those of a trial are in ``attributes``.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import shutil
import time
import warnings
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study

from efficientnetv2.search.messages import TrialResult
from efficientnetv2.search.reward import Reward, TrialReward, accuracy_alone
from efficientnetv2.search.samplers import silence_optuna
from efficientnetv2.search.storage import (
    fixed_values,
    journal_path,
    redacted_url,
    require_same,
    storage_url,
)
from hparams.config import Config
from hparams.errors import UserError
from hparams.renamed_keys import current_setting

_TRIES, _PAUSE_SECONDS = 3, 0.3


def open_study(config: Config, folder: pathlib.Path, *, sampler: BaseSampler) -> Study:
    """Opens the study of a search, or creates it.

    Args:
      config: of the search.
      folder: its run directory; it must exist.
      sampler: draws the trials.

    Raises:
      UserError: if the storage cannot be opened, or the study was made with another config.
    """
    silence_optuna()
    for tries_left in reversed(range(_TRIES)):
        try:
            study = _create(config, folder, sampler)
            saved = _read_config(study, config, folder)
            if saved is None:
                study.set_user_attr("config", json.dumps(fixed_values(config)))
            break
        except ImportError:
            reason = "its database driver is not installed (postgresql://: psycopg)"
            tries_left = 0
        # The exceptions of databases and their drivers have no common base class.
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not tries_left:
            raise UserError(f"search.storage '{redacted_url(config, folder)}': {reason}")
        time.sleep(_PAUSE_SECONDS)  # another process may be creating the same tables
    if saved is not None:
        require_same(config, saved, folder=folder)
    return study


def _read_config(study: Study, config: Config, folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the config values of a study; None: it is new, or its first start left no result."""
    text = study.user_attrs.get("config")
    saved = dict(itertools.starmap(current_setting, json.loads(text).items())) if text else None
    is_empty = "backbone" not in study.user_attrs and not study.get_trials(deepcopy=False)
    # Only in the run directory's own storage can no other process rely on the old values.
    if saved and is_empty and config.search.storage is None and saved != fixed_values(config):
        for baseline in ("backbone", "default"):  # of networks, or of settings
            shutil.rmtree(folder / baseline, ignore_errors=True)
        return None
    return saved


def _create(config: Config, folder: pathlib.Path, sampler: BaseSampler) -> Study:
    return optuna.create_study(
        storage=_open_storage(storage_url(config, folder)),
        study_name=config.search.study_name,
        sampler=sampler,
        pruner=build_pruner(config),
        direction="maximize",
        load_if_exists=True,
    )


def build_pruner(config: Config) -> BasePruner:
    """Builds the pruner of ``search.prune``: the median rule on the reward, after each epoch."""
    search = config.search
    if not search.prune:
        return NopPruner()
    return MedianPruner(n_startup_trials=search.prune_trials, n_warmup_steps=search.prune_epochs)


def _open_storage(url: str) -> BaseStorage:
    if url.startswith("journal:"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(str(journal_path(url))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of database drivers
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=options)


def record_baseline(study: Study, result: TrialResult, *, device: str) -> None:
    """Writes the result of the baseline to the study; its step time is that on ``device``."""
    if "backbone" not in study.user_attrs:
        study.set_user_attr(
            "backbone", {"accuracy": result.accuracy, "parameters": result.parameters}
        )
    if result.seconds is not None:
        study.set_user_attr(
            f"seconds {device}", {"seconds": result.seconds, "spread": result.spread}
        )


def read_baseline(study: Study, *, device: str | None) -> dict[str, Any] | None:
    """Returns the baseline's accuracy and parameters and, with a device, seconds and spread.

    Args:
      study: of the search.
      device: where it must be timed; None: the time does not matter.

    Returns:
      None: it is not trained or not timed yet.
    """
    attributes = study.user_attrs
    result: dict[str, Any] | None = attributes.get("backbone")
    timed = attributes.get(f"seconds {device}", {}) if device else {}
    if result is None or (device and not timed):
        return None
    return {**result, **timed}


def build_objective(config: Config, baseline: dict[str, Any]) -> TrialReward:
    """Builds the reward from ``search.w`` and ``search.v``; of settings, it is the accuracy."""
    if config.search.space:
        return accuracy_alone
    return Reward(
        w=config.search.w,
        v=config.search.v,
        seconds=baseline["seconds"],
        parameters=baseline["parameters"],
    )
