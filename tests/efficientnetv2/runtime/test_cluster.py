"""Tests how TF_CONFIG is read, and the message for each way in which it can be wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from efficientnetv2.runtime.cluster import (
    ALONE,
    Cluster,
    ClusterError,
    find_cluster,
    require_divisible,
    require_for_replicas,
    require_tpu_here,
    tpu_name,
)
from hparams import UserError, resolve

ROOT = pathlib.Path(__file__).parents[3]
WORKERS = ["a:1", "b:1", "[::1]:3"]


def environment(cluster=None, task=None, **more):
    config = {"cluster": cluster, "task": task, **more}
    return {"TF_CONFIG": json.dumps({k: v for k, v in config.items() if v is not None})}


def task(index, kind="worker"):
    return {"type": kind, "index": index}


@pytest.mark.parametrize("strategy", ["auto", "multi_worker"])
def test_the_first_worker_is_the_chief(strategy):
    for index in (0, "0"):
        cluster = find_cluster(strategy, environment({"worker": WORKERS}, task(index)))
        assert cluster == Cluster(tuple(WORKERS), 0)
        assert cluster.is_chief
    last = find_cluster(strategy, environment({"worker": WORKERS}, task(2)))
    assert (last.index, last.is_chief) == (2, False)


def test_a_chief_stands_before_the_workers():
    jobs = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    assert find_cluster("auto", environment(jobs, task(0, "chief"))).index == 0
    second = find_cluster("auto", environment(jobs, task(1)))
    assert second == Cluster(("a:1", "b:1", "c:1"), 2)


@pytest.mark.parametrize("strategy", ["none", "cpu", "gpu", "tpu"])
def test_other_strategies_do_not_look(strategy):
    assert find_cluster(strategy, {"TF_CONFIG": "nonsense"}) == ALONE


def test_auto_trains_alone_without_several_workers():
    one = environment({"worker": ["a:1"]}, task(0))
    for variables in ({}, {"TF_CONFIG": " "}, {"TF_CONFIG": "{}"}, one):
        assert find_cluster("auto", variables) == ALONE
    assert find_cluster("multi_worker", one) == Cluster(("a:1",), 0)


WRONG = [
    ({"TF_CONFIG": "{"}, "TF_CONFIG is not valid JSON"),
    ({"TF_CONFIG": "[1]"}, "has no 'cluster'"),
    (environment("a:1", task(0)), "has no 'cluster'"),
    (environment({"worker": WORKERS}), "has no 'task' with a type and an index"),
    (environment({"worker": WORKERS}, {"type": "worker"}), "has no 'task'"),
    (environment({"worker": WORKERS}, task(3)), "index 3 of 'worker' is out of range; 0 to 2"),
    (environment({"worker": WORKERS}, task(-1)), "index -1 of 'worker' is out of range"),
    (environment({"worker": WORKERS}, task(True)), "index True of 'worker' is out of range"),
    (environment({"worker": WORKERS}, task(0, "chief")), "out of range; the cluster lists no"),
    (environment({"worker": WORKERS}, task(0, "ps")), "a job 'ps'; training supports only chief"),
    (environment({"worker": WORKERS, "evaluator": ["d:1"]}, task(0)), "a job 'evaluator'"),
    (environment({"worker": "a:1"}, task(0)), "'worker' must be a list of host:port, got 'a:1'"),
    (environment({"worker": ["a:1", "b"]}, task(0)), "'b' is not of the form host:port"),
    (environment({"worker": ["a:1", "a:1"]}, task(0)), "lists an address twice: a:1, a:1"),
    (environment({"worker": ["c:1"], "chief": ["a:1", "b:1"]}, task(0)), "can be only one chief"),
]


@pytest.mark.parametrize(("variables", "message"), WRONG)
@pytest.mark.parametrize("strategy", ["auto", "multi_worker"])
def test_what_is_wrong_is_named(strategy, variables, message):
    with pytest.raises(ClusterError) as error:
        find_cluster(strategy, variables)
    assert message in str(error.value)


@pytest.mark.parametrize("variables", [{}, {"TF_CONFIG": ""}])
def test_multi_worker_needs_tf_config(variables):
    with pytest.raises(ClusterError, match=r'needs TF_CONFIG on every worker, as in .*"worker"'):
        find_cluster("multi_worker", variables)


def test_the_command_line_says_so_before_tensorflow_is_imported(tmp_path):
    for variables, setting, message in [
        (environment({"worker": WORKERS}), "train.epochs=1", "has no 'task'"),
        (
            environment({"worker": WORKERS}, task(0)),
            "train.batch_size=64",
            "train.batch_size is 64, which is not divisible by the 3 workers of TF_CONFIG; "
            "use 63 or 66",
        ),
    ]:
        code = (
            "import sys; from efficientnetv2.cli import main; "
            f"code = main(['main_tf2.py', '--hparam_str={setting}']); "
            "assert 'tensorflow' not in sys.modules; sys.exit(code)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert message in result.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch", "near"), [(100, "96 or 104"), (7, "8"), (9, "8 or 16")])
def test_a_batch_that_does_not_divide(batch, near):
    with pytest.raises(UserError, match=f"is {batch}, which .* the 8 devices; use {near}$"):
        require_divisible(batch, 8, what="devices")
    require_divisible(batch * 8, 8, what="devices")


def test_what_depends_on_the_number_of_devices():
    def require(replicas, **settings):
        overrides = {key.replace("_", ".", 1): value for key, value in settings.items()}
        require_for_replicas(resolve("efficientnetv2-s", "digits", overrides), replicas)

    require(4, train_batch_size=16, train_accumulate=4)
    with pytest.raises(UserError, match=r"is 24, .* the 16 devices x train\.accumulate; use"):
        require(4, train_batch_size=24, train_accumulate=4)
    compiled = {"model_bn_type": "sync", "runtime_xla": True}
    require(1, train_batch_size=16, **compiled)
    with pytest.raises(UserError, match=r"between the 2 devices, which runtime\.xla"):
        require(2, train_batch_size=16, **compiled)


def test_a_tpu_is_looked_for_where_it_would_be(tmp_path):
    with pytest.raises(UserError, match="no TPU"):
        require_tpu_here("local", tmp_path)
    require_tpu_here("my-tpu", tmp_path)
    (tmp_path / "dev" / "vfio").mkdir(parents=True)
    with pytest.raises(UserError, match="no TPU"):
        require_tpu_here("local", tmp_path)
    for name in ("vfio/0", "accel0"):
        file = tmp_path / "dev" / name
        file.touch()
        require_tpu_here("local", tmp_path)
        file.unlink()


def test_which_tpu():
    assert tpu_name("mine", {"TPU_NAME": "its"}) == "mine"
    assert tpu_name(None, {"TPU_NAME": "its"}) == "its"
    assert tpu_name(None, {}) == "local"
