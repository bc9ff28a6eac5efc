"""Tests that wrong input gives a one-line error, exit code 2, in under a second."""

import importlib.metadata
import json
import pathlib
import re
import resource
import signal
import subprocess
import sys

import pytest

import efficientnetv2
from efficientnetv2.commands import MODES
from efficientnetv2.commands.flag_table import FLAGS
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.flags import parse
from hparams.errors import UserError
from hparams.models import MODELS

ROOT = pathlib.Path(__file__).parents[3]
LIMIT_SECONDS = 1.0


def run(*arguments, program="main_tf2.py", cwd=None):
    command = [sys.executable, str(ROOT / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def measured(*arguments, **options):
    """Returns the result and the processor seconds: the machine may be busy with other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run(*arguments, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


WRONG = {
    "--model_name=efficientnetv2-z": "unknown model 'efficientnetv2-z'; did you mean",
    "--dataset_cfg=digit": "unknown data set 'digit'; did you mean 'digits'?",
    "--hparam_str=train.epoch=3": "unknown key 'train.epoch'; did you mean 'train.epochs'?",
    "--hparam_str=epochs=3": "unknown key 'epochs'; did you mean 'train.epochs'?",
    "--hparam_str=train.epochs=abc": "train.epochs must be an int, got 'abc'",
    "--hparam_str=train.epochs=-1": "train.epochs must be at least 1, got -1",
    "--hparam_str=train.batch_size=1258": "more than the 1257 images of the training split",
    "--hparam_str=train.epochs": "'train.epochs' is not of the form key=value",
    "--hparam_str=nowhere.yaml": "cannot read config file 'nowhere.yaml'",
    "--hparam_str=data.augname=randaugh": "data.augname must be one of none, randaug, autoaug",
    "--dataset_cfg=caltech101": "for any other set of TensorFlow Datasets give tfds:NAME",
    "--dataset_cfg=folder": "folder needs the folder of its files: --data_dir=FOLDER",
    "--data_dir=nowhere": "folder 'nowhere' does not exist",
    "--hparam_str=data.service=foo": "data.service must be grpc://host:port, got 'foo'",
    "--hparam_str=data.service=grpc://localhost:1": "nothing answers at 'grpc://localhost:1'",
    "--sweeps=train.lr_base=0": "train.lr_base must be above 0, got 0.0",
    "--mode=trian": "unknown mode 'trian'; did you mean 'train'?",
    "--mode=infer": "--mode=infer needs --image_path=FILE_OR_FOLDER",
    "--mode=infer --top_k=0": "--top_k",
    "--mode=infer --crops=3": "--crops",
    "--mode=infer --image_path=no/*.jpg": "--image_path 'no/*.jpg' matches no file",
    "--dataset_cfg=cifar10ft": "cifar10ft starts from pretrained weights: give --weights=imagenet|",
    "--weights=nowhere.pth": "there are no weights 'nowhere.pth': give the path of a file, or one",
    "--model_name=resnet50 --weights=imagenet": "no released weights for resnet50",
    "--mode=infer --image_path=. --weights=nowhere.pth": "--image_path '.' holds no image",
    "--mode=eval --weights=nowhere.pth": "there are no weights 'nowhere.pth'",
    "--mode=benchmark --models=efficientnetv2-b0,b1": "unknown model 'b1'",
    "--mode=benchmark --models=": "--models is empty",
    "--mode=benchmark --models=,": "--models is empty; give model names separated by commas",
    "--mode=benchmark --models=resnet50,ResNet50": "--models names resnet50 2 times",
    "--mode=benchmark --batch_size=0": "--batch_size: train.batch_size must be at least 1, got 0",
    "--mode=benchmark --image_scale=nan": "flag --image_scale=nan: 'nan' is not a number",
    "--mode=benchmark --image_scale=0": "flag --image_scale=0: 0.0 is not a number in the range",
    "--mode=benchmark --steps=0": "--steps=0: 0 is not an integer in the range",
    "--mode=find_lr --steps=19": "--steps must be at least 20 with --mode=find_lr",
    "--mode=find_lr --validate": "--validate belongs to --mode=train or traineval, not to",
    "--mode=find_lr --hparam_str=train.batch_size=1258": "more than the 1257 images",
    "find_lr --dataset_cfg=ft --data_dir=nowhere": "nowhere",
    "--mode=find_lr --use_tpu": "runtime.strategy=tpu, but this machine has no TPU (no /dev/accel*",
    "--mode=benchmark --steps=1_0": "flag --steps=1_0: '1_0' is not a whole number",
    "--mode=benchmark --steps=١٢": "flag --steps=١٢: '١٢' is not a whole number",
    "--mode=benchmark --hparam_str=train.accumulate=3": "train.batch_size (16) must be divisible",
    "--mode=search --hparam_str=search.sampler=foo": "search.sampler must be one of rl, random",
    "--mode=search --hparam_str=search.space=[train.lr:1..2]": "search.space: unknown key 'train.l",
    "--mode=search --hparam_str=search.space=[train.lr_base:1..2],search.w=0": "search.w has no ef",
    "--mode=search --hparam_str=search.space=[train.batch_size:9..2000]": "search.space: train.bat",
    "--mode=search --hparam_str=search.kernels=[]": "search.kernels must not be empty",
    "--mode=search --hparam_str=search.kernels=[2,3]": "search.kernels must be odd, got [2]",
    "--mode=search --hparam_str=search.layers=[1,1]": "search.layers must not repeat a value",
    "--mode=search --hparam_str=search.trials=0": "search.trials must be at least 1, got 0",
    "--mode=search --hparam_str=search.backbone=b4": "search.backbone: unknown model 'b4'",
    "--mode=search --hparam_str=search.backbone=resnet50": "resnet50 has no stages to search over",
    "--mode=search --hparam_str=search.backbone=r1_k3": "search.backbone: block 'r1_k3': missing",
    "--mode=search --hparam_str=search.storage=db": "search.storage must be a URL such as postgre",
    "--mode=search --hparam_str=search.storage=sqlite:////no/where/s.db": "no folder '/no/where'",
    "--mode=search --hparam_str=search.storage=postgresql://localhost:1/x": "nothing answers at",
    "--mode=search --model_dir=/proc/nowhere": "cannot write to '/proc/nowhere'",
    "--eval_name=a/b": "use letters, digits, '_', '-' and '.', at most 100, got 'a/b'",
    "--epohcs=3": "Unknown command line flag 'epohcs'. Did you mean: epochs",
    "trian": "unexpected argument 'trian': no mode; did you mean 'train'?",
    "train photos more": "unexpected argument 'more'; flags are written --name=value",
    "train nowhere": "--data: no folder, no table and no data set 'nowhere'; known: digits, ",
    "--data=dgits": "--data: no folder, no table and no data set 'dgits'; did you mean 'digits'?",
    "--epochs=0": "--epochs: train.epochs must be at least 1, got 0",
    "--epochs=abc": "--epochs: train.epochs must be an int, got 'abc'",
    "--optimizer=adamm": "--optimizer: train.optimizer",
    "--epochs=3 --hparam_str=train.epochs=4": "--epochs=3 contradicts train.epochs=4 of --hpar",
    "--seed=1 --sweeps=train.seed=2": "--seed=1 contradicts train.seed=2 of --sweeps",
    "--model=efficientnetv2-s --model_name=efficientnetv2-b0": "--model and --model_name say the",
    "train digits --data_dir=. --dataset_cfg=mnist": "--data and --dataset_cfg say the same",
    "--mode=traineval --novalidate": "--novalidate contradicts --mode=traineval",
    "finetune digits": "--mode=finetune needs weights to start from: --weights=imagenet, or a path",
    "models x": "no model matches 'x'; known: efficientnetv2-s, ",
    "models --model=x": "--model belongs to --mode=train, eval, traineval, infer, export, preview",
    "--mode=eval --epochs=3": "--epochs belongs to --mode=train, traineval, preview, find_lr or ",
    "--use_tpu": "runtime.strategy=tpu, but this machine has no TPU (no /dev/accel*",
    "--tpu=local": "this machine has no TPU",
    "--tpu=grpc://localhost:1": "--tpu: nothing answers at 'grpc://localhost:1'",
    "--hparam_str=runtime.strategy=multi_worker": "multi_worker needs TF_CONFIG on every worker",
    "--export_to_tpu": "--export_to_tpu belongs to --mode=export, not to --mode=train",
    "--image_path=new": "--mode=infer or export; with --mode=train give --data_dir=new",
    "--mode=infer --use_tpu": "--mode=train, traineval, eval, find_lr or search, not to --mode",
    "--noarchive_ckpt": "--noarchive_ckpt belongs to --mode=traineval, not to --mode=train",
    "--mode=infer --image_path=": "--image_path is empty; give it a value, or leave it out",
    "--model_dir=": "--model_dir is empty",
    "--mode=benchmark --models=b0 --model_name=b1": "--models and --model_name both name models",
    "--mode=infer --weights=x --data_dir=new --image_path=.": "holds no image",
    "--mode=export --format=tflit": "unknown --format 'tflit'; did you mean",
    "--mode=search --hparam_str=train.epochs=3": "--mode=search: it is search.epochs in all trials",
    "--mode=search --hparam_str=eval.isize=64": "--mode=search: it is search.isize in all trials",
    "--mode=search --hparam_str=train.stages=3": "it has no effect: the images of a trial have one",
    "--mode=export --format=": "--format is empty; give one or more of keras, saved_model",
    "--mode=export --integer_io": "--integer_io needs --format=tflite_int8",
    "--mode=export --license=MIT": "--license 'MIT' must be an identifier in lower case",
    "--mode=export --format=onnx --serving_dir=x": "--serving_dir needs --format=saved_model",
    "--mode=export --max_loss=1": "--max_loss needs --format=tflite_auto",
    "--mode=export --weights=x.h5": "--weights needs --image_path=FOLDER",
    "--mode=export --format=onnx --image_path=no": "--image_path 'no' does not exist",
}


# A value of each kind of flag that differs from every default.
VALUES = {bool: "", int: "=3", float: "=0.5", list: "=onnx", str: "=5", type(None): "=5"}
TEXTS = {
    "preset": "=fast",
    "recipe": "=paper",
    "optimizer": "=adam",
    "augment": "=randaug",
    "precision": "=bfloat16",
    "data": "=digits",
    "resize": "=crop",
    "quantise": "=int8",
    "max_loss": "=1.5",
    "soup": "=uniform",
    "batchnorm": "=averaged",
}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("models", "models/photos", "models' is a file, not a folder"),
        ("photos/saved_model.pb", "photos", "is a SavedModel; give the folder that holds its"),
    ],
)
def test_serving_dir_that_cannot_hold_versions(name, given, message, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    result, seconds = measured("export", f"--serving_dir={given}", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and seconds < LIMIT_SECONDS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, row in FLAGS.items() if set(row.modes) < {*MODES}])
def test_a_flag_of_another_mode_is_refused(name, mode):
    row = FLAGS[name]
    no = "no" if row.default is True else ""
    argv = [
        "main_tf2.py",
        f"--mode={mode}",
        f"--{no}{name}{TEXTS.get(name) or VALUES[type(row.default)]}",
    ]
    if mode in row.modes:
        argv += [f"--format={','.join(FORMATS)}"] if mode == "export" and name != "format" else []
        parse(define_flags({}), argv)
        return
    with pytest.raises(UserError, match=f"^--{no}{name} belongs to --mode=") as error:
        parse(define_flags({}), argv)
    assert mode in str(error.value) and len(str(error.value)) < 200


def test_home_is_where_the_tilde_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (name for name, row in FLAGS.items() if row.is_path):
        mode = FLAGS[name].modes[0]
        argv = ["main_tf2.py", f"--mode={mode}", f"--{name}=~/a/b"]
        argv += [f"--format={','.join(FORMATS)}"] if mode == "export" else []
        assert parse(define_flags({}), argv)[name].value == str(tmp_path / "a" / "b")


# Runs the program with one list of arguments after the other, each in a fork of a process that has
# imported what every command line imports. So each is new, without the start of Python, 0.2 s.
FORKS = """
import json, os, pathlib, runpy, sys, time
program, root = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(program).parent))
import efficientnetv2.cli
assert "tensorflow" not in sys.modules
rows, before = [], time.process_time()
for number, arguments in enumerate(json.load(sys.stdin)):
    place = pathlib.Path(root, str(number))
    (place / "cwd").mkdir(parents=True)
    child = os.fork()
    if child == 0:
        os.chdir(place / "cwd")
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")
        sys.exit()
    _, status, usage = os.wait4(child, 0)
    seconds = before + usage.ru_utime + usage.ru_stime
    rows.append([os.waitstatus_to_exitcode(status), seconds, str(place)])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def wrong_results(tmp_path_factory):
    """The arguments of ``WRONG`` -> exit code, processor seconds, and a folder.

    There are ``out`` and ``err``, what it printed, and ``cwd``, its working folder.
    """
    arguments = [argument.split() for argument in WRONG]
    command = [sys.executable, "-c", FORKS, ROOT / "main_tf2.py", tmp_path_factory.mktemp("wrong")]
    result = subprocess.run(
        command, input=json.dumps(arguments), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(WRONG, json.loads(result.stdout)))


