"""Fixtures that simulate a kill at a chosen access and a full disk, and wait with a limit."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import pytest

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir")


class Killed(BaseException):
    """Stands for the end of the process: ``except Exception`` does not catch it."""


class Killer:
    """Kills, or calls a function, at the n-th access to a path, as reported by audit events."""

    def __init__(self) -> None:
        self._remaining: int | None = None
        self._where = ""
        self._act: Callable[[], None] = self.kill
        sys.addaudithook(self._audit)

    @staticmethod
    def kill() -> None:
        raise Killed

    def _audit(self, event: str, arguments: tuple) -> None:
        if self._remaining is None or event not in _EVENTS or self._where not in str(arguments[0]):
            return
        self._remaining -= 1
        if self._remaining < 0:
            self._remaining = None
            self._act()

    def survives(
        self,
        work: Callable[[], object],
        *,
        touch: int = 0,
        where: str = "",
        act: Callable[[], None] | None = None,
    ) -> bool:
        """Runs ``work`` and returns whether it ran to its end without being killed.

        Args:
          work: the function to run.
          touch: number of the access, from 0, at which it is killed.
          where: text in the path; only accesses to such paths are counted.
          act: called instead of killing.
        """
        self._remaining, self._where, self._act = touch, where, act or self.kill
        try:
            work()
        except Killed:
            return False
        finally:
            self._remaining = None
        return True


_KILLER = Killer()  # one for all tests: an audit hook cannot be removed


@pytest.fixture
def killer() -> Killer:
    return _KILLER


@contextlib.contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def files_no_larger_than() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Returns a context in which writing beyond so many bytes fails, as on a full disk."""
    return _files_no_larger_than


def _wait_until(condition: Callable[[], object], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {seconds} seconds")
        time.sleep(0.01)


@pytest.fixture(autouse=True, scope="module")
def _no_tuned_streams() -> Iterator[None]:
    """Reads streams of tf.data without its tuner, which changes no element.

    When a stream goes, TensorFlow waits for the tuner's thread. Now and then (about one stream in
    sixteen) that misses the request, and sleeps until it tunes again: the longer the stream has
    been there, the longer, up to a minute. A user has few streams, the tests have thousands.
    """
    if "tensorflow" not in sys.modules:  # nor do the tests of this file import it
        yield
        return
    import tensorflow as tf
    from tensorflow.python.data.ops import dataset_ops

    options = tf.data.Options()
    options.autotune.enabled = False

    def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.with_options(options)  # TensorFlow calls it for each iterator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_ops.DatasetV2, "_apply_debug_options", untuned)
        yield


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Returns a function that returns when a condition holds; TimeoutError after two minutes."""
    return _wait_until
