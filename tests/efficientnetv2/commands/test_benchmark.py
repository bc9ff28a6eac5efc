"""Tests --mode=benchmark: the costs of networks, each measured in a process of its own."""

from __future__ import annotations

import csv
import functools
import multiprocessing
import os
import pathlib
import signal
import threading

import pytest

from efficientnetv2.commands.benchmark import benchmark
from efficientnetv2.evaluation.model_cost import _measure, measure_cost
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import dtype_policy
from hparams import UserError, resolve

TINY = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o16_se0.25"],
    "model.feature_size": 16,
    "train.batch_size": 6,
    "train.isize": 24,
    "train.stages": 1,
    "eval.isize": 32,
}


def tiny(**overrides):
    return resolve("efficientnetv2-b0", "imagenet2012", {**TINY, **overrides})


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"train.accumulate": 2, "runtime.steps_per_loop": 3},
        {"train.precision": "bfloat16"},
    ],
)
def test_what_is_measured_belongs_to_the_network(overrides):
    config = tiny(**overrides)
    costs = _measure(config, 3) if overrides else _measured_once()
    assert costs.parameters == build_model(config.model).count_params()
    assert (costs.batch_size, costs.train_size, costs.eval_size) == (6, 24, 32)
    assert costs.top1 == 78.7
    assert costs.first_step_seconds > 6 / costs.train_images_per_second
    assert 0 < costs.latency_ms <= costs.latency_p95_ms
    assert 0 < costs.infer_batch_ms <= costs.infer_batch_p95_ms
    assert costs.infer_images_per_second == pytest.approx(6e3 / costs.infer_batch_ms)
    assert 0 < costs.train_step_seconds <= costs.train_step_p95_seconds
    assert costs.train_images_per_second == pytest.approx(6 / costs.train_step_seconds)
    assert costs.train_peak_mib > 100
    # On a CPU, bfloat16 is used for products only.
    halves = 1 if dtype_policy(config.train.precision) == "float32" else 2
    assert costs.activation_mib == pytest.approx(_measured_once().activation_mib / halves)


@functools.cache
def _measured_once():
    return _measure(tiny(), 3)


@pytest.mark.slow
def test_a_network_that_cannot_be_measured_does_not_end_the_others(tmp_path, capsys, wait_until):
    def kill_first():
        wait_until(multiprocessing.active_children)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_first)
    killer.start()
    assert benchmark([tiny(), tiny()], tmp_path / "new", steps=2).code == 2
    killer.join()
    printed = capsys.readouterr()
    assert "1/2 efficientnetv2-b0: batch 6, 24 px to train, 32 px to evaluate" in printed.out
    assert printed.err.count("\n") == 1
    assert "with 6 images of 24 px: its process died" in printed.err
    with (tmp_path / "new" / "benchmark.csv").open(newline="") as file:
        assert [row["train_size"] for row in csv.DictReader(file)] == ["24"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "benchmark.csv",
        "training.png",
        "inference.png",
    }


def test_a_process_that_dies_is_one_line():
    threading.Timer(0.5, _kill_children).start()
    with pytest.raises(UserError, match="efficientnetv2-b0 with 6 images of 24 px: its process"):
        measure_cost(tiny(), steps=1)


def _kill_children():
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)


def test_the_folder_must_be_writable(tmp_path: pathlib.Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        benchmark([tiny()], tmp_path / "file" / "run", steps=1)
