"""Defines the export formats: how each is named, written, opened and checked.

Importing this module does not import TensorFlow, so flags and help texts can read the table. To add
a format, write a function that writes it and one that opens it, and add a row to ``FORMATS``.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.export.web_page import MODEL
from efficientnetv2.runtime.tensorflow_import import silence_native_output
from hparams.channels import GREY, RGB, count_text
from hparams.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from efficientnetv2.export.auto import Trial
    from efficientnetv2.export.servable import Servable
    from efficientnetv2.int8.quantizer import QuantisedNetwork
    from efficientnetv2.int8.rounded_network import RoundedNetwork
    from hparams.config import Config

    # Maps images float32 ``[B, S, S, C]`` to logits or probabilities ``[B, K]``.
    Runner = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The held-out images on which files are checked; no file is calibrated on them.

    Attributes:
      inputs: the images as the network takes them, float32 ``[N, S, S, C]``.
      expected: the Keras model's outputs, ``[N, K]``.
      labels: as in ``Images``.
    """

    inputs: np.ndarray
    expected: np.ndarray
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class ExportJob:
    """The arguments of a format's writer.

    Attributes:
      servable: the network to write.
      config: says how encoded images are cropped and resized.
      int8: returns the 8-bit network, which is made at the first call.
      quantise: calibrates another ``QuantisedNetwork``, with the settings that it is called with.
      calibration: images as the network takes them, float32 ``[N, S, S, C]``; none if no format
        is ``calibrated``.
      integer_io: inputs and outputs of the int8 file are uint8.
      with_xla: the SavedModel gets another signature that is compiled by XLA, for TPU.
      web_runtime: as in ``web_page.write_page``.
      held_out: the images that the file is checked on.
      max_loss: points of accuracy that the automatic choice may lose.
      trials: what the automatic choice has tried; it appends them.
    """

    servable: Servable
    config: Config
    int8: Callable[[], RoundedNetwork]
    quantise: Callable[..., QuantisedNetwork]
    calibration: np.ndarray
    integer_io: bool
    with_xla: bool
    held_out: HeldOut
    max_loss: float
    web_runtime: dict[str, pathlib.Path] | None = None
    trials: list[Trial] = dataclasses.field(default_factory=list)

    def weights_in_8_bits(self) -> QuantisedNetwork | None:
        """Returns the network with rounded weights alone; None: the quantiser does not know it."""
        if not is_quantisable(self.servable):
            return None
        return self.quantise(rounds_activations=False)


class UnsupportedLayerError(UserError):
    """A network that a format cannot express; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """How much the outputs of a file may differ from the Keras model's.

    Attributes:
      difference: largest allowed difference of an output, relative to the largest output if that
        is above 1 (logits). If it is given, nothing else is checked. None: no limit.
      disagreement: share of images whose top-1 class may differ, ties aside; at least one image.
      points: accuracy that may be lost, in percentage points; at least one image. Where labels are
        known, it is checked instead of ``disagreement``. None: no limit.
    """

    difference: float | None
    disagreement: float
    points: float | None = None


@dataclasses.dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
      suffix: what follows the model's name in the name of the file or folder.
      write: writes the file or folder at a path.
      open: opens it with the format's own runtime, as its users will.
      limit: how much its outputs may differ from the Keras model's.
      requires: extra packages that it needs.
      extra: of this package, which brings them.
      options: the format-specific export flags that apply to it.
      calibrated: whether it is calibrated on images.
      is_integer: whether it is a LiteRT file whose operators should all compute in integers.
      channels: the numbers of channels that its images can have; empty: any.
      logits: whether its outputs can be logits.
    """

    suffix: str
    write: Callable[[pathlib.Path, ExportJob], object]
    open: Callable[[pathlib.Path], Runner]
    limit: Limit
    requires: tuple[str, ...] = ()
    extra: str = "export"
    options: tuple[str, ...] = ()
    calibrated: bool = False
    is_integer: bool = False
    channels: tuple[int, ...] = ()
    logits: bool = True


def _write_keras(path: pathlib.Path, job: ExportJob) -> None:
    from tensorflow import keras

    from efficientnetv2.checkpoints.model_arguments import FIT_MOMENTUM

    for layer in () if job.servable.is_own else job.servable.model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = FIT_MOMENTUM  # for whoever trains the file further
    job.servable.model.save(path)


