"""Reads which weights of a run were best on minival.

Imports no TensorFlow, so that damage is said before a command starts to work.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from efficientnetv2.runtime.checkpoint_store import is_whole
from efficientnetv2.runtime.run_directory import RunDirectory, RunError


@dataclasses.dataclass(frozen=True)
class BestWeights:
    """The best weights of a run, as recorded in ``best/``.

    Attributes:
      checkpoint: path prefix.
      step: after which they were saved.
      is_average: whether its moving average was at least as good on minival as its raw weights.
    """

    checkpoint: str
    step: int
    is_average: bool


def best_weights(run: RunDirectory) -> BestWeights | None:
    """Returns the weights that were best on minival, or None if the run kept none.

    Raises:
      RunError: if the checkpoint that ``best.json`` names is damaged or missing.
    """
    record = read_best_record(run)
    if record is None:
        return None
    checkpoint = str(run.best / f"ckpt-{record['step']}")
    if not is_whole(checkpoint):
        if read_best_record(run) != record:  # a running training has just found better ones
            return best_weights(run)
        raise RunError(f"checkpoint '{checkpoint}', the best of the run, is damaged or missing")
    is_average = record["results"].get("ema") == record["best"]  # also if both are equal
    return BestWeights(checkpoint, record["step"], is_average)


def read_best_record(run: RunDirectory) -> dict[str, Any] | None:
    """Returns best.json's step and results, and the best of these; None if unreadable."""
    try:
        record = json.loads((run.best / "best.json").read_text(encoding="utf-8"))
        metric = record.get("metric", "top1")
        results = {name: float(value) for name, value in record[metric].items()}
        best = max(results.values())
        return {"step": int(record["step"]), "metric": metric, "results": results, "best": best}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
