"""Tests that a checkpoint's variables count once against the memory that a network can use."""

import numpy as np
import tensorflow as tf

from efficientnetv2.checkpoints.tensorflow_file import CheckpointValues


class Counter:
    """A budget that notes what is taken."""

    def __init__(self):
        self.names = []

    def take(self, shape, bytes_per_value, *, name):
        self.names.append((name, tuple(shape), bytes_per_value))


def test_looking_for_a_variable_reads_nothing(tmp_path):
    checkpoint = tf.train.Checkpoint(kernel=tf.Variable([[1.0, 2.0]]))
    prefix = checkpoint.write(str(tmp_path / "ckpt"))
    counter = Counter()
    values = CheckpointValues(prefix, budget=counter)
    assert "kernel" in values and "bias" not in values
    assert counter.names == []
    np.testing.assert_array_equal(values["kernel"], [[1.0, 2.0]])
    assert counter.names == [("kernel", (1, 2), 4)]
