"""Answers the flags of timm, Ultralytics, Keras, torchvision and the official code in our words."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

from hparams.errors import UserError, shortened, shown

# Another name -> our flag, which means the same.
_SAME: Mapping[str, str] = {
    "b": "batch_size",
    "batch": "batch_size",
    "bs": "batch_size",
    "train_batch_size": "batch_size",
    "lr": "learning_rate",
    "lr0": "learning_rate",
    "imgsz": "image_size",
    "img_size": "image_size",
    "img": "image_size",
    "isize": "image_size",
    "size": "image_size",
    "input_size": "image_size",
    "epoch": "epochs",
    "num_epochs": "epochs",
    "train_epochs": "epochs",
    "opt": "optimizer",
    "optim": "optimizer",
    "aa": "augment",
    "auto_augment": "augment",
    "augmentation": "augment",
    "dtype": "precision",
    "model_arch": "model",
    "arch": "model",
    "a": "model",
    "m": "model",
    "dataset": "data",
    "dataset_name": "data",
    "data_path": "data",
    "d": "data",
    "source": "image_path",
    "input": "image_path",
    "images": "image_path",
    "checkpoint": "weights",
    "initial_checkpoint": "weights",
    "teacher_path": "teacher",
    "init_checkpoint": "weights",
    "random_seed": "seed",
    "topk": "top_k",
    "val": "validate",
    "tta": "flip",
    "include": "format",
    "from": "runs",
    "h": "help",
}

# Another name -> the config key, which has no short flag.
_KEYS: Mapping[str, str] = {
    "sched": "train.lr_sched",
    "scheduler": "train.lr_sched",
    "lr_scheduler": "train.lr_sched",
    "warmup_epochs": "train.lr_warmup_epoch",
    "lr_warmup_epochs": "train.lr_warmup_epoch",
    "min_lr": "train.lr_min",
    "weight_decay": "train.weight_decay",
    "wd": "train.weight_decay",
    "momentum": "train.momentum",
    "smoothing": "train.label_smoothing",
    "teacher_model": "train.teacher_model",
    "distillation_alpha": "train.distill_weight",
    "distillation_tau": "train.distill_temperature",
    "label_smoothing": "train.label_smoothing",
    "mixup": "data.mixup_alpha",
    "mixup_alpha": "data.mixup_alpha",
    "cutmix": "data.cutmix_alpha",
    "cutmix_alpha": "data.cutmix_alpha",
    "reprob": "data.random_erasing",
    "random_erase": "data.random_erasing",
    "color_jitter": "data.color_jitter",
    "degrees": "data.rotate",
    "aug_repeats": "data.repeats",
    "ra_reps": "data.repeats",
    "drop": "model.dropout_rate",
    "dropout": "model.dropout_rate",
    "clip_grad": "train.gclip",
    "clip_grad_norm": "train.gclip",
    "patience": "train.patience",
    "grad_accum_steps": "train.accumulate",
    "model_ema_decay": "train.ema_decay",
    "ema_decay": "train.ema_decay",
    "val_batch_size": "eval.batch_size",
    "eval_batch_size": "eval.batch_size",
    "strategy": "runtime.strategy",
    "device": "runtime.strategy",
}

# What needs no flag, or another one.
_ANSWERS: Mapping[str, str] = {
    "pretrained": "give --weights=imagenet, or a path",
    "num_classes": "the classes are counted in the data; for others, "
    '--hparam_str="model.num_classes=N"',
    "nc": "the classes are counted in the data",
    "workers": "leave it out: the input pipeline uses all cores",
    "j": "leave it out: the input pipeline uses all cores",
    "num_workers": "leave it out: the input pipeline uses all cores",
    "resume": "leave it out: the same command goes on from the newest checkpoint in --model_dir",
    "exist_ok": "leave it out: the same command goes on where it stopped",
    "name": "give --model_dir=FOLDER, where everything is written",
    "project": "give --model_dir=FOLDER, where everything is written",
    "experiment": "give --model_dir=FOLDER, where everything is written",
    "save_dir": "give --model_dir=FOLDER, where everything is written",
    "logdir": "give --model_dir=FOLDER, where everything is written",
    "out": "give --model_dir=FOLDER",
    "o": "give --model_dir=FOLDER",
    "amp": "give --precision=bfloat16",
    "half": "give --precision=bfloat16; for an exported file --format=tflite_fp16",
    "model_ema": "leave it out: a moving average is always kept; train.ema_decay=0 in --hparam_str "
    "turns it off",
    "gpu": "leave it out: all GPUs are used; CUDA_VISIBLE_DEVICES chooses some of them",
    "gpus": "leave it out: all GPUs are used; CUDA_VISIBLE_DEVICES chooses some of them",
    "cpu": 'give --hparam_str="runtime.strategy=cpu"',
    "world_size": "start one process per machine with TF_CONFIG; docs/recipes.md says how",
    "local_rank": "start one process per machine with TF_CONFIG; docs/recipes.md says how",
    "verbose": "leave it out: one line an epoch is printed",
    "v": "leave it out: one line an epoch is printed",
    "freeze": 'give --hparam_str="train.varsexp=REGEX", the variables to train',
    "drop_path": 'give --hparam_str="model.survival_prob=0.8", which is 1 minus its rate',
    "vflip": 'give --hparam_str="data.vertical_flip=true"',
    "flipud": 'give --hparam_str="data.vertical_flip=true"',
    "hflip": 'half of the images are mirrored; --hparam_str="data.flip=false" mirrors none',
    "fliplr": 'half of the images are mirrored; --hparam_str="data.flip=false" mirrors none',
    "config": "give --hparam_str=FILE.yaml",
    "cfg": "give --hparam_str=FILE.yaml",
    "c": "give --hparam_str=FILE.yaml",
    "int8": "give --mode=export --format=tflite_int8",
    "test_only": "give --mode=eval",
    "evaluate": "give --mode=eval",
    "e": "give --mode=eval",
}

_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)(?P<value>(?:=.*)?)", re.DOTALL)
_SHORT = re.compile(r"-(?P<name>[bjadm])(?P<value>\d+)")  # -b64


def our_words(arguments: Sequence[str], known: Container[str]) -> list[str]:
    """Writes arguments in our words: ``--img-size 96`` as ``--image_size 96``.

    Args:
      arguments: of the command line, without the program's name.
      known: the flags that there are; they are left as they are.

    Raises:
      UserError: for a flag that only other programs have; the line says what does the same here.
    """
    words: list[str] = []
    for number, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[number:]]
        match = _SHORT.fullmatch(word) or _FLAG.fullmatch(word)
        if match is None:
            words.append(word)
            continue
        name, value = match["name"].replace("-", "_"), match["value"]
        positive = name.removeprefix("no").removeprefix("_")
        if name in known:
            words.append(f"--{name}{value}")
        elif name in _SAME:
            words.append(f"--{_SAME[name]}{value if value[:1] in ('', '=') else f'={value}'}")
        elif positive in known:
            words.append(f"--no{positive}{value}")
        elif name in _KEYS or name in _ANSWERS:
            following = arguments[number + 1] if number + 1 < len(arguments) else "VALUE"
            raise UserError(
                f"there is no flag {shown(word.partition('=')[0])}: "
                f"{_answer(name, value.removeprefix('=') or following)}"
            )
        else:
            words.append(word)
    return words


def _answer(name: str, value: str) -> str:
    if name in _ANSWERS:
        return _ANSWERS[name]
    value = "VALUE" if value.startswith("-") else shortened(value)
    if name == "device" and value not in ("cpu", "gpu"):
        return _ANSWERS["gpus"]
    return f'give --hparam_str="{_KEYS[name]}={value}"'
