"""The run directory: what one training writes and what resuming, evaluation and inference read.

Nothing here needs TensorFlow, so that a wrong ``--model_dir`` is answered at once.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.train.durable import append_line, replace, replace_text
from hparams.errors import UserError
from hparams.overrides import Overrides
from hparams.resolve import Config, load_config, save_config

# Keys that may differ between the start and the continuation of one training.
_FREE_KEYS = (
    "runtime.",
    "search.",
    "eval.",
    "train.profile",
    "data.data_dir",
    "data.service",
    "data.cache_mib",
)
# What is not set is found in the data, and compared when they have been opened.
_FOUND_KEYS = ("model.num_classes", "data.train_split", "data.minival_split", "data.eval_split")


class RunError(UserError):
    """A run directory that cannot be used; the message is one line."""


class RunDirectory:
    """Names and formats of everything in one ``--model_dir``.

    Args:
      path: the directory; it need not exist yet.

    Raises:
      RunError: if ``path`` is not a directory.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"'{self.path}' is a file; give a directory")
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
        """Creates the directory and writes the configuration and the names of the classes.

        Raises:
          RunError: if it cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            draft = self.config_file.with_name(f"{self.config_file.name}.tmp")
            save_config(config, draft)
            replace(draft, self.config_file)
        except OSError as error:
            raise RunError(f"cannot write to '{self.path}': {error.strerror or error}") from None
        replace_text(self.labels_file, "".join(f"{name}\n" for name in class_names))

    def require_same(self, config: Config) -> None:
        """Checks that the directory is new, or holds a training of this configuration.

        Devices, evaluation settings and the place of the data may change; everything may as long
        as nothing has been trained, as after a start that ended with an error.

        Raises:
          RunError: with the differences.
        """
        if not self.config_file.exists() or not self._has_begun():
            return
        before, now = _flat(load_config(self.config_file)), _flat(config)
        changed = [
            f"{key} {before[key]} -> {now[key]}"
            for key in now
            if before[key] != now[key]
            and not key.startswith(_FREE_KEYS)
            and not (now[key] is None and key in _FOUND_KEYS)
        ]
        if changed:
            raise RunError(
                f"'{self.path}' holds a training of another configuration ({', '.join(changed)}); "
                "give the same, or another --model_dir"
            )

    def _has_begun(self) -> bool:
        """Whether a training left anything here that another one would lose or go on with."""
        folders = (self.checkpoints, self.best)
        return self.metrics_file.exists() or any(
            folder.is_dir() and any(folder.iterdir()) for folder in folders
        )

    def config(self, *overrides: Overrides) -> Config:
        """Reads the configuration of a training, with overrides as in ``resolve``.

        Raises:
          RunError: if there is no training here.
        """
        if not self.config_file.is_file():
            raise RunError(
                f"'{self.path}' holds no training (no config.yaml); train first with --mode=train, "
                "or give another --model_dir"
            )
        return load_config(self.config_file, *overrides)

    def class_names(self) -> list[str]:
        """Reads the names of the classes, in the order of their labels.

        Raises:
          RunError: if they cannot be read.
        """
        try:
            return self.labels_file.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise RunError(
                f"cannot read the names of the classes from '{self.labels_file}': {reason}"
            ) from None

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl; it is on the disk when this returns.

        Raises:
          WriteError: if it cannot be written.
        """
        append_line(self.metrics_file, json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """Reads all lines of metrics.jsonl.

        Raises:
          RunError: if one is no record.
        """
        if not self.metrics_file.exists():
            return []
        # What follows the last line break was cut off by the end of the process that wrote it.
        *lines, _ = self.metrics_file.read_bytes().split(b"\n")
        records = [_record(line) for line in lines]
        if None in records:
            raise RunError(
                f"line {records.index(None) + 1} of '{self.metrics_file}' is damaged; mend or "
                "remove it"
            )
        return [record for record in records if record is not None]

    def forget_metrics_after(self, step: int) -> None:
        """Drops lines of steps that will be run again, because they came after the last save.

        Raises:
          WriteError: if the rest cannot be written; the file stays as it was.
        """
        if self.metrics_file.exists():
            kept = [line for line in self.metrics() if line["step"] <= step]
            replace_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))


def _flat(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{key}": config[section][key] for section in config for key in config[section]
    }


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns a line of metrics.jsonl, or None if it is no record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
