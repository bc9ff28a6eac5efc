"""TrivialAugment's operations and strengths against torchvision's."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.wide_space import BINS, WIDE

# There, positive arguments have the opposite sense; signs are drawn evenly.
TURNED = ("TranslateX", "TranslateY")
# Our argument -> torchvision's: bits dropped and kept, values inverted and the threshold.
AS_TORCHVISION = {"Posterize": lambda x: 8 - x, "Solarize": lambda x: 256 - x}


@pytest.fixture(scope="module")
def torchvision(golden):
    return dict(np.load(golden / "trivialaugment.npz"))


def test_the_operations_are_those_of_torchvision(torchvision):
    assert list(WIDE) == torchvision["names"].tolist()
    assert [op.signed for op in WIDE.values()] == torchvision["signed"].tolist()
    assert len(WIDE) == 14 and BINS == 31


@pytest.mark.parametrize("name", WIDE)
def test_the_strengths_are_those_of_torchvision(name, torchvision):
    expected = torchvision["magnitudes"][list(WIDE).index(name)]
    op = WIDE[name]
    if op.strength is None:
        assert not expected.any()
        return
    ours = np.array([op.strength(tf.constant(n, tf.float64)) for n in range(BINS)])
    # torchvision's translation 15 is 15.999999, which moves by 15 pixels; ours is 16.
    np.testing.assert_allclose(AS_TORCHVISION.get(name, lambda x: x)(ours), expected, rtol=1e-6)


def test_whole_thresholds_are_exact(torchvision):
    expected = torchvision["magnitudes"][list(WIDE).index("Solarize")]
    ours = [256 - WIDE["Solarize"].strength(tf.constant(n, tf.float64)) for n in range(BINS)]
    np.testing.assert_array_equal(ours, expected)


def test_each_operation_gives_torchvisions_image(torchvision):
    image, outcomes = tf.constant(torchvision["image"]), {}
    for (number, bin_number, sign), expected in zip(torchvision["cases"], torchvision["outcomes"]):
        name = list(WIDE)[number]
        ours = WIDE[name](
            image,
            magnitude=tf.constant(float(bin_number), tf.float64),
            sign=tf.constant(float(-sign if name in TURNED else sign)),
            centre=tf.zeros([2]),
        )
        difference = np.abs(ours.numpy().astype(int) - expected)
        outcomes.setdefault(name, []).append(difference.max())
    assert set(outcomes) == set(WIDE)
    exact = {name for name, differences in outcomes.items() if not any(differences)}
    rounded = {"Brightness", "Color", "Contrast", "Sharpness", "AutoContrast"}  # there: cut off
    assert exact == set(WIDE) - rounded
    assert max(max(outcomes[name]) for name in rounded) == 1


def test_a_translation_is_in_pixels_at_every_size():
    image = tf.constant(np.arange(4 * 4 * 3).reshape(4, 4, 3), tf.uint8)
    how = {"sign": tf.constant(1.0), "centre": tf.zeros([2])}

    def moved(name, bin_number):
        return WIDE[name](image, magnitude=tf.constant(bin_number, tf.float64), **how).numpy()

    np.testing.assert_array_equal(moved("TranslateX", 1)[:, :3], image[:, 1:])  # 1.07 is 1
    np.testing.assert_array_equal(moved("TranslateY", 2)[:2], image[2:])
    assert (moved("TranslateX", 1)[:, 3:] == 128).all()
    assert (moved("TranslateY", 30) == 128).all()  # 32 pixels: out of sight
