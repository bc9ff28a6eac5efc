"""Fixtures that simulate a kill at a chosen access and a full disk, and wait with a limit."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import pathlib
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator

import pytest

from tests.package_folder import install_apart

MEDIAPIPE, SERVING = "mediapipe==1.2.3", "tensorflow-serving-api==2.20.0"
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


@pytest.fixture(scope="session")
def mediapipe(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the package mediapipe, for ``package_folder.run_apart``."""
    for library in ("EGL", "GLESv2"):
        if ctypes.util.find_library(library) is None:
            message = f"MediaPipe needs lib{library}: apt-get install libegl1 libgles2"
            pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    return install_apart(tmp_path_factory.mktemp("mediapipe"), MEDIAPIPE)


@pytest.fixture(scope="session")
def serving_apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[types.ModuleType]:
    """The package ``tensorflow_serving.apis``, with TensorFlow Serving's messages."""
    folder = install_apart(tmp_path_factory.mktemp("serving"), SERVING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        from tensorflow_serving import apis
        from tensorflow_serving.apis import (  # noqa: F401
            predict_pb2,
            prediction_log_pb2,
            prediction_service_pb2_grpc,
        )

        yield apis
