"""Training crops: recomputed pixels, small, large, turned and damaged images, sizes at run time."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data import decode

CROP = {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3)}


@pytest.fixture(scope="module")
def photo(golden):
    return (golden / "photo_500x375.jpg").read_bytes()


def gradient_image(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], -1).astype(np.uint8)


@functools.cache
def graph(**options):
    scalar, pair = tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string), pair, scalar], autograph=False)
    def prepare(encoded, seeds, image_size):
        return decode.decode_training(encoded, seeds, image_size=image_size, **options)

    return prepare


def crops(encoded, indices, *, image_size, **options):
    """A crop for each seed, drawn inside a graph."""
    prepare = graph(**options)
    return np.array([prepare(encoded, [3, index], image_size) for index in indices])


def test_small_images_are_enlarged_before_they_are_cropped():
    # 8x8 to 32x32: a window of 80% to 100% has many places, not nine.
    encoded = tf.io.encode_png(gradient_image(8, 8) * 16)
    options = {"image_size": 32, "preprocess": "v2", "area": (0.8, 1.0), "aspect": (0.9, 1.1)}
    images = crops(encoded, range(50), **options)
    assert len(np.unique(images.reshape(50, -1), axis=0)) > 20
    corner = images[:, 0, 0, :2].max(0)  # the first row and column still seen, times 16
    assert 0 < corner.max() <= 16 * 8 * (1 - np.sqrt(0.8 / 1.1)) + 1


def test_a_small_wide_image_keeps_its_proportions():
    encoded = tf.io.encode_png(gradient_image(8, 16))
    options = {"image_size": 32, "preprocess": "v2", "area": (0.5, 0.5), "aspect": (1.0, 1.0)}
    image = crops(encoded, [1], **options)[0]
    rows, columns = image[:, 0, 0], image[0, :, 1]
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1.0)


@pytest.mark.parametrize("chain", ["v1", "v2", "lite"])
@pytest.mark.parametrize("size", [16, 32])
def test_small_images_are_enlarged_then_cut_then_resized_bilinearly(chain, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 10, 1), np.uint8)
    shape = [size, -(-10 * size // 8)]
    if chain == "v1":
        enlarged = tf.raw_ops.ResizeBicubic(images=[np.repeat(pixels, 3, -1)], size=shape)[0]
    else:
        enlarged = tf.image.resize(np.repeat(pixels, 3, -1), shape)
    options = {"image_size": size, "preprocess": chain}
    images = crops(tf.io.encode_png(pixels), range(8), **options, **CROP)
    for index, image in enumerate(images):
        seeds = tf.constant([3, index], tf.int64)
        y, x, h, w = decode.random_window(tf.constant(shape), seeds, **CROP).numpy()
        expected = tf.image.resize(enlarged[y : y + h, x : x + w], [size, size])
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("chain", ["v1", "v2", "lite"])
def test_training_resizes_as_evaluation_does(chain, photo):
    options = {"image_size": 200, "preprocess": chain}
    trained = crops(photo, [2], area=(1, 1), aspect=(4 / 3, 4 / 3), **options)[0]
    evaluated = decode.decode_evaluation(photo, resize="squash", **options)
    assert np.abs(trained - evaluated.numpy()).max() <= 1.0


@pytest.mark.parametrize(("size", "ratio"), [(94, 1), (93, 2), (47, 2), (46, 4), (23, 8)])
def test_windows_of_four_times_the_size_and_more_are_decoded_smaller(size, ratio, photo):
    options = {"image_size": size, "preprocess": "v2"}
    image = crops(photo, [0], area=(1, 1), aspect=(4 / 3, 4 / 3), **options)[0]
    smaller = tf.io.decode_jpeg(photo, ratio=ratio)[: 375 // ratio, : 500 // ratio]
    np.testing.assert_array_equal(image, tf.image.resize(smaller, [size, size]))
    full = tf.image.resize(tf.io.decode_jpeg(photo), [size, size])
    assert np.abs(image - full).mean() <= (15.0 if ratio > 1 else 0.0)
    assert np.abs(np.mean(image - full)) <= 3.0


def test_a_png_is_cut_exactly(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    options = {"image_size": 24, "preprocess": "v2"}
    for index, image in enumerate(crops(tf.io.encode_png(pixels), range(5), **options, **CROP)):
        seeds = tf.constant([3, index], tf.int64)
        y, x, h, w = decode.random_window(tf.constant([60, 80]), seeds, **CROP).numpy()
        expected = tf.image.resize(pixels[y : y + h, x : x + w], [24, 24])
        np.testing.assert_array_equal(image, expected)


def turned_photos(photo):
    """Eight files of one picture, each stored as its EXIF orientation says."""
    upright = Image.open(io.BytesIO(photo))
    flips = Image.Transpose
    stored = {
        1: upright,
        2: upright.transpose(flips.FLIP_LEFT_RIGHT),
        3: upright.transpose(flips.ROTATE_180),
        4: upright.transpose(flips.FLIP_TOP_BOTTOM),
        5: upright.transpose(flips.TRANSPOSE),
        6: upright.transpose(flips.ROTATE_90),
        7: upright.transpose(flips.TRANSVERSE),
        8: upright.transpose(flips.ROTATE_270),
    }
    for number, picture in stored.items():
        header, file = Image.Exif(), io.BytesIO()
        header[274] = number
        picture.save(file, "JPEG", quality=95, subsampling=0, exif=header)
        yield file.getvalue()


# Decoded smaller, windows begin at multiples of 2, 4 or 8 pixels, counted from another side.
@pytest.mark.parametrize(("size", "tolerance"), [(40, 14.0), (224, 2.5), (600, 2.5)])
def test_all_orientations_give_the_same_crops(size, tolerance, photo):
    first, *others = (
        crops(data, range(6), image_size=size, preprocess="v2", **CROP)
        for data in turned_photos(photo)
    )
    for images in others:
        assert np.abs(images - first).mean() <= tolerance
        assert np.abs(images - first[:, :, ::-1]).mean() > 25
    assert np.abs(first[0] - first[1]).mean() > 25


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_fails_whatever_the_seed(fraction, progressive, photo):
    file = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(file, "JPEG", progressive=progressive)
    data = file.getvalue()
    options = {"image_size": 32, "preprocess": "v2", **CROP}
    assert len(crops(data, range(50), **options)) == 50
    for index in range(50):
        with pytest.raises(tf.errors.InvalidArgumentError):
            crops(data[: int(fraction * len(data))], [index], **options)


@pytest.mark.parametrize("trailing", [b"\0", b"\0" * 100, b"a phone's own data " * 50])
def test_bytes_behind_a_complete_jpeg_do_no_harm(trailing, photo):
    options = {"image_size": 200, "preprocess": "v2", **CROP}
    expected = crops(photo, range(10), **options)
    assert np.abs(crops(photo + trailing, range(10), **options) - expected).max() <= 24
    assert np.abs(crops(photo + trailing, range(10), **options) - expected).mean() <= 0.2


FILES = {
    "a small png": lambda photo: tf.io.encode_png(gradient_image(8, 8) * 16).numpy(),
    "a small jpeg": lambda photo: tf.io.encode_jpeg(gradient_image(8, 8) * 16).numpy(),
    "a png": lambda photo: tf.io.encode_png(gradient_image(60, 90)).numpy(),
    "a jpeg": lambda photo: photo,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("chain", ["v1", "v2"])
def test_a_size_known_at_run_time_gives_the_same_pixels(name, chain, photo):
    encoded, seeds = FILES[name](photo), tf.constant([7, 7], tf.int64)
    prepare = functools.partial(decode.decode_training, encoded, seeds, preprocess=chain, **CROP)
    sizes = tf.data.Dataset.from_tensor_slices([16, 33, 128])
    stream = sizes.map(lambda size: prepare(image_size=size))
    assert stream.element_spec == tf.TensorSpec([None, None, 3], tf.float32)
    for size, image in zip([16, 33, 128], stream):
        fixed = prepare(image_size=size)
        assert fixed.shape == (size, size, 3) and fixed.dtype == tf.float32
        np.testing.assert_array_equal(image, fixed)


def test_a_size_known_before_gives_static_shapes(photo):
    seeds = tf.constant([7, 7], tf.int64)
    stream = tf.data.Dataset.from_tensors(photo).map(
        lambda data: decode.decode_training(data, seeds, image_size=48, preprocess="v1", **CROP)
    )
    assert stream.element_spec == tf.TensorSpec([48, 48, 3], tf.float32)


@pytest.fixture
def eager():
    """Runs functions as they are written; once traced, Python sees nothing of them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


