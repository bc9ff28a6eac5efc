"""Images that are too large or too small are called that; lines of one pixel are read."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data import decode
from efficientnetv2.data.bad_images import reason
from efficientnetv2.data.image_formats import decode_image
from efficientnetv2.data.image_size import stored_size, wrong_size

FORMATS = ("JPEG", "PNG", "GIF", "BMP")


def encode(height, width, file_format):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 60, 20)).save(file, file_format)
    return bytearray(file.getvalue())


def sized(file_format, height, width):
    """A small file that states another size."""
    data = encode(4, 4, file_format)
    if file_format == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif file_format == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
    elif file_format == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_size_is_read_from_the_header(file_format):
    assert stored_size(bytes(encode(31, 47, file_format))) == (31, 47)
    assert stored_size(bytes(encode(31, 47, file_format))[:9]) is None
    assert stored_size(b"text") is stored_size(b"") is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (60000, 60000, "it is too large: 60,000 x 60,000 pixels, and at most [0-9,]+ can"),
        (0, 64, "it is too small: 64 x 0 pixels"),
    ],
)
def test_a_wrong_size_is_called_that(file_format, height, width, words):
    data = sized(file_format, height, width)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode_image(data)
    assert wrong_size(data) == reason(error.value, data)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason(error.value, data))


def test_a_broken_file_of_a_good_size_is_called_broken():
    data = bytes(encode(40, 40, "PNG"))[:60]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode_image(data)
    assert reason(error.value, data) == "its PNG data are broken or cut off"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 60), (60, 1), (1, 700)])
@pytest.mark.parametrize("preprocess", ["v1", "v2", "lite"])
def test_a_line_of_one_pixel_is_read(file_format, height, width, preprocess):
    data = bytes(encode(height, width, file_format))
    image = decode.decode_evaluation(data, image_size=24, preprocess=preprocess).numpy()
    expected = decode_image(data).numpy()[0, 0].astype(float)
    np.testing.assert_allclose(image, np.broadcast_to(expected, [24, 24, 3]), atol=3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((8, 8), (24, 24)), ((4, 7), (24, 42)), ((1, 23), (9, 192)), ((20, 1), (192, 10))],
)
def test_a_small_image_is_enlarged_but_not_without_bounds(size, expected):
    enlarged = decode._enlarged(tf.constant(size), tf.constant(24))
    assert tuple(enlarged.numpy()) == expected
