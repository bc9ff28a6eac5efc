"""Prints how a training starts and ends, and reports evaluation metrics as table and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from efficientnetv2.evaluation.evaluator import Metrics
from efficientnetv2.evaluation.training_session import TrainingSession
from efficientnetv2.reporting.tables import table
from efficientnetv2.runtime.atomic_write import append_line, replace_text
from efficientnetv2.runtime.checkpoint_store import step_of
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.choices import NO_PRESET
from hparams.config import Config
from hparams.label_kinds import (
    LABEL_KINDS,
    METRICS,
    NUMBERS,
    ONE,
    SEVERAL,
    best_metric,
    label_kind,
)


@dataclasses.dataclass(frozen=True)
class WeightsName:
    """How reports call a kind of weights.

    Attributes:
      title: in tables.
      text: in sentences.
      meaning: explains the title.
    """

    title: str
    text: str
    meaning: str


# Key of ``Metrics`` -> names.
WEIGHTS: Mapping[str, WeightsName] = {
    "raw": WeightsName("raw", "raw weights", "the weights as they were trained"),
    "ema": WeightsName("EMA", "moving average", "their moving average"),
    "best": WeightsName(
        "best",
        "best weights on minival",
        "those that were best on minival, which predictions and exported files use",
    ),
}
_UNKNOWN = {"unk. AUROC": "unknown_auroc", "unk. FPR95": "unknown_fpr95"}
# Kind of labels -> title in the table -> metric, which is left out where it was not computed.
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    ONE: {
        "top-1": "top1",
        "top-5": "top5",
        "loss": "loss",
        "balanced": "balanced_accuracy",
        "macro F1": "macro_f1",
        "ECE": "ece",
        "ECE cal.": "ece_calibrated",
        **_UNKNOWN,
    },
    SEVERAL: {
        "top-1": "top1",
        "top-5": "top5",
        "loss": "loss",
        "mAP": "map",
        "micro AP": "ap_micro",
        "F1": "macro_f1",
        "PR AUC": "pr_auc",
        "P@1": "precision_at_1",
        "P@5": "precision_at_5",
        "R@1": "recall_at_1",
        "R@5": "recall_at_5",
        **_UNKNOWN,
    },
    NUMBERS: {"R2": "r2", "MAE": "mae", "RMSE": "rmse", "loss": "loss"},
}


def metric_columns(kind: str, metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns title -> metric, of the metrics that a table shows.

    Args:
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      metrics: those that were computed.
    """
    return {title: name for title, name in _COLUMNS[kind].items() if name in metrics}


def data_name(config: Config) -> str:
    """Returns the data's name for people: the data set's, or the path of one's own images."""
    return str(config.data.data_dir if config.data.source == "folder" else config.data.ds_name)


def run_title(config: Config) -> str:
    """Returns the title of a run's pictures, for example ``efficientnetv2-s on digits``."""
    return f"{config.model.model_name} on {data_name(config)}"


def show_training_start(session: TrainingSession, run: RunDirectory) -> None:
    """Prints the network, the data and the plan of a training, and the run directory."""
    config, training = session.config, session.training
    last = training.plan[-1]
    sizes = " -> ".join(f"{stage.image_size}" for stage in training.plan)
    if config.train.size_schedule == "random":
        sizes = f"{config.data.ibase} to {last.image_size}, at random"
    size = config.eval.isize
    evaluated = f", evaluated at {size} px" if size != last.image_size else ""
    images = session.source.num_images(config.data.train_split)
    parameters = session.train_state.model.count_params()
    print(
        f"{config.model.model_name} ({parameters:,} parameters) on {data_name(config)}: "
        f"{images:,} images of {_what(session)}, {last.end_epoch} epochs of "
        f"{last.steps_per_epoch} steps, batch {config.train.batch_size}, image size {sizes} px"
        f"{evaluated}\n"
        f"{_preset(config)}writing to {run.path}",
        flush=True,
    )
    if session.train_state.step:
        print(f"going on after step {session.train_state.step} of {last.end_step}", flush=True)
    teacher = training.trainer.teacher
    if teacher is not None:
        print(f"learning from {teacher.origin}, at {teacher.image_size} px", flush=True)
    if session.pretrained:
        print(f"starting from {session.pretrained}", flush=True)


def _what(session: TrainingSession) -> str:
    count = session.source.num_classes
    if label_kind(session.config) == NUMBERS:
        return f"{count} number{'s' * (count > 1)}"
    return f"{count} classes"


def _preset(config: Config) -> str:
    """Returns a line on the preset, if there is one."""
    preset = config.train.preset
    if preset == NO_PRESET:
        return ""
    return f"chosen for these images by preset {preset}; --mode=preview says why\n"


def show_training_end(session: TrainingSession, *, stopped: bool) -> None:
    """Prints why a training ended before its last step, if it did."""
    step, end_step = session.train_state.step, session.training.plan[-1].end_step
    done = f"after step {step} of {end_step}"
    if stopped:
        print(f"stopped {done}; saved in {session.run.path}; the same command goes on from there")
    elif step < end_step:
        patience = session.config.train.patience
        title = METRICS[best_metric(session.config)].title
        print(f"ended {done}: no better minival {title} in {patience} epochs")


def report_result(
    config: Config, run: RunDirectory, metrics: Metrics, *, eval_name: str | None
) -> None:
    """Prints the metrics of an evaluation as a table and writes them as JSON.

    Raises:
      WriteError: if they cannot be written.
    """
    split = config.data.eval_split
    result = {"data_set": config.data.ds_name, "split": split, **metrics}
    replace_text(run.result_file(eval_name), json.dumps(result, indent=2) + "\n")
    print(f"\n{data_name(config)}, split {split}, {metrics['raw']['images']:,} images")
    print(table(*metric_cells(config, metrics)))


def metric_cells(config: Config, metrics: Metrics) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a table of metrics, a row for each kind of weights."""
    columns = metric_columns(label_kind(config), metrics["raw"])
    rows = [
        [WEIGHTS[name].title, *(f"{values[key]:.4f}" for key in columns.values())]
        for name, values in metrics.items()
    ]
    return ["weights", *columns], rows


def append_result(
    config: Config,
    run: RunDirectory,
    metrics: Metrics,
    *,
    eval_name: str | None,
    checkpoint: str,
) -> None:
    """Prints the result of one of several checkpoints, and adds its metrics to ``eval.jsonl``.

    Raises:
      WriteError: if it cannot be written.
    """
    step = step_of(checkpoint)
    record = {
        "step": step,
        "data_set": config.data.ds_name,
        "split": config.data.eval_split,
        **metrics,
    }
    append_line(run.result_file(eval_name).with_suffix(".jsonl"), json.dumps(record))
    metric = LABEL_KINDS[label_kind(config)].metric
    result = "  ".join(f"{name} {values[metric]:.4f}" for name, values in metrics.items())
    print(f"step {step}  {data_name(config)}, split {config.data.eval_split}  {result}", flush=True)
