"""Lists the networks: blocks, scaling, image sizes, training settings and published results.

Sources of the block strings: EfficientNetV2 paper (arXiv 2104.00298) Table 4 for S, the official
releases for the other sizes of V2; EfficientNet paper (arXiv 1905.11946) Table 1; EfficientNet-Lite
release notes.

To add a network, register a ``ModelRow`` below; nothing else has to change.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from hparams.block_strings import FUSED_MBCONV, decode_block, encode_block
from hparams.factors import FACTORS, Factors, first_to_last
from hparams.model_names import our_spelling
from hparams.registry import Registry


@dataclasses.dataclass(frozen=True)
class Published:
    """Published numbers, for comparison only.

    Attributes:
      params_m: parameters in millions, with a classifier for 1000 classes.
      flops_b: multiply-adds in billions, for one image of the evaluation size.
      top1: ImageNet-1k validation accuracy in percent, trained on ImageNet-1k alone unless the
        source says otherwise.
      source: the paper or release that gives the three numbers.
    """

    params_m: float
    flops_b: float
    top1: float
    source: str


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One network and how it is trained.

    Attributes:
      family: the family whose layer names it uses; ``resnet``: a body from ``keras.applications``.
      blocks: one block string per stage, before scaling; empty for ``resnet``.
      eval_size: image size of evaluation, in pixels.
      preprocess: a row of ``hparams.choices.NORMALISATIONS``.
      progressive: (first stage, last stage) of each factor; a single stage uses the last values.
      published: parameters, FLOPs and accuracy as published.
      width: factor on channels.
      depth: factor on repeats.
      stages: stages of progressive learning; 1 if the published training had one image size.
      augname: augmentation of the published training, a row of ``hparams.choices.AUGMENTATIONS``.
    """

    family: Literal["v1", "v2", "lite", "resnet"]
    blocks: tuple[str, ...]
    eval_size: int
    preprocess: str
    progressive: Factors
    published: Published
    width: float = 1.0
    depth: float = 1.0
    stages: int = 4
    augname: str = "autoaug"

    @property
    def train_size(self) -> int:
        """Image size of the last training stage, in pixels."""
        return int(self.progressive.image_size[1])

    @property
    def dropout(self) -> float:
        """Dropout rate before the classifier in the last training stage."""
        return float(self.progressive.dropout_rate[1])

    def overrides(self) -> Mapping[str, object]:
        """Returns this row as config key -> value."""
        lite = self.family == "lite"
        values: dict[str, object] = {
            "model.family": self.family,
            "model.preprocess": self.preprocess,
            "model.num_classes": 1000,
            "model.blocks_args": list(self.blocks),
            "model.width_coefficient": self.width,
            "model.depth_coefficient": self.depth,
            "model.act_fn": "relu6" if lite else "silu",
            "model.fix_head_stem": lite,
            "model.round_down_limit": 0.1 if lite else 1.0,
            "train.stages": self.stages,
            "eval.isize": self.eval_size,
            "data.augname": self.augname,
        }
        for name, factor in FACTORS.items():
            values[factor.first], values[factor.last] = getattr(self.progressive, name)
        if self.family == "resnet":
            values.update(_KERAS_RESNET)
        return values


# How keras.applications builds its ResNets.
_KERAS_RESNET = {"model.act_fn": "relu", "model.bn_epsilon": 1.001e-5, "model.survival_prob": 1.0}

MODELS: Registry[ModelRow] = Registry("model", spelling=our_spelling)

