"""The work of each mode: a checked configuration and a run directory in; an exit code out."""

from __future__ import annotations

import json
import pathlib
import zlib
from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.broken import SkippedLog
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.data.sources import Source, build_source
from efficientnetv2.evaluate import Evaluator, build_evaluator
from efficientnetv2.infer import predict
from efficientnetv2.model.factory import build_model
from efficientnetv2.preview import preview_rows
from efficientnetv2.report.pictures import draw_preview, draw_schedule
from efficientnetv2.report.plots import plot_curves
from efficientnetv2.report.progress import LeftOut, ProgressBar
from efficientnetv2.report.tables import table
from efficientnetv2.train.cluster import require_for_replicas
from efficientnetv2.train.loop import Training
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import (
    BestCheckpoint,
    has_average,
    latest_checkpoint,
    load_weights,
)
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.workers import Workers, build_workers
from efficientnetv2.validate import Metrics, evaluate_learner, measure, validator
from hparams.errors import UserError
from hparams.resolve import Config, require_full_batch, with_facts

_PREVIEW_COLUMNS = 8


def train(
    config: Config,
    run: RunDirectory,
    *,
    validate: bool,
    archive_best: bool,
    eval_name: str | None,
) -> int:
    """Trains to the end and evaluates on the final split.

    Args:
      config: of the training.
      run: new, or holding an unfinished training of the same configuration.
      validate: also evaluate on the minival split after each epoch.
      archive_best: with ``validate``: keep the best of these in ``best/``.
      eval_name: as in ``evaluate``.

    Returns:
      0, or 128 + N when signal N stopped it.
    """
    workers = build_workers(config)
    require_for_replicas(config, workers.strategy.num_replicas_in_sync)
    with workers.one_line(), workers.run_directory(run) as own_run:
        with workers.chief_first():
            config, source = _open(config, run, is_chief=workers.is_chief)
            run.require_same(config)
        num_images = source.num_images(config.data.train_split)
        require_full_batch(config, num_images=num_images)
        workers.require_same({**_settings(config), "number of training images": num_images})
        own_run.start(config, source.class_names)
        training = Training(
            config,
            source,
            run=own_run,
            observer=ProgressBar() if workers.is_chief else LeftOut(),
            workers=workers,
            resume_from=run,
        )
        workers.require_same({"step in the checkpoints of --model_dir": training.learner.step})
        if workers.is_chief:
            _announce(config, run, source, training=training)
        return _run(
            config,
            training,
            source,
            own_run,
            workers=workers,
            validate=validate,
            archive_best=archive_best,
            eval_name=eval_name,
        )


def _run(
    config: Config,
    training: Training,
    source: Source,
    run: RunDirectory,
    *,
    workers: Workers,
    validate: bool,
    archive_best: bool,
    eval_name: str | None,
) -> int:
    """Trains to the end and evaluates, on every worker; the chief prints and draws."""
    learner = training.learner
    evaluator = _evaluator(config, learner.model, strategy=training.strategy)
    after_epoch = None
    if validate:
        best = BestCheckpoint(learner, run.best) if archive_best and workers.is_chief else None
        minival = _input(config, source, run, split=config.data.minival_split)
        after_epoch = validator(learner, evaluator, minival, best=best, workers=workers)
    stopped_by = training.run(after_epoch=after_epoch)
    if workers.is_chief:
        _draw(config, run)
    if stopped_by is not None:
        if workers.is_chief:
            print(
                f"stopped after step {learner.step} of {training.plan[-1].end_step}; "
                f"saved in {run.path}; the same command goes on from there"
            )
        return 128 + stopped_by
    images = _input(config, source, run, split=config.data.eval_split)
    metrics = evaluate_learner(learner, evaluator, images, workers=workers)
    if workers.is_chief:
        _report(config, run, metrics, eval_name)
        print(
            f"\nwritten to {run.path}: checkpoints/, {'best/, ' if archive_best else ''}"
            "config.yaml, labels.txt, metrics.jsonl, "
            f"{run.curves_file.name}, tensorboard/, {_eval_file(run, eval_name).name}"
        )
    return 0


def evaluate(config: Config, run: RunDirectory, *, eval_name: str | None) -> int:
    """Evaluates the newest checkpoint on the final split, raw and averaged weights.

    Args:
      config: of the run.
      run: holds a checkpoint.
      eval_name: results go to ``eval_<eval_name>.json``; None: ``eval.json``.
    """
    checkpoint = latest_checkpoint(run)
    workers = build_workers(config)
    with workers.one_line():
        with workers.chief_first():
            config, source = _open(config, run, is_chief=workers.is_chief)
        workers.require_same(_settings(config))
        images = _input(config, source, run, split=config.data.eval_split)
        with workers.strategy.scope():
            model = build_model(config.model)
        evaluator = _evaluator(config, model, strategy=workers.strategy)
        metrics: Metrics = {}
        for name in ("raw", "ema") if has_average(checkpoint) else ("raw",):
            load_weights(model, checkpoint, average=name == "ema")
            metrics[name] = measure(evaluator, images, workers=workers)
        if workers.is_chief:
            _report(config, run, metrics, eval_name)
            print(f"\nwritten to {_eval_file(run, eval_name)}")
    return 0


