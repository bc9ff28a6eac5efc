"""Tests ``--mode=check`` on images with planted faults, from the command line and from Python."""

import csv
import html
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

import efficientnetv2 as env2
from efficientnetv2.reporting.check_report import CSV, PAGE

ROOT = pathlib.Path(__file__).parents[3]


def crop(photograph, number):
    y, x = 90 * (number // 5), 100 * (number % 5)
    return Image.fromarray(photograph[y : y + 90, x : x + 100])


@pytest.fixture(scope="module")
def photograph(golden):
    return np.array(Image.open(golden / "photo_500x375.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, photograph):
    """A folder of two classes with one fault of each kind; its names need escaping."""
    folder = tmp_path_factory.mktemp("data") / "<b>photos & more"
    for number in range(10, 20):
        name = "cats" if number < 15 else '<img src=x onerror="alert(1)">'
        split = "test" if number % 5 == 4 else "train"
        path = folder / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop(photograph, number).save(path)
    cats, others = folder / "train" / "cats", folder / "train" / '<img src=x onerror="alert(1)">'
    shutil.copy(cats / "10.png", cats / "copy.png")
    crop(photograph, 11).save(cats / "near.jpg", quality=60)
    shutil.copy(cats / "12.png", others / "conflict.png")
    shutil.copy(cats / "13.png", folder / "test" / "cats" / "leak.png")
    (cats / "broken.jpg").write_bytes((cats / "near.jpg").read_bytes()[:900])
    crop(photograph, 17).filter(ImageFilter.GaussianBlur(6)).save(others / "blurred.png")
    Image.new("RGB", (90, 90), (10, 200, 30)).save(others / "flat.png")
    Image.fromarray(photograph[:60, :400]).save(others / "long.png")
    return folder


@pytest.fixture(scope="module")
def checked(faulty, main_tf2, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("check")
    result = main_tf2("check", faulty, "--strict", cwd=cwd)
    with (cwd / "runs" / "check--b-photos-more" / CSV).open(newline="") as file:
        return result, cwd / "runs" / "check--b-photos-more", list(csv.DictReader(file))


def test_each_fault_is_a_row_with_what_it_is_compared_with(checked, faulty):
    result, _, rows = checked
    assert result.returncode == 1, result.stderr
    found = {}
    for row in rows:
        path, other = (pathlib.Path(row[name]).name for name in ("path", "other_path"))
        found.setdefault(row["finding"], set()).add((path, other) if other else path)
    minival = {row["path"] for row in rows if row["split"] == "minival"}
    assert len(minival) <= 2  # a tenth of each class, which may hold one of the files
    assert found["unreadable"] == {"broken.jpg"}
    assert {frozenset(pair) for pair in found["conflict"]} == {
        frozenset(("conflict.png", "12.png"))
    }
    assert ("leak.png", "13.png") in found["leak"]
    exact = {frozenset(pair) for pair in found["exact_copy"]}
    assert exact == {frozenset(("10.png", "copy.png"))}  # the others are conflicts and leaks
    assert {frozenset(pair) for pair in found["near_copy"]} == {frozenset(("11.png", "near.jpg"))}
    assert found["empty"] == {"flat.png"} and found["long"] == {"long.png"}
    assert "blurred.png" in found["blurred"]
    (conflict,) = (row for row in rows if row["finding"] == "conflict")
    assert {conflict["label"], conflict["other_label"]} == {
        *("cats", '<img src=x onerror="alert(1)">')
    }
    assert pathlib.Path(conflict["path"]).is_file() and faulty.name in conflict["path"]


def test_the_summary_counts_them_with_an_example(checked):
    result, folder, rows = checked
    assert f"<b>photos & more: {18} images of 2 classes" in result.stdout
    assert re.search(
        r"\ncannot be read +1  '.*broken\.jpg': it is broken or cut off", result.stdout
    )
    assert re.search(r"\nsame picture, other label +1  '.*' and '.*'\n", result.stdout)
    assert "longer side over shorter: 1.00 to 6.67" in result.stdout
    assert "wrong labels were not looked for: that needs --weights" in result.stdout
    assert f"written to {folder.relative_to(folder.parents[1])}: check.csv, report.html" in (
        result.stdout
    )
    assert len(rows) == sum(int(n) for n in re.findall(r"^[a-z ,]+ +(\d+)  '", result.stdout, re.M))


def test_the_page_holds_its_pictures_and_escapes_names(checked):
    _, folder, _ = checked
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert "<b>photos" not in text and "&lt;b&gt;photos &amp; more" in text
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert text.count('<img src="data:image/jpeg;base64,') >= 9
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []  # nothing comes from elsewhere
    assert (folder / PAGE).stat().st_size < 5_000_000


@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_the_page_without_an_error(checked, seen_in_browser, width):
    title, errors = seen_in_browser(checked[1] / PAGE, width=width)
    assert re.fullmatch(r"\d\d pictures, 0 broken, 0 too wide", title) and errors == []


def test_python_gets_the_same(checked, faulty, tmp_path):
    check = env2.check(faulty, model_dir=tmp_path)
    assert isinstance(check, env2.DataCheck) and check.has_problems
    assert (tmp_path / CSV).read_bytes() == (checked[1] / CSV).read_bytes()
    assert check.report == tmp_path / PAGE and check.counts["exact_copy"] == 1
    assert len(check.findings) == len(checked[2]) and len(check.images) == 18


def test_nothing_is_wrong_with_good_images(main_tf2, tmp_path, photograph):
    folder = tmp_path / "good"
    for number in range(8, 20):
        path = folder / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop(photograph, number).save(path)
    result = main_tf2("check", folder, "--strict", cwd=tmp_path)
    assert result.returncode == 0 and "nothing is wrong that can be seen" in result.stdout
    # Flat squares are worth a look, but no problem.
    for number in range(12):
        Image.new("L", (90, 100), 10 * number).save(folder / "a" / f"flat{number}.png")
    result = main_tf2("check", folder, "--strict", cwd=tmp_path)
    assert result.returncode == 0 and "nearly of one shade" in result.stdout


def test_tables_of_every_kind_are_checked(photograph, main_tf2, tmp_path):
    for number in range(10, 18):
        crop(photograph, number).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "10.png", tmp_path / "copy.png")
    names = [*(f"{number}.png" for number in range(10, 18)), "copy.png", "gone.png"]
    several = "".join(f"{name},{'cat|dog' if name == 'copy.png' else 'cat'}\n" for name in names)
    (tmp_path / "several.csv").write_text(f"path,labels\n{several}")
    numbers = "".join(f"{name},{number}\n" for number, name in enumerate(names))
    (tmp_path / "numbers.csv").write_text(f"file,age\n{numbers}")
    result = main_tf2("check", "several.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "of 2 classes" in result.stdout and "same picture, other label" in result.stdout
    assert re.search(r"cannot be read +1  '.*gone\.png': the file is gone", result.stdout)
    flags = ("--path_column=file", "--target_columns=age")
    result = main_tf2("check", "numbers.csv", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "same picture, other label" in result.stdout and "classes" not in result.stdout


def test_wrong_labels_are_looked_for_with_weights(photos, tiny_weights, main_tf2, tmp_path):
    settings = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,eval.isize=32"
    wrong = tmp_path / "photos"
    shutil.copytree(photos, wrong)
    (wrong / "train" / "dark" / "3.png").rename(wrong / "train" / "light" / "wrong.png")
    result = main_tf2(
        *("check", wrong, "--model=efficientnetv2-b0", f"--weights={tiny_weights}"),
        *(f"--hparam_str={settings}", "--model_dir=out"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "looking for wrong labels with" in result.stdout
    with (tmp_path / "out" / CSV).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == "label"]
    assert [pathlib.Path(row["path"]).name for row in rows] == ["wrong.png"]
    assert rows[0]["label"] == "light" and rows[0]["suggested_label"] == "dark"


def test_without_a_readable_image_no_label_is_looked_at(tiny_weights, main_tf2, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    settings = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,eval.isize=32"
    result = main_tf2(
        *("check", "labels.csv", "--model=efficientnetv2-b0", f"--weights={tiny_weights}"),
        f"--hparam_str={settings}",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "2 images" in result.stdout and "Traceback" not in result.stderr


def test_several_labels_in_a_column_by_any_name(tmp_path, photograph):
    for number in range(4):
        crop(photograph, number).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{'a|b' if number % 2 else 'a'}" for number in range(4)]
    (tmp_path / "m.csv").write_text("\n".join(["path,attributes", *lines]))
    overrides = {"data.label_columns": ["attributes"], "data.multi_label": True}
    check = env2.check(tmp_path / "m.csv", overrides=overrides, model_dir=tmp_path / "out")
    assert {image.label for image in check.images} == {"a", "a|b"}
    page = html.unescape(check.report.read_text())
    assert "--hparam_str=data.label_columns=[attributes],data.multi_label=true" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--mode=check needs --data=FOLDER or a table: your own images"),
        (["digits"], "--mode=check is for your own images, not for the data set digits"),
        (["missing"], "missing"),
        (["{photos}", "--model=efficientnetv2-b0"], "--model_name has no effect with --mode=check"),
        (["{photos}", "--hparam_str=train.epochs=3"], "train.epochs has no effect"),
        (["{photos}", "--hparam_str=eval.isize=3"], "has no effect with --mode=check without --we"),
        (["{photos}", "--hparam_str=data.augname=randaug"], "data.augname has no effect"),
        (["{photos}", "--weights=missing.h5"], "missing.h5"),
        (["{photos}", "--path_column=file"], "names a column of a table"),
        (["{photos}", "--epochs=3"], "--epochs belongs to --mode=train"),
        (["{photos}", "--strict=maybe"], "--strict=maybe is neither true nor false"),
        (["{photos}", "--model_dir={photos}/test/dark/0.png"], "0.png"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, photos, main_tf2, tmp_path):
    given = [argument.replace("{photos}", str(photos)) for argument in arguments]
    result = main_tf2("check", *given, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_without_weights_tensorflow_stays_away(photos, tmp_path):
    start = time.perf_counter()
    code = (
        "import sys; from efficientnetv2.cli import main\n"
        f"code = main(['main_tf2.py', 'check', {str(photos)!r}])\n"
        "assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert time.perf_counter() - start < 30  # on a busy machine; alone it takes 2 seconds


def test_a_training_names_equal_files_in_two_splits(photos, main_tf2, tmp_path):
    leaky = tmp_path / "photos"
    shutil.copytree(photos, leaky)
    for number, path in enumerate(sorted(leaky.rglob("*.png"))):
        Image.new("L", (28, 28), number).save(path)  # each another
    shutil.copy(leaky / "train" / "dark" / "3.png", leaky / "test" / "dark" / "again.png")
    settings = (
        "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,train.epochs=1,"
        "train.isize=16,eval.isize=16,train.batch_size=8,train.stages=1,train.preset=none"
    )
    arguments = ("train", leaky, "--model=efficientnetv2-b0", f"--hparam_str={settings}")
    result = main_tf2(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "a file is in two splits (" in result.stderr and "--mode=check" in result.stderr
    again = main_tf2("eval", leaky, "--model=efficientnetv2-b0", cwd=tmp_path)
    assert again.returncode == 0 and "two splits" not in again.stderr


def test_the_report_of_a_training_stays(photos, main_tf2, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / PAGE).write_text("of the training")
    result = main_tf2("check", photos, "--model_dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (run / PAGE).read_text() == "of the training" and (run / "check" / CSV).exists()


def test_files_that_are_left_out_are_named(photos, main_tf2, tmp_path):
    odd = tmp_path / "photos"
    shutil.copytree(photos, odd)
    (odd / "train" / "dark" / "raw.cr2").touch()
    (odd / "train" / "dark" / "gone.png").symlink_to("nowhere")
    result = main_tf2("check", odd, cwd=tmp_path)
    assert "left out" in result.stderr and "broken link" in result.stderr
    assert "left out" in (tmp_path / "runs" / "check-photos" / PAGE).read_text(encoding="utf-8")


def test_bad_weights_leave_no_folder(photos, main_tf2, tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"no weights")
    result = main_tf2("check", photos, "--weights=bad.h5", cwd=tmp_path)
    assert result.returncode == 2 and "bad.h5" in result.stderr
    assert not (tmp_path / "runs").exists()
