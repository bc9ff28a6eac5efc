"""Writes layer_decay.json: the learning rate factors of timm's layer-wise decay, by block.

python -m tests.golden.make_layer_decay  (with timm 1.0.31 and PyTorch 2.13, from the root)
"""

import json
import pathlib
import re

from benchmarks.torchvision_ops import detection_ops

DECAY = 0.75
NAMES = ("tf_efficientnetv2_b0", "tf_efficientnetv2_s", "resnet50")


def scales(name: str) -> dict[str, float]:
    """Returns block, or layer outside of blocks -> its factor in ``param_groups_layer_decay``."""
    import timm
    import torch
    from timm.optim import param_groups_layer_decay

    with torch.device("meta"):
        model = timm.create_model(name)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, set[float]] = {}
    for group in param_groups_layer_decay(model, layer_decay=DECAY):
        for parameter in group["params"]:
            block = re.match(r"(blocks\.\d+|layer\d+)\.\d+|\w+", names[id(parameter)])[0]
            found.setdefault(block, set()).add(group["lr_scale"])
    return {block: scale for block, (scale,) in found.items()}  # one each, or this fails


def main() -> None:
    with detection_ops():
        models = {name: scales(name) for name in NAMES}
    text = json.dumps({"timm": "1.0.31", "layer_decay": DECAY, "models": models}, indent=1)
    pathlib.Path(__file__).with_name("layer_decay.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
