"""Writes files atomically: after a kill at any moment a file is either the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import pathlib
import re
import shutil
import stat
import time
from collections.abc import Iterator

from efficientnetv2.runtime.signals import Stopped
from hparams.errors import UserError

_DRAFT_PREFIX = ".efficientnetv2-"
_DRAFT = re.compile(re.escape(_DRAFT_PREFIX) + r"(\d+)-\d+-")
_TAIL = 32  # characters of a file's name that its draft keeps, the ending among them
_LEFTOVER_SECONDS = 3600
_counter = itertools.count()


class WriteError(UserError):
    """A file cannot be written, for example because the disk is full; the message is one line."""


@contextlib.contextmanager
def write_error_for(path: pathlib.Path) -> Iterator[None]:
    """Turns an ``OSError`` raised inside the context into a ``WriteError``.

    Args:
      path: the file or folder that is being written, for the message.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from None


def cannot_write(path: str | pathlib.Path, reason: str) -> WriteError:
    """Returns the error to raise for a file or checkpoint that cannot be written."""
    return WriteError(f"cannot write '{path}': {reason}")


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Adds to a ``WriteError`` that the command can be given again; for modes that resume."""
    try:
        yield
    except WriteError as error:
        raise WriteError(
            f"{error}; everything saved before is intact, and the same command goes on from there"
        ) from None


def replace_text(path: pathlib.Path, text: str) -> None:
    """Atomically writes a text file in UTF-8, replacing an existing one.

    Raises:
      WriteError: if it cannot be written; an existing file stays as it was.
    """
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: pathlib.Path, content: bytes) -> None:
    """Atomically writes a file, replacing an existing one.

    Raises:
      WriteError: if it cannot be written; an existing file stays as it was.
    """
    with draft_of(path) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def draft_of(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which takes the place of ``path`` when the context ends.

    Several processes and threads may write the same file at the same time: each has a draft of its
    own, and the last to finish wins. If the context raises, the draft is removed and an existing
    file stays as it was.

    Args:
      path: of the file or folder. The draft lies beside it, ends as it does, and has a short name,
        so that whatever name the file system takes for the file is possible for the draft.

    Raises:
      WriteError: for an ``OSError`` inside the context, or if the draft cannot take its place.
    """
    draft = _new_draft(path)
    with write_error_for(path):
        try:
            yield draft
            _take_place(draft, path)
        except (Exception, KeyboardInterrupt, Stopped):
            _remove(draft)
            raise


@contextlib.contextmanager
def draft_folder_of(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder in which to write a file, and those that belong to it.

    When the context ends, they all move to where ``path`` lies: those that belong to it first, then
    the file ``path.name`` itself. If the context raises, nothing moves.

    Raises:
      WriteError: for an ``OSError`` inside the context, or if a file cannot be moved.
    """
    folder = _new_draft(path)
    with write_error_for(path):
        try:
            folder.mkdir()
            yield folder
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                sync(file)
                file.replace(path.with_name(file.name))
        finally:
            _remove(folder)


def copy_as_next_version(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies a folder to ``folder/N``, where N is 1 more than the largest number of a folder there.

    Whoever watches ``folder`` sees the whole copy or none: until it is complete, it has a name that
    is no number. Several processes may do this at the same time: each gets a number of its own.

    Returns:
      ``folder/N``.

    Raises:
      WriteError: if it cannot be written; then there is no new number.
    """
    with write_error_for(folder):
        folder.mkdir(parents=True, exist_ok=True)
        draft = _new_draft(folder / "version")
        try:
            shutil.copytree(source, draft)
            for file in sorted(draft.rglob("*")):
                sync(file)
            numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
            version = folder / str(max(numbers, default=0) + 1)
            while not _renamed(draft, version):  # another process has taken the number meanwhile
                version = folder / str(int(version.name) + 1)
        except (OSError, KeyboardInterrupt, Stopped):
            _remove(draft)
            raise
        return version


def _renamed(draft: pathlib.Path, version: pathlib.Path) -> bool:
    """Renames a folder, unless there is a file, or a folder with files, of the new name."""
    try:
        draft.rename(version)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    sync(version.parent)
    return True


def _new_draft(path: pathlib.Path) -> pathlib.Path:
    _remove_leftovers(path.parent)
    tail = path.name[-_TAIL:]
    return path.with_name(f"{_DRAFT_PREFIX}{os.getpid()}-{next(_counter)}-{tail}")


def require_writable_file(path: pathlib.Path) -> None:
    """Checks, before long work, that a file can be written; it is not changed.

    Raises:
      WriteError: if it cannot: it is a folder, its name is too long, or its folder is missing or
        does not take files.
    """
    with write_error_for(path):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):  # raises, too, if the name is too long
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
        probe = _new_draft(path)
        probe.touch()
        probe.unlink()


def _take_place(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished draft, after its content has reached the disk."""
    for file in sorted(draft.rglob("*")) if draft.is_dir() else [draft]:
        sync(file)
    old = draft.with_name(f"{draft.name}.old")
    while True:
        # A folder cannot be replaced in one step as a file can: the old one is moved away first.
        if draft.is_dir() and path.is_dir():
            with contextlib.suppress(FileNotFoundError):  # another process has just moved it away
                path.rename(old)
        try:
            draft.replace(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # another process has just put its folder there
                raise
        else:
            break
        finally:
            _remove(old)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes drafts of killed processes from a folder, once in the life of this process."""
    oldest = time.time() - _LEFTOVER_SECONDS
    with contextlib.suppress(OSError):
        for draft, process in _drafts(folder):
            # A process of another machine, which cannot be asked for, may be writing a younger one.
            if not _is_running(process) and draft.stat().st_mtime < oldest:
                _remove(draft)


def remove_all_drafts(folder: pathlib.Path) -> None:
    """Removes every draft in a folder (it may be missing) in which only the caller writes."""
    with contextlib.suppress(OSError):
        for draft, _ in _drafts(folder):
            _remove(draft)


def _drafts(folder: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """Returns the drafts in a folder, each with the number of the process that made it."""
    matches = ((path, _DRAFT.match(path.name)) for path in folder.iterdir())
    return [(path, int(match[1])) for path, match in matches if match]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a text file; it is on the disk when this returns.

    Raises:
      WriteError: if it cannot be written; the file may then end with part of the line.
    """
    with write_error_for(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def sync(path: pathlib.Path) -> None:
    """Waits until a file's content (or the file names in a folder) are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
