"""Repeats the training speed comparisons of the paper's Tables 2 and 3 at small sizes.

    python -m benchmarks.paper_tables --table=3

Table 2: EfficientNet-B6 on large images, on smaller images, and on larger batches of these.
Table 3: EfficientNet-B4 with no stages, or stages 1-3, 1-5 and 1-7, fused. The sizes are a quarter
and a third of the paper's, to take minutes on two cores. All train in the same way and take turns;
ratios are taken within each turn. Prints a table and writes a CSV.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags

from benchmarks.measurement import write
from efficientnetv2.reporting.tables import table
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer
from efficientnetv2.train.train_state import build_train_state
from hparams import resolve

TABLE = flags.DEFINE_enum("table", "3", ["2", "3"], "of the paper")
ROUNDS = flags.DEFINE_integer("rounds", 9, "timed steps of each, in turns", lower_bound=3)
_WARM_UP = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """Holds what to train, and the paper's images/s on a TPU core and on a V100."""

    model: str
    image_size: int
    batch_size: int
    tpu: float
    v100: float


_B4 = "efficientnet-b4"
CASES = {
    # In the paper: 512 px, batch 32 (TPU) and 12 (V100); 380 px, the same; 380 px, 128 and 24.
    "2": (
        Case("efficientnet-b6", 128, 4, 42, 29),
        Case("efficientnet-b6", 96, 4, 76, 37),
        Case("efficientnet-b6", 96, 8, 93, 52),
    ),
    "3": (
        Case(_B4, 128, 8, 262, 155),
        Case(f"{_B4}-fused-1-3", 128, 8, 362, 216),
        Case(f"{_B4}-fused-1-5", 128, 8, 327, 223),
        Case(f"{_B4}-fused-1-7", 128, 8, 254, 206),
    ),
}


def training(case: Case) -> Callable[[], None]:
    """Returns a function that runs one step of our training."""
    shape = [case.batch_size, case.image_size, case.image_size, 3]
    images = tf.random.uniform(shape, -1, 1)
    targets = tf.one_hot(tf.range(case.batch_size), 1000)
    config = resolve(case.model, "imagenet2012")
    plan = build_stages(config, num_images=1_256_167)
    stage = dataclasses.replace(plan[-1], first_step=0, batch_size=case.batch_size)
    trainer = Trainer(
        build_train_state(config, build_learning_rate(config, plan)),
        tf.distribute.get_strategy(),
        settings=stage_settings([stage]),
        after_step=lambda _: None,
    )
    trainer.set_input(tf.data.Dataset.from_tensors((images, targets)).repeat())
    return lambda: trainer.train(1)


def in_turns(steps: list[Callable[[], None]], *, rounds: int) -> list[list[float]]:
    """Returns the seconds of each timed step, after warm-up steps that are not timed."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(_WARM_UP + rounds):
        for step, seconds in zip(steps, times):
            start = time.perf_counter()
            step()
            if turn >= _WARM_UP:
                seconds.append(time.perf_counter() - start)
    return times


def rows(cases: tuple[Case, ...], times: list[list[float]]) -> list[list[str]]:
    """Returns a row for each case; speeds are images/s as a multiple of those of the first case."""
    first, lines = cases[0], []
    for case, seconds in zip(cases, times):
        batch_ratio = case.batch_size / first.batch_size
        speeds = sorted(batch_ratio * one / other for one, other in zip(times[0], seconds))
        median = statistics.median(seconds)
        numbers = [statistics.median(speeds), speeds[0], speeds[-1]]
        numbers += [case.tpu / first.tpu, case.v100 / first.v100]
        lines.append(
            [
                case.model,
                str(case.image_size),
                str(case.batch_size),
                f"{median:.3f}",
                f"{case.batch_size / median:.1f}",
                *(f"{number:.2f}" for number in numbers),
            ]
        )
    return lines


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    tf.keras.utils.set_random_seed(0)
    cases = CASES[TABLE.value]
    times = in_turns([training(case) for case in cases], rounds=ROUNDS.value)
    header = ["model", "px", "batch", "median s", "images/s", "speed", "least", "most"]
    header += ["paper TPU", "paper V100"]
    lines = rows(cases, times)
    print(table(header, lines))
    write(f"paper_table_{TABLE.value}", header, lines)


if __name__ == "__main__":
    app.run(main)
