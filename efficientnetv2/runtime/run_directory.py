"""Reads and writes the run directory, which training fills and every other command reads.

This module imports no TensorFlow, so that a wrong ``--model_dir`` is reported at once.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.runtime.atomic_write import append_line, draft_of, replace_text
from hparams.config import Config
from hparams.errors import UserError
from hparams.keys import DATA_SET_KEYS
from hparams.overrides import Overrides
from hparams.resolve import flat, load_config, save_config

# Keys, or beginnings of keys, that may change when a training run is resumed.
_RESUMABLE_KEYS = (
    "runtime.",
    "search.",
    "eval.",
    "train.profile",
    "data.data_dir",
    "data.service",
    "data.cache_mib",
)


class RunError(UserError):
    """A run directory cannot be used; the message is one line."""


class RunDirectory:
    """The paths and file formats of everything in one ``--model_dir``.

    Args:
      path: the directory; it need not exist yet.

    Raises:
      RunError: if ``path`` is not a directory.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"'{self.path}' is a file; --model_dir must be a directory")
        self.config_file = self.path / "config.yaml"
        self.labels_file = self.path / "labels.txt"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.tensorboard = self.path / "tensorboard"
        self.curves_file = self.path / "curves.png"
        self.split_file = self.path / "split.csv"
        self.bad_images_file = self.path / "bad_images.txt"
        self.lock_file = self.path / "training.lock"

    def create(self) -> None:
        """Creates the directory.

        Raises:
          RunError: if it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to '{self.path}': {error.strerror or error}") from None

    def start(self, config: Config, class_names: Sequence[str]) -> None:
        """Creates the directory and writes the config and the class names.

        Raises:
          RunError: if the directory cannot be created.
          WriteError: if a file cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to '{self.path}': {error.strerror or error}") from None
        with draft_of(self.config_file) as draft:
            save_config(config, draft)
        replace_text(self.labels_file, "".join(f"{name}\n" for name in class_names))

    def require_same(self, config: Config) -> None:
        """Checks that the directory is new, or holds a training run with the same config.

        Devices, evaluation settings and the location of the data may differ. Everything may differ
        as long as nothing has been trained, for example after a start that failed.

        Raises:
          RunError: if other settings differ; the message lists them.
        """
        if not self.config_file.exists() or not self._has_results():
            return
        before, now = flat(load_config(self.config_file)), flat(config)
        changed = [
            f"{key} {before[key]} -> {now[key]}"
            for key in now
            if before[key] != now[key]
            and not key.startswith(_RESUMABLE_KEYS)
            and not (now[key] is None and key in DATA_SET_KEYS)
        ]
        if changed:
            raise RunError(
                f"'{self.path}' holds a training run with another config ({', '.join(changed)}); "
                "use the same settings, or another --model_dir"
            )

    def _has_results(self) -> bool:
        """Returns whether an earlier training run left records or checkpoints here."""
        folders = (self.checkpoints, self.best)
        return self.metrics_file.exists() or any(
            folder.is_dir() and any(folder.iterdir()) for folder in folders
        )

    def config(self, *overrides: Overrides) -> Config:
        """Reads the config of the training run, and applies overrides as ``resolve`` does.

        Raises:
          RunError: if the directory has no config.yaml.
        """
        if not self.config_file.is_file():
            raise RunError(
                f"'{self.path}' holds no training run (no config.yaml); train first with "
                "--mode=train, or use another --model_dir"
            )
        return load_config(self.config_file, *overrides)

    def class_names(self) -> list[str]:
        """Reads the class names, in the order of their labels.

        Raises:
          RunError: if they cannot be read.
        """
        try:
            return self.labels_file.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text file"
            raise RunError(
                f"cannot read the class names from '{self.labels_file}': {reason}"
            ) from None

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl; it is on the disk when this returns.

        Raises:
          WriteError: if it cannot be written.
        """
        append_line(self.metrics_file, json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """Reads all records of metrics.jsonl.

        Raises:
          RunError: if a line is not a record.
        """
        if not self.metrics_file.exists():
            return []
        # Text after the last line break is a line that a killed process did not finish writing.
        *lines, _ = self.metrics_file.read_bytes().split(b"\n")
        records = [_parse_record(line) for line in lines]
        if None in records:
            raise RunError(
                f"line {records.index(None) + 1} of '{self.metrics_file}' is damaged; correct or "
                "remove it"
            )
        return [record for record in records if record is not None]

    def forget_metrics_after(self, step: int) -> None:
        """Removes the records after a step: these steps were not saved and will be run again.

        Raises:
          RunError: if a line is not a record.
          WriteError: if the rest cannot be written; the file stays as it was.
        """
        if self.metrics_file.exists():
            records = [record for record in self.metrics() if record["step"] <= step]
            text = "".join(json.dumps(record) + "\n" for record in records)
            replace_text(self.metrics_file, text)


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Returns the record in a line of metrics.jsonl, or None if it is not a record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
