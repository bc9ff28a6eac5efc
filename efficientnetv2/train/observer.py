"""What a training tells while it runs: steps, records and stages in; nothing out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efficientnetv2.train.stages import Stage


class Observer:
    """What a training tells while it runs; every method may be left as it is."""

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        """Called once, with the finished steps of an earlier start (0 if none)."""

    def stage(self, stage: Stage) -> None:
        """Called when a stage begins or is resumed."""

    def step(self, step: int, read_metrics: Callable[[], dict[str, float]]) -> None:
        """Called after each step; ``read_metrics`` waits for the device, so call it seldom."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Called after each epoch with what goes into metrics.jsonl."""

    def bad_images(self, names: list[str]) -> None:
        """Called after an epoch in which images were left out for the first time."""

    def end(self) -> None:
        """Called when the training ends, whether it is finished, stopped or failed."""
