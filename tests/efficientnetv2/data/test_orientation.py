"""EXIF orientations against Pillow, hand-built headers and damaged ones."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from efficientnetv2.data import orientation
from efficientnetv2.data.image_formats import decode_image

ORIENTATIONS = range(1, 9)
RED, BLUE, GREY = (200, 30, 30), (30, 30, 200), (128, 128, 128)
# What makes the stored image of an upright one.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def upright_picture():
    """32 high, 48 wide: red in the upper left corner, blue in the upper right one."""
    pixels = np.full((32, 48, 3), GREY, np.uint8)
    pixels[:16, :16] = RED
    pixels[:16, 32:] = BLUE
    return Image.fromarray(pixels)


def stored_jpeg(number, **options):
    picture = upright_picture()
    if number in STORED:
        picture = picture.transpose(STORED[number])
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


def exif(value, *, order="<", tag=274, before=0, offset=8, count=None):
    """An Exif segment with one entry of interest behind ``before`` others."""
    entries = [struct.pack(order + "HHII", 256 + i, 4, 1, 6) for i in range(before)]
    entries.append(struct.pack(order + "HHIHH", tag, 3, 1, value, 0))
    count = len(entries) if count is None else count
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(order + "HI", 42, offset) + bytes(offset - 8)
    tiff += struct.pack(order + "H", count) + b"".join(entries) + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff


def with_segment(jpeg, segment, *, after_jfif):
    """Pillow's files begin with a JFIF segment of 18 bytes."""
    assert jpeg[2:11] == b"\xff\xe0\x00\x10JFIF\x00"
    return jpeg[:20] + segment + jpeg[20:] if after_jfif else jpeg[:2] + segment + jpeg[20:]


read = tf.function(
    orientation.read_orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


@pytest.mark.parametrize("number", ORIENTATIONS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("after_jfif", [True, False])
def test_every_orientation_comes_out_upright(number, order, after_jfif):
    jpeg = with_segment(stored_jpeg(number), exif(number, order=order), after_jfif=after_jfif)
    assert read(jpeg).numpy() == number
    image = decode_image(jpeg).numpy().astype(int)
    assert image.shape == (32, 48, 3)
    for corner, colour in [((4, 4), RED), ((4, 44), BLUE), ((28, 4), GREY), ((28, 44), GREY)]:
        assert np.abs(image[corner] - colour).max() <= 4
    pillows = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg)))
    assert np.abs(image - np.asarray(pillows).astype(int)).max() <= 8


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_pillows_own_exif_is_read(number):
    header = Image.Exif()
    header[271], header[274], header[305] = "maker", number, "software" * 20
    assert read(stored_jpeg(number, exif=header)).numpy() == number


@pytest.mark.parametrize(
    "segment",
    [
        exif(6, before=9),
        exif(6, order=">", before=200),
        exif(6, offset=3000),
        exif(6, order=">", offset=3001),
    ],
)
def test_the_entry_is_found_wherever_it_stands(segment):
    jpeg = with_segment(stored_jpeg(6), segment, after_jfif=True)
    assert read(jpeg).numpy() == 6


@pytest.mark.parametrize(
    "segment",
    [
        b"",
        exif(6, tag=275),
        exif(0),
        exif(9),
        exif(6 * 256),
        exif(6, count=0),
        exif(6, tag=1, count=65535),
        b"\xff\xe1\x00\x0eExif\0\0II\x2a\0\xff\xff",
        b"\xff\xe1\x00\x10Exif\0\0II\x2a\0\xff\xff\xff\xff",
        b"\xff\xe1\x00\x10Exif\0\0MM\0\x2a\xff\xff\xff\xff",
        b"\xff\xe1\x00\x08Exif\0\0",
    ],
)
@pytest.mark.parametrize("after_jfif", [True, False])
def test_missing_and_damaged_entries_leave_the_image_as_it_is(segment, after_jfif):
    jpeg = with_segment(stored_jpeg(1), segment, after_jfif=after_jfif)
    assert read(jpeg).numpy() == 1
    np.testing.assert_array_equal(decode_image(jpeg), decode_image(stored_jpeg(1)))