def _open_keras(path: pathlib.Path) -> Runner:
    import tensorflow as tf

    from efficientnetv2.model.traced_function import function_without_gradient

    model = tf.keras.models.load_model(path, compile=False)
    run = function_without_gradient(
        lambda images: model(images, training=False), reduce_retracing=True
    )
    return lambda images: run(tf.constant(images)).numpy()


def _write_saved_model(path: pathlib.Path, job: ExportJob) -> None:
    from efficientnetv2.export.saved_model import write_saved_model

    write_saved_model(job.servable, path, config=job.config, with_xla=job.with_xla)


def _open_saved_model(path: pathlib.Path) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_outputs
    return lambda images: serve(image=tf.constant(images))[name].numpy()


def _write_litert(precision: str) -> Callable[[pathlib.Path, ExportJob], object]:
    def write(path: pathlib.Path, job: ExportJob) -> None:
        from efficientnetv2.export.litert import convert

        path.write_bytes(convert(job.servable, precision))

    return write


def _write_litert_int8(path: pathlib.Path, job: ExportJob) -> None:
    path.write_bytes(_litert_int8(job, integer_io=job.integer_io))


def _litert_int8(job: ExportJob, *, integer_io: bool) -> bytes:
    from efficientnetv2.export.litert import convert_int8, convert_int8_by_tensorflow

    is_trained = job.servable.rounded is not None  # in 8 bits
    if is_trained or is_quantisable(job.servable):
        return convert_int8(job.servable, job.int8(), integer_io=integer_io)
    return convert_int8_by_tensorflow(job.servable, job.calibration, integer_io=integer_io)


def is_quantisable(servable: Servable) -> bool:
    """Returns whether this program's own quantiser knows all layers of a network."""
    from efficientnetv2.int8.arithmetic import is_known

    return all(map(is_known, servable.standardised.operations))


def _write_litert_int16x8(path: pathlib.Path, job: ExportJob) -> None:
    from efficientnetv2.export.litert import convert_int16x8

    path.write_bytes(convert_int16x8(job.servable, job.weights_in_8_bits(), job.calibration))


def _write_litert_auto(path: pathlib.Path, job: ExportJob) -> None:
    from efficientnetv2.export.auto import write_auto

    write_auto(path, job)


def _open_litert(path: pathlib.Path) -> Runner:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    with silence_native_output():
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    (input_details,) = interpreter.get_input_details()
    (output_details,) = interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        if input_details["dtype"] != np.float32:
            step, zero = input_details["quantization"]
            limits = np.iinfo(input_details["dtype"])
            images = np.clip(np.round(images / step) + zero, limits.min, limits.max)
        interpreter.set_tensor(input_details["index"], images.astype(input_details["dtype"]))
        interpreter.invoke()
        outputs = interpreter.get_tensor(output_details["index"])
        if output_details["dtype"] != np.float32:
            step, zero = output_details["quantization"]
            outputs = (np.float32(outputs) - zero) * step
        return outputs

    return run


def _write_onnx(path: pathlib.Path, job: ExportJob) -> None:
    from efficientnetv2.export.onnx_file import onnx_model, packed

    path.write_bytes(packed(onnx_model(job.servable), job.servable))


