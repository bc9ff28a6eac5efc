"""A run or pretrained weights and names of formats in; files, checked and measured, out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tqdm

from efficientnetv2.data.preprocess import normalise
from efficientnetv2.export.images import (
    Images,
    calibration_images,
    checked_images,
    file_images,
)
from efficientnetv2.export.litert import float_operators
from efficientnetv2.export.quantised import QuantisedNetwork
from efficientnetv2.export.servable import Servable, build_servable
from efficientnetv2.export.verify import Check, verify
from efficientnetv2.export.writing import write
from efficientnetv2.opening import open_data
from efficientnetv2.report.tables import table, write_csv
from efficientnetv2.train.durable import replace_text
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.trained import open_trained
from hparams.errors import UserError
from hparams.resolve import Config

_SHOWN = 8  # layers of the table of 8-bit losses


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
      formats: of ``export.writing.SUFFIXES``.
      folder: where.
      image_files: calibrate and check on these; empty: on the run's data set.
      preprocessing: files take pixels of 0..255; otherwise normalised images.
      logits: files answer with logits; otherwise with probabilities.
      integer_io: the int8 file takes and gives uint8.
      debug_int8: also write what 8 bits cost in each layer.
      with_xla: the SavedModel gets a signature compiled by XLA, for TPU.
    """

    formats: Sequence[str]
    folder: pathlib.Path
    image_files: Sequence[pathlib.Path]
    preprocessing: bool
    logits: bool
    integer_io: bool
    debug_int8: bool
    with_xla: bool


class _Int8:
    """The 8-bit network, made when the first file wants it."""

    def __init__(self, servable: Servable, images: np.ndarray) -> None:
        self._servable = servable
        self._images = images
        self.network: QuantisedNetwork | None = None

    def __call__(self) -> QuantisedNetwork:
        if self.network is None:
            with tqdm.tqdm(
                unit="layer", desc="int8", leave=False, disable=not sys.stderr.isatty()
            ) as bar:

                def progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                self.network = QuantisedNetwork(
                    self._servable.folded, self._images, progress=progress
                )
        return self.network


def export(config: Config, run: RunDirectory | None, wanted: Wanted) -> int:
    """Writes each format, runs each file on real images and compares it with the Keras model.

    Args:
      config: of the run, channels last.
      run: holds a checkpoint; None: pretrained weights.
      wanted: the formats and their options.

    Returns:
      0, or 2 if a file is further from the Keras model than its limit; all files are there.
    """
    trained = open_trained(config, run)
    RunDirectory(wanted.folder).create()
    servable = build_servable(trained, preprocessing=wanted.preprocessing, logits=wanted.logits)
    calibration, checked = _images(config, run, wanted)
    if not len(checked.pixels):
        raise UserError("there is no image to check the files with; give --image_path=FOLDER")
    given = _as_taken(checked, servable)
    answers = servable.model.predict(given, batch_size=config.eval.batch_size, verbose=0)
    print(f"{servable.model_name}, {trained.origin}; checked on {len(given):,} images", flush=True)
    names = "".join(f"{name}\n" for name in servable.class_names)
    replace_text(wanted.folder / "labels.txt", names)
    int8 = _Int8(servable, _as_taken(calibration, servable))
    checks: dict[str, Check] = {}
    for name in wanted.formats:
        path = write(
            name,
            wanted.folder,
            servable,
            config,
            network=int8,
            integer_io=wanted.integer_io,
            with_xla=wanted.with_xla,
        )
        checks[path.name] = verify(name, path, checked, given, answers)
        if name == "tflite_int8":
            _say_floats(path)
    return _report(servable, checked, answers, checks, int8.network, wanted)


def _images(config: Config, run: RunDirectory | None, wanted: Wanted) -> tuple[Images, Images]:
    if wanted.image_files or run is None:
        return file_images(config, wanted.image_files)
    config, source = open_data(config, run)
    checked = checked_images(config, source)
    if "tflite_int8" not in wanted.formats:
        return Images(checked.pixels[:0], None), checked
    return calibration_images(config, source), checked


def _as_taken(images: Images, servable: Servable) -> np.ndarray:
    if servable.preprocessing:
        return images.pixels
    return normalise(tf.constant(images.pixels), servable.preprocess).numpy()


def _say_floats(path: pathlib.Path) -> None:
    floats = float_operators(path.read_bytes())
    if floats:
        print(f"{path.name}: not in int8: {', '.join(floats)}", flush=True)


def _report(
    servable: Servable,
    checked: Images,
    answers: np.ndarray,
    checks: dict[str, Check],
    network: QuantisedNetwork | None,
    wanted: Wanted,
) -> int:
    keras_accuracy = None
    if checked.labels is not None:
        keras_accuracy = float((answers.argmax(axis=1) == checked.labels).mean())
    result = {
        **servable.metadata(),
        "images": len(answers),
        "keras_accuracy": keras_accuracy,
        "files": {name: dataclasses.asdict(check) for name, check in checks.items()},
    }
    replace_text(wanted.folder / "export.json", json.dumps(result, indent=2) + "\n")
    _show(checks, keras_accuracy)
    written = ["labels.txt", "export.json"]
    if wanted.debug_int8 and network is not None:
        _write_losses(network, wanted.folder / "int8_layers.csv")
        written.append("int8_layers.csv")
    print(f"\nwritten to {wanted.folder}: {', '.join([*checks, *written])}", flush=True)
    faults = [f"'{name}' {check.fault}" for name, check in checks.items() if check.fault]
    if faults:
        raise UserError(f"not as the Keras model: {'; '.join(faults)}")
    return 0


def _show(checks: dict[str, Check], keras_accuracy: float | None) -> None:
    header = ["file", "MB", "ms an image", "largest difference", "same first class", "ties aside"]
    rows = [
        [
            name,
            f"{check.megabytes:.2f}",
            f"{check.milliseconds:.1f}",
            f"{check.max_difference:.1e}",
            f"{check.agreement:.1%}",
            f"{check.agreement + check.ties:.1%}",
        ]
        for name, check in checks.items()
    ]
    if keras_accuracy is not None:
        header.append("top-1")
        rows = [[*row, f"{check.accuracy:.4f}"] for row, check in zip(rows, checks.values())]
    print(f"\n{table(header, rows)}")
    if keras_accuracy is not None:
        print(f"top-1 of the Keras model: {keras_accuracy:.4f}")


def _write_losses(network: QuantisedNetwork, path: pathlib.Path) -> None:
    write_csv([dataclasses.asdict(loss) for loss in network.losses], path)
    worst = sorted(network.losses, key=lambda loss: loss.output_db)[:_SHOWN]
    rows = [[x.layer, f"{x.kernel_db:.1f}", f"{x.output_db:.1f}"] for x in worst]
    print(f"\n8 bits lose most at\n{table(['layer', 'weights dB', 'outputs dB'], rows)}")
