"""A configuration in; its Optuna study, opened, and what is written in there, out.

Attributes of a study: ``config``, what must be the same for all its trials; ``backbone``, what the
backbone reached; ``seconds DEVICE``, its step time there. Attributes of a trial: see ``Attribute``.
"""

from __future__ import annotations

import json
import pathlib
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
from hparams.errors import UserError
from hparams.resolve import Config, flat

# What may differ between processes and starts of one search.
_FREE_KEYS = ("runtime.", "data.data_dir", "data.service", "data.cache_mib", "eval.batch_size")
_FREE_SEARCH_KEYS = (
    *("trials", "sampler", "seed", "storage", "study_name", "keep_weights"),
    *("prune", "prune_trials", "prune_epochs"),
)


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
    url = storage_url(config, folder)
    try:
        storage = _open_storage(url)
        study = optuna.create_study(
            storage=storage,
            study_name=config.search.study_name,
            sampler=sampler,
            pruner=build_pruner(config),
            direction="maximize",
            load_if_exists=True,
        )
        kept = study.user_attrs.get("config")
        if kept is None:
            study.set_user_attr("config", json.dumps(_fixed(config)))
    except UserError:
        raise
    # What it is depends on the database and its driver; they have no class in common.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"search.storage '{_without_password(url)}': {reason}") from None
    if kept is not None:
        _require_same(config, json.loads(kept), url=url)
    return study


def build_pruner(config: Config) -> BasePruner:
    """Opens ``search.prune``: the median rule on minival accuracy, after each epoch."""
    search = config.search
    if not search.prune:
        return NopPruner()
    return MedianPruner(n_startup_trials=search.prune_trials, n_warmup_steps=search.prune_epochs)


def storage_url(config: Config, folder: pathlib.Path) -> str:
    """Returns where the study is."""
    return config.search.storage or f"sqlite:///{(folder / 'search.db').absolute()}"


def shown_url(config: Config, folder: pathlib.Path) -> str:
    """Returns the same without a password."""
    return _without_password(storage_url(config, folder))


def _open_storage(url: str) -> BaseStorage:
    if url.startswith("journal:"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = pathlib.Path(url.removeprefix("journal:").removeprefix("//"))
        return JournalStorage(JournalFileBackend(str(path)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of drivers
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=options)


def _without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    scheme, colon, rest = before.partition("://")
    return f"{scheme}{colon}{rest.partition(':')[0]}{at}{after}" if at else url


def _fixed(config: Config) -> dict[str, Any]:
    free = tuple(f"search.{key}" for key in _FREE_SEARCH_KEYS)
    return {
        key: value
        for key, value in flat(config).items()
        if not key.startswith(_FREE_KEYS) and key not in free
    }


def _require_same(config: Config, kept: dict[str, Any], *, url: str) -> None:
    now = _fixed(config)
    changed = [f"{key} {kept.get(key)} -> {now[key]}" for key in now if kept.get(key) != now[key]]
    if changed:
        raise UserError(
            f"the study '{config.search.study_name}' in '{_without_password(url)}' was made with "
            f"another configuration ({', '.join(changed)}); give the same, or another "
            "search.study_name or --model_dir"
        )


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
