"""Tests that a stop signal acts at once or at the next check, and that a second one kills."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from efficientnetv2.runtime.signals import Stopped, StopRequest

ROOT = pathlib.Path(__file__).parents[3]
NUMBERS = [signal.SIGINT, signal.SIGTERM]


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_acts_at_once(number: int) -> None:
    stop = StopRequest()
    message = f"^stopped by {number.name}$"
    with pytest.raises(Stopped, match=message) as stopped, stop.listening():
        kill(number)
        pytest.fail("went on")
    assert stopped.value.number == stop.number == number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_deferred_signal_waits_until_it_is_asked_for(number: int) -> None:
    stop = StopRequest()
    with stop.listening(), stop.deferred():
        stop.check()
        kill(number)
        with pytest.raises(Stopped):
            stop.check()
        with pytest.raises(Stopped), stop.at_once():
            pytest.fail("went on")
    assert stop.number == number


def test_inside_deferred_work_a_part_may_be_stopped_at_once() -> None:
    stop = StopRequest()
    with stop.listening(), stop.deferred():
        with pytest.raises(Stopped), stop.at_once():
            kill(signal.SIGTERM)
            pytest.fail("went on")
        with stop.deferred():
            pass


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_inside_a_finaliser_is_not_lost(number: int) -> None:
    class Garbage:
        def __del__(self) -> None:
            kill(number)
            time.sleep(0)  # in which the exception is raised, and ignored

    stop = StopRequest()
    with pytest.raises(Stopped) as stopped, stop.listening():
        Garbage()
        time.sleep(10)
        pytest.fail("went on")
    assert stopped.value.number == number


def test_other_errors_in_finalisers_are_reported_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Garbage:
        def __del__(self) -> None:
            raise ValueError("other")

    errors: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: errors.append(error.exc_type))
    with StopRequest().listening():
        Garbage()
    assert errors == [ValueError]
    Garbage()
    assert errors == [ValueError, ValueError]


def test_no_except_exception_takes_it() -> None:
    assert not issubclass(Stopped, Exception)


def test_afterwards_signals_act_as_before() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    stop = StopRequest()
    with pytest.raises(Stopped), stop.listening(), stop.listening():
        kill(signal.SIGTERM)
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", NUMBERS)
def test_a_second_signal_ends_the_process(first: int, second: int) -> None:
    code = f"""
import os, time
from efficientnetv2.runtime.signals import StopRequest
stop = StopRequest()
with stop.listening(), stop.deferred():
    os.kill(os.getpid(), {int(first)})
    print("noted", flush=True)
    os.kill(os.getpid(), {int(second)})
    time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=30, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (-second, b"noted\n", b"")
