"""Writes a trained network for servers, phones and browsers: ``--mode=export``."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome, require_packages
from efficientnetv2.commands.config_from_flags import (
    run_from_flags,
    takes_arrays,
    temperature_from_flags,
    threshold_from_flags,
    trained_run_from_flags,
)
from efficientnetv2.commands.own_export import (
    InMemory,
    class_names_from_flags,
    export_own_model,
    is_own_model,
)
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.export.formats import FORMATS, require_channels
from efficientnetv2.export.web_page import find_runtime
from efficientnetv2.runtime.atomic_write import copy_as_next_version, require_writable_file
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import whole_run
from hparams.config import Config
from hparams.errors import UserError, shown
from hparams.label_kinds import NUMBERS, label_kind
from hparams.quantisation import is_quantised

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.loaded_model import LoadedModel
    from efficientnetv2.export.exporter import ExportOptions, ExportResult


_NOTHING = InMemory()


def run(values: FlagValues, stop: StopRequest, *, given: InMemory = _NOTHING) -> Outcome:
    """Exports to the formats that the flags name; the value is format -> path of its file.

    Args:
      values: the flags.
      stop: not used.
      given: what a Python program gives besides them.

    Raises:
      UserError: if the outputs of a file differ from those of the Keras model by more than its
        format allows; all files are written nevertheless.
    """
    del stop
    _check_outputs(values)
    if is_own_model(values, given):
        return _reported(*export_own_model(values, given), serving_dir=values.serving_dir)
    class_names = class_names_from_flags(values, given)
    images = _image_files(values, given)
    trained, config = trained_run_from_flags(values)
    if trained is not None and class_names is not None:
        raise UserError(f"class_names has no use with '{trained.path}', which knows its classes")
    _require_outputs(values, trained, config)
    base = trained.path if trained else pathlib.Path(f"{run_from_flags(values).path}-pretrained")
    folder = pathlib.Path(values.output_dir) if values.output_dir else base / "export"
    RunDirectory(folder)  # refuses a path that is a file
    temperature = temperature_from_flags(values, trained, config)
    threshold = threshold_from_flags(values, trained, config)
    import_tensorflow()
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.export.exporter import ExportOptions, export_model

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
        license=values.license,
        threshold=threshold,
        web_runtime=find_runtime(values.web_runtime),
        max_loss=values.max_loss,
    )
    loaded = load_trained(config, trained)
    if class_names is not None:
        loaded = _renamed(loaded, class_names)
    RunDirectory(folder).create()
    result = export_model(loaded, config, trained, options)
    return _reported(result, options, loaded, trained, serving_dir=values.serving_dir)


def _require_outputs(values: FlagValues, trained: RunDirectory | None, config: Config) -> None:
    """Checks that the formats can hold what the network takes and gives."""
    if trained is not None and is_quantised(config):
        _require_int8(values, trained)
    require_channels(values.format, config.model.channels)
    if values.integer_io and label_kind(config) == NUMBERS:
        raise UserError(
            "--integer_io leaves 256 steps of one size for the outputs, which are numbers here; "
            "leave it out"
        )


def _image_files(values: FlagValues, given: InMemory) -> Sequence[pathlib.Path]:
    """Returns the files of ``--image_path`` to check with; none: images of the run's test split.

    Raises:
      UserError: if weights without a run come without image files, or there are none.
    """
    if given.images is not None:
        raise UserError("images must be a path here; arrays are for a Keras model (docs/export.md)")
    if values.image_path:
        return find_images(pathlib.Path(values.image_path), arrays=takes_arrays(values))
    if values.weights is not None and whole_run(values.weights) is None:
        raise UserError(
            "--mode=export with --weights needs --image_path=FOLDER, images to check the files with"
        )
    return []


def _renamed(loaded: LoadedModel, class_names: list[str]) -> LoadedModel:
    """Returns a network with other names of its classes."""
    if len(class_names) != len(loaded.class_names):
        raise UserError(
            f"class_names has {len(class_names)} names, but the network has "
            f"{len(loaded.class_names)} outputs"
        )
    return dataclasses.replace(loaded, class_names=class_names)


def _reported(
    result: ExportResult,
    options: ExportOptions,
    loaded: LoadedModel | None = None,
    trained: RunDirectory | None = None,
    *,
    serving_dir: str | None,
) -> Outcome:
    from efficientnetv2.reporting.export_report import report_export

    if serving_dir:
        _add_version(result, pathlib.Path(serving_dir))
    report_export(result, options, loaded, trained)
    return Outcome(result.paths)


def _check_outputs(values: FlagValues) -> None:
    """Checks, before the work, what the flags say about the files to write.

    Raises:
      UserError: if a format's package is missing, it has no logits, the licence is not of the form
        that Hugging Face's list of licences has, a server's folder cannot be one, or a page's
        runtime is not in its folder.
    """
    for name in values.format:
        row = FORMATS[name]
        require_packages(row.requires, row.extra, f"--format={name}")
        if values.logits and not row.logits:
            raise UserError(
                f"--format={name} shows probabilities, not logits; export it without --logits"
            )
    if values.license and not re.fullmatch("[a-z0-9][a-z0-9.-]*", values.license):
        raise UserError(
            f"--license {shown(values.license)} must be an identifier in lower case, as Hugging "
            "Face lists them, such as apache-2.0, mit or other"
        )
    if values.serving_dir:
        _require_versions(pathlib.Path(values.serving_dir))
    find_runtime(values.web_runtime)


def _require_versions(folder: pathlib.Path) -> None:
    """Checks, before the work, that a folder can hold versions of a SavedModel.

    Raises:
      UserError: if it cannot.
    """
    if (folder / "saved_model.pb").exists():
        raise UserError(
            f"--serving_dir '{folder}' is a SavedModel; give the folder that holds its versions, "
            "1/, 2/ and so on"
        )
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"--serving_dir '{folder}': '{nearest}' is a file, not a folder")
    require_writable_file(nearest / "version")


def _add_version(result: ExportResult, folder: pathlib.Path) -> None:
    """Copies the SavedModel to a server's folder, unless it is too far from the Keras model."""
    path = result.paths.get("saved_model")
    if path is None:
        print(f"no new version in {folder}: there is no SavedModel of this network")
    elif result.checks[path.name].fault:
        print(f"no new version in {folder}: the SavedModel is too far from the Keras model")
    else:
        print(f"new version for a server: {copy_as_next_version(path, folder)}", flush=True)


def _require_int8(values: FlagValues, run: RunDirectory) -> None:
    """Checks that a run with ``train.quantise`` is written as what it was trained for.

    Raises:
      UserError: if a format is a float one, or the calibration is to be reported.
    """
    # Of the formats of integers, those that are made of the 8-bit network.
    names = [name for name, row in FORMATS.items() if "debug_int8" in row.options]
    others = [name for name in values.format if name not in names]
    if others:
        raise UserError(
            f"'{run.path}' was trained as an 8-bit file (train.quantise): give --format="
            f"{','.join(names)}; export {','.join(others)} from its float run, "
            f"{shown(str(run.config().train.ft_init_ckpt))}"
        )
    if values.debug_int8:
        raise UserError(
            f"--debug_int8 says what calibration loses, but '{run.path}' was trained in 8 bits"
        )
