"""Imports TensorFlow quickly and quietly, and silences other native code unless it fails."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator

import absl.logging

from efficientnetv2.runtime.keras_version import choose_keras


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, and in four fifths of the usual time.

    Call it before any other module imports TensorFlow.
    """
    # TensorFlow prints notes about its build and, on a machine without a GPU, errors about the
    # missing GPU; TensorFlow Datasets prints a warning for each folder that it is about to fill.
    has_gpu = pathlib.Path("/proc/driver/nvidia").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_gpu else "3")
    absl.logging.set_verbosity(absl.logging.ERROR)
    choose_keras()
    # In a process that already uses TensorFlow, freezing would also keep the garbage made so far.
    if "tensorflow" in sys.modules:
        return
    # Imported objects live until the process ends, so searching these million objects for garbage
    # is wasted time, both during the import and afterwards.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import tensorflow  # noqa: F401
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def hide_retracing_warnings() -> Iterator[None]:
    """Suppresses TensorFlow's warning that functions are traced often.

    Each network traces functions of its own. Where one process has several, such as the folds of a
    cross-validation, and each runs a function on a batch or two, nothing is wrong.
    """
    logger = logging.getLogger("tensorflow")

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@contextlib.contextmanager
def silence_native_output() -> Iterator[None]:
    """Suppresses what native libraries print to stdout and stderr, unless the context raises.

    Converters print lines about processors and options from C++, which no setting turns off.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    originals = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as output:
        try:
            for descriptor in (1, 2):
                os.dup2(output.fileno(), descriptor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception:
            output.seek(0)
            os.write(originals[1], output.read())
            raise
        finally:
            for stream in streams:
                stream.flush()
            for original, descriptor in zip(originals, (1, 2)):
                os.dup2(original, descriptor)
                os.close(original)
