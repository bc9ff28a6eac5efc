"""Keeps the predictions of a command that is not finished, so that the same command goes on."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from efficientnetv2.reporting.prediction_files import Row
from efficientnetv2.runtime.atomic_write import write_error_for
from hparams.errors import UserError


class PredictionJournal:
    """A file to which each prediction is added as soon as it is made.

    It has a line of JSON for the settings, then one for each image. It is locked until ``close`` or
    ``remove``.

    Args:
      path: of the file; missing folders are created.
      settings: everything that a prediction depends on, besides the image file. A journal of other
        settings is begun anew.

    Attributes:
      rows: image -> its prediction; at first those of an earlier command with the same settings.
      features: image -> its features, float32 ``[F]``; empty if there are none.

    Raises:
      UserError: if another process is writing the file.
      WriteError: if it cannot be written.
    """

    def __init__(self, path: pathlib.Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self.features: dict[str, np.ndarray] = {}
        with write_error_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(
                f"another process is predicting into '{path}'; wait for it, or give another file"
            ) from None
        self._reopen(json.dumps(settings, sort_keys=True))

    def _reopen(self, settings: str) -> None:
        """Reads the file, and cuts off what is damaged or belongs to other settings."""
        with write_error_for(self.path):
            self._file.seek(0)
            # Text after the last line break is a line that a killed process did not finish.
            header, *lines = self._file.read().split(b"\n")[:-1] or [b""]
            if header != settings.encode():
                header, lines = settings.encode(), []
            length = len(header) + 1
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                for line in lines:
                    self._read(json.loads(line))
                    length += len(line) + 1
            if lines:
                self._file.truncate(length)
            else:
                self._file.truncate(0)
                self._file.write(header + b"\n")
                self._file.flush()

    def _read(self, record: Mapping[str, Any]) -> None:
        image = record["image"]
        row = (image, [(str(name), float(probability)) for name, probability in record["classes"]])
        if "features" in record:
            values = np.frombuffer(base64.b64decode(record["features"]), np.float32)
            self.features[image] = values
        if record["file"] == _stamp(image):  # the image may have been replaced since
            self.rows[image] = row

    def add(self, row: Row, features: np.ndarray | None) -> None:
        """Adds a prediction; it is in the file when this returns.

        Args:
          row: the image and its classes.
          features: float32 ``[F]``; None: not requested.

        Raises:
          WriteError: if it cannot be written; those before it are kept.
        """
        image, classes = row
        record: dict[str, Any] = {"image": image, "file": _stamp(image), "classes": classes}
        if features is not None:
            self.features[image] = features
            record["features"] = base64.b64encode(features.astype(np.float32).tobytes()).decode()
        self.rows[image] = row
        with write_error_for(self.path):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file and keeps it."""
        with contextlib.suppress(OSError):  # what a full disk did not take is lost in any case
            self._file.close()

    def remove(self) -> None:
        """Removes the file: its predictions have been written to where they belong."""
        self.path.unlink(missing_ok=True)
        self.close()


def weights_checksum(weights: Iterable[np.ndarray]) -> str:
    """Returns what changes if a network gets other weights."""
    digest = hashlib.blake2b(digest_size=16)
    for values in weights:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _stamp(image: str) -> list[int]:
    """Returns what changes if a file is replaced by another: its size and time."""
    try:
        status = pathlib.Path(os.fsdecode(image.encode("utf-8"))).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
