"""EfficientNet-B4 with its first stages fused, the networks of the paper's Table 3: rows in MODELS.

The paper (arXiv 2104.00298) gives their parameters and FLOPs, not their block strings. These come
nearest to its eight numbers: kernels of 3 in stages 1 to 3, B4's own after them;
squeeze-and-excitation kept in stages 1 to 5, none in fused stages 6 and 7. docs/recipes.md has the
counts beside the published ones, and says what no reading gives.
"""

from __future__ import annotations

import dataclasses

from hparams.blocks import FUSED_MBCONV, decode_block, encode_block
from hparams.models import MODELS, Published

# last fused stage -> published parameters, FLOPs and top-1
_TABLE_3 = {3: (20.0, 7.5, 83.1), 5: (43.4, 21.3, 83.1), 7: (132.0, 34.4, 81.7)}
_LAST_OF_KERNEL_3 = 3
_LAST_WITH_SE = 5


def _fused(text: str, *, stage: int) -> str:
    block = decode_block(text)
    kernel_size = 3 if stage <= _LAST_OF_KERNEL_3 else block.kernel_size
    se_ratio = block.se_ratio if stage <= _LAST_WITH_SE else None
    return encode_block(
        dataclasses.replace(
            block, conv_type=FUSED_MBCONV, kernel_size=kernel_size, se_ratio=se_ratio
        )
    )


def _register() -> None:
    b4 = MODELS["efficientnet-b4"]
    for last, (params, flops, top1) in _TABLE_3.items():
        blocks = tuple(
            _fused(text, stage=stage) if stage <= last else text
            for stage, text in enumerate(b4.blocks, start=1)
        )
        source = "EfficientNetV2 paper, Table 3"
        row = dataclasses.replace(
            b4, blocks=blocks, published=Published(params, flops, top1, source)
        )
        MODELS.register(f"efficientnet-b4-fused-1-{last}", row)


_register()
