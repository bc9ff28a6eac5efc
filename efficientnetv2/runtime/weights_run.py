"""Finds the run directory that pretrained weights come from."""

from __future__ import annotations

import pathlib

from efficientnetv2.runtime.run_directory import RunDirectory


def run_of_weights(weights: str | pathlib.Path | None) -> RunDirectory | None:
    """Returns the run directory that ``--weights`` names, or that holds the named checkpoint.

    Args:
      weights: a run directory, its folder ``best`` or ``checkpoints``, or a checkpoint in one of
        them; anything else gives None.
    """
    path = pathlib.Path(weights or "")
    inside = [p.parent for p in (path, path.parent) if p.name in ("best", "checkpoints")]
    return next((run for run in map(whole_run, inside) if run), None) or whole_run(weights)


def whole_run(weights: str | pathlib.Path | None) -> RunDirectory | None:
    """Returns the run directory that ``--weights`` names; None: it names something else."""
    try:
        is_run = bool(weights) and (pathlib.Path(weights or "") / "config.yaml").is_file()
    except (OSError, ValueError):  # a name that no system takes
        return None
    return RunDirectory(weights) if weights and is_run else None
