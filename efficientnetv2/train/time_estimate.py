"""Estimates how long a training takes, and what memory and disk it needs, from its first steps.

The time of a step is measured in each stage, after the calls that trace the step and warm up the
input; steps of other image sizes follow from their multiply-adds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from efficientnetv2.data.sources import Source
from efficientnetv2.model.complexity import activation_bytes
from efficientnetv2.model.layers import dtype_policy
from efficientnetv2.train.peak_memory import peak_bytes
from efficientnetv2.train.train_state import TrainState
from efficientnetv2.train.workload import StepCost, Workload, build_workload, fit_step_cost
from hparams.config import Config
from hparams.overrides import ConfigError
from hparams.resolve import with_overrides

LONG_SECONDS = 3600.0  # a longer training on a CPU is told how it becomes shorter
_FEW_EPOCHS = 10  # with fewer than these, smaller images are proposed instead
_SIZE_SHARES = (1.0, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 8)  # of the image size, to propose
_SMALLEST_SIZE = 32  # pixels, to propose

_SKIPPED_CALLS = 2  # the first one traces, and the input warms up
_MIN_STEPS, _MIN_SECONDS = 5, 2.0  # to measure
_LONG_ENOUGH = 15.0  # seconds; slow steps need not be so many

_MIN_ERROR, _MIN_ERROR_SECONDS = 0.25, 60.0  # of an estimate that is corrected

EVALUATION_SHARE = 0.5  # building the evaluation takes this share of building the training step
_DISK_BYTES_PER_SECOND = 150e6  # checkpoints are written, and read again for their checksums


@dataclasses.dataclass(frozen=True)
class ShorterRun:
    """Settings with which a training takes less than ``LONG_SECONDS``.

    Attributes:
      flags: to give on the command line.
      seconds: estimated.
    """

    flags: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunEstimate:
    """What a training still needs.

    Attributes:
      seconds: to its end, from now on, evaluations included.
      epochs: that are left, the present one included.
      memory_bytes: the largest that it needs at a time: on a GPU the device's, on a CPU the
        process's.
      disk_bytes: size of what it writes, once it is finished.
      folder: the run directory.
      is_long: whether it takes longer than an hour on a CPU.
      shorter: what makes a long one short; None: no image size and number of epochs does.
      corrects: whether an earlier estimate of this training was wrong by a lot.
    """

    seconds: float
    epochs: int
    memory_bytes: int
    disk_bytes: int
    folder: pathlib.Path
    is_long: bool = False
    shorter: ShorterRun | None = None
    corrects: bool = False


@dataclasses.dataclass(frozen=True)
class RunEstimator:
    """Estimates a training from the measured speed of its steps.

    Attributes:
      config: the complete config.
      source: the data set.
      train_state: of the training.
      workload: what the training computes.
      folder: the run directory.
      num_replicas: devices that share a batch.
    """

    config: Config
    source: Source
    train_state: TrainState
    workload: Workload
    folder: pathlib.Path
    num_replicas: int = 1

    def estimate(
        self,
        step: int,
        steps: Sequence[tuple[float, float]],
        *,
        overhead_seconds: float,
        largest_batch: tuple[int, int],
    ) -> RunEstimate:
        """Estimates the rest of the training after ``step`` steps.

        Args:
          step: number of finished steps.
          steps: (multiply-adds, seconds) of measured ones.
          overhead_seconds: of everything besides steps and evaluations, such as building them.
          largest_batch: (image size, batch size) of the largest of the steps so far.
        """
        workload = self.workload
        speed = fit_step_cost(steps, parameters=self.train_state.model.count_params())
        saves, checkpoint = self._saves_left(step), _bytes(self._checkpoint())
        best = _bytes(self._weights()) if workload.validation_images else 0
        overhead = overhead_seconds + saves * (checkpoint + best) / _DISK_BYTES_PER_SECOND
        seconds = workload.seconds_left(step, speed) + overhead
        kept = min(self.config.runtime.keep_checkpoint_max, self._saves_left(0))
        is_long = seconds > LONG_SECONDS and not self._has_accelerator
        return RunEstimate(
            seconds=seconds,
            epochs=math.ceil(workload.epochs_left(step)),
            memory_bytes=peak_bytes() + self._later_activations(largest_batch),
            disk_bytes=kept * checkpoint + best,
            folder=self.folder,
            is_long=is_long,
            shorter=self._shorter(speed, overhead) if is_long else None,
        )

    @property
    def _has_accelerator(self) -> bool:
        is_elsewhere = self.config.runtime.strategy == "tpu"
        return is_elsewhere or bool(tf.config.list_logical_devices("GPU"))

    def _saves_left(self, step: int) -> int:
        epochs = self.workload.epochs_left(step)
        return math.ceil(epochs / self.config.runtime.save_checkpoint_epochs)

    def _weights(self) -> list[Any]:
        average = self.train_state.average
        return [*self.train_state.model.weights, *(average.averages.values() if average else ())]

    def _checkpoint(self) -> list[Any]:
        return [*self._weights(), *self.train_state.optimizer.variables]

    def _later_activations(self, largest_batch: tuple[int, int]) -> int:
        """Returns by how many bytes activations of later steps exceed those of the steps so far."""
        later = self._activations(*self.workload.largest_batch())
        return max(later - self._activations(*largest_batch), 0)

    def _activations(self, size: int, batch: int) -> int:
        train = self.config.train
        per_value = 4 if dtype_policy(train.precision) == "float32" else 2
        image = activation_bytes(self.train_state.model, bytes_per_value=per_value, image_size=size)
        return image * batch // (train.accumulate * self.num_replicas)

    def _shorter(self, speed: StepCost, overhead: float) -> ShorterRun | None:
        """Finds the largest image size, and the most epochs with it, that take under an hour."""
        train = self.config.train
        smaller = [round(train.isize * share / 16) * 16 for share in _SIZE_SHARES]
        best, most = None, 0
        for size in [train.isize, *(size for size in smaller if size >= _SMALLEST_SIZE)]:
            short = functools.partial(self._is_short, size, speed=speed, overhead=overhead)
            epochs = _largest(train.epochs, short)
            if epochs > most:
                flags = [f"--image_size={size}"] if size != train.isize else []
                flags += [f"--epochs={epochs}"] if epochs < train.epochs else []
                seconds = self._seconds(size, epochs, speed) + overhead
                best, most = ShorterRun(" ".join(flags), seconds), epochs
            if most >= min(_FEW_EPOCHS, train.epochs):
                break
        return best

    def _is_short(self, size: int, epochs: int, *, speed: StepCost, overhead: float) -> bool:
        return self._seconds(size, epochs, speed) + overhead < LONG_SECONDS

    def _seconds(self, size: int, epochs: int, speed: StepCost) -> float:
        """Returns the time of a whole training with another image size and number of epochs."""
        changes: dict[str, Any] = {"train.epochs": epochs}
        if size != self.config.train.isize:
            changes |= {"train.isize": size, "eval.isize": size, "data.ibase": max(1, size // 2)}
        try:
            config = with_overrides(self.config, changes)
        except ConfigError:  # the network shrinks images too much for this size
            return math.inf
        validates = bool(self.workload.validation_images)
        return build_workload(config, self.source, validates=validates).seconds_left(0, speed)


def _bytes(variables: Sequence[Any]) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def _largest(high: int, holds: Callable[[int], bool]) -> int:
    """Returns the largest number of 1 .. ``high`` for which a falling condition holds; 0: none."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


