"""Writes trivialaugment.npz: TrivialAugment's wide space, and its operations, by torchvision 0.28.

    python tests/golden/make_trivialaugment.py

needs torch 2.13, torchvision and Pillow, and not this package. The images are Pillow's, as
in torchvision's reference training; nearest interpolation, and grey (128) outside the image.
"""

import contextlib
import pathlib

import numpy as np
import torch
from PIL import Image

library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):  # torchvision's compiled part may be missing
    with contextlib.suppress(RuntimeError):
        library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")

from torchvision.transforms import InterpolationMode, autoaugment  # noqa: E402

BINS = 31
SIGNED_CASES = ((4, -1), (11, 1), (29, -1))  # bin and sign; at 135 degrees, pixels tie
CASES = ((0, 1), (11, 1), (30, 1))


def main():
    """Writes the file beside this one."""
    folder = pathlib.Path(__file__).parent
    whole = Image.open(folder / "photo_500x375.jpg").convert("RGB").crop((100, 40, 420, 360))
    image = whole.resize((16, 16), Image.Resampling.BOX)
    space = autoaugment.TrivialAugmentWide(BINS)._augmentation_space(BINS)
    magnitudes = {name: row.expand(BINS).numpy() for name, (row, _) in space.items()}
    cases, outcomes = [], []
    for name, (row, signed) in space.items():
        given = SIGNED_CASES if signed else CASES
        for number, sign in given if row.ndim else given[:1]:
            argument = sign * magnitudes[name][number].item()
            cases.append((list(space).index(name), number, sign))
            outcomes.append(
                autoaugment._apply_op(image, name, argument, InterpolationMode.NEAREST, [128.0] * 3)
            )
    np.savez_compressed(
        folder / "trivialaugment.npz",
        names=np.array(list(space)),
        magnitudes=np.array(list(magnitudes.values())),
        signed=np.array([signed for _, signed in space.values()]),
        image=np.array(image),
        cases=np.array(cases),
        outcomes=np.array([np.array(outcome) for outcome in outcomes]),
    )


if __name__ == "__main__":
    main()
