"""A file's path in; the right to train in its folder out, for one process at a time.

The lock is the operating system's: it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from efficientnetv2.train.durable import writing
from hparams.errors import UserError

_TRIES, _PAUSE_SECONDS = 5, 0.05  # ``holder`` takes the lock for an instant to look


class LockedError(UserError):
    """Another process trains there; the message is one line that names it."""


@contextlib.contextmanager
def training_lock(path: pathlib.Path) -> Iterator[None]:
    """Within the context, nobody else trains in the file's folder, which is made if missing.

    Args:
      path: of the lock's file; it says who holds the lock, and is removed afterwards.

    Raises:
      LockedError: names the process that trains there.
      WriteError: if the folder or the file cannot be made.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        with contextlib.suppress(OSError):  # of folders that are in use
            for folder in made:
                folder.rmdir()


def holder(path: pathlib.Path) -> str | None:
    """Returns who trains in the file's folder (host, process, since when), or None."""
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _owner(file)
    except OSError:
        pass
    return None


def _acquire(path: pathlib.Path) -> TextIO:
    owner = ""
    for _ in range(_TRIES):
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(file)
            file.close()
            time.sleep(_PAUSE_SECONDS)
            continue
        except OSError as error:
            print(f"warning: '{path}' cannot be locked ({error.strerror})", file=sys.stderr)
        # The one before may have removed the file between our opening and locking it.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            _sign(file)
            return file
        file.close()
    raise LockedError(
        f"'{path.parent}' is being trained by {owner or 'another process'}; wait until it has "
        "ended, or give another --model_dir"
    )


def _sign(file: TextIO) -> None:
    since = datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")
    file.truncate(0)
    file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    file.flush()


def _owner(file: TextIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # not signed yet
        return "another process"
