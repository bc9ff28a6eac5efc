"""Images of 1, 4 and 13 channels on the command line: from the training to the exported file."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

BLOCKS = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8"
SETTINGS = (
    f"{BLOCKS},train.batch_size=8,train.epochs=1,train.stages=1,train.isize=16,eval.isize=16,"
    "train.preset=none"
)
TYPES = {1: np.uint8, 4: np.uint16, 13: np.float32}
MODEL = "--model_name=efficientnetv2-b0"


def write_images(folder, channels):
    """Writes 16 images of two classes to train on, 4 of val and 4 of test; some as TIFF or PNG."""
    rng = np.random.default_rng(channels)
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        for level, name in ((20, "land"), (140, "sea")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                array = rng.integers(level, level + 60, (12, 14, channels)).astype(TYPES[channels])
                path = folder / part / name / f"{number}"
                if channels == 1 and number % 2:
                    Image.fromarray(array[..., 0]).save(f"{path}.png")
                elif channels == 4 and number == 1 and has_tifffile():
                    write_tiff(f"{path}.tif", array)
                else:
                    np.save(f"{path}.npy", array)
    return folder


def has_tifffile():
    return importlib.util.find_spec("tifffile") is not None


def write_tiff(path, array):
    import tifffile

    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")


@pytest.fixture(scope="module")
def runs(main_tf2, tmp_path_factory):
    """Trains on images of so many channels, once: returns the folder of ``data`` and ``run``."""
    made = {}

    def run(channels):
        if channels not in made:
            folder = tmp_path_factory.mktemp("channels")
            write_images(folder / "data", channels)
            settings = f"{SETTINGS},model.channels={channels}"
            flags = ("--data_dir=data", "--model_dir=run", f"--hparam_str={settings}", MODEL)
            result = main_tf2("--mode=traineval", *flags, cwd=folder)
            assert result.returncode == 0, result.stderr
            made[channels] = folder
        return made[channels]

    return run


def saved_config(folder):
    return yaml.safe_load((folder / "run" / "config.yaml").read_text())["model"]


def read_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def training_pixels(folder, divisor):
    arrays = []
    for path in sorted((folder / "data" / "train").rglob("*.*")):
        if path.suffix == ".tif":
            import tifffile

            array = tifffile.imread(path)
        else:
            array = np.load(path) if path.suffix == ".npy" else read_png(path)
        arrays.append(array.reshape(12, 14, -1) / divisor)
    return np.stack(arrays)


@pytest.mark.parametrize(("channels", "divisor"), [(1, 1), (4, 257), (13, 1)])
def test_a_training_keeps_the_statistics_of_its_channels(runs, channels, divisor):
    folder = runs(channels)
    saved, pixels = saved_config(folder), training_pixels(folder, divisor)
    assert saved["channels"] == channels
    np.testing.assert_allclose(saved["pixel_mean"], pixels.mean((0, 1, 2)), rtol=6e-6)
    np.testing.assert_allclose(saved["pixel_deviation"], pixels.std((0, 1, 2)), rtol=1e-4)
    result = json.loads((folder / "run" / "eval.json").read_text())
    assert result["raw"]["images"] == 4


def test_a_training_that_goes_on_keeps_them(main_tf2, runs, tmp_path):
    folder = shutil.copytree(runs(4), tmp_path / "copy")
    before = saved_config(folder)
    for path in (folder / "data" / "train").rglob("*.npy"):
        np.save(path, np.load(path) * 2)
    settings = f"{SETTINGS},model.channels=4,train.epochs=2".replace("train.epochs=1,", "")
    flags = ("--data_dir=data", "--model_dir=run", f"--hparam_str={settings}", MODEL)
    result = main_tf2("--mode=train", *flags, "--extend", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert saved_config(folder) == before


@pytest.mark.parametrize("channels", [1, 4])
def test_files_are_predicted_and_explained(main_tf2, runs, channels, tmp_path):
    folder = runs(channels)
    flags = ("--model_dir=run", "--data_dir=data", MODEL, "--image_path=data/test", "--explain")
    flags += (f"--output={tmp_path / 'p.csv'}", f"--output_dir={tmp_path}")
    result = main_tf2("--mode=infer", *flags, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "p.csv").read_text().count("\n") == 5
    pictures = sorted((tmp_path / "explain").iterdir())
    assert len(pictures) == 4
    with Image.open(pictures[0]) as picture:
        assert picture.size == (320, 320)


def test_exported_files_take_the_channels(main_tf2, runs, tmp_path):
    """The outputs of each file are compared with those of Keras by the export itself."""
    folder = runs(4)
    flags = ("--model_dir=run", "--data_dir=data", MODEL, f"--output_dir={tmp_path}")
    flags += ("--format=saved_model,tflite,tflite_int8,onnx", "--preprocessing")
    result = main_tf2("--mode=export", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "export.json").read_text())
    saved = saved_config(folder)
    assert (report["channels"], report["mean"]) == (4, saved["pixel_mean"])
    assert report["deviation"] == saved["pixel_deviation"]
    differences = {name: row["max_difference"] for name, row in report["files"].items()}
    assert len(differences) == 4
    assert all(value < (0.05 if "int8" in name else 1e-5) for name, value in differences.items())
    model = tf.saved_model.load(str(tmp_path / "efficientnetv2-b0_saved_model"))
    assert set(model.signatures) == {"serving_default", "features"}
    pixels = np.load(folder / "data" / "test" / "sea" / "0.npy")[:12, :12] / np.float32(257)
    outputs = model.signatures["serving_default"](image=tf.constant(pixels[np.newaxis]))
    keras_model = rebuilt(folder)
    normalised = (pixels - np.array(saved["pixel_mean"])) / np.array(saved["pixel_deviation"])
    expected = tf.nn.softmax(keras_model(np.float32(normalised[np.newaxis])))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def rebuilt(folder):
    from efficientnetv2 import load_run

    return load_run(folder / "run").model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "report"),
    [(1, "stem summed over the colours for 1 channel"), (4, "stem repeated for 4 channels")],
)
def test_colour_weights_start_a_training(main_tf2, runs, tiny_weights, channels, report):
    folder = runs(channels)
    settings = f"{SETTINGS},model.channels={channels}"
    flags = ("--data_dir=data", f"--model_dir=tuned{channels}", MODEL, f"--weights={tiny_weights}")
    result = main_tf2("--mode=train", *flags, f"--hparam_str={settings}", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert report in result.stdout


WRONG = {
    "it has 4 channels, but model.channels is 13": ("data/train/land/0.npy", "channels=13"),
    "it holds pickled Python objects, which are not read": ("data/train/land/0.npy", "channels=4"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_files_are_one_line(main_tf2, runs, message, tmp_path):
    name, setting = WRONG[message]
    folder = shutil.copytree(runs(4), tmp_path / "copy")
    if "pickled" in message:
        np.save(folder / name, np.array([[{}]]), allow_pickle=True)
    flags = ("--data_dir=data", "--model_dir=new", MODEL, f"--hparam_str=model.{setting}")
    result = main_tf2("--mode=train", *flags, cwd=folder)
    assert (result.returncode, result.stderr) == (
        2,
        f"main_tf2.py: cannot read '{name}': {message}\n",
    )
    assert not (folder / "new").exists()


def test_arrays_in_a_folder_of_photos_are_no_images(main_tf2, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    np.save(folder / "train" / "dark" / "mask.npy", np.zeros((4, 4)))
    flags = ("--data_dir=photos", "--model_dir=checked")
    result = main_tf2("--mode=check", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "check of photos: 56 images" in result.stdout
    with_arrays = main_tf2("--mode=check", *flags, "--hparam_str=model.channels=1", cwd=tmp_path)
    assert "check of photos: 57 images" in with_arrays.stdout


def test_pretrained_weights_alone_do_not_say_the_normalisation(main_tf2, tiny_weights, runs):
    flags = (f"--weights={tiny_weights}", MODEL, "--image_path=data/test/sea/0.npy")
    settings = f"--hparam_str={BLOCKS},model.channels=4"
    result = main_tf2("--mode=infer", *flags, settings, cwd=runs(4))
    assert result.returncode == 2
    assert result.stderr.startswith("main_tf2.py: images of 4 channels are normalised by the mean")
    assert result.stderr.count("\n") == 1


def test_check_reads_arrays(main_tf2, runs):
    flags = ("--data_dir=data", "--hparam_str=model.channels=4", "--model_dir=checked")
    result = main_tf2("--mode=check", *flags, cwd=runs(4))
    assert result.returncode == 0, result.stderr
    assert "24 images of 2 classes" in result.stdout
    assert "cannot be read" not in result.stdout
