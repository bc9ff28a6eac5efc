"""Lists torchvision's released weights: file, how images are prepared, and BatchNorm's epsilon.

The numbers are those of torchvision 0.28 (``torchvision.models.efficientnet``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_FOLDER = "https://download.pytorch.org/models"
# Of the networks by torchvision's class that are none of its releases.
OWN_EPSILON = {"v1": 1e-5, "lite": 1e-5, "v2": 1e-3}


@dataclasses.dataclass(frozen=True)
class TorchvisionRelease:
    """One of torchvision's weights.

    Attributes:
      file: name of the file; it ends in the first 8 hexadecimal digits of its SHA-256 checksum.
      crop_size: pixels, of the central square that the network sees.
      resize_size: pixels, of the image's shorter side before that.
      preprocess: how the image is resized and normalised, a row of
        ``hparams.choices.NORMALISATIONS``.
      bn_epsilon: of all BatchNorm layers.
      tag: name of the weights, as in ``EfficientNet_B1_Weights.IMAGENET1K_V2``.
    """

    file: str
    crop_size: int
    resize_size: int
    preprocess: str
    bn_epsilon: float
    tag: str = "IMAGENET1K_V1"

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"{_FOLDER}/{self.file}"

    @property
    def sha256_start(self) -> str:
        """The first digits of the file's checksum."""
        return self.file.removesuffix(".pth").rpartition("-")[2]


_BILINEAR, _BICUBIC = "torch_bilinear", "torch_bicubic"
# Name of the network -> its weights, torchvision's default first.
TORCHVISION: Mapping[str, tuple[TorchvisionRelease, ...]] = {
    "efficientnet-b0": (
        TorchvisionRelease("efficientnet_b0_rwightman-7f5810bc.pth", 224, 256, _BICUBIC, 1e-5),
    ),
    "efficientnet-b1": (
        TorchvisionRelease(
            "efficientnet_b1-c27df63c.pth", 240, 255, _BILINEAR, 1e-5, "IMAGENET1K_V2"
        ),
        TorchvisionRelease("efficientnet_b1_rwightman-bac287d4.pth", 240, 256, _BICUBIC, 1e-5),
    ),
    "efficientnet-b2": (
        TorchvisionRelease("efficientnet_b2_rwightman-c35c1473.pth", 288, 288, _BICUBIC, 1e-5),
    ),
    "efficientnet-b3": (
        TorchvisionRelease("efficientnet_b3_rwightman-b3899882.pth", 300, 320, _BICUBIC, 1e-5),
    ),
    "efficientnet-b4": (
        TorchvisionRelease("efficientnet_b4_rwightman-23ab8bcd.pth", 380, 384, _BICUBIC, 1e-5),
    ),
    "efficientnet-b5": (
        TorchvisionRelease("efficientnet_b5_lukemelas-1a07897c.pth", 456, 456, _BICUBIC, 1e-3),
    ),
    "efficientnet-b6": (
        TorchvisionRelease("efficientnet_b6_lukemelas-24a108a5.pth", 528, 528, _BICUBIC, 1e-3),
    ),
    "efficientnet-b7": (
        TorchvisionRelease("efficientnet_b7_lukemelas-c5b4e57e.pth", 600, 600, _BICUBIC, 1e-3),
    ),
    "efficientnetv2-s": (
        TorchvisionRelease("efficientnet_v2_s-dd5fe13b.pth", 384, 384, _BILINEAR, 1e-3),
    ),
    "efficientnetv2-m": (
        TorchvisionRelease("efficientnet_v2_m-dc08266a.pth", 480, 480, _BILINEAR, 1e-3),
    ),
    "efficientnetv2-l": (
        TorchvisionRelease("efficientnet_v2_l-59c71312.pth", 480, 480, "torch_bicubic_half", 1e-3),
    ),
}


def release_of_file(model_name: str, file: str) -> TorchvisionRelease | None:
    """Returns which of a network's weights a file has; a renamed one counts as the default.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      file: its name.
    """
    rows = TORCHVISION.get(model_name, ())
    by_name = (row for row in rows if row.file.rpartition("-")[0] == file.rpartition("-")[0])
    return next(by_name, rows[0] if rows else None)
