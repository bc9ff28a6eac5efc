"""Tests what a TPU needs: one trace per image size, fixed shapes, and sums that XLA can compile."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.evaluation.metric_sums import metric_sums
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train import loop, strategy
from efficientnetv2.train.target_scale import TargetScale
from efficientnetv2.train.train_state import named_weights
from hparams import resolve

pytestmark = pytest.mark.slow  # most tests here train for several seconds

SETTINGS = {
    "model.blocks_args": ["r1_k3_s2_e4_i8_o16_se0.25"],
    "model.feature_size": 16,
    "train.epochs": 2,
    "train.stages": 2,
    "train.batch_size": 256,
    "train.optimizer": "rmsprop",
    "train.isize": 24,
    "data.ibase": 16,
    "data.augname": "none",
    "data.mixup_alpha": 0.2,
    "data.cutmix_alpha": 1.0,
}


def start(folder, digits, **settings):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **settings})
    run = RunDirectory(folder)
    run.start(config, digits.class_names)
    return loop.Training(config, digits, run=run)


@pytest.mark.parametrize(
    "settings",
    [
        {"train.scale_batch_with_size": True},
        {
            "train.size_schedule": "random",
            "train.size_steps": 0,
            "train.epochs": 3,
            "train.isize": 40,
        },
    ],
    ids=str,
)
def test_fixed_shapes_train_the_same_with_a_trace_a_size(settings, digits, tmp_path, monkeypatch):
    free = start(tmp_path / "free", digits, **settings)
    free.run()
    lines = RunDirectory(tmp_path / "free").metrics()
    shapes = {(line["image_size"], line["batch_size"]) for line in lines}
    for module in (loop, strategy):
        monkeypatch.setattr(module, "needs_fixed_shapes", lambda strategy: True)
    training = start(tmp_path / "fixed", digits, **settings)
    training.run()
    assert training.trainer.num_traces == len(shapes) > 1
    expected = named_weights(free.train_state.model)
    for name, value in named_weights(training.train_state.model).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_xla_compiles_the_sums_of_an_evaluation():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(9, 7)).astype(np.float32)
    targets = np.eye(7, dtype=np.float32)[np.arange(9) % 7]
    is_real = np.arange(9) < 6
    for kind, options in {
        "softmax": {},
        "sigmoid": {"multi_label": True},
        "mse": {"scale": TargetScale([0.5] * 7, [2.0] * 7)},
    }.items():
        sums = metric_sums(kind, **{"multi_label": False, "scale": None, **options}).sums
        compiled = tf.function(sums, jit_compile=True)(logits, targets * is_real[:, None], is_real)
        expected = sums(logits[:6], targets[:6], is_real[:6])
        np.testing.assert_allclose(compiled, expected, rtol=1e-5)
