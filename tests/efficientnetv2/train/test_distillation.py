"""Tests learning from a teacher: its term of the loss, what it sees, the step, and resuming."""

from __future__ import annotations

import json
import pathlib
import re
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.commands import train as command
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.evaluation.loaded_model import load_trained
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.train.checkpoint_manager import build_checkpoint
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.loop import Training
from efficientnetv2.train.losses import distillation_loss
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer, build_trainer
from efficientnetv2.train.teacher import build_teacher, renormalise, resize
from efficientnetv2.train.train_state import TrainState, build_train_state, named_weights
from efficientnetv2.train.workload import build_workload, image_multiply_adds
from hparams import UserError, resolve
from hparams.choices import LOSSES, NORMALISATIONS

TEACHER_SIZE = 24
STUDENT = {
    "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "model.preprocess": "v2",
    "model.dropout_rate": 0.0,
    "model.dropout_base": 0.0,
    "train.optimizer": "sgd",
    "train.lr_base": 3.2,  # 0.1 for a batch of 8
    "train.lr_sched": "constant",
    "train.lr_warmup_epoch": 0.0,
    "train.weight_decay": 0.0,
    "train.batch_size": 8,
    "train.stages": 1,
}


def teacher_run(folder: pathlib.Path, *, seed: int = 3, **settings: object) -> RunDirectory:
    """Writes a run of random weights, whose moving average is half of the raw ones."""
    blocks = {"model.blocks_args": ["r1_k3_s2_e1_i8_o8", "r1_k3_s2_e4_i8_o16_se0.25"]}
    settings = {**blocks, "model.feature_size": 16, "eval.isize": TEACHER_SIZE, **settings}
    config = resolve("efficientnetv2-b0", "digits", {**settings, "model.num_classes": 10})
    run = RunDirectory(folder)
    run.start(config, [str(digit) for digit in range(10)])
    keras.utils.set_random_seed(seed)
    model = build_model(config.model)
    model.set_weights([0.5 * value for value in model.get_weights()])
    logits = model(np.random.default_rng(seed).normal(size=(8, 32, 32, 3)).astype(np.float32))
    classifier = model.get_layer("predictions").kernel
    classifier.assign(classifier * 8.0 / np.ptp(logits))  # the answers differ
    average = named_weights(model)
    weights = {name: tf.Variable(2.0 * value) for name, value in average.items()}
    checkpoint = tf.train.Checkpoint(weights=weights, ema=average)
    checkpoint_store.write(run.checkpoints, 7, checkpoint.write)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return teacher_run(tmp_path_factory.mktemp("teacher"))


# ---------------------------------------------------------------------- the loss


def probabilities(logits: np.ndarray, loss_type: str) -> np.ndarray:
    if LOSSES[loss_type].activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray, loss_type: str) -> np.ndarray:
    """Returns KL(p || q) of each image; with a sigmoid loss, of (p, 1 - p) of each class."""
    terms = p * np.log(p / q)
    if LOSSES[loss_type].activation == "softmax":
        return terms.sum(-1)
    terms = terms + (1 - p) * np.log((1 - p) / (1 - q))
    return terms.mean(-1) if loss_type == "sigmoid" else terms.sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("loss_type", [n for n, row in LOSSES.items() if not row.is_regression])
