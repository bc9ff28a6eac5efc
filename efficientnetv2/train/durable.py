"""Text and paths in; files out that are the old ones or the new ones after a kill at any moment."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from hparams.errors import UserError


class WriteError(UserError):
    """A file that cannot be written, as on a full disk; the message is one line."""


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Within the context, an error of the operating system becomes a ``WriteError``.

    Args:
      path: what is written, for the message.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from None


def cannot_write(path: str | pathlib.Path, reason: str) -> WriteError:
    """Returns the error of a file or checkpoint that cannot be written."""
    return WriteError(
        f"cannot write '{path}': {reason}; what was saved before is whole, and the same command "
        "goes on from there"
    )


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file, UTF-8, in place of the one that may be there.

    Raises:
      WriteError: if it cannot be written; the old file stays.
    """
    draft = path.with_name(f"{path.name}.tmp")
    with writing(path):
        try:
            draft.write_text(text, encoding="utf-8")
            replace(draft, path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def replace(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a finished file to its place, on the disk before it gets its name."""
    sync(draft)
    draft.replace(path)


def append_line(path: pathlib.Path, line: str) -> None:
    """Adds a line to a text file; it is on the disk when this returns.

    Raises:
      WriteError: if it cannot be written; half a line may then stand at the end.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def sync(path: pathlib.Path) -> None:
    """Waits until a file (or the names in a folder) are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
