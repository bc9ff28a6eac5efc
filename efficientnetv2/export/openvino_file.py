"""Writes a network as OpenVINO IR, a folder with an ``.xml`` and a ``.bin`` file, and runs it."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import onnx
import openvino

from efficientnetv2.export.onnx_file import onnx_model
from efficientnetv2.export.servable import Servable

MODEL = "model.xml"  # its weights lie beside it, in model.bin


def write_openvino(servable: Servable, folder: pathlib.Path, *, half: bool) -> None:
    """Writes a folder that maps ``image`` float32 ``[B, H, W, C]`` to ``[B, K]``.

    B, H and W are dynamic, as in the ONNX file. ``rt_info`` has, under ``model_info``, ``labels``
    (one class per line) and ``Servable.metadata`` as JSON values.

    Args:
      servable: the network to write.
      folder: the folder to write.
      half: weights are stored in 16 bits; the runtime computes as its device prefers.
    """
    # Read as a file rather than by ``openvino.convert_model``, which also reports its use to the
    # makers of OpenVINO.
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary) / "model.onnx"
        onnx.save(onnx_model(servable), str(path))
        model = openvino.Core().read_model(str(path))
        model.set_friendly_name(servable.model_name)
        model.set_rt_info("\n".join(servable.class_names), ["model_info", "labels"])
        for key, value in servable.metadata().items():
            model.set_rt_info(json.dumps(value), ["model_info", key])
        folder.mkdir()
        # Weights of the ONNX file are still read from it here.
        openvino.save_model(model, str(folder / MODEL), compress_to_fp16=half)


def open_openvino(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that runs a folder on the processor, in float32.

    It runs in a thread of its own: on processors with AMX, OpenVINO gives the thread that compiles
    a model a small stack for signals, and later a signal such as Ctrl-C's was a crash there.
    """
    core = openvino.Core()
    # Some processors would compute in 16 bits, which says nothing about the file.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    thread = concurrent.futures.ThreadPoolExecutor(1)
    model = thread.submit(core.compile_model, str(folder / MODEL), "CPU", settings).result()
    return lambda images: thread.submit(lambda: model([images])[0]).result()
