"""Exports a Keras model that a user made: a ``.keras`` file, or a model in memory."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from efficientnetv2.checkpoints.keras_config import ImageModel, is_keras_model, read_image_model
from efficientnetv2.commands.config_from_flags import overrides_from_flags, temperature_from_flags
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.export.formats import require_channels
from efficientnetv2.export.web_page import find_runtime
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.channels import RGB
from hparams.config import Config
from hparams.errors import UserError
from hparams.overrides import merge_overrides
from hparams.resolve import resolve

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.export.exporter import ExportOptions, ExportResult
    from efficientnetv2.export.own_model import OwnModel
    from efficientnetv2.export.servable import Servable

# The settings that an export of such a model reads; the rest is in the model.
_NORMALISATION = ("model.preprocess", "model.pixel_mean", "model.pixel_deviation")
_USED = (*_NORMALISATION, "data.resize", "data.on_bad_image", "eval.isize", "eval.batch_size")
_BY_PROGRAM = ("model.data_format",)
# Whose rows give the other settings: images are resized by bilinear interpolation, as Keras does.
_NETWORK, _DATA = "efficientnetv2-s", "imagenet2012"


@dataclasses.dataclass(frozen=True)
class InMemory:
    """What a Python program gives to an export besides flags.

    Attributes:
      model: a Keras model; None: ``--weights`` or ``--model_dir`` name the network.
      images: an array or a ``tf.data.Dataset``; None: ``--image_path`` names files.
      class_names: None: ``--class_names`` names a file, or they are not known.
    """

    model: Any = None
    images: Any = None
    class_names: Sequence[str] | None = None


def is_own_model(values: FlagValues, given: InMemory) -> bool:
    """Whether the flags name a whole Keras model, and no network to put its weights into."""
    has_name = values["model_name"].present
    return given.model is not None or (is_keras_model(values.weights) and not has_name)


def class_names_from_flags(values: FlagValues, given: InMemory) -> list[str] | None:
    """Returns the names of the classes that the caller or ``--class_names`` gives, or None.

    Raises:
      UserError: if the file cannot be read, or there is no name in it.
    """
    if given.class_names is not None:
        return [str(name) for name in given.class_names]
    if values.class_names is None:
        return None
    try:
        text = pathlib.Path(values.class_names).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--class_names: cannot read '{values.class_names}': {reason}") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise UserError(f"--class_names: '{values.class_names}' has no names; write one per line")
    return names


def export_own_model(values: FlagValues, given: InMemory) -> tuple[ExportResult, ExportOptions]:
    """Exports the Keras model that the flags or the caller name.

    Raises:
      UserError: if the model, the images or a setting cannot be used.
    """
    _require_no_network_flags(values, given)
    class_names, facts = class_names_from_flags(values, given), None
    if given.model is None:
        facts = read_image_model(values.weights)
        config = _config(values, facts, what=f"'{values.weights}'")
    else:
        _check_settings(values)
    paths = find_images(pathlib.Path(values.image_path), arrays=True) if values.image_path else []
    import_tensorflow()
    from efficientnetv2.data.sample_images import Images, file_images
    from efficientnetv2.export.exporter import export_servable
    from efficientnetv2.export.memory_images import memory_images
    from efficientnetv2.export.own_model import open_own_model, own_model, with_levels

    if facts is not None:
        own = open_own_model(pathlib.Path(values.weights), facts)
    else:
        own = own_model(given.model)
        config = _config(values, own.facts, what=own.origin)
    servable = _servable(values, own, config, class_names=class_names, has_files=bool(paths))
    if paths:
        calibration, verification = (
            Images(servable.inputs(images.pixels), images.labels)
            for images in file_images(config, paths)
        )
    else:
        shape = (servable.image_size, servable.image_size, servable.channels)
        calibration, verification = memory_images(
            given.images, shape=shape, kind=servable.kind, outputs=len(servable.class_names)
        )
    servable = with_levels(servable, verification.pixels)
    options = _options(values, servable, paths)
    inputs = f"images {servable.image_size} x {servable.image_size}, {servable.input_range}"
    print(f"{servable.origin}: takes {inputs}; gives {servable.output_name}", flush=True)
    result = export_servable(servable, config, calibration.pixels, verification, options)
    return result, options


def _servable(
    values: FlagValues,
    own: OwnModel,
    config: Config,
    *,
    class_names: Sequence[str] | None,
    has_files: bool,
) -> Servable:
    from efficientnetv2.export.own_model import build_own_servable

    settings = merge_overrides(overrides_from_flags(values, with_weights=False))[0]
    servable = build_own_servable(
        own,
        config,
        preprocessing=values.preprocessing,
        normalises=any(key in settings for key in _NORMALISATION),
        class_names=class_names,
        has_files=has_files,
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", servable.model_name)  # becomes part of a path
    return dataclasses.replace(servable, model_name=name)


def _options(
    values: FlagValues, servable: Servable, paths: Sequence[pathlib.Path]
) -> ExportOptions:
    from efficientnetv2.export.exporter import ExportOptions

    default = pathlib.Path("runs") / servable.model_name / "export"
    folder = pathlib.Path(values.output_dir or default)
    RunDirectory(folder).create()
    return ExportOptions(
        formats=list(dict.fromkeys(values.format)),
        folder=folder,
        image_files=paths,
        preprocessing=values.preprocessing,
        logits=servable.output_name == "logits",
        integer_io=values.integer_io,
        debug_int8=values.debug_int8,
        with_xla=values.export_to_tpu,
        license=values.license,
        web_runtime=find_runtime(values.web_runtime),
        max_loss=values.max_loss,
    )


def _require_no_network_flags(values: FlagValues, given: InMemory) -> None:
    what = "a Keras model"
    if given.images is None and values.image_path is None:
        raise UserError(
            f"the export of {what} needs images to check the files with: --image_path=FOLDER, in "
            "Python images=..., a folder, an array or a tf.data.Dataset"
        )
    for flag in ("model_dir", "data_dir", "dataset_cfg", "model_name"):
        if values[flag].present:
            raise UserError(f"--{flag} has no use with {what}, which is exported as it is")
    if given.model is not None and values.weights is not None:
        raise UserError("model and weights both name a network; give one of them")
    if values.logits:
        raise UserError(
            f"--logits has no use with {what}, which is exported as it is; build it without the "
            "last activation"
        )
    if RunDirectory(pathlib.Path(values.output_dir or "runs")).path.is_file():
        raise UserError(f"--output_dir='{values.output_dir}' is a file")


def _check_settings(values: FlagValues) -> dict[str, Any]:
    """Returns the settings that were given, all of which an export of a Keras model reads."""
    overrides = overrides_from_flags(values, with_weights=False)
    given, _ = merge_overrides(overrides)
    resolve(_NETWORK, _DATA, *overrides)  # says what is wrong with a value
    for key in given:
        if key not in (*_USED, *_BY_PROGRAM):
            raise UserError(
                f"{key} has no effect on a Keras model, which is exported as it is; used are "
                f"{', '.join(_USED)}"
            )
    return given


def _config(values: FlagValues, facts: ImageModel, *, what: str) -> Config:
    """Returns the config that says how images are cropped, resized and normalised for a model."""
    given = _check_settings(values)
    sides = {facts.height, facts.width} - {None}
    if len(sides) > 1:
        raise UserError(
            f"{what} takes images of {facts.height} x {facts.width}; exports are for square ones"
        )
    size = given.get("eval.isize")
    if not sides and size is None:
        raise UserError(f"{what} takes images of any size; say which with --image_size=224")
    if sides and size is not None and int(size) not in sides:
        raise UserError(f"{what} takes images of {sides.pop()} pixels, not of --image_size={size}")
    settings = {
        "eval.isize": size if size is not None else sides.pop(),
        "data.resize": "squash",  # as keras.utils.image_dataset_from_directory does
    }
    if facts.channels != RGB:
        settings["model.channels"] = facts.channels
        settings["model.pixel_mean"] = [0.0] * facts.channels
        settings["model.pixel_deviation"] = [1.0] * facts.channels
    overrides = overrides_from_flags(values, with_weights=False)
    config = resolve(_NETWORK, _DATA, settings, *overrides)
    require_channels(values.format, config.model.channels)
    temperature_from_flags(values, None, config)  # says that there is none, if it was asked for
    return config
