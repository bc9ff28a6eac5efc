"""Tests the command line when things go wrong: damage, a second trainer, a full disk, a signal."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow  # most tests here train for several seconds

ROOT = pathlib.Path(__file__).parents[3]
SETTINGS = (
    "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16_c1],model.feature_size=64,"
    "train.batch_size=64,train.epochs=12,train.lr_base=0.02,train.lr_warmup_epoch=1,"
    "train.stages=1,train.isize=24,eval.isize=24,data.augname=none,train.optimizer=adam,"
    "runtime.keep_checkpoint_max=2,"
    "runtime.save_checkpoint_epochs=1"
)


def arguments(folder, mode="traineval", settings=SETTINGS):
    flags = [f"--mode={mode}", "--model_name=efficientnetv2-b0", f"--model_dir={folder}"]
    if mode in ("train", "traineval"):
        flags += ["--dataset_cfg=digits", f"--hparam_str={settings}"]
    elif mode == "infer":
        flags += [f"--image_path={ROOT / 'docs/images/digits'}"]
    return [str(ROOT / "main_tf2.py"), *flags]


def run(*options):
    """Runs a program that ends before it would import TensorFlow."""
    command = [sys.executable, *arguments(*options)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def followed(tmp_path_factory, start_process):
    """A training, a second one that was refused meanwhile, and an evaluation that followed it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    training = start_process(*arguments(folder))
    wait_for(folder / "training.lock", training)
    evaluation = start_process(*arguments(folder, "eval"))
    began = time.monotonic()
    second = run(folder)
    seconds = time.monotonic() - began
    results = {"training": training.communicate(), "eval": evaluation.communicate()}
    assert training.returncode == 0, results["training"][1]
    assert evaluation.returncode == 0, results["eval"][1]
    return {"folder": folder, "pid": training.pid, "second": second, "seconds": seconds, **results}


def test_a_second_trainer_is_refused_at_once(followed):
    second = followed["second"]
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1)
    assert f"is being trained by process {followed['pid']} on " in second.stderr
    assert followed["seconds"] < 5  # TensorFlow alone takes longer here
    assert not (followed["folder"] / "training.lock").exists()


def test_an_evaluation_follows_a_training_to_its_end(followed):
    folder = followed["folder"]
    lines = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert len(steps) > 1 and steps == sorted(set(steps))
    assert steps[-1] == 12 * 19
    assert [line.split()[:2] for line in followed["eval"][0].splitlines()[: len(steps)]] == [
        ["step", str(step)] for step in steps
    ]
    final = json.loads((folder / "eval.json").read_text())
    assert final.pop("best").keys() == final["raw"].keys()  # only of the last one
    assert {key: lines[-1][key] for key in final} == final
    assert followed["eval"][1] == ""


@pytest.mark.parametrize(("mode", "number"), [("train", signal.SIGTERM), ("eval", signal.SIGINT)])
def test_a_signal_before_anything_is_done_ends_it_at_once(mode, number, followed, tmp_path):
    folder = followed["folder"] if mode == "eval" else tmp_path / "run"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    command = [sys.executable, *arguments(folder, mode)]
    with subprocess.Popen(command, **pipes) as process:
        time.sleep(1)  # TensorFlow is being imported
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert err == f"main_tf2.py: stopped by {number.name}\n"
    assert list(tmp_path.iterdir()) == []


def damage(folder, step):
    file = folder / "checkpoints" / f"ckpt-{step}.data-00000-of-00001"
    values = bytearray(file.read_bytes())
    values[len(values) // 2] ^= 1
    file.write_bytes(values)


@pytest.fixture
def copied(followed, tmp_path):
    return pathlib.Path(shutil.copytree(followed["folder"], tmp_path / "copied"))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(main_tf2, copied):
    damage(copied, 12 * 19)
    result = main_tf2(*arguments(copied)[1:], cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("\n") == 1
    assert f"warning: checkpoint '{copied}/checkpoints/ckpt-228' is damaged: ckpt-228.data" in (
        result.stderr
    )
    assert f"using '{copied}/checkpoints/ckpt-209' instead" in result.stderr
    assert "going on after step 209 of 228" in result.stdout


@pytest.mark.parametrize("mode", ["train", "traineval", "eval", "infer"])
def test_where_all_are_damaged_nothing_is_trained_anew(mode, copied):
    for step in (228, 209):
        damage(copied, step)
    began = time.monotonic()
    result = run(copied, mode)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "no checkpoint can be used: " in result.stderr and "ckpt-209" in result.stderr
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_full_disk_is_one_line(followed, run_process, tmp_path):
    result = run_process(*arguments(tmp_path / "run"), file_size_limit=60_000)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "cannot write '" in result.stderr and "the same command goes on" in result.stderr


@pytest.mark.slow
def test_a_small_disk_is_one_line(run_process, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        large = SETTINGS.replace("feature_size=64", "feature_size=640")  # 0.3 MB a checkpoint
        result = run_process(*arguments(tmp_path / "run", "traineval", large))
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
        assert "No space left on device" in result.stderr
        checked = ["sha256sum", "--check", *(tmp_path / "run" / "checkpoints").glob("*.sha256")]
        assert len(checked) > 2
        subprocess.run(checked, check=True, cwd=tmp_path / "run" / "checkpoints")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_patience_is_for_traineval(tmp_path):
    result = run(tmp_path / "run", "train", f"{SETTINGS},train.patience=2")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "train.patience needs the minival results of --mode=traineval" in result.stderr
    assert list(tmp_path.iterdir()) == []
