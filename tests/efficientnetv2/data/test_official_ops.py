"""The official operations against bytes measured from google/automl."""

import json
import zlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import official_ops

TABLES = {"ra": official_ops.RANDAUGMENT, "aa": official_ops.AUTOAUGMENT}


@pytest.fixture(scope="module")
def facts(golden):
    return json.loads((golden / "augment.json").read_text())


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(np.load(golden / "augment.npz"))


def apply_case(key, case, image):
    """The operation of a golden case, its sign given and its centre at row 20, column 40 of 64."""
    return TABLES[key[:2]][case["op"]](
        image,
        magnitude=tf.constant(case["level"], tf.float64),
        sign=tf.constant(case["sign"] or 1.0),
        centre=tf.constant([20.5 / 64, 40.5 / 64]),
    )


def differing(images, arrays):
    return [key for key, image in images.items() if not np.array_equal(image, arrays[key])]


def test_every_golden_case_is_here(facts, arrays):
    assert set(facts["cases"]) == set(arrays) - {"image"}
    assert len(facts["cases"]) > 200
    assert {case["op"] for case in facts["cases"].values()} == set(official_ops.RANDAUGMENT)


def test_every_golden_case_equals_the_official_bytes_eagerly(facts, arrays):
    image = tf.constant(arrays["image"])
    ours = {key: apply_case(key, case, image).numpy() for key, case in facts["cases"].items()}
    assert differing(ours, arrays) == []


@pytest.mark.slow
def test_every_golden_case_equals_the_official_bytes_inside_dataset_map(facts, arrays):
    @tf.autograph.experimental.do_not_convert
    def all_cases(image):
        unknown = tf.compat.v1.placeholder_with_default(image, [None, None, 3])
        return {key: apply_case(key, case, unknown) for key, case in facts["cases"].items()}

    (ours,) = tf.data.Dataset.from_tensors(arrays["image"]).map(all_cases)
    assert differing(ours, arrays) == []


def test_the_tables_have_the_official_operations_in_their_order(facts):
    assert list(official_ops.RANDAUGMENT) == facts["randaugment_available_ops"]
    assert list(official_ops.AUTOAUGMENT) == facts["randaugment_available_ops"]


def test_solarize_wraps_its_threshold_modulo_256(facts, arrays):
    for threshold, measured in facts["solarize_thresholds"].items():
        ours = official_ops.solarize(tf.constant(arrays["image"]), tf.constant(int(threshold)))
        assert zlib.crc32(ours.numpy().tobytes()) == measured["graph"][0], threshold


def test_contrast_takes_the_number_of_pixels_for_the_mean(facts):
    # At factor 0 nothing but that "mean" is left, whatever the image.
    measured = facts["contrast_degenerate_value_by_image_side"]
    for side, values in {**measured, "250": [250 * 250 // 256]}.items():
        image = tf.fill([int(side), int(side), 3], tf.constant(77, tf.uint8))
        ours = official_ops.contrast(image, tf.constant(0.0))
        assert np.unique(ours).tolist() == values, side


@pytest.mark.parametrize(("table", "pixels", "reach"), [("ra", 100, 40), ("aa", 250, 100)])
def test_translation_and_cutout_are_fixed_pixels(facts, table, pixels, reach):
    level = tf.constant(10.0, tf.float64)
    assert TABLES[table]["TranslateX"].strength(level).numpy() == pixels
    assert TABLES[table]["Cutout"].strength(level).numpy() == reach
    named = facts["params"]["randaugment" if table == "ra" else "autoaugment"]
    assert named == {"cutout_const": reach, "translate_const": pixels}


def test_a_channel_of_one_value_keeps_its_contrast():
    image = np.full([4, 4, 3], 9, np.uint8)
    image[..., 1] = np.arange(16).reshape(4, 4)
    ours = official_ops.auto_contrast(tf.constant(image)).numpy()
    np.testing.assert_array_equal(ours[..., 1], np.arange(16).reshape(4, 4) * 17)
    np.testing.assert_array_equal(ours[..., [0, 2]], 9)
