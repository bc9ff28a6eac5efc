"""Tests training on two logical devices: synchronised BatchNorm, dropout masks and the losses."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # most tests here train for several seconds

# Logical devices must be created before TensorFlow starts, so a separate process does the work and
# prints its results as JSON.
SCRIPT = """
import json, sys
import numpy as np, tensorflow as tf
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.data.sources import build_source
from efficientnetv2.model import layers
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.train_state import build_train_state
from efficientnetv2.train.step import Trainer
from efficientnetv2.train.strategy import distribute_training
from hparams import resolve
from tensorflow import keras

data_dir = sys.argv[1]
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)

def numbers_of(count):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(count)])
    numbers = {}

    def of_replicas(values):
        return [np.asarray(v).tolist() for v in strategy.experimental_local_results(values)]

    # ------------------------------------------------ one layer, a batch whose halves differ
    rng = np.random.default_rng(5)
    offset = np.arange(8)[:, None, None, None] * 2.0 + 100.0
    batch = (rng.normal(size=(8, 3, 5, 4)) + offset).astype(np.float32)
    upstream = rng.normal(size=batch.shape).astype(np.float32)
    for name in ("SyncBatchNormalization", "FusedBatchNormalization"):
        for axis in (3, 1):
            order = (0, 1, 2, 3) if axis == 3 else (0, 3, 1, 2)
            if axis == 1 and name == "FusedBatchNormalization":
                continue  # TensorFlow has no CPU kernel for it
            with strategy.scope():
                layer = getattr(layers, name)(momentum=0.7, epsilon=1e-3, axis=axis)
                layer.build(tuple(batch.transpose(order).shape))
                layer.gamma.assign([0.5, 1.5, -1.0, 2.0])

            @tf.function
            def run():
                def replica():
                    me = tf.distribute.get_replica_context().replica_id_in_sync_group
                    rows = 8 // count
                    mine = slice(me * rows, (me + 1) * rows)
                    inputs = tf.constant(batch.transpose(order))[mine]
                    with tf.GradientTape() as tape:
                        tape.watch(inputs)
                        outputs = layer(inputs, training=True)
                    watched = [inputs, layer.gamma.value, layer.beta.value]
                    with_respect = tape.gradient(
                        outputs, watched, tf.constant(upstream.transpose(order))[mine])
                    return [outputs, *with_respect]
                return strategy.run(replica)

            results = [of_replicas(result) for result in run()]
            back = (0, 1, 2, 3) if axis == 3 else (0, 2, 3, 1)
            numbers[f"{name} {axis}"] = {
                "outputs": np.concatenate(results[0]).transpose(back).tolist(),
                "inputs": np.concatenate(results[1]).transpose(back).tolist(),
                "gamma": np.sum(results[2], 0).tolist(), "beta": np.sum(results[3], 0).tolist(),
                "moving": [
                    of_replicas(v.value) for v in (layer.moving_mean, layer.moving_variance)]}

    # ------------------------------------------------ masks
    state = layers.StepContext(step=tf.Variable(7, dtype=tf.int64), dropout_rate=0.5, seed=3)
    drop = layers.StepDropout(0.5, context=state, name="drop")
    mask = tf.function(lambda: strategy.run(lambda: drop(tf.ones([400]), training=True)))
    numbers["masks"] = []
    for step in (7, 8, 7):
        state.draw.assign(step)
        numbers["masks"].append(of_replicas(mask()))

    # ------------------------------------------------ 50 steps
    overrides = {
        "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_se0.25"],
        "model.feature_size": 16, "model.bn_type": "sync", "model.survival_prob": 1.0,
        "data.data_dir": data_dir, "data.augname": "none", "data.flip": False,
        "data.crop_area": [1.0, 1.0],
        "train.batch_size": 64, "train.optimizer": "momentum"}
    config = resolve("efficientnetv2-s", "digits", overrides)
    settings = StepSettings(16, 0.0, 0.0, 0.0, 0.0, 64)
    columns = {name: np.array([value]) for name, value in settings.asdict().items()}
    schedule = SettingsSchedule(np.array([0]), StepSettings(**columns))
    stream = build_training_input(config, build_source(config), phases=[Phase(0, 0, 19, 64)],
                                  settings=schedule)

    def begin(config):
        keras.utils.set_random_seed(5)
        with strategy.scope():
            train_state = build_train_state(config, LearningRate(0.05, "constant", 0, 50))
        trainer = Trainer(train_state, strategy, settings=schedule, after_step=lambda step: None)
        trainer.set_input(distribute_training(strategy, stream, start_step=0))
        return train_state, trainer

    train_state, trainer = begin(config)
    numbers["losses"] = []
    for _ in range(50):
        trainer.train(tf.constant(1))
        here = train_state.metrics.result()
        # Added up in another order: the rounding differs.
        local = train_state.metrics.local_result()
        np.testing.assert_allclose(list(local.values()), list(here.values()), rtol=1e-5)
        numbers["losses"].append(here["loss"])
        train_state.metrics.reset()
    numbers["traces"] = trainer.num_traces

    # ------------------------------------------------ statistics and averages of replicas
    config = resolve("efficientnetv2-s", "digits", {**overrides, "model.bn_type": "per_replica"})
    train_state, trainer = begin(config)
    with strategy.scope():
        trainer.train(tf.constant(2))
        stem = train_state.model.get_layer("stem_bn")
        numbers["statistics"] = [
            of_replicas(v.value) for v in (stem.moving_mean, stem.moving_variance)]
        name = "stem_bn/moving_mean"
        average, value = train_state.average.averages[name], np.asarray(stem.moving_mean.value)
        before = np.asarray(tf.convert_to_tensor(average))
        update, decay = train_state.average.update_in_replica, tf.constant(0.75)
        tf.function(lambda: strategy.run(update, args=(decay,)))()
        numbers["average"] = [of_replicas(average), (0.75 * before + 0.25 * value).tolist()]
    return numbers

