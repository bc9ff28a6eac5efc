"""A trial in; a process that runs it, what it tells on its way, and its end, out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Union

from efficientnetv2.search.messages import Epoch, Failed, Found, Halted, Job
from efficientnetv2.search.trial import run_process
from efficientnetv2.train.lock import holder
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.stopping import StopRequest

_POLL_SECONDS = 0.2
End = Union[Found, Failed]


def run_trial(
    job: Job,
    *,
    stop: StopRequest,
    after_epoch: Callable[[Epoch], bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> End:
    """Runs a trial to its end.

    Args:
      job: the trial.
      stop: a signal that comes here is passed on; the trial saves and ends.
      after_epoch: is told of each epoch, and says whether the trial shall end.
      meanwhile: is called several times a second.

    Raises:
      Stopped: by a signal.
    """
    with stop.deferred():
        _wait_for_predecessor(job, stop)
        # Not forked: TensorFlow in there must be new.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=run_process, args=(job, there))
        process.start()
        there.close()
        try:
            return _listen(process, here, stop, after_epoch=after_epoch, meanwhile=meanwhile)
        finally:
            here.close()
            if process.is_alive():
                process.join(timeout=30)
            if process.is_alive():  # it has told its end and cannot find it
                process.kill()
            process.join()


def _wait_for_predecessor(job: Job, stop: StopRequest) -> None:
    """Waits for a process whose search was killed: it is saving."""
    while holder(RunDirectory(job.folder).lock_file) is not None:
        stop.check()
        time.sleep(_POLL_SECONDS)


def _listen(
    process: multiprocessing.context.SpawnProcess,
    connection: multiprocessing.connection.Connection,
    stop: StopRequest,
    *,
    after_epoch: Callable[[Epoch], bool],
    meanwhile: Callable[[], None],
) -> End:
    passed_on = False
    while True:
        meanwhile()
        if stop.number is not None and not passed_on:
            passed_on = True
            _end(process)
        try:
            if not connection.poll(_POLL_SECONDS):
                continue
            message = connection.recv()
        except (EOFError, OSError):
            stop.check()
            process.join()
            return Failed(_how_it_ended(process.exitcode))
        if isinstance(message, Epoch):
            connection.send(after_epoch(message))
            continue
        if isinstance(message, Halted):
            stop.check()
            return Failed("its process was stopped from outside")
        return message


def _end(process: multiprocessing.context.SpawnProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGTERM)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}, as when the memory does not suffice"
    return f"its process ended with exit code {code}"
