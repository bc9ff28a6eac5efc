"""Checks the settings of evaluations against the kind of labels that they are for."""

from __future__ import annotations

from ml_collections import config_dict

from hparams.label_kinds import KNOWN_SHARE, LABEL_KINDS, METRICS, NUMBERS, ONE, SEVERAL


def evaluation_problems(config: config_dict.ConfigDict, kind: str) -> list[str]:
    """Returns what is wrong with metrics, thresholds and classes that are kept for evaluation.

    Args:
      config: its sections data and train are read.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
    """
    train, problems = config.train, []
    if config.data.leave_out and (config.data.source != "folder" or kind != ONE):
        problems.append(
            f"data.leave_out={','.join(config.data.leave_out)} is for your own images of one class "
            "each: a folder of classes or a table of labels"
        )
    metric = train.best_metric
    if metric is not None and kind not in METRICS[metric].kinds:
        fitting = [name for name, row in METRICS.items() if kind in row.kinds]
        problems.append(
            f"train.best_metric={metric} is not for images with {LABEL_KINDS[kind].text}; give "
            f"{' or '.join(fitting)}"
        )
    if train.min_precision is not None and kind != SEVERAL:
        problems.append(
            f"train.min_precision={train.min_precision:g} is for images with several classes, "
            f"not with {LABEL_KINDS[kind].text}"
        )
    if train.known_share != KNOWN_SHARE and kind == NUMBERS:
        problems.append(
            f"train.known_share={train.known_share:g} is for classes; among numbers, no image is "
            "unknown"
        )
    return problems
