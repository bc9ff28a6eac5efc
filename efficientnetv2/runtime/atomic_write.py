"""Writes files atomically: after a kill at any moment a file is either the old or the new one."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from hparams.errors import UserError


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
    return WriteError(
        f"cannot write '{path}': {reason}; everything saved before is intact, and the same command "
        "goes on from there"
    )


def replace_text(path: pathlib.Path, text: str) -> None:
    """Atomically writes a text file in UTF-8, replacing an existing one.

    Raises:
      WriteError: if it cannot be written; an existing file stays as it was.
    """
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: pathlib.Path, content: bytes, *, is_shared: bool = False) -> None:
    """Atomically writes a file, replacing an existing one.

    Args:
      path: of the file.
      content: of the file.
      is_shared: whether other processes may write the same file at the same time; the last one
        wins.

    Raises:
      WriteError: if it cannot be written; an existing file stays as it was.
    """
    owner = f".{os.getpid()}" if is_shared else ""
    draft = path.with_name(f"{path.name}{owner}.tmp")
    with write_error_for(path):
        try:
            draft.write_bytes(content)
            replace(draft, path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def replace(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished draft to its final path, after its content has reached the disk."""
    sync(draft)
    draft.replace(path)


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
