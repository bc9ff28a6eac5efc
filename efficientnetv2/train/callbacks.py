"""Defines the callback by which a training loop reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efficientnetv2.train.progressive import Stage
from efficientnetv2.train.time_estimate import RunEstimate


class TrainingCallback:
    """Base class of callbacks; its methods do nothing, so override only those you need."""

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        """Called once at the start, with the number of steps finished by earlier starts."""

    def stage(self, stage: Stage) -> None:
        """Called when a stage begins or is resumed."""

    def step(self, step: int, read_metrics: Callable[[], dict[str, float]]) -> None:
        """Called after each step; ``read_metrics`` waits for the device, so call it rarely."""

    def estimate(self, estimate: RunEstimate) -> None:
        """Called once the first steps are measured, and again if their estimate was wrong."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Called after each epoch with its record in metrics.jsonl."""

    def bad_images(self, names: list[str]) -> None:
        """Called after an epoch that skipped further unreadable images, with all names so far."""

    def end(self) -> None:
        """Called when training ends: finished, stopped or failed."""
