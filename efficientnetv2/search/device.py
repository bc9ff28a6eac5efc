"""The devices of this process in; the right to train on them, or alone to time on them, out.

Trainings share the devices; a timing has them for itself. The locks are the operating system's, on
files of this user in the temporary folder, so that they hold between searches that know nothing of
each other, and end with their process. TensorFlow is not needed to know the devices.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import TextIO

_NVIDIA = pathlib.Path("/proc/driver/nvidia/gpus")
_PROCESSOR = pathlib.Path("/proc/cpuinfo")


def devices() -> list[str]:
    """Returns the names of what is trained on: GPUs that CUDA may see, or else the processor."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = sorted(path.name for path in _NVIDIA.iterdir()) if _NVIDIA.is_dir() else []
    if not gpus or visible in ("", "-1"):
        return ["cpu"]
    if visible is None:
        return [f"gpu{number}" for number in range(len(gpus))]
    return sorted({f"gpu{re.sub('[^A-Za-z0-9]', '-', name)}" for name in visible.split(",")})


def device_name() -> str:
    """Returns what kind of devices these are: times are compared between the same ones only."""
    names = devices()
    if names == ["cpu"]:
        return f"{_field(_PROCESSOR, 'model name')} x {len(os.sched_getaffinity(0))}"
    first = sorted(_NVIDIA.iterdir())[0] / "information"
    return f"{_field(first, 'Model')} x {len(names)}"


def _field(path: pathlib.Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(rf"^{name}\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else "unknown processor"


class DeviceLock:
    """Who may use the devices.

    A second lock, the gate, is passed by all who want in. A timing holds it while it waits for the
    trainings, so that no new one overtakes it; these let it in between their epochs.

    Args:
      folder: of the lock files; None: the temporary folder.
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        folder = folder or pathlib.Path(tempfile.gettempdir())
        self._paths = [
            folder / f"efficientnetv2-{os.getuid()}-{device}.lock" for device in devices()
        ]
        self._held: list[TextIO] = []

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Within the context, nobody times on these devices."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def let_in(self) -> None:
        """Between two epochs of ``training``: waits while somebody times who has asked for it."""
        self._leave()
        self._enter()

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Within the context, nobody else trains or times on these devices."""
        with self._gates(), contextlib.ExitStack() as stack:
            for path in self._paths:
                stack.enter_context(_locked(path, fcntl.LOCK_EX))
            yield

    @contextlib.contextmanager
    def _gates(self) -> Iterator[None]:
        # All of them before any device, or two processes could wait for each other.
        with contextlib.ExitStack() as stack:
            for path in self._paths:
                stack.enter_context(_locked(path.with_suffix(".gate"), fcntl.LOCK_EX))
            yield

    def _enter(self) -> None:
        with self._gates():
            for path in self._paths:
                self._held.append(_open(path))
                fcntl.flock(self._held[-1], fcntl.LOCK_SH)

    def _leave(self) -> None:
        while self._held:
            self._held.pop().close()


def _open(path: pathlib.Path) -> TextIO:
    return path.open("a", encoding="utf-8")  # never removed: others may wait for it


@contextlib.contextmanager
def _locked(path: pathlib.Path, kind: int) -> Iterator[None]:
    with _open(path) as file:
        fcntl.flock(file, kind)
        yield
