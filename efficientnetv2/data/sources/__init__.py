"""Opens data sets: from TensorFlow Datasets, a folder of image files, or TFRecord files.

The modules ``image_files``, ``folder_layout``, ``folder_splits`` and ``tfrecord_files`` need no
TensorFlow, so a wrong folder is reported at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficientnetv2.data.sources.build import build_source as build_source
    from efficientnetv2.data.sources.source import Source as Source

__all__ = ["Source", "build_source"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imports TensorFlow
        from efficientnetv2.data.sources import build

        return getattr(build, name)
    raise AttributeError(f"module 'efficientnetv2.data.sources' has no attribute '{name}'")
