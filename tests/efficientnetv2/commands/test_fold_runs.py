"""Cross-validation: its numbers, kills, several processes, and what is refused."""

import collections
import csv
import json
import pathlib
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    r2_score,
)

import efficientnetv2 as env2
from efficientnetv2.evaluation.held_out_scores import load_scores
from efficientnetv2.runtime.run_directory import RunError

ROOT = pathlib.Path(__file__).parents[3]
SETTINGS = {
    "model.blocks_args": "[r1_k3_s2_e1_i8_o8_c1]",
    "model.feature_size": 8,
    "train.preset": "none",
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.stages": 1,
    "train.isize": 16,
    "eval.isize": 16,
    "train.ema_decay": 0.5,
}
FOLDS = 2
NUM_IMAGES = 42


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of noise on two shades: a folder of classes, and a table with other labels."""
    folder = tmp_path_factory.mktemp("folds")
    rng = np.random.default_rng(0)
    lines = ["path,tags,x,y,patient,split"]
    for number in range(NUM_IMAGES):
        shade = (70, 150)[number % 2]
        pixels = np.uint8(shade + rng.integers(-60, 60, (16, 16, 3)))
        path = folder / "photos" / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        tags = "|".join(tag for tag, part in (("a", 2), ("b", 3), ("c", 5)) if number % part == 0)
        split = "test" if number >= NUM_IMAGES - 6 else "train"
        cells = (path, tags, pixels.mean(), -pixels[..., 0].mean(), f"p{number // 3}", split)
        lines.append(",".join(map(str, cells)))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def command(data, run, *flags, **settings):
    text = ",".join(f"{key}={value}" for key, value in {**SETTINGS, **settings}.items())
    given = [f"--model_dir={run}", "--model=efficientnetv2-b0", f"--hparam_str={text}"]
    return ["train", data, *given, *flags]


@pytest.fixture(scope="module")
def whole(folder, main_tf2):
    """A finished cross-validation of the folder."""
    result = main_tf2(*command("photos", "whole", f"--folds={FOLDS}"), cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "whole", result


def rows_of(run):
    with (run / "out_of_fold.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scores_of(rows, prefix="score "):
    names = [name for name in rows[0] if name.startswith(prefix)]
    values = np.array([[float(row[name]) for name in names] for row in rows])
    return [name.removeprefix(prefix) for name in names], values


def check_spread(result):
    """Recomputes mean and deviation of all metrics."""
    for weights, metrics in result["mean"].items():
        for name, mean in metrics.items():
            values = [fold[weights][name] for fold in result["folds"]]
            np.testing.assert_allclose(mean, np.mean(values), rtol=1e-12)
            deviation = result["deviation"][weights][name]
            np.testing.assert_allclose(deviation, np.std(values, ddof=1), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_predictions(whole):
    run, result = whole
    rows = rows_of(run)
    images = collections.Counter(row["path"] for row in rows)
    assert len(images) == NUM_IMAGES and set(images.values()) == {1}
    names, scores = scores_of(rows)
    assert names == ["dark", "light"]
    assert [names[index] for index in scores.argmax(1)] == [row["predicted"] for row in rows]
    assert all(row["path"].startswith(row["label"]) for row in rows)
    written = json.loads((run / "folds.json").read_text())
    check_spread(written)
    for fold in written["folds"]:
        own = [row for row in rows if row["fold"] == str(fold["fold"])]
        true, said = ([row[column] for row in own] for column in ("label", "predicted"))
        assert fold["ema"]["images"] == len(own) == NUM_IMAGES / FOLDS
        assert fold["ema"]["top1"] == pytest.approx(np.mean(np.array(true) == said))
        balanced = balanced_accuracy_score(true, said)
        assert fold["ema"]["balanced_accuracy"] == pytest.approx(balanced)
        label = [names.index(name) for name in true]
        losses = -np.log(scores_of(own)[1][np.arange(len(own)), label])
        assert fold["ema"]["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        # The training has evaluated itself on the same images.
        evaluated = json.loads((run / f"fold{fold['fold']}" / "eval.json").read_text())
        assert evaluated["split"] == "held_out"
        assert evaluated["ema"] == pytest.approx(
            {k: v for k, v in fold["ema"].items() if k != "ece"}, rel=1e-6
        )
    true, said = ([row[column] for row in rows] for column in ("label", "predicted"))
    together = written["out_of_fold"]
    assert together["weights"] == "ema" and together["images"] == NUM_IMAGES
    assert together["top1"] == np.mean(np.array(true) == said)
    assert together["macro_f1"] == f1_score(true, said, average="macro")
    assert "fold       " in result.stdout and "deviation  " in result.stdout
    table = list(csv.DictReader((run / "folds.csv").read_text().splitlines()))
    assert [row["fold"] for row in table] == [*"1122", "mean", "mean", "deviation", "deviation"]
    assert float(table[-1]["loss"]) == written["deviation"]["ema"]["loss"]


@pytest.mark.slow
def test_each_fold_is_an_ordinary_run(whole, folder, main_tf2):
    run, _ = whole
    second = json.loads((run / "folds.json").read_text())["folds"][1]
    result = main_tf2("eval", "--model_dir=whole/fold2", cwd=folder)
    assert result.returncode == 0, result.stderr
    evaluated = json.loads((run / "fold2" / "eval.json").read_text())
    assert {name: evaluated[name] for name in ("raw", "ema")} == {
        name: pytest.approx(second[name], rel=1e-6) for name in ("raw", "ema")
    }
    result = main_tf2(
        *("check", "photos", "--model_dir=whole/fold2", "--weights=whole/fold2"), cwd=folder
    )
    assert result.returncode == 0 and " held_out" in result.stdout, result.stderr
    # Its config.yaml alone repeats it.
    result = main_tf2(
        *("train", "photos", "--model=efficientnetv2-b0", "--model_dir=again"),
        "--hparam_str=whole/fold2/config.yaml",
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    for name in ("split.csv", "labels.txt", "config.yaml"):
        assert (folder / "again" / name).read_text() == (run / "fold2" / name).read_text()
    both = [env2.load_run(path).history for path in (run / "fold2", folder / "again")]
    losses, again = ([line["loss"] for line in history] for history in both)
    assert losses == again


@pytest.mark.slow
def test_given_again_it_trains_nothing(whole, folder, main_tf2):
    run, first = whole
    before = {path: path.stat().st_mtime_ns for path in run.glob("fold*/checkpoints/*")}
    bytes_before = (run / "out_of_fold.csv").read_bytes()
    result = main_tf2(*command("photos", "whole", f"--folds={FOLDS}"), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "epoch" not in result.stdout
    assert first.stdout.endswith(result.stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "out_of_fold.csv").read_bytes() == bytes_before


@pytest.mark.slow
def test_killed_in_a_fold_it_ends_with_the_same_bytes(
    whole, folder, start_process, run_process, wait_until
):
    program = [ROOT / "main_tf2.py", *command("photos", "killed", f"--folds={FOLDS}")]
    process = start_process(*program, cwd=folder)
    metrics = folder / "killed" / "fold2" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 1)
    process.kill()
    process.wait()
    assert (folder / "killed" / "fold1" / "held_out.npz").exists()
    assert not (folder / "killed" / "fold2" / "held_out.npz").exists()
    first = (folder / "killed" / "fold1" / "metrics.jsonl").stat().st_mtime_ns
    (folder / "photos" / "dark" / "new.png").write_bytes(b"")  # it takes no part
    try:
        result = run_process(*program, cwd=folder)
    finally:
        (folder / "photos" / "dark" / "new.png").unlink()
    assert result.returncode == 0, result.stderr
    assert (folder / "killed" / "fold1" / "metrics.jsonl").stat().st_mtime_ns == first
    for name in ("out_of_fold.csv", "folds.json", "folds.csv", "fold2/split.csv"):
        assert (folder / "killed" / name).read_bytes() == (whole[0] / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_share_the_folds(whole, folder, start_process):
    program = [ROOT / "main_tf2.py", *command("photos", "shared", f"--folds={FOLDS}")]
    processes = [start_process(*program, cwd=folder) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    for process, (_, stderr) in zip(processes, outputs):
        assert process.returncode == 0, stderr
    began = [line for stdout, _ in outputs for line in stdout.splitlines() if "writing to" in line]
    assert sorted(began) == [f"writing to shared/fold{number}" for number in range(1, FOLDS + 1)]
    assert all("writing to" in stdout for stdout, _ in outputs)  # each took part
    assert all(stdout.count("together") == 1 for stdout, _ in outputs)
    for name in ("out_of_fold.csv", "folds.json"):
        assert (folder / "shared" / name).read_bytes() == (whole[0] / name).read_bytes(), name


@pytest.mark.slow
def test_several_classes_in_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    overrides = {**SETTINGS, "data.label_columns": "tags", "data.multi_label": True}
    overrides.update({"data.group_column": "patient", "train.epochs": 1})
    options = {"folds": 2, "overrides": overrides, "model_dir": "several"}
    result = env2.cross_validate("efficientnetv2-b0", "labels.csv", **options)
    assert repr(result) == "CrossValidation('several')"
    assert [type(run).__name__ for run in result.folds] == ["Run", "Run"]
    assert [run.path.name for run in result.folds] == ["fold1", "fold2"]
    assert result.out_of_fold == pathlib.Path("several/out_of_fold.csv")
    rows = rows_of(result.path)
    assert len(rows) == NUM_IMAGES - 6  # those of test take no part
    names, scores = scores_of(rows)
    true, said = (
        np.array([[name in row[column].split("|") for name in names] for row in rows])
        for column in ("labels", "predicted")
    )
    together = result.together
    assert together["map"] == pytest.approx(average_precision_score(true, scores, average="macro"))
    f1 = f1_score(true, said, average="macro", zero_division=0)
    assert together["macro_f1"] == pytest.approx(f1)
    for number, run in enumerate(result.folds, start=1):
        own = [index for index, row in enumerate(rows) if row["fold"] == str(number)]
        value = average_precision_score(true[own], scores[own], average="macro")
        assert result.written["folds"][number - 1]["ema"]["map"] == pytest.approx(value)
        assert run.metrics["ema"]["images"] == len(own)
    check_spread(result.written)
    check_spread(result.written["test"])
    assert result.written["test"]["folds"][0]["raw"]["images"] == 6
    assert result.mean["ema"] == result.written["mean"]["ema"]
    assert result.deviation["raw"] == result.written["deviation"]["raw"]


@pytest.mark.slow
def test_numbers_and_images_that_cannot_be_read(folder, main_tf2):
    with (folder / "photos" / "dark" / "4.png").open("r+b") as file:
        content = file.read()
        file.truncate(20)
    flags = ["--folds=2", "--target_columns=x,y", "--group_column=patient"]
    settings = {"data.on_bad_image": "skip", "train.epochs": 1}
    try:
        result = main_tf2(*command("labels.csv", "numbers", *flags, **settings), cwd=folder)
    finally:
        (folder / "photos" / "dark" / "4.png").write_bytes(content)
    assert result.returncode == 0, result.stderr
    rows = rows_of(folder / "numbers")
    assert len(rows) == NUM_IMAGES - 6 - 1
    assert not any("dark/4.png" in row["path"] for row in rows)
    names, true = scores_of(rows, "target ")
    assert names == ["x", "y"]
    said = scores_of(rows, "predicted ")[1]
    written = json.loads((folder / "numbers" / "folds.json").read_text())
    together = written["out_of_fold"]
    assert together["r2"] == pytest.approx(r2_score(true, said))
    assert together["mae"] == pytest.approx(np.abs(true - said).mean())
    rmse = np.sqrt(((true - said) ** 2).mean(0)).mean()
    assert together["rmse"] == pytest.approx(rmse)
    for fold in written["folds"]:
        own = [index for index, row in enumerate(rows) if row["fold"] == str(fold["fold"])]
        assert fold["ema"]["images"] == len(own)
        assert fold["ema"]["mae"] == pytest.approx(np.abs(true - said)[own].mean(), rel=1e-4)
    table = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    number = {cells[0]: float(cells[2]) for cells in table}
    assert all(float(row["target x"]) == pytest.approx(number[row["path"]]) for row in rows)


# ---------------------------------------------------------------------- refusals

REFUSED = {
    "one": (["--folds=1"], "--folds must be a whole number from 2 to 1000, got '1'"),
    "text": (["--folds=abc"], "--folds must be a whole number from 2 to 1000, got 'abc'"),
    "empty": (["--folds="], "--folds is empty"),
    "class": (["--folds=22"], "22 folds are too many: class 'dark' has 21 images"),
    "extend": (["--folds=3", "--extend"], "--extend is for a single training"),
    "table": (["--folds=3", "--write_table=a.csv"], "--write_table is for a single training"),
    "auto": (["--folds=3", "--batch_size=auto"], "--batch_size=auto is for a single training"),
    "both": (["--folds=3", "--sweeps=data.fold=1/5"], "data.fold=1/5 names one; give one of them"),
}


def refused(result):
    assert result.returncode == 2, result.stdout
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said_at_once(case, folder, main_tf2):
    flags, message = REFUSED[case]
    arguments = command("photos", "new", *flags)
    if case == "auto":
        arguments = [str(one).replace("train.batch_size=8,", "") for one in arguments]
    start = time.thread_time()
    result = main_tf2(*arguments, cwd=folder)
    assert time.thread_time() - start < 1
    assert message in refused(result)
    assert not (folder / "new").exists()


def test_groups_modes_and_data_sets_are_refused(folder, main_tf2):
    flags = ["--folds=20", "--target_columns=x,y", "--group_column=patient"]
    line = refused(main_tf2(*command("labels.csv", "new", *flags), cwd=folder))
    assert "20 folds are too many: the images are of 12 groups" in line
    line = refused(main_tf2("eval", "--model_dir=whole", "--folds=3", cwd=folder))
    assert "--folds belongs to --mode=train or traineval, not to --mode=eval" in line
    line = refused(main_tf2("train", "digits", "--folds=3", cwd=folder))
    assert "--folds is for your own images, a folder or table (--data=photos), not for dig" in line


@pytest.mark.slow
def test_folders_of_others_are_refused(whole, folder, main_tf2):
    def line_of(run, *flags, **settings):
        return refused(main_tf2(*command("photos", run, *flags, **settings), cwd=folder))

    assert "holds a cross-validation of 2 folds, not 4" in line_of("whole", "--folds=4")
    assert "train.lr_base" in line_of("whole", "--folds=2", **{"train.lr_base": 0.5})
    assert "(train.seed 0 -> 1)" in line_of("whole", "--folds=2", "--seed=1")
    assert "holds a single training; leave --folds out" in line_of("whole/fold1", "--folds=3")
    single = "holds a cross-validation; give a fold of it, as --model_dir=whole/fold1"
    assert single in line_of("whole")
    assert single in refused(main_tf2("eval", "--model_dir=whole", cwd=folder))
    other = line_of("whole/fold1", **{"data.fold": "2/2"})
    assert "holds out fold 1/2 of the images, but data.fold asks for fold 2/2" in other
    with pytest.raises(RunError, match=r"'.*fold1' holds no finished cross-validation"):
        env2.CrossValidation(whole[0] / "fold1")
    damaged = folder / "damaged.npz"
    damaged.write_bytes((whole[0] / "fold1" / "held_out.npz").read_bytes()[:500])
    with pytest.raises(RunError, match="remove it, and the same command writes it anew"):
        load_scores(damaged)
