"""Tests that a batch in parts gives the same outputs, with one thread per operation."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2 import for_inference, get_model, set_inference_threads
from efficientnetv2.model.parallel_inference import ParallelModel, num_parts

BLOCKS = {"blocks_args": ["r1_k3_s2_e4_i8_o8_se0.25"], "feature_size": 16}


@pytest.fixture(scope="module")
def model():
    return get_model("efficientnetv2-b0", num_classes=5, overrides=BLOCKS)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_any_batch_size_gives_the_outputs_of_the_whole(model, count, seed):
    images = np.random.default_rng(seed).normal(size=(7, 16, 24, 3)).astype("f4")
    expected = model(images, training=False)[:count]
    logits = ParallelModel(model, parts=3)(images[:count])
    assert logits.shape == (count, 5)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ("2", TypeError, "a whole number, got '2'"),
        (True, TypeError, "a whole number, got True"),
        (2.5, TypeError, r"a whole number, got 2\.5"),
        (0, ValueError, "at least 1, got 0"),
        (10**30, ValueError, f"at most 4096, got {10**30}"),
    ],
)
def test_wrong_numbers_of_parts(parts, kind, message):
    with pytest.raises(kind, match=f"^parts must be {message}$"):
        set_inference_threads(parts)


def test_several_outputs_keep_their_names(model):
    outputs = {"logits": model.output, "features": model.get_layer("avg_pool").output}
    parallel = ParallelModel(tf.keras.Model(model.inputs, outputs), parts=2)
    values = parallel.predict(np.zeros((3, 16, 16, 3), "f4"), verbose=0)
    assert {name: value.shape for name, value in values.items()} == {
        "logits": (3, 5),
        "features": (3, 16),
    }


def test_threads_are_set_before_the_first_operation_or_not_at_all(model):
    assert num_parts() == 1
    assert not isinstance(for_inference(model), ParallelModel)
    with pytest.raises(ValueError, match="parts must be at least 1, got 0"):
        set_inference_threads(0)
    with pytest.raises(RuntimeError):
        set_inference_threads()


_SCRIPT = f"""
import numpy as np
import efficientnetv2
from efficientnetv2.model.parallel_inference import ParallelModel, num_parts
efficientnetv2.set_inference_threads(3)
model = efficientnetv2.get_model("efficientnetv2-b0", num_classes=5, overrides={BLOCKS})
fast = efficientnetv2.for_inference(model)
images = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype("f4")
difference = np.abs(fast(images) - model(images)).max()
print(num_parts(), isinstance(fast, ParallelModel), difference < 1e-5)
"""


@pytest.mark.slow
def test_a_process_with_its_threads_set_infers_by_parts(run_process):
    result = run_process("-c", _SCRIPT)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ["3", "True", "True"]
