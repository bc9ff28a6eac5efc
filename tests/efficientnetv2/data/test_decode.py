"""Evaluation against the official chains; random windows against their ranges."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data import decode
from efficientnetv2.data.image_formats import decode_image
from efficientnetv2.data.preprocess import normalise


@pytest.fixture(scope="module")
def photo(golden):
    return tf.io.read_file(str(golden / "photo_500x375.jpg"))


@pytest.fixture(scope="module")
def arrays(golden):
    return np.load(golden / "preprocess.npz")


def encode(picture, file_format, **options):
    file = io.BytesIO()
    picture.save(file, file_format, quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize(("chain", "key"), [("v2", "v2"), ("v1", "legacy")])
def test_evaluation_chains_equal_the_official_ones(chain, key, size, photo, arrays):
    image = decode.decode_evaluation(photo, image_size=size, preprocess=chain).numpy()
    expected = arrays[f"{key}_{size}"]
    assert image.shape == (size, size, 3)
    assert np.abs(image - expected).max() <= 1.0
    assert np.abs(image - expected).mean() <= 0.1


@pytest.mark.parametrize(("chain", "key"), [("v2", "v2"), ("v1", "legacy")])
def test_normalisation_equals_the_official_one(chain, key, arrays):
    ours = normalise(arrays[f"{key}_224"], chain)
    np.testing.assert_allclose(ours, arrays[f"{key}_224_norm"], atol=1e-6)


def test_lite_is_normalised_about_127():
    pixels = np.array([[[0.0, 127.0, 255.0]]])
    np.testing.assert_allclose(normalise(pixels, "lite")[0, 0], [-127 / 128, 0, 1], atol=1e-7)


def test_lite_sees_the_centre_bilinearly(photo):
    lite = decode.decode_evaluation(photo, image_size=224, preprocess="lite").numpy()
    crop = decode_image(photo)[24 : 24 + 328, 86 : 86 + 328]
    expected = tf.image.resize(crop, [224, 224]).numpy()
    assert np.abs(lite - expected).mean() <= 0.1


@pytest.mark.parametrize("chain", ["v2", "lite"])
@pytest.mark.parametrize("size", [24, 64])
def test_evaluation_decodes_every_pixel_however_small_the_result(chain, size, photo):
    image = decode.decode_evaluation(photo, image_size=size, preprocess=chain)
    whole = decode_image(photo)
    y, x, h, w = decode.central_window(
        tf.shape(whole)[:2], image_size=size, round_up=chain == "lite"
    ).numpy()
    expected = tf.image.resize(whole[y : y + h, x : x + w], [size, size])
    assert np.abs(image - expected).mean() <= 0.2


@pytest.mark.parametrize(
    ("round_up", "window"), [(False, [23, 86, 328, 328]), (True, [24, 86, 328, 328])]
)
def test_central_window_of_the_photo(round_up, window):
    shape = tf.constant([375, 500])
    ours = decode.central_window(shape, image_size=224, round_up=round_up)
    assert ours.numpy().tolist() == window


def test_squash_sees_the_whole_image(photo):
    whole = decode.decode_evaluation(photo, image_size=64, preprocess="v2", resize="squash")
    np.testing.assert_array_equal(whole, tf.image.resize(decode_image(photo), [64, 64]))


def test_squash_turns_upright_too(photo):
    assert_upright_is_seen(photo, image_size=224, preprocess="v2", resize="squash")


@pytest.mark.parametrize(("chain", "size"), [("v1", 224), ("v2", 224), ("v2", 384), ("lite", 224)])
def test_evaluation_sees_turned_photos_upright(chain, size, photo):
    assert_upright_is_seen(photo, image_size=size, preprocess=chain)


def assert_upright_is_seen(photo, **options):
    upright = Image.open(io.BytesIO(photo.numpy()))
    expected = decode.decode_evaluation(encode(upright, "JPEG"), **options).numpy()
    header = Image.Exif()
    header[274] = 6  # to be turned to the right
    turned = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=header)
    image = decode.decode_evaluation(turned, **options).numpy()
    assert np.abs(image - expected).mean() <= 2.0
    unturned = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG")
    other = decode.decode_evaluation(unturned, **options).numpy()
    assert np.abs(other - expected).mean() > 30.0


@pytest.mark.parametrize("chain", ["v1", "v2", "lite"])
def test_evaluation_sees_what_is_clear_as_white(chain):
    clear = tf.io.encode_png(np.zeros((40, 50, 4), np.uint8))
    image = decode.decode_evaluation(clear, image_size=32, preprocess=chain).numpy()
    np.testing.assert_allclose(image, 255.0, atol=1e-3)


@pytest.mark.parametrize("chain", ["v1", "v2", "lite"])
def test_truncated_jpeg_files_are_refused(chain, photo):
    data = photo.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_evaluation(data[:-3000], image_size=32, preprocess=chain)


def windows(shape, *, count, area, aspect=(0.75, 4 / 3)):
    draw = tf.function(
        lambda index: decode.random_window(
            tf.constant(shape), tf.stack([7, index]), area=area, aspect=aspect
        )
    )
    return np.array([draw(tf.constant(index, tf.int64)) for index in range(count)])


def test_random_windows_stay_inside_and_within_their_ranges():
    drawn = windows((300, 400), count=300, area=(0.08, 1.0))
    y, x, height, width = drawn.T
    assert (y >= 0).all() and (x >= 0).all()
    assert (y + height <= 300).all() and (x + width <= 400).all()
    area = height * width / (300 * 400)
    assert area.min() >= 0.075 and area.max() > 0.8
    aspect = width / height
    assert aspect.min() >= 0.74 and aspect.max() <= 1.35
    assert len(np.unique(drawn, axis=0)) > 290


def test_the_same_seed_draws_the_same_window():
    first, second = (windows((64, 64), count=5, area=(0.1, 0.9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_area_of_1_is_the_whole_image():
    assert windows((8, 8), count=5, area=(1.0, 1.0)).tolist() == [[0, 0, 8, 8]] * 5