@pytest.mark.parametrize(("argument", "message"), WRONG.items())
def test_wrong_argument(argument, message, wrong_results):
    code, seconds, folder = wrong_results[argument]
    stdout, stderr = (pathlib.Path(folder, name).read_text() for name in ("out", "err"))
    assert code == 2
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert message in stderr
    assert seconds < LIMIT_SECONDS
    assert list(pathlib.Path(folder, "cwd").iterdir()) == []


TPU_CONFLICTS = {
    ("--tpu=local", "--nouse_tpu"): "--tpu=local contradicts --nouse_tpu",
    (
        "--tpu=local",
        "--hparam_str=runtime.strategy=gpu",
    ): "needs runtime.strategy=tpu",
    (
        "--use_tpu",
        "--hparam_str=train.size_schedule=random",
    ): "give train.size_steps=0 (one size per epoch)",
}


@pytest.mark.parametrize(("arguments", "message"), TPU_CONFLICTS.items())
def test_what_a_tpu_cannot_do(arguments, message, tmp_path):
    result, seconds = measured(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    assert seconds < LIMIT_SECONDS


@pytest.mark.parametrize("mode", ["train", "eval", "infer"])
def test_model_dir_that_is_a_file(mode, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    images = [f"--image_path={file}"] if mode == "infer" else []
    result, seconds = measured(f"--mode={mode}", f"--model_dir={file}", *images)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "is a file; --model_dir must be a directory" in result.stderr
    assert file.read_text() == "mine"
    assert seconds < LIMIT_SECONDS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist; give an image file or a folder"),
        (lambda path: path.mkdir(), "holds no image"),
    ],
)
def test_image_path_without_images(make, message, tmp_path):
    path = tmp_path / "images"
    make(path)
    result, seconds = measured("--mode=infer", f"--image_path={path}", cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    assert seconds < LIMIT_SECONDS


@pytest.mark.parametrize("mode", ["eval", "infer", "export"])
def test_nothing_trained_yet(mode, tmp_path):
    (tmp_path / "x.png").touch()
    images = [] if mode == "eval" else ["--image_path=x.png"]
    result, _ = measured(f"--mode={mode}", *images, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "holds no training run (no config.yaml); train first with --mode=train" in result.stderr


def test_all_problems_in_one_line(tmp_path):
    result = run("--model_name=x", "--hparam_str=train.epochs=-1,foo=2", cwd=tmp_path)
    for part in ("unknown model 'x'", "train.epochs must be at least 1", "unknown key 'foo'"):
        assert part in result.stderr
    assert result.stderr.count("\n") == 1


def test_help():
    result, seconds = measured("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("train", "eval", "traineval", "infer", "--hparam_str", "--model_dir", "digits"):
        assert word in result.stdout
    assert result.stdout.count("\n  python main_tf2.py") == 3
    assert seconds < LIMIT_SECONDS


@pytest.mark.parametrize("arguments", [["infer", "--help"], ["--mode=predict", "--help"]])
def test_help_of_a_mode_has_its_flags_alone(arguments):
    result, seconds = measured(*arguments)
    flags = re.findall(r"^  --(\w+)", result.stdout, re.MULTILINE)
    others = {"mode", "version", "help", "helpfull"}
    assert flags == [n for n, row in FLAGS.items() if "infer" in row.modes and n not in others]
    assert "usage: python main_tf2.py infer [DATA] [flags]" in result.stdout
    assert seconds < LIMIT_SECONDS


def test_version():
    result, seconds = measured("--version")
    lines = result.stdout.splitlines()
    assert lines[0] == f"efficientnetv2 {efficientnetv2.__version__}"
    assert f"tensorflow {importlib.metadata.version('tensorflow')}" in lines
    assert lines[-1].startswith("devices: ")
    assert seconds < LIMIT_SECONDS


def test_models_are_listed_as_the_readme_lists_them():
    result, seconds = measured("models")
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == list(MODELS)
    listed = {row[0]: row[1:6] for row in rows}
    readme = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("| efficientnetv2-")
    ]
    assert len(readme) == 8
    for name, *cells in readme:
        assert listed[name] == cells
    assert seconds < LIMIT_SECONDS


def test_a_pattern_filters_the_models():
    result, _ = measured("models", "*LITE?")
    names = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert names == efficientnetv2.list_models("*lite?")
    assert names == [f"efficientnet-lite{number}" for number in range(5)]


OFFICIAL_FLAGS = [
    "model_name",
    "dataset_cfg",
    "hparam_str",
    "sweeps",
    "use_tpu",
    "tpu_job_name",
    "tpu",
    "gcp_project",
    "tpu_zone",
    "data_dir",
    "eval_name",
    "archive_ckpt",
    "model_dir",
    "mode",
    "export_to_tpu",
]


def test_helpfull_lists_every_official_flag():
    result, seconds = measured("--helpfull")
    for flag in OFFICIAL_FLAGS:
        assert f"  --{flag}: " in result.stdout
    assert seconds < LIMIT_SECONDS


@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_a_reader_who_leaves_early_sees_no_traceback(flag):
    command = [sys.executable, str(ROOT / "main_tf2.py"), flag]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_main_py_wants_imagenet_on_a_tpu(tmp_path):
    result, _ = measured(program="main.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "this machine has no TPU" in result.stderr
    assert "data set" not in result.stderr


def test_main_py_without_flags_names_the_program_to_start_with(tmp_path):
    result, seconds = measured(program="main.py", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("main.py: main.py trains ImageNet on a TPU by default, but ")
    assert "start with `python main_tf2.py`" in result.stderr
    assert seconds < LIMIT_SECONDS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--use_tpu", "--tpu=local"])
def test_main_py_with_a_tpu_flag_names_no_other_program(flag, tmp_path):
    result, _ = measured(flag, program="main.py", cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "runtime.strategy=tpu, but this machine has no TPU" in result.stderr
    assert "main_tf2" not in result.stderr


@pytest.mark.slow
def test_main_py_takes_the_official_flags(tmp_path):
    flags = ["--nouse_tpu", "--dataset_cfg=Imagenet"]
    result = run("--mode=train", *flags, f"--data_dir={tmp_path}", program="main.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "'imagenet2012'" in result.stderr and str(tmp_path) in result.stderr
    assert result.stderr.count("\n") == 1
