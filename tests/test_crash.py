"""Tests that a training killed at random moments ends with the same bits as an undisturbed one."""

import csv
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path):
    command = [sys.executable, "-m", "benchmarks.crash", "5", "--seed=511", f"--out={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = tmp_path.glob("crash-5kills-*.csv")
    with file.open() as rows:
        assert [row["same"] for row in csv.DictReader(rows)] == ["True"] * 5
