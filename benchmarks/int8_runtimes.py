"""Measures how far apart a network that was trained in 8 bits, and its file, are.

LiteRT has several kernels for an 8-bit file: XNNPACK's, which it takes by itself, and the reference
ones. They round differently where a value lies half way between two steps, and each layer magnifies
that. So this compares the logits of the network with those of XNNPACK, and those of both kernels,
in steps of the last layer, on the test images. Writes a CSV.

    python -m benchmarks.quantise photos16 --runs=runs
    python -m benchmarks.int8_runtimes runs/b0-digits-0-int8 runs/s-digits-0-int8
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from benchmarks.measurement import RESULTS, write_beside
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.channels import normalisation_of
from hparams.errors import UserError
from hparams.quantisation import is_quantised

KERNELS = {"XNNPACK": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}
_BATCH = 40


def run_file(path: pathlib.Path, images: np.ndarray, kernels: OpResolverType) -> np.ndarray:
    """Returns the logits of a file, ``[N, K]``, computed by some kernels of LiteRT."""
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=kernels, num_threads=os.cpu_count()
    )
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        interpreter.resize_tensor_input(image["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], batch)
        interpreter.invoke()
        logits.append(interpreter.get_tensor(output["index"]).copy())
    return np.concatenate(logits)


def export_file(run: Any, name: str, folder: pathlib.Path, **options: Any) -> pathlib.Path:
    """Exports a run as a LiteRT format to an empty folder; returns the file."""
    # It raises if the file loses more than its limit; it is written all the same.
    with contextlib.suppress(UserError):
        run.export(name, output_dir=folder, **options)
    (file,) = folder.glob("*.tflite")
    return file


def measure(path: pathlib.Path) -> dict[str, Any]:
    """Returns the row of the CSV of a run that was trained in 8 bits."""
    import efficientnetv2  # TensorFlow: not before the runs are known to be of the right kind
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.data.preprocess import normalise
    from efficientnetv2.data.sample_images import verification_images
    from efficientnetv2.evaluation.loaded_model import load_trained

    run = RunDirectory(path)
    config, source = open_data(run.config(), run)
    pixels = verification_images(config, source).pixels
    model = load_trained(config, run).model
    with tempfile.TemporaryDirectory() as name:
        options = {"logits": True, "calibrated": False}
        trained = efficientnetv2.load_run(path)
        file = export_file(trained, "tflite_int8", pathlib.Path(name), **options)
        logits = {key: run_file(file, pixels, kernels) for key, kernels in KERNELS.items()}
    normalised = normalise(pixels, normalisation_of(config.model))
    logits["network"] = model.predict(normalised, batch_size=_BATCH, verbose=0)
    layer = model.layers[-1]
    low, high = layer.rounded(layer._folded).ranges["predictions"]
    row: dict[str, Any] = {"run": path.name, "images": len(pixels)}
    for one, other in (("network", "XNNPACK"), ("XNNPACK", "reference")):
        steps = np.abs(logits[one] - logits[other]) * 255 / (high - low)
        same = np.mean(logits[one].argmax(1) == logits[other].argmax(1))
        pair = f"{one} and {other}"
        row |= {
            f"{pair}: median steps": round(float(np.median(steps)), 1),
            f"{pair}: most steps": round(float(steps.max()), 1),
            f"{pair}: same class": round(float(same), 4),
        }
    return row


def _run_in_8_bits(text: str) -> pathlib.Path:
    """Returns the path of a run directory, of a training in 8 bits."""
    try:
        config = RunDirectory(pathlib.Path(text)).config()
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not is_quantised(config):
        raise argparse.ArgumentTypeError(f"'{text}' was not trained with --quantise=int8")
    return pathlib.Path(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=_run_in_8_bits, help="of --quantise=int8")
    for path in parser.parse_args().runs:
        row = measure(path)
        print(row, flush=True)
        write_beside([row], RESULTS / "int8_runtimes-2cpu.csv", keys=("run",))


if __name__ == "__main__":
    main()
