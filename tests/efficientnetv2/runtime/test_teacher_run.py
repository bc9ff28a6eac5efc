"""Tests which networks may teach, without TensorFlow, and how the program answers for others."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.teacher_run import (
    find_teacher,
    require_other_run,
    require_same_classes,
)
from hparams import ConfigError, UserError, resolve
from hparams.config import Config

ROOT = pathlib.Path(__file__).parents[3]
NAMES = ["ant", "bee", "cow"]


def teacher_run(folder: pathlib.Path, names: list[str] = NAMES, **settings: object) -> RunDirectory:
    """Writes a run with files that look like a checkpoint from outside."""
    model = str(settings.pop("model", "efficientnetv2-m"))
    settings = {"model.num_classes": len(names), "eval.isize": 56, **settings}
    run = RunDirectory(folder)
    run.start(resolve(model, "digits", settings), names)
    (run.checkpoints / "ckpt-5.index").touch()
    return run


def taught(teacher: object, **settings: object) -> Config:
    settings = {"model.num_classes": 3, "train.teacher": str(teacher), **settings}
    return resolve("efficientnetv2-b0", "digits", settings)


def test_a_run_says_what_its_network_is(tmp_path: pathlib.Path) -> None:
    run = teacher_run(tmp_path, **{"model.preprocess": "lite"})
    for name in (run.path, run.checkpoints, run.checkpoints / "ckpt-5"):
        teacher = find_teacher(taught(name, **{"train.teacher_model": "EfficientNetV2M"}))
        assert teacher is not None and teacher.run is not None
        assert (teacher.weights, teacher.run.path) == (str(name), run.path)
        assert teacher.model == run.config().model and teacher.image_size == 56
    assert find_teacher(resolve("efficientnetv2-b0", "digits")) is None


def test_a_release_and_a_file_are_of_the_named_model(tmp_path: pathlib.Path) -> None:
    model = {"train.teacher_model": "efficientnet-b1", "model.num_classes": 1000}
    release = find_teacher(taught("imagenet", **model))
    assert release is not None and release.run is None
    assert (release.model.preprocess, release.image_size) == ("v2", 240)  # AdvProp's
    (tmp_path / "file").touch()
    file = find_teacher(taught(tmp_path / "file", **{**model, "model.num_classes": None}))
    assert file is not None
    assert (file.model.model_name, file.model.preprocess) == ("efficientnet-b1", "v1")


def test_what_cannot_teach_is_refused(tmp_path: pathlib.Path) -> None:
    run = teacher_run(tmp_path / "run")
    (tmp_path / "file").touch()
    resnet = teacher_run(tmp_path / "resnet", model="resnet50")
    other_loss = teacher_run(tmp_path / "loss", **{"train.loss_type": "sigmoid"})
    begun = teacher_run(tmp_path / "begun")
    (begun.checkpoints / "ckpt-5.index").unlink()
    for teacher, settings, message in (
        ("nowhere", {}, "train.teacher: there are no weights 'nowhere'"),
        ("imagenet", {}, "train.teacher=imagenet is no run directory, so train.teacher_model must"),
        (tmp_path / "file", {}, "file is no run directory, so train.teacher_model must name its"),
        ("jft", {"train.teacher_model": "efficientnetv2-s"}, "no weights 'jft' for efficientnetv2"),
        (run.path, {"train.teacher_model": "efficientnetv2-s"}, "holds a training of efficientnet"),
        (run.path, {"model.num_classes": 4}, "run' has 3 classes, but the data has 4"),
        (resnet.path, {}, "is a resnet50, whose weights cannot be read"),
        (other_loss.path, {}, "was trained with train.loss_type=sigmoid, whose logits"),
        (begun.path, {}, "holds no checkpoint; train it first"),
    ):
        with pytest.raises(UserError, match=message):
            find_teacher(taught(teacher, **settings))


def test_the_classes_must_be_the_same_in_the_same_order(tmp_path: pathlib.Path) -> None:
    teacher = find_teacher(taught(teacher_run(tmp_path).path))
    assert teacher is not None
    require_same_classes(teacher, NAMES)
    with pytest.raises(UserError, match="other classes than the data: class 2 is 'bee', not 'cow'"):
        require_same_classes(teacher, ["ant", "cow", "bee"])
    with pytest.raises(UserError, match="has 3 classes, but the data has 2"):
        require_same_classes(teacher, NAMES[:2])


def test_a_run_cannot_teach_itself(tmp_path: pathlib.Path) -> None:
    teacher = find_teacher(taught(teacher_run(tmp_path / "run").path))
    assert teacher is not None
    require_other_run(teacher, RunDirectory(tmp_path / "other"))
    with pytest.raises(UserError, match="cannot be its own teacher"):
        require_other_run(teacher, RunDirectory(tmp_path / "other" / ".." / "run"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher_model", "efficientnetv2-s"),
        ("distill_temperature", 2.0),
        ("distill_weight", 0.9),
    ],
)
def test_its_settings_are_refused_without_a_teacher(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"train.{key}={value} has no effect without a teacher"):
        resolve("efficientnetv2-b0", "digits", {f"train.{key}": value})


def test_an_unknown_teacher_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"train.teacher_model: .*efficientnetv2-x'"):
        taught("imagenet", **{"train.teacher_model": "efficientnetv2-x"})
    with pytest.raises(ConfigError, match="weights of resnet50 cannot be read"):
        taught("imagenet", **{"train.teacher_model": "resnet50"})


def refusal(*arguments: object) -> str:
    """Returns the line with which the program refuses a command."""
    code = (
        "import sys; from efficientnetv2.cli import console; sys.modules['tensorflow'] = None; "
        "sys.exit(console())"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_the_program_refuses_before_tensorflow_is_imported(tmp_path: pathlib.Path) -> None:
    run = teacher_run(tmp_path / "run")
    for name in ("ant", "bee", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / f"{number}.png")
    options = ("--model=efficientnetv2-b0", f"--model_dir={tmp_path / 'out'}")
    photos = ("train", tmp_path / "photos", *options)
    assert "class 3 is 'cow', not 'dog'" in refusal(*photos, f"--teacher={run.path}")
    assert "there are no weights" in refusal(*photos, "--teacher=nowhere")
    own = ("preview", tmp_path / "photos", "--model=efficientnetv2-b0", f"--model_dir={run.path}")
    assert "cannot be its own teacher" in refusal(*own, f"--teacher={run.path}")
    setting = f"--hparam_str=train.teacher={run.path}"
    assert "no effect with --mode=search" in refusal("search", "digits", *options, setting)
    assert "no effect with --mode=benchmark" in refusal(
        "benchmark", "--models=efficientnetv2-b0", setting
    )
    assert not (tmp_path / "out").exists()
