"""Tests that --weights takes a run with all its settings, and any Keras model, in every mode."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.data.open_data import open_data
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.train_state import named_weights
from hparams.resolve import resolve

BLOCKS = {"blocks_args": ["r1_k3_s2_e1_i8_o8"], "feature_size": 8}
SETTINGS = "--hparam_str=model.blocks_args=[r1_k3_s2_e1_i8_o8],model.feature_size=8,eval.isize=8"
NAMES = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images of 3 classes in ``images/`` and one of them as ``one.png``."""
    folder = tmp_path_factory.mktemp("weights_of_runs")
    rng = np.random.default_rng(1)
    for name in NAMES:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    Image.fromarray(pixels).save(folder / "one.png")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A run of 3 classes whose image size and preprocessing are not those of its model's row."""
    settings = {f"model.{key}": value for key, value in BLOCKS.items()}
    settings |= {
        "eval.isize": 16,
        "model.preprocess": "lite",
        "data.data_dir": str(folder / "images"),
    }
    config = resolve("efficientnetv2-b0", "folder", {**settings, "model.num_classes": 3})
    run = RunDirectory(folder / "run")
    run.start(config, NAMES)
    keras.utils.set_random_seed(3)
    model = build_model(config.model)
    checkpoint = tf.train.Checkpoint(weights=named_weights(model))
    checkpoint_store.write(run.checkpoints, 7, checkpoint.write)
    return run


def probabilities_of(main_tf2, folder, *arguments):
    command = ("--mode=infer", "--image_path=one.png", "--output=out.json", "--top_k=3")
    result = main_tf2(*command, *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    text = (folder / "out.json").read_text()
    (folder / "out.json").unlink()
    return text, result.stdout


def test_a_run_as_weights_predicts_as_itself(main_tf2, folder, run):
    own, _ = probabilities_of(main_tf2, folder, f"--model_dir={run.path}")
    for weights in (run.path, run.checkpoints, run.checkpoints / "ckpt-7"):
        text, stdout = probabilities_of(main_tf2, folder, f"--weights={weights}")
        assert text == own
        assert all(name in stdout for name in NAMES)


@pytest.mark.slow
def test_a_run_as_weights_is_evaluated_with_its_settings(main_tf2, folder, run):
    command = ("--mode=eval", f"--weights={run.path}")
    alone = main_tf2(*command, cwd=folder)
    assert alone.returncode == 0, alone.stderr
    other = main_tf2(*command, "--data_dir=images", "--model_dir=result", cwd=folder)
    assert other.returncode == 0, other.stderr
    results = [
        json.loads((path / "eval.json").read_text()) for path in (run.path, folder / "result")
    ]
    assert results[0]["raw"]["images"] == results[1]["raw"]["images"]
    assert results[0]["raw"]["loss"] == pytest.approx(results[1]["raw"]["loss"], rel=1e-5)


def test_another_model_name_is_refused(main_tf2, folder, run):
    for mode in (["--mode=infer", "--image_path=one.png"], ["--mode=eval", "--data_dir=images"]):
        result = main_tf2(
            *mode, f"--weights={run.path}", "--model_name=efficientnetv2-s", cwd=folder
        )
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "holds a training of efficientnetv2-b0" in result.stderr


@pytest.fixture(scope="module")
def keras_file(folder):
    """A Keras model of 3 classes whose classifier has Keras's own name."""
    keras.utils.set_random_seed(4)
    backbone = get_model("efficientnetv2-b0", include_top=False, pooling="avg", overrides=BLOCKS)
    layers = [keras.Input((8, 8, 3)), backbone, keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    model.save(folder / "x.keras")
    return folder / "x.keras", model


def test_a_keras_model_predicts_its_own_classes(main_tf2, folder, keras_file):
    path, _ = keras_file
    command = ("--model_name=efficientnetv2-b0", f"--weights={path}", SETTINGS)
    _, stdout = probabilities_of(main_tf2, folder, *command)
    assert all(f"class {number}" in stdout for number in range(3))


@pytest.mark.slow
def test_a_keras_model_is_evaluated_beside_a_run_of_other_classes(main_tf2, folder, keras_file):
    path, _ = keras_file
    beside = RunDirectory(folder / "runs" / "efficientnetv2-b0-images")
    beside.start(resolve("efficientnetv2-b0", "digits"), [str(n) for n in range(10)])
    (folder / "other" / "images").mkdir(parents=True)
    for name in "abcde":  # five other classes, whose split the run holds
        shutil.copytree(folder / "images" / "ant", folder / "other" / "images" / name)
    config = resolve("efficientnetv2-b0", "folder", f"data.data_dir={folder}/other/images")
    open_data(config, beside)
    assert beside.split_file.exists()
    command = ("--mode=eval", "--model_name=efficientnetv2-b0", f"--weights={path}", SETTINGS)
    for extra in ([], [f"--model_dir={beside.path}"]):
        result = main_tf2(*command, "--data_dir=images", *extra, cwd=folder)
        assert result.returncode == 0, result.stderr
        assert "weights from" in result.stdout


@pytest.mark.slow
def test_a_keras_model_is_exported_in_8_bits(main_tf2, folder, keras_file):
    path, _ = keras_file
    result = main_tf2(
        *("--mode=export", "--format=tflite_int8", "--image_path=images/ant"),
        *("--model_name=efficientnetv2-b0", f"--weights={path}", SETTINGS, "--output_dir=exported"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    assert list((folder / "exported").glob("*.tflite"))
