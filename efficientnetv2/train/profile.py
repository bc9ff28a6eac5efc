"""Finished steps in; a profile of some of them, for TensorBoard, out."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from hparams.resolve import Config


class StepProfile:
    """Profiles the steps ``first`` .. ``last``, which count from 1.

    Args:
      first: 0: no profile.
      last: at least ``first``.
      folder: of TensorBoard; the profile goes to ``plugins/profile`` in it.
    """

    def __init__(self, *, first: int, last: int, folder: pathlib.Path) -> None:
        self._first, self._last, self._folder = first, last, folder
        self._is_running = False

    def after(self, step: int) -> None:
        """Starts before the first step and stops after the last; call it between steps.

        Args:
          step: number of finished steps. Where several are run at once, the profile begins and ends
            with the calls that hold the two steps.
        """
        if self._is_running and step >= self._last:
            self.stop()
        elif not self._is_running and self._first - 1 <= step < self._last:
            tf.profiler.experimental.start(str(self._folder))
            self._is_running = True

    def stop(self) -> None:
        """Writes what there is, if a profile is being made."""
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()


def build_profile(config: Config, folder: pathlib.Path) -> StepProfile:
    """Opens the configuration for the profile, which goes to a folder of TensorBoard."""
    first, last = config.train.profile
    return StepProfile(first=first, last=last, folder=folder)
