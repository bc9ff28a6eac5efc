"""Runs ``--mode=infer``: predicts the classes of image files with a trained network."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import require_extra
from efficientnetv2.commands.config_from_flags import run_from_flags, trained_run_from_flags
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.data.sources.image_list import ImageList
from efficientnetv2.evaluation.image_prediction import Prediction, UnreadableImage
from efficientnetv2.reporting.prediction_files import require_writable, show_predictions
from efficientnetv2.reporting.prediction_journal import (
    PredictionJournal,
    PredictionTally,
    weights_checksum,
)
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError, shown
from hparams.resolve import flat

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.loaded_model import LoadedModel

_FEATURES = "features.npz"
_PREDICTION_OPTIONS = ("top_k", "crops", "flip", "features", "explain")


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of a prediction: the views of each image, and the files to write.

    Attributes:
      top_k: number of classes to name for each image; all if there are fewer.
      output: file for all predictions, in one of the formats of
        ``reporting.prediction_files.ROW_FORMATS``; None: not written.
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
    shard = _shard(values.shard)
    images = find_images(pathlib.Path(values.image_path), shard=shard)
    if not len(images):
        print(f"--shard={values.shard} has none of the {images.total:,} images")
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


def _shard(text: str | None) -> tuple[int, int]:
    """Returns number and count of ``--shard=3/64``.

    Raises:
      UserError: if it has another form, or the number is not one of 1 to the count.
    """
    if text is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(
            f"--shard={shown(text)[1:-1]}: give the number of the shard, from 1, and how many "
            "there are: --shard=1/4 to --shard=4/4"
        )
    return number, count


def predict_images(
    config: Config,
    run: RunDirectory | None,
    paths: Iterable[pathlib.Path],
    *,
    crops: int = 1,
    flip: bool = False,
    with_features: bool = False,
) -> Iterator[Prediction | UnreadableImage]:
    """Predicts the classes of images with the weights that ``load_trained`` loads.

    The weights are loaded at once, the images as the predictions are asked for; the memory that it
    takes does not grow with their number.

    Args:
      config: of the run.
      run: holds a checkpoint; None: load pretrained weights.
      paths: the image files.
      crops: number of crops of each image, 1 or 5, to average over.
      flip: also predict the mirror image of each crop.
      with_features: also return the classifier's input.

    Returns:
      An iterator over the predictions, in the order of the paths.

    Raises:
      UserError: if no weights can be read.
    """
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.predictor import predict

    loaded = load_trained(config, run)
    return predict(
        loaded.model,
        loaded.config,
        paths,
        class_names=loaded.class_names,
        crops=crops,
        flip=flip,
        with_features=with_features,
        with_images=False,
    )


def infer(
    config: Config, run: RunDirectory | None, images: ImageList, options: InferenceOptions
) -> int:
    """Predicts the classes of images, and prints and writes what the options ask for.

    What a file is asked for is written while the work goes on (see ``PredictionJournal``), and all
    files are complete before anything is printed.

    Returns:
      0, or 2 if some images could not be read and are not to be skipped: they are named on stderr.
    """
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.predictor import prepare_threads

    if not options.explain:  # heat maps are computed image by image
        prepare_threads(len(images))
    loaded = load_trained(config, run)
    if options.features or options.explain:
        RunDirectory(options.folder).create()  # before the prediction, which may take long
    journal = _open_journal(loaded, images, options)
    tally = journal.tally if journal else PredictionTally()
    before = tally.predictions
    if before:
        print(f"going on after {before:,} of {len(images):,} images", flush=True)
    start = time.monotonic()
    with _kept(journal):
        _predict(loaded, images, options, tally=tally, journal=journal)
        seconds = time.monotonic() - start
        written = _finish(tally, journal, options)
    if tally.predictions:
        show_predictions(tally.rows, tally.predictions)
        count = tally.predictions - before
        print(f"\n{count:,} images in {seconds:.1f} s, {count / seconds:.1f} images/s")
    for name in written:
        print(f"written to {name}")
    for index, reason in tally.unreadable:
        program = pathlib.Path(sys.argv[0]).name
        print(f"{program}: {images.place(index)}{reason}", file=sys.stderr)
    return 2 if tally.unreadable and config.data.on_bad_image != "skip" else 0


@contextlib.contextmanager
def _kept(journal: PredictionJournal | None) -> Iterator[None]:
    """Says, if the context raises, where the predictions are that were made before."""
    try:
        yield
    except BaseException:
        if journal is not None:
            journal.close()
            print(
                f"{journal.tally.predictions:,} predictions are kept in '{journal.path}'; the same "
                "command goes on from there",
                flush=True,
            )
        raise


def _open_journal(
    loaded: LoadedModel, images: ImageList, options: InferenceOptions
) -> PredictionJournal | None:
    """Returns the journal beside the file to be written; None if no file is asked for."""
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
    num_classes = min(options.top_k, len(loaded.class_names))
    return PredictionJournal(file, images, settings, num_classes=num_classes)


def _predict(
    loaded: LoadedModel,
    images: ImageList,
    options: InferenceOptions,
    *,
    tally: PredictionTally,
    journal: PredictionJournal | None,
) -> None:
    """Predicts the images that are not done yet; each batch is added to the journal and the tally.

    The batches, and how the network is prepared, are those of an unbroken run: the last bits of
    the probabilities depend on them.
    """
    import tqdm

    from efficientnetv2.evaluation.predictor import predict

    start = tally.images
    predictions = predict(
        loaded.model,
        loaded.config,
        (images[index] for index in range(start, len(images))),
        class_names=loaded.class_names,
        num_images=len(images),
        crops=options.crops,
        flip=options.flip,
        with_features=options.features,
        with_images=options.explain,
    )
    bar = tqdm.tqdm(
        total=len(images),
        initial=start,
        unit="image",
        disable=not sys.stderr.isatty(),
        leave=False,
    )
    with bar:
        while batch := list(itertools.islice(predictions, loaded.config.eval.batch_size)):
            if options.explain:
                _explain(loaded, batch, images, options.folder, start=tally.images)
            rows = [
                result.reason
                if isinstance(result, UnreadableImage)
                else (images.name(index), result.top(options.top_k))
                for index, result in enumerate(batch, start=tally.images)
            ]
            features = [result.features for result in batch if isinstance(result, Prediction)]
            if journal is not None:
                journal.add(rows, [row for row in features if row is not None])
            else:
                tally.add(rows)
            bar.update(len(batch))


def _explain(
    loaded: LoadedModel,
    batch: Sequence[Prediction | UnreadableImage],
    images: ImageList,
    folder: pathlib.Path,
    *,
    start: int,
) -> None:
    """Draws the heat maps of a batch, whose first image has the index ``start`` in the list."""
    from efficientnetv2.evaluation.gradcam import explain_prediction  # needs Matplotlib

    for index, result in enumerate(batch, start=start):
        if isinstance(result, Prediction):
            explain_prediction(loaded, result, folder=folder, number=images.number(index))


def _finish(
    tally: PredictionTally, journal: PredictionJournal | None, options: InferenceOptions
) -> list[str]:
    """Completes the files that are asked for, and removes the journal; returns their names."""
    written = []
    features = options.folder / _FEATURES if options.features and tally.predictions else None
    if journal is not None:
        journal.finish(options.output, features)
        written += [str(path) for path in (options.output, features) if path is not None]
    if options.explain and tally.predictions:
        written.append(f"{options.folder / 'explain'}/")
    return written
