"""Where images come from: a configuration in; references to images, and what they refer to, out.

``DataError`` and ``listing`` do without TensorFlow; it is imported when the rest is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from efficientnetv2.data.sources.errors import DataError

if TYPE_CHECKING:
    from efficientnetv2.data.sources.base import Source as Source
    from efficientnetv2.data.sources.opening import build_source as build_source

__all__ = ["DataError", "Source", "build_source"]


def __getattr__(name: str) -> Any:
    if name in ("Source", "build_source"):
        from efficientnetv2.data.sources import opening

        return getattr(opening, name)
    raise AttributeError(f"module 'efficientnetv2.data.sources' has no attribute '{name}'")
