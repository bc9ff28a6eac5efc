"""Tests device locks between real processes: trainings share a device, a timing has it alone."""

import itertools
import json
import pathlib
import subprocess
import sys
import time

import pytest

from efficientnetv2.runtime import environment
from efficientnetv2.runtime.environment import device_name, devices
from efficientnetv2.search import device
from efficientnetv2.search.device import DeviceLock

ROOT = pathlib.Path(__file__).parents[3]
# Trains and times in turns, four times; prints when it did which.
WORK = """
import json, pathlib, sys, time
from efficientnetv2.search.device import DeviceLock
lock = DeviceLock(pathlib.Path(sys.argv[1]))
spans = []
def span(kind, seconds):
    start = time.monotonic()
    time.sleep(seconds)
    spans.append((kind, start, time.monotonic()))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    with lock.training():
        for _ in range(3):
            span("train", 0.03)
            lock.yield_to_timing()
    with lock.timing():
        span("time", 0.03)
print(json.dumps(spans), flush=True)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def overlap(one, other):
    return one[1] < other[2] and other[1] < one[2]


def test_two_processes_never_time_while_the_other_trains_or_times(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    first, second = (json.loads(process.stdout.readline()) for process in processes)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    pairs = [pair for pair in itertools.product(first, second) if overlap(*pair)]
    assert [pair for pair in pairs if "time" in (pair[0][0], pair[1][0])] == []
    assert pairs  # but they do train at once
    assert len(first) == len(second) == 16


def test_a_timing_gets_in_between_the_epochs_of_a_long_training(tmp_path):
    code = """
import pathlib, sys
from efficientnetv2.search.device import DeviceLock
lock = DeviceLock(pathlib.Path(sys.argv[1]))
with lock.training():
    print("training", flush=True)
    while sys.stdin.readline():
        lock.yield_to_timing()
        print("epoch", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as other:
        assert other.stdout.readline() == "training\n"
        timer = start_timer(tmp_path)
        time.sleep(0.5)
        assert timer.poll() is None  # it waits for the epoch's end
        end = time.monotonic() + 60
        while timer.poll() is None and time.monotonic() < end:  # on a busy machine it starts late
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "epoch\n"
        assert timer.communicate(timeout=1)[0] == "timed\n"
        other.stdin.close()


def start_timer(folder):
    code = """
import pathlib, sys
from efficientnetv2.search.device import DeviceLock
with DeviceLock(pathlib.Path(sys.argv[1])).timing():
    print("timed", flush=True)
"""
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_killed_process_leaves_no_lock(tmp_path):
    process = start(tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    time.sleep(0.05)
    process.kill()
    process.communicate()
    with DeviceLock(tmp_path).timing():
        pass


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (0, None, ["cpu"]),
        (0, "0", ["cpu"]),
        (2, None, ["gpu0", "gpu1"]),
        (2, "1", ["gpu1"]),
        (2, "1,0", ["gpu0", "gpu1"]),
        (2, "", ["cpu"]),
        (2, "-1", ["cpu"]),
        (1, "GPU-5a/b", ["gpuGPU-5a-b"]),
    ],
)
def test_which_devices_these_are(gpus, visible, expected, tmp_path, monkeypatch):
    for number in range(gpus):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 1\n")
    monkeypatch.setattr(environment, "_NVIDIA", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == expected
    if expected != ["cpu"]:
        assert device_name() == f"NVIDIA H100 x {len(expected)}"
    else:
        assert " x " in device_name()


def test_gpus_of_their_own_do_not_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "devices", lambda: ["gpu0"])
    one = DeviceLock(tmp_path)
    monkeypatch.setattr(device, "devices", lambda: ["gpu1"])
    other = DeviceLock(tmp_path)
    with one.training(), other.timing():
        pass
