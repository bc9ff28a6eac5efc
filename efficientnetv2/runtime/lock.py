"""Locks a run directory, so that only one process trains in it at a time.

The operating system holds the lock and releases it when the process ends, however it ends.
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
from typing import IO, Any, TextIO

from efficientnetv2.runtime.atomic_write import write_error_for
from hparams.errors import UserError

_TRIES, _PAUSE_SECONDS = 5, 0.05  # ``lock_holder`` takes the lock for an instant to check it


class LockedError(UserError):
    """Another process is training in the directory; the message is one line that names it."""


@contextlib.contextmanager
def training_lock(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock on a folder within the context; the folder is created if missing.

    Args:
      path: of the lock file in that folder; it says who holds the lock, and is removed afterwards.
        Folders that were created and are still empty are removed, too.

    Raises:
      LockedError: if another process holds the lock.
      WriteError: if the folder or the file cannot be created.
    """
    new_folders = [folder for folder in path.parents if not folder.exists()]
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for folder in new_folders:
                folder.rmdir()


@contextlib.contextmanager
def exclusive_lock(path: pathlib.Path, *, is_required: bool = True) -> Iterator[None]:
    """Waits for the lock on a file, which is created if missing, and holds it within the context.

    Args:
      path: of the file.
      is_required: whether a file system without locks is an error; otherwise a warning says so, and
        nothing is waited for.

    Raises:
      WriteError: if the file cannot be created or, where that is required, locked.
    """
    with write_error_for(path):
        file = path.open("a", encoding="utf-8")
    with file:
        if is_required:
            with write_error_for(path):
                fcntl.flock(file, fcntl.LOCK_EX)
        else:
            lock_or_warn(file, fcntl.LOCK_EX)
        yield


def lock_or_warn(file: IO[Any], kind: int) -> None:
    """Locks a file; warns if the file system has no locks, as some that machines share.

    Args:
      file: open.
      kind: as of ``fcntl.flock``.

    Raises:
      BlockingIOError: with ``LOCK_NB``, if another process holds the lock.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        print(f"warning: '{file.name}' cannot be locked ({error.strerror})", file=sys.stderr)


def lock_holder(path: pathlib.Path) -> str | None:
    """Returns a description of the process that holds the lock, or None if nobody does."""
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_owner(file)
    except OSError:
        pass
    return None


def _acquire(path: pathlib.Path) -> TextIO:
    owner = ""
    for _ in range(_TRIES):
        file = path.open("a+", encoding="utf-8")
        try:
            lock_or_warn(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_owner(file)
            file.close()
            time.sleep(_PAUSE_SECONDS)
            continue
        # The previous holder may have removed the file after we opened it and before we locked it.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            _write_owner(file)
            return file
        file.close()
    raise LockedError(
        f"'{path.parent}' is being trained by {owner or 'another process'}; wait until it has "
        "finished, or use another --model_dir"
    )


def _write_owner(file: TextIO) -> None:
    since = datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")
    file.truncate(0)
    file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    file.flush()


def _read_owner(file: TextIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # locked, but the owner is not written yet
        return "another process"
