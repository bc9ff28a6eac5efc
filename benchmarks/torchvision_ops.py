"""Lets timm be imported where torchvision's compiled part is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_LIBRARIES: list[Any] = []  # an operator exists as long as its library object


@contextlib.contextmanager
def detection_ops() -> Iterator[None]:
    """Declares two detection operators, so that timm can import torchvision.

    torchvision from PyPI needs another build of torch; without its compiled part these operators
    are missing. No classifier calls them, so their names are enough.
    """
    if not _LIBRARIES:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # torchvision is complete and has declared it
                library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _LIBRARIES.append(library)
    yield
