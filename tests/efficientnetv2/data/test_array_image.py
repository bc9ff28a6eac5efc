"""Images of any number of channels, as NumPy reads them: values, layouts, and what is wrong."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.data import array_image
from efficientnetv2.data.array_image import decode_array, npy_shape, read_array

needs_tifffile = pytest.mark.skipif(
    importlib.util.find_spec("tifffile") is None, reason="tifffile is not installed"
)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def tiff(array, **options):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **options)
    return file.getvalue()


def image_file(array, file_format):
    file = io.BytesIO()
    Image.fromarray(array).save(file, file_format)
    return file.getvalue()


def random_array(seed, dtype, channels=5):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, (6, 7, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, (6, 7, channels)).astype(dtype)


def problem(encoded, channels):
    image, text = decode_array(encoded, channels)
    assert (image.shape, image.dtype) == ((1, 1, channels), np.float32)
    return text.decode()


@pytest.mark.parametrize(
    ("dtype", "divisor"), [("u1", 1), ("<u2", 257), (">u2", 257), ("<f4", 1), (">f4", 1)]
)
def test_arrays_become_pixels(seed, dtype, divisor):
    array = random_array(seed, dtype)
    image, text = decode_array(npy(array), 5)
    assert (text, image.dtype) == (b"", np.float32)
    np.testing.assert_allclose(image, array.astype(np.float64) / divisor, rtol=1e-6)
    fortran, _ = decode_array(npy(np.asfortranarray(array)), 5)
    np.testing.assert_array_equal(fortran, image)
    grey, _ = decode_array(npy(array[..., 0]), 1)
    np.testing.assert_array_equal(grey, image[..., :1])
    assert npy_shape(npy(array)[:200]) == (6, 7, 5)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (npy(np.zeros((3, 4, 3), "u1")), "it has 3 channels, but model.channels is 4"),
        (npy(np.zeros((3, 4), "u1")), "it has 1 channel, but model.channels is 4"),
        (npy(np.zeros((3, 4, 4))), "its numbers are of the type float64; convert them to uint8"),
        (npy(np.zeros((3, 4, 4), "i2")), "its numbers are of the type int16; convert them to"),
        (npy(np.zeros((3, 4, 4), bool)), "its numbers are of the type bool; convert them to"),
        (npy(np.zeros((1, 3, 4, 4), "u1")), "its shape is [1, 3, 4, 4]; an image is [height, wi"),
        (npy(np.zeros((0, 4, 4), "u1")), "its shape is [0, 4, 4]; an image is [height, width, c"),
        (npy(np.array([[{}]]), allow_pickle=True), "it holds pickled Python objects, which are n"),
        (npy(np.full((1, 1, 4), np.nan, "f4")), "it has values that are not finite (NaN or inf"),
        (npy(np.zeros((3, 4, 4), "u1"))[:-1], "it is cut off: 47 of 48 bytes are there"),
        (npy(np.zeros((3, 4, 4), "u1"))[:40], "its header is broken or cut off"),
        (npy(np.zeros((3, 4, 4), "u1"))[:7], "its header is broken or cut off"),
        (b"", "the file is empty"),
        (b"hello", "it is not an image of several channels (.npy, TIFF, or PNG with alpha)"),
        (b"\x89PNG\r\n\x1a\n", "its PNG data are broken or cut off"),
    ],
)
def test_what_is_wrong_is_said(encoded, message):
    assert problem(encoded, 4).startswith(message)


def test_a_header_may_not_claim_memory():
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 4), }\n"
    encoded = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(10)
    assert problem(encoded, 4) == "it is cut off: 10 of 4,000,000,000,000 bytes are there"


def test_png_files_with_alpha_have_four_channels(seed):
    array = random_array(seed, "u1", 4)
    np.testing.assert_array_equal(read_array(image_file(array, "PNG")), array)
    assert problem(image_file(array[..., :3].copy(), "PNG"), 4) == (
        "it has 3 channels, but model.channels is 4"
    )


@needs_tifffile
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("layout", ["pixels", "channels", "pages"])
def test_tiff_files_of_many_channels(seed, dtype, layout):
    array = random_array(seed, dtype)
    planes = np.moveaxis(array, -1, 0)
    encoded = {
        "pixels": lambda: tiff(array, planarconfig="contig"),
        "channels": lambda: tiff(planes, planarconfig="separate"),
        "pages": lambda: tiff(planes),
    }[layout]()
    np.testing.assert_array_equal(read_array(encoded), array)
    if layout == "pages":  # of grey pages the first is the image
        np.testing.assert_array_equal(read_array(encoded, first_page=True)[..., 0], array[..., 0])
    assert problem(encoded[: len(encoded) // 4], 5).startswith(("its TIFF data ", "it has "))


def test_without_tifffile_a_line_names_it(monkeypatch, seed):
    four = random_array(seed, "u1", 4)
    many = tiff(random_array(seed, "u1"), planarconfig="contig") if has_tifffile() else None
    monkeypatch.setattr(array_image.importlib.util, "find_spec", lambda name: None)
    np.testing.assert_array_equal(read_array(image_file(four, "TIFF")), four)
    if many is not None:
        assert problem(many, 5) == (
            "Pillow cannot read this kind of TIFF file; pip install tifffile"
        )


def has_tifffile():
    return importlib.util.find_spec("tifffile") is not None
