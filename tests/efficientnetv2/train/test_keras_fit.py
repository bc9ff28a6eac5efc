"""Tests progressive learning in plain ``model.fit``: the plan step by step, traces, and files."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import efficientnetv2 as env2
from efficientnetv2.data import augment, train_input
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.model.variable_dropout import dropout_layers, set_dropout_share
from efficientnetv2.train.progressive import phases_of
from hparams.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
NETWORK = {"blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o16_se0.25"], "feature_size": 16}
RANDAUGMENT = {"data.augname": "randaug", "data.ram_base": 2.0, "data.ram": 8.0}
SETTINGS = {
    **{f"model.{key}": value for key, value in NETWORK.items()},
    "model.dropout_base": 0.1,
    "model.dropout_rate": 0.3,
    "train.stages": 3,
    "train.size_schedule": "progressive",
    "data.ibase": 8,
    "data.train_split": "train[:192]",
    "data.augname": "none",
    "data.mixup_alpha": 0.4,
    "eval.isize": 24,
}


def open_digits(data_dir, settings, **arguments):
    return env2.training_data(
        "digits",
        "efficientnetv2-s",
        overrides={**SETTINGS, "data.data_dir": str(data_dir), **settings},
        **{"epochs": 3, "image_size": 24, "batch_size": 64, **arguments},
    )


@pytest.fixture(scope="module")
def data(data_dir):
    return open_digits(data_dir, {})


def small_model(**arguments):
    keras.utils.set_random_seed(0)
    overrides = {**NETWORK, "dropout_rate": 0.3}
    return env2.get_model(
        "efficientnetv2-s", num_classes=10, overrides=overrides, for_training=True, **arguments
    )


def residual_model(rate=0.5, size=None):
    """A network of a user's own, like a small ResNet."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(images)
    y = keras.layers.BatchNormalization()(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(keras.layers.ReLU()(y))])
    x = keras.layers.Dropout(0.2, noise_shape=(None, 1, 1, 1), name="depth")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(rate, name="head_dropout")(x)
    return keras.Model(images, keras.layers.Dense(10)(x))


def compiled(model):
    model.compile(
        optimizer="adamw",
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fit(model, data, **arguments):
    arguments = {"epochs": data.epochs, "callbacks": data.callbacks, "verbose": 0, **arguments}
    return model.fit(data, shuffle=False, **arguments)  # True, the default, makes Keras warn


class Steps:
    """Records what each step of a fit sees, from inside the graph, and counts its traces."""

    def __init__(self, model):
        self.sizes, self.rates, self.traces = [], [], []
        self._num_traces = 0
        (layer,) = dropout_layers(model)
        original = model.train_step

        def train_step(batch):
            self._num_traces += 1
            rate = layer.rate * layer.call._share_of_rate
            tf.numpy_function(self._record, [tf.shape(batch[0])[1], rate], [])
            return original(batch)

        model.train_step = train_step

    def _record(self, size, rate):
        self.sizes.append(int(size))
        self.rates.append(float(rate))
        self.traces.append(self._num_traces)


@pytest.fixture(scope="module")
def fitted(data_dir, tmp_path_factory):
    """A real fit, with all that it was fed and told."""
    magnitudes, alphas = [], []
    randaugment, traced_mix = augment.rand_augment, train_input._traced_mix

    def recorded_randaugment(image, seed, magnitude, **options):
        tf.numpy_function(lambda value: magnitudes.append(float(value)), [magnitude], [])
        return randaugment(image, seed, magnitude=magnitude, **options)

    def recorded_mix(table):
        def mix(*batch, mixup_alpha, **options):
            tf.numpy_function(lambda value: alphas.append(float(value)), [mixup_alpha], [])
            return traced_mix(table)(*batch, mixup_alpha=mixup_alpha, **options)

        return mix

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "rand_augment", recorded_randaugment)
        patch.setattr(train_input, "_traced_mix", recorded_mix)
        data = open_digits(data_dir, RANDAUGMENT)
        model = small_model()
        steps = Steps(model)
        folder = tmp_path_factory.mktemp("fit")
        checkpoint = keras.callbacks.ModelCheckpoint(folder / "epoch{epoch}.keras")
        history = fit(
            compiled(model),
            data,
            validation_data=data.validation,
            callbacks=[*data.callbacks, checkpoint],
        ).history
    return data, model, steps, history, (magnitudes, alphas), folder


