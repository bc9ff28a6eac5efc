"""Measures the speed and memory of models on this machine: ``--mode=benchmark``."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import overrides_from_flags
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError
from hparams.models import MODELS
from hparams.resolve import resolve

if TYPE_CHECKING:
    from absl.flags import FlagValues

_BATCH_SIZE = 16  # unless --batch_size is given
_SMALLEST = 32  # pixels; five stages of stride 2 leave one position of them


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Measures the networks that the flags name; the value is the rows of benchmark.csv."""
    del stop
    configs = [_config(values, name) for name in models_from_flags(values)]
    folder = pathlib.Path(values.model_dir or "runs/benchmark")
    RunDirectory(folder)  # refuses a path that is a file
    import_tensorflow()
    return benchmark(configs, folder, steps=values.steps)


def models_from_flags(values: FlagValues) -> list[str]:
    """Returns the registered names of ``--models``, or that of ``--model_name``."""
    text = values.model_name if values.models is None else values.models
    if values.models is not None and values["model_name"].present:
        raise UserError("--models and --model_name both name models; give one of them")
    names = [MODELS.canonical(name.strip()) for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--models is empty; give model names separated by commas")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--models names {name} {names.count(name)} times")
    return names


def _config(values: FlagValues, model_name: str) -> Config:
    defaults = resolve(model_name, "imagenet2012")
    sizes = {
        key: max(_SMALLEST, round(size * values.image_scale / 8) * 8)
        for key, size in (
            ("train.isize", defaults.train.isize),
            ("eval.isize", defaults.eval.isize),
        )
    }
    settings = {"train.stages": 1, "train.batch_size": _BATCH_SIZE, **sizes}
    config = resolve(model_name, "imagenet2012", settings, *overrides_from_flags(values))
    if config.train.teacher is not None:
        raise UserError("train.teacher has no effect with --mode=benchmark")
    return config


def benchmark(configs: Sequence[Config], folder: pathlib.Path, *, steps: int) -> Outcome:
    """Measures one network after the other.

    Args:
      configs: one for each network.
      folder: where the results go; created if missing.
      steps: number of timed training steps, and of timed calls of each kind of inference.

    Returns:
      The rows of benchmark.csv; the exit code is 2 if some networks could not be measured.

    Raises:
      UserError: if no network could be measured, or the results cannot be written.
    """
    from efficientnetv2.evaluation.model_cost import measure_cost
    from efficientnetv2.reporting.benchmark_report import cost_table, draw_costs, ratio_table
    from efficientnetv2.reporting.tables import write_csv

    RunDirectory(folder).create()
    rows, failed = [], []
    for number, config in enumerate(configs, start=1):
        name, train = config.model.model_name, config.train
        print(
            f"{number}/{len(configs)} {name}: batch {train.batch_size}, "
            f"{train.isize} px to train, {config.eval.isize} px to evaluate",
            flush=True,
        )
        try:
            rows.append(dataclasses.asdict(measure_cost(config, steps=steps)))
        except UserError as error:
            failed.append(str(error))
            print(f"  not measured: {error}", file=sys.stderr, flush=True)
            continue
        write_csv(rows, folder / "benchmark.csv")
    if not rows:
        raise UserError(failed[-1])
    print(f"\n{cost_table(rows)}")
    ratios = ratio_table(rows)
    if ratios:
        print(f"\n{ratios}")
    written = ["benchmark.csv", *draw_costs(rows, folder)]
    print(f"\nwritten to {folder}: {', '.join(written)}")
    return Outcome(rows, 2 if failed else 0)
