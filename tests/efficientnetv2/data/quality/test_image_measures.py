"""Tests the measures of single images."""

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from efficientnetv2.data.quality.image_measures import measure_image, measure_images


def test_a_photograph_is_measured(crops, encoded, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(crops[0], "PNG"))
    measured = measure_image(path)
    grey = crops[0].convert("L")
    levels = np.asarray(grey, np.float64)
    middle = levels[1:-1, 1:-1]
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    assert (measured.problem, measured.width, measured.height) == ("", 100, 90)
    assert measured.contrast == pytest.approx(levels.std(), rel=1e-5)
    sharpness = (around - 4 * middle).std() / levels.std()
    assert measured.sharpness == pytest.approx(sharpness, rel=1e-4)
    assert f"{measured.bits:016x}" == str(imagehash.phash(grey))


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_that_is_stored_sideways_is_the_same_image(turn, crops, encoded, tmp_path):
    backwards = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = crops[1] if turn == 1 else crops[1].transpose(backwards[turn])
    exif = Image.Exif()
    exif[274] = turn
    for name, image, options in (("a", crops[1], {}), ("b", stored, {"exif": exif})):
        (tmp_path / f"{name}.png").write_bytes(encoded(image, "PNG", **options))
    upright, turned = measure_images([tmp_path / "a.png", tmp_path / "b.png"])
    assert (turned.width, turned.height, turned.bits) == (100, 90, upright.bits)
    assert turned.is_turned == (turn > 1) and not upright.is_turned


def test_blur_lowers_the_sharpness(crops, encoded, tmp_path):
    sharpness = []
    for radius in (0, 1, 2, 4):
        path = tmp_path / f"{radius}.png"
        path.write_bytes(encoded(crops[2].filter(ImageFilter.GaussianBlur(radius)), "PNG"))
        sharpness.append(measure_image(path).sharpness)
    assert sharpness == sorted(sharpness, reverse=True) and sharpness[-1] < sharpness[0] / 5


def test_every_kind_of_pixels_is_read(crops, tmp_path):
    grey = np.asarray(crops[3].convert("L"))
    images = {
        "16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "alpha.png": crops[3].convert("RGBA"),
        "palette.gif": crops[3].convert("P"),
        "bits.png": crops[3].convert("1"),
        "cmyk.jpg": crops[3].convert("CMYK"),
        "grey.tif": crops[3].convert("L"),
        "one.png": Image.new("RGB", (1, 1)),
        "line.png": Image.new("L", (400, 1)),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        measured = measure_image(tmp_path / name)
        assert measured.problem == "" and (measured.width, measured.height) == image.size, name
    assert measure_image(tmp_path / "one.png").contrast == 0


def test_what_cannot_be_read_has_a_reason(crops, encoded, tmp_path):
    whole = {"jpg": encoded(crops[4]), "png": encoded(crops[4], "PNG")}
    contents = {
        "empty.jpg": b"",
        "half.jpg": whole["jpg"][: len(whole["jpg"]) // 2],
        "most.jpg": whole["jpg"][:-20],
        "half.png": whole["png"][: len(whole["png"]) // 2],
        "text.jpg": b"no image at all" * 20,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    reasons = {
        name: measure_image(tmp_path / name).problem
        for name in (*contents, "missing.jpg", "folder.jpg")
    }
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["text.jpg"] == "it is not an image"
    assert reasons["missing.jpg"] == "the file is gone"
    assert reasons["folder.jpg"] == "Is a directory"
    for name in ("half.jpg", "most.jpg", "half.png"):
        assert reasons[name].startswith("it is broken or cut off"), name


def test_order_is_kept(crops, encoded, tmp_path):
    sizes = []
    for number in range(150):
        side = 8 + number % 60
        crops[number % 5].resize((side, 9)).save(tmp_path / f"{number:03}.png")
        sizes.append(side)
    measured = measure_images(sorted(tmp_path.iterdir()))
    assert [one.width for one in measured] == sizes
