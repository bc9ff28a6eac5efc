"""Tests the command line from training to inference, as a user runs it, on a small network."""

import csv
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml

pytestmark = pytest.mark.slow  # all tests here read what one training wrote

ROOT = pathlib.Path(__file__).parents[3]
BLOCKS = "[r1_k3_s1_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16_c1,r1_k3_s2_e4_i16_o32_se0.25]"
SETTINGS = (
    f"model.blocks_args={BLOCKS},model.feature_size=64,train.epochs=4,train.lr_base=0.02,"
    "train.lr_warmup_epoch=1,train.stages=2,data.ibase=24,train.optimizer=adam,"
    "runtime.save_checkpoint_epochs=1,train.profile=[20,21]"
)
ONE_STAGE = (
    "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=16,train.epochs=8,"
    "train.batch_size=32,train.stages=1,train.isize=16,eval.isize=16,data.augname=none,"
    "runtime.save_checkpoint_epochs=1"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with a finished ``traineval`` in runs/ and the digits in data/."""
    folder = tmp_path_factory.mktemp("home")
    flags = ["--mode=traineval", "--dataset_cfg=digits", "--data_dir=data"]
    result = subprocess.run(
        [sys.executable, ROOT / "main_tf2.py", *flags, f"--hparam_str={SETTINGS}"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (folder / "stdout").write_text(result.stdout)
    (folder / "stderr").write_text(result.stderr)
    return folder


@pytest.fixture(scope="module")
def trained(home):
    return home / "runs" / "efficientnetv2-s-digits"


def test_training_prints_a_line_an_epoch_and_nothing_else_on_stderr(home):
    lines = re.findall(r"^epoch \d/4  stage \d/2  \d+ px  loss [\d.]+  accuracy", text(home), re.M)
    assert len(lines) == 4
    assert (home / "stderr").read_text() == ""


def text(home):
    return (home / "stdout").read_text()


def test_training_names_what_it_wrote(home, trained):
    assert "written to runs/efficientnetv2-s-digits: checkpoints/" in text(home)
    for name in ("checkpoints", "best", "tensorboard"):
        assert (trained / name).is_dir()
    for name in ("config.yaml", "labels.txt", "metrics.jsonl", "curves.png", "eval.json"):
        assert (trained / name).stat().st_size > 0


def test_metrics_have_a_line_an_epoch(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [19, 38, 57, 76]
    assert [line["image_size"] for line in lines] == [24, 24, 32, 32]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"minival_top1", "minival_ema_top1", "learning_rate"} <= set(lines[-1])


TAGS = (
    "loss accuracy gradient_norm learning_rate image_size dropout_rate magnitude mixup_alpha "
    "cutmix_alpha batch_size images_per_second"
)


@pytest.mark.parametrize("tag", TAGS.split())
def test_tensorboard_has_every_epoch(trained, tag):
    steps = [
        event.step
        for file in sorted((trained / "tensorboard").glob("**/events.*"))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == tag
    ]
    assert steps == [19, 38, 57, 76]


def test_tensorboard_has_the_profile(trained):
    (profile,) = (trained / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert profile.stat().st_size > 1000


def test_evaluation_gives_what_training_gave(main_tf2, home, trained):
    after_training = json.loads((trained / "eval.json").read_text())
    result = main_tf2(
        "--mode=eval", "--dataset_cfg=digits", "--data_dir=data", "--eval_name=again", cwd=home
    )
    assert result.returncode == 0, result.stderr
    again = json.loads((trained / "eval_again.json").read_text())
    assert again["raw"]["images"] == again["ema"]["images"] == 360
    for weights in ("raw", "ema", "best"):
        assert 0 <= again[weights].pop("ece") <= 1
        assert 0 <= again[weights].pop("ece_calibrated") <= 1
        assert again[weights] == pytest.approx(after_training[weights], abs=1e-5)
    assert f"{again['raw']['top1']:.4f}" in result.stdout
    assert after_training["raw"]["top1"] > 0.3  # guessing gives 0.1


def test_evaluation_shows_each_class_and_the_mistakes(trained):
    """Reads the files that the test before this one wrote."""
    result = json.loads((trained / "eval_again.json").read_text())
    with (trained / "per_class_again.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["images"]) for row in rows) == 360
    right = sum(int(row["images"]) * float(row["top1"]) for row in rows)
    assert right / 360 == pytest.approx(result["best"]["top1"])  # as predictions are
    with (trained / "confusion_again.csv").open() as file:
        matrix = np.array([list(map(int, row[1:])) for row in list(csv.reader(file))[1:]])
    assert matrix.trace() == round(right)
    for name in ("confusion_again.png", "mistakes_again.png"):
        assert (trained / name).stat().st_size > 5000


def test_best_is_the_best_minival_epoch(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["minival_size"] for line in lines] == [24, 24, 32, 32]
    lines = [line for line in lines if line["minival_size"] == lines[-1]["minival_size"]]
    tops = [max(line["minival_top1"], line["minival_ema_top1"]) for line in lines]
    record = json.loads((trained / "best" / "best.json").read_text())
    assert max(record["top1"].values()) == max(tops)
    assert record["step"] == lines[tops.index(max(tops))]["step"]


@pytest.fixture(scope="module")
def older_best(trained, tmp_path_factory):
    """A copy of the run whose best weights are the raw ones of its third epoch."""
    run = tmp_path_factory.mktemp("older") / "run"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "best")
    (run / "best").mkdir()
    for file in (run / "checkpoints").glob("ckpt-57.*"):
        shutil.copy(file, run / "best")
    (run / "best" / "best.json").write_text('{"step": 57, "top1": {"raw": 0.9, "ema": 0.8}}')
    return run


def test_the_best_weights_are_evaluated_as_predictions_use_them(
    main_tf2, home, trained, older_best
):
    data = ("--dataset_cfg=digits", "--data_dir=data")
    for flags in (f"--model_dir={older_best}", f"--weights={older_best} --model_dir=of_weights"):
        result = main_tf2("--mode=eval", *data, *flags.split(), cwd=home)
        assert result.returncode == 0, result.stderr
    found = json.loads((older_best / "eval.json").read_text())
    used = json.loads((home / "of_weights" / "eval.json").read_text())["raw"]
    assert found["best"] == pytest.approx(used, abs=1e-6)
    newest = json.loads((trained / "eval.json").read_text())
    for weights in ("raw", "ema"):
        assert found[weights]["loss"] == pytest.approx(newest[weights]["loss"], abs=1e-5)
        assert abs(found["best"]["loss"] - found[weights]["loss"]) > 0.01
    page = (older_best / "report.html").read_text()
    assert "All below is of the best weights on minival" in page


def test_the_end_of_a_training_evaluates_the_best_weights_too(main_tf2, home, older_best):
    """The run is complete: the same command only evaluates it."""
    before = json.loads((older_best / "eval.json").read_text())
    flags = ("--mode=traineval", f"--hparam_str={SETTINGS}", f"--model_dir={older_best}")
    result = main_tf2(*flags, "--dataset_cfg=digits", "--data_dir=data", cwd=home)
    assert result.returncode == 0, result.stderr
    after = json.loads((older_best / "eval.json").read_text())
    assert {"raw", "ema", "best"} <= set(after)
    for weights in ("raw", "ema", "best"):
        for metric in ("loss", "top1"):
            assert after[weights][metric] == pytest.approx(before[weights][metric], abs=1e-5)
    assert f"\nbest {after['best']['top1']:>10.4f}" in result.stdout


@pytest.mark.parametrize("mode", ["traineval", "eval", "infer", "export"])
def test_damaged_best_weights_are_refused_before_anything_is_done(mode, older_best, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(older_best, run)
    (run / "best" / "ckpt-57.index").unlink()
    flags = [f"--mode={mode}", f"--model_dir={run}", "--dataset_cfg=digits"]
    flags += [f"--hparam_str={SETTINGS}", "--data_dir=data"] if mode == "traineval" else []
    flags += ["--image_path=docs/images/digits"] if mode == "infer" else []
    command = [sys.executable, ROOT / "main_tf2.py", *flags]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 2
    assert f"'{run}/best/ckpt-57', the best of the run, is damaged or missing" in result.stderr
    assert result.stderr.count("\n") == 1 and after.ru_utime - before.ru_utime < 1


def test_the_written_config_repeats_the_run(main_tf2, trained, home):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["train"]["epochs"] == 4
    assert config["model"]["blocks_args"] == BLOCKS.strip("[]").split(",")
    flags = [
        "--mode=train",
        f"--hparam_str={trained / 'config.yaml'}",
        "--dataset_cfg=digits",
        "--data_dir=data",
    ]
    result = main_tf2(*flags, cwd=home)  # the run is complete: only its evaluation is repeated
    assert result.returncode == 0, result.stderr
    assert "epoch 1/4" not in result.stdout and "top-1" in result.stdout


def test_another_configuration_is_refused(main_tf2, home):
    settings = SETTINGS.replace("train.lr_base=0.02", "train.lr_base=0.03")
    result = main_tf2(
        "--mode=train",
        "--dataset_cfg=digits",
        "--data_dir=data",
        f"--hparam_str={settings}",
        cwd=home,
    )
    assert result.returncode == 2
    assert "train.lr_base 0.02 -> 0.03" in result.stderr


def test_another_model_name_is_refused(main_tf2, home, trained):
    result = main_tf2(
        "--mode=eval", "--model_name=efficientnetv2-b0", f"--model_dir={trained}", cwd=home
    )
    assert result.returncode == 2
    assert "holds a training of efficientnetv2-s" in result.stderr


@pytest.fixture(scope="module")
def pictures(home):
    from efficientnetv2.data.sources import build_source
    from hparams import resolve

    folder = home / "pictures" / "deeper"
    folder.mkdir(parents=True)
    place = {"data.data_dir": str(home / "data")}
    source = build_source(resolve("efficientnetv2-s", "digits", place))
    references = source.references("train", seed=None, buffer=1)
    for index, (_, encoded, label) in enumerate(map(source.load, references.take(20))):
        (folder / f"{index:02d}_{int(label)}.png").write_bytes(encoded.numpy())
    return home / "pictures"


def test_inference_prints_the_classes_of_a_folder(main_tf2, home, pictures):
    result = main_tf2("--mode=infer", "--image_path=pictures", "--top_k=3", cwd=home)
    assert result.returncode == 0, result.stderr
    _, *rows, blank, speed = result.stdout.splitlines()
    assert len(rows) == 20
    assert blank == "" and speed.startswith("20 images in ")
    right = 0
    for row in rows:
        path, *cells = row.split()
        names, shares = cells[0::2], [float(share.rstrip("%")) for share in cells[1::2]]
        assert len(names) == 3 and shares == sorted(shares, reverse=True)
        right += names[0] == path.removesuffix(".png")[-1]
    assert right >= 6  # guessing gives 2


@pytest.mark.parametrize("content", [None, b"zero\none\n", b"\xff\xfe\x00"])
def test_labels_that_cannot_be_used_are_named(main_tf2, home, trained, pictures, content, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(trained, copied)
    (copied / "labels.txt").unlink()
    if content is not None:
        (copied / "labels.txt").write_bytes(content)
    result = main_tf2("--mode=infer", f"--image_path={pictures}", f"--model_dir={copied}", cwd=home)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"{copied / 'labels.txt'}" in result.stderr


def test_a_broken_image_is_named(main_tf2, home, trained, tmp_path):
    contents = {"empty": b"", "text": b"not an image", "broken": b"\x89PNG\r\n\x1a\nbroken"}
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    flags = ["--mode=infer", f"--image_path={tmp_path}", f"--model_dir={trained}"]
    result = main_tf2(*flags, cwd=home)
    assert (result.returncode, result.stderr.count("\n")) == (2, 3)
    for name, line in zip(sorted(contents), result.stderr.splitlines()):
        assert f"{name}.png" in line


def test_everything_that_inference_can_write(main_tf2, home, trained, pictures, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    shutil.copyfile(next(pictures.rglob("*.png")), tmp_path / "digit.png")
    flags = ["--mode=infer", f"--image_path={tmp_path}/*.png", f"--model_dir={trained}"]
    flags += ["--flip", "--crops=5", "--features", "--explain", f"--output_dir={tmp_path / 'out'}"]
    result = main_tf2(*flags, f"--output={tmp_path / 'all.csv'}", cwd=home)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "broken.png' is not an image" in result.stderr
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith(f"{tmp_path / 'digit.png'},")
    with np.load(tmp_path / "out" / "features.npz") as arrays:
        assert arrays["images"].tolist() == [str(tmp_path / "digit.png")]
    assert [path.name for path in (tmp_path / "out" / "explain").iterdir()] == ["00002-digit.png"]


def test_a_signal_saves_and_the_same_command_goes_on(main_tf2, start_process, home, tmp_path):
    flags = ["--dataset_cfg=digits", f"--data_dir={home / 'data'}", f"--hparam_str={ONE_STAGE}"]
    before = 0
    for number, epoch in ((signal.SIGINT, 1), (signal.SIGTERM, 5)):
        process = start_process(ROOT / "main_tf2.py", *flags, cwd=tmp_path)
        for line in process.stdout:
            if "going on" in line:
                assert f"going on after step {before} of 312" in line
            if line.startswith(f"epoch {epoch}/8"):
                break
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 128 + number, err
        stopped = re.search(
            r"stopped after step (\d+) of 312; saved in (\S+); the same command", out
        )
        assert stopped and 39 * epoch <= int(stopped.group(1)) < 312
        before = stopped.group(1)
    result = main_tf2(*flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"going on after step {before} of 312" in result.stdout
    metrics = (tmp_path / stopped.group(2) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == list(range(1, 9))