def by_step(data, name):
    return [getattr(stage, name) for stage in data.plan for _ in range(data.steps_per_epoch)]


@pytest.mark.slow
def test_every_step_follows_the_plan(fitted):
    data, _, steps, history, (magnitudes, alphas), _ = fitted
    assert [stage.image_size for stage in data.plan] == [8, 16, 24]
    assert data.steps_per_epoch == 3
    assert steps.sizes == by_step(data, "image_size")
    np.testing.assert_allclose(steps.rates, by_step(data, "dropout_rate"), rtol=1e-6)
    assert by_step(data, "dropout_rate")[::3] == pytest.approx([0.1, 0.2, 0.3])
    # All rise with the steps. What is prefetched after the last step is of the last stage.
    of_images = np.repeat(by_step(data, "magnitude"), 64)
    np.testing.assert_allclose(sorted(magnitudes)[: len(of_images)], of_images, rtol=1e-6)
    np.testing.assert_allclose(sorted(alphas)[:9], by_step(data, "mixup_alpha"), rtol=1e-6)
    assert by_step(data, "mixup_alpha")[::3] == pytest.approx([0.0, 0.2, 0.4])
    assert history["image_size"] == [8, 16, 24]
    assert history["dropout_rate"] == pytest.approx([0.1, 0.2, 0.3])
    assert len(history["val_accuracy"]) == 3


@pytest.mark.slow
def test_nothing_is_traced_again_when_a_stage_begins(fitted):
    _, model, steps, *_ = fitted
    assert set(steps.traces) == {steps.traces[0]}
    names = model.train_function.__code__.co_freevars
    cells = dict(zip(names, model.train_function.__closure__))
    assert cells["multi_step_on_iterator"].cell_contents.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_what_is_saved_opens_without_this_package(fitted, tmp_path):
    _, model, _, _, _, folder = fitted
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "for path in sys.argv[2:]:\n"
        "    model = tf.keras.models.load_model(path)\n"
        "    dropout = model.get_layer('top_dropout')\n"
        "    assert type(dropout) is tf.keras.layers.Dropout and dropout.rate == 0.3\n"
        "np.save('logits.npy', model.predict(np.load(sys.argv[1]), verbose=0))\n"
        "assert not {'efficientnetv2', 'hparams'} & {name.split('.')[0] for name in sys.modules}"
    )
    files = [folder / "epoch3.keras", tmp_path / "model.keras"]
    # -I: neither the working directory nor PYTHONPATH is searched for packages
    command = [sys.executable, "-I", "-c", code, "images.npy", *map(str, files)]
    subprocess.run(command, check=True, cwd=tmp_path)
    np.testing.assert_allclose(
        np.load(tmp_path / "logits.npy"), model.predict(images, verbose=0), atol=1e-5
    )


def test_batches_are_those_of_our_own_training(data):
    training_input = build_training_input(
        data.config,
        data.source,
        phases=phases_of(data.plan),
        settings=data.settings,
    )
    ours = iter(training_input.batches(start_step=data.steps_per_epoch))
    data.stream.begin_epoch(1, can_go_on=False)
    for images, targets in data:
        expected_images, expected_targets = next(ours)
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(targets, expected_targets)


