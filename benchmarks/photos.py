"""Makes a folder of photographs to try things on: crops of scikit-learn's two sample photographs.

``python -m benchmarks.photos photos`` writes ``photos/china/*.jpg`` and ``photos/flower/*.jpg``.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
from PIL import Image
from sklearn import datasets

CROPS = 150  # of each photograph
_SIDES = (160, 320)  # pixels, smallest and largest


def make_photos(folder: pathlib.Path, *, crops: int = CROPS, seed: int = 0) -> None:
    """Writes JPEG files, ``crops`` a class, of random size and place."""
    rng = np.random.default_rng(seed)
    for image, name in zip(datasets.load_sample_images().images, ("china", "flower")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(crops):
            height, width = rng.integers(*_SIDES, size=2)
            y = rng.integers(image.shape[0] - height)
            x = rng.integers(image.shape[1] - width)
            crop = Image.fromarray(image[y : y + height, x : x + width])
            crop.save(folder / name / f"{number:03}.jpg", quality=90)


if __name__ == "__main__":
    make_photos(pathlib.Path(sys.argv[1]))
