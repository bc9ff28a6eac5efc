"""Tests what people type first who come from timm, Ultralytics, Keras or torchvision.

Each command either means what it says, or is answered with the flag that does the same here.
"""

import pytest

from efficientnetv2.commands.config_from_flags import config_from_flags, overrides_from_flags
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse
from hparams.errors import UserError

MEANS = {
    "train": {"mode": "train"},
    "train digits": {"mode": "train", "dataset_cfg": "digits"},
    "train photos": {"mode": "train", "data_dir": "photos"},
    "train photos/": {"mode": "train", "data_dir": "photos"},
    "train --data_dir=nowhere/ --model_dir=/": {"data_dir": "nowhere", "model_dir": "/"},
    "train photos --epochs 20": {"data_dir": "photos", "epochs": "20"},
    "train --epochs=20 photos": {"data_dir": "photos", "epochs": "20"},
    "train --data=photos --model=EfficientNetV2S": {"model_name": "EfficientNetV2S"},
    "train photos --model tf_efficientnetv2_s.in21k": {"weights": "imagenet21k"},
    "train --data tfds:food101": {"dataset_cfg": "tfds:food101"},
    "train --dataset cifar10": {"dataset_cfg": "cifar10"},
    "train --data-path photos": {"data_dir": "photos"},
    "finetune photos --weights=photos": {"mode": "train", "weights": "photos"},
    "fit": {"mode": "train"},
    "train --validate": {"mode": "traineval"},
    "train --val": {"mode": "traineval"},
    "train --validate --noarchive_ckpt": {"mode": "traineval", "archive_ckpt": False},
    "--mode=traineval": {"mode": "traineval"},
    "train -b 64": {"batch_size": "64"},
    "train -b64": {"batch_size": "64"},
    "train --batch-size 64": {"batch_size": "64"},
    "train --batch=64": {"batch_size": "64"},
    "train --lr 0.01": {"learning_rate": "0.01"},
    "train --learning-rate=0.01": {"learning_rate": "0.01"},
    "train --imgsz 96": {"image_size": "96"},
    "train --img-size=96": {"image_size": "96"},
    "train --input-size 96": {"image_size": "96"},
    "train --opt adamw": {"optimizer": "adamw"},
    "train --aa randaug": {"augment": "randaug"},
    "train --auto-augment=randaug": {"augment": "randaug"},
    "train --dtype bfloat16": {"precision": "bfloat16"},
    "train --seed 7": {"seed": "7"},
    "train --random-seed=7": {"seed": "7"},
    "train --initial-checkpoint=a.pth": {"weights": "a.pth"},
    "train --model-name=efficientnetv2-s": {"model_name": "efficientnetv2-s"},
    "--mode=predict --source=photos": {"mode": "infer", "image_path": "photos"},
    "predict photos/": {"mode": "infer", "image_path": "photos"},
    "predict photos": {"mode": "infer", "image_path": "photos"},
    "predict list.txt": {"mode": "infer", "image_path": "list.txt"},
    "predict -": {"mode": "infer", "image_path": "-"},
    "predict - --shard 3/64": {"mode": "infer", "image_path": "-", "shard": "3/64"},
    "infer photos --topk=3": {"image_path": "photos", "top_k": 3},
    "predict photos --no-flip": {"flip": False},
    "--mode=test": {"mode": "eval"},
    "val --data photos": {"mode": "eval", "data_dir": "photos"},
    "validate photos": {"mode": "eval", "data_dir": "photos"},
    "evaluate cifar10 --batch-size=8": {"mode": "eval", "batch_size": "8"},
    "export --include=tflite": {"mode": "export", "format": ["tflite"]},
    "train -h": {"mode": "train", "help": True},
    "benchmark --batch_size=8": {"mode": "benchmark", "batch_size": "8"},
    "convert a.pth b.keras": {"mode": "convert", "weights": "a.pth", "output": "b.keras"},
    "convert --checkpoint=a.pth b.keras": {"weights": "a.pth", "output": "b.keras"},
    "find_lr photos --model=efficientnetv2-b0": {"mode": "find_lr", "steps": 100},
    "lr_find digits --steps=50": {"mode": "find_lr", "steps": 50},
    "lr_finder --lr 0.01": {"mode": "find_lr", "learning_rate": "0.01"},
    "find-lr digits -b 32": {"mode": "find_lr", "batch_size": "32"},
    "benchmark": {"mode": "benchmark", "steps": 20},
    "search digits": {"mode": "search", "dataset_cfg": "digits"},
}