class StepClock:
    """Measures steps while a training runs, and estimates the rest of it once in each stage.

    Only the first estimate, and later ones that differ from it by a lot, are returned.

    Args:
      estimator: of the training.
      wait: waits until the devices have finished all steps so far.
      clock: returns the time in seconds.
    """

    def __init__(
        self,
        estimator: RunEstimator,
        *,
        wait: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._estimator = estimator
        self._wait = wait
        self._clock = clock
        self._begin = clock()
        self._build_seconds: float | None = None
        self._measured: list[tuple[float, float]] = []
        self._promised: float | None = None  # time of the end
        self.begin_stage()

    def begin_stage(self) -> None:
        """Measures steps anew, from now on."""
        self._skipped = 0
        self._first: tuple[int, float] | None = None  # step and time from which it is measured
        self._steps, self._seconds, self._work = 0, 0.0, 0.0
        self._is_done = False

    def after(self, step: int) -> RunEstimate | None:
        """Takes note of the end of a step; returns the estimate if this one decides it."""
        if self._is_done:
            return None
        if self._build_seconds is None:
            self._build_seconds = self._clock() - self._begin
        self._skipped += 1
        if self._skipped < _SKIPPED_CALLS:
            return None
        if self._first is None:
            self._wait()
            self._first = step, self._clock()
            return None
        steps = self._steps + step - self._first[0]
        seconds = self._seconds + self._clock() - self._first[1]
        if (steps < _MIN_STEPS or seconds < _MIN_SECONDS) and seconds < _LONG_ENOUGH:
            return None
        self.pause(step)
        return self._decide(step)

    def pause(self, step: int) -> None:
        """Leaves out the time from now until the next step has ended, for example an evaluation."""
        if self._is_done or self._first is None:
            return
        self._wait()
        first_step, start = self._first
        self._steps += step - first_step
        self._seconds += self._clock() - start
        self._work += self._estimator.workload.multiply_adds(first_step, step)
        self._first = None

    def _decide(self, step: int) -> RunEstimate | None:
        self._is_done = True
        self._measured.append((self._work / self._steps, self._seconds / self._steps))
        estimate = self._estimator.estimate(
            step,
            self._measured,
            overhead_seconds=EVALUATION_SHARE * (self._build_seconds or 0.0),
            largest_batch=self._estimator.workload.largest_batch(end_step=step),
        )
        end = self._clock() + estimate.seconds
        if self._promised is None:
            self._promised = end
            return estimate
        error = abs(end - self._promised)
        if error < max(_MIN_ERROR * estimate.seconds, _MIN_ERROR_SECONDS):
            return None
        self._promised = end
        return dataclasses.replace(estimate, corrects=True)
