"""Compares variants of the training step with the plain one: microbatches, XLA, precisions, ..."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model import layers
from efficientnetv2.model.kernels import NarrowConvolution
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer, build_trainer
from efficientnetv2.train.train_state import TrainState, build_train_state, named_weights
from hparams import resolve
from hparams.errors import UserError

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_se0.25"],
    "model.feature_size": 16,
    "model.dropout_base": 0.0,
    "model.dropout_rate": 0.0,
    "train.optimizer": "rmsprop",
    "train.lr_sched": "constant",
    "train.lr_warmup_epoch": 0.0,
    "train.batch_size": 8,
    "train.stages": 1,
}
SIZE = 16


def batch(seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(8, size, size, 3)).astype(np.float32)
    return images, np.eye(10, dtype=np.float32)[rng.integers(0, 10, 8)]


def any_size(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.ensure_shape(images, [None, None, None, 3]), targets


def batches(count: int, *, parts: int = 1, size: int = SIZE) -> tf.data.Dataset:
    """Returns an endless data set that repeats ``count`` batches, each split into ``parts``."""

    def generate():
        for seed in range(count):
            images, targets = batch(seed, size)
            yield from zip(np.split(images, parts), np.split(targets, parts))

    signature = (
        tf.TensorSpec([8 // parts, None, None, 3], tf.float32),
        tf.TensorSpec([8 // parts, 10], tf.float32),
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature).repeat()


def build(*, frozen: bool = False, **settings: object) -> tuple[TrainState, Trainer]:
    keras.utils.set_random_seed(3)
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **settings})
    plan = build_stages(config, num_images=80)
    train_state = build_train_state(config, build_learning_rate(config, plan))
    if frozen:
        for layer in train_state.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    strategy = tf.distribute.get_strategy()
    return train_state, build_trainer(
        config, train_state, strategy, settings=stage_settings(plan), after_step=lambda step: None
    )


def train(
    steps: int, *, frozen: bool = False, **settings: object
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns all values after some steps, and the metrics of these steps."""
    train_state, trainer = build(frozen=frozen, **settings)
    trainer.set_input(batches(steps, parts=int(settings.get("train.accumulate", 1))))
    metrics = trainer.train(tf.constant(steps))
    assert train_state.step == steps
    return values_of(train_state), metrics


def values_of(train_state: TrainState) -> dict[str, np.ndarray]:
    values = {name: v.numpy() for name, v in named_weights(train_state.model).items()}
    if train_state.average is not None:
        values |= {f"ema/{name}": v.numpy() for name, v in train_state.average.averages.items()}
    return values


def assert_close(values: dict, expected: dict, **tolerance: float) -> None:
    assert values.keys() == expected.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], err_msg=name, **tolerance)


@pytest.fixture(scope="module")
def plain() -> tuple[dict, dict]:
    return train(4)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw", "momentum"])
def test_parts_of_a_batch_make_the_step_of_the_whole(optimizer: str) -> None:
    options = {"train.optimizer": optimizer, "train.weight_decay": 1e-3, "train.lr_base": 0.1}
    whole, metrics = train(4, frozen=True, **options)
    for parts in (2, 4):
        values, metrics_of_parts = train(4, frozen=True, **options, **{"train.accumulate": parts})
        assert_close(values, whole, rtol=1e-5, atol=1e-5)
        for name in ("loss", "accuracy", "gradient_norm"):
            assert metrics_of_parts[name] == pytest.approx(metrics[name], rel=1e-4), (name, parts)


@pytest.mark.slow
def test_each_part_has_its_own_dropout_and_stochastic_depth() -> None:
    train_state, trainer = build(**{"model.dropout_rate": 0.5, "train.accumulate": 2})
    draws = []
    assign = train_state.context.draw.assign
    train_state.context.draw.assign = lambda value: draws.append(value) or assign(value)
    trainer.set_input(batches(2, parts=2))
    trainer.train(tf.constant(2))
    assert int(train_state.context.draw) == 3 and len(draws) == 1  # traced once, in a loop


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_loop", [2, 3, 10])
def test_steps_in_a_loop_have_the_same_bits(plain: tuple[dict, dict], steps_per_loop: int) -> None:
    values, metrics = train(4, **{"runtime.steps_per_loop": steps_per_loop})
    assert_close(values, plain[0], rtol=0, atol=0)
    assert metrics["loss"] == plain[1]["loss"]


