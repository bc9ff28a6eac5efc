"""Tests predictions of many images: lists, shards, kills and the core without files."""

import csv
import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import efficientnetv2 as env2
from efficientnetv2.evaluation.image_prediction import UnreadableImage
from efficientnetv2.evaluation.predictor import predict
from efficientnetv2.model.factory import build_model
from hparams import resolve

ROOT = pathlib.Path(__file__).parents[3]
BLOCKS = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,model.num_classes=7"
FLAGS = ["predict", "--model=efficientnetv2-b0", "--top_k=2", "--image_size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images in a folder, two of them in folders of their own, and one that is none."""
    folder = tmp_path_factory.mktemp("many")
    for number, name in enumerate(["b 1", "a", "c/d", "e", "f/g", "h", "i", "j", "k", "ä"]):
        file = folder / "photos" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        file.write_bytes(tf.io.encode_png(pixels).numpy())
    (folder / "photos" / "h.png").write_text("no image")
    return folder


@pytest.fixture
def predicted(main_tf2, tiny_weights, folder, tmp_path):
    """Runs the command; returns what it printed, and the rows of its CSV file."""

    def run(*flags, batch_size=3, code=0):
        output = tmp_path / "out.csv"
        common = [*FLAGS, f"--weights={tiny_weights}", f"--batch_size={batch_size}"]
        common += [f"--hparam_str={BLOCKS},data.on_bad_image={'skip' if code == 0 else 'error'}"]
        result = main_tf2(*common, f"--output={output}", *flags, cwd=folder)
        assert result.returncode == code, result.stderr
        return result, list(csv.DictReader(output.read_text(encoding="utf-8").splitlines()))

    return run


def test_a_list_is_predicted_in_its_order(predicted, folder, tmp_path):
    listed = ["photos/k.png", "photos/gone.png", "", "photos/b 1.png", "photos/h.png"]
    listed += ["photos/k.png", "photos/ä.png"]
    (tmp_path / "list.txt").write_text("\r\n".join(listed), encoding="utf-8")
    result, rows = predicted(str(tmp_path / "list.txt"), code=2)
    expected = ["photos/k.png", "photos/b 1.png", "photos/k.png", "photos/ä.png"]
    assert [row["image"] for row in rows] == expected
    gone, broken = result.stderr.splitlines()
    line = f"main_tf2.py: '{tmp_path}/list.txt' line"
    assert gone.startswith(f"{line} 2: cannot read image 'photos/gone.png': No such file")
    assert broken.startswith(f"{line} 5: 'photos/h.png' is not an image or is damaged")
    assert "\n4 images in " in result.stdout
    _, whole = predicted("photos")
    of_folder = {row["image"]: row for row in whole}
    for row in rows:
        assert row["class_1"] == of_folder[row["image"]]["class_1"]
        assert float(row["probability_1"]) == pytest.approx(
            float(of_folder[row["image"]]["probability_1"]), abs=1e-6
        )


def test_a_list_comes_from_standard_input(predicted, folder, monkeypatch):
    found = subprocess.run(
        ["find", "photos", "-name", "*.png", "-print0"], cwd=folder, capture_output=True, check=True
    ).stdout
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(found)))
    result, rows = predicted("-", "--features", f"--output_dir={folder}", code=2)
    listed = [name.decode() for name in found.split(b"\0")[:-1]]
    assert [row["image"] for row in rows] == [n for n in listed if n != "photos/h.png"]
    place = listed.index("photos/h.png") + 1
    assert f"main_tf2.py: standard input line {place}: 'photos/h.png' is not" in result.stderr
    with np.load(folder / "features.npz") as arrays:
        assert arrays["images"].tolist() == [row["image"] for row in rows]
        assert arrays["features"].shape == (9, 8)


def test_shards_make_the_whole(predicted):
    _, whole = predicted("photos", batch_size=1)  # equal bits, whichever come together
    of_image = {row["image"]: row for row in whole}
    names = sorted([*of_image, "photos/h.png"])  # which cannot be read
    for number in (1, 2, 3):
        _, rows = predicted("photos", f"--shard={number}/3", batch_size=1)
        mine = [name for k, name in enumerate(names) if k % 3 + 1 == number]
        assert rows == [of_image[name] for name in mine if name in of_image]


def test_a_shard_may_have_no_image(predicted):
    result, rows = predicted("photos", "--shard=12/12")
    assert rows == []
    first, second = result.stdout.splitlines()
    assert first == "--shard=12/12 has none of the 10 images"
    assert second.startswith("written to ") and second.endswith("out.csv")


def test_pictures_of_shards_have_numbers_of_their_own(predicted, tmp_path):
    for number in (1, 2):
        predicted("photos", f"--shard={number}/2", "--explain", f"--output_dir={tmp_path}")
    names = sorted(path.name for path in (tmp_path / "explain").iterdir())
    assert [name[:5] for name in names] == [f"{n:05}" for n in range(1, 11) if n != 6]


