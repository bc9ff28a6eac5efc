"""Tests that averages of trainings are the means of their weights, in a run directory."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import efficientnetv2 as env2
from efficientnetv2.commands.python_call import _flag_values
from efficientnetv2.data.open_data import open_data
from efficientnetv2.evaluation.weight_average import (
    BatchNormEstimator,
    Ingredient,
    greedy_soup,
    mean_weights,
    uniform_soup,
)
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.train_state import named_weights
from hparams import resolve

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 8,
    "eval.isize": 16,
    "data.minival_split": "train[:40]",
    "data.eval_split": "test[:40]",
    "runtime.strategy": "cpu",
}


def ingredient(name, value, score):
    return Ingredient(name, [np.float32([value])], "raw", score)


def test_greedy_adds_only_what_does_not_hurt():
    """The score is the distance of the mean from 3; worked out by hand."""
    parts = [ingredient(name, value, -abs(value - 3)) for name, value in zip("abc", (7, 2, 4))]
    tried = greedy_soup(parts, lambda weights: -abs(float(weights[0][0]) - 3))
    # b (-1) first; with c the mean is 3 (0); with a as well 13/3 (-4/3), which is worse.
    assert [one.name for one in tried] == ["b", "c", "a"]
    assert [one.is_used for one in tried] == [True, True, False]
    assert [one.together for one in tried] == [None, 0, pytest.approx(-4 / 3)]


def test_uniform_averages_all():
    parts = [ingredient(name, value, 0.0) for name, value in zip("abc", (7, 2, 4))]
    tried = uniform_soup(parts, lambda weights: float(weights[0][0]))
    assert all(one.is_used for one in tried)
    assert tried[-1].together == pytest.approx(13 / 3)
    assert mean_weights([one.weights for one in parts])[0].dtype == np.float32


def test_batchnorm_statistics_are_those_of_the_images():
    """Of two layers in a row; the second sees what the first gives with its new statistics."""
    images = np.random.default_rng(0).normal(5, 3, (24, 4, 4, 2)).astype(np.float32)
    inputs = keras.Input((4, 4, 2))
    first = keras.layers.BatchNormalization(epsilon=0.0, name="first")
    x = keras.layers.Dropout(0.9)(first(inputs))
    second = keras.layers.BatchNormalization(epsilon=0.0, name="second")
    model = keras.Model(inputs, second(2 * x + 1))
    BatchNormEstimator(model, images, batch_size=24)()
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    np.testing.assert_allclose(first.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(second.moving_mean, [1, 1], atol=1e-4)
    np.testing.assert_allclose(second.moving_variance, [4, 4], rtol=1e-4)
    BatchNormEstimator(model, images, batch_size=5)()  # several batches, of 20 images
    np.testing.assert_allclose(first.moving_mean, images[:20].mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance, images[:20].var(axis=(0, 1, 2)), rtol=1e-4)


def write_run(path, *, seed, **changes):
    """Writes a run directory as after a training: random weights, and a moving average."""
    config, source = open_data(
        resolve("efficientnetv2-b0", "digits", {**SETTINGS, **changes}), None
    )
    run = RunDirectory(path)
    run.start(config, source.class_names)
    keras.utils.set_random_seed(seed)
    raw, average = build_model(config.model), build_model(config.model)
    contents = {"weights": named_weights(raw), "ema": named_weights(average)}
    checkpoint_store.write(run.checkpoints, 7, tf.train.Checkpoint(**contents).write)
    return average.get_weights()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder of the runs a, b and c, the moving averages of their weights)."""
    folder = tmp_path_factory.mktemp("runs")
    weights = {name: write_run(folder / name, seed=ord(name)) for name in "abc"}
    (folder / "c" / "checkpoints").rename(folder / "c" / "best")  # all that predictions need
    record = {"step": 7, "top1": {"raw": 0.1, "ema": 0.2}}
    (folder / "c" / "best" / "best.json").write_text(json.dumps(record))
    return folder, weights


