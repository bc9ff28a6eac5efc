"""Runs all benchmarks, each in its own process, and sums up their result files.

``python -m benchmarks.all`` (about an hour on two cores) measures how speed grows with network,
size and batch, and writes to ``benchmarks/results/`` and ``docs/images/``; ``--quick`` (nine
minutes) measures one small case of each and writes to ``runs/quick_benchmarks/``. ``--summary``
runs nothing and sums up the results that are there.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

from absl import app, flags

from benchmarks.measurement import RESULTS
from benchmarks.summary import draw, read, summarise

QUICK = flags.DEFINE_bool("quick", False, "one small case of each")
SUMMARY = flags.DEFINE_bool("summary", False, "run nothing, only sum up the results that are there")
ROOT = pathlib.Path(__file__).parent.parent

# (network, pixels, images a call), to see how speed grows with each of the three.
CASES = (
    ("b0", 192, 16),
    ("b0", 128, 16),
    ("b0", 224, 16),
    ("b0", 192, 4),
    ("b0", 192, 32),
    ("s", 128, 16),
    ("s", 300, 4),
    ("m", 128, 8),
)
PROFILED = (("b0", 192, 16), ("s", 128, 16))
QUICK_CASES = (("b0", 96, 8),)


def _flags(cases: Iterable[tuple[str, int, int]]) -> list[list[str]]:
    return [
        [f"--network={network}", f"--size={size}", f"--batch={count}"]
        for network, size, count in cases
    ]


def commands(quick: bool) -> list[list[str]]:
    """Returns the arguments of ``python -m`` for each benchmark."""
    cases, both = _flags(QUICK_CASES if quick else CASES), ("train_step", "inference")
    listed = [[f"benchmarks.{name}", *case] for case in cases for name in both]
    profiled = QUICK_CASES if quick else PROFILED
    listed += [["benchmarks.operations", *case] for case in _flags(profiled)]
    quick_flags = {
        "input_pipeline": ["--sizes=64", "--rounds=7"],
        "randaugment": ["--size=64", "--rounds=7", "--images=60"],
        "stage_change": ["--network=b0"],
        "litert": ["--size=64", "--crops=40"],
        "startup": ["--rounds=1"],
        "memory": ["--network=b0", "--size=64", "--batch=4", "--images=1200"],
    }
    others = [[f"benchmarks.{name}", *(few if quick else [])] for name, few in quick_flags.items()]
    return listed + others


def main(argv: list[str]) -> None:
    """Runs the benchmarks; if some fail, the others still run, and the failed ones are named."""
    del argv
    failed = []
    results, pictures = RESULTS, ROOT / "docs" / "images"
    if QUICK.value:
        results = pictures = ROOT / "runs" / "quick_benchmarks"
    environment = {**os.environ, "BENCHMARK_RESULTS": str(results)}
    for command in [] if SUMMARY.value else commands(QUICK.value):
        print(f"\n$ python -m {' '.join(command)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            failed.append(command[0])
    results.mkdir(parents=True, exist_ok=True)
    cases = read(results)
    print(summarise(cases))
    draw(cases, pictures / "speed.png")
    if failed:
        raise SystemExit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
