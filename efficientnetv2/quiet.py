"""A noisy piece of work in; the same, heard only when it fails, out. TensorFlow's import is one."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator

from absl import logging


def import_tensorflow() -> None:
    """Imports TensorFlow for all who import it later: quietly, and in four fifths of the time."""
    # TensorFlow greets with notes about its build and, on a machine without a GPU, with errors
    # about the GPU that is not there; TensorFlow Datasets warns of each folder before it fills it.
    has_gpu = pathlib.Path("/proc/driver/nvidia").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_gpu else "3")
    logging.set_verbosity(logging.ERROR)
    if "tensorflow" in sys.modules:  # what a caller's process holds by now may be garbage
        return
    # What an import makes, stays: looking through its million objects for garbage, again and again,
    # is in vain while it runs and ever after.
    collects = gc.isenabled()
    gc.disable()
    try:
        import tensorflow  # noqa: F401
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what native libraries print on stdout and stderr; shows it if the work raises.

    Converters greet with lines about processors and options from C++, which no setting silences.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as said:
        try:
            for descriptor in (1, 2):
                os.dup2(said.fileno(), descriptor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception:
            said.seek(0)
            os.write(kept[1], said.read())
            raise
        finally:
            for stream in streams:
                stream.flush()
            for before, descriptor in zip(kept, (1, 2)):
                os.dup2(before, descriptor)
                os.close(before)
