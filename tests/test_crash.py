"""Tests that a training killed at random moments ends with the same bits as an undisturbed one."""

import csv

import pytest

from benchmarks import crash


@pytest.mark.slow
def test_three_kills_change_nothing(start_process, monkeypatch, tmp_path, capsys):
    def start(run):
        return start_process(*crash.program(run), env=crash.ENVIRONMENT)

    changes = {
        crash.BLOCKS: "[r1_k3_s1_e4_i8_o8_se0.25]",
        "feature_size=64": "feature_size=16",
        "train.epochs=8": "train.epochs=4",  # one a stage
    }
    shorter = crash.SETTINGS
    for old, new in changes.items():
        assert shorter.count(old) == 1
        shorter = shorter.replace(old, new)
    monkeypatch.setattr(crash, "SETTINGS", shorter)
    monkeypatch.setattr(crash, "start", start)
    assert crash.main(["3", "--seed=511", f"--out={tmp_path}"]) == 0, capsys.readouterr().out
    (file,) = tmp_path.glob("crash-3kills-*.csv")
    with file.open() as rows:
        assert [row["same"] for row in csv.DictReader(rows)] == ["True"] * 3
