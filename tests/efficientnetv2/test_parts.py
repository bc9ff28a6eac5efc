"""Parts of a batch side by side: the same function, in a process with one thread an operation."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2 import for_inference, get_model, set_inference_threads
from efficientnetv2.model.parts import InParts, num_parts

BLOCKS = {"blocks_args": ["r1_k3_s2_e4_i8_o8_se0.25"], "feature_size": 16}


@pytest.fixture(scope="module")
def model():
    return get_model("efficientnetv2-b0", num_classes=5, overrides=BLOCKS)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_any_batch_is_answered_as_a_whole_one_is(model, count, seed):
    images = np.random.default_rng(seed).normal(size=(7, 16, 24, 3)).astype("f4")
    wanted = model(images, training=False)[:count]
    found = InParts(model, parts=3)(images[:count])
    assert found.shape == (count, 5)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_several_outputs_keep_their_names(model):
    outputs = {"logits": model.output, "features": model.get_layer("avg_pool").output}
    named = InParts(tf.keras.Model(model.inputs, outputs), parts=2)
    found = named.predict(np.zeros((3, 16, 16, 3), "f4"), verbose=0)
    assert {name: value.shape for name, value in found.items()} == {
        "logits": (3, 5),
        "features": (3, 16),
    }


def test_threads_are_set_before_the_first_operation_or_not_at_all(model):
    assert num_parts() == 1
    assert not isinstance(for_inference(model), InParts)
    with pytest.raises(ValueError, match="not 0"):
        set_inference_threads(0)
    with pytest.raises(RuntimeError):
        set_inference_threads()


_SCRIPT = f"""
import numpy as np
import efficientnetv2
from efficientnetv2.model.parts import InParts, num_parts
efficientnetv2.set_inference_threads(3)
model = efficientnetv2.get_model("efficientnetv2-b0", num_classes=5, overrides={BLOCKS})
fast = efficientnetv2.for_inference(model)
images = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype("f4")
print(num_parts(), isinstance(fast, InParts), np.abs(fast(images) - model(images)).max() < 1e-5)
"""


def test_a_process_with_its_threads_set_infers_by_parts():
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["3", "True", "True"]
