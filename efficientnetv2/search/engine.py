"""Runs an architecture search: draws trials, trains them, and records their rewards.

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

from efficientnetv2.reporting.search_report import trial_line
from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search.attributes import DEVICE, ERROR, RELATIVE_TIME, RESULT, REWARD, SAME_AS
from efficientnetv2.search.claims import Claims, counted_trials
from efficientnetv2.search.device import device_name
from efficientnetv2.search.messages import (
    RESULT_FILE,
    EpochReport,
    TrialFailure,
    TrialJob,
    TrialResult,
)
from efficientnetv2.search.outcome import report_search, trial_rows
from efficientnetv2.search.reward import Reward
from efficientnetv2.search.runner import run_trial
from efficientnetv2.search.samplers import build_sampler
from efficientnetv2.search.space import (
    Space,
    architecture_text,
    build_space,
)
from efficientnetv2.search.storage import require_startable, save_search_config
from efficientnetv2.search.study import (
    build_reward,
    open_study,
    read_backbone,
    record_backbone,
)
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import with_overrides

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
      UserError: if the study cannot be opened, the backbone cannot be trained, or no trial
        succeeded.
      Stopped: if a signal came.
    """
    require_startable(config, folder)
    space = build_space(config)
    sampler = build_sampler(config.search.sampler, space.choices, seed=config.search.seed)
    study = open_study(config, folder, sampler=sampler)
    save_search_config(config, folder)
    engine = Engine(config, space, study, folder=folder, stop=stop)
    engine.announce()
    try:
        engine.measure_backbone()
        engine.run()
    except Stopped:
        print(f"saved in {folder}; the same command goes on from there", flush=True)
        raise
    return report_search(study, config, space, folder=folder)


class Engine:
    """Runs the trials of one process of a search.

    Args:
      config: of the search.
      space: the networks to choose from.
      study: the open study.
      folder: the run directory; it must exist.
      stop: the signals that stop the search.
    """

    def __init__(
        self,
        config: Config,
        space: Space,
        study: Study,
        *,
        folder: pathlib.Path,
        stop: StopRequest,
    ) -> None:
        self._config, self._space, self._study = config, space, study
        self._folder, self._stop = folder, stop
        self._device = device_name()
        self._claims = Claims(study, folder, limit=config.search.trials, choices=space.choices)
        self._reward: Reward | None = None

    def announce(self) -> None:
        """Prints what will be searched, and how many trials there are already."""
        search, done = self._config.search, len(counted_trials(self._study))
        name = search.backbone[0] if "_" not in search.backbone[0] else "own block strings"
        print(
            f"{self._space.size:,} networks of {len(self._space.backbone.stages)} stages, around "
            f"{name} ({architecture_text(self._space.backbone)})\n"
            f"{search.trials} trials of {search.epochs} epochs at {search.isize} px on "
            f"{self._config.data.ds_name}, sampler {search.sampler}, in {self._folder}",
            flush=True,
        )
        if done:
            print(f"going on: {done} trials are in the study", flush=True)

    def measure_backbone(self) -> None:
        """Trains and times the backbone, to which rewards are relative, or reads its result.

        Raises:
          UserError: if the backbone cannot be trained: then no trial could be.
        """
        with self._claims.exclusive():
            backbone = read_backbone(self._study, device=self._device)
            if backbone is None:
                network = self._space.backbone.overrides()
                job = self._build_job(self._folder / "backbone", network)
                end = _load_result(job) or run_trial(
                    job, stop=self._stop, after_epoch=lambda _: False
                )
                if isinstance(end, TrialFailure):
                    raise UserError(f"the backbone cannot be trained: {end.reason}")
                self._save_result(job, end)
                record_backbone(self._study, end, device=self._device)
                backbone = read_backbone(self._study, device=self._device)
        assert backbone is not None
        self._reward = build_reward(self._config, backbone)
        print(
            f"backbone: accuracy {backbone['accuracy']:.4f}, "
            f"{1e3 * backbone['seconds']:.1f} ms a step (spread {100 * backbone['spread']:.0f}%), "
            f"{backbone['parameters']:,} parameters",
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
        rows = trial_rows(self._study, self._config, self._space)
        print(trial_line(rows, trial.number, of=self._config.search.trials), flush=True)

    def _train(self, trial: Trial) -> TrialResult | TrialFailure:
        job = self._build_job(self._claims.folder_of(trial), self._space.overrides(trial.params))
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
        """Returns the result of an earlier trial of the same network, which saves a training."""
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
        assert self._reward is not None
        return self._reward(result.accuracy, seconds=result.seconds, parameters=result.parameters)

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
        assert self._reward is not None
        reward = self._compute_reward(end)
        trial.set_user_attr(DEVICE, self._device)
        trial.set_user_attr(RESULT, dataclasses.asdict(end))
        trial.set_user_attr(RELATIVE_TIME, end.seconds / self._reward.seconds)
        trial.set_user_attr(REWARD, reward)
        if end.pruned:
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self._study.tell(trial, reward, skip_if_finished=True)

    def _build_job(self, folder: pathlib.Path, network: dict[str, Any]) -> TrialJob:
        search = self._config.search
        return TrialJob(
            config=trial_config(self._config, network),
            folder=folder,
            data_folder=self._folder,
            timed_steps=search.timed_steps,
            max_spread=search.max_spread,
        )

    def _save_result(self, job: TrialJob, result: TrialResult) -> None:
        text = json.dumps({"network": _network(job), **dataclasses.asdict(result)})
        replace_text(job.folder / RESULT_FILE, f"{text}\n")
        if not self._config.search.keep_weights:
            shutil.rmtree(RunDirectory(job.folder).checkpoints, ignore_errors=True)


def trial_config(config: Config, network: dict[str, Any]) -> Config:
    """Returns the config of a trial's training.

    Args:
      config: of the search.
      network: config key -> value of the keys that define the network.
    """
    search = config.search
    return with_overrides(
        config,
        {
            **network,
            "train.epochs": search.epochs,
            "train.min_steps": 0,
            "train.stages": 1,
            "train.isize": search.isize,
            "train.size_schedule": "fixed",
            "train.scale_batch_with_size": False,
            "train.patience": 0,
            "train.profile": [0, 0],
            "eval.isize": search.isize,
            "runtime.keep_checkpoint_max": 1,
            "runtime.save_checkpoint_epochs": 1,
        },
    )


def _network(job: TrialJob) -> list[str]:
    return list(job.config.model.blocks_args)


def _load_result(job: TrialJob) -> TrialResult | None:
    """Returns the result that a trial saved before its search was killed, if there is one."""
    try:
        values = json.loads((job.folder / RESULT_FILE).read_text(encoding="utf-8"))
        return TrialResult(**values) if values.pop("network") == _network(job) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
