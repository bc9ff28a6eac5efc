"""Tests the run directory: what it refuses, and that everything written is read back."""

import pathlib
import re

import pytest

from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.config import Config
from hparams.errors import LONGEST_MESSAGE, UserError
from hparams.resolve import resolve, with_facts

LINES = [{"step": step, "loss": 1 / step, "minival_top1": 0.5} for step in (19, 38, 57)]


# Set here, so that the expected messages do not change with the recipe.
BEFORE = {"train.epochs": 20, "data.crop_area": [0.7, 1.0]}


@pytest.fixture
def config() -> Config:
    return resolve("efficientnetv2-b0", "digits", BEFORE)


@pytest.fixture
def run(tmp_path: pathlib.Path, config: Config) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.start(config, ["zero", "one"])
    return directory


@pytest.fixture
def begun(run: RunDirectory) -> RunDirectory:
    """Returns a run directory that holds a checkpoint."""
    (run.checkpoints / "ckpt-19.index").touch()
    return run


def test_a_file_is_no_run_directory(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.h5"
    path.write_text("")
    with pytest.raises(RunError, match=r"'.*model\.h5' is a file; --model_dir must be"):
        RunDirectory(path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: pathlib.Path, config: Config) -> None:
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"cannot write to '.*file/run': Not a directory"):
        run.start(config, [])


def test_create_makes_the_directory_and_nothing_in_it(tmp_path: pathlib.Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "run")
    for _ in range(2):
        run.create()
        assert run.path.is_dir()
        assert list(run.path.iterdir()) == []


def test_create_names_a_directory_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"cannot write to '.*file/run': Not a directory"):
        run.create()


def test_an_unused_directory_is_not_created(tmp_path: pathlib.Path, config: Config) -> None:
    run = RunDirectory(tmp_path / "run")
    run.require_same(config)
    assert run.metrics() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [False, True])
def test_the_configuration_of_an_empty_directory(tmp_path: pathlib.Path, made: bool) -> None:
    if made:
        (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match=r"'.*run' holds no training run \(no config\.yaml\); train"):
        RunDirectory(tmp_path / "run").config()


def test_the_configuration_is_read_back_with_overrides(run: RunDirectory, config: Config) -> None:
    assert run.config() == config
    changed = run.config("eval.batch_size=7", {"eval.isize": 48})
    assert (changed.eval.batch_size, changed.eval.isize) == (7, 48)
    assert changed.train == config.train


@pytest.mark.parametrize(
    "names", [[], ["0", "1"], ["tench, Tinca tinca", "Übermut", " 空 ", "a'b\"c"]]
)
def test_class_names_are_read_back_in_order(
    tmp_path: pathlib.Path, config: Config, names: list[str]
) -> None:
    run = RunDirectory(tmp_path)
    run.start(config, names)
    assert run.class_names() == names


def test_the_same_configuration_may_continue(begun: RunDirectory, config: Config) -> None:
    begun.require_same(config)
    begun.start(config, ["zero", "one"])
    begun.require_same(config)


def test_another_may_begin_where_a_start_ended_with_an_error(run: RunDirectory) -> None:
    run.require_same(resolve("efficientnetv2-s", "cifar10", {"train.seed": 1}))


@pytest.mark.parametrize(
    "left", ["checkpoints/ckpt-19.sha256", "checkpoints/ckpt-19.tmp/x", "best/b", "metrics.jsonl"]
)
def test_whatever_a_training_left_is_not_mixed_with_another(run: RunDirectory, left: str) -> None:
    file = run.path / left
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(RunError, match="another config "):
        run.require_same(resolve("efficientnetv2-b0", "digits", BEFORE, {"train.seed": 1}))


@pytest.mark.parametrize(
    "overrides",
    [
        {"runtime.strategy": "cpu", "runtime.keep_checkpoint_max": 1},
        {"eval.batch_size": 3, "eval.isize": 8},
        {"data.data_dir": "/elsewhere"},
        {"data.service": "grpc://elsewhere:5000", "data.service_streams": 2, "data.cache_mib": 0},
    ],
)
def test_devices_evaluation_and_the_way_to_the_data_may_change(
    begun: RunDirectory, overrides: dict
) -> None:
    begun.require_same(resolve("efficientnetv2-b0", "digits", BEFORE, overrides))


