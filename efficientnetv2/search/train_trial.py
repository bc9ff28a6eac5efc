"""Trains and times the network of one trial, in the trial's own process.

The training is that of ``--mode=traineval``, so it resumes from its run directory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from efficientnetv2.data.open_data import open_data
from efficientnetv2.evaluation.model_cost import training_step
from efficientnetv2.evaluation.training_session import open_training
from efficientnetv2.runtime.checkpoint_store import require_usable
from efficientnetv2.runtime.lock import training_lock
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search.messages import EpochReport, TrialJob
from efficientnetv2.search.step_timer import StepTime, time_step
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.early_stop import results
from efficientnetv2.train.progressive import Stage
from hparams.errors import UserError
from hparams.label_kinds import best_metric


@dataclasses.dataclass(frozen=True)
class TrialTraining:
    """The outcome of a trial's training; the fields are those of ``messages.TrialResult``."""

    accuracy: float
    parameters: int
    epochs: int
    pruned: bool


class _PrunedError(UserError):
    """Ends a training after an epoch; its state is saved."""


class _EpochReporter(TrainingCallback):
    """Reports the accuracy of each epoch, also of the epochs before a restart."""

    parameters = 0  # of the network; set once it is built

    def __init__(
        self,
        run: RunDirectory,
        *,
        metric: str,
        seconds: float | None,
        should_prune: Callable[[EpochReport], bool],
    ) -> None:
        self._run = run
        self._metric = metric
        self._seconds = seconds
        self._should_prune = should_prune

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        del step, plan
        for line in self._run.metrics():
            self.epoch(line)

    def epoch(self, line: dict[str, Any]) -> None:
        accuracy = max(results(line, self._metric))
        epoch = EpochReport(line["epoch"], accuracy, self._seconds, self.parameters)
        if self._should_prune(epoch):
            raise _PrunedError("pruned")


def train_trial(
    job: TrialJob,
    *,
    seconds: float | None,
    should_prune: Callable[[EpochReport], bool],
    stop: StopRequest,
) -> TrialTraining:
    """Trains to the end, or until ``should_prune`` returns true.

    Args:
      job: the trial.
      seconds: time of a training step, for the report of each epoch; None: it was not timed.
      should_prune: called with the report of each epoch; returns whether to end the training.
      stop: the signals that stop the training.

    Raises:
      Stopped: if a signal came; the training is saved.
    """
    run = RunDirectory(job.folder)
    metric = best_metric(job.config)
    reporter = _EpochReporter(run, metric=metric, seconds=seconds, should_prune=should_prune)
    with training_lock(run.lock_file):
        run.require_same(job.config)
        require_usable(run)
        with open_training(
            job.config,
            run,
            stop=stop,
            callback=lambda _: reporter,
            data_run=RunDirectory(job.data_folder),
        ) as session:
            reporter.parameters = session.train_state.model.count_params()
            pruned = False
            try:
                stopped_by = session.train(validate=True, keep_best=False)
            except _PrunedError:
                stopped_by, pruned = None, True
            if stopped_by is not None:
                raise Stopped(stopped_by)
            last = run.metrics()[-1]
            accuracy = max(results(last, metric))
            return TrialTraining(accuracy, reporter.parameters, last["epoch"], pruned)


def time_training(job: TrialJob) -> StepTime:
    """Times the training step of a network, with fresh weights: they do not affect the time."""
    config, _ = open_data(job.config, RunDirectory(job.data_folder))  # sets the number of classes
    loop = config.runtime.steps_per_loop
    timed = time_step(training_step(config), steps=job.timed_steps, max_spread=job.max_spread)
    return dataclasses.replace(timed, seconds=timed.seconds / loop)
