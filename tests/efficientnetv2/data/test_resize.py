"""Evaluation with each choice of data.resize, against Pillow's decoding and NumPy's arithmetic."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from efficientnetv2.data.decode import decode_evaluation, describe_resize
from hparams.choices import NORMALISATIONS, RESIZES

SIDE = 48
SHAPES = {
    "wide": (37, 90),
    "tall": (101, 40),
    "square": (50, 50),
    "row": (1, 70),
    "column": (70, 1),
}


def bilinear(pixels, shape):
    """Samples at the centres of the new pixels, each axis by itself, without antialiasing."""
    for axis, new in enumerate(shape):
        old = pixels.shape[axis]
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1 if dim == axis else 1 for dim in range(3)])
        high = np.take(pixels, np.minimum(low + 1, old - 1), axis)
        pixels = np.take(pixels, low, axis) * (1 - share) + high * share
    return pixels


def central(pixels, side):
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def expected_square(pixels, resize):
    pixels = np.float64(pixels)
    shorter, longer = sorted(pixels.shape[:2])
    if resize == "published":
        pixels = central(pixels, max(1, int(SIDE / (SIDE + 32) * shorter)))
    if resize == "crop":
        pixels = central(pixels, shorter)
    if resize != "letterbox":
        return bilinear(pixels, (SIDE, SIDE))
    shape = [max(1, int(SIDE * length / longer + 0.5)) for length in pixels.shape[:2]]
    square = np.full((SIDE, SIDE, 3), 128.0)
    top, left = ((SIDE - length) // 2 for length in shape)
    square[top : top + shape[0], left : left + shape[1]] = bilinear(pixels, shape)
    return square


def smooth(shape):
    """Returns an image of which JPEG keeps every grey level to within a few."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    planes = [40 + rows * 1.5, 30 + columns * 2.0, 200 - rows - columns]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def file_of(pixels, file_format, orientation=1):
    file, header = io.BytesIO(), Image.Exif()
    header[274] = orientation
    options = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}
    Image.fromarray(pixels).save(file, file_format, exif=header, **options)
    return file.getvalue()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_a_png_becomes_the_square_that_numpy_computes(name, resize, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*SHAPES[name], 3), np.uint8)
    image = decode_evaluation(
        file_of(pixels, "PNG"), image_size=SIDE, preprocess="v2", resize=resize
    )
    np.testing.assert_allclose(image, expected_square(pixels, resize), atol=0.01)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chain", ["v2", "lite"])
def test_a_jpeg_is_turned_upright_first(chain, name, orientation, resize):
    data = file_of(smooth(SHAPES[name]), "JPEG", orientation)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape[:2] == SHAPES[name][:: 1 if orientation == 1 else -1]
    image = decode_evaluation(data, image_size=SIDE, preprocess=chain, resize=resize)
    if chain == "lite" and resize == "published":  # which rounds offsets of half a pixel up
        assert np.abs(image - expected_square(upright, resize)).mean() < 3
    else:
        assert np.abs(image - expected_square(upright, resize)).max() < 4


def test_the_bars_of_a_letterbox_are_the_same_grey_for_all_families():
    data = file_of(np.zeros((20, 80, 3), np.uint8), "PNG")
    for chain in NORMALISATIONS:
        image = decode_evaluation(data, image_size=32, preprocess=chain, resize="letterbox").numpy()
        np.testing.assert_array_equal(image[:12], 128)
        np.testing.assert_array_equal(image[12:20], 0)
        np.testing.assert_array_equal(image[20:], 128)


def test_v1_scales_the_image_of_a_letterbox_bicubically(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 80, 3), np.uint8)
    image = decode_evaluation(
        file_of(pixels, "PNG"), image_size=32, preprocess="v1", resize="letterbox"
    )
    expected = tf.raw_ops.ResizeBicubic(images=[pixels], size=[8, 32], half_pixel_centers=False)
    np.testing.assert_array_equal(image[12:20], expected[0])


def test_published_is_the_whole_image_where_the_accuracies_were_measured_so(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    data = file_of(pixels, "PNG")
    published, squash = (
        decode_evaluation(data, image_size=320, preprocess="v2", resize=resize)
        for resize in ("published", "squash")
    )
    np.testing.assert_array_equal(published, squash)


@pytest.mark.parametrize(
    ("resize", "chain", "size", "text"),
    [
        ("published", "v2", 224, "cut the central square that is 224/256 of the shorter side long"),
        ("published", "v1", 224, "and resize it (bicubic) to 224 x 224 pixels"),
        ("published", "v2", 384, "take the whole image, and resize it (bilinear)"),
        ("published", "lite", 384, "cut the central square that is 384/416"),
        ("squash", "v2", 224, "take the whole image, and resize it"),
        ("crop", "v2", 224, "cut the largest central square, and resize it"),
        (
            "letterbox",
            "lite",
            64,
            "scale the whole image (bilinear) so that its longer side is 64 pixels, and centre it "
            "on 64 x 64 pixels of grey level 128",
        ),
    ],
)
def test_the_words_for_exported_files(resize, chain, size, text):
    assert text in describe_resize(resize, image_size=size, preprocess=chain)
