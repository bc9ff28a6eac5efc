"""Runs a mode of the command line for a Python function, and shows pictures in a notebook."""

from __future__ import annotations

import io
import os
import pathlib
import signal
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from efficientnetv2.commands import Outcome, run_mode
from efficientnetv2.commands.flag_table import FLAGS
from efficientnetv2.commands.flag_values import check_flags, define_flags, flag_error, give
from efficientnetv2.runtime.console import in_notebook, muted
from efficientnetv2.runtime.program import system_errors
from efficientnetv2.runtime.random_state import random_state_kept
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.runtime.tensorflow_import import hide_retracing_warnings
from hparams.arguments import check_flag, check_setting, check_text
from hparams.errors import UserError
from hparams.short_names import SHORT_NAMES

_LISTS = ("format", "models", "runs")
_NUMBERS = ("crops", "folds")  # besides flags with a number as default, and settings
_RESUMED = ("train", "search")  # the modes that go on when they are called again
# Pictures in a notebook.
_LARGE = 200_000  # bytes
_WIDEST = 1000  # pixels, of a large one


def call_mode(
    mode: str,
    arguments: Mapping[str, Any],
    run: Callable[[flags.FlagValues, StopRequest], Outcome] = run_mode,
) -> Any:
    """Runs a mode with arguments by the names of its flags; returns the value of its outcome.

    Args:
      mode: a row of ``MODES``.
      arguments: flag -> value; None: not given.
      run: runs it.
    """
    given = dict(arguments)
    verbose, stop = given.pop("verbose"), StopRequest(kills=False)
    with muted(not verbose), system_errors():
        values = _flag_values(mode, given)
    try:
        with (
            muted(not verbose),
            hide_retracing_warnings(),
            random_state_kept(),
            stop.listening(),
            system_errors(),
        ):
            outcome = run(values, stop)
        number = outcome.code - 128
    except Stopped as stopped:
        number = stopped.number
    if number > 0:
        _interrupt(mode, number)
    return outcome.value


def _flag_values(mode: str, arguments: Mapping[str, Any]) -> flags.FlagValues:
    """Returns the checked flags of a mode with the given values."""
    values = define_flags({})
    values.mark_as_parsed()
    give(values, "mode", mode)
    for name, value in arguments.items():
        if value is None:
            continue
        if name == "overrides":
            if not isinstance(value, Mapping):
                value = check_text(name, value, what="text, a path or a dictionary")
            give(values, "hparam_str", value)
            continue
        if name in _LISTS and isinstance(value, (list, tuple)):
            value = [check_text(name, item) for item in value]
            if name == "runs":  # folders, which may have commas in their names
                values[name].value, values[name].present = value, 1
                continue
            value = ",".join(value)
        argument = _argument(name, value)
        if argument == FLAGS[name].default_in(mode):
            continue
        try:
            values[name].parse(argument if isinstance(argument, bool) else str(argument))
        except flags.Error as error:
            raise flag_error(error) from None
        values[name].present = 1
    check_flags(values)
    return values


def _argument(name: str, value: Any) -> Any:
    """Returns an argument in the type of its flag.

    Raises:
      UserError: if it has another type.
    """
    default = FLAGS[name].default
    if isinstance(default, bool):
        try:
            return check_flag(name, value)
        except TypeError as error:
            raise UserError(str(error)) from None
    is_setting = name in SHORT_NAMES and not FLAGS[name].is_path
    if is_setting or isinstance(default, (int, float)) or name in _NUMBERS:
        return check_setting(name, value)
    return check_text(name, value)


def _interrupt(mode: str, number: int) -> None:
    """Raises what a signal raises in Python, now that what can be saved is saved."""
    message = "stopped"
    if mode in _RESUMED:
        message += "; the work is saved, and the same call goes on from there"
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    os.kill(os.getpid(), number)  # to the handler that the caller has, or to the end
    raise KeyboardInterrupt(message)


def show(*pictures: pathlib.Path) -> None:
    """Shows pictures in a notebook, large ones as JPEG: the notebook's file holds them."""
    if not in_notebook():
        return
    import PIL.Image
    from IPython.display import Image, display

    for picture in filter(pathlib.Path.exists, pictures):
        content = picture.read_bytes()
        if len(content) > _LARGE:
            image, buffer = PIL.Image.open(picture).convert("RGB"), io.BytesIO()
            image.thumbnail((_WIDEST, 2 * _WIDEST))
            image.save(buffer, "JPEG", quality=85)
            content = buffer.getvalue()
        display(Image(content))
