"""The default operations: every pixel of small images by hand, and their strengths."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from efficientnetv2.data import default_ops

G = 128  # the grey of what lies outside
CELLS = np.arange(16).reshape(4, 4) * 10


def grey(cells):
    """A 4x4 image with three equal channels."""
    return np.repeat(np.array(cells, np.uint8)[..., np.newaxis], 3, -1)


def pixel(*rgb):
    """A 4x4 image of one colour."""
    return np.tile(np.array(rgb, np.uint8), [4, 4, 1])


def run(name, image, *, magnitude, sign=1.0, centre=(0.5, 0.5)):
    return default_ops.DEFAULT[name](
        tf.constant(image),
        magnitude=tf.constant(magnitude, tf.float64),
        sign=tf.constant(sign),
        centre=tf.constant(centre),
    ).numpy()


# name, magnitude, values before, values after; one value a row of a 4x4 image
VALUE_CASES = [
    ("Invert", 0, [0, 1, 100, 255], [255, 254, 155, 0]),
    ("Posterize", 2.5, [0, 1, 128, 255], [0, 0, 128, 254]),
    ("Posterize", 10, [15, 16, 131, 255], [0, 16, 128, 240]),
    ("Posterize", 12, [15, 16, 131, 255], [0, 16, 128, 240]),  # 4.8 bits are 4
    ("Posterize", 25, [1, 127, 128, 255], [0, 0, 128, 128]),
    ("Solarize", 1, [229, 230, 231, 255], [229, 230, 24, 0]),  # from 230.4 on
    ("Solarize", 2.5, [0, 191, 192, 255], [0, 191, 63, 0]),
    ("Solarize", 5, [0, 127, 128, 255], [0, 127, 127, 0]),
    ("Solarize", 10, [0, 1, 128, 255], [255, 254, 127, 0]),
    ("Solarize", 20, [0, 1, 128, 255], [255, 254, 127, 0]),
    ("SolarizeAdd", 5, [0, 127, 128, 255], [55, 182, 128, 255]),
    ("SolarizeAdd", 7.5, [0, 127, 128, 255], [82, 209, 128, 255]),  # 82.5 is 82
    ("SolarizeAdd", 25, [0, 127, 128, 255], [128, 255, 128, 255]),
]


@pytest.mark.parametrize(("name", "magnitude", "before", "after"), VALUE_CASES)
def test_operations_on_values(name, magnitude, before, after):
    columns = np.tile(np.array(before)[:, np.newaxis], [1, 4])
    expected = np.tile(np.array(after)[:, np.newaxis], [1, 4])
    np.testing.assert_array_equal(run(name, grey(columns), magnitude=magnitude), grey(expected))


# name, magnitude, sign, colour before, colour after (a grey of (200, 100, 50) is 124.2)
COLOUR_CASES = [
    ("Brightness", 10, 1.0, (200, 100, 50), (255, 190, 95)),
    ("Brightness", 10, -1.0, (200, 100, 52), (20, 10, 5)),
    ("Brightness", 25, -1.0, (200, 100, 52), (20, 10, 5)),
    ("Brightness", 20, 1.0, (20, 10, 52), (56, 28, 146)),
    ("Color", 10, 1.0, (200, 100, 50), (255, 78, 0)),
    ("Color", 5, 1.0, (150, 100, 50), (168, 96, 23)),  # grey 109.25, factor 1.45
    ("Color", 10, -1.0, (200, 100, 50), (132, 122, 117)),
    ("Color", 30, -1.0, (200, 100, 50), (132, 122, 117)),
]


@pytest.mark.parametrize(("name", "magnitude", "sign", "before", "after"), COLOUR_CASES)
def test_operations_on_colours(name, magnitude, sign, before, after):
    ours = run(name, pixel(*before), magnitude=magnitude, sign=sign)
    np.testing.assert_array_equal(ours, pixel(*after))


def test_contrast_turns_about_the_mean_grey():
    # Halves of (60, 20, 200) and (140, 80, 0): mean (100, 50, 100), of which the grey is 70.65.
    image = np.concatenate([pixel(60, 20, 200)[:2], pixel(140, 80, 0)[:2]])
    expected = np.concatenate([pixel(50, 0, 255)[:2], pixel(202, 88, 0)[:2]])
    np.testing.assert_array_equal(run("Contrast", image, magnitude=10), expected)
    expected = np.concatenate([pixel(70, 66, 84)[:2], pixel(78, 72, 64)[:2]])
    np.testing.assert_array_equal(run("Contrast", image, magnitude=10, sign=-1.0), expected)


@pytest.mark.parametrize(("sign", "centre", "beside"), [(-1.0, 58, 9), (1.0, 202, 0)])
def test_sharpness_blends_with_the_smoothed_inner_pixels(sign, centre, beside):
    # Smoothed, 130 becomes 130 * 5 / 13 = 50 and spreads 10 to its neighbours.
    dot = np.zeros([4, 4])
    dot[1, 1] = 130
    expected = np.zeros([4, 4])
    expected[1:3, 1:3] = beside
    expected[1, 1] = centre
    ours = run("Sharpness", grey(dot), magnitude=10, sign=sign)
    np.testing.assert_array_equal(ours, grey(expected))


def test_auto_contrast_stretches_each_channel():
    image = np.stack([CELLS // 3 + 20, np.full([4, 4], 7), CELLS + 100], -1).astype(np.uint8)
    ours = run("AutoContrast", image, magnitude=3)
    np.testing.assert_array_equal(ours[..., 0], np.floor((CELLS // 3) * 255 / 50 + 0.5))
    np.testing.assert_array_equal(ours[..., 1], 7)
    np.testing.assert_array_equal(ours[..., 2], CELLS * 1.7)


def test_equalize_spreads_the_values_of_each_channel():
    # 64 x 64: four values, 1024 of each; (4096 - 1024) // 255 = 12 pixels a level.
    value = np.repeat([10, 20, 30, 200], 1024).reshape(64, 64)
    image = np.stack([value, 255 - value, np.full([64, 64], 9)], -1).astype(np.uint8)
    ours = run("Equalize", image, magnitude=3)
    for old, new in zip([10, 20, 30, 200], [0, 85, 171, 255]):
        assert np.unique(ours[..., 0][value == old]).tolist() == [new]
    for old, new in zip([10, 20, 30, 200], [255, 171, 85, 0]):
        assert np.unique(ours[..., 1][value == old]).tolist() == [new]
    np.testing.assert_array_equal(ours[..., 2], 9)


def test_equalize_leaves_too_small_an_image_alone():
    np.testing.assert_array_equal(run("Equalize", grey(CELLS), magnitude=3), grey(CELLS))


@pytest.mark.parametrize(("sign", "turns"), [(1.0, 1), (-1.0, -1)])
def test_rotate_reaches_a_quarter_turn_and_stops_there(sign, turns):
    for magnitude in (30, 50):
        ours = run("Rotate", grey(CELLS), magnitude=magnitude, sign=sign)
        np.testing.assert_array_equal(ours, np.rot90(grey(CELLS), turns))


def test_rotate_30_degrees():
    angle = np.deg2rad(30)
    expected = np.full([4, 4], G)
    for y in range(4):
        for x in range(4):
            down, right = y - 1.5, x - 1.5
            row = round(1.5 + down * np.cos(angle) + right * np.sin(angle))
            column = round(1.5 - down * np.sin(angle) + right * np.cos(angle))
            if 0 <= row < 4 and 0 <= column < 4:
                expected[y, x] = CELLS[row, column]
    np.testing.assert_array_equal(run("Rotate", grey(CELLS), magnitude=10), grey(expected))


SHEARED = {  # rows 0 to 3 read 0, 0.3, 0.6, 0.9 pixels to the right of themselves
    1.0: [[0, 10, 20, 30], [40, 50, 60, 70], [90, 100, 110, G], [130, 140, 150, G]],
    -1.0: [[0, 10, 20, 30], [40, 50, 60, 70], [G, 80, 90, 100], [G, 120, 130, 140]],
}


@pytest.mark.parametrize("sign", SHEARED)
def test_shear_moves_rows_or_columns(sign):
    expected = np.array(SHEARED[sign])
    ours = run("ShearX", grey(CELLS), magnitude=10, sign=sign)
    np.testing.assert_array_equal(ours, grey(expected))
    ours = run("ShearY", grey(CELLS.T), magnitude=10, sign=sign)
    np.testing.assert_array_equal(ours, grey(expected.T))


@pytest.mark.parametrize(("magnitude", "pixels"), [(10, 1), (15, 2), (25, 3), (100, 3)])
def test_translate_moves_a_third_of_the_side_at_magnitude_10(magnitude, pixels):
    left = np.full([4, 4], G)
    left[:, : 4 - pixels] = CELLS[:, pixels:]
    right = np.full([4, 4], G)
    right[:, pixels:] = CELLS[:, : 4 - pixels]
    for sign, moved in ((1.0, left), (-1.0, right)):
        ours = run("TranslateX", grey(CELLS), magnitude=magnitude, sign=sign)
        np.testing.assert_array_equal(ours, grey(moved))
        ours = run("TranslateY", grey(CELLS.T), magnitude=magnitude, sign=sign)
        np.testing.assert_array_equal(ours, grey(moved.T))


@pytest.mark.parametrize(
    ("magnitude", "centre", "rows", "columns"),
    [
        (10, (0.6, 0.3), slice(2, 3), slice(1, 2)),  # 1.07 pixels
        (20, (0.5, 0.5), slice(1, 3), slice(1, 3)),  # 2.13 pixels
        (20, (0.0, 0.99), slice(0, 1), slice(2, 4)),  # half of it above the image
        (30, (0.99, 0.0), slice(2, 4), slice(0, 2)),  # 3.2 pixels
        (90, (0.5, 0.5), slice(0, 4), slice(0, 4)),
    ],
)
def test_cutout_paints_a_square(magnitude, centre, rows, columns):
    expected = CELLS.copy()
    expected[rows, columns] = G
    ours = run("Cutout", grey(CELLS), magnitude=magnitude, centre=centre)
    np.testing.assert_array_equal(ours, grey(expected))


# name -> argument at magnitude 10, argument at magnitude 25 (both of the positive sign)
STRENGTHS = {
    "Rotate": (30, 75),
    "Posterize": (4, 7),
    "Solarize": (256, 256),
    "Color": (0.9, 2.25),
    "Contrast": (0.9, 2.25),
    "Brightness": (0.9, 2.25),
    "Sharpness": (0.9, 2.25),
    "ShearX": (0.3, 0.75),
    "ShearY": (0.3, 0.75),
    "TranslateX": (1 / 3, 2.5 / 3),
    "TranslateY": (1 / 3, 2.5 / 3),
    "Cutout": (80 / 300, 200 / 300),
    "SolarizeAdd": (110, 128),
}


def test_every_strength_starts_at_nothing_and_never_falls():
    measured = {
        name: op.strength for name, op in default_ops.DEFAULT.items() if op.strength is not None
    }
    assert set(measured) == set(STRENGTHS)
    for name, strength in measured.items():
        values = [strength(tf.constant(m)).numpy() for m in np.arange(0, 60, 0.5)]
        assert values[0] == 0
        assert (np.diff(values) >= 0).all(), name
        assert (values[20], values[50]) == pytest.approx(STRENGTHS[name], rel=1e-6), name


SIGNED = [
    (name, sign) for name, op in default_ops.DEFAULT.items() for sign in (1.0, -1.0) if op.strength
]


@pytest.mark.parametrize(("name", "sign"), SIGNED)
def test_a_photo_departs_further_from_itself_as_the_magnitude_rises(name, sign):
    # A part with large shapes, where what moves further looks more different.
    photo = load_sample_image("china.jpg")[68:324, 303:559]
    distances = [
        np.abs(run(name, photo, magnitude=m, sign=sign, centre=(0.4, 0.6)) - photo.astype(int))
        for m in np.arange(0, 25.1, 2.5)
    ]
    means = [distance.mean() for distance in distances]
    assert means[0] == 0
    assert means[1] > 0
    assert (np.diff(means) >= 0).all(), np.round(means, 2)


@pytest.mark.parametrize("name", default_ops.DEFAULT)
@pytest.mark.parametrize("side", [5, 33])
def test_odd_sizes_keep_their_shape_and_type(name, side):
    image = np.random.default_rng(side).integers(0, 256, [side, side, 3], np.uint8)
    ours = run(name, image, magnitude=15, sign=-1.0)
    assert ours.shape == image.shape
    assert ours.dtype == np.uint8
