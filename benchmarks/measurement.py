"""Times calls in turns, and writes their medians and ratios to CSV files.

Other programs slow down whatever runs at the same time. Therefore the calls that are compared take
turns, and a ratio is the median of the ratios within each round, with the smallest and largest.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RESULTS = pathlib.Path(
    os.environ.get("BENCHMARK_RESULTS", pathlib.Path(__file__).parent / "results")
)
ROUNDS = 9
KERAS = "keras.applications"
HEADER = ["first call s", "median s", "images/s", "ours is x times as fast", "from", "to"]
BF16_HEADER = ["bf16 is x times as fast", "from", "to"]


@dataclasses.dataclass(frozen=True)
class Times:
    """Holds the seconds of one contestant.

    Attributes:
      first: seconds of the first call, which traces and compiles.
      rounds: seconds of each timed call.
    """

    first: float
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def seconds(call: Callable[[], object]) -> float:
    """Returns the time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(
    calls: Mapping[str, Any],
    *,
    rounds: int = ROUNDS,
    warm_up: int = 2,
    clock: Callable[[Any], float] = seconds,
) -> dict[str, Times]:
    """Times all calls in turns; the first and ``warm_up`` more do not count.

    Args:
      calls: name -> call; they take turns.
      rounds: number of turns that count.
      warm_up: number of turns after the first that do not count.
      clock: runs one of ``calls`` and returns the seconds that it took.
    """
    first = {name: clock(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warm_up + rounds):
        for name, call in calls.items():
            times[name].append(clock(call))
    return {name: Times(first[name], times[name][warm_up:]) for name in calls}


def ratio(ours: Times, other: Times) -> tuple[float, float, float]:
    """Returns how many times as fast ours is: median, smallest and largest of the rounds."""
    ratios = sorted(theirs / own for own, theirs in zip(ours.rounds, other.rounds))
    return statistics.median(ratios), ratios[0], ratios[-1]


def rows(
    times: Mapping[str, Times], *, images: int, ours: Sequence[str] = ("ours",)
) -> list[list[str]]:
    """Returns a row for each contestant: its name, then ``HEADER`` with ratios to each ``ours``."""
    return [
        [
            name,
            f"{of.first:.1f}",
            f"{of.median:.4f}",
            f"{images / of.median:.1f}",
            *(f"{value:.2f}" for own in ours for value in ratio(times[own], of)),
        ]
        for name, of in times.items()
    ]


def machine() -> str:
    """Returns the devices and versions, for the names of result files."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = f"{len(gpus)}gpu" if gpus else f"{os.cpu_count()}cpu"
    return f"{device}-tf{tf.__version__}-py{platform.python_version()}"


def write(name: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> pathlib.Path:
    """Writes ``<name>-<machine>.csv`` to ``RESULTS``, prints and returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{machine()}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])
    print(f"written to {os.path.relpath(path)}", flush=True)
    return path


def write_beside(
    lines: Sequence[Mapping[str, Any]], path: pathlib.Path, *, keys: Sequence[str]
) -> None:
    """Writes lines of a CSV file, and keeps those in it that differ in ``keys``."""
    new = {tuple(str(line[key]) for key in keys) for line in lines}
    kept: list[Mapping[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [
                line for line in csv.DictReader(file) if tuple(line[k] for k in keys) not in new
            ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *lines])
    print(f"written to {os.path.relpath(path)}", flush=True)
