"""Tests weights of torchvision on the command line: settings that follow them into every file."""

import tarfile

import pytest
import yaml

from efficientnetv2.checkpoints.file_settings import metadata_of, settings_of_weights
from efficientnetv2.checkpoints.model_arguments import model_config
from efficientnetv2.commands.config_from_flags import config_from_flags
from efficientnetv2.commands.convert import network_from_flags
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.data.decode import describe_resize
from efficientnetv2.flags import parse
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import ConfigError, UserError, resolve

BLOCKS = (
    "model.blocks_args=[r1_k3_s1_e1_i8_o8_se0.25,r2_k5_s2_e6_i8_o8_se0.25,"
    "r1_k3_s2_e6_i8_o16_se0.25],model.feature_size=64"
)
SETTINGS = f"{BLOCKS},data.augname=none,train.stages=1,eval.batch_size=8,train.batch_size=8"
OF_FILE = {"padding": "torch", "bn_epsilon": 1e-5, "preprocess": "torch_bicubic"}


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """A folder with a file of torchvision, as torchvision wrote it."""
    folder = tmp_path_factory.mktemp("torch_weights")
    with tarfile.open(golden / "torch_networks.tar.xz") as archive:
        archive.extract("torchvision_v1/weights.pth", folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def trained(main_tf2, folder, photos):
    """The output of a training from that file, in the folder's run directory ``run``."""
    result = main_tf2(
        *("train", photos, "--model=efficientnet-b0", "--preset=none", "--epochs=1"),
        *("--image_size=28", "--weights=torchvision_v1/weights.pth", "--model_dir=run"),
        *("--resize=published", f"--hparam_str={SETTINGS}"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def config_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.mark.slow
def test_a_training_has_the_padding_of_its_weights(folder, trained):
    assert "weights.pth' (PyTorch, torchvision)" in trained
    config = config_of(folder / "run")
    assert {key: config["model"][key] for key in OF_FILE} == OF_FILE
    assert (config["eval"]["crop_pct"], config["eval"]["isize"]) == (0.875, 28)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("resize", "crop_pct"), [("published", 0.875), ("squash", None)])
def test_a_training_that_starts_from_the_run_has_it_too(folder, photos, resize, crop_pct):
    arguments = ["main_tf2.py", "train", str(photos), "--model=efficientnet-b0"]
    arguments += [f"--weights={folder}/run", f"--resize={resize}", f"--hparam_str={BLOCKS}"]
    config = config_from_flags(parse(define_flags({}), arguments))
    assert {key: config.model[key] for key in OF_FILE} == OF_FILE
    assert config.eval.crop_pct == crop_pct


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_exported_files_pad_as_the_network(main_tf2, folder):
    """Each file is run by its own runtime and compared with the network, as always."""
    formats = "keras,saved_model,tflite,tflite_int8,onnx"
    result = main_tf2(
        *("export", "--model_dir=run", f"--format={formats}", "--output_dir=exported"), cwd=folder
    )
    assert result.returncode == 0, result.stderr
    again = settings_of_weights(
        next((folder / "exported").glob("*.keras")), model_name="efficientnet-b0"
    )
    assert again == {"model.padding": "torch", "model.bn_epsilon": 1e-5}


@pytest.mark.slow
def test_images_are_classified_by_the_file_as_it_is(main_tf2, folder, photos):
    result = main_tf2(
        *("infer", photos / "test", "--weights=torchvision_v1/weights.pth"),
        *("--model=efficientnet-b0", f"--hparam_str={BLOCKS},model.num_classes=5"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr


def test_converted_files_say_how_the_network_pads_and_normalises(main_tf2, folder):
    command = ("convert", "--weights=torchvision_v1/weights.pth", "--model=efficientnet-b0")
    for name in ("b0.safetensors", "b0.keras", "b0.weights.h5"):
        result = main_tf2(
            *(*command, f"--output={name}", f"--hparam_str={BLOCKS},model.num_classes=5"),
            cwd=folder,
        )
        assert result.returncode == 0, result.stderr
        settings = settings_of_weights(folder / name, model_name="efficientnet-b0")
        hint = '--hparam_str="model.padding=torch,model.bn_epsilon=1e-05,model.preprocess='
        assert (hint in result.stdout) == (name == "b0.weights.h5")
        if name != "b0.weights.h5":
            assert settings == {f"model.{key}": value for key, value in OF_FILE.items()}


def test_a_converted_release_keeps_its_normalisation():
    """That of ``imagenet`` is AdvProp's, another than Keras's or Noisy Student's B0 has."""
    arguments = ["main_tf2.py", "convert", "--model=efficientnet-b0", "--weights=imagenet"]
    network = network_from_flags(parse(define_flags({}), arguments))
    assert metadata_of(network) == {"model.preprocess": "v2"}


def test_a_network_of_get_model_is_that_of_its_run(tmp_path):
    settings = {f"model.{key}": value for key, value in OF_FILE.items()}
    run = RunDirectory(tmp_path / "run")
    run.start(resolve("efficientnet-b0", "digits", BLOCKS, settings), [str(n) for n in range(10)])
    network = model_config(
        "efficientnet-b0", BLOCKS, include_preprocessing=True, weights=tmp_path / "run"
    )
    assert {key: network[key] for key in OF_FILE} == OF_FILE
    arguments = ["main_tf2.py", "convert", "--model=efficientnet-b0", f"--weights={run.path}"]
    network = network_from_flags(parse(define_flags({}), arguments))
    assert {key: network[key] for key in OF_FILE} == OF_FILE


@pytest.mark.parametrize("mode", ["infer", "export", "train", "convert"])
def test_without_network_one_line_says_so(main_tf2, folder, photos, tmp_path, monkeypatch, mode):
    monkeypatch.setenv("EFFICIENTNETV2_MIRROR", "http://127.0.0.1:1")
    monkeypatch.setenv("EFFICIENTNETV2_CACHE", str(tmp_path))
    place = {"train": photos, "convert": "--output=a.keras"}
    result = main_tf2(
        *(mode, place.get(mode, f"--image_path={photos}/test")),
        "--weights=torchvision:efficientnet_b0",
        cwd=folder,
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    address = "http://127.0.0.1:1/models/efficientnet_b0_rwightman-7f5810bc.pth"
    assert f"cannot download {address}" in result.stderr


def test_weights_of_a_store_are_for_their_network(main_tf2, folder, photos):
    result = main_tf2(
        *("infer", photos / "test", "--model=efficientnetv2-s"),
        "--weights=timm:tf_efficientnet_b0",
        cwd=folder,
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "'timm:tf_efficientnet_b0' is for efficientnet-b0, not for efficientnetv2-s" in (
        result.stderr
    )


def test_your_own_setting_wins(main_tf2, folder):
    result = main_tf2(
        *("convert", "--weights=torchvision_v1/weights.pth", "--model=efficientnet-b0"),
        *(
            "--output=own.weights.h5",
            f"--hparam_str={BLOCKS},model.num_classes=5,model.padding=same",
        ),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    assert "model.padding" not in result.stdout


def test_a_crop_needs_a_resize_that_crops():
    message = "eval.crop_pct=0.9 is for data.resize=published, not for squash"
    with pytest.raises(ConfigError, match=message):
        resolve("efficientnet-b0", "imagenet2012", "eval.crop_pct=0.9,data.resize=squash")


@pytest.mark.parametrize(
    ("preprocess", "crop_pct", "text"),
    [
        (
            "torch_bilinear",
            240 / 255,
            "resize the image (bilinear with antialiasing) so that its shorter side is 255 pixels, "
            "and cut the central 240 x 240 pixels",
        ),
        (
            "torch_bicubic_half",
            None,
            "resize the image (bicubic with antialiasing) so that its shorter side is 274 pixels, "
            "and cut the central 240 x 240 pixels",
        ),
        (
            "v1",
            0.9,
            "cut the central square that is 0.9 of the shorter side long, and resize it (bicubic) "
            "to 240 x 240 pixels",
        ),
    ],
)
def test_the_crop_in_words(preprocess, crop_pct, text):
    described = describe_resize(
        "published", image_size=240, preprocess=preprocess, crop_pct=crop_pct
    )
    assert described == text


@pytest.mark.parametrize("mode", ["train", "preview", "search"])
def test_weights_given_as_a_key_bring_their_settings_too(folder, photos, mode, monkeypatch):
    weights = f"{folder}/torchvision_v1/weights.pth"
    common = ["main_tf2.py", mode, str(photos), "--model=efficientnet-b0", "--resize=published"]
    settings = f"{BLOCKS},train.ft_init_ckpt={weights}"
    monkeypatch.setenv("HOME", str(folder))
    by_flag, by_key = (
        config_from_flags(parse(define_flags({}), [*common, *arguments]))
        for arguments in (
            [f"--weights={weights}", f"--hparam_str={BLOCKS}"],
            [f"--hparam_str={BLOCKS},train.ft_init_ckpt=~/torchvision_v1/weights.pth"],
        )
    )
    assert by_key == by_flag and {key: by_key.model[key] for key in OF_FILE} == OF_FILE
    for given in (settings, "train.ft_init_ckpt=none"):
        with pytest.raises(UserError, match=r"--weights=imagenet contradicts train.ft_init_ckpt="):
            arguments = [*common, "--weights=imagenet", f"--hparam_str={given}"]
            config_from_flags(parse(define_flags({}), arguments))
