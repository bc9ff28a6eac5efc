"""Tests that a training killed at random moments ends with the same bits as an undisturbed one."""

import csv

import pytest

from benchmarks import crash


@pytest.mark.slow
def test_five_kills_change_nothing(start_process, monkeypatch, tmp_path, capsys):
    def start(run):
        return start_process(*crash.program(run), env=crash.ENVIRONMENT)

    shorter = crash.SETTINGS.replace("train.epochs=8", "train.epochs=4")  # one a stage
    assert shorter != crash.SETTINGS
    monkeypatch.setattr(crash, "SETTINGS", shorter)
    monkeypatch.setattr(crash, "start", start)
    assert crash.main(["5", "--seed=511", f"--out={tmp_path}"]) == 0, capsys.readouterr().out
    (file,) = tmp_path.glob("crash-5kills-*.csv")
    with file.open() as rows:
        assert [row["same"] for row in csv.DictReader(rows)] == ["True"] * 5
