"""Writes keras_hub.tar.xz: a small preset of KerasHub's EfficientNetImageClassifier, and logits.

python tests/golden/make_keras_hub.py    (with keras-hub 0.32.0 and TensorFlow, from the root)
"""

import io
import pathlib
import tarfile
import tempfile

import keras_hub
import numpy as np

TARGET = pathlib.Path(__file__).parent / "keras_hub.tar.xz"
SIZES = (64, 75)
FILES = ("config.json", "model.weights.h5", "task.weights.h5")


def build():
    """The blocks of torch_networks.tar.xz's timm_v1, as KerasHub has timm's networks."""
    backbone = keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 5, 3],
        stackwise_num_repeats=[1, 2, 1],
        stackwise_input_filters=[8, 8, 8],
        stackwise_output_filters=[8, 8, 16],
        stackwise_expansion_ratios=[1, 6, 6],
        stackwise_strides=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0.25] * 3,
        stackwise_block_types=["v1"] * 3,
        stackwise_force_input_filters=[0] * 3,
        stackwise_nores_option=[False] * 3,
        num_features=64,
        batch_norm_epsilon=1e-5,
    )
    return keras_hub.models.EfficientNetImageClassifier(
        backbone=backbone, num_classes=5, preprocessor=None
    )


def randomise(model):
    """Draws weights and statistics, rounded so that the archive stays small."""
    rng = np.random.default_rng(0)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.2, 0.2)}
    ranges |= {"moving_variance": (0.001, 0.1), "bias": (-0.5, 0.5)}
    for weight in model.weights:
        steps = 1024
        if weight.name == "kernel":
            fan_in = max(9, np.prod(weight.shape[:-1]))
            low, high = -(1.5 * fan_in**-0.5), 1.5 * fan_in**-0.5
        else:
            low, high = ranges[weight.name]
        values = np.round(rng.uniform(low, high, weight.shape) * steps) / steps
        weight.assign(np.maximum(values, 1 / steps) if "variance" in weight.name else values)


def main():
    """Writes the archive."""
    model = build()
    randomise(model)
    arrays = {}
    for size in SIZES:
        pixels = np.random.default_rng(size).integers(0, 16, (2, size, size, 3), np.uint8)
        arrays[f"pixels_{size}"] = pixels
        logits = model(pixels / np.float32(8) - 1, training=False)
        arrays[f"logits_{size}"] = np.asarray(logits)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(TARGET, "w:xz") as tar:
        model.save_to_preset(folder)
        contents = {name: (pathlib.Path(folder) / name).read_bytes() for name in FILES}
        for name, content in {**contents, "arrays.npz": stream.getvalue()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    print(TARGET, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
