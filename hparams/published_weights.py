"""Lists the published ImageNet accuracy of pretrained weights, and chooses the best of a network.

To add a source, add rows: ``--weights=best`` chooses among all of them.
"""

from __future__ import annotations

import dataclasses

from hparams.errors import UserError
from hparams.models import MODELS

BEST = "best"  # asks for the weights with the highest published accuracy
_V2_README = "google/automl, efficientnetv2/README.md"
_V1_README = "tensorflow/tpu, models/official/efficientnet/README.md"
_LITE_README = "tensorflow/tpu, models/official/efficientnet/lite/README.md"


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Pretrained weights with 1000 classes, and what was published of them.

    Attributes:
      model: a row of ``hparams.models.MODELS``.
      weights: what ``--weights`` takes: a name of ``hparams.weights.NAMES``, or another address.
      top1: accuracy on ImageNet-1k's validation images, percent.
      image_size: at which it was measured, pixels.
      source: where it was published.
    """

    model: str
    weights: str
    top1: float
    image_size: int
    source: str


def _rows(weights: str, source: str, accuracies: dict[str, float]) -> tuple[PublishedWeights, ...]:
    """Rows of weights that were evaluated at the image size of their network."""
    return tuple(
        PublishedWeights(model, weights, top1, MODELS[model].eval_size, source)
        for model, top1 in accuracies.items()
    )


def _numbered(start: str, accuracies: tuple[float, ...]) -> dict[str, float]:
    return {f"{start}{number}": top1 for number, top1 in enumerate(accuracies)}


PUBLISHED_WEIGHTS: tuple[PublishedWeights, ...] = (
    *_rows(
        "imagenet",
        _V2_README,
        {
            "efficientnetv2-s": 83.9,
            "efficientnetv2-m": 85.2,
            "efficientnetv2-l": 85.7,
            **_numbered("efficientnetv2-b", (78.7, 79.8, 80.5, 82.1)),
        },
    ),
    *_rows(
        "imagenet21k-ft1k",
        _V2_README,
        {
            "efficientnetv2-s": 84.9,
            "efficientnetv2-m": 86.2,
            "efficientnetv2-l": 86.9,
            "efficientnetv2-xl": 87.2,
        },
    ),
    *_rows(  # AdvProp
        "imagenet",
        _V1_README,
        _numbered("efficientnet-b", (77.6, 79.6, 80.5, 81.9, 83.3, 84.3, 84.8, 85.2, 85.5)),
    ),
    *_rows(  # Noisy Student
        "jft",
        _V1_README,
        {
            **_numbered("efficientnet-b", (78.8, 81.5, 82.4, 84.1, 85.3, 86.1, 86.4, 86.9)),
            "efficientnet-l2": 88.4,
        },
    ),
    *_rows(
        "imagenet", _LITE_README, _numbered("efficientnet-lite", (75.1, 76.7, 77.6, 79.8, 81.5))
    ),
)


def published_weights(model_name: str) -> list[PublishedWeights]:
    """Returns the weights of a network with a published accuracy, the best first.

    Of equal ones, those that were measured on smaller images come first.
    """
    name = MODELS.canonical(model_name)
    rows = [row for row in PUBLISHED_WEIGHTS if row.model == name]
    return sorted(rows, key=lambda row: (-row.top1, row.image_size))


def best_weights(model_name: str) -> PublishedWeights:
    """Returns the weights of a network with the highest published accuracy.

    Raises:
      UserError: if there are none.
    """
    rows = published_weights(model_name)
    if not rows:
        raise UserError(
            f"there is no --weights={BEST} for {MODELS.canonical(model_name)}, as no accuracy of "
            "pretrained weights is known; give the path of a file"
        )
    return rows[0]


def why_best(model_name: str) -> str:
    """Says which weights ``best`` are, and what they were chosen from.

    >>> why_best("efficientnetv2-s").partition(" (")[0]
    'weights=best: imagenet21k-ft1k of efficientnetv2-s, ImageNet top-1 84.9% at 384 px'
    """
    best, *others = published_weights(model_name)
    rest = ", ".join(f"{row.weights} {row.top1}%" for row in others) or "no others published"
    return (
        f"weights={BEST}: {best.weights} of {best.model}, ImageNet top-1 {best.top1}% at "
        f"{best.image_size} px ({best.source}); {rest}"
    )
