"""Tables of labels from training to the exported file: one class, several classes, numbers."""

import csv
import json
import shutil

import numpy as np
import pytest
import sklearn.datasets
import sklearn.metrics
from PIL import Image

import efficientnetv2 as env2
from efficientnetv2.cli import main
from efficientnetv2.export.formats import FORMATS
from hparams.errors import UserError

pytestmark = pytest.mark.slow  # all tests here read what a training wrote

NUM_IMAGES = 240
SIDE = 32
BLOCKS = "[r1_k3_s2_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16_c1,r1_k3_s2_e4_i16_o32_se0.25]"
SETTINGS = (
    f"model.blocks_args={BLOCKS},model.feature_size=64,train.preset=none,train.epochs=4,"
    f"train.batch_size=16,train.stages=1,train.isize={SIDE},eval.isize={SIDE},data.flip=false,"
    "data.crop_area=[0.9,1],data.mixup_alpha=0.2,eval.batch_size=16"
)
FORMATS_WRITTEN = ("tflite", "onnx", "saved_model")


def digits():
    loaded = sklearn.datasets.load_digits()
    return np.kron(np.uint8(loaded.images * 15), np.ones((2, 2), np.uint8)), loaded.target


def command(*arguments):
    return main(["main_tf2.py", *map(str, arguments)])


