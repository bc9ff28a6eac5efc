"""A study in; the next trial of this process, held against all others, out.

A trial in the study belongs to the run directory that it was begun in. Within a run directory a
lock tells whether a process runs it: the system gives it back however the process ends, and then
the next one goes on with the trial. Of another run directory, perhaps on another machine, only a
sign of life is seen; when none has come for ten minutes, the trial is recorded as failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import socket
import time
import uuid
from collections.abc import Iterator

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from efficientnetv2.search.attributes import ALIVE, ERROR, HOST, OWNER, SURPLUS
from efficientnetv2.search.samplers import Choices
from efficientnetv2.train.durable import replace_text, writing

_SILENT_SECONDS = 600
_SIGN_SECONDS = 60
_POLL_SECONDS = 2.0


class Claims:
    """The trials of one study, as one process sees them.

    Args:
      study: open.
      folder: the run directory, which is there.
      limit: trials in all, of all processes.
      choices: name -> what may be chosen.
    """

    def __init__(
        self,
        study: Study,
        folder: pathlib.Path,
        *,
        limit: int,
        choices: Choices,
    ) -> None:
        self._study, self._folder, self._limit = study, folder, limit
        self._choices = dict(choices)
        with self.alone():
            self._owner = _identity(folder / "id.txt")
        self._signed = 0.0
        self._heard: dict[int, tuple[float | None, float]] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within the context, no other process of this run directory is in it."""
        path = self._folder / "search.lock"
        with writing(path), path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def folder_of(self, trial: Trial | FrozenTrial) -> pathlib.Path:
        """Returns the run directory of a trial."""
        return self._folder / "trials" / f"{trial.number:03d}"

    @contextlib.contextmanager
    def next_trial(self) -> Iterator[tuple[Trial, bool] | None]:
        """Holds a trial: one that was interrupted, or else a new one.

        Yields:
          the trial and whether it is gone on with; None: there is none now.
        """
        with contextlib.ExitStack() as held:
            with self.alone():
                found = self._interrupted(held) or self._new(held)
            yield found

    def is_done(self) -> bool:
        """Whether all trials are finished."""
        trials = counted(self._study)
        return len(trials) >= self._limit and all(t.state.is_finished() for t in trials)

    def sign(self, trial: Trial) -> None:
        """Shows other machines that this process lives; call it often."""
        now = time.time()
        if now - self._signed > _SIGN_SECONDS:
            self._signed = now
            trial.set_user_attr(ALIVE, now)

    def _interrupted(self, held: contextlib.ExitStack) -> tuple[Trial, bool] | None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get(OWNER) != self._owner:
                self._fail_if_silent(trial)
                continue
            with contextlib.ExitStack() as own:
                if not self._hold(trial, own):
                    continue
                # It may have been finished after it was listed.
                running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                if trial.number in [each.number for each in running]:
                    held.push(own.pop_all())
                    # Optuna has no other way to go on with a trial.
                    return self._complete(Trial(self._study, trial._trial_id)), True
        return None

    def _hold(self, trial: Trial | FrozenTrial, held: contextlib.ExitStack) -> bool:
        """Takes the lock of a trial; returns whether it was free."""
        path = self.folder_of(trial) / "claim.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("a", encoding="utf-8"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _new(self, held: contextlib.ExitStack) -> tuple[Trial, bool] | None:
        if len(counted(self._study)) >= self._limit:
            return None
        trial = self._study.ask()
        trial.set_user_attr(OWNER, self._owner)
        trial.set_user_attr(HOST, socket.gethostname())
        self.sign(trial)
        before = [t for t in counted(self._study) if t.number < trial.number]
        if len(before) >= self._limit:  # another machine was faster
            trial.set_user_attr(SURPLUS, True)
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        self._hold(trial, held)
        return self._complete(trial), False

    def _complete(self, trial: Trial) -> Trial:
        """Draws what is not drawn yet, as after a kill between two draws."""
        for name, values in self._choices.items():
            trial.suggest_categorical(name, values)
        return trial

    def _fail_if_silent(self, trial: FrozenTrial) -> None:
        now, sign = time.monotonic(), trial.user_attrs.get(ALIVE)
        if trial.number not in self._heard or self._heard[trial.number][0] != sign:
            self._heard[trial.number] = (sign, now)  # by our clock: theirs may be wrong
        if now - self._heard[trial.number][1] > _SILENT_SECONDS:
            host = trial.user_attrs.get(HOST, "another machine")
            silent = Trial(self._study, trial._trial_id)
            with contextlib.suppress(UpdateFinishedTrialError):  # it was not
                silent.set_user_attr(ERROR, f"nothing was heard of it from {host} for 10 minutes")
            self._study.tell(silent, state=TrialState.FAIL, skip_if_finished=True)


def counted(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count, by number."""
    trials = study.get_trials(deepcopy=False)
    return sorted((t for t in trials if SURPLUS not in t.user_attrs), key=lambda t: t.number)


def _identity(path: pathlib.Path) -> str:
    if not path.exists():
        replace_text(path, f"{uuid.uuid4()}\n")
    return path.read_text(encoding="utf-8").strip()
