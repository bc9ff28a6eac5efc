"""Tests the line that says how long a training takes, to the letter."""

import dataclasses
import pathlib
import time

import pytest

from efficientnetv2.reporting.estimate_line import estimate_lines, rounded_duration, size_text
from efficientnetv2.reporting.progress_bar import ProgressBar
from efficientnetv2.train.progressive import plan_stages
from efficientnetv2.train.time_estimate import RunEstimate, ShorterRun
from hparams.factors import first_to_last

ESTIMATE = RunEstimate(
    seconds=725.0,
    epochs=20,
    memory_bytes=1_340_000_000,
    disk_bytes=96_200_000,
    folder=pathlib.Path("runs/a"),
)
NOON = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "5 s"),
        (43, "45 s"),
        (89, "1 min 30 s"),
        (91, "2 min"),
        (725, "12 min"),
        (3599, "60 min"),
        (7900, "2 h 10 min"),
        (100_000, "27 h 45 min"),
        (260_000, "3 days"),
    ],
)
def test_an_estimate_is_rounded(seconds, text):
    assert rounded_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(40_000, "0.0 MB"), (2_340_000, "2.3 MB"), (96e6, "96 MB"), (1.34e9, "1.3 GB")],
)
def test_a_size_has_two_digits(num_bytes, text):
    assert size_text(int(num_bytes)) == text


def test_the_line():
    line = "about 12 min for 20 epochs (done at 12:12), 1.3 GB of memory, 96 MB in runs/a"
    assert estimate_lines(ESTIMATE, now=NOON) == line
    corrected = dataclasses.replace(ESTIMATE, corrects=True)
    assert estimate_lines(corrected, now=NOON) == f"now {line}"
    preview = "about 12 min for 20 epochs, 1.3 GB of memory, 96 MB in runs/a"
    assert estimate_lines(ESTIMATE, begins=False) == preview


def test_a_long_training_is_told_what_makes_it_short():
    shorter = ShorterRun("--image_size=96 --epochs=12", 3300.0)
    long = dataclasses.replace(ESTIMATE, seconds=100_000.0, epochs=1, is_long=True, shorter=shorter)
    assert estimate_lines(long, now=NOON) == (
        "about 27 h 45 min for 1 epoch (done at 2026-05-05 15:46), 1.3 GB of memory, 96 MB in "
        "runs/a\nmore than an hour on a CPU: --image_size=96 --epochs=12 and another --model_dir "
        "takes about 55 min"
    )
    hopeless = dataclasses.replace(long, shorter=None)
    assert "with any settings: use a GPU" in estimate_lines(hopeless, begins=False)


def test_it_is_printed_without_a_terminal(capsys):
    ends = first_to_last(image_size=(16, 32), dropout_rate=(0.0, 0.0))
    bar = ProgressBar()
    bar.begin(step=0, plan=plan_stages(ends, epochs=4, stages=2, num_images=650, batch_size=64))
    bar.estimate(ESTIMATE)
    bar.end()
    printed = capsys.readouterr()
    assert printed.out.startswith("about 12 min for 20 epochs (done at ")
    assert printed.err == ""
