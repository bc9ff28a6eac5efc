"""Tests --batch_size=auto: the number goes into the run, and other modes refuse it."""

import pytest

import efficientnetv2 as env2

TINY = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=16"


def test_a_preset_follows_the_batch_and_a_resume_keeps_it(main_tf2, photos, tmp_path):
    command = ("train", photos, "--model=efficientnetv2-b0", "--preset=fast", "--model_dir=run")
    first = main_tf2(
        *command, "--epochs=2", "--batch_size=auto", f"--hparam_str={TINY}", cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    assert "batch size 4: about 0." in first.stdout
    assert "no larger one leaves 8 steps for 40 images\n" in first.stdout
    assert "2 epochs of 10 steps, batch 4," in first.stdout
    trained = env2.load_run(tmp_path / "run").config.train
    # 0.004 for a batch of 64, and with the root of the batch; train.lr_base is per 256
    assert (trained.batch_size, trained.lr_base) == (4, round(0.004 / 4 * 256 / 4, 5))
    for batch in ("auto", "4"):  # the training is found finished
        again = main_tf2(
            *command, "--epochs=2", f"--batch_size={batch}", f"--hparam_str={TINY}", cwd=tmp_path
        )
        assert again.returncode == 0, again.stderr
        assert "batch size 4" not in again.stdout and "after step 20 of 20" in again.stdout


def test_from_python_a_training_of_another_batch_goes_on(data_dir, digits, tmp_path):
    settings = {
        "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
        "model.feature_size": 8,
        "data.data_dir": data_dir,
    }
    options = {"epochs": 1, "overrides": settings, "model_dir": tmp_path / "run"}
    env2.train("efficientnetv2-b0", "digits", batch_size=256, **options)
    run = env2.train("efficientnetv2-b0", "digits", batch_size="auto", **options)
    assert run.config.train.batch_size == 256
    options["model_dir"] = tmp_path / "new"
    run = env2.train("efficientnetv2-b0", "digits", batch_size="auto", **options)
    assert run.config.train.batch_size == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("preview",), "--batch_size=auto belongs to --mode=train or traineval"),
        (("search",), "with --mode=search give a number"),
        (("benchmark",), "with --mode=benchmark give a number"),
        (("eval",), "with --mode=eval give a number"),
        (("export",), "with --mode=export give a number"),
        (
            ("train", "--hparam_str=train.batch_size=32"),
            "--batch_size=auto contradicts train.batch_size=32 of --hparam_str; give one of them",
        ),
        (("train", "--hparam_str=runtime.strategy=tpu"), "this machine has no TPU"),
    ],
)
def test_where_it_has_no_use(main_tf2, tmp_path, arguments, message):
    result = main_tf2(*arguments, "--batch_size=auto", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not list(tmp_path.iterdir())


def test_several_machines_need_a_number(main_tf2, tmp_path, monkeypatch):
    workers = '{"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", '
    monkeypatch.setenv("TF_CONFIG", workers + '"index": 0}}')
    result = main_tf2("train", "--batch_size=auto", cwd=tmp_path)
    assert result.returncode == 2
    assert "is for the GPUs or the CPU of one machine; give a number" in result.stderr


def test_microbatches_divide_it(main_tf2, tmp_path):
    """Before the number is known, the checks do not stumble over that of the recipe."""
    result = main_tf2(
        "train", "--batch_size=auto", "--hparam_str=train.accumulate=3,train.stages=0", cwd=tmp_path
    )
    assert result.returncode == 2
    assert "train.stages must be at least 1, got 0" in result.stderr
    assert "divisible" not in result.stderr
