"""Configurations in; what their networks cost on this machine, as table, CSV and pictures, out."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from efficientnetv2.costs import measure
from efficientnetv2.report.benchmark import (
    cost_table,
    draw_costs,
    ratio_table,
)
from efficientnetv2.report.tables import write_csv
from efficientnetv2.train.run_directory import RunDirectory
from hparams.errors import UserError
from hparams.resolve import Config


def benchmark(configs: Sequence[Config], folder: pathlib.Path, *, steps: int) -> int:
    """Measures one network after the other.

    Args:
      configs: one a network.
      folder: where the results go; made if missing.
      steps: timed calls of each kind.

    Returns:
      0, or 2 if one of the networks could not be measured; the others are.

    Raises:
      UserError: if none could be measured, or the results cannot be written.
    """
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
            rows.append(dataclasses.asdict(measure(config, steps=steps)))
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
    return 2 if failed else 0
