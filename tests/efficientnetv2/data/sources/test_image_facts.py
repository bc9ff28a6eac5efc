"""What a preset is told of a folder: number of training images and their usual size."""

import pytest
from PIL import Image

from efficientnetv2.data.sources.image_facts import image_facts
from efficientnetv2.data.sources.own_images import images_of_run, open_images
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve
from hparams.facts import ImageFacts


def write(folder, *sizes, suffix=".png"):
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        (folder / "test" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (300, 300)).save(folder / "test" / name / "0.png")
        for number, size in enumerate(sizes):
            Image.new("L", size).save(folder / "train" / name / f"{number:02d}{suffix}")


def config_of(folder):
    return resolve("efficientnetv2-b0", "folder", {"data.data_dir": str(folder)})


def facts_of(folder, run=None):
    return image_facts(images_of_run(config_of(folder), run))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp", ".tiff"])
def test_the_side_is_the_median_over_training_images_of_every_format(tmp_path, suffix):
    write(tmp_path, *[(32, 50)] * 18, (900, 100), (900, 100), suffix=suffix)
    assert facts_of(tmp_path) == ImageFacts(num_images=36, side=40)  # a tenth is minival


def test_files_that_state_no_size_are_left_out(tmp_path):
    write(tmp_path, *[(64, 64)] * 20)
    for number in range(10):
        (tmp_path / "train" / "cat" / f"{number:02d}.png").write_bytes(b"no image")
    assert facts_of(tmp_path).side == 64
    for path in tmp_path.glob("train/*/*.png"):
        path.write_bytes(b"")
    assert facts_of(tmp_path) == ImageFacts(num_images=36, side=None)


def test_an_image_that_pillow_refuses_to_open_is_left_out(tmp_path):
    write(tmp_path, *[(64, 64)] * 20, suffix=".tiff")
    for path in tmp_path.glob("train/cat/*.tiff"):
        path.write_bytes(b"P6\n30000 30000\n255\n")  # a decompression bomb, for Pillow
    assert facts_of(tmp_path) == ImageFacts(num_images=36, side=64)


def test_images_that_were_added_after_the_start_do_not_count(tmp_path):
    run = RunDirectory(tmp_path / "run")
    write(tmp_path / "photos", *[(64, 64)] * 20)
    assert facts_of(tmp_path / "photos", run).num_images == 36
    assert not run.split_file.exists()
    run.create()
    open_images(config_of(tmp_path / "photos"), run.split_file, writes=True)
    write(tmp_path / "photos", *[(64, 64)] * 40)
    assert facts_of(tmp_path / "photos", run).num_images == 36
    assert facts_of(tmp_path / "photos").num_images == 72
