"""A trial to run in; what it found out, told over a connection while it runs.

A trial has a process of its own: when it runs out of memory or crashes, the search goes on, and no
trial finds the memory that another one has left. TensorFlow is imported in there alone.
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

from efficientnetv2.search.device import DeviceLock
from efficientnetv2.search.messages import TIMING_FILE, Epoch, Failed, Found, Halted, Job
from efficientnetv2.search.timing import StepTime
from efficientnetv2.train.durable import WriteError, replace_text
from efficientnetv2.train.stopping import Stopped, StopRequest
from hparams.errors import UserError, tensorflows_words

_WORDS = 400  # of an error that is kept


def run_process(job: Job, connection: Connection) -> None:
    """Runs a trial and tells what becomes of it; the target of a process."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C in a terminal goes to the search, which passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stop = StopRequest()
    try:
        with stop.listening():
            message = _run(job, connection, stop)
    except Stopped:
        message = Halted()
    with contextlib.suppress(OSError):  # nobody listens any more
        connection.send(message)


def _end_with_parent() -> None:
    """Stops this process, saved, when the search is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _run(job: Job, connection: Connection, stop: StopRequest) -> Any:
    logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets warns in each process
    lock = DeviceLock(job.lock_folder)

    def shall_end(epoch: Epoch) -> bool:
        connection.send(epoch)
        answer = bool(connection.recv())
        lock.let_in()
        return answer

    try:
        with lock.training():  # imports keep a processor busy, too
            from efficientnetv2.search.training import time_training, train

        timed = _kept(job)
        if timed is None:
            with stop.at_once(), lock.timing():
                timed = time_training(job)
            job.folder.mkdir(parents=True, exist_ok=True)
            replace_text(job.folder / TIMING_FILE, json.dumps(dataclasses.asdict(timed)))
        with lock.training():
            trained = train(job, seconds=timed.seconds, shall_end=shall_end, stop=stop)
        return Found(**dataclasses.asdict(trained), **dataclasses.asdict(timed))
    except WriteError as error:
        return Failed(str(error), is_fatal=True)
    except EOFError:  # the search is gone
        return Halted()
    except UserError as error:
        return Failed(str(error))
    except Exception as error:  # whatever it is, it is this network's: the search goes on
        return Failed(f"{type(error).__name__}: {tensorflows_words(str(error), limit=_WORDS)}")


def _kept(job: Job) -> StepTime | None:
    """What an earlier start has timed."""
    try:
        return StepTime(**json.loads((job.folder / TIMING_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
