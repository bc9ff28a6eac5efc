"""Runs one trial inside its own process and reports to the search over a connection.

A trial has a process of its own, so that the search goes on when it crashes or runs out of memory,
and so that every trial starts with fresh memory and a fresh TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

from absl import logging

from efficientnetv2.runtime.atomic_write import WriteError, replace_text
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search.device import DeviceLock
from efficientnetv2.search.messages import (
    TIMING_FILE,
    EpochReport,
    TrialFailure,
    TrialJob,
    TrialResult,
    TrialStopped,
)
from efficientnetv2.search.step_timer import StepTime
from hparams.errors import UserError, tensorflow_message

_MAX_ERROR_CHARACTERS = 400


def run_process(job: TrialJob, connection: Connection) -> None:
    """Runs a trial and sends how it ends; the target function of its process."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C in a terminal goes to the search, which passes it on
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    stop = StopRequest()
    try:
        with stop.listening():
            message = _run(job, connection, stop)
    except Stopped:
        message = TrialStopped()
    with contextlib.suppress(OSError):  # the search is gone
        connection.send(message)


def _stop_with_parent() -> None:
    """Stops this process, with its state saved, when the search ends for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _run(job: TrialJob, connection: Connection, stop: StopRequest) -> Any:
    logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets repeats its warnings in each process
    lock = DeviceLock(job.lock_folder)

    def should_prune(epoch: EpochReport) -> bool:
        connection.send(epoch)
        reply = bool(connection.recv())
        lock.yield_to_timing()
        return reply

    try:
        with lock.training():  # importing keeps the CPU busy, which would disturb a timing
            from efficientnetv2.search.train_trial import train_trial

        timing = _time(job, lock, stop) if job.timed_steps else _UNTIMED
        with lock.training():
            training = train_trial(
                job, seconds=timing["seconds"], should_prune=should_prune, stop=stop
            )
        return TrialResult(**dataclasses.asdict(training), **timing)
    except WriteError as error:
        return TrialFailure(str(error), is_fatal=True)
    except EOFError:  # the search is gone
        return TrialStopped()
    except UserError as error:
        return TrialFailure(str(error))
    except Exception as error:  # an error of this network alone: the search goes on
        return TrialFailure(
            f"{type(error).__name__}: {tensorflow_message(str(error), limit=_MAX_ERROR_CHARACTERS)}"
        )


_UNTIMED: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(StepTime))


def _time(job: TrialJob, lock: DeviceLock, stop: StopRequest) -> dict[str, Any]:
    """Times a step, or reads what an earlier start of the trial measured; returns its fields."""
    from efficientnetv2.search.train_trial import time_training

    file, device = job.folder / TIMING_FILE, job.identity.get("device")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured.pop("device") == device:
            return dataclasses.asdict(StepTime(**measured))
    with stop.at_once(), lock.timing():
        timing = dataclasses.asdict(time_training(job))
    job.folder.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps({**timing, "device": device}))
    return timing
