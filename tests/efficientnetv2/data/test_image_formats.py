"""Every file format against hand-written pixels and Pillow, and the windows of JPEG files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from efficientnetv2.data import image_formats

decode = tf.function(
    image_formats.decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def encode(picture, file_format, **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def photo(golden):
    return (golden / "photo_500x375.jpg").read_bytes()


@pytest.fixture(scope="module")
def picture(photo):
    return Image.open(io.BytesIO(photo)).convert("RGB").resize((50, 40))


@pytest.fixture(scope="module")
def clear(picture):
    """The picture with every value of alpha."""
    alpha = np.arange(2000).reshape(40, 50, 1) % 256
    return Image.fromarray(np.concatenate([picture, alpha.astype(np.uint8)], -1))


def pillows(data):
    """What Pillow shows on a white page: int [H, W, 3]."""
    layer = Image.open(io.BytesIO(data)).convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    return np.asarray(Image.alpha_composite(page, layer).convert("RGB")).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_have_the_colours_that_pillow_shows(mode, progressive, picture):
    data = encode(picture.convert(mode), "JPEG", quality=80, progressive=progressive)
    difference = np.abs(decode(data).numpy() - pillows(data))
    assert difference.max() <= 8 and difference.mean() <= 1.5


def test_inverted_ycck_has_the_colours_that_pillow_shows(picture):
    inks = ImageOps.invert(picture).convert("YCbCr").split()
    stored = [ImageOps.invert(channel) for channel in (*inks, Image.new("L", (50, 40), 215))]
    data = bytearray(encode(Image.merge("CMYK", stored), "JPEG", quality=80))
    data[data.index(b"Adobe") + 11] = 2  # the segment's colour transform: YCCK
    expected = pillows(bytes(data))
    assert np.abs(expected - np.asarray(picture) * (215 / 255)).mean() < 8
    difference = np.abs(decode(bytes(data)).numpy() - expected)
    assert difference.max() <= 8 and difference.mean() <= 1.5


def files(picture, clear):
    palette = picture.quantize(200)
    other = picture.rotate(180)
    few = picture.quantize(16)
    shades = bytes(range(0, 256, 17))
    return {
        "png": encode(picture, "PNG"),
        "png with alpha": encode(clear, "PNG"),
        "grey png": encode(picture.convert("L"), "PNG"),
        "grey png with alpha": encode(clear.convert("LA"), "PNG"),
        "1-bit png": encode(picture.convert("1"), "PNG"),
        "palette png": encode(palette, "PNG"),
        "palette png with alpha": encode(palette, "PNG", transparency=bytes(range(200))),
        "4-bit palette png": encode(few, "PNG"),
        "4-bit palette png with alpha": encode(few, "PNG", transparency=shades),
        "png with a clear colour": encode(picture, "PNG", transparency=picture.getpixel((9, 9))),
        "grey png with a clear shade": encode(picture.convert("L"), "PNG", transparency=180),
        "gif": encode(palette, "GIF"),
        "animated gif": encode(palette, "GIF", save_all=True, append_images=[other]),
        "bmp": encode(picture, "BMP"),
        "palette bmp": encode(palette, "BMP"),
        "grey bmp": encode(picture.convert("L"), "BMP"),
        "webp": encode(picture, "WEBP"),
        "lossless webp": encode(picture, "WEBP", lossless=True),
        "webp with alpha": encode(clear, "WEBP", lossless=True),
        "lossy webp with alpha": encode(clear, "WEBP"),
        "animated webp": encode(
            picture, "WEBP", lossless=True, save_all=True, append_images=[other]
        ),
        "animated webp with alpha": encode(
            clear, "WEBP", lossless=True, save_all=True, append_images=[clear.rotate(180)]
        ),
    }


NAMES = list(files(Image.new("RGB", (50, 40)), Image.new("RGBA", (50, 40))))


@pytest.mark.parametrize("name", NAMES)
def test_files_have_pillows_pixels_on_white(name, picture, clear):
    data = files(picture, clear)[name]
    image = decode(data).numpy()
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, pillows(data), atol=1)
    assert image.std() > 20


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_blends_with_white(channels):
    alpha = np.array([[0, 1, 51, 128, 255]])
    colour = np.full((1, 5, channels - 1), 100)
    image = np.concatenate([colour, alpha[..., np.newaxis]], -1).astype(np.uint8)
    ours = decode(tf.io.encode_png(image)).numpy()
    assert ours[0, :, 0].tolist() == [255, 254, 224, 177, 100]
    np.testing.assert_array_equal(ours, np.repeat(ours[..., :1], 3, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_become_8(channels):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = np.repeat(values[..., np.newaxis], channels, -1)
    if channels % 2 == 0:
        image[..., -1] = 65535
    ours = decode(tf.io.encode_png(image)).numpy()
    assert ours[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255)]


def bmp_of_32_bits(picture, alpha):
    pixels = np.concatenate([picture, np.full((40, 50, 1), alpha, np.uint8)], -1)
    return encode(Image.fromarray(pixels), "BMP")


def test_a_bmp_whose_fourth_byte_is_unused_is_opaque(picture):
    np.testing.assert_array_equal(decode(bmp_of_32_bits(picture, 0)), picture)


@pytest.mark.parametrize("alpha", [51, 255])
def test_a_bmp_with_alpha_blends_with_white(alpha, picture):
    expected = 255 - (255 - np.asarray(picture).astype(float)) * alpha / 255
    np.testing.assert_allclose(decode(bmp_of_32_bits(picture, alpha)), expected, atol=0.51)


def test_run_length_encoded_bmp_files_are_refused(picture):
    data = bytearray(encode(picture.quantize(200), "BMP"))
    data[30] = 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="run-length"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("file_format", "mode", "message"),
    [
        ("PPM", "RGB", "Unknown image file format"),
        ("BMP", "1", "Number of channels inherent in the image must be 1, 3 or 4"),
    ],
)
def test_other_formats_are_refused(file_format, mode, message, picture):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(encode(picture.convert(mode), file_format))


@pytest.mark.parametrize("data", [b"", b"B", b"BM", b"RIFF", b"\x89PNG", b"\xff\xd8\xff\xd9"])
def test_fragments_are_refused(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_half_a_file_is_refused(file_format, picture):
    data = encode(picture, file_format)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(data[: len(data) // 2])


def test_the_header_of_a_complete_jpeg_gives_its_size(photo):
    header = image_formats.read_jpeg_header(tf.constant(photo))
    assert header.size.numpy().tolist() == [375, 500]
    assert header.orientation.numpy() == 1


def test_a_jpeg_that_must_be_decoded_whole_has_size_0(photo, picture):
    for data in (photo[:-2], photo[:30000], photo + b"\0", encode(picture, "PNG"), b"", b"\xff"):
        assert image_formats.read_jpeg_header(tf.constant(data)).size.numpy().tolist() == [0, 0]


def jpeg_window(data, window, smallest=None):
    header = image_formats.read_jpeg_header(tf.constant(data))
    image = image_formats.decode_jpeg_window(
        tf.constant(data), tf.constant(window), header=header, smallest=smallest
    )
    return image.numpy().astype(int)


@pytest.mark.parametrize("turned", [False, True])
def test_window_of_a_jpeg_is_nearly_what_decoding_whole_gives(turned, photo, picture):
    header = Image.Exif()
    header[274] = 6 if turned else 1
    data = encode(Image.open(io.BytesIO(photo)), "JPEG", exif=header)
    whole = decode(data).numpy().astype(int)
    assert whole.shape == ((500, 375, 3) if turned else (375, 500, 3))
    window = jpeg_window(data, [100, 80, 160, 128])
    difference = np.abs(window - whole[100:260, 80:208])
    assert difference[8:-8, 8:-8].max() <= 1 and difference.max() <= 24


@pytest.mark.parametrize(
    ("smallest", "ratio"),
    [(101, 1), (100, 2), (51, 2), (50, 4), (26, 4), (25, 8), (2, 8)],
)
@pytest.mark.parametrize("sides", [(200, 304), (304, 200)])
def test_a_window_is_scaled_as_far_as_both_sides_allow(smallest, ratio, sides, photo):
    height, width = sides
    image = jpeg_window(photo, [17, 33, height, width], smallest)
    assert image.shape == (height // ratio, width // ratio, 3)
    full = jpeg_window(photo, [17 // ratio * ratio, 33 // ratio * ratio, height, width])
    blocks = full.reshape(height // ratio, ratio, width // ratio, ratio, 3).mean((1, 3))
    assert np.abs(image - blocks).mean() <= 1.5