def train(folder, table, *arguments):
    """Returns the run directory of a training."""
    run = folder / f"run-{table.stem}"
    flags = [f"--model_dir={run}", "--model=efficientnetv2-b0", f"--hparam_str={SETTINGS}"]
    assert command("train", table, "--validate", *flags, *arguments) == 0
    return run


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory):
    """Images of 2 x 2 digits of 16 px, and a table of which digits each has."""
    folder = tmp_path_factory.mktemp("mosaics")
    images, targets = digits()
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    lines = ["file,labels,weight"]
    for number in range(NUM_IMAGES):
        chosen = rng.integers(0, len(images), 4)
        rows = [np.concatenate(list(images[pair]), 1) for pair in (chosen[:2], chosen[2:])]
        Image.fromarray(np.concatenate(rows)).save(folder / "images" / f"{number}.png")
        labels = "|".join(f"digit {digit}" for digit in sorted(set(targets[chosen])))
        lines.append(f"images/{number}.png,{labels},{1 + number % 2}")
    (folder / "several.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def angles(tmp_path_factory):
    """Digits turned by an angle; a table of the angle and of the mean brightness."""
    folder = tmp_path_factory.mktemp("angles")
    images, _ = digits()
    rng = np.random.default_rng(0)
    lines = ["path,angle,brightness"]
    (folder / "images").mkdir()
    for number in range(NUM_IMAGES):
        angle = rng.uniform(-45, 45)
        image = Image.fromarray(images[number]).resize((SIDE, SIDE)).rotate(angle)
        image.save(folder / "images" / f"{number}.png")
        lines.append(f"images/{number}.png,{angle:.3f},{np.asarray(image).mean() / 1000 - 5:.6f}")
    (folder / "angles.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def several(mosaics):
    return train(mosaics, mosaics / "several.csv")


@pytest.fixture(scope="module")
def numbers(angles):
    return train(angles, angles / "angles.csv", "--target_columns=angle,brightness")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def result(run):
    return json.loads((run / "eval.json").read_text())


# ---------------------------------------------------------------------- several classes


def test_several_classes_are_trained_and_evaluated(several):
    lines = [json.loads(line) for line in (several / "metrics.jsonl").read_text().splitlines()]
    assert {"minival_pr_auc", "minival_ema_pr_auc", "accuracy"} <= set(lines[-1])
    metrics = result(several)
    assert {"map", "ap_micro", "macro_f1", "top1"} <= set(metrics["ema"])
    record = json.loads((several / "best" / "best.json").read_text())
    assert record["metric"] == "pr_auc"
    config = env2.load_run(several).config
    assert (config.data.multi_label, config.train.loss_type) == (True, "sigmoid")
    assert [row["class"] for row in read(several / "thresholds.csv")] == [
        f"digit {number}" for number in range(10)
    ]


def test_an_evaluation_has_a_table_of_the_classes(several, mosaics, capsys):
    before = result(several)
    flags = [f"--model_dir={several}", "--model=efficientnetv2-b0"]
    assert command("eval", *flags) == 0
    output = capsys.readouterr().out
    assert "mAP" in output and "threshold" in output
    for weights in ("ema", "best"):
        assert result(several)[weights] == pytest.approx(before[weights], rel=1e-5)
    rows = read(several / "per_class.csv")
    assert len(rows) == 10
    precision = [float(row["average_precision"]) for row in rows]
    assert np.nanmean(precision) == pytest.approx(result(several)["best"]["map"])
    assert {row["name"]: row["threshold"] for row in rows} == {
        row["class"]: row["threshold"] for row in read(several / "thresholds.csv")
    }


def test_predictions_name_all_classes_above_their_thresholds(several, mosaics, tmp_path):
    thresholds = [float(row["threshold"]) for row in read(several / "thresholds.csv")]
    predictions = env2.predict(
        mosaics / "images",
        model_dir=several,
        model="efficientnetv2-b0",
        output=tmp_path / "all.csv",
    )
    rows = {row["image"]: row for row in read(tmp_path / "all.csv")}
    assert len(rows) == len(predictions) == NUM_IMAGES
    for prediction in predictions:
        above = prediction.probabilities >= np.float32(thresholds)
        names = {f"digit {number}" for number in np.flatnonzero(above)}
        assert set(prediction.labels) == names
        row = rows[str(prediction.path)]
        assert row["labels"] == "|".join(prediction.labels)
        shown = [float(text) for text in row["probabilities"].split("|") if text]
        assert shown == sorted(prediction.probabilities[above].tolist(), reverse=True)
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"all{suffix}"
        env2.predict(mosaics / "images", model_dir=several, model="efficientnetv2-b0", output=path)
        assert path.stat().st_size > 0
    frame = env2.predictions_to_frame(predictions)
    assert list(frame.columns) == ["image", "labels", "probabilities"]
    with pytest.raises(UserError, match="--top_k is for networks that name one class"):
        env2.predict(mosaics / "images", model_dir=several, model="efficientnetv2-b0", top_k=2)


def test_thresholds_that_somebody_changed_stay_and_count(several, mosaics, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(several, run)
    file = run / "thresholds.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "digit 0,0.123", *lines[2:]]))
    changed = file.read_bytes()
    flags = [f"--model_dir={run}", "--model=efficientnetv2-b0", f"--hparam_str={SETTINGS}"]
    assert command("train", mosaics / "several.csv", "--validate", *flags) == 0
    assert file.read_bytes() == changed
    other = [f"--weights={run}", f"--model_dir={tmp_path / 'other'}"]
    assert command("eval", mosaics / "several.csv", *other, "--model=efficientnetv2-b0") == 0
    by_class = {row["name"]: row for row in read(tmp_path / "other" / "per_class.csv")}
    assert float(by_class["digit 0"]["threshold"]) == pytest.approx(0.123)
    prediction = env2.predict(mosaics / "images" / "0.png", weights=run, model="efficientnetv2-b0")
    assert prediction[0].thresholds[0] == pytest.approx(0.123)


def test_a_file_of_predictions_is_a_table_to_train_on(several, mosaics, tmp_path):
    env2.predict(
        mosaics / "images",
        model_dir=several,
        model="efficientnetv2-b0",
        output=tmp_path / "new.csv",
    )
    flags = [f"--model_dir={tmp_path / 'run'}", f"--hparam_str={SETTINGS}"]
    assert command("preview", tmp_path / "new.csv", "--model=efficientnetv2-b0", *flags) == 0


def test_images_of_none_of_several_classes_are_unknown(several, mosaics, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):  # noise, no digits
        noise = np.uint8(rng.integers(0, 256, [SIDE, SIDE, 3]))
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    best = [p.probabilities.max() for p in env2.predict(paths, model_dir=several)]
    threshold = float(np.median(best))
    run = tmp_path / "run"
    shutil.copytree(several, run)  # its minival has too few images for a threshold
    rule = {"label": "unknown", "score": "max_probability", "threshold": threshold, "images": 24}
    (run / "calibration.json").write_text(json.dumps({"unknown": {**rule, "kept": 0.95}}))
    evaluated = tmp_path / "evaluated"
    flags = [f"--weights={run}", f"--model_dir={evaluated}", f"--unknown={tmp_path}/*.png"]
    assert command("eval", mosaics / "several.csv", "--model=efficientnetv2-b0", *flags) == 0
    metrics = result(evaluated)["raw"]
    csv_file = tmp_path / "all.csv"
    predictions = env2.predict(paths, model_dir=run, output=csv_file, allow_unknown=True)
    assert [p.is_unknown for p in predictions] == [value < threshold for value in best]
    assert metrics["unknown_found"] == 0.5
    assert 0 <= metrics["unknown_auroc"] <= 1
    expected = ["unknown" if p.is_unknown else "|".join(p.labels) for p in predictions]
    assert [row["answer"] for row in read(csv_file)] == expected
    assert [prediction.answer for prediction in predictions] == expected


# ---------------------------------------------------------------------- numbers


def test_numbers_are_trained_and_evaluated_in_their_unit(numbers, angles):
    metrics = result(numbers)["ema"]
    assert set(metrics) == {"images", "loss", "mae", "rmse", "r2"}
    line = json.loads((numbers / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"mae", "minival_r2", "minival_ema_r2", "minival_mae"} <= set(line)
    assert (numbers / "labels.txt").read_text() == "angle\nbrightness\n"
    config = env2.load_run(numbers).config
    trained = [row for row in read(numbers / "split.csv") if row["split"] == "train"]
    for index, name in enumerate(("angle", "brightness")):
        values = [float(row[f"target {name}"]) for row in trained]
        assert config.model.target_mean[index] == pytest.approx(np.mean(values))
        assert config.model.target_deviation[index] == pytest.approx(np.std(values))


def test_an_evaluation_has_a_picture_of_the_numbers(numbers, capsys):
    assert command("eval", f"--model_dir={numbers}", "--model=efficientnetv2-b0") == 0
    output = capsys.readouterr().out
    assert "R2" in output and "angle" in output
    rows = read(numbers / "per_number.csv")
    assert [row["number"] for row in rows] == ["angle", "brightness"]
    metrics = result(numbers)["best"]
    for name in ("r2", "mae", "rmse"):
        mean = np.mean([float(row[name]) for row in rows])
        assert mean == pytest.approx(metrics[name], rel=1e-3)
    with Image.open(numbers / "numbers.png") as picture:
        assert np.asarray(picture).std() > 10


def test_predictions_are_numbers_in_their_unit(numbers, angles, tmp_path):
    predictions = env2.predict(
        angles / "images", model_dir=numbers, model="efficientnetv2-b0", output=tmp_path / "all.csv"
    )
    true = {angles / row["path"]: row for row in read(angles / "angles.csv")}
    rows = read(tmp_path / "all.csv")
    assert list(rows[0]) == ["image", "angle", "brightness"]
    found = [prediction.numbers["angle"] for prediction in predictions]
    assert found == pytest.approx([float(row["angle"]) for row in rows])
    expected = [float(true[prediction.path]["angle"]) for prediction in predictions]
    assert np.corrcoef(found, expected)[0, 1] > 0.5
    assert -6 < np.mean([p.numbers["brightness"] for p in predictions]) < -4
    frame = env2.predictions_to_frame(predictions)
    assert list(frame.columns) == ["image", "angle", "brightness"]


def test_a_heat_map_of_a_number(numbers, angles, tmp_path):
    image = angles / "images" / "0.png"
    flags = [f"--model_dir={numbers}", "--model=efficientnetv2-b0", f"--output_dir={tmp_path}"]
    assert command("infer", image, *flags, "--explain") == 0
    assert len(list((tmp_path / "explain").glob("*.png"))) == 1


# ---------------------------------------------------------------------- exported files


def outputs_of(run, name, pixels):
    (path,) = [p for p in (run / "export").iterdir() if p.name.endswith(FORMATS[name].suffix)]
    return np.concatenate([FORMATS[name].open(path)(image[np.newaxis]) for image in pixels])


@pytest.mark.parametrize("kind", ["several", "numbers"])
def test_exported_files_give_what_python_predicts(kind, mosaics, angles, request):
    run = request.getfixturevalue(kind)
    folder = (mosaics if kind == "several" else angles) / "images"
    flags = [f"--model_dir={run}", "--model=efficientnetv2-b0"]
    assert command("export", f"--format={','.join(FORMATS_WRITTEN)}", *flags) == 0
    content = json.loads((run / "export" / "export.json").read_text())
    paths = [folder / f"{number}.png" for number in range(8)]
    predictions = env2.predict(paths, model_dir=run, model="efficientnetv2-b0")
    expected = np.stack([prediction.probabilities for prediction in predictions])
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths])
    for name in FORMATS_WRITTEN:
        np.testing.assert_allclose(outputs_of(run, name, pixels), expected, rtol=1e-3, atol=1e-4)
    if kind == "several":
        thresholds = [float(row["threshold"]) for row in read(run / "thresholds.csv")]
        assert content["thresholds"] == pytest.approx(thresholds)
        assert content["output"] == "probabilities"
    else:
        assert content["output"] == "numbers"


def test_unknown_images_are_for_classes(numbers, angles, capsys):
    flags = [f"--model_dir={numbers}", f"--unknown={angles / 'images'}"]
    assert command("eval", "--model=efficientnetv2-b0", *flags) == 2
    assert "--unknown" in capsys.readouterr().err
    assert not (numbers / "calibration.json").exists()


def test_logits_of_numbers_are_refused(numbers, capsys):
    flags = [f"--model_dir={numbers}", "--model=efficientnetv2-b0", "--logits"]
    assert command("export", "--format=tflite", *flags) == 2
    assert "--logits is for networks that predict classes" in capsys.readouterr().err


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target_columns=angle", "--hparam_str=train.loss_type=softmax"], "have numbers each"),
        (["--target_columns=angle", "--hparam_str=train.label_smoothing=0.1"], "give 0"),
        (["--target_columns=angle", "--hparam_str=data.multi_label=true"], "give one of them"),
        (
            ["--target_columns=angle", "--hparam_str=train.best_metric=top1"],
            "train.best_metric=top1 is not for images with numbers; give r2",
        ),
        (["--target_columns=angel"], "it has no column 'angel' (data.target_columns)"),
        ([], "it has no column 'label', 'labels' or 'target', only 'path', 'angle', 'brightness'"),
    ],
)
def test_settings_of_another_kind_are_refused(flags, message, angles, tmp_path, capsys):
    run = f"--model_dir={tmp_path / 'run'}"
    assert command("train", angles / "angles.csv", run, "--model=efficientnetv2-b0", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_becomes_a_table_and_trains_the_same(mosaics, tmp_path, capsys):
    for number in range(40):
        folder = tmp_path / "photos" / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{number}.png"
        (folder / name).write_bytes((mosaics / "images" / name).read_bytes())
    table = tmp_path / "photos" / "labels.csv"
    assert command("train", tmp_path / "photos", f"--write_table={table}") == 0
    assert f"40 images written to {table}" in capsys.readouterr().out
    settings = SETTINGS.replace(BLOCKS, "[r1_k3_s2_e1_i8_o8_c1]").replace("epochs=4", "epochs=2")
    losses = []
    for data in (tmp_path / "photos", table):
        run = tmp_path / f"run-{data.stem}"
        flags = [f"--model_dir={run}", "--model=efficientnetv2-b0", f"--hparam_str={settings}"]
        assert command("train", data, *flags) == 0
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        assert result(run)["raw"]["images"] == 4
    assert losses[0] == losses[1]


def test_numbers_do_not_fit_into_256_steps_of_one_size(numbers, capsys):
    arguments = ("--format=tflite_int8", "--integer_io", "--model=efficientnetv2-b0")
    assert command("export", f"--model_dir={numbers}", *arguments) == 2
    assert "--integer_io leaves 256 steps of one size" in capsys.readouterr().err
