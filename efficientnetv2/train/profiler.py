"""Writes a TensorBoard profile of a range of training steps."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from hparams.config import Config


class StepProfiler:
    """Profiles the steps ``first`` .. ``last``, counted from 1.

    Args:
      first: first step to profile; 0: nothing is profiled.
      last: last step to profile, at least ``first``.
      folder: TensorBoard's folder; the profile is written to ``plugins/profile`` in it.
    """

    def __init__(self, *, first: int, last: int, folder: pathlib.Path) -> None:
        self._first, self._last, self._folder = first, last, folder
        self._is_running = False

    def after(self, step: int) -> None:
        """Starts the profile before the first step and stops it after the last.

        Call it before the first and after each step. If several steps run in one call of the
        trainer, the profile begins and ends with the calls that contain ``first`` and ``last``.

        Args:
          step: number of finished steps.
        """
        if self._is_running and step >= self._last:
            self.stop()
        elif not self._is_running and self._first - 1 <= step < self._last:
            tf.profiler.experimental.start(str(self._folder))
            self._is_running = True

    def stop(self) -> None:
        """Ends a running profile and writes it."""
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()


def build_profiler(config: Config, folder: pathlib.Path) -> StepProfiler:
    """Builds the profiler that ``train.profile`` asks for; it writes to TensorBoard's folder."""
    first, last = config.train.profile
    return StepProfiler(first=first, last=last, folder=folder)
