"""Writes the files of keras_versions.tar.xz with one version of Keras, into a folder.

    KERAS=keras python tests/golden/make_keras_versions.py keras_3.0       (or KERAS=tf_keras)

The network is the EfficientNetV2 of keras.applications with 2 blocks of 8 channels: alone, in a
Sequential model with a head, and in a functional one, as the Keras documentation shows. Each value
is drawn by the name of its variable; tests/efficientnetv2/checkpoints/test_keras_versions.py draws
the same.
"""

import importlib
import inspect
import os
import pathlib
import sys
import zlib

import numpy as np

BLOCKS = [
    {"kernel_size": 3, "num_repeat": 1, "input_filters": 8, "output_filters": 8}
    | {"expand_ratio": 2, "se_ratio": 0, "strides": 2, "conv_type": 1},
    {"kernel_size": 3, "num_repeat": 1, "input_filters": 8, "output_filters": 8}
    | {"expand_ratio": 2, "se_ratio": 0.25, "strides": 2, "conv_type": 0},
]


def draw(name, shape):
    """Returns the values of ``layer/variable``, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def build(keras, **options):
    """Builds the network, its values drawn by name."""
    module = "applications.efficientnet_v2"
    package = keras.__name__ + ".src." + module
    network = importlib.import_module(package).EfficientNetV2
    has_name = "name" in inspect.signature(network).parameters  # earlier: model_name
    return network(
        **{"name" if has_name else "model_name": "tiny"},
        width_coefficient=1 / 160,
        depth_coefficient=1.0,
        default_size=32,
        blocks_args=BLOCKS,
        weights=None,
        input_shape=(32, 32, 3),
        **options,
    )


def fill(model):
    """Draws all values; the classifier's are those of ``predictions``."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            fill(layer)
            continue
        name = "predictions" if type(layer).__name__ == "Dense" else layer.name
        if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "Dense"):
            variables = [v.name.split("/")[-1].split(":")[0] for v in layer.weights]
            variables = [v.replace("depthwise_kernel", "kernel") for v in variables]
            layer.set_weights(
                [draw(f"{name}/{v}", w.shape) for v, w in zip(variables, layer.weights)]
            )


def main(folder):
    """Writes every format that this version writes."""
    keras = importlib.import_module(os.environ["KERAS"])
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    plain = build(keras, classes=3)
    backbone = build(keras, include_top=False, pooling="avg")
    head = [keras.layers.Dropout(0.2), keras.layers.Dense(3, activation="softmax")]
    nested = keras.Sequential([keras.Input((32, 32, 3)), backbone, *head])
    inputs = keras.Input((32, 32, 3))
    x = build(keras, include_top=False)(inputs, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    readme = keras.Model(inputs, keras.layers.Dense(3)(x))
    for name, model in (("plain", plain), ("nested", nested), ("readme", readme)):
        fill(model)
        for suffix in (".keras", ".weights.h5", ".h5"):
            path = folder / f"{name}{suffix}"
            try:
                model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
            except ValueError as error:  # Keras 3.0 cannot write a nested model as .h5
                print(f"{path}: {error}")
                path.unlink()
        if keras.__name__ == "tf_keras":
            model.save_weights(folder / f"{name}_h5_weights.h5", save_format="h5")
            (folder / f"{name}_checkpoint").mkdir()
            model.save_weights(folder / f"{name}_checkpoint" / "w", save_format="tf")
            model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
            model.save(folder / f"{name}_saved_model", save_format="tf")


if __name__ == "__main__":
    main(sys.argv[1])