def test_the_teachers_term_and_its_gradient_are_numpys(
    loss_type: str, temperature: float, seed: int
) -> None:
    own, teachers = np.random.default_rng(seed).normal(0, 3, (2, 6, 5))
    logits, told = tf.constant(own, tf.float32), tf.constant(teachers, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([logits, told])
        loss = distillation_loss(
            logits, told, loss_type=loss_type, temperature=temperature, global_batch_size=8
        )
    gradient, of_teacher = tape.gradient(loss, [logits, told])
    p, q = (probabilities(values / temperature, loss_type) for values in (teachers, own))
    expected = temperature**2 * divergence(p, q, loss_type).sum() / 8
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    classes = 5 if loss_type == "sigmoid" else 1
    np.testing.assert_allclose(gradient, temperature * (q - p) / 8 / classes, atol=1e-6)
    assert of_teacher is None
    same = distillation_loss(told, told, loss_type=loss_type, temperature=3.0, global_batch_size=8)
    assert float(same) == pytest.approx(0.0, abs=1e-5)


# ---------------------------------------------------------------------- what the teacher sees


@pytest.mark.parametrize("before", NORMALISATIONS)
@pytest.mark.parametrize("after", NORMALISATIONS)
def test_images_change_from_one_normalisation_to_another(
    before: str, after: str, seed: int
) -> None:
    pixels = np.random.default_rng(seed).uniform(0, 255, (2, 3, 3, 3)).astype(np.float32)
    rows = NORMALISATIONS[before], NORMALISATIONS[after]
    changed = renormalise(normalise(pixels, before), *rows)
    np.testing.assert_allclose(changed, normalise(pixels, after), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("height", "size"), [(9, 24), (24, 9), (31, 24), (5, 1)])
@pytest.mark.parametrize("compiled", [False, True])
def test_images_are_resized_as_by_tensorflow(
    height: int, size: int, compiled: bool, seed: int
) -> None:
    images = np.random.default_rng(seed).normal(size=(2, height, height + 2, 3)).astype(np.float32)
    traced = tf.function(
        lambda images: resize(images, size),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
        jit_compile=compiled,
    )
    expected = tf.image.resize(images, [size, size], antialias=True)
    np.testing.assert_allclose(traced(images), expected, atol=1e-5)
    same = tf.constant(images[:, :, :height])
    np.testing.assert_array_equal(resize(same, height), same)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_teacher_is_the_average_of_the_run_at_its_own_size(
    run: RunDirectory, precision: str, tolerance: float, seed: int
) -> None:
    settings = {**STUDENT, "train.teacher": str(run.path), "train.precision": precision}
    teacher = build_teacher(resolve("efficientnetv2-s", "digits", settings))
    pixels = np.random.default_rng(seed).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
    resized = tf.image.resize(pixels, [TEACHER_SIZE] * 2)
    own = load_trained(run.config(), run)
    assert own.origin.startswith("moving average")
    expected = own.model(normalise(resized, own.config.model.preprocess)).numpy()
    assert np.ptp(expected) > 0.5
    logits = teacher.logits(normalise(pixels, "v2"))
    assert logits.dtype == tf.float32 and teacher.image_size == TEACHER_SIZE
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    assert not any("bn" in weight.path for weight in teacher._model.weights)  # it is folded


# ---------------------------------------------------------------------- the step


def batches(*sizes: int, parts: int = 1) -> tf.data.Dataset:
    def generate():
        for seed, size in enumerate(sizes):
            rng = np.random.default_rng(seed)
            images = rng.normal(size=(8, size, size, 3)).astype(np.float32)
            targets = rng.dirichlet(np.ones(10), 8).astype(np.float32)
            yield from zip(np.split(images, parts), np.split(targets, parts))

    signature = (
        tf.TensorSpec([8 // parts, None, None, 3], tf.float32),
        tf.TensorSpec([8 // parts, 10], tf.float32),
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def build(run: RunDirectory, **settings: object) -> tuple[TrainState, Trainer]:
    keras.utils.set_random_seed(3)
    settings = {**STUDENT, "train.teacher": str(run.path), **settings}
    config = resolve("efficientnetv2-s", "digits", settings)
    plan = build_stages(config, num_images=80)
    train_state = build_train_state(config, build_learning_rate(config, plan))
    return train_state, build_trainer(
        config,
        train_state,
        tf.distribute.get_strategy(),
        settings=stage_settings(plan),
        after_step=lambda step: None,
    )


@pytest.mark.parametrize(
    "settings", [{}, {"train.accumulate": 2, "model.bn_mode": "frozen"}, {"runtime.xla": True}]
)
def test_a_step_follows_the_gradient_of_both_terms(run: RunDirectory, settings: dict) -> None:
    weight, temperature, smoothing = 0.7, 3.0, 0.2
    train_state, trainer = build(
        run,
        **settings,
        **{
            "train.distill_weight": weight,
            "train.distill_temperature": temperature,
            "train.label_smoothing": smoothing,
        },
    )
    images, targets = next(iter(batches(16)))
    frozen = settings.get("model.bn_mode") == "frozen"
    own = train_state.model(images, training=not frozen).numpy()
    told = trainer.teacher.logits(images).numpy()
    for layer in train_state.model.layers:  # the pass above has moved its statistics
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(tf.zeros_like(layer.moving_mean))
            layer.moving_variance.assign(tf.ones_like(layer.moving_variance))
    before = train_state.model.get_layer("predictions").bias.numpy()
    trainer.set_input(batches(16, parts=settings.get("train.accumulate", 1)))
    metrics = trainer.train(tf.constant(1))
    p, q = (probabilities(values / temperature, "softmax") for values in (told, own))
    smoothed = (1 - smoothing) * targets.numpy() + smoothing / 10
    by_labels = probabilities(own, "softmax") - smoothed
    gradient = ((1 - weight) * by_labels + weight * temperature * (q - p)).mean(0)
    after = train_state.model.get_layer("predictions").bias.numpy()
    np.testing.assert_allclose((before - after) / 0.1, gradient, atol=2e-6)
    cross_entropy = -(smoothed * np.log(probabilities(own, "softmax"))).sum(-1).mean()
    assert metrics["loss"] == pytest.approx(cross_entropy, rel=1e-5)  # as without a teacher
    distillation = temperature**2 * divergence(p, q, "softmax").mean()
    assert metrics["distillation"] == pytest.approx(distillation, rel=1e-4)
    right = np.argmax(told, -1) == np.argmax(targets, -1)
    assert metrics["teacher_accuracy"] == pytest.approx(right.mean())


def test_one_trace_serves_all_sizes_and_the_teacher_stays_as_it_is(run: RunDirectory) -> None:
    train_state, trainer = build(run)
    before = [weight.numpy() for weight in trainer.teacher._model.weights]
    trainer.set_input(batches(16, 24, 32))
    trainer.train(tf.constant(3))
    assert trainer.num_traces == 1
    for weight, value in zip(trainer.teacher._model.weights, before):
        np.testing.assert_array_equal(weight, value)
    saved = build_checkpoint(train_state)
    assert set(train_state.average.averages) == set(named_weights(train_state.model))
    assert set(saved.weights) == set(train_state.average.averages)
    assert len(saved.metrics.variables) == 7
    assert not trainer.teacher._model.trainable_variables


def test_an_image_costs_the_teachers_forward_pass_too(run: RunDirectory, digits) -> None:
    settings = {**STUDENT, "train.teacher": str(run.path), "train.isize": 16, "eval.isize": 16}
    config = resolve("efficientnetv2-s", "digits", {**settings, "train.epochs": 2})
    taught = build_workload(config, digits, validates=True)
    alone = build_workload(
        resolve(
            "efficientnetv2-s", "digits", {**settings, "train.epochs": 2, "train.teacher": None}
        ),
        digits,
        validates=True,
    )
    teacher = image_multiply_adds(run.config().model, TEACHER_SIZE) / 3
    images = (taught.end_step - 5) * 8
    added = taught.multiply_adds(5, taught.end_step) - alone.multiply_adds(5, taught.end_step)
    assert added == pytest.approx(images * teacher)
    assert taught._evaluation_multiply_adds(0) == alone._evaluation_multiply_adds(0)


# ---------------------------------------------------------------------- whole trainings

TRAINING = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.epochs": 2,
    "train.stages": 2,
    "train.batch_size": 256,
    "train.isize": 16,
    "data.ibase": 8,
    "eval.isize": 16,
}


def train(folder: pathlib.Path, data_dir: str, run: RunDirectory, stop: StopRequest) -> int:
    settings = {**TRAINING, "data.data_dir": data_dir, "train.teacher": str(run.path)}
    config = resolve("efficientnetv2-s", "digits", settings)
    options = {"validate": False, "keep_best": False, "eval_name": None}
    with stop.listening():
        return command.train(config, RunDirectory(folder), **options, stop=stop)


def outcome(folder: pathlib.Path) -> tuple[list[dict], dict[str, bytes]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "images_per_second")
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "ckpt-8"))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    values = {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}
    return [{k: v for k, v in line.items() if k not in clock} for line in lines], values


@pytest.mark.slow
def test_a_taught_training_ends_with_the_same_bits_after_a_stop(
    data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = teacher_run(tmp_path / "teacher")
    assert train(tmp_path / "whole", data_dir, run, StopRequest()) == 0
    where = re.escape(str(run.path / "checkpoints" / "ckpt-7"))
    assert re.search(f"learning from \\d+ weights from '{where}'", capsys.readouterr().out)
    stop, after_step = StopRequest(), Training._after_step

    def stopping(self: Training, step: int) -> None:
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        after_step(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_after_step", stopping)
        assert train(tmp_path / "cut", data_dir, run, stop) == 128 + signal.SIGTERM
    assert not (tmp_path / "cut" / "checkpoints" / "ckpt-8.index").exists()
    assert train(tmp_path / "cut", data_dir, run, StopRequest()) == 0
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    lines, values = outcome(tmp_path / "whole")
    assert all(line["distillation"] > 0 for line in lines)
    assert not any("block2" in name for name in values)  # which only the teacher has
    teacher_run(run.path, seed=4)
    with pytest.raises(RunError, match=r"the weights of the teacher have changed since '.*' began"):
        train(tmp_path / "whole", data_dir, run, StopRequest())


def test_a_file_of_other_classes_is_refused(tmp_path: pathlib.Path) -> None:
    classifier = {"kernel": tf.zeros([1280, 3]), "bias": tf.zeros([3])}
    weights = {f"predictions/{name}": tf.Variable(value) for name, value in classifier.items()}
    path = tf.train.Checkpoint(weights=weights).write(str(tmp_path / "three"))
    settings = {"train.teacher": path, "train.teacher_model": "efficientnet-lite0"}
    config = resolve("efficientnetv2-b0", "digits", {**settings, "model.num_classes": 10})
    with pytest.raises(UserError, match=r"three' has 3 classes, but the data has 10$"):
        build_teacher(config)


# ---------------------------------------------------------------------- two replicas

REPLICAS = """
import json, sys
import numpy as np, tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, "tests/efficientnetv2/train")
import test_distillation as tests
from efficientnetv2.data.shard import Shard
from tensorflow import keras

def biases(count):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(count)])
    tf.distribute.get_strategy = lambda: strategy
    with strategy.scope():
        train_state, trainer = tests.build(
            tests.RunDirectory(sys.argv[1]), **{"model.bn_mode": "frozen"})
    stream = tests.batches(16, 16, 16).rebatch(8 // count)
    trainer.set_input(strategy.distribute_datasets_from_function(lambda _: stream))
    metrics = trainer.train(tf.constant(3))
    with strategy.scope():
        bias = tf.convert_to_tensor(train_state.model.get_layer("predictions").bias.value)
    return bias.numpy().tolist(), metrics

print(json.dumps([biases(1), biases(2)]))
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns(run_process, run: RunDirectory) -> None:
    result = run_process("-c", REPLICAS, run.path)
    assert result.returncode == 0, result.stderr
    (one, of_one), (two, of_two) = json.loads(result.stdout.splitlines()[-1])
    np.testing.assert_allclose(two, one, atol=1e-6)
    for name, value in of_one.items():
        assert of_two[name] == pytest.approx(value, rel=1e-4), name
    assert of_one["distillation"] > 0
