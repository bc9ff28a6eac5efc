"""Tests how the engine records trials that finish, are pruned, fail, repeat or are interrupted."""

import csv
import json
import signal

import optuna
import pytest
import yaml

from efficientnetv2.runtime.signals import Stopped
from efficientnetv2.search import claims as claims_module
from efficientnetv2.search import engine as engine_module
from efficientnetv2.search.attributes import ALIVE, OWNER
from efficientnetv2.search.messages import TrialFailure
from hparams import UserError, resolve


def study_of(folder):
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'search.db'}")


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rewards_by_hand(fake, search, tmp_path):
    fake.curves = [[0.1, 0.6], [0.5, 0.8], [0.5, 0.9]]
    fake.seconds = [0.10, 0.05, 0.20]
    assert len(search(trials=2)) == 2
    first, second = rows_of(tmp_path / "run")
    # 0.8 * (0.05 / 0.1)^-0.07 = 0.8 * 2^0.07, and 0.9 * 2^-0.07; all have 2000 parameters
    assert float(first["reward"]) == pytest.approx(0.8 * 1.0497167, abs=1e-6)
    assert float(second["reward"]) == pytest.approx(0.9 * 0.9526380, abs=1e-6)
    assert (first["relative_time"], second["relative_time"]) == ("0.5", "2.0")
    assert (first["state"], first["accuracy"], first["step_spread"]) == ("complete", "0.8", "0.01")
    study = study_of(tmp_path / "run")
    assert study.best_trial.number == 1 and study.best_value == float(second["reward"])


def test_every_trial_is_a_short_training_at_the_reduced_size(fake, search, tmp_path):
    search(trials=2, isize=40, epochs=3)
    for job in fake.jobs:
        config = job.config
        assert (config.train.epochs, config.train.isize, config.eval.isize) == (3, 40, 40)
        assert (config.train.stages, config.train.size_schedule) == (1, "fixed")
    folders = [job.folder.relative_to(tmp_path / "run").as_posix() for job in fake.jobs]
    assert folders == ["backbone", "trials/000", "trials/001"]
    assert fake.jobs[1].config.model.blocks_args != fake.jobs[2].config.model.blocks_args


def test_the_median_rule_by_hand(fake, search, tmp_path):
    """After two trials with 0.5 and 0.7 in the first epoch: 0.59 is below the median, 0.61 not."""
    fake.curves = [[0.5, 0.5], [0.5, 0.8], [0.7, 0.8], [0.59, 0.9], [0.61, 0.9]]
    search(prune_trials=2, prune_epochs=0)
    rows = rows_of(tmp_path / "run")
    assert [row["state"] for row in rows] == ["complete", "complete", "pruned", "complete"]
    assert (rows[2]["epochs"], rows[2]["accuracy"]) == ("1", "0.59")
    assert (
        float(rows[2]["reward"]) == 0.59
    )  # the time and size of the backbone: it counts with that
    assert study_of(tmp_path / "run").best_trial.number == 3


def test_the_median_rule_is_on_the_reward(fake, search, tmp_path):
    """A fourth of the time makes up for 0.66 instead of 0.7: 0.66 * 4^0.07 = 0.727."""
    fake.curves = [[0.5, 0.5], [0.7, 0.8], [0.7, 0.8], [0.66, 0.7], [0.66, 0.7]]
    fake.seconds = [0.4, 0.4, 0.4, 0.1, 0.4]
    search(prune_trials=2, prune_epochs=0)
    rows = rows_of(tmp_path / "run")
    assert [row["state"] for row in rows] == ["complete", "complete", "complete", "pruned"]
    values = study_of(tmp_path / "run").trials[2].intermediate_values
    assert values == {1: pytest.approx(0.66 * 4**0.07), 2: pytest.approx(0.7 * 4**0.07)}


@pytest.mark.parametrize(
    "keys", [{"prune": False}, {"prune_trials": 3}, {"prune_epochs": 2}], ids=str
)
def test_pruning_can_be_turned_off_or_wait(fake, search, tmp_path, keys):
    fake.curves = [[0.5, 0.5], [0.5, 0.8], [0.7, 0.8], [0.1, 0.2]]
    search(**{"trials": 3, "prune_trials": 2, "prune_epochs": 0, **keys})
    assert [row["state"] for row in rows_of(tmp_path / "run")] == ["complete"] * 3