ANSWERED = {
    "train --pretrained": "give --weights=imagenet, or a path",
    "train --num-classes 10": "the classes are counted in the data",
    "train --workers 8": "the input pipeline uses all cores",
    "train -j 8": "the input pipeline uses all cores",
    "train -j8": "the input pipeline uses all cores",
    "train --resume": "the same command goes on from the newest checkpoint in --model_dir",
    "train --resume last.ckpt": "the same command goes on",
    "train --output runs/a": "give --model_dir=",
    "train --project runs": "give --model_dir=FOLDER",
    "train --name exp1": "give --model_dir=FOLDER",
    "train --device cpu": 'give --hparam_str="runtime.strategy=cpu"',
    "train --device=0": "all GPUs are used; CUDA_VISIBLE_DEVICES",
    "train --device cuda:1": "all GPUs are used; CUDA_VISIBLE_DEVICES",
    "train --amp": "give --precision=bfloat16",
    "train --sched cosine": 'give --hparam_str="train.lr_sched=cosine"',
    "train --warmup-epochs 3": 'give --hparam_str="train.lr_warmup_epoch=3"',
    "train --weight-decay=0.05": 'give --hparam_str="train.weight_decay=0.05"',
    "train --mixup 0.2": 'give --hparam_str="data.mixup_alpha=0.2"',
    "train --cutmix 1.0": 'give --hparam_str="data.cutmix_alpha=1.0"',
    "train --reprob 0.25": 'give --hparam_str="data.random_erasing=0.25"',
    "train --random-erase=0.1": 'give --hparam_str="data.random_erasing=0.1"',
    "train --color-jitter 0.4": 'give --hparam_str="data.color_jitter=0.4"',
    "train --degrees=10": 'give --hparam_str="data.rotate=10"',
    "train --vflip 0.5": 'give --hparam_str="data.vertical_flip=true"',
    "train --hflip=0": '--hparam_str="data.flip=false" mirrors none',
    "train --aug-repeats 3": 'give --hparam_str="data.repeats=3"',
    "train --ra-reps 4": 'give --hparam_str="data.repeats=4"',
    "train --smoothing 0.1": 'give --hparam_str="train.label_smoothing=0.1"',
    "train --drop 0.3": 'give --hparam_str="model.dropout_rate=0.3"',
    "train --drop-path 0.2": "model.survival_prob=0.8",
    "train --clip-grad 1": 'give --hparam_str="train.gclip=1"',
    "train --model-ema": "a moving average is always kept",
    "train --patience 5": 'give --hparam_str="train.patience=5"',
    "train --freeze 10": "train.varsexp=REGEX",
    "train --config=a.yaml": "give --hparam_str=FILE.yaml",
    "export --half": "--format=tflite_fp16",
    "export --int8": "--format=tflite_int8",
    "train --test-only": "give --mode=eval",
}


def parsed(command):
    return parse(define_flags({}), ["main_tf2.py", *command.split()])


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("command", "meaning"), MEANS.items())
def test_a_command_that_means_what_it_says(command, meaning):
    values = parsed(command)
    assert {name: values[name].value for name in meaning} == meaning


@pytest.mark.parametrize(("command", "answer"), ANSWERED.items())
def test_a_command_that_is_answered_with_our_flag(command, answer):
    with pytest.raises(UserError) as error:
        parsed(command)
    assert answer in str(error.value)


def test_short_flags_are_config_keys():
    values = parsed(
        "train digits --model=V2-B0 --epochs=3 --batch_size=32 --learning_rate=0.02 --seed=9 "
        "--image_size=96 --optimizer=adam --augment=randaug --precision=bfloat16"
    )
    config = config_from_flags(values)
    train, data = config.train, config.data
    assert (config.model.model_name, data.ds_name) == ("efficientnetv2-b0", "digits")
    assert (train.epochs, train.batch_size, train.lr_base, train.seed) == (3, 32, 0.02, 9)
    assert (train.isize, config.eval.isize, data.ibase) == (96, 96, 48)
    assert (train.optimizer, data.augname, train.precision) == ("adam", "randaug", "bfloat16")


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("eval --batch_size=8", {"eval.batch_size": "8"}),
        ("infer --image_size=40", {"eval.isize": "40"}),
        ("search --epochs=2 --batch_size=8", {"search.epochs": "2", "train.batch_size": "8"}),
        ("benchmark --batch_size=8", {"train.batch_size": "8"}),
        ("train --image_size=96 --hparam_str=data.ibase=64", {"train.isize": "96"}),
        ("train --epochs=3 --hparam_str=train.epochs=3", {"train.epochs": "3"}),
    ],
)
def test_what_a_short_flag_means_in_a_mode(command, settings):
    first = overrides_from_flags(parsed(command))[0]
    first.pop("eval.isize", None) if "train --image" in command else None
    assert first == settings


def test_a_name_of_a_folder_and_a_data_set_is_asked_for(tmp_path):
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match="give --data_dir=digits or --dataset_cfg=digits"):
        parsed("train digits")
    assert parsed("train --data_dir=digits").data_dir == "digits"
