"""Tests the progress bar and the lines of a training, to the letter."""

from __future__ import annotations

import dataclasses
import io
import sys
import types

import pytest

from efficientnetv2.reporting import progress_bar
from efficientnetv2.reporting.progress_bar import ProgressBar, duration, epoch_line
from efficientnetv2.train.progressive import Stage, plan_stages
from hparams.factors import first_to_last

LINE = {
    "epoch": 7,
    "step": 133,
    "stage": 1,
    "image_size": 24,
    "loss": 1.23456,
    "accuracy": 0.5,
    "learning_rate": 0.00123456,
    "images_per_second": 1234.5,
    "seconds": 61.2,
}
TEXT = (
    "epoch   7/350  stage 1/4  24 px  loss 1.2346  accuracy 0.5000  lr 1.23e-03  "
    "1234 images/s  1 min 01 s"
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.49, "0 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3600, "1 h 00 min"),
        (7199, "1 h 59 min"),
        (7380, "2 h 03 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("minival", "suffix"),
    [
        ({}, ""),
        ({"minival_top1": 0.93333}, "  minival 0.9333"),
        (
            {"minival_top1": 0.93333, "minival_ema_top1": 1.0},
            "  minival 0.9333  EMA 1.0000",
        ),
    ],
)
def test_an_epochs_line(minival: dict, suffix: str) -> None:
    assert epoch_line({**LINE, **minival}, epochs=350, stages=4) == TEXT + suffix


def test_a_mean_of_several_sizes_is_rounded_to_a_pixel() -> None:
    line = epoch_line({**LINE, "image_size": 213.7}, epochs=350, stages=1)
    assert line.startswith("epoch   7/350  stage 1/1  214 px  loss")


@pytest.mark.parametrize(
    ("epoch", "epochs", "start"),
    [(9, 9, "epoch 9/9  "), (9, 10, "epoch  9/10  "), (10, 10, "epoch 10/10  ")],
)
def test_epoch_numbers_are_aligned(epoch: int, epochs: int, start: str) -> None:
    assert epoch_line({**LINE, "epoch": epoch}, epochs=epochs, stages=4).startswith(start + "stage")


def plan(*, scale_batch: bool = False) -> list[Stage]:
    """Two stages of 20 steps, or of 4 steps with batches four times as large and then of 20."""
    ends = first_to_last(image_size=(16, 32), dropout_rate=(0.0, 0.0))
    return plan_stages(
        ends, epochs=4, stages=2, num_images=650, batch_size=64, scale_batch=scale_batch
    )


def four_stages() -> list[Stage]:
    """The plan that ``TEXT`` refers to."""
    stages = plan() + plan()
    return [*stages[:-1], dataclasses.replace(stages[-1], end_epoch=350)]


def no_metrics() -> dict[str, float]:
    raise AssertionError("the metrics were read, which waits for the device")


def test_without_a_terminal_each_epoch_is_one_line_of_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = ProgressBar()
    bar.begin(step=0, plan=four_stages())
    bar.stage(plan()[0])
    for step in range(1, 3):
        bar.step(step, no_metrics)
    bar.epoch(LINE)
    bar.epoch({**LINE, "minival_top1": 0.5})
    bar.end()
    captured = capsys.readouterr()
    assert captured.out == f"{TEXT}\n{TEXT}  minival 0.5000\n"
    assert captured.err == ""


def test_lines_are_printed_although_sys_stdout_is_replaced_later(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar, silenced = ProgressBar(), io.StringIO()
    bar.begin(step=0, plan=four_stages())
    monkeypatch.setattr(sys, "stdout", silenced)
    bar.epoch(LINE)
    assert silenced.getvalue() == ""
    monkeypatch.undo()
    assert capsys.readouterr().out == f"{TEXT}\n"


def test_a_bar_that_never_began_ends_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar().end()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replaces stderr by a terminal; no fixture, because pytest replaces it again after those."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("COLUMNS", raising=False)
    return terminal


class Clock:
    """Seconds that a test sets by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(progress_bar, "time", types.SimpleNamespace(monotonic=fake.monotonic))
    return fake


def last_text(terminal: Terminal) -> str:
    return terminal.getvalue().split("\r")[-1].rstrip()


def test_a_terminal_is_told_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    terminal = use_terminal(monkeypatch)
    bar = ProgressBar()
    bar.begin(step=0, plan=plan())
    assert last_text(terminal).endswith("| building the training step, once for all stages")
    bar.stage(plan()[0])
    bar.step(1, no_metrics)
    clock.now += 5.0
    bar.step(6, lambda: {"loss": 1.5, "accuracy": 0.25})
    # A second a step: 14 steps of 16 px are left, and 20 of 32 px, four times the area.
    assert last_text(terminal).endswith(
        "| stage 1/2  16 px  epoch 1/4  64 images/s  loss 1.500  accuracy 0.250  ETA 1 min 34 s"
    )
    assert last_text(terminal).startswith(" 15%|")
    bar.end()


def test_batches_of_different_sizes_count_by_their_images(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    terminal, stages = use_terminal(monkeypatch), plan(scale_batch=True)
    assert [(stage.batch_size, stage.end_step) for stage in stages] == [(256, 4), (64, 24)]
    bar = ProgressBar()
    bar.begin(step=0, plan=stages)
    bar.stage(stages[0])
    bar.step(1, no_metrics)
    clock.now += 4.0
    bar.step(3, lambda: {"loss": 1.5, "accuracy": 0.25})
    # Two seconds a step: one step of this stage is left, and 20 with as many pixels each.
    assert last_text(terminal).endswith(
        "| stage 1/2  16 px  epoch 2/4  128 images/s  loss 1.500  accuracy 0.250  ETA 42 s"
    )
    bar.stage(stages[1])
    bar.step(5, no_metrics)
    clock.now += 9.0
    bar.step(14, lambda: {"loss": 1.5, "accuracy": 0.25})
    assert last_text(terminal).startswith(" 58%|")
    assert last_text(terminal).endswith(
        "| stage 2/2  32 px  epoch 3/4  64 images/s  loss 1.500  accuracy 0.250  ETA 10 s"
    )
    bar.end()


def test_speed_is_measured_anew_in_each_stage(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    terminal = use_terminal(monkeypatch)
    bar = ProgressBar()
    bar.begin(step=19, plan=plan())
    bar.stage(plan()[0])
    bar.step(20, no_metrics)
    bar.stage(plan()[1])
    clock.now += 100.0
    bar.step(21, no_metrics)
    clock.now += 4.0
    bar.step(31, lambda: {"loss": 1.0, "accuracy": 1.0})
    assert last_text(terminal).endswith(
        "| stage 2/2  32 px  epoch 4/4  160 images/s  loss 1.000  accuracy 1.000  ETA 4 s"
    )
    bar.end()


def test_metrics_are_read_twice_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    use_terminal(monkeypatch)
    reads: list[float] = []

    def read() -> dict[str, float]:
        reads.append(clock.now - 1000.0)
        return {"loss": 1.0, "accuracy": 1.0}

    bar = ProgressBar()
    bar.begin(step=0, plan=plan())
    bar.stage(plan()[0])
    for step in range(1, 20):
        bar.step(step, read)
        clock.now += 0.125
    assert reads == [0.125, 0.75, 1.375, 2.0]
    bar.end()


def test_the_bar_gives_way_to_an_epochs_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = use_terminal(monkeypatch)
    bar = ProgressBar()
    bar.begin(step=0, plan=four_stages())
    assert last_text(terminal).startswith("  0%|")
    bar.epoch(LINE)
    assert last_text(terminal) == ""
    assert capsys.readouterr().out == f"{TEXT}\n"
    bar.end()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a.jpg"], "left out 1 image that cannot be read: a.jpg"),
        (list("ab"), "left out 2 images that cannot be read: a, b"),
        (list("abcde"), "left out 5 images that cannot be read: a, b, c, d, e"),
        (list("abcdefg"), "left out 7 images that cannot be read: a, b, c, d, e, ..."),
    ],
)
def test_images_that_were_left_out_are_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    text: str,
) -> None:
    bar = ProgressBar()
    bar.begin(step=0, plan=plan())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    bar.bad_images(names)
    monkeypatch.undo()
    assert capsys.readouterr().out == f"{text}\n"
    bar.end()
