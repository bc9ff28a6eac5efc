"""What a network said of each image of a split in; what people see of it, and files, out."""

from __future__ import annotations

import numpy as np

from efficientnetv2.answers import Answers
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.report.answers import class_rows, draw_mistakes, show_classes, write_answers
from efficientnetv2.report.results import data_name
from efficientnetv2.train.run_directory import RunDirectory
from hparams.preprocess import NORMALISATIONS
from hparams.resolve import Config

_MOST_MISTAKES = 24


def report_answers(
    config: Config,
    run: RunDirectory,
    images: EvaluationInput,
    answers: Answers,
    names: list[str],
    *,
    weights: str,
    eval_name: str | None,
) -> list[str]:
    """Prints the worst classes, writes tables and pictures, and returns the files' names.

    Args:
      config: of the evaluation.
      run: where the files go.
      images: that were evaluated.
      answers: to them.
      names: of the classes.
      weights: which ones answered, for people.
      eval_name: part of the files' names; None: none.

    Raises:
      WriteError: if a file cannot be written.
    """
    if not len(answers.index):
        return []
    suffix = f"_{eval_name}" if eval_name else ""
    what = f"{config.model.model_name} ({weights}) on {data_name(config)}, {config.data.eval_split}"
    show_classes(class_rows(answers, names))
    written = write_answers(answers, names, run.path, suffix=suffix, title=what)
    mistakes = answers.mistakes(_MOST_MISTAKES)
    picture = run.path / f"mistakes{suffix}.png"
    picture.unlink(missing_ok=True)  # of an evaluation that made some
    if len(mistakes.index):
        row = NORMALISATIONS[config.model.preprocess]
        seen = images.pick([int(index) for index in mistakes.index])
        pixels = seen * np.array(row.deviation, "f4") + np.array(row.mean, "f4")
        draw_mistakes(
            np.uint8(np.clip(np.round(pixels), 0, 255)),
            mistakes,
            names,
            picture,
            title=f"{what}: most confident mistakes of {len(answers.index):,} images",
        )
        written.append(picture.name)
    return written
