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

from efficientnetv2.data.broken import SkippedLog
from efficientnetv2.data.pipeline import Leg, build_training_input
from efficientnetv2.data.sources import Source
from efficientnetv2.train.learner import Learner, build_learner
from efficientnetv2.train.profile import build_profile
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import build_checkpoint, find_checkpoint, restore
from efficientnetv2.train.schedules import build_learning_rate
from efficientnetv2.train.sizes import build_settings
from efficientnetv2.train.stages import Stage, build_stages, stage_at
from efficientnetv2.train.step import Stopped, build_trainer
from efficientnetv2.train.strategy import distribute_training, needs_fixed_shapes
from efficientnetv2.train.workers import Workers, build_workers
from hparams.errors import UserError
from hparams.resolve import Config

_NAMES = 5  # of images that were left out, in a record


class Observer:
    """What a training tells while it runs; every method may be left as it is."""

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        """Called once, with the finished steps of an earlier start (0 if none)."""

    def stage(self, stage: Stage) -> None:
        """Called when a stage begins or is resumed."""

    def step(self, step: int, read_metrics: Callable[[], dict[str, float]]) -> None:
        """Called after each step; ``read_metrics`` waits for the device, so call it seldom."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Called after each epoch with what goes into metrics.jsonl."""

    def bad_images(self, names: list[str]) -> None:
        """Called after an epoch in which images were left out for the first time."""

    def end(self) -> None:
        """Called when the training ends, whether it is finished, stopped or failed."""


