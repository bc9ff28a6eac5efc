"""What an evaluation measured in; a table on stdout and JSON in the run directory out."""

from __future__ import annotations

import json
import pathlib

from efficientnetv2.report.tables import table
from efficientnetv2.train.durable import append_line, replace_text
from efficientnetv2.train.run_directory import RunDirectory
from hparams.resolve import Config

Metrics = dict[str, dict[str, float]]  # "raw" and "ema" -> images, loss, top1, top5


def result_file(run: RunDirectory, eval_name: str | None) -> pathlib.Path:
    """Returns where the result of an evaluation goes."""
    return run.path / (f"eval_{eval_name}.json" if eval_name else "eval.json")


def data_name(config: Config) -> str:
    """Returns what people call the data: the data set's name, or their own folder."""
    return str(config.data.data_dir if config.data.source == "folder" else config.data.ds_name)


def report_result(
    config: Config, run: RunDirectory, metrics: Metrics, *, eval_name: str | None
) -> None:
    """Prints the metrics as a table and writes them as JSON.

    Raises:
      WriteError: if they cannot be written.
    """
    split = config.data.eval_split
    result = {"data_set": config.data.ds_name, "split": split, **metrics}
    replace_text(result_file(run, eval_name), json.dumps(result, indent=2) + "\n")
    names = {"raw": "raw", "ema": "EMA"}
    columns = {"top-1": "top1", "top-5": "top5", "loss": "loss"}
    if config.data.multi_label:
        columns |= {"PR AUC": "pr_auc", "P@1": "precision_at_1", "P@5": "precision_at_5"}
        columns |= {"R@1": "recall_at_1", "R@5": "recall_at_5"}
    elif "ece" in metrics["raw"]:
        columns["ECE"] = "ece"
    rows = [
        [names[name], *(f"{values[key]:.4f}" for key in columns.values())]
        for name, values in metrics.items()
    ]
    print(f"\n{data_name(config)}, split {split}, {metrics['raw']['images']:,} images")
    print(table(["weights", *columns], rows))


def keep_result(
    config: Config,
    run: RunDirectory,
    metrics: Metrics,
    *,
    eval_name: str | None,
    checkpoint: str,
) -> None:
    """Prints the metrics of one of many checkpoints, and adds a line to ``eval.jsonl``.

    Raises:
      WriteError: if it cannot be written.
    """
    step = int(checkpoint.rpartition("-")[2])
    line = {
        "step": step,
        "data_set": config.data.ds_name,
        "split": config.data.eval_split,
        **metrics,
    }
    append_line(result_file(run, eval_name).with_suffix(".jsonl"), json.dumps(line))
    top1 = "  ".join(f"{name} {values['top1']:.4f}" for name, values in metrics.items())
    print(f"step {step}  {data_name(config)}, split {config.data.eval_split}  {top1}", flush=True)
