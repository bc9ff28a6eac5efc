"""Decoding, cropping and resizing against the official chains and hand-made images."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import decode
from efficientnetv2.data.preprocess import normalise


@pytest.fixture(scope="module")
def photo(golden):
    return tf.io.read_file(str(golden / "photo_500x375.jpg"))


@pytest.fixture(scope="module")
def arrays(golden):
    return np.load(golden / "preprocess.npz")


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
    crop = decode.decode_image(photo)[24 : 24 + 328, 86 : 86 + 328]
    expected = tf.image.resize(crop, [224, 224]).numpy()
    assert np.abs(lite - expected).mean() <= 0.1


@pytest.mark.parametrize(
    ("round_up", "window"), [(False, [23, 86, 328, 328]), (True, [24, 86, 328, 328])]
)
def test_central_window_of_the_photo(round_up, window):
    shape = tf.constant([375, 500])
    ours = decode.central_window(shape, image_size=224, round_up=round_up)
    assert ours.numpy().tolist() == window


def test_crop_false_sees_the_whole_image(photo):
    whole = decode.decode_evaluation(photo, image_size=64, preprocess="v2", crop=False)
    np.testing.assert_array_equal(whole, tf.image.resize(decode.decode_image(photo), [64, 64]))


def gradient_image(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], -1).astype(np.uint8)


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_shape_of_an_encoded_image(encode):
    assert decode.image_shape(encode(gradient_image(20, 30))).numpy().tolist() == [20, 30]


def test_window_of_a_png_is_exact():
    image = gradient_image(20, 30)
    window = decode.decode_window(tf.io.encode_png(image), tf.constant([3, 5, 7, 11]))
    np.testing.assert_array_equal(window, image[3:10, 5:16])


def test_window_of_a_jpeg_is_nearly_what_decoding_whole_gives(photo):
    window = decode.decode_window(photo, tf.constant([100, 80, 128, 160])).numpy().astype(int)
    whole = decode.decode_image(photo).numpy()[100:228, 80:240]
    assert np.abs(window[8:-8, 8:-8] - whole[8:-8, 8:-8]).max() <= 1


def test_grey_becomes_colour():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    image = decode.decode_image(tf.io.encode_png(grey))
    np.testing.assert_array_equal(image, np.repeat(grey, 3, -1))


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


def test_small_images_are_enlarged_before_they_are_cropped():
    # 8x8 to 32x32: a window of 80% to 100% has many places, not nine.
    encoded = tf.io.encode_png(gradient_image(8, 8) * 16)
    draw = tf.function(
        lambda index: decode.decode_training(
            encoded,
            tf.stack([3, index]),
            image_size=32,
            preprocess="v2",
            area=(0.8, 1.0),
            aspect=(0.9, 1.1),
        )
    )
    images = np.array([draw(tf.constant(index, tf.int64)) for index in range(50)])
    assert len(np.unique(images.reshape(50, -1), axis=0)) > 20
    corner = images[:, 0, 0, :2].max(0)  # the first row and column still seen, times 16
    assert 0 < corner.max() <= 16 * 8 * (1 - np.sqrt(0.8 / 1.1)) + 1


def test_a_small_wide_image_keeps_its_proportions():
    encoded = tf.io.encode_png(gradient_image(8, 16))
    image = decode.decode_training(
        encoded,
        tf.constant([1, 1], tf.int64),
        image_size=32,
        preprocess="v2",
        area=(0.5, 0.5),
        aspect=(1.0, 1.0),
    ).numpy()
    rows, columns = image[:, 0, 0], image[0, :, 1]
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1.0)


@pytest.mark.parametrize("chain", ["v1", "v2", "lite"])
def test_training_resizes_as_evaluation_does(chain, photo):
    options = {"image_size": 48, "preprocess": chain}
    seed = tf.constant([1, 2], tf.int64)
    trained = decode.decode_training(photo, seed, area=(1, 1), aspect=(4 / 3, 4 / 3), **options)
    evaluated = decode.decode_evaluation(photo, crop=False, **options)
    assert np.abs(trained.numpy() - evaluated.numpy()).max() <= 1.0
