"""Written files and images in; how far each file is from the Keras model, and how fast, out.

Every file is opened by its format's own runtime, as its users will.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.export.images import Images
from efficientnetv2.quiet import quiet

# One image ``[1, S, S, C]`` or more, float32, to the answers ``[B, K]``.
Runner = Callable[[np.ndarray], np.ndarray]

_TIMED = 21
_WARM = 3
_TIE = 0.01  # of the largest answer: between two classes this near, rounding decides


@dataclasses.dataclass(frozen=True)
class Limit:
    """How far a file may be from the Keras model.

    Attributes:
      difference: largest difference of any output; in logits, by the largest logit; None: any.
      disagreement: share of images whose first class may differ, ties aside; one image always may.
      points: accuracy that may be lost, in percentage points, where labels are known; one image
        always may. Then the disagreement does not count.
    """

    difference: float | None
    disagreement: float
    points: float | None = None


# Float formats differ by rounding alone, which some networks magnify a thousandfold.
LIMITS = {
    "keras": Limit(1e-3, 0.0),
    "saved_model": Limit(1e-3, 0.0),
    "tflite": Limit(1e-3, 0.0),
    "tflite_fp16": Limit(None, 0.01),
    # Here the runtime chooses the ranges, anew for each image, and nothing is calibrated.
    "tflite_dynamic": Limit(None, 0.10, points=0.5),
    "tflite_int8": Limit(None, 0.03, points=0.5),
    "onnx": Limit(1e-3, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Check:
    """What was measured of one file.

    Attributes:
      megabytes: its size, of 10^6 bytes.
      milliseconds: median time of one image, batch 1, all processors.
      max_difference: largest difference of any output from the Keras model.
      agreement: share of images with the same first class.
      ties: of the others, the share whose two classes are almost equal for the Keras model.
      accuracy: share of images that it names right; None: labels are not known.
      fault: what is beyond the limit, for people; None: nothing.
    """

    megabytes: float
    milliseconds: float
    max_difference: float
    agreement: float
    ties: float
    accuracy: float | None
    fault: str | None


def verify(
    format_name: str, path: pathlib.Path, images: Images, given: np.ndarray, wanted: np.ndarray
) -> Check:
    """Runs a file on images.

    Args:
      format_name: of ``LIMITS``.
      path: the file or folder.
      images: their labels count.
      given: the same images as the file takes them, float32 ``[N, S, S, C]``.
      wanted: the Keras model's answers, ``[N, K]``.
    """
    run = RUNNERS[format_name](path)
    answers = np.concatenate([run(image[np.newaxis]) for image in given])
    first = answers.argmax(axis=1)
    scale = max(1.0, float(np.abs(wanted).max()))
    given_up = wanted.max(axis=1) - np.take_along_axis(wanted, first[:, np.newaxis], axis=1)[:, 0]
    differing, clearly = int((given_up > 0).sum()), int((given_up > _TIE * scale).sum())
    difference = float(np.abs(answers - wanted).max())
    accuracy = lost = None
    if images.labels is not None:
        accuracy = float((first == images.labels).mean())
        lost = int((wanted.argmax(axis=1) == images.labels).sum() - (first == images.labels).sum())
    return Check(
        megabytes=round(_size(path) / 1e6, 3),
        milliseconds=round(_latency(run, given[:1]), 2),
        max_difference=difference,
        agreement=1 - differing / len(given),
        ties=(differing - clearly) / len(given),
        accuracy=accuracy,
        fault=_fault(
            LIMITS[format_name],
            difference=difference / scale,
            differing=clearly,
            lost=lost,
            count=len(given),
        ),
    )


def _fault(
    limit: Limit, *, difference: float, differing: int, lost: int | None, count: int
) -> str | None:
    if not np.isfinite(difference):
        return "its answers are not numbers"
    if limit.difference is not None:
        # The first class of a near tie may differ; the numbers may not.
        return f"differs by {difference:.2g}" if difference > limit.difference else None
    if limit.points is not None and lost is not None:
        allowed = max(1, int(limit.points / 100 * count))
        return f"names {lost} of {count} images fewer right" if lost > allowed else None
    allowed = max(1, int(limit.disagreement * count))
    return f"names {differing} of {count} images otherwise" if differing > allowed else None


def _latency(run: Runner, image: np.ndarray) -> float:
    seconds = []
    for _ in range(_WARM + _TIMED):
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[_WARM:]))


def _size(path: pathlib.Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def _keras_runner(path: pathlib.Path) -> Runner:
    model = keras.models.load_model(path, compile=False)
    run = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return lambda images: run(tf.constant(images)).numpy()


def _saved_model_runner(path: pathlib.Path) -> Runner:
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_outputs
    return lambda images: serve(image=tf.constant(images))[name].numpy()


def _litert_runner(path: pathlib.Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        if taken["dtype"] != np.float32:
            step, zero = taken["quantization"]
            kind = np.iinfo(taken["dtype"])
            images = np.clip(np.round(images / step) + zero, kind.min, kind.max)
        interpreter.set_tensor(taken["index"], images.astype(taken["dtype"]))
        interpreter.invoke()
        answers = interpreter.get_tensor(given["index"])
        if given["dtype"] != np.float32:
            step, zero = given["quantization"]
            answers = (np.float32(answers) - zero) * step
        return answers

    return run


def _onnx_runner(path: pathlib.Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


RUNNERS: dict[str, Callable[[pathlib.Path], Runner]] = {
    "keras": _keras_runner,
    "saved_model": _saved_model_runner,
    "tflite": _litert_runner,
    "tflite_fp16": _litert_runner,
    "tflite_dynamic": _litert_runner,
    "tflite_int8": _litert_runner,
    "onnx": _onnx_runner,
}
