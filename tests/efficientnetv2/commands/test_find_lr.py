"""Tests ``--mode=find_lr`` from the command line and from Python."""

from __future__ import annotations

import csv
import hashlib
import json
import pathlib
import re

import numpy as np
import pytest

import efficientnetv2 as env2
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse

SETTINGS = (
    "model.blocks_args=[r1_k3_s2_e1_i8_o8_c1],model.feature_size=16,train.batch_size=64,"
    "train.isize=16,data.ibase=8,eval.isize=16,train.stages=2"
)
FLAGS = ("digits", "--model=efficientnetv2-b0", "--steps=30", "--model_dir=run")


@pytest.fixture
def settings(data_dir):
    return f"--hparam_str={SETTINGS},data.data_dir={data_dir}"


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_both_languages_suggest_the_same_flag(main_tf2, settings, tmp_path, data_dir):
    result = main_tf2("find_lr", *FLAGS, settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    flag, actual, batch, configured = re.search(
        r"suggested peak: (--learning_rate=\S+) \(for a batch of 256; (\S+) for this batch of "
        r"(\d+)\); the settings have (\S+)\n",
        result.stdout,
    ).groups()
    values = parse(define_flags({}), ["main_tf2.py", "train", "digits", flag])
    suggestion = float(values.learning_rate)
    assert float(actual) == pytest.approx(suggestion / 4, rel=0.05) and batch == "64"
    assert float(configured) == 0.012
    test = env2.find_lr(
        "efficientnetv2-b0",
        "digits",
        steps=30,
        overrides=f"{SETTINGS},data.data_dir={data_dir}",
        model_dir=tmp_path / "again",
    )
    assert isinstance(test, env2.RangeTest) and test.suggestion == suggestion
    assert test.picture == tmp_path / "again" / "find_lr.png"
    assert test.picture.read_bytes() == (tmp_path / "run" / "find_lr.png").read_bytes()
    with (tmp_path / "run" / "find_lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, len(test.rates) + 1))
    for name, values in (
        ("learning_rate", test.rates),
        ("loss", test.losses),
        ("smoothed_loss", test.smoothed),
    ):
        np.testing.assert_array_equal([float(row[name]) for row in rows], values)


@pytest.mark.slow
def test_a_training_in_the_directory_is_not_touched(main_tf2, settings, tmp_path):
    train = ("train", FLAGS[0], FLAGS[1], FLAGS[3], "--epochs=1", settings)
    assert main_tf2(*train, cwd=tmp_path).returncode == 0
    run = tmp_path / "run"
    before = hashes(run)
    result = main_tf2("find_lr", *FLAGS, "--epochs=3", settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    after = hashes(run)
    assert set(after) - set(before) == {"find_lr.csv", "find_lr.png"}
    assert {name: after[name] for name in before} == before
    assert len(env2.load_run(run).history) == 1


@pytest.mark.slow
def test_it_starts_from_the_weights_that_a_training_starts_from(
    main_tf2, tmp_path, tiny_weights, data_dir
):
    network = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,train.batch_size=64"
    settings = f"--hparam_str={network},train.isize=8,data.ibase=8,data.data_dir={data_dir}"
    command = ("find_lr", *FLAGS, f"--weights={tiny_weights}", settings)
    result = main_tf2(*command, cwd=tmp_path)
    assert "starting from " in result.stdout and "predictions" in result.stdout


def test_a_loss_that_no_rate_lowers_is_drawn_and_said(main_tf2, settings, tmp_path):
    stuck = f"{settings},train.varsexp=predictions/bias"
    result = main_tf2("find_lr", *FLAGS, f"{stuck},train.weight_decay=0", cwd=tmp_path)
    assert result.returncode == 2
    assert "lowers the loss in" in result.stderr and "find_lr.png" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "run" / "find_lr.png").exists()


def test_several_machines_are_refused(main_tf2, tmp_path, monkeypatch):
    workers = ["localhost:1", "localhost:2"]
    cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    result = main_tf2("find_lr", "digits", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--mode=find_lr takes no TF_CONFIG: run it on one machine" in result.stderr
    assert list(pathlib.Path(tmp_path).iterdir()) == []
