"""Tests --quantise=int8: the training, its file, going on after a kill, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import efficientnetv2
from efficientnetv2.evaluation.loaded_model import load_trained
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.resolve import flat

BLOCKS = "model.blocks_args=[r1_k3_s2_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16],model.feature_size=16"
SETTINGS = f"{BLOCKS},train.stages=1,data.augname=none,data.crop_area=[0.9,1]"
MODEL = ["--model=efficientnetv2-b0", "--image_size=16", "--batch_size=128"]


@pytest.fixture(scope="module")
def float_run(main_tf2, data_dir, tmp_path_factory):
    """A training of eight epochs: after fewer, many outputs differ by one step of 8 bits."""
    run = tmp_path_factory.mktemp("quantise") / "run"
    settings = f"--hparam_str={SETTINGS},data.data_dir={data_dir}"
    flags = [*MODEL, "--learning_rate=0.02", "--epochs=8", f"--model_dir={run}", settings]
    result = main_tf2("train", *flags, cwd=run.parent)
    assert result.returncode == 0, result.stderr
    return run


def quantise(main_tf2, run, *flags):
    arguments = ["--mode=train", "--quantise=int8", f"--weights={run}", "--batch_size=128"]
    return main_tf2(*arguments, "--epochs=2", *flags, cwd=run.parent)


@pytest.fixture(scope="module")
def int8_run(main_tf2, float_run):
    """Its 8-bit training, in the directory that is the default."""
    result = quantise(main_tf2, float_run)
    assert result.returncode == 0, result.stderr
    return float_run.with_name("run-int8")


@pytest.mark.slow
def test_it_goes_on_with_the_settings_of_the_float_run(float_run, int8_run):
    trained, config = (flat(RunDirectory(path).config()) for path in (float_run, int8_run))
    for key in ("model.blocks_args", "data.crop_area", "data.data_dir", "eval.isize"):
        assert config[key] == trained[key]
    assert config["train.isize"] == 16
    assert config["train.teacher"] == str(float_run)
    assert json.loads((int8_run / "teacher.json").read_text())


@pytest.mark.slow
def test_the_file_is_what_was_evaluated(main_tf2, int8_run):
    flags = [f"--model_dir={int8_run}", "--format=tflite_int8", "--logits", "--nocalibrated"]
    result = main_tf2("--mode=export", *flags, cwd=int8_run.parent)
    assert result.returncode == 0, result.stderr
    assert "quantised by TensorFlow" not in result.stdout
    export = json.loads((int8_run / "export" / "export.json").read_text())
    (check,) = export["files"].values()
    run = RunDirectory(int8_run)
    loaded = load_trained(run.config(), run)
    ranges = loaded.model.layers[-1].rounded(loaded.model.layers[-1]._folded).ranges
    low, high = ranges["predictions"]
    assert export["images"] == 360
    assert check["max_difference"] <= 1.01 * (high - low) / 255  # one step
    metrics = json.loads((int8_run / "eval.json").read_text())
    top1 = max(metrics[name]["top1"] for name in ("raw", "ema"))
    assert export["keras_accuracy"] <= top1 + 1e-6
    assert abs(check["accuracy"] - metrics["ema"]["top1"]) <= 2 / 360
    result = main_tf2("--mode=eval", f"--weights={int8_run}", cwd=int8_run.parent)
    assert result.returncode == 0, result.stderr
    assert f"{metrics['ema']['top1']:.4f}" in result.stdout


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(main_tf2, killer, float_run, int8_run):
    again = int8_run.with_name("again")
    flags = [f"--model_dir={again}", "--hparam_str=runtime.save_checkpoint_epochs=1"]
    assert not killer.survives(
        lambda: quantise(main_tf2, float_run, *flags), where=f"{again}/checkpoints/ckpt-18"
    )
    assert (again / "checkpoints" / "ckpt-9.index").exists()
    assert quantise(main_tf2, float_run, *flags).returncode == 0
    one, other = (
        tf.train.load_checkpoint(str(run / "checkpoints" / "ckpt-18")) for run in (int8_run, again)
    )
    names = [name for name in one.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    assert any("ranges" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--precision=bfloat16"], "computes in float32"),
        (["--hparam_str=train.stages=2"], "one image size"),
        (["--hparam_str=train.isize=32"], "they must be the same"),
        (["--hparam_str=model.dropout_rate=0.2"], "no dropout"),
        (["--hparam_str=model.survival_prob=0.8"], "no stochastic depth"),
        (["--recipe=fixres"], "settings of its own"),
        (["--preset=fast"], "train.preset=fast is for"),
        (["--folds=3"], "--folds is for your own images"),
        (["--model=efficientnet-lite0"], "holds a training of efficientnetv2-b0"),
        (["--mode=find_lr"], "find_lr"),
        (["--batch_size=auto"], "memory of float networks only; give a number for train.quantise"),
        (["--mode=search"], "--quantise belongs to --mode=train"),
        (["--hparam_str=runtime.strategy=tpu"], "one machine"),
    ],
)
def test_what_it_does_not_go_with(main_tf2, float_run, flags, message):
    result = quantise(main_tf2, float_run, f"--model_dir={float_run.parent}/no", *flags)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_it_needs_a_trained_network(main_tf2, tmp_path):
    for flags in ([], ["--weights=random"], ["--weights=imagenet"]):
        result = main_tf2("--mode=train", "--quantise=int8", *flags, cwd=tmp_path)
        assert result.returncode == 2
        assert "give --weights=RUN, its run directory" in result.stderr
    result = main_tf2("--mode=train", "--quantise=int4", cwd=tmp_path)
    assert (result.returncode, "int8" in result.stderr) == (2, True)


@pytest.mark.slow
def test_what_an_8_bit_run_is_not_for(main_tf2, int8_run, tmp_path):
    picture = tmp_path / "1.png"
    shutil.copy(next(int8_run.parent.rglob("*.png")), picture)
    for flags, message in (
        (["--mode=export", f"--model_dir={int8_run}"], "give --format=tflite_int8"),
        (["train", "digits", f"--weights={int8_run}"], "its float run"),
        (["train", "digits", "--quantise=int8", f"--weights={int8_run}"], "its float run"),
        (["train", "digits", f"--teacher={int8_run}", *MODEL], "its float run"),
        (
            ["infer", f"--weights={int8_run}", f"--image_path={picture}", "--features"],
            "needs a float network",
        ),
    ):
        result = main_tf2(*flags, cwd=tmp_path)
        assert result.returncode == 2, flags
        assert message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    result = main_tf2("infer", f"--weights={int8_run}", f"--image_path={picture}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_python_needs_no_name_of_the_network_either(float_run, tmp_path):
    run = efficientnetv2.train(
        quantise="int8",
        weights=float_run,
        epochs=1,
        overrides={"train.batch_size": 128},
        model_dir=tmp_path / "run",
    )
    assert run.config.model.model_name == "efficientnetv2-b0"
