"""Predicts the classes of image files with a trained network: ``--mode=infer``."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome, require_extra
from efficientnetv2.commands.config_from_flags import (
    run_from_flags,
    takes_arrays,
    temperature_from_flags,
    threshold_from_flags,
    trained_run_from_flags,
)
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.data.sources.image_list import ImageList
from efficientnetv2.evaluation.image_prediction import Prediction, UnreadableImage
from efficientnetv2.reporting.prediction_files import require_writable, show_predictions
from efficientnetv2.reporting.prediction_journal import (
    PredictionJournal,
    PredictionTally,
    weights_checksum,
)
from efficientnetv2.reporting.row_layout import LAYOUTS, Row, RowLayout
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError, shown
from hparams.label_kinds import LABEL_KINDS, ONE, label_kind
from hparams.quantisation import is_quantised
from hparams.resolve import flat

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.loaded_model import LoadedModel

_FEATURES = "features.npz"
_PREDICTION_OPTIONS = (
    *("top_k", "crops", "flip", "features", "explain"),
    *("temperature", "threshold", "allow_unknown"),
)


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
      temperature: by which logits are divided; None: probabilities are raw.
      threshold: an image whose best probability is below it is unknown; None: none is.
      allow_unknown: say of each image which class it is, or that it is unknown.
    """

    top_k: int
    output: pathlib.Path | None
    crops: int
    flip: bool
    features: bool
    explain: bool
    folder: pathlib.Path
    temperature: float | None
    threshold: float | None = None
    allow_unknown: bool = False


def run(
    values: FlagValues,
    stop: StopRequest,
    *,
    listed: ImageList | None = None,
    kept: list[Prediction] | None = None,
) -> Outcome:
    """Predicts the images that the flags name; the value is the folder for more files.

    Args:
      values: the flags.
      stop: not used: what is predicted is on the disk already.
      listed: the images, if a Python program lists them; None: ``--image_path`` names them.
      kept: gets the predictions, if a Python program wants them; they are not kept otherwise.
    """
    del stop
    if listed is None and values.image_path is None:
        raise UserError("--mode=infer needs --image_path=FILE_OR_FOLDER")
    if values.output_dir is not None and not (values.features or values.explain):
        raise UserError(
            "--output_dir is for --features and --explain; for predictions give --output"
        )
    if values.features and values.shard is not None and values.output_dir is None:
        raise UserError(
            f"--features of each shard needs a folder of its own, or the next one replaces its "
            f"{_FEATURES}; give --output_dir=FOLDER"
        )
    if values.explain:
        require_extra("train", "--explain")
    shard = _shard(values.shard)
    if listed is not None:
        images = listed
    else:
        arrays = takes_arrays(values)
        images = find_images(pathlib.Path(values.image_path), shard=shard, arrays=arrays)
    if not len(images):
        print(f"--shard={values.shard} has none of the {images.total:,} images")
    output = pathlib.Path(values.output) if values.output else None
    if output is not None:
        require_writable(output)
    trained, config = trained_run_from_flags(values)
    _check_flags_of_network(values, config)
    folder = pathlib.Path(values.output_dir) if values.output_dir else run_from_flags(values).path
    RunDirectory(folder)  # refuses a path that is a file
    temperature = temperature_from_flags(values, trained, config)
    threshold = threshold_from_flags(values, trained, config)
    import_tensorflow()
    options = InferenceOptions(
        top_k=values.top_k,
        output=output,
        crops=int(values.crops),
        flip=values.flip,
        features=values.features,
        explain=values.explain,
        folder=folder,
        temperature=temperature,
        threshold=threshold,
        allow_unknown=values.allow_unknown,
    )
    return Outcome(folder, infer(config, trained, images, options, kept=kept))


def _check_flags_of_network(values: FlagValues, config: Config) -> None:
    """Checks the flags that some networks do not support.

    Raises:
      UserError: if there is one that this network cannot.
    """
    if is_quantised(config) and (values.features or values.explain):
        flag = "--features" if values.features else "--explain"
        raise UserError(
            f"{flag} needs a float network, not one that was trained as its 8-bit file: give "
            f"--weights={config.train.ft_init_ckpt}, its float run"
        )
    kind = label_kind(config)
    if values["top_k"].present and kind != ONE:
        raise UserError(
            f"--top_k is for networks that name one class; this one predicts "
            f"{LABEL_KINDS[kind].text} an image and shows all of them"
        )


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


