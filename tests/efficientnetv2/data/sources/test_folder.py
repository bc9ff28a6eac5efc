"""A folder of real image files as a source: names, contents and labels of the images."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.sources import build_source
from efficientnetv2.data.sources.folder import FolderSource
from efficientnetv2.data.sources.folder_splits import scan_folder
from efficientnetv2.data.sources.own_images import open_images
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve
from hparams.errors import DataError

ENCODERS = {".jpg": tf.io.encode_jpeg, ".png": tf.io.encode_png}
CLASSES = ("daisy", "rose", "tulip")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """30 images; each is filled with a colour of its own: (class, number, 0)."""
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(CLASSES):
        (root / name / "more").mkdir(parents=True)
        for number in range(10):
            folder = root / name / ("more" if number % 2 else "")
            suffix = ".png" if number < 8 else ".jpg"
            image = np.full([4, 6, 3], (label * 40, number * 20, 0), np.uint8)
            (folder / f"{number}{suffix}").write_bytes(ENCODERS[suffix](image).numpy())
    return root


@pytest.fixture(scope="module")
def source(photos):
    return FolderSource(scan_folder(photos))


def load(source, split, **options):
    options = {"seed": None, "buffer": 1, **options}
    loaded = source.references(split, **options).map(source.load).as_numpy_iterator()
    return [(pathlib.Path(os.fsdecode(name)), data, int(label)) for name, data, label in loaded]


def test_facts(source):
    assert source.class_names == list(CLASSES)
    assert source.num_classes == 3
    assert source.default_splits == ("train", "minival", "test")
    assert [source.num_images(split) for split in source.default_splits] == [24, 3, 3]


@pytest.mark.parametrize("split", ["train", "minival", "test"])
@pytest.mark.parametrize("seed", [None, 8])
def test_name_bytes_and_label_are_those_of_the_file(split, seed, source, photos):
    seed = None if seed is None else tf.constant(seed, tf.int64)
    loaded = load(source, split, seed=seed)
    assert sorted(loaded) == sorted(load(source, split))
    for path, data, label in loaded:
        assert path.is_absolute() and path.read_bytes() == data
        assert path.relative_to(photos).parts[0] == CLASSES[label]
        pixel = tf.io.decode_image(data)[0, 0].numpy()
        assert abs(int(pixel[0]) - label * 40) <= 3


def test_the_splits_share_no_image_and_leave_none_out(source, photos):
    together = [path for split in source.default_splits for path, _, _ in load(source, split)]
    assert len(together) == 30
    assert set(together) == {path for path in photos.rglob("*.*") if path.is_file()}


def test_files_are_found_from_any_folder(photos, source, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    relative = FolderSource(scan_folder(pathlib.Path(photos.name)))
    monkeypatch.chdir(tmp_path)
    assert load(relative, "test") == load(source, "test")


def test_an_order_is_drawn_without_reading(photos, source, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    for path in photos.rglob("*.*"):
        (copy / path.relative_to(photos)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(photos)).write_bytes(path.read_bytes())
    other = FolderSource(scan_folder(copy))
    for path in copy.rglob("*.*"):
        path.unlink()
    order = other.references("train", seed=tf.constant(1, tf.int64), buffer=1)
    names = [os.fsdecode(name) for name in order.map(other.name).as_numpy_iterator()]
    expected = [str(path) for path, _, _ in load(source, "train", seed=tf.constant(1, tf.int64))]
    assert [name.replace(str(copy), str(photos)) for name in names] == expected


def test_every_order_of_three_images_comes_up_alike(source):
    # 600 draws of 6 orders: 100 each, standard deviation 9.1.
    seeds = tf.data.Dataset.range(600)
    orders = seeds.map(
        lambda seed: source.references("test", seed=seed, buffer=1).batch(3).get_single_element()
    )
    _, counts = np.unique(list(orders.as_numpy_iterator()), axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 100 - 4 * 9.1 and counts.max() < 100 + 4 * 9.1


@pytest.fixture
def one_file(tmp_path):
    """A source, the reference of one of its images, and its path."""
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").touch()
    source = FolderSource(scan_folder(tmp_path))
    reference = next(iter(source.references("train", seed=None, buffer=1)))
    return source, reference, pathlib.Path(os.fsdecode(source.name(reference).numpy()))


def test_a_file_that_is_gone_fails_in_load(one_file):
    source, reference, path = one_file
    path.unlink()
    with pytest.raises(tf.errors.NotFoundError, match=str(path)):
        source.load(reference)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_fails_in_load(one_file):
    source, reference, path = one_file
    path.chmod(0)
    with pytest.raises(tf.errors.PermissionDeniedError, match=str(path)):
        source.load(reference)


def test_names_may_be_any_bytes(tmp_path):
    for name in (b"a/\xff 1.png", b"a/\xe4\xb8\x80.png", b"b/1.png"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    source = FolderSource(scan_folder(tmp_path))
    for path, data, _ in load(source, "train"):
        assert os.fsencode(path).endswith(data)


def test_a_split_that_would_be_empty_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    source = FolderSource(scan_folder(tmp_path))
    assert source.num_images("train") == 2
    with pytest.raises(DataError, match=r"has too few images: its split 'test' would be empty"):
        source.num_images("test")


def test_build_source_keeps_the_split_in_a_file(photos, tmp_path):
    config = resolve("efficientnetv2-b0", "folder", {"data.data_dir": str(photos)})
    file = tmp_path / "split.csv"
    source = build_source(config, split_file=file)
    assert isinstance(source, FolderSource)
    assert file.read_text().count("\ntest,") == 3
    file.write_text(file.read_text().replace("\nminival,", "\ntest,"))
    assert build_source(config, split_file=file).num_images("test") == 6
    assert open_images(config, file).images["minival"] == []


def test_build_source_knows_the_home_folder(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    config = resolve("efficientnetv2-b0", "folder", {"data.data_dir": f"~/{photos.name}"})
    assert build_source(config).num_images("train") == 24


def test_a_service_cannot_read_what_only_this_process_can(photos, tmp_path):
    (tmp_path / "rose").symlink_to(photos / "rose")
    (tmp_path / "daisy").symlink_to(photos / "daisy")
    (tmp_path / "tulip").mkdir()
    (tmp_path / "tulip" / "1.tif").touch()
    settings = {"data.data_dir": str(tmp_path)}
    assert build_source(resolve("efficientnetv2-b0", "folder", settings)).num_classes == 3
    config = resolve(
        "efficientnetv2-b0", "folder", {**settings, "data.service": "grpc://localhost:1"}
    )
    with pytest.raises(DataError, match=r"data.service cannot read 'tulip/1.tif'.* JPEG, PNG, "):
        build_source(config)


def test_what_a_person_should_know_is_said_once_by_one_process(photos, tmp_path, capsys):
    copy = tmp_path / "photos"
    for name in CLASSES:
        (copy / name).mkdir(parents=True)
        for number in range(4):
            (copy / name / f"{number}.png").touch()
    (copy / "notes.txt").touch()
    config = resolve("efficientnetv2-b0", "folder", {"data.data_dir": str(copy)})
    run = RunDirectory(tmp_path / "run")
    line = f"folder '{copy}': left out 1 .txt\n"
    for is_chief, expected in ((False, ""), (True, line), (True, "")):
        open_data(config, run, is_chief=is_chief)
        assert capsys.readouterr().err == expected


def test_skip_leaves_out_listed_images_that_are_gone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.png").touch()
    settings = {"data.data_dir": str(tmp_path / "photos")}
    file = tmp_path / "split.csv"
    strict = resolve("efficientnetv2-b0", "folder", settings)
    build_source(strict, split_file=file)
    (tmp_path / "photos" / "a" / "1.png").unlink()
    with pytest.raises(DataError, match="take its line out"):
        build_source(strict, split_file=file)
    skip = resolve("efficientnetv2-b0", "folder", {**settings, "data.on_bad_image": "skip"})
    source = build_source(skip, split_file=file)
    assert sum(source.num_images(split) for split in source.default_splits) == 6
