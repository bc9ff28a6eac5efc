"""Tests the search for copies of images, and the comparison pixel by pixel."""

import itertools

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.data.quality import copies as module
from efficientnetv2.data.quality.alignment import SAME, edge_similarity, small_grey
from efficientnetv2.data.quality.copies import find_copies
from efficientnetv2.data.quality.image_measures import measure_images


def grey(image):
    return np.asarray(image.convert("L"), np.float32)


def searched(folder):
    paths = sorted(folder.iterdir())
    search = find_copies(paths, list(measure_images(paths)))
    names = [path.name for path in paths]
    return {names[c.image]: (names[c.original], c.is_exact) for c in search.copies}, search


@pytest.mark.parametrize(
    "box",
    [(0, 0, 100, 90), (3, 0, 100, 90), (0, 0, 97, 87), (1.5, 1.3, 98.5, 88.7), (6, 5, 94, 85)],
)
def test_a_crop_lies_over_its_whole(crops, box):
    similarities = []
    for crop in crops:
        part = crop.resize((100, 90), Image.Resampling.BICUBIC, box=box)
        levels = np.clip(0.8 * grey(part) + 20, 0, 255)  # darker and flatter
        similarities.append(edge_similarity(small_grey(grey(crop)), small_grey(levels)))
    # One crop is of sky, with a tree top in a corner that a shift of 6 pixels hides.
    assert len(crops) > 10 and sorted(similarities)[1] > SAME


def test_other_pictures_do_not(crops):
    small = [small_grey(grey(crop)) for crop in crops]
    similarities = [edge_similarity(*pair) for pair in itertools.permutations(small, 2)]
    assert len(similarities) > 100 and max(similarities) < 0.8
    assert edge_similarity(small[0], np.full_like(small[0], 7)) == 0


def test_copies_are_found(crops, encoded, tmp_path):
    for number, crop in enumerate(crops):
        (tmp_path / f"{number:02}.jpg").write_bytes(encoded(crop, quality=90))
    (tmp_path / "x0.jpg").write_bytes((tmp_path / "03.jpg").read_bytes())
    (tmp_path / "x1.jpg").write_bytes(encoded(crops[4], quality=50))
    (tmp_path / "x2.png").write_bytes(encoded(crops[5].resize((60, 54)), "PNG"))
    (tmp_path / "x3.jpg").write_bytes(encoded(crops[6].crop((2, 1, 99, 88)), quality=85))
    (tmp_path / "x4.jpg").write_bytes((tmp_path / "x1.jpg").read_bytes())  # of a copy
    (tmp_path / "x5.jpg").write_bytes(encoded(crops[7])[:500])  # broken
    found, search = searched(tmp_path)
    assert found == {
        "x0.jpg": ("03.jpg", True),
        "x1.jpg": ("04.jpg", False),
        "x2.png": ("05.jpg", False),
        "x3.jpg": ("06.jpg", False),
        "x4.jpg": ("x1.jpg", True),
    }
    assert search.bits == module.MOST_BITS
    assert all(0.92 <= copy.similarity <= 1.0001 for copy in search.copies)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    groups = {names[copy.image]: names[copy.group] for copy in search.copies}
    assert groups == {
        **{name: original for name, (original, _) in found.items()},
        "x4.jpg": "04.jpg",
    }


def test_the_same_shape_in_another_colour_is_another_picture(crops, tmp_path):
    coloured = [crop for crop in crops if np.ptp(np.asarray(crop, float).mean((0, 1))) > 40]
    assert coloured
    for number, crop in enumerate(coloured):
        red, green, blue = crop.split()
        crop.save(tmp_path / f"{number}.png")
        Image.merge("RGB", [blue, green, red]).save(tmp_path / f"{number}_other.png")
    assert searched(tmp_path)[0] == {}


def test_flat_images_are_copies_only_if_their_files_are_equal(encoded, tmp_path):
    for number, shade in enumerate((10, 10, 11, 200)):
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.new("L", (40, 40), shade), "PNG"))
    assert searched(tmp_path)[0] == {"1.png": ("0.png", True)}


def test_close_pairs_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    base = [int(x) for x in rng.integers(0, 1 << 63, 30)]
    hashes = base + [h ^ (1 << int(rng.integers(64))) ^ (1 << 63) for h in base]
    expected = {
        (i, j): bin(hashes[i] ^ hashes[j]).count("1")
        for i, j in itertools.combinations(range(60), 2)
    }
    expected = {pair: bits for pair, bits in expected.items() if bits <= module.MOST_BITS}
    found = {}
    for pairs, distances in module._close_pairs(hashes):
        found.update(zip(map(tuple, pairs.tolist()), distances.tolist()))
    assert found == expected and len(found) >= 30


def test_where_all_images_are_alike_few_pairs_are_compared(crops, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FEWEST_PAIRS", 5)
    rng = np.random.default_rng(1)
    levels = np.asarray(crops[8].convert("L"), int)
    for number in range(12):
        noisy = np.clip(levels + rng.integers(-6, 7, levels.shape), 0, 255)
        Image.fromarray(np.uint8(noisy)).save(tmp_path / f"{number:02}.png")
    _, search = searched(tmp_path)
    assert search.num_pairs <= 12 and search.bits < module.MOST_BITS
