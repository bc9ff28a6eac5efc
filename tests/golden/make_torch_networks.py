"""Writes torch_networks.tar.xz: small networks of torchvision, timm and transformers, and logits.

python tests/golden/make_torch_networks.py
    (with PyTorch 2.13.0, torchvision 0.28.0, timm 1.0.31 and transformers 5.24.0, from the root)

Each network is made by the library's own class and saved by its own function. All weights and all
BatchNorm statistics are random, so that a wrong epsilon, padding or order of channels shows.
"""

import io
import json
import pathlib
import tarfile
import tempfile
from functools import partial

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

TARGET = pathlib.Path(__file__).parent / "torch_networks.tar.xz"
# torchvision asks for these operators, which a build of PyTorch without CUDA may not have loaded.
OPS = torch.library.Library("torchvision", "DEF")
for op in ("nms", "qnms"):
    OPS.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

SIZES = (64, 75)  # pixels: even and odd, at every reduction
CLASSES = 5


def randomise(model: nn.Module) -> None:
    """Draws weights and statistics, rounded so that the archive stays small."""
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: torch.Tensor, low: float, high: float, steps: float) -> None:
        values = torch.rand(tensor.shape, generator=generator) * (high - low) + low
        tensor.copy_(torch.round(values * steps) / steps)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                draw(module.weight, 0.5, 1.5, 64)
                draw(module.bias, -0.5, 0.5, 64)
                draw(module.running_mean, -0.2, 0.2, 64)
                # As small as variances get, where BatchNorm's epsilon matters most.
                draw(module.running_var, 0.001, 0.1, 4096)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                draw(module.weight, -1, 1, 16)
                module.weight.mul_(2.0 ** round(np.log2(0.5 * fan_in**-0.5)))
                if module.bias is not None:
                    draw(module.bias, -0.5, 0.5, 16)


def torchvision_v2(folder: pathlib.Path) -> nn.Module:
    """Fused and other blocks, with and without expansion; BatchNorm's epsilon as V2's."""
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

    model = EfficientNet(
        [
            FusedMBConvConfig(1, 3, 1, 8, 8, 1),
            FusedMBConvConfig(4, 3, 2, 8, 8, 2),
            MBConvConfig(4, 3, 2, 8, 16, 2),
        ],
        dropout=0.2,
        last_channel=24,
        num_classes=CLASSES,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
    )
    randomise(model)
    torch.save(model.state_dict(), folder / "weights.pth")
    return model


def torchvision_v1(folder: pathlib.Path) -> nn.Module:
    """MBConv blocks with kernels of 3 and 5; BatchNorm's epsilon as B0's."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    model = EfficientNet(
        [
            MBConvConfig(1, 3, 1, 8, 8, 1),
            MBConvConfig(6, 5, 2, 8, 8, 2),
            MBConvConfig(6, 3, 2, 8, 16, 1),
        ],
        dropout=0.2,
        num_classes=CLASSES,
    )
    randomise(model)
    torch.save(model.state_dict(), folder / "weights.pth")
    return model


def timm_v1(folder: pathlib.Path) -> nn.Module:
    """The same network as timm's efficientnet_b0 pads and normalises, in the files of its hub."""
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet

    blocks = [["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r2_k5_s2_e6_c8_se0.25"]]
    blocks += [["ir_r1_k3_s2_e6_c16_se0.25"]]
    model = EfficientNet(
        block_args=decode_arch_def(blocks),
        num_classes=CLASSES,
        num_features=64,
        stem_size=8,
        round_chs_fn=partial(round_channels, multiplier=1.0),
        act_layer=nn.SiLU,
        norm_layer=nn.BatchNorm2d,
    )
    randomise(model)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "efficientnet_b0",
        "num_classes": CLASSES,
        "num_features": 64,
        "pretrained_cfg": {
            "tag": "ra_in1k",
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return model


def transformers_v1(folder: pathlib.Path) -> nn.Module:
    """The same kinds of blocks in transformers, which pads as TensorFlow does."""
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        width_coefficient=0.05,  # of the stem's 32 and the head's 1280 channels
        depth_coefficient=1.0,
        depth_divisor=8,
        kernel_sizes=[3, 5, 3],
        in_channels=[160, 320, 160],  # the first block of a stage adds nothing, even where it could
        out_channels=[320, 160, 320],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 6, 6],
        hidden_dim=64,
        image_size=64,
        num_labels=CLASSES,
        id2label={str(n): f"class {n}" for n in range(CLASSES)},
    )
    model = EfficientNetForImageClassification(config)
    randomise(model)
    model.save_pretrained(folder)
    return model


# (interpolation, crop_size, resize_size): one of them cuts half a pixel, one nothing.
TRANSFORMS = (("bilinear", 48, 51), ("bicubic", 40, 47), ("bicubic", 45, 45))


def preprocessed() -> dict[str, np.ndarray]:
    """Returns scikit-learn's photographs as torchvision's evaluation shows them, uint8."""
    from sklearn.datasets import load_sample_images
    from torchvision.transforms import InterpolationMode, functional

    arrays = {}
    for kind, crop_size, resize_size in TRANSFORMS:
        for number, photo in enumerate(load_sample_images().images):
            image = functional.to_pil_image(photo)
            mode = InterpolationMode(kind)
            image = functional.resize(image, resize_size, interpolation=mode, antialias=True)
            image = functional.center_crop(image, crop_size)
            arrays[f"photo_{kind}_{crop_size}_{resize_size}_{number}"] = np.asarray(image)
    return arrays


NETWORKS = {
    "torchvision_v2": torchvision_v2,
    "torchvision_v1": torchvision_v1,
    "timm_v1": timm_v1,
    "transformers_v1": transformers_v1,
}


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Removes from an entry of the archive who wrote it, and when."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info


def main() -> None:
    """Writes the archive."""
    arrays: dict[str, np.ndarray] = {}
    for size in SIZES:
        pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
        arrays[f"pixels_{size}"] = pixels // 16  # 16 levels, so that they take little space
    arrays |= preprocessed()
    with tempfile.TemporaryDirectory() as name, tarfile.open(TARGET, "w:xz") as tar:
        for network, make in NETWORKS.items():
            folder = pathlib.Path(name) / network
            folder.mkdir()
            model = make(folder).eval()
            for size in SIZES:
                if network == "transformers_v1" and size % 2:
                    continue  # it pads right only at the sizes that it was made for
                images = torch.tensor(arrays[f"pixels_{size}"] / np.float32(8) - 1)
                with torch.no_grad():
                    logits = model(images.permute(0, 3, 1, 2))
                logits = getattr(logits, "logits", logits)
                arrays[f"{network}_{size}"] = logits.numpy()
            for file in sorted(folder.iterdir()):
                tar.add(file, f"{network}/{file.name}", filter=anonymous)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        info = tarfile.TarInfo("arrays.npz")
        info.size = len(stream.getvalue())
        tar.addfile(info, io.BytesIO(stream.getvalue()))
    print(TARGET, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
