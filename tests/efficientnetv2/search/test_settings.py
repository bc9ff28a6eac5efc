"""Tests searches for settings: what is drawn, trained, compared, kept and printed."""

import csv
import json
import re
import signal

import optuna
import pytest
import yaml
from PIL import Image

from efficientnetv2.commands.config_from_flags import config_from_flags
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.commands.search import _with_short_warm_up
from efficientnetv2.flags import parse
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search import engine as engine_module
from efficientnetv2.search.messages import TrialFailure
from hparams import UserError, resolve
from hparams.search_space import read_space

SPACE = [
    "train.lr_base:0.001..0.1:log",
    "train.optimizer:adamw|lion|rmsprop",
    "data.randaug_layers:1..3",
    "data.flip:true|false",
]
GIVEN = {"data.augname": "randaug", "train.lr_base": 0.02}


@pytest.fixture
def search_settings(tmp_path, fake):
    """Runs a search with made-up results in a folder of the test."""

    def run(stop=None, *, space=SPACE, given=GIVEN, **keys):
        settings = {"space": space, "trials": 4, "epochs": 2, **keys}
        named = {f"search.{key}": value for key, value in settings.items()}
        config = resolve("efficientnetv2-b0", "digits", {**given, **named})
        return engine_module.search(config, tmp_path / "run", stop or StopRequest())

    return run


@pytest.fixture
def untimed(fake, monkeypatch):
    """Made-up results as of trials that are not timed."""
    fake.seconds = [None]
    return fake


def test_the_network_stays_and_the_settings_are_drawn(untimed, search_settings, tmp_path):
    untimed.curves = [[0.5, 0.7], [0.1, 0.6], [0.1, 0.9], [0.1, 0.8], [0.1, 0.5]]
    rows = search_settings(prune=False)
    configs = [job.config for job in untimed.jobs]
    assert len({config.model for config in configs}) == 1
    assert [job.folder.name for job in untimed.jobs] == ["default", "000", "001", "002", "003"]
    assert {job.timed_steps for job in untimed.jobs} == {0}
    first = configs[0].train
    assert (first.lr_base, first.optimizer, first.epochs) == (0.02, "adamw", 2)
    assert len({config.train.lr_base for config in configs}) == 5
    for config in configs[1:]:
        assert 0.001 <= config.train.lr_base <= 0.1 and config.data.randaug_layers in (1, 2, 3)
    assert [row["reward"] for row in rows] == [0.9, 0.8, 0.6, 0.5]  # the accuracy itself
    best = rows[0]
    assert best["train.lr_base"] == configs[2].train.lr_base
    with (tmp_path / "run" / "trials.csv").open(newline="") as file:
        assert set(read_space(SPACE)) < set(next(csv.reader(file)))
    assert (tmp_path / "run" / "search.png").stat().st_size > 10_000


