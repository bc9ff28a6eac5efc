"""Writes pretrained weights in another file format: ``--mode=convert``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from efficientnetv2.checkpoints.file_settings import metadata_of, settings_of_weights
from efficientnetv2.checkpoints.writer import find_writer, write_weights
from efficientnetv2.commands import Outcome
from efficientnetv2.runtime.atomic_write import require_writable_file
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import run_of_weights
from hparams.config import ModelSection
from hparams.errors import UserError
from hparams.overrides import overrides_text, read_overrides
from hparams.resolve import resolve_model
from hparams.weights import RANDOM, require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues

_CLASSES = 1000  # unless model.num_classes is given


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Converts the file that the flags name; the value is the path of the new one."""
    del stop
    if values.weights is None or values.output is None:
        missing = "--weights" if values.weights is None else "--output"
        raise UserError(f"{missing} is missing; give --mode=convert --weights=IN --output=OUT")
    if values.weights == RANDOM:
        raise UserError("--weights=random has no weights to convert; name a release or a file")
    config = network_from_flags(values)
    target = pathlib.Path(values.output)
    require_weights(values.weights, model_name=config.model_name)
    find_writer(target)
    require_writable_file(target)
    source = pathlib.Path(values.weights)
    if source.exists() and target.exists() and target.samefile(source):
        raise UserError(f"--weights and --output are the same file, '{target}'")
    import_tensorflow()  # only now: wrong flags are reported without it
    convert(config, values.weights, target)
    return Outcome(target)


def network_from_flags(values: FlagValues) -> ModelSection:
    """Returns the network of a run that the flags name and describe no further, or the flags'."""
    run = run_of_weights(values.weights)
    if run is not None and not (values["model_name"].present or values.hparam_str):
        return run.config().model
    resolve_model(values.model_name, values.hparam_str)  # says what is wrong with these
    of_weights = settings_of_weights(values.weights, model_name=values.model_name)
    of_model = {key: value for key, value in of_weights.items() if key.startswith("model.")}
    given, _ = read_overrides(values.hparam_str, section="model")
    return resolve_model(values.model_name, {**of_model, **given})


def convert(config: ModelSection, weights: str, target: pathlib.Path) -> None:
    """Converts weights, and prints how many were found, which are new and which are not used.

    Args:
      config: the section ``model`` of their network; 1000 classes if it does not say how many.
      weights: the name of a release, or the path of any file that ``--weights`` takes.
      target: ends in .weights.h5 or .keras (Keras), .safetensors (timm's names) or .index (the
        official TF1 names).

    Raises:
      WeightsError: if the weights cannot be read, or do not fit the network.
      WriteError: if the file cannot be written; an existing one stays as it was.
    """
    from efficientnetv2.checkpoints.pretrained_model import layer_map_of, load_pretrained
    from efficientnetv2.model.factory import build_model

    model = build_model(config, num_classes=config.num_classes or _CLASSES)
    report = load_pretrained(model, config, weights)
    metadata = metadata_of(config)
    write_weights(model, target, layer_map_of(config), metadata=metadata)
    print(f"{report}; missing: none\nwritten to {target}")
    if metadata and target.suffix not in (".keras", ".safetensors"):
        settings = overrides_text(metadata)
        print(f'this format cannot say how its network differs; add --hparam_str="{settings}"')
