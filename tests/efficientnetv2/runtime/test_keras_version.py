"""Tests that Keras's own settings change no model, or that one line says what to change."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.runtime.keras_version import choose_keras, require_keras_3
from hparams.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
BLOCKS = {"blocks_args": ["r1_k3_s2_e2_i8_o8_se0.25"], "feature_size": 8}


def test_keras_2_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    with pytest.raises(UserError, match=r"LEGACY_KERAS=1 makes tf\.keras Keras 2, but") as caught:
        require_keras_3()
    assert "\n" not in str(caught.value)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    with pytest.raises(UserError, match="Keras runs on jax, but models are built on TensorFlow"):
        require_keras_3()


def test_the_program_chooses_for_itself(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in ("tensorflow", "keras"):
        monkeypatch.delitem(sys.modules, name)
    choose_keras()
    assert (os.environ["TF_USE_LEGACY_KERAS"], os.environ["KERAS_BACKEND"]) == ("0", "tensorflow")


@pytest.mark.parametrize(
    "name", ["efficientnetv2-b0", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_a_default_of_channels_first_changes_nothing(name):
    options = {"num_classes": 3, "overrides": BLOCKS if name != "resnet50" else None}
    options["include_preprocessing"] = True
    expected = get_model(name, **options)
    keras.config.set_image_data_format("channels_first")
    try:
        model = get_model(name, **options)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    model.set_weights(expected.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(model(images), expected(images), atol=1e-5)


@pytest.mark.slow
def test_a_prediction_under_hostile_settings(tmp_path):
    (tmp_path / "keras.json").write_text(
        json.dumps({"image_data_format": "channels_first", "backend": "jax"})
    )
    settings = "model.blocks_args=[r1_k3_s2_e2_i8_o8_se0.25],model.feature_size=8,eval.isize=8"
    get_model("efficientnetv2-b0", num_classes=3, overrides=BLOCKS).save(tmp_path / "x.keras")
    keras.utils.save_img(tmp_path / "one.png", np.zeros((9, 9, 3)))
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    arguments = [
        *("--mode=infer", "--model_name=efficientnetv2-b0", "--weights=x.keras"),
        *("--image_path=one.png", f"--hparam_str={settings}"),
    ]
    done = subprocess.run(
        [sys.executable, ROOT / "main_tf2.py", *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "class 2" in done.stdout
