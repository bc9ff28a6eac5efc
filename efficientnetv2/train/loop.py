"""Trains a network: the outer loop over stages and epochs, with records, checkpoints and resuming.

Orbit's controller runs one epoch at a time; validation, records and checkpoints follow each epoch.
A stop request ends the loop between two steps, after a checkpoint has been saved.

Training resumes from the newest checkpoint alone. The record of an epoch is written before its
checkpoint; so after a crash, records later than the newest checkpoint are removed, and these epochs
are trained and recorded again. A checkpoint from the end of an epoch whose metrics are not reset
belongs to an epoch that has not been validated and recorded yet.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any, NoReturn

import orbit
import tensorflow as tf

from efficientnetv2.data.bad_images import SkippedLog
from efficientnetv2.data.sources import Source
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.runtime.atomic_write import WriteError
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.checkpoint_manager import CheckpointManager
from efficientnetv2.train.early_stop import epochs_without_better
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.nan_guard import DivergedError, NanGuard, likely_cause
from efficientnetv2.train.profiler import build_profiler
from efficientnetv2.train.progressive import (
    build_settings,
    build_stages,
    phases_of,
    stage_at,
    validation_size,
)
from efficientnetv2.train.step import build_trainer
from efficientnetv2.train.strategy import distribute_training, needs_fixed_shapes
from efficientnetv2.train.tensorboard_writer import TensorBoardWriter
from efficientnetv2.train.time_estimate import RunEstimate, RunEstimator, StepClock
from efficientnetv2.train.train_state import TrainState, build_train_state
from efficientnetv2.train.workers import Workers, build_workers
from efficientnetv2.train.workload import build_workload
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import best_metric

_MAX_LISTED = 5  # names of skipped images in a record


class Training:
    """A training run; it resumes if its run directory has a checkpoint.

    Args:
      config: checked by ``hparams.resolve.require_trainable``.
      source: the data set.
      run: the run directory, after its method ``start``.
      callback: is called as training progresses; None: not needed.
      stop: handles the signals that stop training; None: one that handles them during ``run``.
      workers: the devices and processes; None: those that the config selects.
      resume_from: the run directory that holds the checkpoints, if that is not ``run``.

    Attributes:
      train_state: the network, its optimizer and everything else that is trained.
      trainer: Orbit's inner loop.
      strategy: the devices.
      plan: the stages.
      settings: image size, batch size and strength of regularisation by step.
    """

    _input_shapes: dict[str, float] | None = None  # image and batch size when the input was set
    _num_reported_bad_images = 0
    _clock: StepClock | None = None  # of the chief, while the training runs

    def __init__(
        self,
        config: Config,
        source: Source,
        *,
        run: RunDirectory,
        callback: TrainingCallback | None = None,
        stop: StopRequest | None = None,
        workers: Workers | None = None,
        resume_from: RunDirectory | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._run = run
        self._callback = callback or TrainingCallback()
        self._stop = stop or StopRequest()
        self._workers = workers or build_workers(config)
        self.plan = build_stages(config, num_images=source.num_images(config.data.train_split))
        self._end_step = self.plan[-1].end_step
        self.settings = build_settings(config, self.plan)
        self._skipped = SkippedLog(run.bad_images_file)
        self._input = build_training_input(
            config,
            source,
            phases=phases_of(self.plan),
            settings=self.settings,
            skipped=self._skipped,
            microbatches=config.train.accumulate,
        )
        self._rate = build_learning_rate(config, self.plan)
        tf.keras.utils.set_random_seed(config.train.seed)
        self.strategy = strategy = self._workers.strategy
        with strategy.scope():
            self.train_state: TrainState = build_train_state(config, self._rate)
        self.trainer = build_trainer(
            config,
            self.train_state,
            strategy,
            settings=self.settings,
            after_step=self._after_step,
        )
        self._profiler = build_profiler(config, run.tensorboard)
        self._nan_guard = NanGuard(self.train_state, self._describe_divergence)
        self._tensorboard = TensorBoardWriter(run.tensorboard)
        self._checkpoints = CheckpointManager(
            self.train_state, run, keep=config.runtime.keep_checkpoint_max
        )
        restored = self._checkpoints.restore(resume_from)
        self._saved = self._position() if restored else None
        self._controller = orbit.Controller(
            global_step=self.train_state.context.step,
            trainer=self.trainer,
            steps_per_loop=lambda step: self._epoch_end(int(step)) - step,
            strategy=strategy,
        )

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or ``train.patience`` has run out."""
        patience = self._config.train.patience
        return self.train_state.step >= self._end_step or (
            0 < patience <= epochs_without_better(self._run.metrics(), best_metric(self._config))
        )

    @property
    def validation_size(self) -> int:
        """Image size, pixels, at which the network is evaluated after the epoch that has ended."""
        return validation_size(self._config, stage_at(self.plan, self.train_state.step - 1))

    def run(self, *, after_epoch: Callable[[], dict[str, float]] | None = None) -> int | None:
        """Trains to the end, or until a signal asks to stop.

        Args:
          after_epoch: called after each epoch; the values it returns become part of the epoch's
            record.

        Returns:
          None if training is finished, or the number of the signal that stopped it, after a
          checkpoint has been saved.

        Raises:
          WriteError: for example if the disk is full; nothing more is saved.
          DivergedError: if the loss or a weight is not finite; nothing more is saved.
          Stopped: if a signal came after the last checkpoint.
        """
        with self._stop.listening(), self._stop.deferred():
            step = self.train_state.step
            self._run.forget_metrics_after(step - 1 if self._is_epoch_unrecorded() else step)
            self._callback.begin(step=step, plan=self.plan)
            self._clock = self._build_clock(validates=after_epoch is not None)
            self._profiler.after(step)
            try:
                self._run_stages(after_epoch)
            except Stopped as stopped:
                self._save()
                return stopped.number
            except (WriteError, DivergedError):
                raise
            except (UserError, BrokenPipeError):  # from after_epoch, or a callback that prints
                self._save_if_alone()
                raise
            except tf.errors.OpError as error:
                self._raise_cause(error)
            finally:
                self._clear_input()
                self._profiler.stop()
                self._callback.end()
        self._stop.check()  # for a signal after the last step, while the input was closed
        return None

    def _build_clock(self, *, validates: bool) -> StepClock | None:
        if not self._workers.is_chief:  # the others report nothing
            return None
        estimator = RunEstimator(
            self._config,
            self._source,
            self.train_state,
            build_workload(self._config, self._source, validates=validates),
            folder=self._run.path,
            num_replicas=self.strategy.num_replicas_in_sync,
        )
        return StepClock(estimator, wait=self.train_state.metrics.local_result)

    def _report(self, estimate: RunEstimate | None) -> None:
        if estimate is not None:
            self._callback.estimate(estimate)

    def _epoch_end(self, step: int) -> int:
        """Returns the first step after the epoch that ``step`` belongs to."""
        stage = stage_at(self.plan, step)
        done = (step - stage.first_step) // stage.steps_per_epoch
        return stage.first_step + (done + 1) * stage.steps_per_epoch

    def _is_epoch_unrecorded(self) -> bool:
        """Returns whether an epoch has just ended that is not validated and recorded yet."""
        step = self.train_state.step
        sums = self.train_state.metrics.variables
        return (
            step > 0
            and step == self._epoch_end(step - 1)
            and any(float(tf.convert_to_tensor(variable)) != 0 for variable in sums)
        )

    def _run_stages(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        if self._is_epoch_unrecorded():  # the time it took is not known any more
            self._finish_epoch(after_epoch, steps=0, seconds=0.0)
        stage = None
        while not self.is_finished:
            if stage != stage_at(self.plan, self.train_state.step):
                stage = stage_at(self.plan, self.train_state.step)
                self._callback.stage(stage)
                if self._clock is not None:
                    self._clock.begin_stage()
            self._run_epoch(after_epoch)

    def _run_epoch(self, after_epoch: Callable[[], dict[str, float]] | None) -> None:
        start, first_step = time.monotonic(), self.train_state.step
        end_step = self._epoch_end(first_step)
        self._set_input(first_step)
        # Suppresses the line that Orbit prints for each loop; our callback prints its own.
        with contextlib.redirect_stdout(io.StringIO()):
            self._controller.train(end_step, checkpoint_at_completion=False)
        seconds = time.monotonic() - start
        self._finish_epoch(after_epoch, steps=end_step - first_step, seconds=seconds)

    def _finish_epoch(
        self,
        after_epoch: Callable[[], dict[str, float]] | None,
        *,
        steps: int,
        seconds: float,
    ) -> None:
        """Validates, records and saves after the last step of an epoch."""
        self._nan_guard.check()
        end_step = self.train_state.step
        stage = stage_at(self.plan, end_step - 1)
        epoch = stage.first_epoch + (end_step - stage.first_step) // stage.steps_per_epoch
        line = {
            "epoch": epoch,
            "step": end_step,
            "stage": stage.index + 1,
            **self.settings.mean(end_step - stage.steps_per_epoch, end_step),
            "learning_rate": float(self._rate(tf.constant(end_step - 1))),
            **self.train_state.metrics.result(),
            "penalty": float(self.train_state.objective.penalty(tf.constant(end_step - 1))),
            "images_per_second": steps * stage.batch_size / seconds if seconds else 0.0,
            "seconds": seconds,
        }
        line.update(self._after_epoch(after_epoch) if after_epoch else {})
        self._record(line)
        if epoch % self._config.runtime.save_checkpoint_epochs == 0 or self.is_finished:
            self._save()
        self._raise_if_stopped()

    def _set_input(self, step: int) -> None:
        """Sets the trainer's input; sets it anew if devices need fixed shapes and these change."""
        settings = self.settings.mean(step, step + 1)
        shapes = {name: settings[name] for name in ("image_size", "batch_size")}
        has_changed = needs_fixed_shapes(self.strategy) and shapes != self._input_shapes
        if self._input_shapes is None or has_changed:
            self.trainer.set_input(distribute_training(self.strategy, self._input, start_step=step))
            self._input_shapes = shapes

    def _clear_input(self) -> None:
        self.trainer.clear_input()
        self._input_shapes = None

    def _record(self, line: dict[str, Any]) -> None:
        bad_images = self._skipped.names()
        if bad_images:
            names = bad_images[:_MAX_LISTED]
            line.update({"bad_images": len(bad_images), "bad_image_names": names})
        self._run.append_metrics(line)
        self.train_state.metrics.reset()
        self._tensorboard.write(line)
        self._callback.epoch(line)
        if len(bad_images) > self._num_reported_bad_images:
            self._num_reported_bad_images = len(bad_images)
            self._callback.bad_images(bad_images)

    def _after_step(self, step: int) -> None:
        self._nan_guard.record(step)
        self._callback.step(step, self.train_state.metrics.local_result)
        if self._clock is not None:
            self._report(self._clock.after(step))
            if step == self._epoch_end(step - 1):  # what follows an epoch's last step is no step
                self._clock.pause(step)
        self._profiler.after(step)
        # After the last step of an epoch, the epoch is recorded before training may stop.
        if step < self._epoch_end(step - 1):
            self._raise_if_stopped(step)

    def _raise_if_stopped(self, step: int | None = None) -> None:
        number = self._workers.stop_signal(self._stop.number, step=step)
        if number is not None:
            raise Stopped(number)

    def _raise_cause(self, error: tf.errors.OpError) -> NoReturn:
        """Saves the finished steps, and names the image if one caused TensorFlow's error."""
        if self._workers.is_worker_loss(error):
            raise error
        if self._config.train.accumulate == 1:  # else the sums include part of an unfinished step
            self._save_if_alone()
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError(self._out_of_memory()) from None
        self._input.raise_bad_image(error, step=self.train_state.step, shard=self._workers.shard)

    def _after_epoch(self, after_epoch: Callable[[], dict[str, float]]) -> dict[str, float]:
        try:
            return after_epoch()
        except tf.errors.ResourceExhaustedError:
            raise UserError(
                f"the evaluation of {self._config.eval.batch_size} images at once needs more "
                "memory than the device has: give a smaller eval.batch_size, and the training goes "
                "on"
            ) from None

    def _out_of_memory(self) -> str:
        stage = stage_at(self.plan, min(self.train_state.step, self.plan[-1].end_step - 1))
        elsewhere = (
            "; this run keeps its settings, so go on in another --model_dir, with "
            f"--weights={self._run.path}"
        )
        return (
            f"a step of {stage.batch_size} images of {stage.image_size} px needs more memory than "
            "the device has: give a smaller --batch_size (auto finds the largest), or "
            f"train.accumulate={2 * self._config.train.accumulate}, which computes each step in "
            f"parts{elsewhere if self.train_state.step else ''}"
        )

    def _save_if_alone(self) -> None:
        """Saves after an error; not with several workers, as the others would have to take part.

        Nothing is saved before the first step, so that the next start may have other settings.
        """
        if self._workers.is_alone and self.train_state.step:
            self._save()

    def _position(self) -> tuple[int, bool]:
        """Returns what identifies a checkpoint: its step, and whether its epoch is unrecorded."""
        return self.train_state.step, self._is_epoch_unrecorded()

    def _save(self) -> None:
        position = self._position()
        if position != self._saved:
            self._nan_guard.check_weights()
            self._checkpoints.save()
            self._saved = position

    def _describe_divergence(self, step: int) -> str:
        """Returns the likely cause of a bad loss, and which checkpoint is left."""
        cause = likely_cause(
            self.train_state.model,
            self._input.batches(start_step=step - 1),
            rate=float(self._rate(tf.constant(step - 1))),
        )
        newest = (
            f"its newest checkpoint of step {self._saved[0]}" if self._saved else "no checkpoint"
        )
        return f"{cause}; '{self._run.path}' has {newest}"
