"""docs/hparams.md is what the table of keys prints."""

import pathlib
import subprocess
import sys

import pytest

from hparams.base import KEYS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, "-m", "hparams.document"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode("utf-8")


@pytest.mark.parametrize("name", KEYS)
def test_the_print_has_one_row_for_every_key(printed, name):
    rows = [line for line in printed.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    _, _, kind, _, meaning, _ = rows[0].split("|")
    assert kind.strip() == KEYS[name].kind.__name__
    assert meaning.strip().startswith(KEYS[name].meaning)


@pytest.mark.parametrize(
    "row",
    [
        "| `train.epochs` | int | `350` | passes over the training split (>= 1) |",
        "| `train.lr_base` | float | `0.016` | peak learning rate for 256 images a step (> 0) |",
        "| `model.bn_momentum` | float | `0.99` | decay of BatchNorm statistics a step "
        "(>= 0, <= 1) |",
        "| `data.data_dir` | str | not set | folder of the data; not set: ~/tensorflow_datasets, "
        "for TFDS only |",
        "| `data.cache_mib` | int | `256` | keep the encoded images of splits up to this size in "
        "memory, MiB (>= 0) |",
        "| `data.augname` | str | `'none'` | augmentation of single images "
        "(`none`, `randaug`, `autoaug`) |",
    ],
)
def test_rows_tell_type_default_meaning_and_limits(printed, row):
    assert row in printed.splitlines()


def test_the_print_has_one_table_a_section(printed):
    titles = [line for line in printed.splitlines() if line.startswith("## ")]
    assert titles == ["## model", "## train", "## eval", "## data", "## search", "## runtime"]
    assert printed.count("| key | type | default | meaning |\n|---|---|---|---|\n") == 6


def test_the_documentation_is_the_print(printed):
    assert (ROOT / "docs" / "hparams.md").read_text(encoding="utf-8") == printed
