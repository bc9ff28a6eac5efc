"""Shows the progress of a training: a bar on stderr, and one line per epoch on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from efficientnetv2.reporting.estimate_line import duration, estimate_lines
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.progressive import Stage
from efficientnetv2.train.time_estimate import RunEstimate
from hparams.label_kinds import TRAINING_METRICS

_MAX_NAMES = 5  # shown, of images that were left out
_READ_SECONDS = 0.5  # between two readings of the metrics, each of which waits for the device


class BadImageReporter(TrainingCallback):
    """Reports only images that were left out; for workers other than the chief."""

    def __init__(self) -> None:
        self._stream = sys.stdout  # kept, because sys.stdout is replaced to silence Orbit

    def bad_images(self, names: list[str]) -> None:
        """Prints the number of images that were left out, and the first names."""
        first = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
        images = f"{len(names)} image{'s' if len(names) > 1 else ''}"
        print(f"left out {images} that cannot be read: {first}", file=self._stream, flush=True)


class ProgressBar(BadImageReporter):
    """Shows stage, epoch, images/s, loss, accuracy and the time left; the bar needs a terminal.

    Args:
      metric: of the validation, a row of ``hparams.label_kinds.METRICS``.
    """

    def __init__(self, *, metric: str = "top1") -> None:
        super().__init__()
        self._metric = metric
        self._epochs = 0
        self._plan: list[Stage] = []
        self._stage: Stage | None = None
        self._bar: Any = None
        self._start: tuple[int, float] | None = None
        self._last_read = 0.0

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        """Shows the bar, at the step where the training begins or resumes."""
        self._plan, self._epochs = plan, plan[-1].end_epoch
        self._bar = open_bar(
            initial=step,
            total=plan[-1].end_step,
            unit="step",
            bar_format="{percentage:3.0f}%|{bar:20}| {desc}",
        )
        if step == 0:
            self._bar.set_description_str("building the training step, once for all stages")

    def stage(self, stage: Stage) -> None:
        """Restarts the measurement of speed."""
        self._stage, self._start = stage, None

    def step(self, step: int, read_metrics: Callable[[], dict[str, float]]) -> None:
        """Moves the bar, and updates its text about twice a second."""
        assert self._bar is not None
        now = time.monotonic()
        self._bar.update(step - self._bar.n)
        if self._start is None:  # do not time the first step of a stage, which includes building
            self._start = (step, now)
        elif not self._bar.disable and now - self._last_read > _READ_SECONDS:
            self._last_read = now
            self._bar.set_description_str(self._describe(step, now, metrics=read_metrics()))

    def _describe(self, step: int, now: float, *, metrics: dict[str, float]) -> str:
        assert self._start is not None and self._stage is not None
        stage = self._stage
        seconds = (now - self._start[1]) / (step - self._start[0])
        epoch = stage.first_epoch + (step - 1 - stage.first_step) // stage.steps_per_epoch + 1
        return (
            f"stage {stage.index + 1}/{len(self._plan)}  {stage.image_size} px  "
            f"epoch {epoch}/{self._epochs}  {stage.batch_size / seconds:.0f} images/s  "
            f"loss {metrics['loss']:.3f}  {_training_metric(metrics, digits=3)}  "
            f"ETA {duration(self._seconds_left(step, seconds_per_step=seconds))}"
        )

    def _seconds_left(self, step: int, *, seconds_per_step: float) -> float:
        """Estimates the time of later stages from the number and area of their images."""
        assert self._stage is not None
        left = 0.0
        for stage in self._plan[self._stage.index :]:
            pixels = stage.batch_size * stage.image_size**2
            pixels_here = self._stage.batch_size * self._stage.image_size**2
            steps = stage.end_step - max(stage.first_step, step)
            left += steps * seconds_per_step * pixels / pixels_here
        return left

    def estimate(self, estimate: RunEstimate) -> None:
        """Prints how long the training will take, and what it needs."""
        assert self._bar is not None
        self._bar.clear()
        print(estimate_lines(estimate), file=self._stream, flush=True)

    def epoch(self, line: dict[str, Any]) -> None:
        """Prints the line of an epoch."""
        assert self._bar is not None
        self._bar.clear()
        text = epoch_line(line, epochs=self._epochs, stages=len(self._plan), metric=self._metric)
        print(text, file=self._stream)
        self._stream.flush()

    def end(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def _training_metric(metrics: Mapping[str, float], *, digits: int) -> str:
    """Returns what training reports besides the loss: accuracy, or the error of numbers."""
    name = next(name for name in TRAINING_METRICS if name in metrics)
    return f"{TRAINING_METRICS[name]} {metrics[name]:.{digits}f}"


def epoch_line(line: dict[str, Any], *, epochs: int, stages: int, metric: str = "top1") -> str:
    """Formats a record of metrics.jsonl as one line for a terminal.

    Args:
      line: the record.
      epochs: of the training.
      stages: of the training.
      metric: as in ``ProgressBar``.
    """
    text = (
        f"epoch {line['epoch']:>{len(str(epochs))}}/{epochs}  stage {line['stage']}/{stages}  "
        f"{line['image_size']:.0f} px  loss {line['loss']:.4f}  "
        f"{_training_metric(line, digits=4)}  "
        f"lr {line['learning_rate']:.2e}  {line['images_per_second']:.0f} images/s  "
        f"{duration(line['seconds'])}"
    )
    for name, label in ((f"minival_{metric}", "minival"), (f"minival_ema_{metric}", "EMA")):
        if name in line:
            text += f"  {label} {line[name]:.4f}"
    return text