@pytest.mark.slow
def test_a_model_of_the_user_goes_on_from_an_epoch(data):
    model = env2.ProgressiveLearning(residual_model(), data)
    steps = Steps(model)
    fit(compiled(model), data, initial_epoch=1, steps_per_epoch=data.steps_per_epoch)
    assert steps.sizes == [16] * 3 + [24] * 3
    # Half of the units in the last stage, as the layer says; a share of it before, as in the plan.
    np.testing.assert_allclose(steps.rates, [0.5 * 2 / 3] * 3 + [0.5] * 3, rtol=1e-6)
    assert model.get_layer("depth").call(tf.ones([9, 1, 1, 1]), training=False).shape == (
        9,
        1,
        1,
        1,
    )


def test_a_share_of_the_rate_is_dropped():
    model = small_model()
    (layer,) = dropout_layers(model)
    ones = tf.ones([1000, 100])
    stock = keras.layers.Dropout.from_config({**layer.get_config(), "seed": 7})
    layer.seed_generator.state.assign(stock.seed_generator.state)
    np.testing.assert_allclose(layer(ones, training=True), stock(ones, training=True), rtol=1e-6)
    set_dropout_share(model, 0.5)
    dropped = np.asarray(layer(ones, training=True))
    assert np.mean(dropped == 0) == pytest.approx(0.15, abs=4 * np.sqrt(0.15 * 0.85 / 1e5))
    assert dropped.max() == pytest.approx(1 / 0.85)
    np.testing.assert_array_equal(layer(ones, training=False), ones)


@pytest.mark.slow
def test_pixels_for_a_model_that_normalises(data, data_dir):
    pixels = open_digits(data_dir, {}, normalise=False)
    for split in (pixels, pixels.validation, pixels.test):
        images = next(iter(split))[0].numpy()
        assert images.min() >= 0
        assert images.max() > 200
    inside = small_model(include_preprocessing=True)
    assert env2.ProgressiveLearning(inside, pixels) is inside
    with pytest.raises(UserError, match="give training_data normalise=False"):
        env2.ProgressiveLearning(inside, data)


def test_the_learning_rate_is_that_of_our_own_training(data_dir):
    data = open_digits(data_dir, {"train.lr_warmup_epoch": 1.0})
    rate = data.learning_rate
    assert type(rate) is keras.optimizers.schedules.CosineDecay
    peak = data.config.train.lr_base * 64 / 256
    cosine = [peak / 2 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    expected = [0, peak / 3, peak * 2 / 3, *cosine]
    np.testing.assert_allclose([float(rate(step)) for step in range(9)], expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"no schedule for train\.lr_sched=linear"):
        _ = open_digits(data_dir, {"train.lr_sched": "linear"}, learning_rate=0.1).learning_rate


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: compiled(residual_model()), "'head_dropout' cannot change in training"),
        (
            lambda: compiled(residual_model(size=24)),
            "shape (24, 24, 3), but those of the data have 8",
        ),
        (
            lambda: compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])),
            "3 outputs",
        ),
    ],
)
def test_unsuitable_models(data, model, message):
    with pytest.raises(UserError) as error:
        fit(model(), data)
    assert message in str(error.value)


def test_class_numbers_cannot_be_mixed(data):
    model = small_model()
    model.compile(optimizer="adamw", loss="sparse_categorical_crossentropy")
    with pytest.raises(UserError, match="'sparse_categorical_crossentropy' takes class numbers"):
        fit(model, data)


@pytest.mark.slow
def test_fit_keeps_one_iterator(data):
    def iterator():
        return iter(data)

    stream = data.stream
    stream.begin_epoch(0, can_go_on=True)
    first = iterator()
    assert iterator() is not first  # somebody else's
    stream.after_step(2, can_go_on=True)
    assert iterator() is not first
    stream.after_step(3, can_go_on=True)
    assert iterator() is first  # Keras asks at the end of an epoch
    stream.end_epoch()
    stream.begin_epoch(1, can_go_on=True)
    assert iterator() is first
    stream.begin_epoch(0, can_go_on=True)  # not the next one
    assert iterator() is not first
    stream.end()
    with pytest.raises(UserError, match="steps_per_epoch=2: an epoch of the data has 3 steps"):
        fit(compiled(small_model()), data, steps_per_epoch=2)


