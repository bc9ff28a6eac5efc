"""Runs a training step or an inference of keras.applications and timm, to compare ours with.

``keras.applications`` runs on the same TensorFlow. timm takes part if torch and timm are installed
(``requirements-bench.txt``); it runs in each precision and memory layout that a CPU supports.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tensorflow import keras

from benchmarks.torchvision_ops import detection_ops

NETWORKS = {
    "b0": ("efficientnetv2-b0", "EfficientNetV2B0", "tf_efficientnetv2_b0"),
    "s": ("efficientnetv2-s", "EfficientNetV2S", "tf_efficientnetv2_s"),
    "m": ("efficientnetv2-m", "EfficientNetV2M", "tf_efficientnetv2_m"),
}
Call = Callable[[], Any]
# Name -> (whether in bfloat16, whether channels_last in memory).
TORCH_SETTINGS = {
    "timm fp32": (False, False),
    "timm fp32 channels_last": (False, True),
    "timm bf16": (True, False),
    "timm bf16 channels_last": (True, True),
}


def keras_network(network: str, shape: Sequence[int | None]) -> keras.Model:
    """Returns the network of ``keras.applications``, from normalised images to logits."""
    build = getattr(keras.applications, NETWORKS[network][1])
    options = {"weights": None, "include_preprocessing": False, "input_shape": tuple(shape)}
    if None not in shape:
        return build(classifier_activation=None, **options)
    # With its own classifier, it takes images of a single size only.
    backbone = build(include_top=False, pooling="avg", **options)
    features = keras.layers.Dropout(0.2)(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(1000)(features))


def keras_compiled(network: str, shape: Sequence[int | None]) -> keras.Model:
    """Returns the network of ``keras.applications``, compiled for training."""
    model = keras_network(network, shape)
    model.compile(
        keras.optimizers.RMSprop(0.001, rho=0.9, momentum=0.9, epsilon=1e-3),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    )
    return model


def keras_training(network: str, images: np.ndarray, targets: np.ndarray) -> Call:
    """Returns one training step of Keras by ``train_on_batch``."""
    model = keras_compiled(network, images.shape[1:])
    return lambda: model.train_on_batch(images, targets)


def timm_settings() -> Sequence[str]:
    """Returns the names of timm's settings; none if torch or timm is not installed."""
    is_installed = all(importlib.util.find_spec(name) is not None for name in ("torch", "timm"))
    return tuple(TORCH_SETTINGS) if is_installed else ()


def timm_training(network: str, images: np.ndarray, targets: np.ndarray, *, setting: str) -> Call:
    """Returns one training step of timm's network in one of ``timm_settings``."""
    import torch

    is_bf16, is_last = TORCH_SETTINGS[setting]
    labels = torch.tensor(targets)
    model, inputs = _torch_network(network, images, is_last=is_last, drop_path_rate=0.2)
    model.train()
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=0.001, alpha=0.9, momentum=0.9, eps=1e-3, foreach=True
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            logits = model(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timm_inference(network: str, images: np.ndarray, *, setting: str) -> Call:
    """Returns one inference of timm's network in one of ``timm_settings``."""
    import torch

    is_bf16, is_last = TORCH_SETTINGS[setting]
    model, inputs = _torch_network(network, images, is_last=is_last)
    model.eval()

    def call() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            return model(inputs).float().numpy()

    return call


def _torch_network(
    network: str, images: np.ndarray, *, is_last: bool, **options: float
) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    with detection_ops():
        import timm
    layout = torch.channels_last if is_last else torch.contiguous_format
    model = timm.create_model(NETWORKS[network][2], pretrained=False, drop_rate=0.2, **options)
    inputs = torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return model.to(memory_format=layout), inputs.to(memory_format=layout)
