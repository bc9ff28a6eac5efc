"""Assigns the trials of a study to processes, so that each trial runs in one process only.

A trial belongs to the run directory that began it. Within a run directory, a file lock shows
whether a process is running the trial. The operating system releases the lock however that process
ends; the next process then resumes the trial. A trial of another run directory, perhaps on another
machine, is only visible by its heartbeat; after ten minutes without one it is recorded as failed.
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

from efficientnetv2.runtime.atomic_write import replace_text, write_error_for
from efficientnetv2.runtime.lock import exclusive_lock
from efficientnetv2.search.attributes import ALIVE, ERROR, HOST, OWNER, SURPLUS
from efficientnetv2.search.samplers import Choices, suggest

_HEARTBEAT_TIMEOUT_SECONDS = 600
_HEARTBEAT_SECONDS = 60


class Claims:
    """Claims trials of one study for this process.

    Args:
      study: the open study.
      folder: the run directory; it must exist.
      limit: number of trials of all processes together.
      choices: name -> values to choose from.
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
        with self.exclusive():
            self._owner = _identity(folder / "id.txt")
        self._last_heartbeat = 0.0  # seconds since 1970
        # Of trials elsewhere: trial number -> (its last heartbeat, when we first saw that one).
        self._heartbeats: dict[int, tuple[float | None, float]] = {}

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Locks the run directory: no other process of it can be in this context."""
        with exclusive_lock(self._folder / "search.lock"), write_error_for(self._folder):
            yield

    def folder_of(self, trial: Trial | FrozenTrial) -> pathlib.Path:
        """Returns the run directory of a trial."""
        return self._folder / "trials" / f"{trial.number:03d}"

    @contextlib.contextmanager
    def next_trial(self) -> Iterator[tuple[Trial, bool] | None]:
        """Claims a trial for the context: an interrupted one, or else a new one.

        Yields:
          The trial, and whether it resumes an interrupted one; None: there is no trial to run now.
        """
        with contextlib.ExitStack() as locks:
            with self.exclusive():
                claim = self._resume(locks) or self._begin(locks)
            yield claim

    def is_done(self) -> bool:
        """Whether all trials are finished."""
        trials = counted_trials(self._study)
        return len(trials) >= self._limit and all(t.state.is_finished() for t in trials)

    def send_heartbeat(self, trial: Trial) -> None:
        """Shows other machines, once a minute, that this process is alive; call it often."""
        now = time.time()
        if now - self._last_heartbeat > _HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            trial.set_user_attr(ALIVE, now)

    def _resume(self, locks: contextlib.ExitStack) -> tuple[Trial, bool] | None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get(OWNER) != self._owner:
                self._fail_if_silent(trial)
                continue
            with contextlib.ExitStack() as trial_lock:
                if not self._try_lock(trial, trial_lock):
                    continue
                # It may have finished after it was listed.
                running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                if trial.number in [each.number for each in running]:
                    locks.push(trial_lock.pop_all())
                    # Optuna has no public way to resume a trial.
                    return self._draw_choices(Trial(self._study, trial._trial_id)), True
        return None

    def _try_lock(self, trial: Trial | FrozenTrial, locks: contextlib.ExitStack) -> bool:
        """Takes the lock of a trial if it is free; returns whether it was."""
        path = self.folder_of(trial) / "claim.lock"
        with write_error_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = locks.enter_context(path.open("a", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _begin(self, locks: contextlib.ExitStack) -> tuple[Trial, bool] | None:
        if len(counted_trials(self._study)) >= self._limit:
            return None
        trial = self._study.ask()
        trial.set_user_attr(OWNER, self._owner)
        trial.set_user_attr(HOST, socket.gethostname())
        self.send_heartbeat(trial)
        earlier = [t for t in counted_trials(self._study) if t.number < trial.number]
        if len(earlier) >= self._limit:  # another machine began the last one at the same time
            trial.set_user_attr(SURPLUS, True)
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        self._try_lock(trial, locks)
        return self._draw_choices(trial), False

    def _draw_choices(self, trial: Trial) -> Trial:
        """Draws the choices that a trial lacks: all, or some after a kill between two draws."""
        for name, values in self._choices.items():
            suggest(trial, name, values)
        return trial

    def _fail_if_silent(self, trial: FrozenTrial) -> None:
        now, heartbeat = time.monotonic(), trial.user_attrs.get(ALIVE)
        if trial.number not in self._heartbeats or self._heartbeats[trial.number][0] != heartbeat:
            # Timed by our own clock: that of the other machine may be wrong.
            self._heartbeats[trial.number] = (heartbeat, now)
        if now - self._heartbeats[trial.number][1] > _HEARTBEAT_TIMEOUT_SECONDS:
            host = trial.user_attrs.get(HOST, "another machine")
            silent = Trial(self._study, trial._trial_id)
            with contextlib.suppress(UpdateFinishedTrialError):  # it has just finished
                silent.set_user_attr(ERROR, f"no sign of life from {host} for 10 minutes")
            self._study.tell(silent, state=TrialState.FAIL, skip_if_finished=True)


def counted_trials(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count towards ``search.trials``, by number."""
    trials = study.get_trials(deepcopy=False)
    return sorted((t for t in trials if SURPLUS not in t.user_attrs), key=lambda t: t.number)


def _identity(path: pathlib.Path) -> str:
    if not path.exists():
        replace_text(path, f"{uuid.uuid4()}\n")
    return path.read_text(encoding="utf-8").strip()