@pytest.mark.parametrize(
    ("overrides", "differences"),
    [
        ({"train.epochs": 3}, r"\(train\.epochs 20 -> 3\)"),
        ({"model.dropout_base": None}, r"\(model\.dropout_base 0\.1 -> None\)"),
        ({"data.crop_area": [0.5, 1.0]}, r"\(data\.crop_area \[0\.7, 1\.0\] -> \[0\.5, 1\.0\]\)"),
        ({"data.train_split": "train[:9]"}, r"\(data\.train_split train -> train\[:9\]\)"),
        ({"data.cutout": 0.25}, r"\(data\.cutout 0\.0 -> 0\.25\)"),
        (
            {"train.seed": 1, "eval.isize": 8, "model.act_fn": "relu"},
            r"\(model\.act_fn silu -> relu, train\.seed 0 -> 1\)",
        ),
    ],
)
def test_other_changes_are_refused_by_name(
    begun: RunDirectory, overrides: dict, differences: str
) -> None:
    changed = resolve("efficientnetv2-b0", "digits", BEFORE, overrides)
    with pytest.raises(RunError, match=f"another config {differences}; use the same"):
        begun.require_same(changed)


def test_what_is_not_set_may_be_found_in_the_data_again(tmp_path: pathlib.Path) -> None:
    requested = resolve("efficientnetv2-b0", "folder", {"data.data_dir": "/images"})
    run = RunDirectory(tmp_path)
    opened = with_facts(requested, {"model.num_classes": 3, "data.train_split": "train"})
    run.start(opened, ["a", "b", "c"])
    run.append_metrics({"step": 1, "epoch": 1, "image_size": 8})
    run.require_same(requested)
    run.require_same(opened)
    other = with_facts(requested, {"model.num_classes": 4, "data.train_split": "all"})
    differences = r"\(data\.train_split train -> all, model\.num_classes 3 -> 4\)"
    with pytest.raises(RunError, match=differences):
        run.require_same(other)


def test_metrics_are_read_back_in_order(run: RunDirectory) -> None:
    assert run.metrics() == []
    for number, line in enumerate(LINES, start=1):
        run.append_metrics(line)
        assert run.metrics() == LINES[:number]


def test_each_record_is_one_line_of_json(run: RunDirectory) -> None:
    run.append_metrics({"step": 1, "note": "two\nlines"})
    assert run.metrics_file.read_text() == '{"step": 1, "note": "two\\nlines"}\n'


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (18, 0), (19, 1), (40, 2), (57, 3), (99, 3)])
def test_records_after_a_step_are_forgotten(run: RunDirectory, step: int, kept: int) -> None:
    for line in LINES:
        run.append_metrics(line)
    run.forget_metrics_after(step)
    assert run.metrics() == LINES[:kept]
    run.append_metrics({"step": 100})
    assert run.metrics() == [*LINES[:kept], {"step": 100}]


def test_a_directory_without_records_has_none_to_forget(run: RunDirectory) -> None:
    run.forget_metrics_after(10)
    assert run.metrics() == []


RECORD = '{"epoch": 1, "step": 19, "image_size": 8, "loss": 2.5}\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not JSON", "it is not JSON"),
        ("", "it is not JSON"),
        ("{}", "it has no 'step'"),
        ("[" * 100_000, "it is not JSON"),
        ('{"step": 1' + "0" * 5000 + "}", "it is not JSON"),
        ("[1, 2]", "it is not an object with names and values"),
        ('{"hello": "world"}', "it has no 'step'"),
        ('{"step": true}', "'step' must be a whole number above 19, got True"),
        ('{"step": "38"}', "'step' must be a whole number above 19, got '38'"),
        ('{"step": 38.0}', r"'step' must be a whole number above 19, got 38\.0"),
        ('{"step": 19}', "'step' must be a whole number above 19, got 19"),
        ('{"step": 38, "loss": "low"}', "'loss' must be a number, got 'low'"),
        ('{"step": 38, "loss": NaN}', "'loss' must be a number, got nan"),
        ('{"step": 38, "minival_top1": null}', "'minival_top1' must be a number, got None"),
        ('{"step": 38, "image_size": [8]}', r"'image_size' must be a number, got \[8\]"),
    ],
)
def test_a_damaged_or_foreign_line_is_named(run: RunDirectory, line: str, problem: str) -> None:
    run.metrics_file.write_text(f"{RECORD}{line}\n", encoding="utf-8")
    message = rf"line 2 of '.*/run/metrics\.jsonl' is damaged: {problem}; correct or remove it"
    for read in (run.metrics, lambda: run.forget_metrics_after(10)):
        with pytest.raises(RunError, match=f"^{message}$"):
            read()
    assert len(run.metrics_file.read_text(encoding="utf-8")) == len(RECORD) + len(line) + 1


