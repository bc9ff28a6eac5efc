"""Runs a search for networks or settings: draws trials, trains them, and records their rewards.

This process draws the trials and updates the study; each trial runs in a process of its own. The
result of a trial is written to its folder before it goes to the study, so that a search that is
killed in between does not train the trial again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import time
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import Trial, TrialState

from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.environment import device_name
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search.attributes import DEVICE, ERROR, RELATIVE_TIME, RESULT, REWARD, SAME_AS
from efficientnetv2.search.claims import Claims, counted_trials
from efficientnetv2.search.messages import (
    RESULT_FILE,
    EpochReport,
    TrialFailure,
    TrialJob,
    TrialResult,
)
from efficientnetv2.search.outcome import report_search, trial_text
from efficientnetv2.search.reward import TrialReward
from efficientnetv2.search.runner import run_trial
from efficientnetv2.search.samplers import build_sampler
from efficientnetv2.search.settings_space import SettingsSpace, build_settings_space
from efficientnetv2.search.space import Space, build_space
from efficientnetv2.search.storage import require_startable, save_search_config
from efficientnetv2.search.study import (
    build_objective,
    open_study,
    read_baseline,
    record_baseline,
)
from hparams.config import Config
from hparams.errors import UserError
from hparams.overrides import ConfigError
from hparams.resolve import with_overrides
from hparams.search_space import trial_settings

_PAUSE_SECONDS = 2.0


def search(config: Config, folder: pathlib.Path, stop: StopRequest) -> list[dict[str, Any]]:
    """Runs trials until all processes together have finished ``search.trials`` of them.

    Args:
      config: of the search; its other sections configure the training of each trial.
      folder: the run directory.
      stop: the signals that stop the search; the trial that is running is saved.

    Returns:
      The rows of trials.csv, those with the highest rewards first.

    Raises:
      UserError: if the study cannot be opened, the baseline cannot be trained, or no trial
        succeeded.
      Stopped: if a signal came.
    """
    require_startable(config, folder)
    space = build_settings_space(config) if config.search.space else build_space(config)
    sampler = build_sampler(sampler_name(config), space.choices, seed=config.search.seed)
    study = open_study(config, folder, sampler=sampler)
    save_search_config(config, folder)
    engine = Engine(config, space, study, folder=folder, stop=stop)
    engine.announce()
    try:
        engine.measure_baseline()
        engine.run()
    except Stopped:
        print(f"saved in {folder}; the same command goes on from there", flush=True)
        raise
    return report_search(study, config, space, folder=folder)


def sampler_name(config: Config) -> str:
    """Returns ``search.sampler``, or which one a search takes where it is not set."""
    return config.search.sampler or ("tpe" if config.search.space else "rl")


class Engine:
    """Runs the trials of one process of a search.

    Args:
      config: of the search.
      space: the networks or settings to choose from.
      study: the open study.
      folder: the run directory; it must exist.
      stop: the signals that stop the search.
    """

    def __init__(
        self,
        config: Config,
        space: Space | SettingsSpace,
        study: Study,
        *,
        folder: pathlib.Path,
        stop: StopRequest,
    ) -> None:
        self._config, self._space, self._study = config, space, study
        self._folder, self._stop = folder, stop
        self._device = device_name()
        self._claims = Claims(study, folder, limit=config.search.trials, choices=space.choices)
        self._baseline: dict[str, Any] = {}
        self._objective: TrialReward | None = None

    def announce(self) -> None:
        """Prints what will be searched, and how many trials there are already."""
        search, done = self._config.search, len(counted_trials(self._study))
        print(
            f"{self._space.summary(self._config)}\n"
            f"{search.trials} trials of {search.epochs} epochs at {search.isize} px on "
            f"{self._config.data.ds_name}, sampler {sampler_name(self._config)}, "
            f"in {self._folder}",
            flush=True,
        )
        if done:
            print(f"going on: {done} trials are in the study", flush=True)

    def measure_baseline(self) -> None:
        """Trains what the trials are compared with, or reads its result; networks are also timed.

        Raises:
          UserError: if it cannot be trained: then no trial could be.
        """
        name, device = self._space.baseline, self._device if self._space.is_timed else None
        with self._claims.exclusive():
            baseline = read_baseline(self._study, device=device)
            if baseline is None:
                job = self._build_job(self._folder / name, self._space.baseline_overrides())
                end = _load_result(job) or run_trial(
                    job, stop=self._stop, after_epoch=lambda _: False
                )
                if isinstance(end, TrialFailure):
                    raise UserError(f"{self._space.baseline_text} cannot be trained: {end.reason}")
                self._save_result(job, end)
                record_baseline(self._study, end, device=self._device)
                baseline = read_baseline(self._study, device=device)
        assert baseline is not None
        self._baseline, self._objective = baseline, build_objective(self._config, baseline)
        timed = ""
        if self._space.is_timed:
            milliseconds, spread = 1e3 * baseline["seconds"], 100 * baseline["spread"]
            timed = f"{milliseconds:.1f} ms a step (spread {spread:.0f}%), "
        print(
            f"{name}: accuracy {baseline['accuracy']:.4f}, {timed}"
            f"{baseline['parameters']:,} parameters",
            flush=True,
        )

    def run(self) -> None:
        """Runs trials until all are finished, also those of other processes."""
        is_waiting = False
        while True:
            self._stop.check()
            with self._claims.next_trial() as claim:
                if claim is not None:
                    self._run_claim(*claim)
                    is_waiting = False
                    continue
            if self._claims.is_done():
                return
            if not is_waiting:
                print("waiting for trials of other processes", flush=True)
                is_waiting = True
            time.sleep(_PAUSE_SECONDS)

    def _run_claim(self, trial: Trial, is_resumed: bool) -> None:
        if is_resumed:
            print(f"going on with trial {trial.number}", flush=True)
        # Another machine may have given the trial up meanwhile.
        with contextlib.suppress(UpdateFinishedTrialError):
            end = self._find_duplicate(trial) or self._train(trial)
            self._record_end(trial, end)
        print(trial_text(self._study, self._config, self._space, trial.number), flush=True)

    def _train(self, trial: Trial) -> TrialResult | TrialFailure:
        try:
            overrides = self._space.overrides(trial.params)
            job = self._build_job(self._claims.folder_of(trial), overrides)
        except ConfigError as error:  # settings that are valid one by one
            return TrialFailure(str(error))
        end = _load_result(job) or run_trial(
            job,
            stop=self._stop,
            after_epoch=lambda epoch: self._report_epoch(trial, epoch),
            meanwhile=lambda: self._claims.send_heartbeat(trial),
        )
        if isinstance(end, TrialResult):
            self._save_result(job, end)
        elif end.is_fatal:
            raise UserError(end.reason)
        return end

    def _find_duplicate(self, trial: Trial) -> TrialResult | None:
        """Returns the result of an earlier trial of the same choices, which saves a training."""
        for other in counted_trials(self._study):
            if (
                other.state == TrialState.COMPLETE
                and other.params == trial.params
                and other.user_attrs.get(DEVICE) == self._device
            ):
                trial.set_user_attr(SAME_AS, other.number)
                return TrialResult(**other.user_attrs[RESULT])
        return None

    def _compute_reward(self, result: TrialResult | EpochReport) -> float:
        assert self._objective is not None
        return self._objective(
            result.accuracy, seconds=result.seconds, parameters=result.parameters
        )

    def _report_epoch(self, trial: Trial, epoch: EpochReport) -> bool:
        """Reports the reward after an epoch to the study; returns whether to prune the trial."""
        reported = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch.number not in reported:  # a resumed trial repeats its earlier epochs
            trial.report(self._compute_reward(epoch), epoch.number)
        is_last = epoch.number >= self._config.search.epochs
        return not is_last and bool(trial.should_prune())

    def _record_end(self, trial: Trial, end: TrialResult | TrialFailure) -> None:
        """Records the end of a trial: first its attributes, then its state.

        A finished trial cannot be changed any more.
        """
        if isinstance(end, TrialFailure):
            trial.set_user_attr(ERROR, end.reason)
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            return
        reward = self._compute_reward(end)
        trial.set_user_attr(DEVICE, self._device)
        trial.set_user_attr(RESULT, dataclasses.asdict(end))
        if end.seconds is not None:
            trial.set_user_attr(RELATIVE_TIME, end.seconds / self._baseline["seconds"])
        trial.set_user_attr(REWARD, reward)
        if end.pruned:
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self._study.tell(trial, reward, skip_if_finished=True)

    def _build_job(self, folder: pathlib.Path, overrides: dict[str, Any]) -> TrialJob:
        search = self._config.search
        return TrialJob(
            config=trial_config(self._config, overrides),
            folder=folder,
            data_folder=self._folder,
            # The time of a step on another device says nothing of that on this one.
            identity={
                **self._space.identity(overrides),
                **({"device": self._device} if self._space.is_timed else {}),
            },
            timed_steps=search.timed_steps if self._space.is_timed else 0,
            max_spread=search.max_spread,
        )

    def _save_result(self, job: TrialJob, result: TrialResult) -> None:
        text = json.dumps({**job.identity, **dataclasses.asdict(result)})
        replace_text(job.folder / RESULT_FILE, f"{text}\n")
        if not self._config.search.keep_weights:
            shutil.rmtree(RunDirectory(job.folder).checkpoints, ignore_errors=True)


def trial_config(config: Config, overrides: dict[str, Any]) -> Config:
    """Returns the config of a trial's training.

    Args:
      config: of the search.
      overrides: config key -> value of what the trial has drawn.

    Raises:
      ConfigError: if these values cannot be used together.
    """
    return with_overrides(config, {**overrides, **trial_settings(config.search)})


def _load_result(job: TrialJob) -> TrialResult | None:
    """Returns the result that a trial saved before its search was killed, if there is one."""
    try:
        values = json.loads((job.folder / RESULT_FILE).read_text(encoding="utf-8"))
        identity = {name: values.pop(name) for name in job.identity}
        return TrialResult(**values) if identity == job.identity else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