print(json.dumps([numbers_of(1), numbers_of(2)]))
"""


@pytest.fixture(scope="module")
def numbers(run_process, data_dir, digits):
    result = run_process("-c", SCRIPT, data_dir)
    assert result.returncode == 0, result.stderr
    return dict(enumerate(json.loads(result.stdout.splitlines()[-1]), start=1))


@pytest.mark.parametrize("axis", [3, 1])
@pytest.mark.parametrize("what", ["outputs", "inputs", "gamma", "beta"])
def test_synchronised_batchnorm_is_that_of_the_whole_batch(numbers, axis, what):
    whole = numbers[1]["FusedBatchNormalization 3"]
    synchronised = numbers[2][f"SyncBatchNormalization {axis}"]
    np.testing.assert_allclose(synchronised[what], whole[what], rtol=1e-4, atol=2e-4)
    half = numbers[2]["FusedBatchNormalization 3"]
    if what != "beta":  # beta's gradient is the sum of the upstream one in either case
        assert np.abs(np.subtract(half[what], whole[what])).max() > 0.01


def test_one_replica_synchronises_by_the_fused_kernel(numbers):
    assert numbers[1]["SyncBatchNormalization 3"] == numbers[1]["FusedBatchNormalization 3"]


def test_synchronised_moving_statistics_are_the_same_in_all_replicas(numbers):
    whole = numbers[1]["FusedBatchNormalization 3"]["moving"]
    for name in ("SyncBatchNormalization 3", "SyncBatchNormalization 1"):
        for statistic, expected in zip(numbers[2][name]["moving"], whole):
            for value in statistic:
                np.testing.assert_allclose(value, expected[0], rtol=1e-4)


def test_other_moving_statistics_are_averaged_after_the_step(numbers):
    (own, others), _ = numbers[2]["FusedBatchNormalization 3"]["moving"]
    assert np.abs(np.subtract(own, others)).max() > 1
    whole = numbers[1]["FusedBatchNormalization 3"]["moving"][0][0]
    np.testing.assert_allclose(np.add(own, others) / 2, whole, rtol=1e-5)
    for first, second in numbers[2]["statistics"]:
        assert first == second and np.abs(first).max() > 0
    np.testing.assert_allclose(
        numbers[2]["statistics"][0][0], numbers[1]["statistics"][0][0], rtol=0.05, atol=0.01
    )


def test_a_replica_moves_its_average_by_itself(numbers):
    for count in (1, 2):
        averages, expected = numbers[count]["average"]
        for average in averages:
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)


def test_replicas_draw_masks_of_their_own_that_belong_to_the_step(numbers):
    (first, second), later, again = numbers[2]["masks"]
    assert [first, second] == again
    assert first == numbers[1]["masks"][0][0]
    for other in (second, *later):
        # Independent masks of 400 elements correlate by 0.05 (one standard deviation).
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.25


def test_two_devices_have_the_loss_curve_of_one(numbers):
    one, two = numbers[1]["losses"], numbers[2]["losses"]
    assert len(one) == 50 and np.mean(one[-5:]) < 0.8 * np.mean(one[:5])
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert numbers[2]["traces"] == 1