DECODERS = ("decode_jpeg", "decode_and_crop_jpeg", "decode_png", "decode_image")


@pytest.mark.parametrize(
    ("name", "size", "decoder"),
    [
        ("a small png", 16, "decode_png"),
        ("a small jpeg", 16, "decode_jpeg"),
        ("a png", 16, "decode_png"),
        ("a jpeg", 64, "decode_and_crop_jpeg"),
        ("a jpeg", 501, "decode_jpeg"),
    ],
)
def test_an_image_is_decoded_once(name, size, decoder, photo, monkeypatch, eager):
    encoded, called = FILES[name](photo), []
    for each in DECODERS:
        original = getattr(tf.io, each)

        def count(*arguments, each=each, original=original, **options):
            called.append(each)
            return original(*arguments, **options)

        monkeypatch.setattr(tf.io, each, count)
    seeds = tf.constant([1, 1], tf.int64)
    decode.decode_training(encoded, seeds, image_size=size, preprocess="v2", **CROP)
    assert called == [decoder]


@pytest.mark.slow
def test_other_processes_can_run_it(photo):
    # The service sends the graph as bytes; Python functions would not survive that.
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    worker = service.WorkerServer(service.WorkerConfig(dispatcher.target.split("://")[1]))
    bitmap = io.BytesIO()
    Image.fromarray(gradient_image(20, 30)).save(bitmap, "BMP")
    files = [*(make(photo) for make in FILES.values()), bitmap.getvalue()]

    def prepare(encoded):
        seeds = tf.constant([5, 5], tf.int64)
        trained = decode.decode_training(encoded, seeds, image_size=16, preprocess="v2", **CROP)
        return trained, decode.decode_evaluation(encoded, image_size=16, preprocess="v1")

    here = tf.data.Dataset.from_tensor_slices(files).map(prepare)
    there = list(here.apply(service.distribute("distributed_epoch", dispatcher.target)))
    assert len(there) == len(files)
    for ours, theirs in zip(here, there):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    worker._stop()
