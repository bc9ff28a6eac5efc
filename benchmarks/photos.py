"""Writes a folder of photographs to try the program on, crops of those that packages contain.

``python -m benchmarks.photos photos`` writes ``photos/china/*.jpg`` and ``photos/flower/*.jpg``
from the two photographs of scikit-learn. ``--sixteen`` writes
``photos/{train,test}/<photograph>/*.jpg``, small crops of these two and of 14 of scikit-image; test
images come from the right part of each photograph, training images from the rest:

    pip install --no-deps scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen

``--test_crops=400`` adds 360 test images to the 40 of each photograph, and changes no other.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

CROPS = 150  # of each photograph
_SIDES = (160, 320)  # pixels, smallest and largest

_SMALL_SIDES = (48, 112)
TEST_CROPS = 40  # of each of sixteen
_PARTS = {"train": (0.0, 0.6, 100), "test": (0.6, 1.0, TEST_CROPS)}  # span of the width, crops
_SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


def make_photos(folder: pathlib.Path, *, crops: int = CROPS, seed: int = 0) -> None:
    """Writes two classes of JPEG files, ``crops`` crops of random size and place in each."""
    rng = np.random.default_rng(seed)
    for name, image in _two().items():
        _write_crops(folder / name, image, range(crops), sides=_SIDES, rng=rng)


def make_sixteen(folder: pathlib.Path, *, test_crops: int = TEST_CROPS, seed: int = 0) -> None:
    """Writes ``train`` and ``test`` folders of 16 classes, 100 and at least 40 crops each."""
    # Test images beyond the first 40 have random numbers of their own: more of them change nothing.
    rng, rng_of_more = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    for name, image in sixteen_photographs().items():
        for part, (start, end, count) in _PARTS.items():
            piece = image[:, int(start * image.shape[1]) : int(end * image.shape[1])]
            crops_of = functools.partial(_write_crops, folder / part / name, piece)
            crops_of(range(count), sides=_SMALL_SIDES, rng=rng)
            if part == "test":
                crops_of(range(count, test_crops), sides=_SMALL_SIDES, rng=rng_of_more)


def sixteen_photographs() -> dict[str, np.ndarray]:
    """Returns name -> uint8 ``[H, W, 3]`` of the photographs of scikit-image and scikit-learn."""
    return {**_fourteen(), **_two()}


def _two() -> dict[str, np.ndarray]:
    from sklearn import datasets  # late, as its import takes a second

    return dict(zip(("china", "flower"), datasets.load_sample_images().images))


def _fourteen() -> dict[str, np.ndarray]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("--sixteen: pip install --no-deps scikit-image==0.26.0")
    folder = pathlib.Path(spec.origin).parent / "data"
    return {
        pathlib.Path(name).stem: np.array(Image.open(folder / name).convert("RGB"))
        for name in _SCIKIT_IMAGE
    }


def _write_crops(
    folder: pathlib.Path,
    image: np.ndarray,
    numbers: Iterable[int],
    *,
    sides: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        height, width = rng.integers(*sides, size=2)
        y = rng.integers(image.shape[0] - height)
        x = rng.integers(image.shape[1] - width)
        crop = Image.fromarray(image[y : y + height, x : x + width])
        crop.save(folder / f"{number:03}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--sixteen", action="store_true")
    parser.add_argument(
        "--test_crops", type=int, help=f"of each of sixteen; at least {TEST_CROPS}, the default"
    )
    arguments = parser.parse_args()
    given = arguments.test_crops
    if given is not None and (given < TEST_CROPS or not arguments.sixteen):
        parser.error(f"--test_crops={given}: give --sixteen and at least {TEST_CROPS}")
    try:
        if arguments.sixteen:
            make_sixteen(arguments.folder, test_crops=given or TEST_CROPS)
        else:
            make_photos(arguments.folder)
    except OSError as error:
        parser.exit(2, f"photos: {error}\n")


if __name__ == "__main__":
    main()
