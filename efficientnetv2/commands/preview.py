"""Draws the training images of each stage, and the schedule: ``--mode=preview``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import config_from_flags, run_from_flags
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import require_full_batch

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.data.sources import Source

_COLUMNS = 8  # images a stage


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Draws the training that the flags describe; the value is the list of the pictures' paths."""
    del stop
    config = config_from_flags(values)
    run_directory = run_from_flags(values)
    import_tensorflow()
    return Outcome(preview(config, run_directory))


def preview(config: Config, run: RunDirectory) -> list[pathlib.Path]:
    """Draws ``preview.png`` and ``schedule.png`` into the run directory; returns their paths."""
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.reporting.preview_pictures import draw_preview, draw_schedule, preview_rows
    from efficientnetv2.reporting.results import run_title
    from efficientnetv2.train.progressive import build_stages

    config, source = open_data(config, run)
    run.create()
    num_images = source.num_images(config.data.train_split)
    require_full_batch(config, num_images=num_images)
    plan = build_stages(config, num_images=num_images)
    title = run_title(config)
    rows = preview_rows(config, source, plan, columns=min(_COLUMNS, num_images))
    draw_preview(rows, run.path / "preview.png", title=f"{title}: what the network sees")
    written = ["preview.png"]
    if config.train.size_schedule != "random":  # a random size has no line over the epochs to draw
        draw_schedule(plan, run.path / "schedule.png", title=f"{title}: schedule")
        written.append("schedule.png")
    for row in rows:
        print(f"{row.title}: {', '.join(row.strengths)}")
    print(f"training takes {_time_of(config, source, run)}", flush=True)
    print(f"\nwritten to {run.path}: {', '.join(written)}")
    return [run.path / name for name in written]


def _time_of(config: Config, source: Source, run: RunDirectory) -> str:
    """Returns how long the training will take on this machine, or why that is not known."""
    from efficientnetv2.evaluation.rehearsal import rehearse
    from efficientnetv2.reporting.estimate_line import estimate_lines

    if config.runtime.strategy in ("tpu", "multi_worker"):
        return f"an unknown time: it is not measured for runtime.strategy={config.runtime.strategy}"
    try:
        return estimate_lines(rehearse(config, source, run.path), begins=False)
    except UserError as error:
        return f"an unknown time: {error}"
