"""A configuration in; its Optuna study, opened, and what is written in there, out.

Attributes of a study: ``config``, what must be the same for all its trials; ``backbone``, what the
backbone reached; ``seconds DEVICE``, its step time there. Attributes of a trial: see ``Attribute``.
"""

from __future__ import annotations

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

from efficientnetv2.search.messages import Found
from efficientnetv2.search.reward import Reward
from efficientnetv2.search.samplers import quiet_optuna
from efficientnetv2.search.storage import (
    fixed_values,
    journal_path,
    require_same,
    shown_url,
    storage_url,
)
from hparams.errors import UserError
from hparams.resolve import Config

_TRIES, _PAUSE_SECONDS = 3, 0.3


def open_study(config: Config, folder: pathlib.Path, *, sampler: BaseSampler) -> Study:
    """Opens the study of a search, or makes it.

    Args:
      config: of the search.
      folder: its run directory, which is there.
      sampler: chooses.

    Raises:
      UserError: if the storage cannot be opened, or the study was made with another configuration.
    """
    quiet_optuna()
    for tries_left in reversed(range(_TRIES)):
        try:
            study = _create(config, folder, sampler)
            kept = _kept_config(study, config, folder)
            if kept is None:
                study.set_user_attr("config", json.dumps(fixed_values(config)))
            break
        except ImportError:
            reason = "its database driver is not installed (postgresql://: psycopg)"
            tries_left = 0
        # What it is depends on the database and its driver; they have no class in common.
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not tries_left:
            raise UserError(f"search.storage '{shown_url(config, folder)}': {reason}")
        time.sleep(_PAUSE_SECONDS)  # another process may be making the same tables
    if kept is not None:
        require_same(config, kept, folder=folder)
    return study


def _kept_config(study: Study, config: Config, folder: pathlib.Path) -> dict[str, Any] | None:
    """What a study was made with; None: it is new, or nothing came of an earlier start."""
    text = study.user_attrs.get("config")
    kept: dict[str, Any] | None = json.loads(text) if text else None
    is_empty = "backbone" not in study.user_attrs and not study.get_trials(deepcopy=False)
    # In a storage of one's own nobody else relies on it.
    if kept and is_empty and config.search.storage is None and kept != fixed_values(config):
        shutil.rmtree(folder / "backbone", ignore_errors=True)
        return None
    return kept


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
    """Opens ``search.prune``: the median rule on the reward, after each epoch."""
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
        warnings.simplefilter("ignore")  # of drivers
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=options)


def keep_backbone(study: Study, found: Found, *, device: str) -> None:
    """Notes what the backbone reached; its step time belongs to a device."""
    if "backbone" not in study.user_attrs:
        study.set_user_attr(
            "backbone", {"accuracy": found.accuracy, "parameters": found.parameters}
        )
    study.set_user_attr(f"seconds {device}", {"seconds": found.seconds, "spread": found.spread})


def backbone_of(study: Study, *, device: str) -> dict[str, Any] | None:
    """Returns the backbone's accuracy, parameters, seconds and spread, if they are known here."""
    attributes = study.user_attrs
    timed = attributes.get(f"seconds {device}")
    return {**attributes["backbone"], **timed} if timed else None


def build_reward(config: Config, backbone: dict[str, Any]) -> Reward:
    """Opens ``search.w`` and ``search.v``."""
    return Reward(
        w=config.search.w,
        v=config.search.v,
        seconds=backbone["seconds"],
        parameters=backbone["parameters"],
    )
