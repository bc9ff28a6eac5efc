"""Tests that a training killed at random moments ends with the same bits as an undisturbed one."""

import csv
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A smaller network and fewer epochs than the benchmark has.
SETTINGS = (
    "model.blocks_args=[r1_k3_s2_e4_i8_o16_se0.25],model.feature_size=16,"
    "model.survival_prob=0.8,train.epochs=4,train.stages=2,train.lr_base=0.02,"
    "train.lr_warmup_epoch=1,train.ema_decay=0.9,train.isize=24,data.ibase=16,data.augname=none,"
    "data.mixup_alpha=0.2,runtime.keep_checkpoint_max=2,runtime.save_checkpoint_epochs=1"
)
SCRIPT = """
import sys
from benchmarks import crash

crash.SETTINGS = sys.argv.pop(1)
sys.exit(crash.main())
"""


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
    command = [sys.executable, "-c", SCRIPT, SETTINGS, "3", "--seed=511", f"--out={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = tmp_path.glob("crash-3kills-*.csv")
    with file.open() as rows:
        assert [row["same"] for row in csv.DictReader(rows)] == ["True"] * 3
