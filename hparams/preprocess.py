"""The published input scalings: a chain's name in; mean and deviation of 0..255 pixels out.

They stand here because both the input pipeline and ``get_model(include_preprocessing=True)`` use
them, and neither of those may import the other.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Pixels of 0..255 become ``(pixel - mean) / deviation``, red, green and blue in turn."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)

# v1 also belongs to EfficientNetV2-B0..B3, which were trained with V1's chain.
NORMALISATIONS: dict[str, Normalisation] = {
    "v1": Normalisation(_IMAGENET_MEAN, _IMAGENET_DEVIATION),
    "v2": Normalisation((128.0,) * 3, (128.0,) * 3),
    "lite": Normalisation((127.0,) * 3, (128.0,) * 3),
}
