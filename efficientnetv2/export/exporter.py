"""Exports a trained network in several formats, and compares each file with the Keras model."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.sample_images import (
    Images,
    calibration_images,
    file_images,
    verification_images,
)
from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.auto import Trial
from efficientnetv2.export.formats import (
    FORMATS,
    ExportJob,
    HeldOut,
    Limit,
    UnsupportedLayerError,
)
from efficientnetv2.export.litert import float_operators
from efficientnetv2.export.servable import Servable, build_servable
from efficientnetv2.export.verify import Check, verify
from efficientnetv2.export.web_page import MODEL
from efficientnetv2.int8.quantizer import LayerNoise, QuantisedNetwork
from efficientnetv2.int8.rounded_network import RoundedNetwork
from efficientnetv2.model.traced_function import outputs_of
from efficientnetv2.runtime.atomic_write import draft_of, replace_text
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.config import Config
from hparams.errors import UserError
from hparams.quantisation import is_quantised


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What an export writes, and the inputs and outputs of its files.

    Attributes:
      formats: rows of ``export.formats.FORMATS``.
      folder: where the files go; an existing folder.
      image_files: the images to calibrate and check with; empty: use the run's data set.
      preprocessing: the files' inputs are pixels of 0..255; otherwise normalised images.
      logits: the files' outputs are logits; otherwise probabilities.
      integer_io: inputs and outputs of the int8 file are uint8.
      debug_int8: also report the quantisation noise of each layer.
      with_xla: the SavedModel gets another signature that is compiled by XLA, for TPU.
      max_loss: points of accuracy that the file of ``tflite_auto`` may lose.
      temperature: by which the files divide logits; None: they do not.
      license: of the files, as Hugging Face names it, for the model card; None: not stated.
      threshold: an image whose best probability is below it is unknown; None: none is.
      web_runtime: as in ``web_page.write_page``.
    """

    formats: Sequence[str]
    folder: pathlib.Path
    image_files: Sequence[pathlib.Path]
    preprocessing: bool
    logits: bool
    integer_io: bool
    debug_int8: bool
    with_xla: bool
    max_loss: float
    temperature: float | None = None
    license: str | None = None
    threshold: float | None = None
    web_runtime: dict[str, pathlib.Path] | None = None


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """The files that an export wrote, and how they compare with the Keras model.

    Attributes:
      servable: the exported network.
      images: the number of images that the files were checked on.
      keras_accuracy: the score of the Keras model on these images (top-1, F1 or R2); None: labels
        are not known.
      checks: file name -> its measurements.
      paths: format -> its file.
      layer_noise: the quantisation noise of each layer; empty without an int8 file.
      in_float: name of a file of integers -> its operators that compute in floats.
      refused: format -> why the network cannot be written in it.
      trials: what the automatic choice has tried; empty without its format.
    """

    servable: Servable
    images: int
    keras_accuracy: float | None
    checks: dict[str, Check]
    paths: dict[str, pathlib.Path]
    layer_noise: Sequence[LayerNoise]
    in_float: dict[str, list[str]]
    refused: dict[str, str]
    trials: Sequence[Trial]


class _Quantiser:
    """Quantises a network, and shows the progress."""

    def __init__(self, servable: Servable, images: np.ndarray) -> None:
        self._servable = servable
        self._images = images
        self.network: QuantisedNetwork | None = None

    def int8(self) -> RoundedNetwork:
        """Returns the network in 8 bits, which is made when the first file needs it."""
        if self._servable.rounded is not None:
            return self._servable.rounded
        if self.network is None:
            self.network = self.quantise()
        return self.network

    def quantise(self, **settings: Any) -> QuantisedNetwork:
        """Returns a ``QuantisedNetwork`` with other settings."""
        with open_bar(unit="layer", desc="int8") as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            folded = self._servable.standardised
            return QuantisedNetwork(folded, self._images, progress=progress, **settings)


