"""Tests trials and searches with real trainings in real processes, some of them killed."""

import csv
import itertools
import json
import multiprocessing
import pathlib
import re
import signal
import threading

import optuna
import pytest

from efficientnetv2 import get_model
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.search.engine import trial_config
from efficientnetv2.search.messages import EpochReport, TrialFailure, TrialJob, TrialResult
from efficientnetv2.search.runner import run_trial
from hparams import resolve

ROOT = pathlib.Path(__file__).parents[3]
NETWORK = {"model.blocks_args": ["r1_k3_s2_e1_i8_o8"], "model.feature_size": 8}
DATA = {"data.augname": "none"}
TRIALS = 2


def job_of(folder, data_dir, **network):
    settings = {"search.epochs": 3, "search.timed_steps": 2, **DATA, "data.data_dir": data_dir}
    config = resolve("efficientnetv2-s", "digits", settings)
    return TrialJob(
        config=trial_config(config, {**NETWORK, **network}),
        folder=folder / "000",
        data_folder=folder,
        identity={},
        timed_steps=2,
        max_spread=9.0,
        lock_folder=folder,
    )


@pytest.fixture
def quick_start(monkeypatch):
    """Forks the processes of trials from one that has imported TensorFlow, 5 to 10 seconds each.

    The searches below, which are programs, start new ones.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["efficientnetv2.search.train_trial"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


@pytest.mark.slow
def test_a_trial_is_stopped_and_goes_on_in_another_process(quick_start, tmp_path, data_dir, digits):
    job, stop, reports = job_of(tmp_path, data_dir), StopRequest(), []

    def stop_after_the_first(epoch):
        reports.append(epoch)
        stop.number = signal.SIGTERM
        return False

    with pytest.raises(Stopped):
        run_trial(job, stop=stop, after_epoch=stop_after_the_first)
    before = RunDirectory(job.folder).metrics()
    assert [line["epoch"] for line in before] == [1] and reports[0].number == 1
    result = run_trial(job, stop=StopRequest(), after_epoch=lambda e: bool(reports.append(e)))
    after = RunDirectory(job.folder).metrics()
    assert isinstance(result, TrialResult) and after[0] == before[0]
    assert [line["epoch"] for line in after] == [1, 2, 3]
    cost = (result.seconds, result.parameters)  # also before the stop: it is not timed twice
    assert reports == [EpochReport(n, _top1(after[n - 1]), *cost) for n in (1, 1, 2, 3)]
    assert (result.accuracy, result.epochs, result.pruned) == (_top1(after[-1]), 3, False)
    assert result.timed_from < result.timed_until and result.seconds > 0
    assert (
        result.parameters
        == get_model("efficientnetv2-s", overrides=NETWORK, num_classes=10).count_params()
    )


@pytest.mark.slow
def test_a_trial_that_cannot_train_says_why(quick_start, tmp_path, data_dir, digits):
    wrong = job_of(tmp_path, data_dir, **{"train.varsexp": "nowhere"})
    failed = run_trial(wrong, stop=StopRequest(), after_epoch=lambda _: False)
    assert isinstance(failed, TrialFailure) and "train.varsexp='nowhere'" in failed.reason


def _top1(line):
    return max(line["minival_top1"], line["minival_ema_top1"])


def test_a_trial_that_is_killed_from_outside_is_one_line(
    quick_start, tmp_path, data_dir, digits, wait_until
):
    def kill():
        wait_until(multiprocessing.active_children)
        multiprocessing.active_children()[0].kill()

    threading.Thread(target=kill).start()
    failed = run_trial(job_of(tmp_path, data_dir), stop=StopRequest(), after_epoch=lambda _: False)
    assert failed.reason.startswith("its process was killed by SIGKILL, often a sign that memory")


def arguments(folder, data_dir, storage):
    keys = {
        "search.backbone": "[r1_k3_s2_e1_i8_o8]",
        "search.feature_size": 8,
        "search.trials": TRIALS,
        "search.epochs": 3,
        "search.timed_steps": 3,
        "search.prune": False,
        "search.storage": storage,
        **DATA,
        "data.data_dir": data_dir,
    }
    text = ",".join(f"{key}={value}" for key, value in keys.items())
    flags = ["--mode=search", f"--model_dir={folder}", f"--hparam_str={text}"]
    return [ROOT / "main_tf2.py", *flags]


def in_python(call):
    """Returns the same search as a Python program, which need not guard the call."""
    folder, overrides = (argument.partition("=")[2] for argument in call[-2:])
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport efficientnetv2 as env2\n"
        f"rows = env2.search(model_dir={folder!r}, overrides={overrides!r}, verbose=True)\n"
        "print('rewards', *(row['reward'] for row in rows))"
    )
    file = pathlib.Path(folder).parent / "program.py"
    file.write_text(program)
    return [file]


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_is_killed(
    start_process, tmp_path, data_dir, digits, wait_until
):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    call = arguments(tmp_path / "run", data_dir, storage)
    options = {"cwd": tmp_path, "has_stderr": False}
    processes = [start_process(*call, **options) for _ in range(2)]
    first = tmp_path / "run" / "trials" / "000" / "metrics.jsonl"
    wait_until(lambda: first.exists() and first.read_text(), seconds=300)
    study = optuna.load_study(study_name="search", storage=storage)
    before = study.trials[0].params
    printed = []
    for process in processes:  # whichever of them runs it
        process.kill()
        printed.append(process.communicate()[0])
    processes = [start_process(*one, **options) for one in (call, in_python(call))]
    printed += [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    trials = study.trials
    assert len(trials) == TRIALS and trials[0].params == before
    (rewards,) = re.findall("^rewards (.*)$", printed[-1], re.MULTILINE)
    assert list(map(float, rewards.split())) == sorted((t.value for t in trials), reverse=True)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * TRIALS
    ended = re.findall(rf"/{TRIALS}  trial (\d)", "".join(printed))
    assert len(set(ended)) == len(ended) >= 1  # none ran twice
    spans = [
        (t.user_attrs["found"]["timed_from"], t.user_attrs["found"]["timed_until"]) for t in trials
    ]
    for one, other in itertools.combinations(sorted(spans), 2):
        assert one[1] <= other[0]
    with (tmp_path / "run" / "trials.csv").open(newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [str(n) for n in range(TRIALS)]
    assert (tmp_path / "run" / "search.png").stat().st_size > 10_000
    results = [
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("run/trials/*/result.json"))
    ]
    assert len(results) == TRIALS
    assert not list(tmp_path.glob("run/trials/*/checkpoints"))
