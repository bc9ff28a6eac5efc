"""The work of each mode: a checked configuration and a run directory in; an exit code out."""

from __future__ import annotations

from efficientnetv2.data.sources import Source
from efficientnetv2.opening import open_data, open_evaluator, open_split, settings_sum
from efficientnetv2.preview import preview_rows
from efficientnetv2.report.pictures import draw_preview, draw_schedule
from efficientnetv2.report.plots import plot_curves
from efficientnetv2.report.progress import LeftOut, ProgressBar
from efficientnetv2.report.results import (
    data_name,
    report_result,
    result_file,
)
from efficientnetv2.train.cluster import require_for_replicas
from efficientnetv2.train.loop import Training
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import BestCheckpoint, mend
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.stopping import StopRequest
from efficientnetv2.train.workers import Workers, build_workers
from efficientnetv2.trained import start_from_pretrained
from efficientnetv2.validate import evaluate_learner, validator
from hparams.resolve import Config, require_full_batch

_PREVIEW_COLUMNS = 8


def train(
    config: Config,
    run: RunDirectory,
    *,
    validate: bool,
    archive_best: bool,
    eval_name: str | None,
    stop: StopRequest,
) -> int:
    """Trains to the end and evaluates on the final split.

    Args:
      config: of the training.
      run: new, or holding an unfinished training of the same configuration.
      validate: also evaluate on the minival split after each epoch.
      archive_best: with ``validate``: keep the best of these in ``best/``.
      eval_name: as in ``evaluate``.
      stop: the signals that stop it.

    Returns:
      0, or 128 + N when signal N stopped it.

    Raises:
      Stopped: if a signal came before the first step or after the last; all is saved.
    """
    workers = build_workers(config)
    stop.renew()  # several processes: TensorFlow listens to SIGTERM from now on
    require_for_replicas(config, workers.strategy.num_replicas_in_sync)
    with workers.one_line(), workers.run_directory(run) as own_run:
        with workers.chief_first():
            config, source = open_data(config, run, is_chief=workers.is_chief)
            run.require_same(config)
            if workers.is_chief:
                mend(run)
        num_images = source.num_images(config.data.train_split)
        require_full_batch(config, num_images=num_images)
        workers.require_same({**settings_sum(config), "number of training images": num_images})
        own_run.start(config, source.class_names)
        training = Training(
            config,
            source,
            run=own_run,
            observer=ProgressBar() if workers.is_chief else LeftOut(),
            stop=stop,
            workers=workers,
            resume_from=run,
        )
        pretrained = start_from_pretrained(config, training.learner)
        workers.require_same({"step in the checkpoints of --model_dir": training.learner.step})
        if workers.is_chief:
            _announce(config, run, source, training=training)
            if pretrained:
                print(f"starting from {pretrained}", flush=True)
        after_epoch = None
        if validate:
            learner, keeps_best = training.learner, archive_best and workers.is_chief
            after_epoch = validator(
                learner,
                open_evaluator(config, learner.model, strategy=training.strategy),
                open_split(config, source, own_run, split=config.data.minival_split),
                best=BestCheckpoint(learner, own_run) if keeps_best else None,
                workers=workers,
                stop=stop,
            )
        stopped_by = training.run(after_epoch=after_epoch)
        return _finish(config, training, source, own_run, stopped_by, workers, eval_name=eval_name)


def _finish(
    config: Config,
    training: Training,
    source: Source,
    run: RunDirectory,
    stopped_by: int | None,
    workers: Workers,
    *,
    eval_name: str | None,
) -> int:
    """Says how a training ended, and evaluates it if it was not stopped; returns the exit code."""
    learner = training.learner
    done = f"after step {learner.step} of {training.plan[-1].end_step}"
    if workers.is_chief:
        _draw(config, run)
    if stopped_by is not None:
        if workers.is_chief:
            print(f"stopped {done}; saved in {run.path}; the same command goes on from there")
        return 128 + stopped_by
    if workers.is_chief and learner.step < training.plan[-1].end_step:
        print(f"ended {done}: no better minival top-1 in {config.train.patience} epochs")
    images = open_split(config, source, run, split=config.data.eval_split)
    evaluator = open_evaluator(config, learner.model, strategy=training.strategy)
    metrics = evaluate_learner(learner, evaluator, images, workers=workers)
    if workers.is_chief:
        report_result(config, run, metrics, eval_name=eval_name)
        best = "best/, " if run.best.is_dir() else ""
        print(
            f"\nwritten to {run.path}: checkpoints/, {best}config.yaml, labels.txt, "
            f"metrics.jsonl, {run.curves_file.name}, tensorboard/, "
            f"{result_file(run, eval_name).name}"
        )
    return 0


def preview(config: Config, run: RunDirectory) -> int:
    """Draws ``preview.png`` and ``schedule.png``: what the network will see, and when."""
    config, source = open_data(config, run)
    run.create()
    num_images = source.num_images(config.data.train_split)
    require_full_batch(config, num_images=num_images)
    plan = build_stages(config, num_images=num_images)
    title = f"{config.model.model_name} on {data_name(config)}"
    rows = preview_rows(config, source, plan, columns=min(_PREVIEW_COLUMNS, num_images))
    draw_preview(rows, run.path / "preview.png", title=f"{title}: what the network sees")
    written = ["preview.png"]
    if config.train.size_schedule != "random":  # the other schedules are one line over the epochs
        draw_schedule(plan, run.path / "schedule.png", title=f"{title}: schedule")
        written.append("schedule.png")
    for row in rows:
        print(f"{row.title}: {', '.join(row.strengths)}")
    print(f"\nwritten to {run.path}: {', '.join(written)}")
    return 0


def _announce(config: Config, run: RunDirectory, source: Source, *, training: Training) -> None:
    parameters = training.learner.model.count_params()
    last = training.plan[-1]
    sizes = " -> ".join(f"{stage.image_size}" for stage in training.plan)
    if config.train.size_schedule == "random":
        sizes = f"{config.data.ibase} to {last.image_size}, at random"
    images = source.num_images(config.data.train_split)
    print(
        f"{config.model.model_name} ({parameters:,} parameters) on {data_name(config)}: "
        f"{images:,} images of {source.num_classes} classes, {last.end_epoch} epochs of "
        f"{last.steps_per_epoch} steps, batch {config.train.batch_size}, image size {sizes} px\n"
        f"writing to {run.path}",
        flush=True,
    )
    if training.learner.step:
        print(f"going on after step {training.learner.step} of {last.end_step}", flush=True)


def _draw(config: Config, run: RunDirectory) -> None:
    title = f"{config.model.model_name} on {data_name(config)}"
    plot_curves(run.metrics(), run.curves_file, title=title)
