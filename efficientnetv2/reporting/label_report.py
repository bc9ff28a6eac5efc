"""Reports the classes of an evaluation where an image may have several."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from efficientnetv2.evaluation.label_scores import ClassScore
from efficientnetv2.reporting.tables import table, write_csv_rows

WORST = 10  # classes in the table on the screen


def report_labels(scores: Sequence[ClassScore], path: pathlib.Path) -> None:
    """Prints the classes with the lowest average precision, and writes all of them as CSV.

    Args:
      scores: of the classes.
      path: of the CSV file.

    Raises:
      WriteError: if it cannot be written.
    """
    ordered = sorted(scores, key=lambda score: (not score.images, score.average_precision))
    header = ["class", "images", "AP", "threshold", "precision", "recall", "F1"]
    cells = [
        [score.name, f"{score.images:,}", *(f"{value:.4f}" for value in score[2:])]
        for score in ordered[:WORST]
    ]
    print(f"\n{table(header, cells)}")
    if len(ordered) > WORST:
        print(f"... and {len(ordered) - WORST:,} classes that are better")
    write_csv_rows([ClassScore._fields, *ordered], path)
