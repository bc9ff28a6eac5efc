"""Locates the study of a search and checks its storage before anything slow is imported."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from efficientnetv2.runtime.atomic_write import draft_of
from efficientnetv2.runtime.preflight import require_server
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.config import Config
from hparams.errors import UserError
from hparams.keys import KEYS
from hparams.resolve import flat, load_config, save_config

# Keys that may differ between the processes and restarts of one search.
_FREE_KEYS = ("runtime.", "data.data_dir", "data.service", "data.cache_mib", "eval.batch_size")
_FREE_SEARCH_KEYS = (
    *("trials", "sampler", "seed", "storage", "study_name", "keep_weights"),
    *("prune", "prune_trials", "prune_epochs"),
)
_PORTS = {"postgresql": 5432, "mysql": 3306}
CONFIG_FILE = "search.yaml"


def storage_url(config: Config, folder: pathlib.Path) -> str:
    """Returns the URL of the storage that holds the study."""
    return config.search.storage or f"sqlite:///{(folder / 'search.db').absolute()}"


def redacted_url(config: Config, folder: pathlib.Path) -> str:
    """Returns ``storage_url`` without its password, for messages."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1@", storage_url(config, folder))


def require_startable(config: Config, folder: pathlib.Path) -> None:
    """Creates the run directory and makes all checks that need neither Optuna nor a driver.

    Raises:
      UserError: if the run directory or the storage cannot be used, or the directory holds a search
        with another config.
    """
    if config.search.storage is not None:
        _require_storage(config.search.storage, shown=redacted_url(config, folder))
    RunDirectory(folder).create()
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to '{folder}': Permission denied")
    config_file = folder / CONFIG_FILE
    if not config_file.exists():
        if (folder / "trials").exists():
            raise UserError(f"'{folder}' has trials of another search; give another --model_dir")
        return
    before = load_config(config_file)
    if any(before.search[key] != config.search[key] for key in ("storage", "study_name")):
        raise UserError(
            f"'{folder}' has the trials of the study '{before.search.study_name}' in "
            f"'{redacted_url(before, folder)}'; give that study, or another --model_dir"
        )
    if before.search.storage is None and not (folder / "search.db").exists():
        raise UserError(f"'{folder}' has lost its search.db; give another --model_dir")
    if (folder / "trials").exists():
        require_same(config, fixed_values(before), folder=folder)


def _require_storage(url: str, *, shown: str) -> None:
    match = re.fullmatch(r"(\w+)(?:\+\w+)?://(?:[^@/]*@)?([^:/?]+)(?::(\d+))?(?:[/?].*)?", url)
    if match and match[1] in _PORTS:
        require_server("search.storage", f"{match[2]}:{match[3] or _PORTS[match[1]]}")
    is_file = url.startswith(("sqlite:///", "journal:"))
    path = pathlib.Path(url.partition(":")[2].removeprefix("//").removeprefix("/"))
    if url.startswith("journal:"):
        path = journal_path(url)
    if is_file and url != "sqlite:///" and not path.parent.is_dir():
        raise UserError(f"search.storage '{shown}': there is no folder '{path.parent}'")


def journal_path(url: str) -> pathlib.Path:
    """Returns the file of ``journal:FILE`` or ``journal://FILE``."""
    return pathlib.Path(url.removeprefix("journal:").removeprefix("//"))


def save_search_config(config: Config, folder: pathlib.Path) -> None:
    """Writes the config of a search, for people to read and ``require_startable`` to check."""
    with draft_of(folder / CONFIG_FILE) as draft:
        save_config(config, draft)


def fixed_values(config: Config) -> dict[str, Any]:
    """Returns the config values that must be the same for all trials of a study."""
    free = tuple(f"search.{key}" for key in _FREE_SEARCH_KEYS)
    return {
        key: value
        for key, value in flat(config).items()
        if not key.startswith(_FREE_KEYS) and key not in free
    }


def require_same(config: Config, saved: Mapping[str, Any], *, folder: pathlib.Path) -> None:
    """Checks that a study was made with this config.

    Args:
      config: of the search.
      saved: ``fixed_values`` that the study was made with.
      folder: the run directory.

    Raises:
      UserError: if values differ; the message lists them.
    """
    now = fixed_values(config)
    # A study of an earlier version has no value of a key that is new; it ran with the default.
    before = {**{key: KEYS[key].default for key in now}, **saved}
    changed = [f"{key} {before[key]} -> {now[key]}" for key in now if before[key] != now[key]]
    if changed:
        raise UserError(
            f"the study '{config.search.study_name}' in '{redacted_url(config, folder)}' was made "
            f"with another configuration ({', '.join(changed)}); give the same, or another "
            "--model_dir"
        )