@pytest.mark.parametrize("encoded", [b"", b"\xff\xd8", b"\xff\xd8" + bytes(4) + b"Exif"])
def test_short_files_have_no_orientation(encoded):
    assert read(encoded).numpy() == 1


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_a_window_is_the_same_pixels_in_the_stored_image(number):
    stored = tf.reshape(tf.range(5 * 7 * 3), [5, 7, 3])
    upright = orientation.turn_upright(stored, tf.constant(number)).numpy()
    size = orientation.upright_size(tf.constant([5, 7]), tf.constant(number))
    assert size.numpy().tolist() == list(upright.shape[:2])
    window = tf.constant([1, 2, 3, 2])
    y, x, h, w = orientation.stored_window(window, tf.constant(number), size=size).numpy()
    part = orientation.turn_upright(stored[y : y + h, x : x + w], tf.constant(number))
    np.testing.assert_array_equal(part, upright[1:4, 2:4])


def stored(number, file_format, **options):
    """The upright picture, stored as its orientation says, with Pillow's own EXIF header."""
    picture = upright_picture()
    if number in STORED:
        picture = picture.transpose(STORED[number])
    header = Image.Exif()
    header[274] = number
    file = io.BytesIO()
    picture.save(file, file_format, exif=header, **options)
    return file.getvalue()


def is_upright(image):
    corners = [((4, 4), RED), ((4, 44), BLUE), ((28, 4), GREY), ((28, 44), GREY)]
    return image.shape == (32, 48, 3) and all(
        np.abs(image[corner].astype(int) - colour).max() <= 6 for corner, colour in corners
    )


@pytest.mark.parametrize("number", ORIENTATIONS)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("WEBP", {"quality": 95}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_other_formats_come_out_upright(number, file_format, options):
    assert is_upright(decode_image(stored(number, file_format, **options)).numpy())


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("noise_bytes", [0, 200_000])
def test_a_png_may_have_its_exif_before_or_after_its_pixels(noise_bytes):
    header = exif(6)[10:]
    picture = stored_picture(6)
    file = io.BytesIO()
    picture.save(file, "PNG")
    png = file.getvalue()
    filler = chunk(b"teSt", bytes(noise_bytes))
    at_start = png[:33] + chunk(b"eXIf", header) + filler + png[33:]
    at_end = png[:33] + filler + png[33:-12] + chunk(b"eXIf", header) + png[-12:]
    for data in (at_start, at_end):
        assert is_upright(decode_image(data).numpy())
    assert not is_upright(decode_image(png).numpy())


def stored_picture(number):
    return upright_picture().transpose(STORED[number])


ICC = b"\xff\xe2" + struct.pack(">H", 65000) + b"ICC_PROFILE\0" + bytes(65000 - 14)
XMP = b"\xff\xe1\x00\x20http://ns.adobe.com/xap/1.0/\0x"
COMMENT = b"\xff\xfe\x00\x06Exif"


@pytest.mark.parametrize(
    "before", [[XMP], [COMMENT], [ICC, ICC, ICC], [XMP, ICC, b"\xff\xff"], [b"\xff\xed\x00\x04ab"]]
)
@pytest.mark.parametrize("after_jfif", [True, False])
def test_an_exif_segment_need_not_be_the_first(before, after_jfif):
    segments = b"".join(before) + exif(6, order=">")
    jpeg = with_segment(stored_jpeg(6), segments, after_jfif=after_jfif)
    assert read(jpeg).numpy() == 6
    assert is_upright(decode_image(jpeg).numpy())


def test_an_exif_segment_may_follow_a_longer_jfif_segment_and_tables():
    jpeg = stored_jpeg(6)
    thumbnail = b"\xff\xe0\x00\x13" + jpeg[6:18] + b"\x01\x01abc"
    tables = jpeg[20 : jpeg.index(b"\xff\xc0")]
    rest = jpeg[jpeg.index(b"\xff\xc0") :]
    assert read(jpeg[:2] + thumbnail + exif(6) + jpeg[20:]).numpy() == 6
    assert read(jpeg[:2] + tables + exif(6) + rest).numpy() == 6


def test_nothing_in_the_pixels_is_taken_for_exif():
    jpeg = stored_jpeg(1)
    scan = jpeg.index(b"\xff\xda")
    assert read(jpeg[: scan + 20] + exif(6) + jpeg[scan + 20 :]).numpy() == 1
    assert read(jpeg[:-2]).numpy() == 1
