"""Compares float32 and int8 LiteRT files in size, latency and agreement with Keras.

``python -m benchmarks.litert`` (four minutes on two cores) prints a table and writes a CSV.
EfficientNet-Lite0 has its ImageNet weights, if their package is installed. EfficientNetV2-B0 has
random weights: speed and size do not depend on them, and its agreement is left out. The int8 files
are calibrated on crops of one photograph and checked on crops of the other.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import tensorflow as tf
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_sample_images

from benchmarks.fine_tuning import PACKAGE, packaged_weights
from benchmarks.measurement import write
from efficientnetv2 import get_model
from efficientnetv2.export.litert import convert, convert_int8, float_operators
from efficientnetv2.export.servable import Servable
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.model.fold_batchnorm import fold
from efficientnetv2.reporting.tables import table

CROPS = 100
ROUNDS = 31
THREADS = (1, 2)


def crops(photograph, *, count, size, seed):
    """Returns random square crops, float32 with whole numbers, ``[count, size, size, 3]``."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        side = int(min(photograph.shape[:2]) * rng.uniform(0.5, 1))
        top, left = (rng.integers(0, extent - side + 1) for extent in photograph.shape[:2])
        crop = photograph[top : top + side, left : left + side]
        images.append(np.round(tf.image.resize(crop, (size, size)).numpy()))
    return np.float32(images)


def servable_of(name, weights, size):
    model = get_model(
        name, weights=weights, include_preprocessing=True, classifier_activation="softmax"
    )
    classes = [str(number) for number in range(1000)]
    preprocess = "lite" if "lite" in name else "v1"
    return Servable(
        model, fold(model), classes, size, True, "probabilities", name, preprocess, str(weights)
    )


class Runner:
    def __init__(self, file, threads):
        self.interpreter = Interpreter(model_content=file, num_threads=threads)
        self.interpreter.allocate_tensors()
        (self.input,) = self.interpreter.get_input_details()
        (self.output,) = self.interpreter.get_output_details()
        self.seconds = []

    def __call__(self, image):
        self.interpreter.set_tensor(self.input["index"], image[np.newaxis])
        start = time.perf_counter()
        self.interpreter.invoke()
        self.seconds.append(time.perf_counter() - start)
        return self.interpreter.get_tensor(self.output["index"])[0].copy()


def measure(name, weights, calibration, checked):
    """Returns the row of one network: column -> value."""
    servable = servable_of(name, weights, checked.shape[1])
    files = {
        "float32": convert(servable, "float32"),
        "int8": convert_int8(
            servable, QuantisedNetwork(servable.folded, calibration), integer_io=False
        ),
    }
    expected = servable.model.predict(checked, batch_size=20, verbose=0)
    row = {
        "model": name,
        "float32_MB": round(len(files["float32"]) / 1e6, 3),
        "int8_MB": round(len(files["int8"]) / 1e6, 3),
        "size_ratio": round(len(files["int8"]) / len(files["float32"]), 4),
        "not_in_int8": len(float_operators(files["int8"])),
    }
    for threads in THREADS:
        runners = {kind: Runner(file, threads) for kind, file in files.items()}
        for index in range(ROUNDS + 3):
            for run in runners.values():
                run(checked[index])
        times = {kind: np.array(run.seconds[3:]) for kind, run in runners.items()}
        ratios = times["float32"] / times["int8"]
        for kind, seconds in times.items():
            row[f"{kind}_ms_{threads}_threads"] = round(1000 * float(np.median(seconds)), 2)
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        row[f"speed_ratio_{threads}_threads"] = round(float(middle), 2)
        row[f"speed_ratio_quartiles_{threads}_threads"] = f"{low:.2f} to {high:.2f}"
    run = Runner(files["int8"], 2)
    classes = np.array([run(image).argmax() for image in checked])
    row["agreement"] = float((classes == expected.argmax(axis=1)).mean()) if weights else ""
    return row


def main(argv):
    """Runs the benchmark."""
    del argv
    size, count = flags.FLAGS.size, flags.FLAGS.crops
    china, flower = load_sample_images().images
    rows = []
    for known, unknown, kind in ((china, flower, "flower"), (flower, china, "china")):
        calibration = crops(known, count=count, size=size, seed=0)
        checked = crops(unknown, count=count, size=size, seed=1)
        if importlib.util.find_spec(PACKAGE):
            row = measure("efficientnet-lite0", packaged_weights(), calibration, checked)
            rows.append({**row, "checked_on": kind})
    rows.append({**measure("efficientnetv2-b0", None, calibration[:16], checked), "checked_on": ""})
    lines = [[str(value) for value in row.values()] for row in rows]
    print(table(list(rows[0]), lines))
    write(f"litert-{size}px", list(rows[0]), lines)


if __name__ == "__main__":
    flags.DEFINE_integer("size", 224, "pixels")
    flags.DEFINE_integer("crops", CROPS, "to calibrate on, and to check on", lower_bound=ROUNDS + 3)
    app.run(main)
