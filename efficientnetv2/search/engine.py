"""A configuration in; a search, and all that it found, as files, out.

This process draws trials and keeps the study; each trial runs in a process of its own. What a
trial found is in its folder before it is in the study: a search that is killed in between has it.
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

from efficientnetv2.report.search import trial_line
from efficientnetv2.search.attributes import DEVICE, ERROR, FOUND, RELATIVE_TIME, REWARD, SAME_AS
from efficientnetv2.search.claims import Claims, counted
from efficientnetv2.search.device import device_name
from efficientnetv2.search.messages import RESULT_FILE, Epoch, Failed, Found, Job
from efficientnetv2.search.outcome import report, rows_of
from efficientnetv2.search.reward import Reward
from efficientnetv2.search.runner import run_trial
from efficientnetv2.search.samplers import build_sampler
from efficientnetv2.search.space import (
    Space,
    architecture_text,
    build_space,
    network_overrides,
)
from efficientnetv2.search.storage import keep_config, require_startable
from efficientnetv2.search.study import (
    backbone_of,
    build_reward,
    keep_backbone,
    open_study,
)
from efficientnetv2.train.durable import replace_text
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.stopping import Stopped, StopRequest
from hparams.errors import UserError
from hparams.resolve import Config, with_overrides

_PAUSE_SECONDS = 2.0


def search(config: Config, folder: pathlib.Path, stop: StopRequest) -> int:
    """Runs trials until ``search.trials`` are finished, of all processes together.

    Args:
      config: of the search; the sections but ``search`` are those of each trial's training.
      folder: the run directory.
      stop: the signals that stop it; what is begun is saved.

    Returns:
      0.

    Raises:
      UserError: if the study cannot be opened, the backbone cannot be trained, or no trial
        succeeded.
      Stopped: by a signal.
    """
    require_startable(config, folder)
    space = build_space(config)
    sampler = build_sampler(config.search.sampler, space.choices, seed=config.search.seed)
    study = open_study(config, folder, sampler=sampler)
    keep_config(config, folder)
    engine = Engine(config, space, study, folder=folder, stop=stop)
    engine.announce()
    try:
        engine.measure_backbone()
        engine.run()
    except Stopped:
        print(f"saved in {folder}; the same command goes on from there", flush=True)
        raise
    report(study, config, space, folder=folder)
    return 0


class Engine:
    """One process of a search.

    Args:
      config: of the search.
      space: of it.
      study: open.
      folder: the run directory, which is there.
      stop: the signals that stop it.
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
        """Says what will be searched, and how far it is."""
        search, done = self._config.search, len(counted(self._study))
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
        """Trains and times the backbone, or reads what was found; the reward is relative to it.

        Raises:
          UserError: if that fails: no trial would do better.
        """
        with self._claims.alone():
            known = backbone_of(self._study, device=self._device)
            if known is None:
                job = self._job(self._folder / "backbone", network_overrides(self._space.backbone))
                end = _kept(job) or run_trial(job, stop=self._stop, after_epoch=lambda _: False)
                if isinstance(end, Failed):
                    raise UserError(f"the backbone cannot be trained: {end.reason}")
                self._keep(job, end)
                keep_backbone(self._study, end, device=self._device)
                known = backbone_of(self._study, device=self._device)
        assert known is not None
        self._reward = build_reward(self._config, known)
        print(
            f"backbone: accuracy {known['accuracy']:.4f}, {1e3 * known['seconds']:.1f} ms a step "
            f"(spread {100 * known['spread']:.0f}%), {known['parameters']:,} parameters",
            flush=True,
        )

    def run(self) -> None:
        """Runs trials until all are finished; waits for those of other processes."""
        waits = False
        while True:
            self._stop.check()
            with self._claims.next_trial() as claim:
                if claim is not None:
                    self._run(*claim)
                    waits = False
                    continue
            if self._claims.is_done():
                return
            if not waits:
                print("waiting for trials of other processes", flush=True)
                waits = True
            time.sleep(_PAUSE_SECONDS)

    def _run(self, trial: Trial, again: bool) -> None:
        if again:
            print(f"going on with trial {trial.number}", flush=True)
        with contextlib.suppress(UpdateFinishedTrialError):  # given up by others
            end = self._same_before(trial) or self._end_of(trial)
            self._tell(trial, end)
        rows = rows_of(self._study, self._config, self._space)
        print(trial_line(rows, trial.number, of=self._config.search.trials), flush=True)

    def _end_of(self, trial: Trial) -> Found | Failed:
        job = self._job(self._claims.folder_of(trial), self._space.overrides(trial.params))
        end = _kept(job) or run_trial(
            job,
            stop=self._stop,
            after_epoch=lambda epoch: self._shall_end(trial, epoch),
            meanwhile=lambda: self._claims.sign(trial),
        )
        if isinstance(end, Found):
            self._keep(job, end)
        elif end.is_fatal:
            raise UserError(end.reason)
        return end

    def _same_before(self, trial: Trial) -> Found | None:
        """What an earlier trial found of the same network; it is not trained a second time."""
        for other in counted(self._study):
            if (
                other.state == TrialState.COMPLETE
                and other.params == trial.params
                and other.user_attrs.get(DEVICE) == self._device
            ):
                trial.set_user_attr(SAME_AS, other.number)
                return Found(**other.user_attrs[FOUND])
        return None

    def _reward_of(self, found: Found | Epoch) -> float:
        assert self._reward is not None
        return self._reward(found.accuracy, seconds=found.seconds, parameters=found.parameters)

    def _shall_end(self, trial: Trial, epoch: Epoch) -> bool:
        known = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch.number not in known:
            trial.report(self._reward_of(epoch), epoch.number)
        is_last = epoch.number >= self._config.search.epochs
        return not is_last and bool(trial.should_prune())

    def _tell(self, trial: Trial, end: Found | Failed) -> None:
        """Records the end of a trial; everything of it before its state."""
        if isinstance(end, Failed):
            trial.set_user_attr(ERROR, end.reason)
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            return
        assert self._reward is not None
        reward = self._reward_of(end)
        trial.set_user_attr(DEVICE, self._device)
        trial.set_user_attr(FOUND, dataclasses.asdict(end))
        trial.set_user_attr(RELATIVE_TIME, end.seconds / self._reward.seconds)
        trial.set_user_attr(REWARD, reward)
        if end.pruned:
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self._study.tell(trial, reward, skip_if_finished=True)

    def _job(self, folder: pathlib.Path, network: dict[str, Any]) -> Job:
        search = self._config.search
        return Job(
            config=trial_config(self._config, network),
            folder=folder,
            data_folder=self._folder,
            timed_steps=search.timed_steps,
            max_spread=search.max_spread,
        )

    def _keep(self, job: Job, found: Found) -> None:
        text = json.dumps({"network": _network(job), **dataclasses.asdict(found)})
        replace_text(job.folder / RESULT_FILE, f"{text}\n")
        if not self._config.search.keep_weights:
            shutil.rmtree(RunDirectory(job.folder).checkpoints, ignore_errors=True)


def trial_config(config: Config, network: dict[str, Any]) -> Config:
    """Returns the configuration of a trial's training.

    Args:
      config: of the search.
      network: the keys that make the network.
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


def _network(job: Job) -> list[str]:
    return list(job.config.model.blocks_args)


def _kept(job: Job) -> Found | None:
    """What a trial found before its search was killed."""
    try:
        values = json.loads((job.folder / RESULT_FILE).read_text(encoding="utf-8"))
        return Found(**values) if values.pop("network") == _network(job) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