@pytest.mark.parametrize(
    "shard", ["0/4", "5/4", "a/b", "3", "1/0", "-1/4", "1/4/2", "1 / 4", "²/3"]
)
def test_a_shard_that_is_none_is_refused(shard, main_tf2, folder):
    result = main_tf2("predict", "photos", f"--shard={shard}", cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"--shard={shard}: give the number of the shard, from 1, and how many" in result.stderr


def test_both_languages_write_the_same_file(tiny_weights, folder, tmp_path, predicted, monkeypatch):
    predicted("photos", code=2)
    monkeypatch.chdir(folder)
    options = {"model": "efficientnetv2-b0", "weights": tiny_weights, "overrides": BLOCKS}
    options |= {"image_size": 16, "batch_size": 3, "top_k": 2}
    with pytest.warns(UserWarning, match="h.png' is not an image"):
        predictions = env2.predict("photos", **options, output=tmp_path / "python.csv")
    assert (tmp_path / "python.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [str(prediction.path) for prediction in predictions] == [row["image"] for row in rows]
    for prediction, row in zip(predictions, rows):
        assert prediction.probabilities.shape == (7,) and prediction.image is None
        name, probability = prediction.top(1)[0]
        assert (name, f"{probability:.6f}") == (
            row["class_1"],
            f"{float(row['probability_1']):.6f}",
        )
    frame = env2.predictions_to_frame(predictions, top_k=2)
    assert list(frame.image) == [row["image"] for row in rows]
    listed = env2.predict([prediction.path for prediction in predictions[3:5]], **options)
    assert [prediction.path for prediction in listed] == [p.path for p in predictions[3:5]]
    with pytest.raises(env2.UserError, match="lists no image"):
        env2.predict([], **options)


@pytest.fixture(scope="module")
def network():
    """A small network and its config."""
    tf.keras.utils.set_random_seed(2)
    config = resolve(
        "efficientnetv2-s",
        "digits",
        {
            "model.blocks_args": ["r1_k3_s2_e2_i8_o8_se0.25"],
            "model.feature_size": 12,
            "eval.isize": 28,
            "eval.batch_size": 4,
        },
    )
    return build_model(config.model), config


@pytest.fixture
def files(tmp_path):
    """22 images, of which the sixth is broken."""
    pixels = np.random.default_rng(0).integers(0, 256, (22, 30, 36, 3)).astype(np.uint8)
    paths = [tmp_path / f"{number:02}.png" for number in range(len(pixels))]
    for path, image in zip(paths, pixels):
        path.write_bytes(tf.io.encode_png(image).numpy())
    paths[5].write_bytes(paths[5].read_bytes()[:200])
    return paths


def test_the_rest_of_the_images_gets_the_bits_of_the_whole(network, files):
    whole = list(predict(*network, files, num_images=600))
    rest = list(predict(*network, iter(files[8:]), num_images=600))
    for one, other in zip(whole[8:], rest, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize(("crops", "flip"), [(1, False), (5, True)])
def test_many_images_are_predicted_as_few(network, files, crops, flip):
    """The network is folded, and the preprocessing traced, where there are many."""
    broken = [files[0].with_name(name) for name in ("empty.png", "text.png", "cut.jpg", "gone.png")]
    broken[0].touch()
    broken[1].write_text("no image")
    broken[2].write_bytes(tf.io.encode_jpeg(np.zeros((40, 40, 3), np.uint8)).numpy()[:100])
    some = [*files[:7], *broken]
    views = {"crops": crops, "flip": flip}
    few = list(predict(*network, some, **views, with_images=False))
    for one, other in zip(few, predict(*network, some, **views, num_images=600), strict=True):
        if isinstance(one, UnreadableImage):
            assert one == other
        else:
            assert one.image is None and other.image.shape == (28, 28, 3)
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert sum(isinstance(one, UnreadableImage) for one in few) == 5


@pytest.mark.slow
def test_killed_three_times_it_writes_the_same(
    tiny_weights, folder, start_process, tmp_path, wait_until
):
    images = tmp_path / "images"
    images.mkdir()
    files = sorted((folder / "photos").glob("*.png"))
    for number in range(640):
        shutil.copyfile(files[number * 7 % len(files)], images / f"{number:03}.png")
    command = [ROOT / "main_tf2.py", *FLAGS, "--data=images", "--features"]
    command += [f"--weights={tiny_weights}", f"--hparam_str={BLOCKS}", "--batch_size=8"]

    def start(name):
        (tmp_path / name).mkdir(exist_ok=True)
        flags = [f"--output={name}/all.csv", f"--output_dir={name}"]
        return start_process(*command, *flags, cwd=tmp_path)

    process = start("whole")
    _, errors = process.communicate()
    assert process.returncode == 2 and errors.count("\n") == 80  # as often as the broken one came
    state = tmp_path / "killed" / ".all.csv.state"
    for parts in (5, 30, 60):
        process = start("killed")
        wait_until(lambda: state.exists() and state.read_bytes().count(b"\n") > parts)  # noqa: B023
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / "all.csv").exists()
    process = start("killed")
    printed, again = process.communicate()
    assert process.returncode == 2 and again == errors
    assert json.loads(printed.split()[3]) >= 400 and printed.startswith("going on after ")
    for file in ("all.csv", "features.npz"):
        both = [(tmp_path / name / file).read_bytes() for name in ("whole", "killed")]
        assert both[0] == both[1]
    assert len(list((tmp_path / "killed").iterdir())) == 2
