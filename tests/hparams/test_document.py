"""docs/hparams.md is up to date with the table of keys."""

import pathlib
import subprocess
import sys

import pytest

from hparams.document import types
from hparams.keys import KEYS

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
        "| `train.epochs` | int | `350` | passes over the training split (>= 1, <= 100000) |",
        "| `train.lr_base` | float | `0.016` | peak learning rate for a batch of 256; "
        "proportional to the batch size (> 0, <= 1000) |",
        "| `model.bn_momentum` | float | `0.99` | decay of BatchNorm's moving statistics per step "
        "(>= 0, <= 1) |",
        "| `data.data_dir` | str | not set | folder of the data, or a table of labels; not set: "
        "~/tensorflow_datasets (TFDS only) |",
        "| `data.cache_mib` | int | `256` | MiB: splits of up to this encoded size are kept in "
        "memory, and images of an evaluation of up to this size as the network gets them (>= 0, "
        "<= 1000000000) |",
        "| `data.on_bad_image` | str | `'error'` | what to do with an image that cannot be read: "
        "stop (error), or leave it out and count it (skip) (`error`, `skip`) |",
        "| `data.augname` | str | `'none'` | augmentation of single images: none, randaug, "
        "autoaug, trivialaugment, augmix (a row of [AUGMENTATIONS](../hparams/choices.py)) |",
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


def test_the_types_of_the_sections_are_the_table(tmp_path):
    written = (ROOT / "hparams" / "config.py").read_text(encoding="utf-8")
    assert written == types(), "run python -m hparams.document --types"
    assert "class TrainSection(Section, Protocol)" in written
    assert "    epochs: int\n" in written and "    varsexp: str | None\n" in written


@pytest.mark.slow
def test_mypy_sees_the_types_of_keys(tmp_path):
    source = tmp_path / "wrong.py"
    source.write_text(
        "from hparams.config import Config\n\n\n"
        "def f(config: Config) -> str:\n    return config.train.epochs\n\n\n"
        "def g(config: Config) -> int:\n    return config.train.epoch\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert '"TrainSection" has no attribute "epoch"; maybe "epochs"?' in result.stdout
    assert 'expected "str"' in result.stdout or '(got "int", expected "str")' in result.stdout