@pytest.mark.slow
def test_after_step_is_called_after_each_loop() -> None:
    _, trainer = build(**{"runtime.steps_per_loop": 3})
    calls: list[int] = []
    trainer._after_step = calls.append
    trainer.set_input(batches(7))
    trainer.train(tf.constant(7))
    assert calls == [3, 6, 7] and trainer.num_traces == 1


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_a_compiled_step_is_the_same_and_takes_another_size(
    plain: tuple[dict, dict], parts: int
) -> None:
    options = {"train.accumulate": parts}
    expected = plain[0] if parts == 1 else train(4, **options)[0]
    train_state, trainer = build(**options, **{"runtime.xla": True})
    trainer.set_input(batches(4, parts=parts))
    trainer.train(tf.constant(4))
    assert train_state.step == 4
    assert_close(values_of(train_state), expected, rtol=1e-4, atol=1e-4)
    if parts == 1:
        trainer.set_input(batches(1, size=24))
        trainer.train(tf.constant(1))
        assert train_state.step == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "on_cpu"), [("bfloat16", True), ("bfloat16", False), ("float16", True)]
)
def test_16_bit_steps_keep_float32_weights_and_come_near(
    plain: tuple[dict, dict], monkeypatch: pytest.MonkeyPatch, precision: str, on_cpu: bool
) -> None:
    monkeypatch.setattr(layers, "is_cpu_only", lambda: on_cpu)
    train_state, _ = build(**{"train.precision": precision})
    assert {v.dtype for v in train_state.model.weights} == {"float32"}
    stem = train_state.model.get_layer("stem_conv")
    if precision == "bfloat16" and on_cpu:  # only some layers compute in 16 bits
        assert (type(stem), stem.compute_dtype) == (NarrowConvolution, "float32")
    else:
        assert stem.compute_dtype == precision
    assert train_state.model.get_layer("predictions").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    _, metrics = train(4, **{"train.precision": precision})
    assert metrics["loss"] == pytest.approx(plain[1]["loss"], rel=0.02)
    assert metrics["gradient_norm"] == pytest.approx(plain[1]["gradient_norm"], rel=0.1)
    assert metrics["loss"] != plain[1]["loss"]


@pytest.mark.slow
def test_float16_leaves_out_a_step_that_overflows_and_scales_less() -> None:
    train_state, trainer = build(**{"train.precision": "float16"})
    before = {name: v.numpy() for name, v in named_weights(train_state.model).items()}
    scale = float(train_state.optimizer.dynamic_scale)
    huge = tf.data.Dataset.from_tensors(batch(0)).map(lambda i, t: (i * 1e30, t)).map(any_size)
    trainer.set_input(huge.repeat())
    trainer.train(tf.constant(1))
    assert float(train_state.optimizer.dynamic_scale) == scale / 2
    for variable in train_state.variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])


@pytest.mark.slow
def test_only_variables_that_match_are_trained() -> None:
    train_state, trainer = build(**{"train.varsexp": "predictions|top_conv"})
    assert {v.path.partition("/")[0] for v in train_state.variables} == {"predictions", "top_conv"}
    before = {v.path: v.numpy() for v in train_state.model.trainable_variables}
    trainer.set_input(batches(1))
    trainer.train(tf.constant(1))
    changed = {
        v.path
        for v in train_state.model.trainable_variables
        if not np.array_equal(v.numpy(), before[v.path])
    }
    assert changed == {v.path for v in train_state.variables}


def test_expressions_that_match_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"train\.varsexp='prediction_' matches no trainable var"):
        build(**{"train.varsexp": "prediction_"})
    with pytest.raises(UserError, match=r"train\.weight_decay_vars='kernels'"):
        build(**{"train.weight_decay_vars": "kernels"})
    build(**{"train.weight_decay_vars": "kernels", "train.weight_decay": 0.0})


def test_weight_decay_is_for_the_variables_that_match() -> None:
    for expression, names in (("kernel$", "kernel"), ("gamma$", "gamma"), ("stem_bn/", "")):
        train_state, _ = build(**{"train.weight_decay_vars": expression})
        expected = [v for v in train_state.variables if v.name.endswith(names)]
        if expression == "stem_bn/":
            expected = [v for v in train_state.variables if v.path.startswith("stem_bn/")]
        decay = train_state.objective.weight_decay
        assert decay.variables == expected and expected
        squares = sum(float(np.square(v.numpy()).sum()) for v in expected)
        assert float(train_state.objective.penalty(tf.constant(0))) == pytest.approx(
            decay.factor * squares / 2, rel=1e-5
        )


def test_weight_decay_grows_to_the_last_step() -> None:
    train_state, _ = build(**{"train.weight_decay": 0.1, "train.weight_decay_inc": 0.5})
    last = 17 * 10 - 1  # of 17 epochs of 80 images
    first, middle, end = (
        float(train_state.objective.penalty(tf.constant(step))) for step in (0, last // 2, last)
    )
    assert middle == pytest.approx(1.25 * first, rel=0.01)
    assert end == pytest.approx(1.5 * first, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "lion"])
def test_decoupled_weight_decay_is_no_term_of_the_loss(optimizer: str) -> None:
    train_state, _ = build(**{"train.weight_decay": 0.1, "train.optimizer": optimizer})
    assert float(train_state.objective.penalty(tf.constant(0))) == 0


@pytest.mark.slow
def test_a_limit_holds_for_the_whole_gradient() -> None:
    options = {"train.optimizer": "sgd", "train.gclip": 0.125, "train.lr_base": 8.0}
    train_state, trainer = build(**options)
    before = [v.numpy() for v in train_state.variables]
    trainer.set_input(batches(1))
    metrics = trainer.train(tf.constant(1))
    assert metrics["gradient_norm"] > 0.125  # the recorded norm is that before clipping
    rate = 8.0 * 8 / 256  # lr_base, batch
    moved = [(b - v.numpy()) / rate for b, v in zip(before, train_state.variables)]
    norm = np.sqrt(sum(float(np.square(m.astype(np.float64)).sum()) for m in moved))
    assert norm == pytest.approx(0.125, rel=1e-3)