def export_model(
    loaded: LoadedModel, config: Config, run: RunDirectory | None, options: ExportOptions
) -> ExportResult:
    """Writes each format, runs each file on real images and compares it with the Keras model.

    Args:
      loaded: the network.
      config: the config of the run, channels last.
      run: the run whose data set is used; None: ``loaded`` has pretrained weights, and
        ``options.image_files`` are used.
      options: the formats, and the inputs and outputs of the files.

    Raises:
      UserError: if there are no images to check with, or a file cannot be written.
    """
    servable = build_servable(
        loaded,
        preprocessing=options.preprocessing,
        logits=options.logits,
        temperature=options.temperature,
        threshold=options.threshold,
    )
    calibration, verification = _images(config, run, options)
    if not len(verification.pixels):
        raise UserError("no images to check the exported files with; give --image_path=FOLDER")
    verification = Images(servable.inputs(verification.pixels), verification.labels)
    inputs = servable.inputs(calibration.pixels)
    return export_servable(servable, config, inputs, verification, options)


def export_servable(
    servable: Servable,
    config: Config,
    calibration: np.ndarray,
    verification: Images,
    options: ExportOptions,
) -> ExportResult:
    """Writes each format, runs each file and compares it with the Keras model.

    Args:
      servable: the network.
      config: says how encoded images are cropped and resized, and the batch of the Keras model.
      calibration: the images that 8-bit files are calibrated on, as the network takes them.
      verification: those that all files are checked on, as the network takes them.
      options: the formats, and the inputs and outputs of the files.

    Raises:
      WriteError: if a file cannot be written.
    """
    inputs = verification.pixels
    expected = outputs_of(servable.model, inputs, batch_size=config.eval.batch_size)
    print(
        f"{servable.model_name}, {servable.origin}; checked on {len(inputs):,} images", flush=True
    )
    names = "".join(f"{name}\n" for name in servable.class_names)
    replace_text(options.folder / "labels.txt", names)
    quantiser = _Quantiser(servable, calibration)
    job = ExportJob(
        servable,
        config,
        quantiser.int8,
        quantiser.quantise,
        calibration,
        integer_io=options.integer_io,
        with_xla=options.with_xla,
        web_runtime=options.web_runtime,
        held_out=HeldOut(inputs, expected, verification.labels),
        max_loss=options.max_loss,
    )
    result = ExportResult(servable, len(inputs), None, {}, {}, [], {}, {}, job.trials)
    for name in options.formats:
        path = options.folder / f"{servable.model_name}{FORMATS[name].suffix}"
        # Verified before it takes its place, where another export may put its own file meanwhile.
        try:
            with draft_of(path) as draft:
                FORMATS[name].write(draft, job)
                limit, answers = _limit(name, options), servable.answers
                result.checks[path.name] = verify(
                    name, draft, verification, inputs, expected, answers, limit=limit
                )
                if FORMATS[name].is_integer:
                    file = draft / MODEL if draft.is_dir() else draft
                    result.in_float[path.name] = float_operators(file.read_bytes())
            result.paths[name] = path
        except UnsupportedLayerError as error:  # the other formats may be possible
            result.refused[name] = str(error)
    accuracy = None
    if verification.labels is not None:
        accuracy = servable.answers.score(expected, verification.labels)
    noise = quantiser.network.layer_noise if quantiser.network else []
    return dataclasses.replace(result, keras_accuracy=accuracy, layer_noise=noise)


def _limit(name: str, options: ExportOptions) -> Limit:
    """How much the outputs of a format's file may differ."""
    row = FORMATS[name]
    if "max_loss" not in row.options:
        return row.limit
    return dataclasses.replace(
        row.limit, disagreement=options.max_loss / 100, points=options.max_loss
    )


def _images(
    config: Config, run: RunDirectory | None, options: ExportOptions
) -> tuple[Images, Images]:
    """The images to calibrate files with (none if no format needs any), and to check with."""
    if options.image_files or run is None:
        return file_images(config, options.image_files)
    config, source = open_data(config, run)
    verification = verification_images(config, source)
    calibrates = not is_quantised(config)
    if not calibrates or not any(FORMATS[name].calibrated for name in options.formats):
        return Images(verification.pixels[:0], None), verification
    return calibration_images(config, source), verification