@pytest.mark.parametrize("line", ["not JSON", '{"step": 38}', '{"step": 38, "epoch": 2}'])
def test_a_resume_reads_the_records_first(begun: RunDirectory, config: Config, line: str) -> None:
    begun.metrics_file.write_text(RECORD, encoding="utf-8")
    begun.require_same(config)
    begun.metrics_file.write_text(f"{RECORD}{line}\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"^line 2 of '.*metrics\.jsonl' is damaged: it "):
        begun.require_same(config)


def test_records_that_cannot_be_read_are_no_traceback(run: RunDirectory) -> None:
    run.metrics_file.mkdir()
    with pytest.raises(RunError, match=r"^cannot read '.*metrics\.jsonl': Is a directory$"):
        run.metrics()


@pytest.mark.parametrize(
    "left", ["checkpoints/ckpt-19.index", "checkpoints/ckpt-19.tmp/x", "best/b", "metrics.jsonl"]
)
def test_results_without_their_config_are_not_continued(
    run: RunDirectory, config: Config, left: str
) -> None:
    run.config_file.unlink()
    run.require_same(config)  # nothing was trained
    file = run.path / left
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    message = r"^'.*run' holds a training, but its config\.yaml is missing; restore the file, or "
    for use in (lambda: run.require_same(config), run.config):
        with pytest.raises(RunError, match=message):
            use()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", " is empty; restore it, or start over in another --model_dir"),
        ("model.model_name: efficientnetv2-s", " does not say data.ds_name"),
        (
            "model.model_name: efficientnetv2-b0x\ndata.ds_name: digits",
            ": unknown model 'efficientnetv2-b0x'; did you mean 'efficientnetv2-b0'?",
        ),
        ("model.model_name: [x", " is not YAML: while parsing a flow sequence"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(
    begun: RunDirectory, config: Config, content: str, problem: str
) -> None:
    begun.config_file.write_text(content, encoding="utf-8")
    start = re.escape(f"config file '{begun.config_file}'{problem}")
    for use in (lambda: begun.require_same(config), begun.config):
        with pytest.raises(UserError, match=f"^{start}"):
            use()


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_a_name_that_no_directory_may_have(path: str) -> None:
    with pytest.raises(RunError, match=r"cannot be a --model_dir: (File name too long|it holds)"):
        RunDirectory(path)


def test_many_changes_make_one_short_message(begun: RunDirectory) -> None:
    text = "train.epochs=3,train.seed=4,train.lr_base=1,train.momentum=0.1,train.gclip=7"
    other = resolve("efficientnetv2-s", "digits", text)
    with pytest.raises(RunError, match=r"another config \(data\.crop_area .* and \d+ more\); use"):
        begun.require_same(other)
    with pytest.raises(RunError) as error:
        begun.require_same(other)
    assert len(str(error.value)) < LONGEST_MESSAGE


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_the_places_in_a_run_directory(tmp_path: pathlib.Path, kind: type) -> None:
    run = RunDirectory(kind(tmp_path))
    places = (
        run.config_file,
        run.labels_file,
        run.metrics_file,
        run.checkpoints,
        run.best,
        run.tensorboard,
        run.curves_file,
        run.split_file,
        run.bad_images_file,
    )
    assert [place.relative_to(tmp_path).as_posix() for place in places] == [
        "config.yaml",
        "labels.txt",
        "metrics.jsonl",
        "checkpoints",
        "best",
        "tensorboard",
        "curves.png",
        "split.csv",
        "bad_images.txt",
    ]


NAMES = ["cat", "dog"]


def test_thresholds_are_read_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.thresholds(NAMES) == [0.5, 0.5]
    run.write_thresholds(NAMES, [0.1, 1 / 3])
    assert run.thresholds(NAMES) == [0.1, 1 / 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,threshold\ncat,0.5\n", "is of other classes than the network"),
        ("class,threshold\ncat,0.5\nfox,0.5\n", "is of other classes than the network"),
        ("class,threshold\ncat,0.5\ndog\n", "cannot read '.*thresholds.csv': list index"),
        ("class,threshold\ncat,0.5\ndog,high\n", "cannot read '.*thresholds.csv': could not"),
        ("class,threshold\ncat,0.5\ndog,1.5\n", "threshold of 'dog' must be 0..1, got 1.5"),
        ("class,threshold\ncat,nan\ndog,0.5\n", "threshold of 'cat' must be 0..1, got nan"),
    ],
)
def test_thresholds_that_are_none_are_named(tmp_path, text, message):
    run = RunDirectory(tmp_path)
    run.thresholds_file.write_text(text)
    with pytest.raises(RunError, match=message):
        run.thresholds(NAMES)
