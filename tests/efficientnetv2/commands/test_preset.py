"""Presets on the command line and from Python: what is chosen, said and kept."""

import itertools

import pytest
from PIL import Image

import efficientnetv2 as env2
from efficientnetv2.train.keras_fit import training_data
from hparams.errors import UserError

TINY = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=16"


@pytest.mark.slow
def test_a_training_says_what_was_chosen_and_goes_on_with_it(main_tf2, photos, tmp_path):
    command = ("train", photos, "--model=efficientnetv2-b0", "--preset=fast", "--model_dir=run")
    result = main_tf2(*command, f"--hparam_str={TINY}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "chosen for these images by preset fast; --mode=preview says why\n" in result.stdout
    assert "10 epochs of 2 steps, batch 16, image size 64 px\n" in result.stdout
    config = env2.load_run(tmp_path / "run").config
    assert (config.train.preset, config.train.epochs, config.eval.isize) == ("fast", 10, 64)
    # More photos do not change what was chosen: the training is found finished.
    Image.new("L", (500, 500)).save(photos / "train" / "dark" / "new.png")
    again = main_tf2(*command, f"--hparam_str={TINY}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(env2.load_run(tmp_path / "run").history) == 10 and "epoch 1/" not in again.stdout
    (photos / "train" / "dark" / "new.png").unlink()
    # Forty epochs alone would have a longer warm-up; a training that goes on has not.
    more = main_tf2(*command, "--epochs=40", f"--hparam_str={TINY}", cwd=tmp_path)
    assert more.returncode == 2 and "holds a training of 10 epochs, not 40" in more.stderr


@pytest.mark.slow
def test_a_training_says_at_which_size_it_is_evaluated(main_tf2, tmp_path):
    for part, name in itertools.product(("train", "test"), ("dark", "light")):
        (tmp_path / "large" / part / name).mkdir(parents=True)
        for number in range(4):
            image = Image.new("L", (70, 70), {"dark": 60, "light": 200}[name] + number)
            image.save(tmp_path / "large" / part / name / f"{number}.png")
    command = ("train", "large", "--model=efficientnetv2-b0", "--preset=fast", "--epochs=1")
    result = main_tf2(*command, "--model_dir=run", f"--hparam_str={TINY}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "batch 6, image size 104 px, evaluated at 128 px\n" in result.stdout
    config = env2.load_run(tmp_path / "run").config
    assert (config.train.isize, config.eval.isize) == (104, 128)


@pytest.mark.slow
def test_a_preview_says_what_was_chosen_and_why(main_tf2, photos, tmp_path):
    command = ("preview", photos, "--model=efficientnetv2-b0", "--model_dir=run")
    result = main_tf2(*command, f"--hparam_str={TINY}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:4] == [
        "64 px, one size: images of 28 px, made about twice as large",
        "50 epochs of 2 steps of 16: 40 images, from scratch",
        "no stochastic depth: it slows down the first epochs",
        "no AutoAugment or RandAugment: small images lose what tells them apart",
    ]


def test_fit_has_the_same_choice(photos):
    data = training_data(photos, "efficientnetv2-b0", preset="fast", epochs=7)
    assert (data.epochs, data.config.eval.isize, data.config.train.batch_size) == (7, 64, 16)
    assert training_data(photos, "efficientnetv2-b0", preset="none").config.eval.isize == 224


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--preset=fats"), "train.preset must be one of none, auto, fast, best"),
        (("train", "--preset=fast"), "train.preset=fast is for a folder of your own images"),
        (("search", "--hparam_str=train.preset=fast"), "train.preset has no effect with --mode=s"),
    ],
)
def test_a_preset_that_has_no_use_is_refused(main_tf2, tmp_path, arguments, message):
    result = main_tf2(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not list(tmp_path.iterdir())


def test_python_refuses_the_same():
    with pytest.raises(UserError, match=r"train\.preset=fast is for a folder of your own images"):
        env2.train("efficientnetv2-b0", "digits", preset="fast")
