"""Writes a trained network for servers, phones and browsers: ``--mode=export``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome, require_packages
from efficientnetv2.commands.config_from_flags import (
    run_from_flags,
    takes_arrays,
    temperature_from_flags,
    trained_run_from_flags,
)
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import whole_run
from hparams.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Exports to the formats that the flags name; the value is format -> path of its file.

    Raises:
      UserError: if the outputs of a file differ from those of the Keras model by more than its
        format allows; all files are written nevertheless.
    """
    del stop
    is_file = values.weights is not None and whole_run(values.weights) is None
    if is_file and values.image_path is None:
        raise UserError(
            "--mode=export with --weights needs --image_path=FOLDER, images to check the files with"
        )
    for name in values.format:
        row = FORMATS[name]
        require_packages(row.requires, row.extra, f"--format={name}")
    images: Sequence[pathlib.Path] = []
    if values.image_path:
        images = find_images(pathlib.Path(values.image_path), arrays=takes_arrays(values))
    trained, config = trained_run_from_flags(values)
    base = trained.path if trained else pathlib.Path(f"{run_from_flags(values).path}-pretrained")
    folder = pathlib.Path(values.output_dir) if values.output_dir else base / "export"
    RunDirectory(folder)  # refuses a path that is a file
    temperature = temperature_from_flags(values, trained, config)
    import_tensorflow()
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.export.exporter import ExportOptions, export_model
    from efficientnetv2.reporting.export_report import report_export

    options = ExportOptions(
        formats=list(dict.fromkeys(values.format)),
        folder=folder,
        image_files=images,
        preprocessing=values.preprocessing,
        logits=values.logits,
        integer_io=values.integer_io,
        debug_int8=values.debug_int8,
        with_xla=values.export_to_tpu,
        temperature=temperature,
    )
    loaded = load_trained(config, trained)
    RunDirectory(folder).create()
    result = export_model(loaded, config, trained, options)
    report_export(result, options)
    return Outcome(result.paths)
