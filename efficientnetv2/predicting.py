"""Image files and trained weights in; their classes, on the screen and in files, out."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tqdm

from efficientnetv2.explain import heat_maps, overlay, save_picture
from efficientnetv2.infer import Prediction, Unreadable, predict, prepare_threads
from efficientnetv2.report.predictions import Row, write_features, write_predictions
from efficientnetv2.report.tables import table
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.trained import Trained, open_trained
from hparams.resolve import Config

_SHOWN = 200  # images in the table on the screen


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is wanted beside the table on the screen.

    Attributes:
      top_k: classes an image; all if there are fewer.
      output: file for all predictions, of ``report.predictions.FORMATS``; None: none.
      crops: views of each image, 1 or 5.
      flip: also mirrored.
      features: write what the classifier saw to ``features.npz``.
      explain: draw a heat map over each image, in ``explain/``.
      folder: where the last two go.
    """

    top_k: int
    output: pathlib.Path | None
    crops: int
    flip: bool
    features: bool
    explain: bool
    folder: pathlib.Path


def infer(
    config: Config, run: RunDirectory | None, paths: Sequence[pathlib.Path], wanted: Wanted
) -> int:
    """Names what is in images, by the weights that ``open_trained`` takes.

    Returns:
      0, or 2 if an image could not be read: it is named on stderr, and the others are done.
    """
    if not wanted.explain:  # a heat map is made of one image
        prepare_threads(len(paths))
    trained = open_trained(config, run)
    if wanted.features or wanted.explain:
        RunDirectory(wanted.folder).create()  # or all images would be seen before this fails
    rows: list[Row] = []
    features: list[np.ndarray] = []
    unreadable: list[Unreadable] = []
    start = time.monotonic()
    answers = predict(
        trained.model,
        config,
        paths,
        crops=wanted.crops,
        flip=wanted.flip,
        with_features=wanted.features,
    )
    for answer in tqdm.tqdm(
        answers, total=len(paths), unit="image", disable=not sys.stderr.isatty(), leave=False
    ):
        if isinstance(answer, Unreadable):
            unreadable.append(answer)
            continue
        rows.append((str(answer.path), _best(answer, trained.class_names, top_k=wanted.top_k)))
        if answer.features is not None:
            features.append(answer.features)
        if wanted.explain:
            _explain(trained, answer, folder=wanted.folder, number=len(rows))
    seconds = time.monotonic() - start
    if rows:
        _show(rows)
        print(f"\n{len(rows):,} images in {seconds:.1f} s, {len(rows) / seconds:.1f} images/s")
    for written in _write(rows, features, wanted):
        print(f"written to {written}")
    for bad in unreadable:
        print(f"{pathlib.Path(sys.argv[0]).name}: {bad.reason}", file=sys.stderr)
    return 2 if unreadable else 0


def _best(answer: Prediction, names: Sequence[str], *, top_k: int) -> list[tuple[str, float]]:
    order = np.argsort(-answer.probabilities, kind="stable")[:top_k]
    return [(names[index], float(answer.probabilities[index])) for index in order]


def _show(rows: Sequence[Row]) -> None:
    cells = [
        [image, *(f"{name} {probability:.1%}" for name, probability in classes)]
        for image, classes in rows[:_SHOWN]
    ]
    print(table(["image", *(str(place) for place in range(1, len(cells[0])))], cells))
    if len(rows) > _SHOWN:
        print(f"... and {len(rows) - _SHOWN:,} more; --output=all.csv writes all")


def _write(rows: Sequence[Row], features: Sequence[np.ndarray], wanted: Wanted) -> list[str]:
    written = []
    if wanted.output is not None:
        write_predictions(rows, wanted.output)
        written.append(str(wanted.output))
    if wanted.features and rows:
        path = wanted.folder / "features.npz"
        write_features([image for image, _ in rows], np.stack(features), path)
        written.append(str(path))
    if wanted.explain and rows:
        written.append(f"{wanted.folder / 'explain'}/")
    return written


def _explain(trained: Trained, answer: Prediction, *, folder: pathlib.Path, number: int) -> None:
    images = tf.constant(answer.image)[tf.newaxis]
    heat = heat_maps(trained.model, images, np.array([answer.probabilities.argmax()]))[0]
    picture = overlay(answer.image, heat, preprocess=trained.config.model.preprocess)
    # The number keeps files of one name in several folders apart.
    save_picture(picture, folder / "explain" / f"{number:05}-{answer.path.stem}.png")
