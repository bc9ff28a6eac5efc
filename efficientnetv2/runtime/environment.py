"""Says on which devices and with which packages this program runs. Needs no TensorFlow."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re

import efficientnetv2

_NVIDIA = pathlib.Path("/proc/driver/nvidia/gpus")
_PROCESSOR = pathlib.Path("/proc/cpuinfo")


def devices() -> list[str]:
    """Returns the names of the devices to train on: the GPUs visible to CUDA, or else the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = sorted(path.name for path in _NVIDIA.iterdir()) if _NVIDIA.is_dir() else []
    if not gpus or visible in ("", "-1"):
        return ["cpu"]
    if visible is None:
        return [f"gpu{number}" for number in range(len(gpus))]
    return sorted({f"gpu{re.sub('[^A-Za-z0-9]', '-', name)}" for name in visible.split(",")})


def device_name() -> str:
    """Returns the model and number of the devices; step times are only compared within one such."""
    names = devices()
    if names == ["cpu"]:
        return f"{_field(_PROCESSOR, 'model name')} x {len(os.sched_getaffinity(0))}"
    first = sorted(_NVIDIA.iterdir())[0] / "information"
    return f"{_field(first, 'Model')} x {len(names)}"


def _field(path: pathlib.Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(rf"^{name}\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else "unknown processor"


_PACKAGES = ("tensorflow", "keras", "tf-models-official", "ai-edge-litert", "onnxruntime")


def environment() -> dict[str, str]:
    """Returns package -> version, of those that matter, and what the devices are called."""
    found = {"efficientnetv2": efficientnetv2.__version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "devices": device_name()}
