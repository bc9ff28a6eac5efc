"""Runs ``--mode=infer``: predicts the classes of image files with a trained network."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import require_extra
from efficientnetv2.commands.config_from_flags import run_from_flags, trained_run_from_flags
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.reporting.prediction_files import require_writable
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import flat

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.loaded_model import LoadedModel
    from efficientnetv2.evaluation.predictor import UnreadableImage
    from efficientnetv2.reporting.prediction_files import Row
    from efficientnetv2.reporting.prediction_journal import PredictionJournal

_FEATURES = "features.npz"
_PREDICTION_OPTIONS = ("top_k", "crops", "flip", "features", "explain")


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
    if values.output_dir is not None and not (values.features or values.explain):
        raise UserError(
            "--output_dir is for --features and --explain; for predictions give --output"
        )
    if values.explain:
        require_extra("train", "--explain")
    images = find_images(pathlib.Path(values.image_path))
    output = pathlib.Path(values.output) if values.output else None
    if output is not None:
        require_writable(output)
    trained, config = trained_run_from_flags(values)
    folder = pathlib.Path(values.output_dir) if values.output_dir else run_from_flags(values).path
    RunDirectory(folder)  # refuses a path that is a file
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

    What a file is asked for is written while the work goes on (see ``PredictionJournal``), and all
    files are complete before anything is printed.

    Returns:
      0, or 2 if some images could not be read and are not to be skipped: they are named on stderr.
    """
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.predictor import prepare_threads
    from efficientnetv2.reporting.prediction_files import show_predictions

    if not options.explain:  # heat maps are computed image by image
        prepare_threads(len(paths))
    loaded = load_trained(config, run)
    if options.features or options.explain:
        RunDirectory(options.folder).create()  # before the prediction, which may take long
    journal = _open_journal(loaded, options)
    before = sum(_name(path) in journal.rows for path in paths) if journal else 0
    if before:
        print(f"going on after {before:,} of {len(paths):,} images", flush=True)
    start = time.monotonic()
    with _kept(journal):
        rows, unreadable = _predict(loaded, paths, options, journal)
        seconds = time.monotonic() - start
        written = _write(rows, journal, options)
    if rows:
        show_predictions(rows)
        count = len(rows) - before
        print(f"\n{count:,} images in {seconds:.1f} s, {count / seconds:.1f} images/s")
    for name in written:
        print(f"written to {name}")
    for image in unreadable:
        print(f"{pathlib.Path(sys.argv[0]).name}: {image.reason}", file=sys.stderr)
    return 2 if unreadable and config.data.on_bad_image != "skip" else 0


@contextlib.contextmanager
def _kept(journal: PredictionJournal | None) -> Iterator[None]:
    """Says, if the context raises, where the predictions are that were made before."""
    try:
        yield
    except BaseException:
        if journal is not None:
            journal.close()
            print(
                f"{len(journal.rows):,} predictions are kept in '{journal.path}'; the same command "
                "goes on from there",
                flush=True,
            )
        raise


def _open_journal(loaded: LoadedModel, options: InferenceOptions) -> PredictionJournal | None:
    """Returns the journal beside the file to be written; None if no file is asked for."""
    from efficientnetv2.reporting.prediction_journal import PredictionJournal, weights_checksum

    if options.output is None and not options.features:
        return None
    file = options.output or options.folder / _FEATURES
    settings = {
        "weights": weights_checksum(loaded.model.get_weights()),
        "classes": loaded.class_names,
        "config": {
            key: value
            for key, value in flat(loaded.config).items()
            if key.startswith(("model.", "eval.isize", "data.eval_crop", "train.loss_type"))
        },
        **{name: getattr(options, name) for name in _PREDICTION_OPTIONS},
    }
    return PredictionJournal(file.with_name(f".{file.name[:200]}.partial"), settings)


def _predict(
    loaded: LoadedModel,
    paths: Sequence[pathlib.Path],
    options: InferenceOptions,
    journal: PredictionJournal | None,
) -> tuple[list[Row], list[UnreadableImage]]:
    """Predicts the images that are not in the journal; returns the rows of all, in order."""
    import tqdm

    from efficientnetv2.evaluation.predictor import UnreadableImage, predict
    from efficientnetv2.reporting.prediction_files import best_classes

    rows: dict[str, Row] = dict(journal.rows) if journal else {}
    numbers = {path: number for number, path in enumerate(paths, start=1)}
    left = [path for path in paths if _name(path) not in rows]
    unreadable: list[UnreadableImage] = []
    predictions = predict(
        loaded.model,
        loaded.config,
        left,
        crops=options.crops,
        flip=options.flip,
        with_features=options.features,
    )
    for prediction in tqdm.tqdm(
        predictions, total=len(left), unit="image", disable=not sys.stderr.isatty(), leave=False
    ):
        if isinstance(prediction, UnreadableImage):
            unreadable.append(prediction)
            continue
        if options.explain:
            from efficientnetv2.evaluation.gradcam import explain_prediction  # needs Matplotlib

            number = numbers[prediction.path]
            explain_prediction(loaded, prediction, folder=options.folder, number=number)
        best = best_classes(prediction.probabilities, loaded.class_names, top_k=options.top_k)
        row = (_name(prediction.path), best)
        rows[row[0]] = row
        if journal is not None:
            journal.add(row, prediction.features)
    return [rows[_name(path)] for path in paths if _name(path) in rows], unreadable


def _name(path: pathlib.Path) -> str:
    """Returns a path as text, whatever the locale; ``find_images`` takes UTF-8 only."""
    return os.fsencode(path).decode("utf-8")


def _write(
    rows: Sequence[Row], journal: PredictionJournal | None, options: InferenceOptions
) -> list[str]:
    """Writes the files that are asked for, and removes the journal; returns what was written."""
    from efficientnetv2.reporting.prediction_files import write_features, write_predictions

    written = []
    if options.output is not None:
        write_predictions(rows, options.output)
        written.append(str(options.output))
    if options.features and rows and journal is not None:
        path = options.folder / _FEATURES
        images = [image for image, _ in rows]
        write_features(images, [journal.features[image] for image in images], path)
        written.append(str(path))
    if options.explain and rows:
        written.append(f"{options.folder / 'explain'}/")
    if journal is not None:
        journal.remove()
    return written