@pytest.mark.slow
def test_a_folder_is_only_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.full((9, 9, 3), 20 * index + label, np.uint8)
            path = tmp_path / "photos" / name / f"{index}.png"
            tf.io.write_file(str(path), tf.io.encode_png(pixels))
    files = sorted(tmp_path.rglob("*"))
    settings = {"overrides": {**SETTINGS, "data.train_split": "train"}, "batch_size": 4}
    data = env2.training_data("photos", "efficientnetv2-s", image_size=24, **settings)
    assert data.class_names == ["cat", "dog"]
    assert data.epochs == 50  # the recipe for folders
    assert [target.shape for _, target in data.validation] == [(2, 2)]
    assert sorted(tmp_path.rglob("*")) == files
    kept = env2.training_data("photos", "efficientnetv2-s", model_dir="run", **settings)
    assert (tmp_path / "run" / "split.csv").exists()
    for (_, target), (_, kept_target) in zip(data, kept):
        np.testing.assert_array_equal(target, kept_target)


@pytest.mark.slow
def test_forgotten_callbacks(data_dir):
    data = open_digits(data_dir, {})
    next(iter(data))
    with pytest.warns(UserWarning, match="give it callbacks=data.callbacks"):
        iter(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data": "dgits"},
            "data: no folder, no table and no data set 'dgits'; did you mean 'digits'?",
        ),
        ({"overrides": {"train.ema_decay": 0.9}}, "train.ema_decay has no effect in model.fit"),
        ({"overrides": "train.teacher=runs/big"}, "train.teacher has no effect in model.fit"),
        ({"overrides": "runtime.strategy=gpu"}, "runtime.strategy has no effect in model.fit"),
        (
            {"epochs": 3, "overrides": "train.epochs=4"},
            "epochs=3 contradicts train.epochs=4 of over",
        ),
        ({"image_size": 5}, "data.ibase=2 is too small"),
        ({"overrides": "train.scale_batch_with_size=true"}, "scale_batch_with_size has no effect"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(UserError) as error:
        env2.training_data(**{"data": "digits", "model_name": "efficientnetv2-s", **arguments})
    assert message in str(error.value)


MIRRORED = """
import pathlib, sys, warnings
import numpy as np, tensorflow as tf
warnings.simplefilter("error", UserWarning)
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, "tests/efficientnetv2/train")
import test_keras_fit as tests

folder, data_dir = map(pathlib.Path, sys.argv[1:])
data = tests.open_digits(data_dir, {"train.stages": 2}, epochs=2)
strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
with strategy.scope():
    model = tests.small_model()
    steps = tests.Steps(model)
    tests.compiled(model)
history = tests.fit(model, data, validation_data=data.validation).history
assert strategy.num_replicas_in_sync == 2
# Each replica records, at each step.
assert steps.sizes == [size for size in tests.by_step(data, "image_size") for _ in "ab"]
rates = [rate for rate in tests.by_step(data, "dropout_rate") for _ in "ab"]
np.testing.assert_allclose(steps.rates, rates, rtol=1e-6)
assert len(set(steps.traces)) == 1
assert len(history["val_accuracy"]) == 2 and history["loss"][-1] < history["loss"][0]
model.save(folder / "model.keras")
again = tf.keras.models.load_model(folder / "model.keras")
images = np.random.default_rng(0).normal(size=(4, 24, 24, 3)).astype(np.float32)
np.testing.assert_allclose(again(images), model(images), atol=1e-5)
"""


@pytest.mark.slow
def test_two_replicas_follow_the_plan(run_process, tmp_path, data_dir, digits):
    result = run_process("-c", MIRRORED, tmp_path, data_dir)
    assert result.returncode == 0, result.stderr
