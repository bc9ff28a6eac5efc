"""TIFF and AVIF files, which Pillow decodes: their values, and what is wrong with a file."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data import pillow_image
from efficientnetv2.data.bad_images import reason
from efficientnetv2.data.image_formats import decode_image
from efficientnetv2.data.sources.image_suffixes import readable_formats


def encode(pixels, file_format="TIFF", mode=None, **options):
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (7, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_files_come_back_exactly(compression, pixels):
    np.testing.assert_array_equal(decode_image(encode(pixels, compression=compression)), pixels)


def test_grey_palette_and_transparent_files_become_opaque_rgb(pixels):
    grey = pixels[..., 0]
    np.testing.assert_array_equal(decode_image(encode(grey)), np.stack([grey] * 3, -1))
    alpha = np.full((7, 9, 1), 51, np.uint8)
    blended = decode_image(encode(np.concatenate([pixels, alpha], -1))).numpy()
    np.testing.assert_allclose(blended, 255 - (255 - pixels.astype(float)) * 51 / 255, atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_of_16_bits_the_higher_8_are_kept(order):
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16).astype(f"{order}u2")
    image = decode_image(encode(grey)).numpy()
    assert image[0].tolist() == [[value] * 3 for value in (0, 0, 1, 128, 255)]


def test_the_first_page_counts(pixels):
    other = Image.fromarray(255 - pixels)
    data = encode(pixels, save_all=True, append_images=[other])
    np.testing.assert_array_equal(decode_image(data), pixels)


@pytest.mark.skipif("AVIF" not in readable_formats(), reason="this Pillow reads no AVIF")
def test_avif_files_are_read():
    pixels = np.full([16, 16, 3], (200, 60, 20), np.uint8)
    image = decode_image(encode(pixels, "AVIF", quality=100)).numpy().astype(int)
    assert np.abs(image - pixels).max() <= 4


def why(data):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode_image(data)
    return reason(error.value, data)


def test_what_is_wrong_is_said(pixels):
    assert why(encode(pixels)[:60]) == "its TIFF data are broken or cut off"
    floats = np.zeros([2, 2], np.float32)
    assert why(encode(floats)) == "its TIFF pixels have 32 bits; convert it to 8 bits"
    formats = ", ".join(readable_formats())
    for data in (b"II, two letters", b"\0\0\0\x20ftypmp42", b"\0\0\1\0an icon", b"MM"):
        assert why(data) == f"it is not an image ({formats})"


def test_without_pillow_a_tiff_is_an_unknown_format(pixels, monkeypatch):
    monkeypatch.setattr(pillow_image, "pillow_reads", lambda name: False)
    image, problem = pillow_image.decode_with_pillow(encode(pixels))
    assert image.shape == (1, 1, 3) and problem == b"Unknown image file format"


def test_a_data_set_can_read_them_beside_others_and_skip_bad_ones(pixels):
    files = [encode(pixels), encode(pixels)[:60], encode(pixels, "PNG")]
    images = tf.data.Dataset.from_tensor_slices(files).map(decode_image, num_parallel_calls=2)
    good = list(images.ignore_errors())
    assert len(good) == 2
    for image in good:
        np.testing.assert_array_equal(image, pixels)
