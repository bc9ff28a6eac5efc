"""A configuration, a data set and a run directory in; a trained network and its record out.

The outer loop: Orbit's controller runs one epoch at a time; between epochs come stages, records and
saves. A stop request ends it between two steps, saved.

A checkpoint is what a training goes on from; everything else follows from it. A record is written
before the checkpoint that follows it, so records after the newest checkpoint are dropped and
written again. A checkpoint at an epoch's end whose metrics are not reset is of an epoch that is not
yet validated and recorded.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any, NoReturn

import orbit
import tensorflow as tf

from efficientnetv2.data.broken import SkippedLog
from efficientnetv2.data.pipeline import build_training_input
from efficientnetv2.data.sources import Source
from efficientnetv2.train.divergence import DivergedError, LossWatch, likely_cause
from efficientnetv2.train.durable import WriteError
from efficientnetv2.train.learner import Learner, build_learner
from efficientnetv2.train.observer import Observer
from efficientnetv2.train.patience import epochs_without_better
from efficientnetv2.train.profile import build_profile
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import Checkpoints
from efficientnetv2.train.schedules import build_learning_rate
from efficientnetv2.train.sizes import build_settings, legs_of
from efficientnetv2.train.stages import build_stages, stage_at
from efficientnetv2.train.step import build_trainer
from efficientnetv2.train.stopping import Stopped, StopRequest
from efficientnetv2.train.strategy import distribute_training, needs_fixed_shapes
from efficientnetv2.train.summaries import Summaries
from efficientnetv2.train.workers import Workers, build_workers
from hparams.errors import UserError
from hparams.resolve import Config

_NAMES = 5  # of images that were left out, in a record


class Training:
    """One training, resumed from its run directory if there is a checkpoint.

    Args:
      config: checked by ``hparams.resolve.require_trainable``.
      source: the data set.
      run: the run directory, started.
      observer: is told of everything.
      stop: the signals that stop it; None: it listens by itself, while it runs.
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
        stop: StopRequest | None = None,
        workers: Workers | None = None,
        resume_from: RunDirectory | None = None,
    ) -> None:
        self._config = config
        self._run = run
        self._observer = observer or Observer()
        self._stop = stop or StopRequest()
        self._workers = workers or build_workers(config)
        self.plan = build_stages(config, num_images=source.num_images(config.data.train_split))
        self._end_step = self.plan[-1].end_step
        self.settings = build_settings(config, self.plan)
        self._skipped = SkippedLog(run.bad_images_file)
        self._input = build_training_input(
            config,
            source,
            legs=legs_of(self.plan),
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
        self._watch = LossWatch(self.learner, self._explain)
        self._summaries = Summaries(run.tensorboard)
        self._checkpoints = Checkpoints(self.learner, run, keep=config.runtime.keep_checkpoint_max)
        restored = self._checkpoints.restore(resume_from)
        self._saved = self._place() if restored else None
        self._controller = orbit.Controller(
            global_step=self.learner.state.step,
            trainer=self.trainer,
            steps_per_loop=lambda step: self._epoch_end(int(step)) - step,
            strategy=strategy,
        )

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or ``train.patience`` is at its end."""
        patience = self._config.train.patience
        return self.learner.step >= self._end_step or (
            0 < patience <= epochs_without_better(self._run.metrics())
        )

    def run(self, *, after_epoch: Callable[[], dict[str, float]] | None = None) -> int | None:
        """Trains to the end, or until a signal asks to stop.

        Args:
          after_epoch: called after each epoch; what it returns joins the epoch's record.

        Returns:
          None when it is finished, or the number of the signal that stopped it (saved).

        Raises:
          WriteError: if the disk is full, for example; nothing more is saved.
          DivergedError: if the loss is not finite; nothing more is saved.
        """
        with self._stop.listening(), self._stop.deferred():
            step = self.learner.step
            self._run.forget_metrics_after(step - 1 if self._epoch_is_open() else step)
            self._observer.begin(step=step, plan=self.plan)
            self._profile.after(step)
            try:
                self._run_stages(after_epoch)
            except Stopped as stopped:
                self._save()
                return stopped.number
            except (WriteError, DivergedError):
                raise
            except (UserError, BrokenPipeError):  # of after_epoch; of an observer that prints
                self._save_if_alone()
                raise
            except tf.errors.OpError as error:
                self._name_cause(error)
            finally:
                self._profile.stop()
                self._observer.end()
        return None

    def _epoch_end(self, step: int) -> int:
        """The first step after the epoch that ``step`` belongs to."""
        stage = stage_at(self.plan, step)
        done = (step - stage.first_step) // stage.steps_per_epoch
        return stage.first_step + (done + 1) * stage.steps_per_epoch

    def _epoch_is_open(self) -> bool:
        """Whether an epoch's steps are done, and it is not yet validated and recorded."""
        step = self.learner.step
        sums = self.learner.metrics.variables
        return (
            step > 0
            and step == self._epoch_end(step - 1)
            and any(float(tf.convert_to_tensor(variable)) != 0 for variable in sums)
        )

    def _run_stages(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        if self._epoch_is_open():  # its time was not kept
            self._close_epoch(after_epoch, steps=0, seconds=0.0)
        stage = None
        while not self.is_finished:
            if stage != stage_at(self.plan, self.learner.step):
                stage = stage_at(self.plan, self.learner.step)
                self._observer.stage(stage)
            self._run_epoch(after_epoch)

    def _run_epoch(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        start, first_step = time.monotonic(), self.learner.step
        end_step = self._epoch_end(first_step)
        self._feed(first_step)
        # Orbit prints a line a loop; ours come from the observer.
        with contextlib.redirect_stdout(io.StringIO()):
            self._controller.train(end_step, checkpoint_at_completion=False)
        seconds = time.monotonic() - start
        self._close_epoch(after_epoch, steps=end_step - first_step, seconds=seconds)

    def _close_epoch(
        self,
        after_epoch: Callable[[], dict[str, float]] | None,
        *,
        steps: int,
        seconds: float,
    ) -> None:
        """Validates, records and saves after the last step of an epoch."""
        self._watch.check()
        end_step = self.learner.step
        stage = stage_at(self.plan, end_step - 1)
        epoch = stage.first_epoch + (end_step - stage.first_step) // stage.steps_per_epoch
        line = {
            "epoch": epoch,
            "step": end_step,
            "stage": stage.index + 1,
            **self.settings.mean(end_step - stage.steps_per_epoch, end_step),
            "learning_rate": float(self._rate(tf.constant(end_step - 1))),
            **self.learner.metrics.result(),
            "images_per_second": steps * stage.batch_size / seconds if seconds else 0.0,
            "seconds": seconds,
        }
        line.update(after_epoch() if after_epoch else {})
        self._record(line)
        if epoch % self._config.runtime.save_checkpoint_epochs == 0 or self.is_finished:
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
        self.learner.metrics.reset()
        self._summaries.write(line)
        self._observer.epoch(line)
        if len(bad) > self._bad_images_told:
            self._bad_images_told = len(bad)
            self._observer.bad_images(bad)

    def _after_step(self, step: int) -> None:
        self._watch.note(step)
        self._observer.step(step, self.learner.metrics.here)
        self._profile.after(step)
        # After an epoch's last step its record is written first.
        if step < self._epoch_end(step - 1):
            self._stop_if_asked(step)

    def _stop_if_asked(self, step: int | None = None) -> None:
        number = self._workers.stop_signal(self._stop.number, step=step)
        if number is not None:
            raise Stopped(number)

    def _name_cause(self, error: tf.errors.OpError) -> NoReturn:
        """Saves what is whole, and raises an error for people where TensorFlow's is none."""
        if self._workers.lost(error):
            raise error
        if self._config.train.accumulate == 1:  # else parts of the step have been counted
            self._save_if_alone()
        self._input.raise_bad_image(error, step=self.learner.step, share=self._workers.share)

    def _save_if_alone(self) -> None:
        if self._workers.alone:  # or others, who know of no error, would have to take part
            self._save()

    def _place(self) -> tuple[int, bool]:
        """The one that a checkpoint is of: steps done, and whether their epoch is open."""
        return self.learner.step, self._epoch_is_open()

    def _save(self) -> None:
        place = self._place()
        if place != self._saved:
            self._watch.check_weights()
            self._checkpoints.save()
            self._saved = place

    def _explain(self, step: int) -> str:
        cause = likely_cause(
            self.learner.model,
            self._input.batches(start_step=step - 1),
            rate=float(self._rate(tf.constant(step - 1))),
        )
        newest = (
            f"its newest checkpoint of step {self._saved[0]}" if self._saved else "no checkpoint"
        )
        return f"{cause}; '{self._run.path}' has {newest}"
