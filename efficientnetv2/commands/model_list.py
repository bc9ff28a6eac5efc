"""Prints a table of the networks, without TensorFlow: ``--mode=models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.reporting.tables import table
from hparams.architecture import cost, scaled_architecture
from hparams.errors import UserError, shown
from hparams.models import MODELS
from hparams.registry import did_you_mean
from hparams.resolve import resolve_model
from hparams.weights import RELEASES

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.runtime.signals import StopRequest

_HEADER = ("model", "parameters", "multiply-adds", "train px", "eval px", "top-1", "weights")
_NUM_CLASSES = 1000


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Prints the networks that match ``--pattern``; the value is their names."""
    del stop
    names = MODELS.matching(values.pattern)
    if not names:
        hint = did_you_mean(values.pattern, MODELS)
        raise UserError(f"no model matches {shown(values.pattern)}{hint}")
    print(table(_HEADER, [model_row(name) for name in names]))
    return Outcome(names)


def model_row(name: str) -> list[str]:
    """Returns the cells of a network: counted for 1000 classes at the size of evaluation.

    The costs of a ResNet, whose body comes from Keras, and top-1 are as published.
    """
    row = MODELS[name]
    parameters, multiply_adds = f"{row.published.params_m:g} M", f"{row.published.flops_b:g} B"
    if row.blocks:
        architecture = scaled_architecture(resolve_model(name))
        costs = cost(architecture, image_size=row.eval_size, num_classes=_NUM_CLASSES)
        parameters, multiply_adds = f"{costs.parameters:,}", f"{costs.multiply_adds / 1e9:.2f} B"
    first, last = (int(size) for size in row.progressive.image_size)
    sizes = str(last) if row.stages == 1 or first == last else f"{first} to {last}"
    weights = [release for model, release in RELEASES if model == name]
    top1 = f"{row.published.top1:.1f}"
    return [name, parameters, multiply_adds, sizes, str(row.eval_size), top1, ", ".join(weights)]