class Training:
    """One training, resumed from its run directory if there is a checkpoint.

    Args:
      config: checked by ``hparams.resolve.require_trainable``.
      source: the data set.
      run: the run directory, started.
      observer: is told of everything.
      workers: the devices and processes; None: those of the configuration.
      resume_from: holds the checkpoints, where that is not ``run``.

    Attributes:
      learner: the network and all that is trained with it.
      trainer: Orbit's inner loop.
      strategy: the devices.
      plan: the stages.
      settings: sizes and strengths by step.
    """

    _stop_signal: int | None = None
    _fed: dict[str, float] | None = None  # the shapes that come in
    _bad_images_told = 0

    def __init__(
        self,
        config: Config,
        source: Source,
        *,
        run: RunDirectory,
        observer: Observer | None = None,
        workers: Workers | None = None,
        resume_from: RunDirectory | None = None,
    ) -> None:
        self._config = config
        self._run = run
        self._observer = observer or Observer()
        self._workers = workers or build_workers(config)
        self.plan = build_stages(config, num_images=source.num_images(config.data.train_split))
        self._end_step = self.plan[-1].end_step
        self.settings = build_settings(config, self.plan)
        self._skipped = SkippedLog(run.bad_images_file)
        self._input = build_training_input(
            config,
            source,
            legs=_legs(self.plan),
            settings=self.settings,
            skipped=self._skipped,
            parts=config.train.accumulate,
        )
        self._rate = build_learning_rate(config, self.plan)
        tf.keras.utils.set_random_seed(config.train.seed)
        self.strategy = strategy = self._workers.strategy
        with strategy.scope():
            self.learner: Learner = build_learner(config, self._rate)
        self.trainer = build_trainer(
            config,
            self.learner,
            strategy,
            settings=self.settings,
            after_step=self._after_step,
        )
        self._profile = build_profile(config, run.tensorboard)
        checkpoint = build_checkpoint(self.learner)
        latest = find_checkpoint(resume_from or run)
        if latest is not None:
            restore(checkpoint, latest)
        self._checkpoints = tf.train.CheckpointManager(
            checkpoint,
            str(run.checkpoints),
            max_to_keep=config.runtime.keep_checkpoint_max,
        )
        self._controller = orbit.Controller(
            global_step=self.learner.state.step,
            trainer=self.trainer,
            steps_per_loop=lambda step: self._epoch_end(int(step)) - step,
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
        step = self.learner.step
        self._run.forget_metrics_after(step)
        self._observer.begin(step=step, plan=self.plan)
        try:
            with self._stop_on_signals():
                self._profile.after(step)
                while self.learner.step < self._end_step:
                    self._run_stage(after_epoch)
        except Stopped:
            self._save()
            return self._stop_signal
        except (UserError, BrokenPipeError):  # of after_epoch; of an observer that prints
            self._save_if_alone()
            raise
        except tf.errors.OpError as error:
            if self._workers.lost(error):
                raise
            if self._config.train.accumulate == 1:  # else a part of the step may have been counted
                self._save_if_alone()
            self._input.raise_bad_image(error, step=self.learner.step, share=self._workers.share)
        finally:
            self._profile.stop()
            self._observer.end()
        return None

    def _epoch_end(self, step: int) -> int:
        """The first step after the epoch that ``step`` belongs to."""
        stage = stage_at(self.plan, step)
        done = (step - stage.first_step) // stage.steps_per_epoch
        return stage.first_step + (done + 1) * stage.steps_per_epoch

    def _run_stage(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        stage = stage_at(self.plan, self.learner.step)
        self._observer.stage(stage)
        while self.learner.step < stage.end_step:
            self._run_epoch(stage, after_epoch)

    def _run_epoch(self, stage: Stage, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        start, first_step = time.monotonic(), self.learner.step
        end_step = self._epoch_end(first_step)
        self._feed(first_step)
        # Orbit prints a line a loop; ours come from the observer.
        with contextlib.redirect_stdout(io.StringIO()):
            self._controller.train(end_step, checkpoint_at_completion=False)
        seconds = time.monotonic() - start
        epoch = stage.first_epoch + (end_step - stage.first_step) // stage.steps_per_epoch
        line = {
            "epoch": epoch,
            "step": end_step,
            "stage": stage.index + 1,
            **self.settings.mean(end_step - stage.steps_per_epoch, end_step),
            "learning_rate": float(self._rate(tf.constant(end_step - 1))),
            **self.learner.metrics.result(),
            "images_per_second": (end_step - first_step) * stage.batch_size / seconds,
            "seconds": seconds,
        }
        self.learner.metrics.reset()
        try:
            line.update(after_epoch() if after_epoch else {})
        finally:  # the epoch is done, also where it cannot be validated
            self._record(line)
        if epoch % self._config.runtime.save_checkpoint_epochs == 0 or end_step == self._end_step:
            self._save()
        self._stop_if_asked()

    def _feed(self, step: int) -> None:
        """Opens the input; anew where the devices want fixed shapes and these change."""
        settings = self.settings.mean(step, step + 1)
        shapes = {name: settings[name] for name in ("image_size", "batch_size")}
        if self._fed is None or (needs_fixed_shapes(self.strategy) and shapes != self._fed):
            self.trainer.set_input(distribute_training(self.strategy, self._input, start_step=step))
            self._fed = shapes

    def _record(self, line: dict[str, Any]) -> None:
        bad = self._skipped.names()
        if bad:
            line.update({"bad_images": len(bad), "bad_image_names": bad[:_NAMES]})
        self._run.append_metrics(line)
        self._observer.epoch(line)
        if len(bad) > self._bad_images_told:
            self._bad_images_told = len(bad)
            self._observer.bad_images(bad)

    def _after_step(self, step: int) -> None:
        self._observer.step(step, self.learner.metrics.here)
        self._profile.after(step)
        # After an epoch's last step its record is written first.
        if step < self._epoch_end(step - 1):
            self._stop_if_asked(step)

    def _stop_if_asked(self, step: int | None = None) -> None:
        agreed = self._workers.stop_signal(self._stop_signal, step=step)
        if agreed is not None:
            self._stop_signal = agreed
            raise Stopped

    def _save_if_alone(self) -> None:
        if self._workers.alone:  # or others, who know of no error, would have to take part
            self._save()

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


def _legs(plan: list[Stage]) -> list[Leg]:
    """Joins stages of the same batch size."""
    legs: list[Leg] = []
    for stage in plan:
        leg = Leg(stage.first_epoch, stage.first_step, stage.steps_per_epoch, stage.batch_size)
        if not legs or legs[-1].batch_size != leg.batch_size:
            legs.append(leg)
    return legs
