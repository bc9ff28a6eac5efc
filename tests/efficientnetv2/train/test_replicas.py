"""Tests whole training runs on two replicas: resuming to the same bits, and naming a bad step."""

import pytest

pytestmark = pytest.mark.slow  # most tests here train for several seconds

TRAIN = """
import os, pathlib, signal, sys
import numpy as np, tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, "tests/efficientnetv2/train")
import test_failing as tests
from efficientnetv2.data.sources import build_source
from efficientnetv2.train.nan_guard import DivergedError
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.strategy import STRATEGIES
from hparams import resolve

folder, data_dir = map(pathlib.Path, sys.argv[1:])
STRATEGIES["auto"] = lambda _: tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
digits = build_source(resolve("efficientnetv2-s", "digits", {"data.data_dir": str(data_dir)}))

class Stop(TrainingCallback):
    def step(self, step, read_metrics):
        if step == tests.STEPS + 1:
            os.kill(os.getpid(), signal.SIGTERM)

def weights(training):
    variables = training.train_state.model.weights
    return [tf.convert_to_tensor(variable.value).numpy() for variable in variables]

def start(name, **options):
    return tests.start(folder / name, digits, **{"train.epochs": 2}, **options)

whole = start("whole")
assert whole.strategy.num_replicas_in_sync == 2
assert whole.run() is None
assert start("cut", callback=Stop()).run() == signal.SIGTERM
resumed = start("cut")
assert resumed.train_state.step == tests.STEPS + 1
assert resumed.run() is None
# A checkpoint has the sum of the replicas' losses, so the mean may differ in its last bit.
for line, expected in zip(tests.records(folder / "cut"), tests.records(folder / "whole")):
    loss = expected.pop("loss")
    assert abs(line.pop("loss") - loss) < 1e-6 * loss and line == expected
for value, expected in zip(weights(resumed), weights(whole)):
    np.testing.assert_array_equal(value, expected)

bad = start("bad")
bad._input = tests.Poisoned(bad._input, tests.STEPS + 2)
try:
    bad.run()
except DivergedError as error:
    print(error)
"""


def test_two_replicas_stop_and_go_on_and_name_a_bad_step(run_process, tmp_path, data_dir):
    result = run_process("-c", TRAIN, tmp_path, data_dir)
    assert result.returncode == 0, result.stderr
    message = result.stdout.splitlines()[-1]
    assert message.startswith("the loss of step 6 is nan: its images hold values that are not")
    assert message.endswith("has its newest checkpoint of step 4")