_V2_S = (
    "r2_k3_s1_e1_i24_o24_c1",
    "r4_k3_s2_e4_i24_o48_c1",
    "r4_k3_s2_e4_i48_o64_c1",
    "r6_k3_s2_e4_i64_o128_se0.25",
    "r9_k3_s1_e6_i128_o160_se0.25",
    "r15_k3_s2_e6_i160_o256_se0.25",
)
_V2_M = (
    "r3_k3_s1_e1_i24_o24_c1",
    "r5_k3_s2_e4_i24_o48_c1",
    "r5_k3_s2_e4_i48_o80_c1",
    "r7_k3_s2_e4_i80_o160_se0.25",
    "r14_k3_s1_e6_i160_o176_se0.25",
    "r18_k3_s2_e6_i176_o304_se0.25",
    "r5_k3_s1_e6_i304_o512_se0.25",
)
_V2_L = (
    "r4_k3_s1_e1_i32_o32_c1",
    "r7_k3_s2_e4_i32_o64_c1",
    "r7_k3_s2_e4_i64_o96_c1",
    "r10_k3_s2_e4_i96_o192_se0.25",
    "r19_k3_s1_e6_i192_o224_se0.25",
    "r25_k3_s2_e6_i224_o384_se0.25",
    "r7_k3_s1_e6_i384_o640_se0.25",
)
_V2_XL = (
    "r4_k3_s1_e1_i32_o32_c1",
    "r8_k3_s2_e4_i32_o64_c1",
    "r8_k3_s2_e4_i64_o96_c1",
    "r16_k3_s2_e4_i96_o192_se0.25",
    "r24_k3_s1_e6_i192_o256_se0.25",
    "r32_k3_s2_e6_i256_o512_se0.25",
    "r8_k3_s1_e6_i512_o640_se0.25",
)
_V2_BASE = (
    "r1_k3_s1_e1_i32_o16_c1",
    "r2_k3_s2_e4_i16_o32_c1",
    "r2_k3_s2_e4_i32_o48_c1",
    "r3_k3_s2_e4_i48_o96_se0.25",
    "r5_k3_s1_e6_i96_o112_se0.25",
    "r8_k3_s2_e6_i112_o192_se0.25",
)
_V1 = (
    "r1_k3_s1_e1_i32_o16_se0.25",
    "r2_k3_s2_e6_i16_o24_se0.25",
    "r2_k5_s2_e6_i24_o40_se0.25",
    "r3_k3_s2_e6_i40_o80_se0.25",
    "r3_k5_s1_e6_i80_o112_se0.25",
    "r4_k5_s2_e6_i112_o192_se0.25",
    "r1_k3_s1_e6_i192_o320_se0.25",
)
_LITE = tuple(block.removesuffix("_se0.25") for block in _V1)

_V2_RELEASE = "EfficientNetV2 release table (google/automl), trained on ImageNet-1k"
_XL_21K = "EfficientNetV2 paper, Table 7: trained on ImageNet-21k, then on ImageNet-1k"

# Paper Table 6. XL was trained on ImageNet-21k only and has no row there; it uses L's.
_TABLE_6 = {
    "s": first_to_last(image_size=(128, 300), magnitude=(5, 15), dropout_rate=(0.1, 0.3)),
    "m": first_to_last(
        image_size=(128, 380), magnitude=(5, 20), mixup_alpha=(0, 0.2), dropout_rate=(0.1, 0.4)
    ),
    "l": first_to_last(
        image_size=(128, 380), magnitude=(5, 25), mixup_alpha=(0, 0.5), dropout_rate=(0.1, 0.5)
    ),
}

