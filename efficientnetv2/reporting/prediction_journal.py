"""Keeps the predictions of a command that is not finished, so that the same command goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from efficientnetv2.data.sources.image_list import ImageList
from efficientnetv2.reporting.prediction_files import SHOWN, row_format, write_features
from efficientnetv2.reporting.row_layout import Row, RowLayout
from efficientnetv2.runtime.atomic_write import draft_of, sync, write_error_for
from efficientnetv2.runtime.lock import lock_or_warn
from hparams.errors import UserError

_LONGEST_NAME = 200  # of the file that is to be written, in the names of the journal's files


@dataclasses.dataclass
class PredictionTally:
    """What is known of the predictions so far; it grows with the unreadable images alone.

    Attributes:
      images: number of images of the list that are done.
      predictions: number of those that could be read.
      rows: the predictions for the first of them, at most ``SHOWN``.
      unreadable: the others: place in the list, from 0, and what is wrong.
    """

    images: int = 0
    predictions: int = 0
    rows: list[Row] = dataclasses.field(default_factory=list)
    unreadable: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def add(self, part: Sequence[Row | str]) -> None:
        """Adds the next images: each its row, or why it cannot be read."""
        for result in part:
            if isinstance(result, str):
                self.unreadable.append((self.images, result))
            else:
                self.predictions += 1
                if len(self.rows) < SHOWN:
                    self.rows.append(result)
            self.images += 1


class PredictionJournal:
    """The predictions of a list of images, on the disk part by part while they are made.

    Beside the file to be written lie, until it is finished, ``.NAME.partial``, its text so far;
    ``.NAME.features``, float32 numbers; and ``.NAME.state``: a line of JSON for the settings, then
    one for each part, with which the part counts. The state is locked until ``close`` or
    ``finish``.

    A part is used again if its images come at the same place of the list, and their files are the
    same; what comes behind the first part that is not is made anew.

    Args:
      file: to be written; missing folders are created.
      images: to be predicted.
      settings: everything that a prediction depends on, besides the image file. A journal of other
        settings is begun anew.
      layout: of the rows.

    Attributes:
      path: of the text.
      tally: of the predictions; at first those of an earlier command with the same settings.

    Raises:
      UserError: if another process is writing the file.
      WriteError: if it cannot be written.
    """

    def __init__(
        self,
        file: pathlib.Path,
        images: ImageList,
        settings: Mapping[str, Any],
        *,
        layout: RowLayout,
    ) -> None:
        name = file.name[:_LONGEST_NAME]
        self.path = file.with_name(f".{name}.partial")
        self.tally = PredictionTally()
        self._images, self._layout, self._format = images, layout, row_format(file)
        self._opened: list[IO[bytes]] = []
        self._state = self._open(file.with_name(f".{name}.state"))
        self._lock()
        self._text = self._open(self.path)
        self._features = self._open(file.with_name(f".{name}.features"))
        with write_error_for(self.path):
            self._reopen(json.dumps({**settings, "format": file.suffix}, sort_keys=True).encode())

    def _open(self, path: pathlib.Path) -> IO[bytes]:
        with write_error_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._opened.append(path.open("a+b"))
        return self._opened[-1]

    def _lock(self) -> None:
        path = pathlib.Path(self._state.name)
        is_held = False
        try:
            lock_or_warn(self._state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_held = True
        # The process that held it may have removed the file after it was opened here.
        is_there = path.exists() and os.path.samestat(os.fstat(self._state.fileno()), path.stat())
        if is_held or not is_there:
            self.close()
            raise UserError(
                f"another process is predicting into '{self.path}'; wait for it, or give another "
                "file"
            ) from None

    def _reopen(self, settings: bytes) -> None:
        """Counts what is there, and cuts off what is damaged or does not belong to it."""
        head = self._format.head(self._layout).encode()
        ends = {self._state: len(settings) + 1, self._text: len(head), self._features: 0}
        for file in ends:
            file.seek(0)
        is_same = self._state.readline() == settings + b"\n" and self._text.read(len(head)) == head
        if is_same:
            # A line without its end is one that a killed process did not finish.
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                for line in self._state:
                    if not line.endswith(b"\n") or not self._take(json.loads(line), ends):
                        break
                    ends[self._state] += len(line)
        else:
            self._state.truncate(0)
            self._state.write(settings + b"\n")
            self._text.truncate(0)
            self._text.write(head)
        for file, end in ends.items():
            file.flush()
            file.truncate(end)
            file.seek(end)

    def _take(self, record: Mapping[str, Any], ends: dict[IO[bytes], int]) -> bool:
        """Counts a part that is there, if it is whole and its images are still the same."""
        tally, count, unreadable = self.tally, record["images"], dict(record["unreadable"])
        if record["files"] != self._stamp(count):
            return False
        for file, kind in ((self._text, "text"), (self._features, "features")):
            size, checksum = record[kind]
            content = file.read(size)
            if len(content) != size or zlib.crc32(content) != checksum:
                return False
        shown = iter(
            [
                Row(image, [(n, p) for n, p in values], said)
                for image, values, said in record["shown"]
            ]
        )
        tally.add([unreadable.get(index) or next(shown, Row("", [])) for index in range(count)])
        for file, kind in ((self._text, "text"), (self._features, "features")):
            ends[file] += record[kind][0]
        return True

    def _stamp(self, count: int) -> str:
        """Returns what changes if one of the next images or its file becomes another."""
        digest = hashlib.blake2b(digest_size=16)
        for index in range(self.tally.images, self.tally.images + count):
            digest.update(
                json.dumps([self._images.name(index), *_times(self._images[index])]).encode()
            )
        return digest.hexdigest()

    def add(self, part: Sequence[Row | str], features: Sequence[np.ndarray] = ()) -> None:
        """Adds the predictions for the next images; they are in the files when this returns.

        Args:
          part: for each image its row, or why it cannot be read.
          features: float32 ``[F]`` of each image that can be read; empty: not requested.

        Raises:
          WriteError: if it cannot be written; the parts before it are kept.
        """
        rows = [row for row in part if not isinstance(row, str)]
        before = self.tally.predictions
        text = "".join(
            self._format.row(self._layout, row, n) for n, row in enumerate(rows, start=before)
        ).encode()
        values = b"".join(np.ascontiguousarray(row, "<f4").tobytes() for row in features)
        record = {
            "images": len(part),
            "files": self._stamp(len(part)),
            "text": [len(text), zlib.crc32(text)],
            "features": [len(values), zlib.crc32(values)],
            "unreadable": [[n, why] for n, why in enumerate(part) if isinstance(why, str)],
            "shown": rows[: max(0, SHOWN - before)],
        }
        for file, content in (
            (self._text, text),
            (self._features, values),
            (self._state, json.dumps(record).encode() + b"\n"),
        ):
            with write_error_for(self.path):
                file.write(content)
                file.flush()
        self.tally.add(part)

    def close(self) -> None:
        """Closes the files and keeps them."""
        for file in self._opened:
            with contextlib.suppress(OSError):  # what a full disk did not take is lost in any case
                file.close()

    def finish(self, output: pathlib.Path | None, features: pathlib.Path | None) -> None:
        """Writes the files that are asked for, each whole or not at all, and removes the journal.

        Args:
          output: file of the predictions, in the folder of ``path``; None: not written.
          features: .npz file; None: not written.

        Raises:
          WriteError: if one cannot be written; the journal is kept.
        """
        if features is not None:
            self._write_features(features)
        if output is not None:
            with write_error_for(output):
                self._text.write(self._format.tail(self.tally.predictions).encode())
                self._text.flush()
            self._write_output(output)
        for file in reversed(self._opened):  # the state last: it is locked
            pathlib.Path(file.name).unlink(missing_ok=True)
        self.close()

    def _write_output(self, output: pathlib.Path) -> None:
        if self._format.convert is not None:
            with draft_of(output) as draft:
                self._format.convert(self.path, draft, self._layout)
            return
        with write_error_for(output):
            sync(self.path)
            self.path.replace(output)

    def _write_features(self, path: pathlib.Path) -> None:
        unreadable = {index for index, _ in self.tally.unreadable}
        values = pathlib.Path(self._features.name)
        count = self.tally.predictions

        def names() -> Iterator[str]:
            return (
                self._images.name(index)
                for index in range(self.tally.images)
                if index not in unreadable
            )

        shape = count, values.stat().st_size // (4 * count)
        write_features(names, values, path, shape=shape)


def weights_checksum(weights: Iterable[np.ndarray]) -> str:
    """Returns what changes if a network gets other weights."""
    digest = hashlib.blake2b(digest_size=16)
    for values in weights:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _times(path: pathlib.Path) -> list[int]:
    """Returns what changes if a file is replaced by another: its size and time."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
