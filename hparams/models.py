"""The networks as rows of one table: a name in; block strings, scaling, sizes and facts out.

Block strings: EfficientNetV2 paper (arXiv 2104.00298) Table 4 for S, and the official releases for
the others; EfficientNet paper (arXiv 1905.11946) Table 1; EfficientNet-Lite release notes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from hparams.registry import Registry


@dataclasses.dataclass(frozen=True)
class Published:
    """Numbers printed in the papers and releases, for comparison only.

    Attributes:
      params_m: parameters in millions, with the 1000-class top.
      flops_b: multiply-adds in billions, one image at the evaluation size.
      top1: ImageNet-1k validation accuracy in percent, trained on ImageNet-1k alone unless the
        source says otherwise.
      source: where the three stand.
    """

    params_m: float
    flops_b: float
    top1: float
    source: str


@dataclasses.dataclass(frozen=True)
class Progressive:
    """First and last stage of each factor of progressive learning (paper Table 6).

    Attributes:
      image_size: pixels.
      magnitude: RandAugment magnitude.
      mixup_alpha: mixup strength.
      dropout_rate: dropout before the classifier.
      cutmix_alpha: CutMix strength; Table 6 has none.
    """

    image_size: tuple[int, int]
    magnitude: tuple[float, float]
    mixup_alpha: tuple[float, float]
    dropout_rate: tuple[float, float]
    cutmix_alpha: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One network.

    Attributes:
      family: whose layer names the network takes; ``resnet``: a body from ``keras.applications``.
      blocks: one block string a stage, unscaled; none for a body from elsewhere.
      width: factor on channels.
      depth: factor on repeats.
      dropout: dropout before the classifier (last stage).
      train_size: pixels, last stage of training.
      eval_size: pixels, evaluation.
      published: parameters, FLOPs and accuracy as published.
      preprocess: a row of ``hparams.preprocess``; V2's B0 to B3 were trained with V1's.
      progressive: the stages' end points, for a single stage its last values.
      stages: of progressive learning; 1 where the published training had one size.
      augname: augmentation of the published training.
    """

    family: Literal["v1", "v2", "lite", "resnet"]
    blocks: tuple[str, ...]
    width: float
    depth: float
    dropout: float
    train_size: int
    eval_size: int
    published: Published
    preprocess: Literal["v1", "v2", "lite"]
    progressive: Progressive
    stages: int = 4
    augname: str = "autoaug"

    def overrides(self) -> Mapping[str, object]:
        """Returns this row as values of configuration keys."""
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
            **_progressive_overrides(self.progressive),
        }
        if self.family == "resnet":
            values.update(_KERAS_RESNET)
        return values


# As these bodies are built in keras.applications.
_KERAS_RESNET = {"model.act_fn": "relu", "model.bn_epsilon": 1.001e-5, "model.survival_prob": 1.0}


def _progressive_overrides(progressive: Progressive) -> Mapping[str, object]:
    return {
        "data.ibase": progressive.image_size[0],
        "train.isize": progressive.image_size[1],
        "data.ram_base": progressive.magnitude[0],
        "data.ram": progressive.magnitude[1],
        "data.mixup_alpha": progressive.mixup_alpha[1],
        "data.cutmix_alpha": progressive.cutmix_alpha[1],
        "model.dropout_base": progressive.dropout_rate[0],
        "model.dropout_rate": progressive.dropout_rate[1],
    }


MODELS: Registry[ModelRow] = Registry("model")

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

_PAPER_V2 = "EfficientNetV2 release table (google/automl), trained on ImageNet-1k"
_XL_21K = "EfficientNetV2 paper, Table 7: trained on ImageNet-21k, then on ImageNet-1k"

_TABLE_6 = {
    "s": Progressive((128, 300), (5, 15), (0, 0), (0.1, 0.3)),
    "m": Progressive((128, 380), (5, 20), (0, 0.2), (0.1, 0.4)),
    "l": Progressive((128, 380), (5, 25), (0, 0.5), (0.1, 0.5)),
}


def _v2(size: str, *, blocks: tuple[str, ...], published: Published, eval_size: int) -> None:
    # XL was trained on ImageNet-21k only; Table 6 has no row for it, so it takes L's settings.
    progressive = _TABLE_6.get(size, _TABLE_6["l"])
    row = ModelRow(
        family="v2",
        blocks=blocks,
        width=1.0,
        depth=1.0,
        dropout=progressive.dropout_rate[1],
        train_size=progressive.image_size[1],
        eval_size=eval_size,
        published=published,
        preprocess="v2",
        progressive=progressive,
        augname="randaug",
    )
    MODELS.register(f"efficientnetv2-{size}", row)


_v2("s", blocks=_V2_S, published=Published(21.5, 8.4, 83.9, _PAPER_V2), eval_size=384)
_v2("m", blocks=_V2_M, published=Published(54.1, 24.7, 85.2, _PAPER_V2), eval_size=480)
_v2("l", blocks=_V2_L, published=Published(119.5, 56.3, 85.7, _PAPER_V2), eval_size=480)
_v2("xl", blocks=_V2_XL, published=Published(208.0, 94.0, 87.3, _XL_21K), eval_size=512)

