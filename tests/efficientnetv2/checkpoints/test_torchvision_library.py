"""Compares whole networks with torchvision's, where it is installed.

    pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0

Without it, test_torch_networks.py compares small networks that it has written.
"""

import numpy as np
import pytest

from efficientnetv2 import get_model

torch = pytest.importorskip("torch", reason="needs PyTorch, which is not in requirements-dev.txt")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    """torchvision.models; builds that have not loaded its operators need their declaration."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("torchvision.models", reason="needs torchvision")


def randomise(model):
    """Draws weights and BatchNorm's values; its statistics are near those of a batch of noise."""
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                scale = module.weight[0].numel() ** -0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * scale)
        for norm in norms:
            norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator) * 0.6 + 0.5)
            norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.2)
            norm.momentum = 1.0
        model.train()(torch.randn(4, 3, 96, 96, generator=generator))
        for norm in norms:
            spread = torch.rand(norm.running_var.shape, generator=generator) + 0.5
            norm.running_var.mul_(spread).add_(0.1 * norm.running_var.mean())
    return model.eval()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("efficientnet_v2_s", "efficientnetv2-s"), ("efficientnet_b0", "efficientnet-b0")],
)
def test_logits_are_those_of_torchvision(models, tmp_path, theirs, ours):
    network = randomise(getattr(models, theirs)(weights=None))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = np.random.default_rng(0).standard_normal((1, 96, 96, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    logits = get_model(ours, weights=tmp_path / "weights.pth")(images, training=False)
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
