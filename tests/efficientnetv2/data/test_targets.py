"""Training targets made of labels, and the error that names a label out of range."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.targets import target_of


def labels(*values):
    return tf.constant(values, tf.int64)


def test_one_label():
    np.testing.assert_array_equal(target_of(tf.constant(2, tf.int64), num_classes=4), [0, 0, 1, 0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 3), [1, 0, 0, 1]), ((1,), [0, 1, 0, 0]), ((2, 2), [0, 0, 1, 0]), ((), [0, 0, 0, 0])],
)
def test_several_labels(values, expected):
    np.testing.assert_array_equal(target_of(labels(*values), num_classes=4), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 3), [0.5, 0, 0, 0.5]), ((1,), [0, 1, 0, 0]), ((), [0, 0, 0, 0])],
)
def test_several_labels_may_share_a_weight_of_1(values, expected):
    shared = target_of(labels(*values), num_classes=4, share_weight=True)
    np.testing.assert_array_equal(shared, expected)


@pytest.mark.parametrize("label", [-1, 4, 1000])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"label {label} is outside 0\.\.3"):
        target_of(tf.constant(label, tf.int64), num_classes=4)


def test_the_same_in_a_data_set():
    dataset = tf.data.Dataset.from_tensor_slices([0, 5]).map(
        lambda label: target_of(tf.cast(label, tf.int64), num_classes=4)
    )
    iterator = iter(dataset)
    np.testing.assert_array_equal(next(iterator), [1, 0, 0, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"label 5 is outside 0\.\.3"):
        next(iterator)
