"""Times calls that take turns, each in a process of its own.

In one process they would disturb each other: torch's threads keep spinning for a while after their
work, and all share one allocator. In turns, each process works alone, as it would for a user.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.measurement import Times, in_turns, seconds

CALLS = 3
Make = Callable[[], Callable[[], Any]]


def _serve(pipe: Connection, make: Make) -> None:
    """Makes the call in the new process, then answers requests until the empty one."""
    call = make()
    handlers: dict[str, Callable[[], Any]] = {
        "first": lambda: seconds(call),
        "turn": lambda: _turn(call),
        "result": call,
    }
    while request := pipe.recv():
        pipe.send(handlers[request]())


def _turn(call: Callable[[], Any]) -> float:
    call()  # not timed: the caches still hold the data of other processes
    return statistics.median(seconds(call) for _ in range(CALLS))


class Contestant:
    """Runs one call in a process of its own.

    Args:
      name: for messages.
      make: returns the call; runs in the process, so it must be picklable.
    """

    def __init__(self, name: str, make: Make) -> None:
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self._name = name
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make), daemon=True)
        self._process.start()
        other.close()  # so that recv raises when the process dies
        self._is_new = True

    def _ask(self, request: str) -> Any:
        try:
            self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise SystemExit(f"the process of '{self._name}' ended; its error is above") from None

    def seconds(self) -> float:
        """Returns the time of the first call; on later turns the median of three warm calls."""
        request, self._is_new = "first" if self._is_new else "turn", False
        return self._ask(request)

    def result(self) -> Any:
        """Returns what the call returns."""
        return self._ask("result")

    def end(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join()


@contextlib.contextmanager
def contest(makes: Mapping[str, Make]) -> Iterator[dict[str, Contestant]]:
    """Starts a process for each, one after the other, and ends them with the context."""
    contestants: dict[str, Contestant] = {}
    try:
        for name, make in makes.items():
            contestants[name] = Contestant(name, make)
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.end()


def times_of(contestants: Mapping[str, Contestant], *, rounds: int) -> dict[str, Times]:
    """Returns the times of all contestants, taken in turns."""
    return in_turns(contestants, rounds=rounds, warm_up=1, clock=Contestant.seconds)
