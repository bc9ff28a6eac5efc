"""Training windows of data.resize=letterbox and crop: where they lie, their scale and pixels."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import decode
from efficientnetv2.data.letterbox import place_whole, place_window

from .test_resize import file_of, smooth

SIDE = 64
ANY = {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3)}
ROUND = {"area": (0.08, 1.0), "aspect": (1.0, 1.0)}  # the windows are squares
WHOLE = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}


def crops(data, count, *, resize="letterbox", image_size=SIDE, preprocess="v2", **window):
    prepare = functools.partial(
        decode.decode_training, image_size=image_size, preprocess=preprocess, resize=resize
    )
    seeds = [tf.constant([3, index], tf.int64) for index in range(count)]
    return np.array([prepare(tf.constant(data), seed, **window) for seed in seeds])


@functools.cache
def placer(size, side):
    @tf.function(autograph=False)
    def place(seed):
        drawn = []

        def draw(square):
            drawn.append(decode.random_window(square, seed, **ANY))
            return drawn[0]

        return place_window(tf.constant(size), side, draw=draw), drawn[0]

    return place


@pytest.mark.parametrize("size", [(120, 200), (200, 7), (1, 5000), (33, 34), (90, 90)])
def test_windows_lie_on_the_square_at_the_right_scale(size):
    place, longest, middles = placer(size, SIDE), max(size), []
    for index in range(60):
        placement, drawn = place(tf.constant([index, 5], tf.int64))
        window_size = drawn.numpy()[2:]
        begin, length = np.split(placement.window.numpy(), 2)
        start, placed = placement.begin.numpy(), placement.size.numpy()
        for axis in range(2):
            scale = SIDE / window_size[axis]
            assert 0 <= begin[axis] <= begin[axis] + length[axis] <= size[axis]
            assert 0 <= start[axis] <= start[axis] + placed[axis] <= SIDE
            assert placed[axis] == pytest.approx(max(1, length[axis] * scale), abs=0.51)
            # As much of the image as fits into the window.
            assert length[axis] == min(size[axis], window_size[axis])
            # Grey before and behind is at most what the square has there.
            grey = (longest - size[axis]) / 2 * scale
            assert max(start[axis], SIDE - start[axis] - placed[axis]) <= grey + 1
        middles.append(begin + length / 2)
    spread = np.std(middles, axis=0)
    assert spread[np.argmax(size)] > 0.05 * longest


@pytest.mark.parametrize("size", [(120, 200), (201, 7), (1, 5000), (9, 8), (90, 90)])
@pytest.mark.parametrize("side", [63, 64])
def test_the_whole_square_is_what_evaluation_sees(size, side):
    whole = place_whole(tf.constant(size), side)
    placed = place_window(
        tf.constant(size), side, draw=lambda square: tf.concat([[0, 0], square], 0)
    )
    assert [each.numpy().tolist() for each in placed] == [each.numpy().tolist() for each in whole]


def test_objects_keep_their_proportions():
    rows, columns = np.mgrid[:120, :200]
    data = file_of(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8), "PNG")
    with_bars = 0
    for image in crops(data, 30, **ROUND):
        inside = image[..., 2] == 0  # the bars are 128
        assert (np.abs(image[~inside] - 128) < 0.01).all()
        assert inside.any()
        with_bars += not inside.all()
        tall, wide = (inside.any(axis=axis).nonzero()[0] for axis in (1, 0))
        down = np.diff(image[tall, wide[0], 0])
        right = np.diff(image[tall[0], wide, 1])
        assert np.median(down) == pytest.approx(np.median(right), rel=0.05)
    assert 5 < with_bars < 30


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    data = file_of(smooth((60, 100)), "JPEG")
    first, second = crops(data, 8, **ANY), crops(data, 8, **ANY)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8


@pytest.mark.parametrize("chain", ["v1", "v2"])
@pytest.mark.parametrize("shape", [(20, 33), (90, 150), (1, 40), (300, 2)])
def test_without_cropping_training_sees_what_evaluation_sees(shape, chain, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    data = file_of(pixels, "PNG")
    trained = crops(data, 1, preprocess=chain, **WHOLE)[0]
    evaluated = decode.decode_evaluation(
        data, image_size=SIDE, preprocess=chain, resize="letterbox"
    )
    np.testing.assert_array_equal(trained, evaluated)


@pytest.mark.parametrize("shape", [(90, 150), (200, 70)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_crop_trains_on_the_central_square(file_format, shape):
    pixels = smooth(shape)
    top, left = ((length - min(shape)) // 2 for length in shape)
    middle = pixels[top : top + min(shape), left : left + min(shape)]
    whole = crops(file_of(pixels, file_format), 5, resize="crop", **ANY)
    cut = crops(file_of(middle, file_format), 5, resize="squash", **ANY)
    assert np.abs(whole - cut).max() <= (0 if file_format == "PNG" else 6)


@pytest.mark.parametrize("shape", [(64, 64), (150, 150), (20, 20)])
@pytest.mark.parametrize("resize", ["crop", "letterbox"])
def test_square_images_are_the_same_whatever_the_choice(resize, shape, seed):
    data = file_of(np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8), "PNG")
    expected = crops(data, 5, resize="squash", **ANY)
    np.testing.assert_array_equal(crops(data, 5, resize=resize, **ANY), expected)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("side", "tolerance"), [(64, 4), (24, 16)])  # 24: decoded smaller
def test_a_jpeg_is_decoded_inside_its_window(side, tolerance, orientation):
    pixels = smooth((130, 60))
    data = file_of(pixels, "JPEG", orientation)
    upright = np.rot90(pixels, -1) if orientation == 6 else pixels
    expected = crops(file_of(np.ascontiguousarray(upright), "PNG"), 6, image_size=side, **ANY)
    images = crops(data, 6, image_size=side, **ANY)
    assert np.abs(images - expected).max() <= tolerance
    bars = (expected == 128).all(-1)
    assert bars.any() and not bars.all()
    np.testing.assert_array_equal((images == 128).all(-1), bars)


def test_a_long_line_needs_no_square_of_its_length():
    data = file_of(np.zeros((1, 60_000, 3), np.uint8), "PNG")  # the square would take 10 GB
    images = crops(data, 4, image_size=32, **ANY)
    assert (np.unique(images) == [0, 128]).all()
    assert ((images == 0).any(axis=(2, 3)).sum(axis=1) == 1).all()
