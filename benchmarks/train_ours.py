"""Runs main_tf2.py, and prints where its time went: one JSON line at the end.

    python -m benchmarks.train_ours train FOLDER --model=efficientnetv2-b0

``steps`` are the seconds of training steps, ``evaluation`` those in which splits are evaluated, and
``outside`` is all the rest since the process was started: imports, the data, tracing, checkpoints,
pictures.
"""

from __future__ import annotations

import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

_START = time.perf_counter()
ROOT = pathlib.Path(__file__).parent.parent


class Account:
    """Adds up the seconds of training steps and evaluations."""

    def __init__(self) -> None:
        self._steps: list[list[float]] = []  # of each epoch
        self._evaluation = 0.0

    def watch(self) -> None:
        """Puts clocks around the functions that train and evaluate."""
        from efficientnetv2.evaluation import evaluator, thresholds
        from efficientnetv2.train.step import Trainer

        plain_train = Trainer.train

        def train(trainer: Any, num_steps: Any) -> dict[str, float]:
            after, times = trainer._after_step, [time.perf_counter()]

            def after_step(step: int) -> None:
                times.append(time.perf_counter())
                after(step)

            trainer._after_step = after_step
            try:
                return plain_train(trainer, num_steps)
            finally:
                trainer._after_step = after
                self._steps.append([end - start for start, end in zip(times, times[1:])])

        Trainer.train = train  # type: ignore[method-assign]
        clocked = self._clocked(evaluator.evaluate_split)
        evaluator.evaluate_split = thresholds.evaluate_split = clocked

    def _clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._evaluation += time.perf_counter() - start

        return call

    def result(self) -> dict[str, float]:
        """Returns the seconds so far."""
        # The first step of all is traced; that is not counted as training.
        tracing = 0.0
        if self._steps:
            first = self._steps[0]
            tracing = max(0.0, first[0] - statistics.median(first))
        steps = sum(map(sum, self._steps)) - tracing
        outside = time.perf_counter() - _START - steps - self._evaluation
        seconds = {"steps": steps, "evaluation": self._evaluation, "outside": outside}
        return {name: round(value, 1) for name, value in seconds.items()}


def main() -> int:
    from efficientnetv2.cli import main as run
    from efficientnetv2.runtime.tensorflow_import import import_tensorflow

    import_tensorflow()
    account = Account()
    account.watch()
    code = run([str(ROOT / "main_tf2.py"), *sys.argv[1:]])
    print(json.dumps(account.result()), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
