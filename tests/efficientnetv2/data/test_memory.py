"""Host memory stays flat, however many images have passed."""

import json
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[3]

# In a process of its own: memory that other tests have used would hide growth. Run as a script:
# folder, number of images, result file.
SCRIPT = """
import json, pathlib, sys
import psutil
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.data.sources import build_source
from efficientnetv2.train.progressive import build_settings
from efficientnetv2.train.progressive import build_stages
from hparams import resolve

config = resolve("efficientnetv2-s", "folder", {
    "data.data_dir": sys.argv[1], "model.num_classes": 2, "data.train_split": "train",
    "train.batch_size": 100, "train.epochs": 1000, "train.stages": 1, "train.isize": 24,
    "data.ibase": 24, "data.augname": "randaug", "data.mixup_alpha": 0.2,
    "data.cutmix_alpha": 1.0,
})
source = build_source(config)
plan = build_stages(config, num_images=source.num_images("train"))
phases = [Phase(0, 0, plan[0].steps_per_epoch, 100)]
stream = build_training_input(config, source, phases=phases, settings=build_settings(config, plan))
resident = []
for step, _ in enumerate(stream.batches().take(int(sys.argv[2]) // 100), start=1):
    if step % 20 == 0:
        resident.append((100 * step, psutil.Process().memory_info().rss))
pathlib.Path(sys.argv[3]).write_text(json.dumps(resident))
"""


@pytest.mark.slow
def test_memory_is_flat_over_60_000_images(tmp_path):
    from benchmarks.photos import make_photos

    photos = tmp_path / "photos"
    make_photos(photos, crops=100)
    for path in list(photos.rglob("*.jpg")):  # 75,000 files, of which 60,000 are to train on
        Image.open(path).resize((32, 32)).save(path)  # quick to decode
        for copy in range(374):
            path.with_name(f"{path.stem}-{copy}.jpg").hardlink_to(path)
    result = tmp_path / "resident.json"
    arguments = [str(photos), "60000", str(result)]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, cwd=ROOT)
    resident = json.loads(result.read_text())
    warm = [size for images, size in resident if images <= 10_000]
    assert resident[-1][0] == 60_000
    later = [size for images, size in resident if images > 10_000]
    assert len(later) >= 24
    assert max(later) <= 1.05 * max(warm)
