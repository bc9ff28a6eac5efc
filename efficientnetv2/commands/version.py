"""Says which versions and devices a command runs with, without TensorFlow."""

from __future__ import annotations

import importlib.metadata
import platform

import efficientnetv2
from efficientnetv2.search.device import device_name

_PACKAGES = ("tensorflow", "keras", "tf-models-official", "ai-edge-litert", "onnxruntime")


def version_text() -> str:
    """Returns a line for each package that matters, and one for the devices."""
    lines = [f"efficientnetv2 {efficientnetv2.__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{package}: not installed")
    return "\n".join([*lines, f"devices: {device_name()}"])