# name -> width, depth, dropout, training size, evaluation size, published parameters, FLOPs, top-1
_V2_BASE_ROWS = {
    "b0": (1.0, 1.0, 0.2, 192, 224, 7.1, 0.72, 78.7),
    "b1": (1.0, 1.1, 0.2, 192, 240, 8.1, 1.2, 79.8),
    "b2": (1.1, 1.2, 0.3, 208, 260, 10.1, 1.7, 80.5),
    "b3": (1.2, 1.4, 0.3, 240, 300, 14.4, 3.0, 82.1),
}
_V1_ROWS = {
    "b0": (1.0, 1.0, 0.2, 176, 224, 5.3, 0.39, 77.1),
    "b1": (1.0, 1.1, 0.2, 192, 240, 7.8, 0.70, 79.1),
    "b2": (1.1, 1.2, 0.3, 208, 260, 9.2, 1.0, 80.1),
    "b3": (1.2, 1.4, 0.3, 240, 300, 12.0, 1.8, 81.6),
    "b4": (1.4, 1.8, 0.4, 304, 380, 19.0, 4.2, 82.9),
    "b5": (1.6, 2.2, 0.4, 352, 456, 30.0, 9.9, 83.6),
    "b6": (1.8, 2.6, 0.5, 416, 528, 43.0, 19.0, 84.0),
    "b7": (2.0, 3.1, 0.5, 480, 600, 66.0, 37.0, 84.3),
    "b8": (2.2, 3.6, 0.5, 528, 672, 87.0, 63.0, 85.4),
    "l2": (4.3, 5.3, 0.5, 640, 800, 480.0, 478.5, 88.4),
}
_LITE_ROWS = {
    "lite0": (1.0, 1.0, 0.2, 224, 224, 4.7, 0.407, 75.1),
    "lite1": (1.0, 1.1, 0.2, 240, 240, 5.4, 0.631, 76.7),
    "lite2": (1.1, 1.2, 0.3, 260, 260, 6.1, 0.899, 77.6),
    "lite3": (1.2, 1.4, 0.3, 280, 280, 8.2, 1.44, 79.8),
    "lite4": (1.4, 1.8, 0.3, 300, 300, 13.0, 2.64, 81.5),
}
_V1_SOURCES = {
    "b8": "AdvProp paper (arXiv 1911.09665) Table 3; FLOPs as counted here",
    "l2": "Noisy Student paper (arXiv 1911.04252), 300M unlabelled images; FLOPs as counted here",
}


def _register_scaled() -> None:
    tables = (
        ("efficientnetv2-", "v2", _V2_BASE, _V2_BASE_ROWS, "EfficientNetV2 release table"),
        ("efficientnet-", "v1", _V1, _V1_ROWS, "EfficientNet paper, Table 2"),
        ("efficientnet-", "lite", _LITE, _LITE_ROWS, "EfficientNet-Lite release notes"),
    )
    for prefix, family, blocks, rows, source in tables:
        for name, (width, depth, dropout, train, eval_, params, flops, top1) in rows.items():
            where = _V1_SOURCES.get(name, source)
            row = ModelRow(
                family=family,  # type: ignore[arg-type]
                blocks=blocks,
                width=width,
                depth=depth,
                dropout=dropout,
                train_size=int(train),
                eval_size=int(eval_),
                published=Published(params, flops, top1, where),
                preprocess="lite" if family == "lite" else "v1",
                progressive=_base_progressive(int(train), dropout),
                stages=4 if family == "v2" else 1,
            )
            MODELS.register(prefix + name, row)


# name -> published parameters, FLOPs at 224 pixels, top-1 (paper Table 12) and the size that it is
# of. The paper does not give their regularisation, which is S's here.
_RESNET_ROWS = {"resnet50": (25.6, 3.9, 78.1, 224), "resnet152": (60.4, 11.3, 82.4, 380)}
for _name, (_params, _flops, _top1, _size) in _RESNET_ROWS.items():
    _source = f"EfficientNetV2 paper, Table 12, at {_size} pixels; FLOPs as counted here, at 224"
    MODELS.register(
        _name,
        dataclasses.replace(
            MODELS["efficientnetv2-s"],
            family="resnet",
            blocks=(),
            train_size=224,
            eval_size=224,
            published=Published(_params, _flops, _top1, _source),
            preprocess="v1",
            progressive=dataclasses.replace(_TABLE_6["s"], image_size=(128, 224)),
        ),
    )


def _base_progressive(train_size: int, dropout: float) -> Progressive:
    # V2's B0..B3 were released with sizes that grow from 128, and AutoAugment; the paper gives no
    # dropout range for them, so it starts at half of the published rate. The magnitude is for those
    # who ask for RandAugment instead.
    return Progressive((128, train_size), (5, 10), (0, 0), (dropout / 2, dropout))


_register_scaled()
