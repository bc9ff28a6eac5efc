"""Runs ``--mode=infer``: predicts the classes of image files with a trained network."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands.config_from_flags import run_from_flags, trained_run_from_flags
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.reporting.prediction_files import require_writable
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.predictor import UnreadableImage
    from efficientnetv2.reporting.prediction_files import Row


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of a prediction: the views of each image, and the files to write.

    Attributes:
      top_k: number of classes to name for each image; all if there are fewer.
      output: file for all predictions, with one of the suffixes of
        ``reporting.prediction_files.SUFFIXES``; None: not written.
      crops: number of crops of each image, 1 or 5, to average over.
      flip: also predict the mirror image of each crop.
      features: write the input of the classifier to ``features.npz``.
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


def run(values: FlagValues) -> int:
    """Predicts the images that the flags name; returns the exit code."""
    if values.image_path is None:
        raise UserError("--mode=infer needs --image_path=FILE_OR_FOLDER")
    images = find_images(pathlib.Path(values.image_path))
    output = pathlib.Path(values.output) if values.output else None
    if output is not None:
        require_writable(output)
    trained, config = trained_run_from_flags(values)
    folder = pathlib.Path(values.output_dir) if values.output_dir else run_from_flags(values).path
    import_tensorflow()
    options = InferenceOptions(
        top_k=values.top_k,
        output=output,
        crops=int(values.crops),
        flip=values.flip,
        features=values.features,
        explain=values.explain,
        folder=folder,
    )
    return infer(config, trained, images, options)


def infer(
    config: Config,
    run: RunDirectory | None,
    paths: Sequence[pathlib.Path],
    options: InferenceOptions,
) -> int:
    """Predicts the classes of images with the weights that ``load_trained`` loads.

    Returns:
      0, or 2 if some images could not be read: they are named on stderr.
    """
    import tqdm

    from efficientnetv2.evaluation.gradcam import explain_prediction
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.predictor import UnreadableImage, predict, prepare_threads
    from efficientnetv2.reporting.prediction_files import best_classes, show_predictions

    if not options.explain:  # heat maps are computed image by image
        prepare_threads(len(paths))
    loaded = load_trained(config, run)
    if options.features or options.explain:
        RunDirectory(options.folder).create()  # before the prediction, which may take long
    rows: list[Row] = []
    features: list[np.ndarray] = []
    unreadable: list[UnreadableImage] = []
    start = time.monotonic()
    predictions = predict(
        loaded.model,
        config,
        paths,
        crops=options.crops,
        flip=options.flip,
        with_features=options.features,
    )
    for prediction in tqdm.tqdm(
        predictions, total=len(paths), unit="image", disable=not sys.stderr.isatty(), leave=False
    ):
        if isinstance(prediction, UnreadableImage):
            unreadable.append(prediction)
            continue
        best = best_classes(prediction.probabilities, loaded.class_names, top_k=options.top_k)
        rows.append((str(prediction.path), best))
        if prediction.features is not None:
            features.append(prediction.features)
        if options.explain:
            explain_prediction(loaded, prediction, folder=options.folder, number=len(rows))
    seconds = time.monotonic() - start
    if rows:
        show_predictions(rows)
        print(f"\n{len(rows):,} images in {seconds:.1f} s, {len(rows) / seconds:.1f} images/s")
    for written in _write(rows, features, options):
        print(f"written to {written}")
    for image in unreadable:
        print(f"{pathlib.Path(sys.argv[0]).name}: {image.reason}", file=sys.stderr)
    return 2 if unreadable else 0


def _write(
    rows: Sequence[Row], features: Sequence[np.ndarray], options: InferenceOptions
) -> list[str]:
    from efficientnetv2.reporting.prediction_files import write_features, write_predictions

    written = []
    if options.output is not None:
        write_predictions(rows, options.output)
        written.append(str(options.output))
    if options.features and rows:
        path = options.folder / "features.npz"
        write_features([image for image, _ in rows], features, path)
        written.append(str(path))
    if options.explain and rows:
        written.append(f"{options.folder / 'explain'}/")
    return written