@pytest.mark.slow
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(fake, search, tmp_path, capsys):
    fake.ends = {2: TrialFailure("the loss of step 3 is nan: the learning rate is too high")}
    assert len(search()) == 4
    rows = rows_of(tmp_path / "run")
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    assert rows[1]["error"] == "the loss of step 3 is nan: the learning rate is too high"
    assert "trial 1  failed: the loss of step 3 is nan" in capsys.readouterr().out


@pytest.mark.slow
def test_a_full_disk_ends_the_search_and_the_trial_goes_on_later(fake, search, tmp_path):
    fake.ends = {2: TrialFailure("cannot write 'x': No space left on device", is_fatal=True)}
    with pytest.raises(UserError, match="No space left on device"):
        search()
    assert [t.state.name for t in study_of(tmp_path / "run").trials] == ["COMPLETE", "RUNNING"]
    assert len(search()) == 4
    assert [row["state"] for row in rows_of(tmp_path / "run")] == ["complete"] * 4
    assert fake.jobs[3].folder.name == "001" and len(fake.jobs) == 6


def test_the_backbone_must_train(fake, search):
    fake.ends = {0: TrialFailure("out of memory")}
    with pytest.raises(UserError, match="the backbone cannot be trained: out of memory"):
        search()
    assert len(search(epochs=3)) == 4  # nothing has come of it: all may change


def test_nothing_that_came_to_its_end(fake, search):
    fake.ends = {number: TrialFailure("no luck") for number in range(1, 3)}
    with pytest.raises(UserError, match="none of 2 trials finished; the last error: no luck"):
        search(trials=2)