def infer(
    config: Config,
    run: RunDirectory | None,
    images: ImageList,
    options: InferenceOptions,
    *,
    kept: list[Prediction] | None = None,
) -> int:
    """Predicts the classes of images, and prints and writes what the options ask for.

    What a file is asked for is written while the work goes on (see ``PredictionJournal``), and all
    files are complete before anything is printed.

    Args:
      config: of the run.
      run: holds a checkpoint; None: load pretrained weights.
      images: the image files.
      options: what to print and write.
      kept: as in ``run``.

    Returns:
      0, or 2 if some images could not be read and are not to be skipped: they are named on stderr.
    """
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.predictor import prepare_threads

    # Heat maps are computed image by image; a Python program may go on to train.
    if not options.explain and kept is None:
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
    with _journal_kept(journal):
        if kept is not None:  # what an earlier call wrote is not in memory
            kept += _only_predictions(_predictions(loaded, images, options, range(tally.images)))
        _predict(loaded, images, options, tally=tally, journal=journal, kept=kept)
        seconds = time.monotonic() - start
        written = _finish(tally, journal, options)
    if tally.predictions:
        is_written = options.output is not None
        layout = _layout(loaded, options)
        show_predictions(tally.rows, tally.predictions, layout=layout, is_written=is_written)
        count = tally.predictions - before
        print(f"\n{count:,} images in {seconds:.1f} s, {count / seconds:.1f} images/s")
    for name in written:
        print(f"written to {name}")
    for index, reason in tally.unreadable:
        if kept is not None:
            warnings.warn(f"{images.place(index)}{reason}", UserWarning, stacklevel=5)
            continue
        program = pathlib.Path(sys.argv[0]).name
        print(f"{program}: {images.place(index)}{reason}", file=sys.stderr)
    return 2 if tally.unreadable and config.data.on_bad_image != "skip" else 0


@contextlib.contextmanager
def _journal_kept(journal: PredictionJournal | None) -> Iterator[None]:
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
        "thresholds": None if loaded.thresholds is None else loaded.thresholds.tolist(),
        "config": {
            key: value
            for key, value in flat(loaded.config).items()
            if key.startswith(("model.", "eval.isize", "data.resize", "train.loss_type"))
            or key in ("data.multi_label", "eval.crop_pct")
        },
        **{name: getattr(options, name) for name in _PREDICTION_OPTIONS},
    }
    return PredictionJournal(file, images, settings, layout=_layout(loaded, options))


def _layout(loaded: LoadedModel, options: InferenceOptions) -> RowLayout:
    """Returns the layout of the rows of predictions."""
    count = min(options.top_k, len(loaded.class_names))
    layout = LAYOUTS[label_kind(loaded.config)]
    return layout(loaded.class_names, count, with_answer=options.allow_unknown)


def _predict(
    loaded: LoadedModel,
    images: ImageList,
    options: InferenceOptions,
    *,
    tally: PredictionTally,
    journal: PredictionJournal | None,
    kept: list[Prediction] | None,
) -> None:
    """Predicts the images that are not done yet; each batch is added to the journal and the tally.

    The batches, and how the network is prepared, are those of an unbroken run: the last bits of
    the probabilities depend on them.
    """
    start = tally.images
    predictions = _predictions(loaded, images, options, range(start, len(images)))
    bar = open_bar(total=len(images), initial=start, unit="image")
    with bar:
        while batch := list(itertools.islice(predictions, loaded.config.eval.batch_size)):
            if options.explain:
                _explain(loaded, batch, images, options.folder, start=tally.images)
            if kept is not None:
                kept += _only_predictions(batch)
            rows = [
                result.reason
                if isinstance(result, UnreadableImage)
                else Row(images.name(index), result.row(options.top_k), result.answer)
                for index, result in enumerate(batch, start=tally.images)
            ]
            features = [result.features for result in batch if isinstance(result, Prediction)]
            if journal is not None:
                journal.add(rows, [row for row in features if row is not None])
            else:
                tally.add(rows)
            bar.update(len(batch))


def _predictions(
    loaded: LoadedModel, images: ImageList, options: InferenceOptions, indices: range
) -> Iterator[Prediction | UnreadableImage]:
    """Yields the predictions of some of the images; the network is prepared for all of them."""
    from efficientnetv2.evaluation.predictor import predict

    return predict(
        loaded.model,
        loaded.config,
        (images[index] for index in indices),
        class_names=loaded.class_names,
        thresholds=loaded.thresholds,
        temperature=options.temperature,
        known_from=options.threshold,
        num_images=len(images),
        crops=options.crops,
        flip=options.flip,
        with_features=options.features,
        with_images=options.explain,
    )


def _only_predictions(
    results: Iterable[Prediction | UnreadableImage],
) -> Iterator[Prediction]:
    """Yields the images that could be read, without their pixels."""
    for result in results:
        if isinstance(result, Prediction):
            yield dataclasses.replace(result, image=None)


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
