"""Tests the benchmarks: the ratios of times, the result files and their summary."""

from __future__ import annotations

import csv
import importlib.util
import os
import pathlib
from functools import partial

import matplotlib.image
import numpy as np
import pytest

from benchmarks import measurement, photos
from benchmarks.contest import contest, times_of
from benchmarks.measurement import BF16_HEADER, HEADER, Times, in_turns, ratio, rows
from benchmarks.summary import draw, read, summarise

OURS = Times(first=2.0, rounds=[1.0, 2.0, 4.0])
OTHER = Times(first=3.0, rounds=[2.0, 3.0, 4.0])
TIMM = Times(first=1.0, rounds=[1.0, 1.0, 4.0])


def test_a_ratio_is_the_median_of_the_rounds_not_that_of_medians() -> None:
    assert ratio(OURS, OTHER) == (1.5, 1.0, 2.0)
    assert ratio(OURS, TIMM) == (1.0, 0.5, 1.0)


def test_calls_take_turns_and_the_first_ones_do_not_count() -> None:
    calls: list[str] = []

    def clock(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    times = in_turns({"a": "a", "b": "b"}, rounds=3, warm_up=1, clock=clock)
    assert "".join(calls) == "ab" * 5
    assert times == {"a": Times(1.0, [5.0, 7.0, 9.0]), "b": Times(2.0, [6.0, 8.0, 10.0])}


def test_contestants_run_in_processes_of_their_own_and_one_that_dies_is_named() -> None:
    makes = {
        "five": partial(partial, pow, 2, 5),
        "own": partial(partial, os.getpid),
        "bad": partial(partial, os._exit, 1),
    }
    with contest(makes) as contestants:
        assert contestants["five"].result() == 32
        assert contestants["own"].result() != os.getpid()
        good = {name: contestants[name] for name in ("five", "own")}
        times = times_of(good, rounds=2)
        assert all(len(of.rounds) == 2 and min(of.rounds) >= 0 for of in times.values())
        with pytest.raises(SystemExit, match="'bad' ended"):
            contestants["bad"].result()


def test_the_summary_takes_the_best_setting_of_timm_in_each_precision(
    tmp_path: pathlib.Path,
) -> None:
    times = {
        "ours": OURS,
        "ours, bf16": Times(1.0, [1.0, 1.0, 1.0]),
        "keras.applications": OTHER,
        "timm fp32": Times(1.0, [8.0, 8.0, 8.0]),
        "timm fp32 channels_last": Times(1.0, [2.0, 4.0, 8.0]),
        "timm bf16": TIMM,
    }
    header = ["training step", *HEADER, *BF16_HEADER]
    with (tmp_path / "train_step-s-128px-batch6-2cpu-tf2-py3.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows(times, images=6, ours=("ours", "ours, bf16"))])
    (tmp_path / "decode-2cpu-tf2-py3.csv").write_text("other,things\n")
    cases = read(tmp_path)
    assert summarise(cases).splitlines()[2:] == [
        "| training, S, 128 px, batch 6 | 3.0 | 1.50 (1.00 to 2.00) | 2.00 (2.00 to 2.00) "
        "| 6.0 | 1.00 (1.00 to 4.00) |"
    ]
    draw(cases, tmp_path / "speed.png")
    assert matplotlib.image.imread(tmp_path / "speed.png").std() > 0.05


def test_a_result_file_is_named_after_the_machine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "RESULTS", tmp_path / "new" / "folder")
    path = measurement.write("steps", ["a", "b"], [["1", "2"]])
    assert path.parent == measurement.RESULTS
    assert path.name.startswith("steps-") and "-tf2." in path.name
    assert path.read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("quick", [True, False])
def test_every_command_is_a_benchmark(quick: bool) -> None:
    from benchmarks.all import commands

    modules = {arguments[0] for arguments in commands(quick)}
    assert {"benchmarks.train_step", "benchmarks.startup", "benchmarks.memory"} <= modules
    assert all(importlib.util.find_spec(module) for module in modules)


def test_results_of_other_networks_stay_in_the_file(tmp_path):
    path = tmp_path / "new" / "results.csv"
    first = [{"network": "b0", "seed": 0, "low": -1.5}, {"network": "s", "seed": 0, "low": -2}]
    measurement.write_beside(first, path, keys=("network", "seed"))
    measurement.write_beside([{"network": "b0", "seed": 0, "low": 3}], path, keys=("network",))
    assert path.read_text().splitlines() == ["network,seed,low", "s,0,-2", "b0,0,3"]


def test_more_test_crops_leave_the_other_images_as_they_are(tmp_path, monkeypatch):
    photograph = np.random.default_rng(0).integers(256, size=(150, 400, 3), dtype=np.uint8)
    monkeypatch.setattr(photos, "sixteen_photographs", lambda: {"a": photograph, "b": photograph})
    photos.make_sixteen(tmp_path / "few")
    photos.make_sixteen(tmp_path / "many", test_crops=50)
    few, many = (
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("*/*/*.jpg")}
        for folder in (tmp_path / "few", tmp_path / "many")
    )
    assert len(few) == 2 * (100 + 40) and len(many) == 2 * (100 + 50)
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many)  # no test image twice
