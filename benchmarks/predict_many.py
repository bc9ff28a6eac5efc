"""Predicts 60,000 images, watches the memory, and kills the command at three moments.

``python -m benchmarks.predict_many`` makes small PNG files (32 px, digits with noise) and predicts
them with a small network: once undisturbed, with the memory of the process sampled twice a second,
and once with a SIGKILL after about 20, 50 and 80% of the images, each time going on with the same
command. The final files must be equal byte for byte. Writes a CSV with a line for each tenth of
the images and for each kill; it takes some minutes on two cores, and 250 MB of disk for a while.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import psutil
from absl import app, flags
from PIL import Image

from benchmarks.measurement import write
from efficientnetv2 import get_model
from efficientnetv2.reporting.tables import table

ROOT = pathlib.Path(__file__).parent.parent
BLOCKS = "r1_k3_s2_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16_se0.25"
KILLS = (0.2, 0.5, 0.8)  # of the images
HEADER = ["run", "images", "seconds", "MiB of memory"]
_MIB = 2**20


def make_images(folder: pathlib.Path, count: int) -> None:
    """Writes digits of scikit-learn at four times their size, each with noise of its own."""
    from sklearn.datasets import load_digits

    digits = load_digits().images
    rng = np.random.default_rng(0)
    for number in range(count):
        file = folder / f"{number // 1000:03}" / f"{number:07}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.kron(digits[number % len(digits)] * 12, np.ones((4, 4)))
        noisy = (pixels + rng.integers(0, 60, pixels.shape)).astype(np.uint8)
        Image.fromarray(noisy).convert("RGB").save(file, compress_level=1)


def make_weights(path: pathlib.Path) -> None:
    overrides = {"blocks_args": BLOCKS.split(","), "feature_size": 64}
    get_model("efficientnetv2-b0", num_classes=10, overrides=overrides).save_weights(path)


class Command:
    """A prediction of all images in a process of its own."""

    def __init__(self, folder: pathlib.Path, output: str) -> None:
        settings = f"model.blocks_args=[{BLOCKS}],model.feature_size=64,model.num_classes=10"
        arguments = ["predict", "images", "--model=efficientnetv2-b0", "--weights=w.weights.h5"]
        arguments += ["--image_size=32", "--batch_size=64", f"--hparam_str={settings}"]
        arguments += [f"--output={output}"]
        self._state = folder / f".{output}.state"
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "main_tf2.py"), *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        self._read, self._images = 0, 0

    def samples(self) -> Iterator[tuple[int, float, float]]:
        """Yields images on the disk, seconds and MiB, twice a second until the command ends."""
        memory = psutil.Process(self.process.pid)
        while self.process.poll() is None:
            try:
                resident = memory.memory_info().rss / _MIB
            except psutil.NoSuchProcess:
                return
            yield self._done(), time.monotonic() - self.start, resident
            time.sleep(0.5)

    def _done(self) -> int:
        if self._state.exists():
            with self._state.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._images += json.loads(line).get("images", 0)
        return self._images


def undisturbed(folder: pathlib.Path, output: str, count: int) -> list[list[str]]:
    """Returns a row for each tenth of the images: the most memory that was used in it."""
    command = Command(folder, output)
    tenths: dict[int, tuple[int, float, float]] = {}
    for images, seconds, resident in command.samples():
        if images:
            before = tenths.get(images * 10 // count, (0, 0.0, 0.0))
            tenths[images * 10 // count] = images, seconds, max(resident, before[2])
    if command.process.wait():
        raise RuntimeError("the prediction failed")
    seconds = time.monotonic() - command.start
    rows = [["undisturbed", str(n), f"{at:.0f}", f"{mib:.0f}"] for n, at, mib in tenths.values()]
    return [*rows, ["undisturbed, to its end", str(count), f"{seconds:.0f}", ""]]


def killed(folder: pathlib.Path, output: str, count: int) -> list[list[str]]:
    """Returns a row for each kill, and one for the command that came to its end."""
    rows = []
    for share in (*KILLS, 2):
        command = Command(folder, output)
        last, most = (0, 0.0, 0.0), 0.0
        for last in command.samples():
            most = max(most, last[2])
            if last[0] >= share * count:
                command.process.kill()
                break
        code = command.process.wait()
        if share > 1 and code:
            raise RuntimeError("the prediction failed")
        what = "killed" if share < 1 else "gone on, to its end"
        rows.append([what, str(last[0]), f"{last[1]:.0f}", f"{most:.0f}"])
    return rows


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    count, suffix = flags.FLAGS.images, flags.FLAGS.suffix
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "images").mkdir()
        make_images(folder / "images", count)
        make_weights(folder / "w.weights.h5")
        print(f"{count:,} images are made", flush=True)
        rows = undisturbed(folder, f"whole.{suffix}", count)
        print(table(HEADER, rows), flush=True)
        rows += killed(folder, f"killed.{suffix}", count)
        files = [(folder / f"{run}.{suffix}").read_bytes() for run in ("whole", "killed")]
        same = "equal" if files[0] == files[1] else "DIFFERENT"
        digest = hashlib.sha256(files[1]).hexdigest()[:16]
        rows.append([f"final files: {same}, {len(files[1])} bytes, sha256 {digest}", "", "", ""])
    print(table(HEADER, rows))
    write(f"predict_many-{count}images-{suffix}", HEADER, rows)
    if same != "equal":
        raise SystemExit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("images", 60_000, "images to predict")
    flags.DEFINE_string("suffix", "csv", "ending of the file of predictions")
    app.run(main)