def test_the_best_settings_can_be_pasted_and_read(untimed, search_settings, tmp_path, capsys):
    untimed.curves = [[0.5, 0.7], [0.1, 0.6], [0.1, 0.9], [0.1, 0.8]]
    search_settings(trials=3, prune=False)
    out = capsys.readouterr().out
    (text,) = re.findall('--hparam_str="(.*)"', out)
    trained = untimed.jobs[2].config
    best = tmp_path / "run" / "best.yaml"
    for settings in (text, str(best)):
        config = resolve("efficientnetv2-b0", "digits", "data.augname=randaug", settings)
        for key in read_space(SPACE):
            section, field = key.split(".")
            assert config[section][field] == trained[section][field]
        assert config.train.epochs == 16  # the rest stays
    assert best.read_text().startswith("# trial 1: minival top-1 0.9000 after 2 epochs\n")
    assert set(yaml.safe_load(best.read_text())) == set(read_space(SPACE))
    assert "default: accuracy 0.7000, " in out and re.search("^default +0.7000$", out, re.MULTILINE)
    assert "sampler tpe" in out and "train.lr_base 0.001 to 0.1 (log)" in out


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_interrupted_search_draws_what_it_would_have(
    untimed, search_settings, tmp_path, sampler
):
    untimed.ends = {3: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search_settings(sampler=sampler)
    assert len(search_settings(sampler=sampler)) == 4
    assert untimed.jobs[3].config == untimed.jobs[4].config  # the interrupted trial
    interrupted = [job.config.train.lr_base for job in untimed.jobs[1:3] + untimed.jobs[4:]]
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            path.unlink()
    untimed.jobs.clear()
    untimed.ends = {}
    for folder in sorted((tmp_path / "run").rglob("*"), reverse=True):
        folder.rmdir()
    search_settings(sampler=sampler)
    assert [job.config.train.lr_base for job in untimed.jobs[1:]] == interrupted


def test_settings_that_do_not_go_together_fail_alone(untimed, search_settings, tmp_path):
    """Each end is possible with the other settings as they are, but not all pairs of them."""
    space = ["train.lr_base:0.001|0.1", "train.lr_min:0|0.01"]
    rows = search_settings(space=space, given={"train.lr_base": 0.1}, sampler="random", trials=12)
    failed = [row for row in rows if row["state"] == "fail"]
    assert {(row["train.lr_base"], row["train.lr_min"]) for row in failed} == {(0.001, 0.01)}
    assert all("must not exceed the peak learning rate" in row["error"] for row in failed)
    assert rows[0]["state"] == "complete"


def test_a_result_on_disk_is_taken_for_the_same_settings_alone(untimed, search_settings, tmp_path):
    untimed.ends = {1: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search_settings(trials=1)
    (job,) = untimed.jobs[1:]
    saved = json.loads((tmp_path / "run" / "default" / "result.json").read_text())
    job.folder.mkdir(parents=True, exist_ok=True)
    file = job.folder / "result.json"
    for settings, expected in (({}, 3), (dict(job.identity["settings"]), 3)):
        file.write_text(json.dumps({**saved, "settings": settings, "accuracy": 0.25}))
        if settings:
            optuna.delete_study(
                study_name="search", storage=f"sqlite:///{tmp_path / 'run' / 'search.db'}"
            )
        search_settings(trials=1)
        if not settings:
            assert len(untimed.jobs) == expected  # trained again
        else:
            (row,) = search_settings(trials=1)
            assert row["accuracy"] == 0.25


def test_a_failed_default_says_so(untimed, search_settings):
    untimed.ends = {0: TrialFailure("out of memory")}
    with pytest.raises(UserError, match="the default settings cannot be trained: out of memory"):
        search_settings()


def test_another_space_is_refused(untimed, search_settings):
    search_settings(trials=1)
    with pytest.raises(UserError, match=r"another configuration.*search\.space \["):
        search_settings(space=SPACE[:2])


def test_a_study_from_before_search_space_goes_on(fake, search, tmp_path):
    search(trials=1)
    study = optuna.load_study(
        study_name="search", storage=f"sqlite:///{tmp_path / 'run' / 'search.db'}"
    )
    saved = json.loads(study.user_attrs["config"])
    del saved["search.space"]
    study.set_user_attr("config", json.dumps(saved))
    file = tmp_path / "run" / "search.yaml"
    lines = [line for line in file.read_text().splitlines() if "space:" not in line]
    file.write_text("\n".join(lines).replace("sampler: random", "sampler: rl") + "\n")
    assert len(search(trials=2)) == 2 and len(fake.jobs) == 3


@pytest.mark.slow
def test_a_real_search_is_killed_and_goes_on(start_process, tmp_path, data_dir, wait_until):
    keys = {
        "model.blocks_args": "[r1_k3_s2_e1_i8_o8]",
        "model.feature_size": 8,
        "data.data_dir": data_dir,
        "search.space": "[train.lr_base:0.001..0.1:log,train.optimizer:adamw|lion]",
        "search.trials": 1,
        "search.epochs": 2,
        "search.prune": "false",
    }
    text = ",".join(f"{key}={value}" for key, value in keys.items())
    folder = tmp_path / "run"
    call = ["main_tf2.py", "--mode=search", f"--model_dir={folder}", f"--hparam_str={text}"]
    process = start_process(*call, has_stderr=False)
    first = folder / "trials" / "000" / "metrics.jsonl"
    wait_until(lambda: first.exists() and first.read_text(), seconds=300)
    process.kill()
    process.communicate()
    process = start_process(*call, has_stderr=False)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "going on" in out
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete"]
    for row in rows:
        run = folder / "trials" / f"{int(row['trial']):03d}"
        trained = yaml.safe_load((run / "config.yaml").read_text())["train"]
        assert trained["lr_base"] == float(row["train.lr_base"])
        assert trained["optimizer"] == row["train.optimizer"]
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert float(row["accuracy"]) == max(last["minival_top1"], last["minival_ema_top1"])
        assert not (run / "timing.json").exists()


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [("", 1.0), (",search.epochs=30", 3.0), (",train.lr_warmup_epoch=4", 4.0)],
)
def test_the_warm_up_is_a_tenth_of_a_trial_at_most(tmp_path, settings, epochs):
    """For one's own images, whose recipe has five epochs of it."""
    for number in range(12):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(path)
    space = "search.space=[train.lr_base:0.001..0.1:log],search.epochs=5"
    text = f"{space}{settings}".replace(",search.epochs=5,search.epochs", ",search.epochs")
    arguments = ["main_tf2.py", "search", str(tmp_path / "photos"), f"--hparam_str={text}"]
    values = parse(define_flags({}), arguments)
    config = _with_short_warm_up(config_from_flags(values), values)
    assert config.train.lr_warmup_epoch == epochs
