"""A configuration, a data set and a run directory in; a trained network and its record out.

The outer loop: Orbit's controller runs one epoch at a time; between epochs come stages, records and
saves. A stop request ends it between two steps, saved.
"""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import orbit
import tensorflow as tf

from efficientnetv2.data.pipeline import TrainingInput, build_training_input
from efficientnetv2.data.sources import Source
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import build_checkpoint
from efficientnetv2.train.schedules import build_learning_rate
from efficientnetv2.train.stages import Stage, build_stages, stage_at
from efficientnetv2.train.step import Learner, Stopped, Trainer, build_learner
from efficientnetv2.train.strategy import build_strategy
from hparams.resolve import Config


class Observer:
    """What a training tells while it runs; every method may be left as it is."""

    def begin(self, *, step: int, steps_per_epoch: int, plan: list[Stage]) -> None:
        """Called once, with the finished steps of an earlier start (0 if none)."""

    def stage(self, stage: Stage) -> None:
        """Called when a stage begins or is resumed."""

    def step(self, step: int, read_metrics: Callable[[], dict[str, float]]) -> None:
        """Called after each step; ``read_metrics`` waits for the device, so call it seldom."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Called after each epoch with what goes into metrics.jsonl."""

    def end(self) -> None:
        """Called when the training ends, whether it is finished, stopped or failed."""


class Training:
    """One training, resumed from its run directory if there is a checkpoint.

    Args:
      config: checked by ``hparams.resolve.require_trainable``.
      source: the data set.
      run: the run directory, started.
      observer: is told of everything.

    Attributes:
      learner: the network and all that is trained with it.
      trainer: Orbit's inner loop.
      plan: the stages.
      steps_per_epoch: whole batches in one pass over the training split.
    """

    def __init__(
        self, config: Config, source: Source, *, run: RunDirectory, observer: Observer | None = None
    ) -> None:
        self._config = config
        self._run = run
        self._observer = observer or Observer()
        self._input: TrainingInput = build_training_input(config, source)
        self.steps_per_epoch = self._input.steps_per_epoch
        self._rate = build_learning_rate(config, steps_per_epoch=self.steps_per_epoch)
        self._stop_signal: int | None = None
        self.plan = build_stages(config)
        tf.keras.utils.set_random_seed(config.train.seed)
        strategy = build_strategy(config.runtime.strategy)
        with strategy.scope():
            self.learner: Learner = build_learner(config, self._rate)
        self.trainer = Trainer(
            self.learner,
            strategy,
            global_batch_size=config.train.batch_size,
            label_smoothing=config.train.label_smoothing,
            weight_decay=config.train.weight_decay,
            after_step=self._after_step,
        )
        self._checkpoints = tf.train.CheckpointManager(
            build_checkpoint(self.learner),
            str(run.checkpoints),
            max_to_keep=config.runtime.keep_checkpoint_max,
        )
        self._checkpoints.restore_or_initialize()
        self._controller = orbit.Controller(
            global_step=self.learner.state.step,
            trainer=self.trainer,
            steps_per_loop=lambda step: self.steps_per_epoch - step % self.steps_per_epoch,
            strategy=strategy,
            summary_dir=str(run.tensorboard),
        )

    def run(self, *, after_epoch: Callable[[], dict[str, float]] | None = None) -> int | None:
        """Trains to the end, or until a signal asks to stop.

        Args:
          after_epoch: called after each epoch; what it returns joins the epoch's record.

        Returns:
          None when all epochs are done, or the number of the signal that stopped it (saved).
        """
        self._run.forget_metrics_after(self.learner.step)
        self._observer.begin(
            step=self.learner.step, steps_per_epoch=self.steps_per_epoch, plan=self.plan
        )
        try:
            with self._stop_on_signals():
                while self.learner.step < self._config.train.epochs * self.steps_per_epoch:
                    self._run_stage(after_epoch)
        except Stopped:
            self._save()
            return self._stop_signal
        finally:
            self._observer.end()
        return None

    def _run_stage(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        step = self.learner.step
        stage = stage_at(self.plan, step // self.steps_per_epoch)
        self._observer.stage(stage)
        self.learner.state.dropout_rate.assign(stage.dropout_rate)
        self.trainer.set_input(self._input.batches(image_size=stage.image_size, start_step=step))
        while self.learner.step < stage.end_epoch * self.steps_per_epoch:
            self._run_epoch(stage, after_epoch)

    def _run_epoch(self, stage: Stage, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        start, first_step = time.monotonic(), self.learner.step
        epoch_end = (first_step // self.steps_per_epoch + 1) * self.steps_per_epoch
        # Orbit prints a line a loop; ours come from the observer.
        with contextlib.redirect_stdout(io.StringIO()):
            self._controller.train(epoch_end, checkpoint_at_completion=False)
        seconds = time.monotonic() - start
        line = {
            "epoch": epoch_end // self.steps_per_epoch,
            "step": epoch_end,
            "stage": stage.index + 1,
            "image_size": stage.image_size,
            "dropout_rate": stage.dropout_rate,
            "learning_rate": float(self._rate(tf.constant(epoch_end - 1))),
            **self.learner.metrics.result(),
            "images_per_second": (epoch_end - first_step) * self._config.train.batch_size / seconds,
            "seconds": seconds,
        }
        self.learner.metrics.reset()
        line.update(after_epoch() if after_epoch else {})
        self._run.append_metrics(line)
        self._observer.epoch(line)
        every = self._config.runtime.save_checkpoint_epochs
        if line["epoch"] % every == 0 or line["epoch"] == self._config.train.epochs:
            self._save()

    def _after_step(self, step: int) -> None:
        self._observer.step(step, self.learner.metrics.result)
        if self._stop_signal is not None:
            raise Stopped

    def _save(self) -> None:
        self._checkpoints.save(checkpoint_number=self.learner.step)

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop after the step at hand; a second one acts at once."""

        def request(number: int, frame: object) -> None:
            del frame
            self._stop_signal = number
            signal.signal(number, signal.SIG_DFL)

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
