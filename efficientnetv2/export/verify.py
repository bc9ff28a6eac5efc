"""Verifies an exported file against the Keras model, and measures its size and speed.

Each file is opened with its format's own runtime, as its users will.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable

import numpy as np

from efficientnetv2.data.sample_images import Images
from efficientnetv2.export.answers import Answers, FirstClass
from efficientnetv2.export.formats import FORMATS, Limit

_TIMED_CALLS = 21
_WARM_UP_CALLS = 3


@dataclasses.dataclass(frozen=True)
class Check:
    """The measurements of one exported file.

    Attributes:
      megabytes: its size in 10^6 bytes.
      milliseconds: median time of one image, with batch 1 on all cores.
      max_difference: largest difference of an output from the Keras model's.
      agreement: share of images with the same answer as the Keras model, 0..1: top-1 class, all
        classes above their thresholds, or numbers.
      ties: share of images with another answer that the Keras model rates almost equal, 0..1.
      accuracy: the score of the answers: top-1 accuracy, F1 or R2; None: labels are not known.
      fault: which limit it exceeds, as text for messages; None: none.
    """

    megabytes: float
    milliseconds: float
    max_difference: float
    agreement: float
    ties: float
    accuracy: float | None
    fault: str | None


def verify(
    format_name: str,
    path: pathlib.Path,
    images: Images,
    inputs: np.ndarray,
    expected: np.ndarray,
    answers: Answers,
    *,
    limit: Limit | None = None,
) -> Check:
    """Runs a file on images and compares its outputs with the Keras model's.

    Args:
      format_name: a row of ``FORMATS``.
      path: the file or folder.
      images: the images with their labels, if known.
      inputs: the same images as the file takes them, float32 ``[N, S, S, C]``.
      expected: the Keras model's outputs, ``[N, K]``.
      answers: compares and scores outputs.
      limit: how much the outputs may differ; None: as the format says.
    """
    row = FORMATS[format_name]
    run = row.open(path)
    outputs = np.concatenate([run(image[np.newaxis]) for image in inputs])
    differing, differing_clearly = (int(flags.sum()) for flags in answers.differ(outputs, expected))
    difference = np.abs(outputs - expected)
    accuracy = lost = None
    if images.labels is not None:
        accuracy = answers.score(outputs, images.labels)
        if math.isfinite(accuracy):  # R2 of outputs that are not finite is not
            lost = round(len(inputs) * (answers.score(expected, images.labels) - accuracy))
    return Check(
        megabytes=round(_size(path) / 1e6, 3),
        milliseconds=round(latency(run, inputs[:1]), 2),
        max_difference=float(difference.max()),
        agreement=1 - differing / len(inputs),
        ties=(differing - differing_clearly) / len(inputs),
        accuracy=accuracy,
        fault=_fault(
            limit or row.limit,
            answers,
            difference=float((difference / answers.unit(expected)).max()),
            differing=differing_clearly,
            lost=lost,
            count=len(inputs),
        ),
    )


def _fault(
    limit: Limit,
    answers: Answers,
    *,
    difference: float,
    differing: int,
    lost: int | None,
    count: int,
) -> str | None:
    if not np.isfinite(difference):
        return "has outputs that are not finite numbers"
    if limit.difference is not None:
        # In a near tie the top-1 class may differ, so only the numbers are compared.
        if difference <= limit.difference:
            return None
        return f"differs by {difference:.2g} (at most {limit.difference:g} is allowed)"
    if limit.points is not None and lost is not None:
        allowed = max(1, int(limit.points / 100 * count))
        if lost <= allowed:
            return None
        if isinstance(answers, FirstClass):
            return f"gets {lost} fewer of {count} images right (at most {allowed} is allowed)"
        less, most = lost / count, allowed / count
        return f"lowers {answers.title} by {less:.3f} (at most {most:.3f} is allowed)"
    allowed = max(1, int(limit.disagreement * count))
    if differing <= allowed:
        return None
    return (
        f"predicts {answers.other} for {differing} of {count} images (at most {allowed} is allowed)"
    )


def latency(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    """Returns the median time of a call in milliseconds.

    Args:
      run: opens nothing more; warmed up by a few calls.
      image: a batch of one.
    """
    seconds = []
    for _ in range(_WARM_UP_CALLS + _TIMED_CALLS):
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[_WARM_UP_CALLS:]))


def _size(path: pathlib.Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
