"""Runs the Python code of README.md, as a newcomer does, on real images."""

import pathlib
import re

import numpy as np
import pytest
from sklearn import datasets
from tensorflow import keras

README = pathlib.Path(__file__).parents[1] / "README.md"

BLOCKS = ["r1_k3_s1_e1_i32_o16_c1", "r2_k3_s2_e4_i16_o32_c1", "r2_k3_s2_e4_i32_o96_se0.25"]
OVERRIDES = {"blocks_args": BLOCKS, "depth_coefficient": 1.0, "feature_size": 256}


@pytest.mark.slow
def test_a_model_evaluates_as_it_trains(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "get_model" in block]
    # Fewer blocks, for the sake of time: the first stages of B0.
    call = "num_classes=10, include_preprocessing=True"
    assert call in code
    code = code.replace(call, f"{call}, overrides={OVERRIDES}")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(1)
    digits = datasets.load_digits()
    pixels = np.kron(digits.images[:512] * (255 / 16), np.ones((1, 4, 4)))
    images = np.repeat(pixels[..., np.newaxis], 3, axis=-1).astype(np.float32)
    labels = digits.target[:512]
    variables = {"images": images, "labels": labels}
    fit, histories = keras.Model.fit, []
    monkeypatch.setattr(
        keras.Model, "fit", lambda *a, **options: histories.append(fit(*a, verbose=0, **options))
    )
    exec(code, variables)
    trained = histories[0].history["accuracy"][-1]
    model = variables["model"]  # loaded from its file
    evaluated = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert trained > 0.6 and evaluated > trained - 0.05