MODELS.register(
    "efficientnetv2-s",
    ModelRow(
        family="v2",
        blocks=_V2_S,
        eval_size=384,
        preprocess="v2",
        progressive=_TABLE_6["s"],
        augname="randaug",
        published=Published(params_m=21.5, flops_b=8.4, top1=83.9, source=_V2_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-m",
    ModelRow(
        family="v2",
        blocks=_V2_M,
        eval_size=480,
        preprocess="v2",
        progressive=_TABLE_6["m"],
        augname="randaug",
        published=Published(params_m=54.1, flops_b=24.7, top1=85.2, source=_V2_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-l",
    ModelRow(
        family="v2",
        blocks=_V2_L,
        eval_size=480,
        preprocess="v2",
        progressive=_TABLE_6["l"],
        augname="randaug",
        published=Published(params_m=119.5, flops_b=56.3, top1=85.7, source=_V2_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-xl",
    ModelRow(
        family="v2",
        blocks=_V2_XL,
        eval_size=512,
        preprocess="v2",
        progressive=_TABLE_6["l"],
        augname="randaug",
        published=Published(params_m=208.0, flops_b=94.0, top1=87.3, source=_XL_21K),
    ),
)


def _up_to(train_size: int, *, dropout: float) -> Factors:
    """Returns the factors of a network that the paper's Table 6 does not list.

    V2's B0 to B3 were released with image sizes that grow from 128, and with AutoAugment. The paper
    gives them no dropout range, so dropout starts at half of the published rate. The magnitude
    matters only if the user chooses RandAugment instead.
    """
    return first_to_last(
        image_size=(128, train_size), magnitude=(5, 10), dropout_rate=(dropout / 2, dropout)
    )


# What all networks of a scaled family have in common.
_v2_base = functools.partial(ModelRow, family="v2", blocks=_V2_BASE, preprocess="v1")
_v1 = functools.partial(ModelRow, family="v1", blocks=_V1, preprocess="v1", stages=1)
_lite = functools.partial(ModelRow, family="lite", blocks=_LITE, preprocess="lite", stages=1)

_V2_BASE_RELEASE = "EfficientNetV2 release table"
_V1_PAPER = "EfficientNet paper, Table 2"
_ADVPROP = "AdvProp paper (arXiv 1911.09665) Table 3; FLOPs as counted here"
_NOISY_STUDENT = (
    "Noisy Student paper (arXiv 1911.04252), 300M unlabelled images; FLOPs as counted here"
)
_LITE_NOTES = "EfficientNet-Lite release notes"

MODELS.register(
    "efficientnetv2-b0",
    _v2_base(
        width=1.0,
        depth=1.0,
        eval_size=224,
        progressive=_up_to(192, dropout=0.2),
        published=Published(params_m=7.1, flops_b=0.72, top1=78.7, source=_V2_BASE_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-b1",
    _v2_base(
        width=1.0,
        depth=1.1,
        eval_size=240,
        progressive=_up_to(192, dropout=0.2),
        published=Published(params_m=8.1, flops_b=1.2, top1=79.8, source=_V2_BASE_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-b2",
    _v2_base(
        width=1.1,
        depth=1.2,
        eval_size=260,
        progressive=_up_to(208, dropout=0.3),
        published=Published(params_m=10.1, flops_b=1.7, top1=80.5, source=_V2_BASE_RELEASE),
    ),
)
MODELS.register(
    "efficientnetv2-b3",
    _v2_base(
        width=1.2,
        depth=1.4,
        eval_size=300,
        progressive=_up_to(240, dropout=0.3),
        published=Published(params_m=14.4, flops_b=3.0, top1=82.1, source=_V2_BASE_RELEASE),
    ),
)
MODELS.register(
    "efficientnet-b0",
    _v1(
        width=1.0,
        depth=1.0,
        eval_size=224,
        progressive=_up_to(176, dropout=0.2),
        published=Published(params_m=5.3, flops_b=0.39, top1=77.1, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b1",
    _v1(
        width=1.0,
        depth=1.1,
        eval_size=240,
        progressive=_up_to(192, dropout=0.2),
        published=Published(params_m=7.8, flops_b=0.7, top1=79.1, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b2",
    _v1(
        width=1.1,
        depth=1.2,
        eval_size=260,
        progressive=_up_to(208, dropout=0.3),
        published=Published(params_m=9.2, flops_b=1.0, top1=80.1, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b3",
    _v1(
        width=1.2,
        depth=1.4,
        eval_size=300,
        progressive=_up_to(240, dropout=0.3),
        published=Published(params_m=12.0, flops_b=1.8, top1=81.6, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b4",
    _v1(
        width=1.4,
        depth=1.8,
        eval_size=380,
        progressive=_up_to(304, dropout=0.4),
        published=Published(params_m=19.0, flops_b=4.2, top1=82.9, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b5",
    _v1(
        width=1.6,
        depth=2.2,
        eval_size=456,
        progressive=_up_to(352, dropout=0.4),
        published=Published(params_m=30.0, flops_b=9.9, top1=83.6, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b6",
    _v1(
        width=1.8,
        depth=2.6,
        eval_size=528,
        progressive=_up_to(416, dropout=0.5),
        published=Published(params_m=43.0, flops_b=19.0, top1=84.0, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b7",
    _v1(
        width=2.0,
        depth=3.1,
        eval_size=600,
        progressive=_up_to(480, dropout=0.5),
        published=Published(params_m=66.0, flops_b=37.0, top1=84.3, source=_V1_PAPER),
    ),
)
MODELS.register(
    "efficientnet-b8",
    _v1(
        width=2.2,
        depth=3.6,
        eval_size=672,
        progressive=_up_to(528, dropout=0.5),
        published=Published(params_m=87.0, flops_b=63.0, top1=85.4, source=_ADVPROP),
    ),
)
MODELS.register(
    "efficientnet-l2",
    _v1(
        width=4.3,
        depth=5.3,
        eval_size=800,
        progressive=_up_to(640, dropout=0.5),
        published=Published(params_m=480.0, flops_b=478.5, top1=88.4, source=_NOISY_STUDENT),
    ),
)
MODELS.register(
    "efficientnet-lite0",
    _lite(
        width=1.0,
        depth=1.0,
        eval_size=224,
        progressive=_up_to(224, dropout=0.2),
        published=Published(params_m=4.7, flops_b=0.407, top1=75.1, source=_LITE_NOTES),
    ),
)
MODELS.register(
    "efficientnet-lite1",
    _lite(
        width=1.0,
        depth=1.1,
        eval_size=240,
        progressive=_up_to(240, dropout=0.2),
        published=Published(params_m=5.4, flops_b=0.631, top1=76.7, source=_LITE_NOTES),
    ),
)
MODELS.register(
    "efficientnet-lite2",
    _lite(
        width=1.1,
        depth=1.2,
        eval_size=260,
        progressive=_up_to(260, dropout=0.3),
        published=Published(params_m=6.1, flops_b=0.899, top1=77.6, source=_LITE_NOTES),
    ),
)
MODELS.register(
    "efficientnet-lite3",
    _lite(
        width=1.2,
        depth=1.4,
        eval_size=280,
        progressive=_up_to(280, dropout=0.3),
        published=Published(params_m=8.2, flops_b=1.44, top1=79.8, source=_LITE_NOTES),
    ),
)
MODELS.register(
    "efficientnet-lite4",
    _lite(
        width=1.4,
        depth=1.8,
        eval_size=300,
        progressive=_up_to(300, dropout=0.3),
        published=Published(params_m=13.0, flops_b=2.64, top1=81.5, source=_LITE_NOTES),
    ),
)


def _resnet(source: str, *, params_m: float, flops_b: float, top1: float) -> ModelRow:
    """Returns a row of the paper's Table 12, which gives no regularisation: it is V2-S's here."""
    return dataclasses.replace(
        MODELS["efficientnetv2-s"],
        family="resnet",
        blocks=(),
        eval_size=224,
        published=Published(params_m, flops_b, top1, source),
        preprocess="v1",
        progressive=dataclasses.replace(_TABLE_6["s"], image_size=(128, 224)),
    )


_TABLE_12 = "EfficientNetV2 paper, Table 12, at {} pixels; FLOPs as counted here, at 224"
MODELS.register("resnet50", _resnet(_TABLE_12.format(224), params_m=25.6, flops_b=3.9, top1=78.1))
MODELS.register("resnet152", _resnet(_TABLE_12.format(380), params_m=60.4, flops_b=11.3, top1=82.4))


def _fused_b4(last: int, *, params_m: float, flops_b: float, top1: float) -> ModelRow:
    """Returns EfficientNet-B4 with stages 1 to ``last`` fused, as in the paper's Table 3.

    The paper gives parameters and FLOPs, but no block strings. These come closest to its eight
    numbers: kernels of 3 in stages 1 to 3 and B4's own after them; squeeze-and-excitation in stages
    1 to 5, but not in fused stages 6 and 7. docs/recipes.md compares the counts with the published
    ones, and says which of them no choice of blocks reproduces.
    """
    b4 = MODELS["efficientnet-b4"]
    blocks = tuple(
        _fused(text, stage=stage) if stage <= last else text
        for stage, text in enumerate(b4.blocks, start=1)
    )
    published = Published(params_m, flops_b, top1, "EfficientNetV2 paper, Table 3")
    return dataclasses.replace(b4, blocks=blocks, published=published)


def _fused(text: str, *, stage: int) -> str:
    block = decode_block(text)
    kernel_size = 3 if stage <= 3 else block.kernel_size
    se_ratio = block.se_ratio if stage <= 5 else None
    return encode_block(
        dataclasses.replace(
            block, conv_type=FUSED_MBCONV, kernel_size=kernel_size, se_ratio=se_ratio
        )
    )


MODELS.register("efficientnet-b4-fused-1-3", _fused_b4(3, params_m=20.0, flops_b=7.5, top1=83.1))
MODELS.register("efficientnet-b4-fused-1-5", _fused_b4(5, params_m=43.4, flops_b=21.3, top1=83.1))
MODELS.register("efficientnet-b4-fused-1-7", _fused_b4(7, params_m=132.0, flops_b=34.4, top1=81.7))
