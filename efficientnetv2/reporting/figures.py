"""Sets the common style of figures, and saves them without ever leaving half a file."""

from __future__ import annotations

import contextlib
import pathlib

import matplotlib as mpl
from matplotlib.figure import Figure

from efficientnetv2.runtime.atomic_write import draft_of

# Blue and orange can be told apart by colour-blind readers and in grey print.
BLUE, ORANGE, GREY = "#2b5c8a", "#d1791f", "#6b6b6b"


def plain_axes(*, font_size: float = 9) -> contextlib.AbstractContextManager:
    """Within the context, axes have no frame at the top and at the right."""
    return mpl.rc_context(
        {"font.size": font_size, "axes.spines.top": False, "axes.spines.right": False}
    )


def save_figure(figure: Figure, path: str | pathlib.Path, *, dpi: int = 110) -> None:
    """Writes a figure as a PNG file, replacing an old one.

    Raises:
      WriteError: if it cannot be written; an old file stays.
    """
    with draft_of(pathlib.Path(path)) as draft:
        figure.savefig(draft, dpi=dpi, format="png")
