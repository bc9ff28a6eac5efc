"""Reads and writes the run directory, which training fills and every other command reads.

This module imports no TensorFlow, so that a wrong ``--model_dir`` is reported at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.runtime.atomic_write import append_line, draft_of, replace_text
from hparams.config import Config
from hparams.errors import UserError, listed, shortened, shown
from hparams.folds import parse_fold
from hparams.keys import DATA_SET_KEYS, NOT_SET
from hparams.label_kinds import DEFAULT_THRESHOLD, METRICS, TRAINING_METRICS
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
    "data.on_bad_image",  # whose message says what to set it to
)

# Values of a record that curves, early stopping and the choice of the best weights calculate with.
_NUMBERS = (
    *("epoch", "stage", "image_size", "learning_rate", "loss", "seconds"),
    *(f"minival{average}_{name}" for name in METRICS for average in ("", "_ema")),
    *TRAINING_METRICS,
)
_REQUIRED = ("step", "epoch", "image_size")  # without which no curve can be drawn
_LONGEST_VALUE = 60  # characters of a setting in a message


class RunError(UserError):
    """A run directory cannot be used; the message is one line."""


class RunDirectory:
    """The paths and file formats of everything in one ``--model_dir``.

    Args:
      path: the directory; it need not exist yet.

    Raises:
      RunError: if ``path`` is not a directory, or no path that the system takes.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self._shown = shortened(str(self.path), limit=120)
        if "\0" in str(self.path):  # pathlib says only that there is no such path
            raise RunError(f"'{self._shown}' cannot be a --model_dir: it holds a NUL character")
        try:
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"'{self._shown}' cannot be a --model_dir: {reason}") from None
        if is_file:
            raise RunError(f"'{self._shown}' is a file; --model_dir must be a directory")
        self.config_file = self.path / "config.yaml"
        self.labels_file = self.path / "labels.txt"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.tensorboard = self.path / "tensorboard"
        self.curves_file = self.path / "curves.png"
        self.split_file = self.path / "split.csv"
        self.bad_images_file = self.path / "bad_images.txt"
        self.teacher_file = self.path / "teacher.json"
        self.thresholds_file = self.path / "thresholds.csv"
        self.calibration_file = self.path / "calibration.json"
        self.lock_file = self.path / "training.lock"
        self.folds_file = self.path / "folds.yaml"  # of a cross-validation, not of a training

    def result_file(self, eval_name: str | None = None) -> pathlib.Path:
        """Returns the file that the metrics of an evaluation are written to."""
        return self.path / (f"eval_{eval_name}.json" if eval_name else "eval.json")

    def create(self) -> None:
        """Creates the directory.

        Raises:
          RunError: if it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to '{self._shown}': {error.strerror or error}") from None

    def start(self, config: Config, class_names: Sequence[str]) -> None:
        """Creates the directory and writes the config and the class names.

        Raises:
          RunError: if the directory cannot be created.
          WriteError: if a file cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to '{self._shown}': {error.strerror or error}") from None
        self.write_config(config)
        replace_text(self.labels_file, "".join(f"{name}\n" for name in class_names))

    def write_config(self, config: Config) -> None:
        """Replaces config.yaml, atomically.

        Raises:
          WriteError: if it cannot be written; an existing file stays as it was.
        """
        with draft_of(self.config_file) as draft:
            save_config(config, draft)

    def require_same(self, config: Config) -> None:
        """Checks that the directory is new, or holds a training run with the same config.

        Devices, evaluation settings and the location of the data may differ. Everything may differ
        as long as nothing has been trained, for example after a start that failed.

        Raises:
          RunError: if other settings differ (the message lists them), or as ``changes``.
          ConfigError: if config.yaml cannot be read.
        """
        changed = _shown_changes(self.changes(config) or {})
        if changed:
            raise RunError(
                f"'{self._shown}' holds a training run with another config "
                f"({changed}); use the same settings, or another --model_dir"
            )

    def changes(self, config: Config) -> dict[str, tuple[Any, Any]] | None:
        """Returns the settings by which a config differs from that of the run, but may not.

        Returns:
          Key -> (value of the run, value of ``config``); None: nothing has been trained yet.

        Raises:
          RunError: if the config of what was trained is gone, or metrics.jsonl is damaged.
          ConfigError: if config.yaml cannot be read.
        """
        if not self._has_results():
            return None
        if not self.config_file.exists():
            raise self._config_is_gone()
        self._read_metrics(required=_REQUIRED)
        return _changes(load_config(self.config_file), config)

    def folds_config(self) -> Config | None:
        """Reads the config of the cross-validation; None: the directory holds none.

        Raises:
          ConfigError: if folds.yaml cannot be read.
        """
        return load_config(self.folds_file) if self.folds_file.exists() else None

    def require_no_folds(self) -> None:
        """Checks that the directory holds no cross-validation.

        Raises:
          RunError: if it does.
        """
        if self.folds_file.exists():
            raise RunError(
                f"'{self._shown}' holds a cross-validation; give a fold of it, as "
                f"--model_dir={self.path / 'fold1'}, or another --model_dir"
            )

    def require_folds(self, count: int) -> None:
        """Checks that the directory is new, or holds a cross-validation of so many folds.

        Raises:
          RunError: if it holds a training, or another number of folds.
          ConfigError: if folds.yaml cannot be read.
        """
        if self.config_file.exists() or self._has_results():
            raise RunError(
                f"'{self._shown}' holds a single training; leave --folds out, or give another "
                "--model_dir"
            )
        before = self.folds_config()
        if before is None or before.data.fold is None:
            return
        kept = parse_fold(before.data.fold).count
        if kept != count:
            raise RunError(
                f"'{self._shown}' holds a cross-validation of {kept} folds, not {count}; give "
                f"--folds={kept}, or another --model_dir"
            )

    def require_same_folds(self, config: Config) -> None:
        """Checks that the directory is new, or holds a cross-validation with the same config.

        Args:
          config: of the first fold.

        Raises:
          RunError: if it has other settings.
          ConfigError: if folds.yaml cannot be read.
        """
        before = self.folds_config()
        changed = "" if before is None else _shown_changes(_changes(before, config))
        if changed:
            raise RunError(
                f"'{self._shown}' holds a cross-validation with another config "
                f"({changed}); use the same settings, or another --model_dir"
            )

    def write_folds_config(self, config: Config) -> None:
        """Writes folds.yaml, atomically, from when on the directory holds a cross-validation.

        Raises:
          WriteError: if it cannot be written.
        """
        with draft_of(self.folds_file) as draft:
            save_config(config, draft)

    def trained_config(self) -> Config | None:
        """Reads the config of what has been trained; None: nothing has been yet, or it is gone.

        Raises:
          ConfigError: if config.yaml cannot be read.
        """
        if not self._has_results() or not self.config_file.exists():
            return None
        return load_config(self.config_file)

    def _config_is_gone(self) -> RunError:
        return RunError(
            f"'{self._shown}' holds a training, but its config.yaml is missing; restore the file, "
            "or use another --model_dir"
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
          ConfigError: if it cannot be read, or holds a wrong key or value.
        """
        if not self.config_file.exists():
            if self._has_results():
                raise self._config_is_gone()
            self.require_no_folds()
            raise RunError(
                f"'{self._shown}' holds no training run (no config.yaml); train first with "
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

    def require_labels(self, num_classes: int) -> list[str]:
        """Returns the class names, and checks that there is one for each output of the network.

        Raises:
          RunError: if they cannot be read, or there are more or fewer.
        """
        names = self.class_names()
        if len(names) != num_classes:
            raise RunError(
                f"'{self.labels_file}' names {len(names)} classes, but the network has "
                f"{num_classes}"
            )
        return names

    def thresholds(self, class_names: Sequence[str]) -> list[float]:
        """Reads from which probability on an image has a class, where it may have several.

        Args:
          class_names: K names.

        Returns:
          K numbers, 0..1; the default where none have been chosen.

        Raises:
          RunError: if the file is damaged, or of other classes.
        """
        if not self.thresholds_file.exists():
            return [DEFAULT_THRESHOLD] * len(class_names)
        try:
            with self.thresholds_file.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[1:]
            names, values = [row[0] for row in rows], [float(row[1]) for row in rows]
        except (OSError, ValueError, LookupError, csv.Error) as error:
            raise RunError(f"cannot read '{self.thresholds_file}': {error}") from None
        for name, value in zip(names, values):
            if not 0 <= value <= 1:
                raise RunError(
                    f"'{self.thresholds_file}': the threshold of '{name}' must be 0..1, got {value}"
                )
        if names != list(class_names):
            raise RunError(f"'{self.thresholds_file}' is of other classes than the network")
        return values

    def write_thresholds(self, class_names: Sequence[str], thresholds: Sequence[float]) -> None:
        """Writes from which probability on an image has a class: columns ``class``, ``threshold``.

        Raises:
          WriteError: if it cannot be written.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["class", "threshold"])
        writer.writerows([name, repr(value)] for name, value in zip(class_names, thresholds))
        replace_text(self.thresholds_file, text.getvalue())

    def require_teacher(self, origin: str, *, checksum: int, is_new: bool) -> None:
        """Writes down which weights teach a new training; checks that they still do in an old one.

        Args:
          origin: where the weights come from, for people.
          checksum: of the weights.
          is_new: whether nothing has been trained yet.

        Raises:
          RunError: if the training has been taught by others so far, or the file cannot be read.
          WriteError: if it cannot be written.
        """
        if is_new or not self.teacher_file.exists():
            record = {"weights": origin, "checksum": checksum}
            replace_text(self.teacher_file, json.dumps(record) + "\n")
            return
        try:
            before = json.loads(self.teacher_file.read_text(encoding="utf-8"))["checksum"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"cannot read '{self.teacher_file}': {error}") from None
        if before != checksum:
            raise RunError(
                f"the weights of the teacher have changed since '{self._shown}' began; restore "
                "them, or use another --model_dir"
            )

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl; it is on the disk when this returns.

        Raises:
          WriteError: if it cannot be written.
        """
        append_line(self.metrics_file, json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """Reads all records of metrics.jsonl.

        Raises:
          RunError: if the file cannot be read, or a line is not a record; names the line.
        """
        return self._read_metrics(required=("step",))

    def _read_metrics(self, *, required: Sequence[str]) -> list[dict[str, Any]]:
        if not self.metrics_file.exists():
            return []
        file = f"'{shortened(str(self.metrics_file), limit=120)}'"
        try:
            content = self.metrics_file.read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {file}: {error.strerror or error}") from None
        # Text after the last line break is a line that a killed process did not finish writing.
        *lines, _ = content.split(b"\n")
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                after = records[-1]["step"] if records else 0
                records.append(_parse_record(line, after=after, required=required))
            except ValueError as error:
                raise RunError(
                    f"line {number} of {file} is damaged: {error}; correct or remove it"
                ) from None
        return records

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


def _changes(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, but may not: key -> (value before, value now)."""
    old, new = flat(before), flat(now)
    return {
        key: (old[key], new[key])
        for key in new
        if old[key] != new[key]
        and not key.startswith(_RESUMABLE_KEYS)
        and not (new[key] in NOT_SET and key in DATA_SET_KEYS)
    }


def _shown_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    texts = [f"{key} {_value(before)} -> {_value(now)}" for key, (before, now) in changes.items()]
    return listed(texts, limit=220) if texts else ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < _LONGEST_VALUE else shown(value)


def _parse_record(line: bytes, *, after: int, required: Sequence[str]) -> dict[str, Any]:
    """Returns the record in a line of metrics.jsonl.

    Args:
      line: without its line break.
      after: step of the record before it.
      required: names that it must have.

    Raises:
      ValueError: if it is not a record that training writes; the message says why.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("it is not an object with names and values")
    missing = [name for name in required if name not in record]
    if missing:
        raise ValueError(f"it has no '{missing[0]}'")
    step = record["step"]
    if type(step) is not int or step <= after:
        raise ValueError(f"'step' must be a whole number above {after}, got {shown(step)}")
    for name, value in record.items():
        if name in _NUMBERS and not (type(value) in (int, float) and math.isfinite(value)):
            raise ValueError(f"'{name}' must be a number, got {shown(value)}")
    return record