def _open_onnx(path: pathlib.Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _write_onnx_int8(path: pathlib.Path, job: ExportJob) -> None:
    from efficientnetv2.export.onnx_int8 import onnx_int8_bytes

    path.write_bytes(onnx_int8_bytes(job.servable, job.calibration))


def _write_openvino(*, half: bool) -> Callable[[pathlib.Path, ExportJob], object]:
    def write(path: pathlib.Path, job: ExportJob) -> None:
        from efficientnetv2.export.openvino_file import write_openvino

        write_openvino(job.servable, path, half=half)

    return write


def _open_openvino(path: pathlib.Path) -> Runner:
    from efficientnetv2.export.openvino_file import open_openvino

    return open_openvino(path)


def _write_web(precision: str) -> Callable[[pathlib.Path, ExportJob], object]:
    def write(path: pathlib.Path, job: ExportJob) -> None:
        from efficientnetv2.export.litert import convert
        from efficientnetv2.export.web_page import write_page

        servable = job.servable
        if servable.preprocessing and servable.limits not in _PAGE_LIMITS:
            raise UnsupportedLayerError(
                "the page passes pixels of 0..255 or 0..1, but the model takes "
                f"{servable.input_range}"
            )
        if precision == "int8":
            model = _litert_int8(job, integer_io=False)
        else:
            model = convert(servable, precision)
        write_page(path, model, servable, job.config, runtime=job.web_runtime)

    return write


def _open_web(path: pathlib.Path) -> Runner:
    return _open_litert(path / MODEL)


# The smallest and largest inputs that a page can make of pixels; see Servable.limits.
_PAGE_LIMITS = ((0.0, 255.0), (0.0, 1.0))

# Float formats differ only by rounding errors, which some networks magnify a thousandfold.
_ROUNDING = Limit(1e-3, 0.0)
_HALF = Limit(None, 0.01)
_INT8 = Limit(None, 0.03, points=0.5)
_ONNX = ("onnx", "onnxruntime", "tf2onnx")
_OPENVINO = ("openvino", "onnx", "tf2onnx")


def _web_page(precision: str, suffix: str, limit: Limit) -> Format:
    is_int8 = precision == "int8"
    return Format(
        suffix,
        _write_web(precision),
        _open_web,
        limit,
        options=("web_runtime", "debug_int8") if is_int8 else ("web_runtime",),
        calibrated=is_int8,
        is_integer=is_int8,
        channels=(GREY, RGB),  # browsers open no files of others
        logits=False,  # it shows percentages
    )


FORMATS: Mapping[str, Format] = {
    "keras": Format(".keras", _write_keras, _open_keras, _ROUNDING),
    "saved_model": Format(
        "_saved_model",
        _write_saved_model,
        _open_saved_model,
        _ROUNDING,
        options=("export_to_tpu", "serving_dir"),
    ),
    "tflite": Format(".tflite", _write_litert("float32"), _open_litert, _ROUNDING),
    "tflite_fp16": Format("_fp16.tflite", _write_litert("float16"), _open_litert, _HALF),
    # The runtime chooses the ranges anew for each image; nothing is calibrated.
    "tflite_dynamic": Format(
        "_dynamic.tflite", _write_litert("dynamic"), _open_litert, Limit(None, 0.10, points=0.5)
    ),
    "tflite_int8": Format(
        "_int8.tflite",
        _write_litert_int8,
        _open_litert,
        _INT8,
        options=("integer_io", "debug_int8"),
        calibrated=True,
        is_integer=True,
    ),
    "tflite_int16x8": Format(
        "_int16x8.tflite",
        _write_litert_int16x8,
        _open_litert,
        _INT8,
        calibrated=True,
        is_integer=True,
    ),
    # Its limit is --max_loss.
    "tflite_auto": Format(
        "_auto.tflite",
        _write_litert_auto,
        _open_litert,
        _INT8,
        options=("max_loss",),
        calibrated=True,
    ),
    "onnx": Format(".onnx", _write_onnx, _open_onnx, _ROUNDING, requires=_ONNX),
    "onnx_int8": Format(
        "_int8.onnx", _write_onnx_int8, _open_onnx, _INT8, requires=_ONNX, calibrated=True
    ),
    "openvino": Format(
        "_openvino",
        _write_openvino(half=False),
        _open_openvino,
        _ROUNDING,
        requires=_OPENVINO,
        extra="openvino",
    ),
    "openvino_fp16": Format(
        "_fp16_openvino",
        _write_openvino(half=True),
        _open_openvino,
        _HALF,
        requires=_OPENVINO,
        extra="openvino",
    ),
    "web": _web_page("float32", "_web", _ROUNDING),
    "web_fp16": _web_page("float16", "_web_fp16", _HALF),
    "web_int8": _web_page("int8", "_web_int8", _INT8),
}


def require_channels(formats: Sequence[str], channels: int) -> None:
    """Checks that images of so many channels suit each format.

    Raises:
      UserError: if they do not suit one.
    """
    for name in formats:
        possible = FORMATS[name].channels
        if possible and channels not in possible:
            numbers = " or ".join(map(str, possible))
            raise UserError(
                f"--format={name} is for photos, which have {numbers} channels; this network is "
                f"for images of {count_text(channels)}"
            )
