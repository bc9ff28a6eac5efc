"""Tests that real processes which share a study run each trial once, and lose none."""

import json
import pathlib
import subprocess
import sys

import optuna
import pytest

ROOT = pathlib.Path(__file__).parents[3]
LIMIT = 12
# Runs trials until there are no more; prints the number and the choices of each.
WORK = """
import json, pathlib, sys, time
import optuna
from efficientnetv2.search.claims import Claims
from efficientnetv2.search.samplers import build_sampler, silence_optuna
silence_optuna()
folder, seconds, limit = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
choices = {"a": tuple(range(50)), "b": tuple(range(50))}
study = optuna.create_study(
    storage=sys.argv[4], study_name="s", load_if_exists=True, direction="maximize",
    sampler=build_sampler("rl", choices, seed=1),
)
claims = Claims(study, folder, limit=limit, choices=choices)
print("ready", flush=True)
sys.stdin.readline()
while not claims.is_done():
    with claims.next_trial() as claim:
        if claim is None:
            time.sleep(0.02)
            continue
        trial, again = claim
        print(json.dumps([trial.number, trial.params, again]), flush=True)
        time.sleep(seconds)
        study.tell(trial, trial.number / 100)
"""


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="s", direction="maximize")
    return url


def start(folder, url, *, seconds=0.02):
    folder.mkdir(exist_ok=True)
    arguments = [sys.executable, "-c", WORK, str(folder), str(seconds), str(LIMIT), url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(arguments, cwd=ROOT, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def finish(*processes):
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(line) for lines in printed for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("one", "one"), ("one", "two")], ids=str)
def test_two_processes_run_each_trial_once(tmp_path, url, folders):
    ran = finish(*[start(tmp_path / folder, url) for folder in folders])
    assert sorted(number for number, _, _ in ran) == list(range(LIMIT))
    assert not any(again for _, _, again in ran)
    trials = optuna.load_study(study_name="s", storage=url).trials
    counted = [trial for trial in trials if "surplus" not in trial.user_attrs]
    assert [trial.state.name for trial in counted] == ["COMPLETE"] * LIMIT
    if folders == ("one", "one"):
        assert len(trials) == LIMIT


@pytest.mark.slow
def test_a_killed_process_leaves_its_trial_to_the_next(tmp_path, url):
    killed = start(tmp_path / "one", url, seconds=600)
    killed.stdin.write("go\n")
    killed.stdin.flush()
    number, params, again = json.loads(killed.stdout.readline())
    assert (number, again) == (0, False)
    other = start(tmp_path / "one", url)
    other.stdin.write("go\n")
    other.stdin.flush()
    ran = [json.loads(other.stdout.readline()) for _ in range(1, LIMIT)]  # then it waits
    killed.kill()
    killed.communicate()
    ran += [json.loads(line) for line in other.communicate(timeout=60)[0].splitlines()]
    assert ran[-1] == [0, params, True]
    assert [number for number, _, _ in ran[:-1]] == list(range(1, LIMIT))
    assert len(optuna.load_study(study_name="s", storage=url).trials) == LIMIT