def infer(config: Config, run: RunDirectory, images: Sequence[pathlib.Path], *, top_k: int) -> int:
    """Prints the most probable classes of images, by the averaged weights if there are any."""
    checkpoint, class_names = latest_checkpoint(run), run.class_names()
    if len(class_names) != config.model.num_classes:
        raise UserError(
            f"'{run.labels_file}' names {len(class_names)} classes, but the network has "
            f"{config.model.num_classes}"
        )
    model = build_model(config.model)
    load_weights(model, checkpoint, average=has_average(checkpoint))
    rows = []
    for prediction in predict(model, config, images, class_names=class_names, top_k=top_k):
        best = [f"{name} {probability:.1%}" for name, probability in prediction.classes]
        rows.append([str(prediction.path), *best])
    places = [str(place) for place in range(1, len(rows[0]))]
    print(table(["image", *places], rows))
    return 0


def preview(config: Config, run: RunDirectory) -> int:
    """Draws ``preview.png`` and ``schedule.png``: what the network will see, and when."""
    config, source = _open(config, run, is_chief=True)
    run.create()
    num_images = source.num_images(config.data.train_split)
    require_full_batch(config, num_images=num_images)
    plan = build_stages(config, num_images=num_images)
    title = f"{config.model.model_name} on {_data_name(config)}"
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


def _open(config: Config, run: RunDirectory, *, is_chief: bool) -> tuple[Config, Source]:
    """Opens the data set, and completes the configuration with what only the data set tells."""
    if config.data.source == "folder" and is_chief:
        run.create()  # the split of the images is written there
    may_write = is_chief or run.split_file.exists()
    source = build_source(config, listing_file=run.split_file if may_write else None)
    train_split, minival_split, eval_split = source.default_splits
    config = with_facts(
        config,
        {
            "model.num_classes": source.num_classes,
            "data.train_split": train_split,
            "data.minival_split": minival_split,
            "data.eval_split": eval_split,
        },
    )
    if source.num_classes != config.model.num_classes:
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but {config.data.ds_name} has "
            f"{source.num_classes} classes"
        )
    return config, source


def _input(config: Config, source: Source, run: RunDirectory, *, split: str) -> EvaluationInput:
    return EvaluationInput(config, source, split=split, skipped=SkippedLog(run.bad_images_file))


def _evaluator(
    config: Config, model: keras.Model, *, strategy: tf.distribute.Strategy
) -> Evaluator:
    return build_evaluator(
        model,
        loss_type=config.train.loss_type,
        multi_label=config.data.multi_label,
        strategy=strategy,
    )


def _settings(config: Config) -> dict[str, int]:
    """A number for all settings that must be the same on every worker."""
    settings = config.to_dict()
    del settings["runtime"]
    for key in ("data_dir", "service", "cache_mib"):
        del settings["data"][key]
    return {"configuration (a check sum)": zlib.crc32(repr(settings).encode())}


def _announce(config: Config, run: RunDirectory, source: Source, *, training: Training) -> None:
    parameters = training.learner.model.count_params()
    last = training.plan[-1]
    sizes = " -> ".join(f"{stage.image_size}" for stage in training.plan)
    if config.train.size_schedule == "random":
        sizes = f"{config.data.ibase} to {last.image_size}, at random"
    images = source.num_images(config.data.train_split)
    print(
        f"{config.model.model_name} ({parameters:,} parameters) on {_data_name(config)}: "
        f"{images:,} images of {source.num_classes} classes, {last.end_epoch} epochs of "
        f"{last.steps_per_epoch} steps, batch {config.train.batch_size}, image size {sizes} px\n"
        f"writing to {run.path}",
        flush=True,
    )
    if training.learner.step:
        print(f"going on after step {training.learner.step} of {last.end_step}", flush=True)


def _data_name(config: Config) -> str:
    return config.data.data_dir if config.data.source == "folder" else config.data.ds_name


def _draw(config: Config, run: RunDirectory) -> None:
    title = f"{config.model.model_name} on {_data_name(config)}"
    plot_curves(run.metrics(), run.curves_file, title=title)


def _eval_file(run: RunDirectory, eval_name: str | None) -> pathlib.Path:
    return run.path / (f"eval_{eval_name}.json" if eval_name else "eval.json")


def _report(config: Config, run: RunDirectory, metrics: Metrics, eval_name: str | None) -> None:
    """Prints the metrics as a table and writes them as JSON."""
    split = config.data.eval_split
    result = {"data_set": config.data.ds_name, "split": split, **metrics}
    _eval_file(run, eval_name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    names = {"raw": "raw", "ema": "EMA"}
    columns = {"top-1": "top1", "top-5": "top5", "loss": "loss"}
    if config.data.multi_label:
        columns |= {"PR AUC": "pr_auc", "P@1": "precision_at_1", "P@5": "precision_at_5"}
        columns |= {"R@1": "recall_at_1", "R@5": "recall_at_5"}
    rows = [
        [names[name], *(f"{values[key]:.4f}" for key in columns.values())]
        for name, values in metrics.items()
    ]
    print(f"\n{_data_name(config)}, split {split}, {metrics['raw']['images']:,} images")
    print(table(["weights", *columns], rows))
