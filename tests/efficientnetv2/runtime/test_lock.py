"""Tests that one process at a time trains in a directory, and that a killed one leaves no lock."""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from efficientnetv2.runtime.atomic_write import WriteError
from efficientnetv2.runtime.lock import LockedError, exclusive_lock, lock_holder, training_lock

ROOT = pathlib.Path(__file__).parents[3]
HOLD = """
import pathlib, sys, time
from efficientnetv2.runtime.lock import training_lock
with training_lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "runs" / "a" / "training.lock"


@pytest.fixture
def other(path: pathlib.Path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_told_who_trains(path, other) -> None:
    who = rf"process {other.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:"
    assert re.match(who, lock_holder(path))
    refusal = rf"'{path.parent}' is being trained by {who}"
    with pytest.raises(LockedError, match=refusal), training_lock(path):
        pass


def test_a_killed_process_leaves_no_lock(path, other) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists() and lock_holder(path) is None
    with training_lock(path):
        assert f"process {os.getpid()} on" in lock_holder(path)


def test_nothing_stays_of_a_lock(path, tmp_path) -> None:
    assert lock_holder(path) is None
    for _ in range(2):
        with training_lock(path):
            assert path.exists()
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_use_stays(path) -> None:
    with training_lock(path):
        (path.parent / "metrics.jsonl").touch()
    assert [file.name for file in path.parent.iterdir()] == ["metrics.jsonl"]


def test_the_lock_ends_with_an_error(path) -> None:
    with pytest.raises(ValueError), training_lock(path):
        raise ValueError
    with training_lock(path):
        pass


def test_looking_does_not_hinder(path) -> None:
    command = f"""
import pathlib
from efficientnetv2.runtime.lock import lock_holder
print("looking", flush=True)
while True:
    lock_holder(pathlib.Path({str(path)!r}))
"""
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "looking\n"
        for _ in range(300):
            with training_lock(path):
                pass
        process.kill()


def test_a_file_system_without_locks_is_a_warning(path, monkeypatch, capsys) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path.parent.mkdir(parents=True)
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(WriteError, match="No locks available"), exclusive_lock(path):
        pass
    for lock in (functools.partial(exclusive_lock, is_required=False), training_lock):
        with lock(path):
            pass
        assert capsys.readouterr().err == (
            f"warning: '{path}' cannot be locked (No locks available)\n"
        )
