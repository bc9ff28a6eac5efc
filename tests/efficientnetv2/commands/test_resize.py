"""Trains, evaluates and predicts images that are not square with --resize=letterbox."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.slow  # all tests here read what one training wrote

SETTINGS = (
    "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,train.min_steps=0,"
    "train.batch_size=8,train.stages=1,data.augname=none"
)
TRAINING = (
    "train",
    "photos/",
    "--model=efficientnetv2-b0",
    "--preset=none",
    "--image_size=32",
    "--epochs=1",
    "--model_dir=run",
    f"--hparam_str={SETTINGS}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, main_tf2):
    """A folder with photos 24 px high and 60 wide, and a run directory of a training on them."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4), ("test", 6)):
        for shade, name in ((60, "dark"), (180, "light")):
            (folder / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(shade, shade + 60, (24, 60, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / part / name / f"{number}.png")
    result = main_tf2(*TRAINING, "--resize=letterbox", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_the_run_directory_keeps_the_choice(folder):
    assert RunDirectory(folder / "run").config().data.resize == "letterbox"


def test_prediction_sees_what_evaluation_sees(folder, main_tf2):
    evaluated = main_tf2("--mode=eval", "--model_dir=run", cwd=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    predicted = main_tf2(
        *("--mode=infer", "--model_dir=run", "--image_path=photos/test", "--output=rows.csv"),
        *("--explain", "--output_dir=maps"),
        cwd=folder,
    )
    assert predicted.returncode == 0, predicted.stderr
    with (folder / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((folder / "run" / "eval.json").read_text())
    losses = [metrics[weights]["loss"] for weights in ("raw", "ema")]
    of_class = [{row[f"class_{n}"]: float(row[f"probability_{n}"]) for n in "12"} for row in rows]
    true = [probabilities[row["image"].split("/")[2]] for row, probabilities in zip(rows, of_class)]
    assert -np.log(true).mean() in (pytest.approx(losses[0], rel=1e-5), pytest.approx(losses[1]))
    heat_map = np.array(Image.open(min((folder / "maps" / "explain").glob("*.png"))))
    assert heat_map.shape[0] == heat_map.shape[1] == 320  # with the bars


def test_another_choice_in_an_evaluation_and_not_in_the_training(folder, main_tf2):
    result = main_tf2(
        "--mode=eval", "--model_dir=run", "--resize=crop", "--eval_name=cropped", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "run" / "eval_cropped.json").exists()
    result = main_tf2(*TRAINING, "--resize=crop", cwd=folder)
    assert result.returncode == 2
    assert "data.resize letterbox -> crop" in result.stderr


def test_a_wrong_name_is_one_line_with_the_nearest(folder, main_tf2):
    result = main_tf2(*TRAINING, "--resize=leterbox", cwd=folder)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "published, squash, crop, letterbox" in line and "did you mean 'letterbox'" in line


def test_a_run_directory_from_before_the_key_had_its_name(folder, main_tf2):
    assert main_tf2(*TRAINING[:-2], "--model_dir=old", TRAINING[-1], cwd=folder).returncode == 0
    config = folder / "old" / "config.yaml"
    before = json.loads((folder / "old" / "eval.json").read_text())
    text = config.read_text()
    assert "resize: squash" in text
    config.write_text(text.replace("resize: squash", "eval_crop: false"))
    again = main_tf2("--mode=eval", "--model_dir=old", cwd=folder)
    assert again.returncode == 0, again.stderr
    after = json.loads((folder / "old" / "eval.json").read_text())
    assert after["raw"]["loss"] == pytest.approx(before["raw"]["loss"], rel=1e-6)
    settings = f"{TRAINING[-1]},data.eval_crop=false"  # as before, too
    longer = main_tf2(
        *TRAINING[:-3], "--epochs=2", "--extend", "--model_dir=old", settings, cwd=folder
    )
    assert longer.returncode == 0, longer.stderr
    assert [record["epoch"] for record in RunDirectory(folder / "old").metrics()] == [1, 2]


def test_preview_draws_the_bars(folder, main_tf2):
    arguments = ["preview", *TRAINING[1:-2], "--model_dir=preview", TRAINING[-1]]
    result = main_tf2(*arguments, "--resize=letterbox", cwd=folder)
    assert result.returncode == 0, result.stderr
    picture = np.array(Image.open(folder / "preview" / "preview.png").convert("RGB"))
    bars = (np.abs(picture.astype(int) - 128) < 2).all(-1)
    assert bars.mean() > 0.02
