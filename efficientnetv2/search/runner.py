"""Runs a trial in a process of its own and follows it to its end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Union

from efficientnetv2.runtime.lock import lock_holder
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.spawn import without_main
from efficientnetv2.search.messages import (
    EpochReport,
    TrialFailure,
    TrialJob,
    TrialResult,
    TrialStopped,
)
from efficientnetv2.search.trial import run_process

_POLL_SECONDS = 0.2
Outcome = Union[TrialResult, TrialFailure]


def run_trial(
    job: TrialJob,
    *,
    stop: StopRequest,
    after_epoch: Callable[[EpochReport], bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> Outcome:
    """Runs a trial to its end.

    Args:
      job: the trial.
      stop: passes a signal on to the trial, which saves its state and ends.
      after_epoch: called with the report of each epoch; returns whether to prune the trial.
      meanwhile: called several times a second.

    Returns:
      The result of the trial, or why it failed.

    Raises:
      Stopped: if a signal came.
    """
    with stop.deferred():
        _wait_for_predecessor(job, stop)
        # Not forked: TensorFlow does not survive a fork.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=run_process, args=(job, there))
        with without_main():
            process.start()
        there.close()
        try:
            return _listen(process, here, stop, after_epoch=after_epoch, meanwhile=meanwhile)
        finally:
            here.close()
            if process.is_alive():
                process.join(timeout=30)
            if process.is_alive():  # it has sent its last message, but hangs
                process.kill()
            process.join()


def _wait_for_predecessor(job: TrialJob, stop: StopRequest) -> None:
    """Waits for a process whose search was killed: it may still be saving its state."""
    while lock_holder(RunDirectory(job.folder).lock_file) is not None:
        stop.check()
        time.sleep(_POLL_SECONDS)


def _listen(
    process: multiprocessing.context.SpawnProcess,
    connection: multiprocessing.connection.Connection,
    stop: StopRequest,
    *,
    after_epoch: Callable[[EpochReport], bool],
    meanwhile: Callable[[], None],
) -> Outcome:
    is_signal_sent = False
    while True:
        meanwhile()
        if stop.number is not None and not is_signal_sent:
            is_signal_sent = True
            _terminate(process)
        try:
            if not connection.poll(_POLL_SECONDS):
                continue
            message = connection.recv()
        except (EOFError, OSError):
            stop.check()
            process.join()
            return TrialFailure(_exit_reason(process.exitcode))
        if isinstance(message, EpochReport):
            connection.send(after_epoch(message))
            continue
        if isinstance(message, TrialStopped):
            stop.check()
            return TrialFailure("its process was stopped from outside")
        return message


def _terminate(process: multiprocessing.context.SpawnProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGTERM)


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was killed by {name}, often a sign that memory ran out"
    return f"its process ended with exit code {code}"
