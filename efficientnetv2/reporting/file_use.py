"""Says how to use each kind of exported file, in a few lines of Python."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class FileUse:
    """How files of one kind are used.

    Attributes:
      library: its name on Hugging Face.
      text: what opens such a file, in a few words.
      code: Python that maps ``images`` float32 ``[1, S, S, C]`` to ``{output}``, NumPy ``[K]``;
        ``{file}`` is the path.
    """

    library: str
    text: str
    code: str


# Format, or how the names of several begin -> how their files are used.
_USES: Mapping[str, FileUse] = {
    "keras": FileUse(
        "keras",
        "Keras; can be trained further",
        """\
        from tensorflow import keras

        model = keras.models.load_model("{file}")
        {output} = model.predict(images)[0]""",
    ),
    "saved_model": FileUse(
        "tensorflow",
        "TensorFlow and TensorFlow Serving",
        """\
        import tensorflow as tf

        model = tf.saved_model.load("{file}")
        serve = model.signatures["serving_default"]
        {output} = serve(image=tf.constant(images))["{output}"].numpy()[0]""",
    ),
    "tflite": FileUse(
        "litert",
        "LiteRT (TensorFlow Lite) and MediaPipe, on phones too",
        """\
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter("{file}")
        {output} = interpreter.get_signature_runner()(image=images)["{output}"][0]""",
    ),
    "web": FileUse(
        "litert",
        "a browser: the page of a server of plain files (`python -m http.server`) in this folder",
        """\
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter("{file}/model.tflite")
        {output} = interpreter.get_signature_runner()(image=images)["{output}"][0]""",
    ),
    "onnx": FileUse(
        "onnx",
        "ONNX Runtime",
        """\
        import onnxruntime

        session = onnxruntime.InferenceSession("{file}")
        {output} = session.run(None, {{"image": images}})[0][0]""",
    ),
    "openvino": FileUse(
        "openvino",
        "OpenVINO",
        """\
        import openvino

        model = openvino.compile_model("{file}/model.xml")
        {output} = model([images])[0][0]""",
    ),
}
_INTEGERS = """\
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("{file}")
(taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
step, zero = taken["quantization"]
pixels = np.clip(np.round(images / step) + zero, 0, 255).astype(np.uint8)
integers = interpreter.get_signature_runner()(image=pixels)["{output}"][0]
step, zero = given["quantization"]
{output} = (np.float32(integers) - zero) * step"""


def file_use(format_name: str) -> FileUse | None:
    """Returns how files of a format are used; None: it is not known here."""
    names = [name for name in _USES if f"{format_name}_".startswith(f"{name}_")]
    return _USES[names[0]] if names else None


def code_for(use: FileUse, *, file: str, output: str, is_integer: bool) -> str:
    """Returns the Python code for a file.

    Args:
      use: of its format.
      file: its path.
      output: name of the output: ``probabilities``, ``logits`` or ``numbers``.
      is_integer: it is a LiteRT file with uint8 input and output.
    """
    code = _INTEGERS if is_integer else textwrap.dedent(use.code)
    return code.format(file=file, output=output)
