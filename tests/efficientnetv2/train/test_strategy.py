"""Tests that missing devices are refused, and that two replicas train like one device."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.strategy import build_strategy
from hparams import UserError, resolve


def of(name, **runtime):
    keys = {f"runtime.{key}": value for key, value in runtime.items()}
    return build_strategy(resolve("efficientnetv2-s", "digits", {"runtime.strategy": name, **keys}))


def test_gpu_without_a_gpu_is_refused():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"TensorFlow sees no GPU; use runtime\.strategy=auto"):
        of("gpu")


TPU = """
from efficientnetv2.train.strategy import build_strategy
from hparams import UserError, resolve

try:
    build_strategy(resolve("efficientnetv2-s", "digits", "runtime.strategy=tpu,runtime.tpu=local"))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_tpu_that_is_not_there_is_refused(run_process):
    # In a process of its own: TensorFlow first forgets every function that was ever traced.
    printed = run_process("-c", TPU).stdout
    assert re.fullmatch(r"cannot use the TPU 'local': [^\n]+\n", printed)


@pytest.mark.parametrize("name", ["auto", "none", "cpu"])
def test_one_device(name):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert of(name).num_replicas_in_sync == 1


# BatchNorm must be frozen or synchronised: normalised by the statistics of half a batch, the
# network is another one.
TRAIN = """
import json, sys
import numpy as np, tensorflow as tf
from tensorflow import keras
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.progressive import stage_settings
from efficientnetv2.train.progressive import plan_stages
from efficientnetv2.train.train_state import build_train_state, named_weights
from efficientnetv2.train.step import Trainer
from hparams import resolve
from hparams.factors import first_to_last

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)

def train(devices, optimizer, bn):
    strategy = tf.distribute.MirroredStrategy(devices)
    config = resolve("efficientnetv2-s", "digits", {
        "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_se0.25"],
        "model.feature_size": 16, "model.dropout_rate": 0.0, "model.dropout_base": 0.0,
        "train.optimizer": optimizer, "train.weight_decay": 1e-3, **bn})
    keras.utils.set_random_seed(5)
    with strategy.scope():
        train_state = build_train_state(config, LearningRate(0.01, "constant", 0, 10))
    ends = first_to_last(image_size=(16, 16), dropout_rate=(0.0, 0.0))
    plan = plan_stages(ends, epochs=1, stages=1, num_images=80, batch_size=8)
    trainer = Trainer(
        train_state, strategy, settings=stage_settings(plan), after_step=lambda step: None)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 16, 16, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, np.eye(10, dtype=np.float32)[:8]))
    trainer.set_input(strategy.experimental_distribute_dataset(
        batches.batch(8, drop_remainder=True).repeat()))
    losses = []
    for _ in range(5):
        losses.append(trainer.train(tf.constant(1))["loss"])
    values = {k: tf.convert_to_tensor(v).numpy().ravel()[:5].tolist()
              for k, v in {**named_weights(train_state.model), **{"ema/" + k: v for k, v in
                           train_state.average.averages.items()}}.items()}
    return losses, train_state.step, values

print(json.dumps([train(devices, *json.loads(sys.argv[1]))
                  for devices in (["/cpu:0"], ["/cpu:0", "/cpu:1"])]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [("rmsprop", {"model.bn_mode": "frozen"}), ("momentum", {"model.bn_type": "sync"})]
)
def test_two_replicas_train_as_one_device_with_the_whole_batch(case, run_process):
    result = run_process("-c", TRAIN, json.dumps(case))
    assert result.returncode == 0, result.stderr
    (one_losses, one_step, one), (two_losses, two_step, two) = json.loads(
        result.stdout.splitlines()[-1]
    )
    assert one_step == two_step == 5
    np.testing.assert_allclose(two_losses, one_losses, rtol=1e-5)
    assert set(one) == set(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
