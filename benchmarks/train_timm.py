"""Trains as a timm user does, for ``benchmarks.time_to_accuracy``: one JSON line an epoch.

    python -m benchmarks.train_timm FOLDER --image_size=64 --epochs=8 --learning_rate=0.004

timm's loader, transforms and moving average; channels last; float32, or bfloat16 with ``--bf16``.
The folder holds ``train``, ``val`` and ``test``, each with a folder a class.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import torch

from benchmarks.rival_flags import training_flags
from benchmarks.torchvision_ops import detection_ops

with detection_ops():
    import timm
    import timm.data
    import timm.optim
    import timm.scheduler
    import timm.utils

NORMAL = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMAL_LITE = ((0.5,) * 3, (0.5,) * 3)  # timm's, for its weights of Lite0


def open_split(flags: argparse.Namespace, split: str) -> Any:
    """Returns timm's loader of one split."""
    is_training = split == "train"
    mean, deviation = NORMAL if flags.weights is None else NORMAL_LITE
    return timm.data.create_loader(
        timm.data.create_dataset("", str(flags.folder / split)),
        input_size=(3, flags.image_size, flags.image_size),
        batch_size=flags.batch_size,
        is_training=is_training,
        use_prefetcher=False,
        no_aug=False,
        scale=(0.7, 1.0),
        hflip=0.5,
        color_jitter=None,
        auto_augment=None,
        interpolation="bicubic",
        mean=mean,
        std=deviation,
        crop_pct=1.0,
        num_workers=2,
        persistent_workers=True,
        pin_memory=False,
        device=torch.device("cpu"),
    )


def accuracy(model: torch.nn.Module, loader: Any, *, bf16: bool) -> float:
    """Returns the top-1 accuracy of a network on a split."""
    model.eval()
    right = total = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for pixels, labels in loader:
            logits = model(pixels.contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(-1) == labels).sum())
            total += len(labels)
    return right / total


def build_model(flags: argparse.Namespace, *, num_classes: int) -> torch.nn.Module:
    """Returns EfficientNetV2-B0, or EfficientNet-Lite0 from the weights of a file."""
    if flags.weights is None:
        return timm.create_model(
            "tf_efficientnetv2_b0", num_classes=num_classes, drop_rate=0.2, drop_path_rate=0.2
        )
    model = timm.create_model("tf_efficientnet_lite0", drop_rate=0.2)
    timm.models.load_checkpoint(model, str(flags.weights))
    model.reset_classifier(num_classes)
    return model


def main() -> None:
    parser = training_flags(__doc__.split("\n")[0])
    parser.add_argument("--bf16", action="store_true")
    flags = parser.parse_args()

    torch.set_num_threads(os.cpu_count() or 1)
    timm.utils.random_seed(flags.seed)
    loaders = {split: open_split(flags, split) for split in ("train", "val", "test")}
    classes = sorted(path.name for path in (flags.folder / "train").iterdir())
    model = build_model(flags, num_classes=len(classes)).to(memory_format=torch.channels_last)
    average = timm.utils.ModelEmaV3(model, decay=0.999, use_warmup=True)
    optimizer = timm.optim.create_optimizer_v2(
        model, opt="adamw", lr=flags.learning_rate, weight_decay=0.05
    )
    steps = len(loaders["train"])
    schedule = timm.scheduler.CosineLRScheduler(
        optimizer,
        t_initial=flags.epochs * steps,
        warmup_t=steps,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    step = 0
    for epoch in range(flags.epochs):
        model.train()
        loss_sum = 0.0
        for pixels, labels in loaders["train"]:
            schedule.step_update(step)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=flags.bf16):
                logits = model(pixels)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            average.update(model, step=step)
            loss_sum += loss.item()
        raw, ema = (accuracy(net, loaders["val"], bf16=flags.bf16) for net in (model, average))
        line = {"epoch": epoch + 1, "loss": loss_sum / steps, "val": ema, "val_raw": raw}
        print(json.dumps(line), flush=True)
    test = accuracy(average, loaders["test"], bf16=flags.bf16)
    print(json.dumps({"test": test}), flush=True)


if __name__ == "__main__":
    main()
