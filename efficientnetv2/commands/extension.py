"""Answers a request for more epochs than a run has, and adds them with ``--extend``."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from efficientnetv2.commands.flag_table import FLAGS
from efficientnetv2.commands.flag_values import settings_text
from efficientnetv2.runtime.checkpoint_store import find_checkpoint, step_of, steps
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from efficientnetv2.train.early_stop import epochs_without_better
from hparams.config import Config
from hparams.errors import shortened
from hparams.label_kinds import best_metric
from hparams.resolve import with_overrides

if TYPE_CHECKING:
    from absl.flags import FlagValues

_PROGRAMS = ("efficientnetv2", "main_tf2.py", "main.py")
_LONGEST_ANSWER = 4000  # characters; it holds a command that must stay whole
_NOT_REPEATED = ("model", "data", "validate", "extend")  # other flags say the same
# Decays of the learning rate that do not depend on the length of the training.
_ENDLESS_DECAYS = ("constant", "exponential")


def asks_for_more(values: FlagValues, config: Config, run: RunDirectory) -> bool:
    """Returns whether a training is to be extended: ``--extend``, and more epochs than before.

    Args:
      values: of the flags.
      config: of the training that the flags describe.
      run: its run directory.

    Raises:
      RunError: if the run holds a training of another number of epochs, and ``--extend`` is not
        given or cannot help; the message has the command that does.
    """
    changed = run.changes(config)
    if changed is None and values.extend:
        raise RunError(f"'{run.path}' holds no training to extend; leave --extend out")
    if not changed or list(changed) != ["train.epochs"]:
        return False
    before, now = changed["train.epochs"]
    name = shortened(str(run.path), limit=120)
    if now < before:
        raise RunError(
            f"'{name}' holds a training of {before} epochs, which cannot become {now}; give "
            f"--epochs={before}, or another --model_dir"
        )
    patience = config.train.patience
    if 0 < patience <= epochs_without_better(run.metrics(), best_metric(config)):
        raise RunError(
            f"'{name}' holds a training that train.patience={patience} has ended, so more epochs "
            f"change nothing; {_new_run(values, run, now)}",
            limit=_LONGEST_ANSWER,
        )
    if values.extend:
        return True
    raise RunError(
        f"'{name}' holds a training of {before} epochs, not {now}; {_in_place(values, config)}"
        f"{_new_run(values, run, now)}",
        limit=_LONGEST_ANSWER,
    )


def _in_place(values: FlagValues, config: Config) -> str:
    """Says what ``--extend`` would do; nothing where it would be refused."""
    train = config.train
    grows = train.size_schedule == "progressive" and train.stages > 1
    if grows or train.weight_decay_inc:
        return ""
    is_exact = train.lr_sched in _ENDLESS_DECAYS
    kind = (
        "exactly as if they had been asked for from the start"
        if is_exact
        else f"as a warm start, with the learning rate of the longer {train.lr_sched} schedule"
    )
    return f"to train on in place, {kind}, give --extend: {_command(values, {'extend': ''})} ; "


def _new_run(values: FlagValues, run: RunDirectory, epochs: int) -> str:
    """Returns the command that goes on from the weights of a run in a new directory."""
    folder = run.path.with_name(f"{run.path.name}-{epochs}")
    if not steps(run.checkpoints):  # nothing to go on from
        return f"start in a new directory: {_command(values, {'model_dir': str(folder)})}"
    done = max((line["epoch"] for line in run.metrics()), default=0)
    changes = {
        **_with_epochs(values, max(epochs - done, 1)),
        "weights": str(run.path),
        "model_dir": str(folder),
    }
    return f"to go on from its weights in a new directory: {_command(values, changes)}"


def _with_epochs(values: FlagValues, epochs: int) -> dict[str, str]:
    """Returns the flags that must change for a number of epochs and other ``--weights``."""
    changes: dict[str, str] = {}
    for flag in ("hparam_str", "sweeps"):
        text = settings_text(values[flag].value, reads_files=True)
        text, found = re.subn(r"(\btrain\.epochs\s*=\s*)[^,]+", rf"\g<1>{epochs}", text)
        text, weights = re.subn(r"(^|,)\s*train\.ft_init_ckpt\s*=[^,]*", "", text)
        if found or weights:
            changes[flag] = text.lstrip(",")
    given = values["epochs"].present or not any("train.epochs" in text for text in changes.values())
    if given:
        changes["epochs"] = str(epochs)
    return changes


def _command(values: FlagValues, changes: Mapping[str, str]) -> str:
    """Returns the command line of the flags, with some of them changed."""
    words = _started_as()
    for name in FLAGS:
        flag = values[name]
        if name in changes:
            words.append(f"--{name}={changes[name]}" if changes[name] else f"--{name}")
        elif name == "mode":
            words.append(f"--mode={values.mode}")
        elif name in _NOT_REPEATED or not (flag.present or flag.value != flag.default):
            continue
        elif isinstance(flag.value, bool):
            words.append(f"--{name}" if flag.value else f"--no{name}")
        else:
            words.append(f"--{name}={settings_text(flag.value)}")
    return shlex.join(words)


def _started_as() -> list[str]:
    """Returns the words that start this program in this shell, whatever is on its path."""
    program = sys.argv[0]
    if pathlib.Path(program).name not in _PROGRAMS:  # a program of the user's
        return [_PROGRAMS[0]]
    if program.endswith(".py"):
        return [_as_found(sys.executable), program]
    return [_as_found(program)]


def _as_found(program: str) -> str:
    """Returns the name of a program if the shell finds this one by it, else its path."""
    name = pathlib.Path(program).name
    found = shutil.which(name)
    if found is not None and pathlib.Path(found).absolute() == pathlib.Path(program).absolute():
        return name
    folder = f"{pathlib.Path.cwd()}{os.sep}"
    return program.removeprefix(folder)


def extend(values: FlagValues, config: Config, run: RunDirectory) -> None:
    """Gives a training more epochs: replaces its ``config.yaml``, from which it then goes on.

    A kill leaves the old file, and the run as it was, or the new one, and a run of more epochs that
    the same command resumes.

    Args:
      values: of the flags, for the message.
      config: the config of the run, with more epochs.
      run: holds a training of fewer epochs.

    Raises:
      RunError: if finished steps would have been others, in more than their learning rate.
      UserError: if the data set cannot be opened.
      WriteError: if ``config.yaml`` cannot be replaced.
    """
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.train.schedule_change import compare_schedules

    after, source = open_data(config, run)
    before = with_overrides(after, {"train.epochs": run.config().train.epochs})
    checkpoint = find_checkpoint(run)
    step = step_of(checkpoint) if checkpoint else 0
    num_images = source.num_images(after.data.train_split)
    change = compare_schedules(before, after, num_images=num_images, step=step)
    old, new = before.train.epochs, after.train.epochs
    if change.settings:
        raise RunError(
            f"--extend cannot add epochs to '{shortened(str(run.path), limit=120)}': in a training "
            f"of {new} epochs its steps so far would have had another "
            f"{' and '.join(change.settings[:2])}; {_new_run(values, run, new)}",
            limit=_LONGEST_ANSWER,
        )
    run.write_config(after)
    if change.is_exact:
        print(f"extending from {old} to {new} epochs: the same as {new} epochs from the start")
        return
    print(
        f"extending from {old} to {new} epochs as a warm start: the learning rate goes from "
        f"{change.last_rate:.2e} to {change.next_rate:.2e}, where the {after.train.lr_sched} "
        f"schedule of {new} epochs is now; this is not the same as {new} epochs from the start",
        flush=True,
    )
