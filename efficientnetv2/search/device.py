"""Locks the devices of this machine, so that no training disturbs the timing of a step.

Trainings share the devices; a timing has them to itself. The locks are file locks of the operating
system in the folder of downloads, one set a user, so that they also work between searches that
know nothing of each other, and end with their process.
"""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import platform
from collections.abc import Iterator
from typing import TextIO

from efficientnetv2.checkpoints.download import cache_folder
from efficientnetv2.runtime.atomic_write import write_error_for
from efficientnetv2.runtime.environment import devices
from efficientnetv2.runtime.lock import lock_or_warn


class DeviceLock:
    """Lets several trainings use the devices together, or one timing alone.

    Everyone takes a second lock, the gate, before a device. A timing holds the gate while it waits
    for the trainings, so that no new training overtakes it; the trainings let it in between epochs.

    Args:
      folder: folder of the lock files; None: the user's own folder, in which nobody else can put
        files of these names.
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        folder = folder or cache_folder() / "locks"
        with write_error_for(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Several machines may share the folder.
        self._paths = [folder / f"{platform.node()}-{device}.lock" for device in devices()]
        self._held: list[TextIO] = []

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Shares the devices with other trainings; nobody times on them within the context."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def yield_to_timing(self) -> None:
        """Lets waiting timings run first; to be called between two epochs of ``training``."""
        self._leave()
        self._enter()

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Takes the devices alone: nobody else trains or times on them within the context."""
        with self._gates(), contextlib.ExitStack() as stack:
            for path in self._paths:
                stack.enter_context(_locked(path, fcntl.LOCK_EX))
            yield

    @contextlib.contextmanager
    def _gates(self) -> Iterator[None]:
        # All gates before any device, or two processes could wait for each other forever.
        with contextlib.ExitStack() as stack:
            for path in self._paths:
                stack.enter_context(_locked(path.with_suffix(".gate"), fcntl.LOCK_EX))
            yield

    def _enter(self) -> None:
        with self._gates():
            for path in self._paths:
                self._held.append(_open(path))
                lock_or_warn(self._held[-1], fcntl.LOCK_SH)

    def _leave(self) -> None:
        while self._held:
            self._held.pop().close()


def _open(path: pathlib.Path) -> TextIO:
    return path.open("a", encoding="utf-8")  # never removed: others may wait for it


@contextlib.contextmanager
def _locked(path: pathlib.Path, kind: int) -> Iterator[None]:
    with _open(path) as file:
        lock_or_warn(file, kind)
        yield
