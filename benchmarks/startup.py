"""Times the start of whole commands beside the import of TensorFlow.

``python -m benchmarks.startup`` (two minutes on two cores) times ``--help``, the error of a wrong
key, and the inference of one image by EfficientNetV2-B0, with random weights, which take the same
time. Prints a table and writes a CSV.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks.measurement import in_turns, ratio, write
from efficientnetv2 import get_model
from efficientnetv2.reporting.tables import table

ROOT = pathlib.Path(__file__).parent.parent
IMPORT = "import tensorflow"


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / "b0.weights.h5"
        get_model("efficientnetv2-b0").save_weights(weights)
        infer = [f"--weights={weights}", "--image_path=docs/images/digits/7.png"]
        commands = {
            IMPORT: ["-c", "import tensorflow"],
            "--help": ["main_tf2.py", "--help"],
            "a wrong key": ["main_tf2.py", "--hparam_str=train.epoch=3"],
            "infer, one image, B0": [
                "main_tf2.py",
                "--mode=infer",
                "--model_name=efficientnetv2-b0",
                *infer,
            ],
        }

        def call_of(arguments: list[str]) -> subprocess.CompletedProcess:
            command = [sys.executable, *arguments]
            return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)

        done = {name: call_of(arguments) for name, arguments in commands.items()}
        codes = [result.returncode for result in done.values()]
        if codes != [0, 0, 2, 0]:
            raise SystemExit(f"exit codes {codes}: {done}")
        calls = {name: (lambda a=arguments: call_of(a)) for name, arguments in commands.items()}
        times = in_turns(calls, rounds=flags.FLAGS.rounds, warm_up=0)
    header = ["command", "median s", "fastest s", f"x {IMPORT}", "from", "to"]
    rows = [
        [
            name,
            f"{statistics.median(of.rounds):.2f}",
            f"{min(of.rounds):.2f}",
            *(f"{value:.2f}" for value in ratio(of, times[IMPORT])),
        ]
        for name, of in times.items()
    ]
    for row in rows:  # invert: here, how many times as long a command takes
        row[3:] = [f"{1 / float(value):.2f}" for value in (row[3], row[5], row[4])]
    print(table(header, rows))
    write("startup", header, rows)


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 7, "timed runs of each, in turns", lower_bound=1)
    app.run(main)