def test_the_average_is_a_run(main_tf2, runs):
    """Uniform, with averaged statistics: every weight is the mean of the moving averages."""
    folder, weights = runs
    result = main_tf2(
        *("average", "a", "b", "c", "--model_dir=mean", "--soup=uniform", "--batchnorm=averaged"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    assert "average of 3 trainings written to mean" in result.stdout
    run = env2.load_run(folder / "mean")
    for value, *parts in zip(run.model.get_weights(), *weights.values()):
        np.testing.assert_allclose(value, np.mean(parts, axis=0), atol=1e-6)
    record = json.loads((folder / "mean" / "average.json").read_text())
    metrics = run.evaluate(overrides={"data.eval_split": "train[:40]"})  # which is minival
    assert set(metrics) == {"raw"}
    assert metrics["raw"]["top1"] == pytest.approx(record["trainings"][-1]["average_with_it"])
    assert [one["run"] for one in record["trainings"]] == ["a", "b", "c"]


def test_greedy_in_python(runs, monkeypatch):
    folder, weights = runs
    monkeypatch.chdir(folder)
    run = env2.average_weights(["a", folder / "b"], "greedy")
    record = json.loads((run.path / "average.json").read_text())
    first, second = record["trainings"]
    assert first["minival"] >= second["minival"]
    assert second["is_used"] == (second["average_with_it"] >= first["minival"])
    used = [weights[one["run"][-1]] for one in record["trainings"] if one["is_used"]]
    layer = run.model.get_layer("predictions").get_weights()[0]
    np.testing.assert_allclose(layer, np.mean([part[-2] for part in used], axis=0), atol=1e-6)


REFUSED = {
    ("a",): "needs at least two trainings",
    ("a", "missing"): "'missing' is no run directory",
    ("a", "a"): "is named 2 times",
    ("a", "wide"): "model.feature_size is 8 in 'a', but 16 in 'wide'",
    ("a", "named"): "the classes of 'a' and 'named' differ, from class 3 on",
    ("a", "other"): "data.minival_split is 'train[:40]' in 'a', but 'train[:50]' in 'other'",
    ("a", "divided"): "divide the images differently",
}


@pytest.fixture(scope="module")
def misfits(runs):
    folder, _ = runs
    for name in ("named", "divided"):
        config = RunDirectory(folder / "a").config()
        RunDirectory(folder / name).start(config, [f"{n}{'x' * (n > 2)}" for n in range(10)])
    labels = (folder / "a" / "labels.txt").read_text()
    (folder / "divided" / "labels.txt").write_text(labels)
    (folder / "divided" / "split.csv").write_text("path,split\n")
    for name, changes in {
        "wide": {"model.feature_size": 16},
        "other": {"data.minival_split": "train[:50]"},
    }.items():
        config = RunDirectory(folder / "a").config(changes)
        RunDirectory(folder / name).start(config, [str(n) for n in range(10)])
    return folder


@pytest.mark.parametrize(("names", "line"), REFUSED.items())
def test_what_does_not_fit_is_one_line(main_tf2, misfits, monkeypatch, names, line):
    monkeypatch.setattr("efficientnetv2.commands.average.import_tensorflow", None)
    result = main_tf2("average", f"--from={','.join(names)}", "--model_dir=new", cwd=misfits)
    assert result.returncode == 2
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (misfits / "new").exists()


def test_the_target_must_be_new(main_tf2, runs):
    folder, _ = runs
    for flags, line in ([], "--model_dir is missing"), (["--model_dir=c"], "is not empty"):
        result = main_tf2("soup", "a", "b", *flags, cwd=folder)
        assert (result.returncode, line in result.stderr) == (2, True)


def test_names_with_commas_are_names_in_python():
    runs = ["runs/lr=0.1,bs=64", "runs/b"]
    assert _flag_values("average", {"runs": runs, "model_dir": "runs/soup"}).runs == runs