@pytest.mark.slow
def test_an_interrupted_trial_goes_on_with_the_same_network(fake, search, tmp_path, capsys):
    fake.ends = {2: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search()
    before = study_of(tmp_path / "run").trials[1]
    capsys.readouterr()
    assert len(search()) == 4
    assert "going on with trial 1" in capsys.readouterr().out
    trials = study_of(tmp_path / "run").trials
    assert len(trials) == 4 and trials[1].params == before.params
    assert fake.jobs[2].config == fake.jobs[3].config and len(fake.jobs) == 6


@pytest.mark.slow
def test_what_a_trial_found_before_a_kill_is_not_measured_again(fake, search, tmp_path):
    fake.curves = [[0.5, 0.5], [0.5, 0.8]]
    search(trials=1)
    fake.ends = {2: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search(trials=2)
    result = tmp_path / "run" / "trials" / "001" / "result.json"
    saved = json.loads((tmp_path / "run" / "trials" / "000" / "result.json").read_text())
    saved["network"] = list(fake.jobs[2].config.model.blocks_args)
    result.write_text(json.dumps(saved))
    search(trials=2)
    assert rows_of(tmp_path / "run")[1]["accuracy"] == "0.8" and len(fake.jobs) == 3


@pytest.mark.slow
def test_more_trials_can_be_asked_for(fake, search, tmp_path):
    search(trials=2)
    search(trials=2)
    assert len(fake.jobs) == 3
    search(trials=3)
    assert len(fake.jobs) == 4 and len(study_of(tmp_path / "run").trials) == 3


@pytest.mark.slow
def test_the_same_network_again_takes_the_values_of_the_first(fake, search, tmp_path):
    one = {"operations": ["fused"], "kernels": [3], "expansions": [1, 4], "layers": [1.0]}
    search(**one, trials=8)
    rows = rows_of(tmp_path / "run")
    networks = {row["network"] for row in rows}
    assert len(networks) < 5 and len(fake.jobs) == 1 + len(networks)
    for row in rows:
        first = next(other for other in rows if other["network"] == row["network"])
        assert row["same_as"] == ("" if row is first else first["trial"])
        assert (row["reward"], row["state"]) == (first["reward"], "complete")


def test_best_yaml_is_a_configuration(fake, search, tmp_path):
    fake.curves = [[0.5, 0.5], [0.5, 0.6], [0.5, 0.9], [0.5, 0.7]]
    search(trials=3)
    best = tmp_path / "run" / "best.yaml"
    assert best.read_text().startswith("# trial 1: ")
    config = resolve("efficientnetv2-s", "digits", str(best))
    assert config.model.blocks_args == fake.jobs[2].config.model.blocks_args
    assert config.train == resolve("efficientnetv2-s", "digits").train
    assert set(yaml.safe_load(best.read_text())) <= {f"model.{key}" for key in config.model}


@pytest.mark.parametrize(
    ("keys", "difference"),
    [
        ({"kernels": [3]}, r"search\.kernels \[3, 5\] -> \[3\]"),
        ({"epochs": 5}, r"search\.epochs 2 -> 5"),
        ({"backbone": ["r1_k3_s1_e1_i8_o8"]}, r"search\.backbone \["),
    ],
)
def test_a_study_of_another_space_is_refused(fake, search, keys, difference):
    search(trials=1)
    with pytest.raises(UserError, match=f"another configuration.*{difference}.*; give the same"):
        search(**keys)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite:///{}/other.db", "journal:{}/journal.log"])
def test_other_storages(fake, search, tmp_path, storage):
    fake.ends = {2: Stopped(signal.SIGINT)}
    url = storage.format(tmp_path)
    with pytest.raises(Stopped):
        search(storage=url)
    assert len(search(storage=url)) == 4
    assert not (tmp_path / "run" / "search.db").exists()
    assert [row["state"] for row in rows_of(tmp_path / "run")] == ["complete"] * 4


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite:////nowhere/x/search.db", "x/search.db': there is no folder '/nowhere/x'"),
        ("sqlite:////dev/null", "search.storage 'sqlite:////dev/null': "),
        ("postgresql://me:secret@localhost:1/x", "nothing answers at 'localhost:1'"),
        ("mysql+driver://me:secret@localhost:1/x?a=b", "nothing answers at 'localhost:1'"),
        ("postgresql+pg8000://me:secret@/x", r"pg8000://me@/x': its database driver is not inst"),
        ("journal:/nowhere/x/log", "x/log': there is no folder '/nowhere/x'"),
        ("nonsense://x", "Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_opened(fake, search, storage, message):
    with pytest.raises(UserError, match=message) as caught:
        search(storage=storage)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.slow
def test_two_run_directories_on_one_study(fake, search, tmp_path, monkeypatch):
    """A trial of the other directory is left alone while that is alive, and failed when silent."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    fake.ends = {1: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search("one", storage=url)
    study = optuna.load_study(study_name="search", storage=url)
    assert study.trials[0].user_attrs[OWNER]
    monkeypatch.setattr(claims_module, "_HEARTBEAT_TIMEOUT_SECONDS", -1)
    assert search("two", storage=url)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert "no sign of life from" in study.trials[0].user_attrs["error"]
    assert study.trials[1].user_attrs[ALIVE] > 0
    assert search("one", storage=url)  # nothing is left to do there
    assert len(study.trials) == 4


def test_a_trial_of_a_live_run_directory_is_waited_for(fake, search, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    fake.ends = {1: Stopped(signal.SIGTERM)}
    with pytest.raises(Stopped):
        search("one", storage=url, trials=1)
    waited = []

    def give_up(seconds):
        waited.append(seconds)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(engine_module.time, "sleep", give_up)
    with pytest.raises(Stopped):
        search("two", storage=url, trials=1)
    assert len(waited) == 1
    assert optuna.load_study(study_name="search", storage=url).trials[0].state.name == "RUNNING"


def test_a_run_directory_has_one_study(fake, search, tmp_path):
    search(trials=1)
    with pytest.raises(UserError, match="has the trials of the study 'search' in"):
        search(trials=2, study_name="other")
    with pytest.raises(UserError, match="has the trials of the study 'search' in"):
        search(trials=2, storage=f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "run" / "search.db").unlink()
    with pytest.raises(UserError, match=r"has lost its search\.db"):
        search(trials=2)
    (tmp_path / "run" / "search.yaml").unlink()
    with pytest.raises(UserError, match="has trials of another search"):
        search(trials=2)


def test_a_study_with_a_former_name_of_a_key_goes_on(fake, search, tmp_path):
    search(trials=1)
    study = study_of(tmp_path / "run")
    saved = json.loads(study.user_attrs["config"])
    assert saved.pop("data.resize") == "squash"
    study.set_user_attr("config", json.dumps({**saved, "data.eval_crop": False}))
    assert len(search(trials=2)) == 2
    study.set_user_attr("config", json.dumps({**saved, "data.eval_crop": True}))
    with pytest.raises(UserError, match=r"data\.resize published -> squash"):
        search(trials=3)
