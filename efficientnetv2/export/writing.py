"""A servable network and a format's name in; the file or folder of that format out."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable

import tensorflow as tf

from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.export.litert import convert, convert_int8
from efficientnetv2.export.onnx_file import onnx_bytes
from efficientnetv2.export.quantised import QuantisedNetwork
from efficientnetv2.export.saved_model import write_saved_model
from efficientnetv2.export.servable import Servable
from efficientnetv2.train.durable import replace, writing
from hparams.resolve import Config

# Format -> what follows the model's name; a SavedModel is a folder.
SUFFIXES = {
    "keras": ".keras",
    "saved_model": "_saved_model",
    "tflite": ".tflite",
    "tflite_fp16": "_fp16.tflite",
    "tflite_dynamic": "_dynamic.tflite",
    "tflite_int8": "_int8.tflite",
    "onnx": ".onnx",
}
_PRECISIONS = {"tflite": "float32", "tflite_fp16": "float16", "tflite_dynamic": "dynamic"}


def write(
    format_name: str,
    folder: pathlib.Path,
    servable: Servable,
    config: Config,
    *,
    network: Callable[[], QuantisedNetwork],
    integer_io: bool,
    with_xla: bool,
) -> pathlib.Path:
    """Writes one format in place of what an earlier export left there, and returns its path.

    Args:
      format_name: of ``SUFFIXES``.
      folder: exists.
      servable: the network.
      config: how encoded images are cropped and resized.
      network: makes the 8-bit network; called for ``tflite_int8`` alone.
      integer_io: as in ``convert_int8``.
      with_xla: as in ``write_saved_model``.

    Raises:
      WriteError: if it cannot be written; what was there stays.
    """
    path = folder / f"{servable.model_name}{SUFFIXES[format_name]}"
    draft = folder / f"draft{SUFFIXES[format_name]}"
    _remove(draft)
    with writing(path):
        try:
            if format_name == "keras":
                servable.model.save(draft)
            elif format_name == "saved_model":
                write_saved_model(
                    servable, draft, decode=_decoder(servable, config), with_xla=with_xla
                )
            elif format_name == "onnx":
                draft.write_bytes(onnx_bytes(servable))
            elif format_name == "tflite_int8":
                draft.write_bytes(convert_int8(servable, network(), integer_io=integer_io))
            else:
                draft.write_bytes(convert(servable, _PRECISIONS[format_name]))
            if draft.is_dir():
                _remove(path)
                draft.replace(path)
            else:
                replace(draft, path)
        finally:
            _remove(draft)
    return path


def _decoder(servable: Servable, config: Config) -> Callable[[tf.Tensor], tf.Tensor]:
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        image = decode_evaluation(
            encoded,
            image_size=config.eval.isize,
            preprocess=servable.preprocess,
            crop=config.data.eval_crop,
        )
        return image if servable.preprocessing else normalise(image, servable.preprocess)

    return decode


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
