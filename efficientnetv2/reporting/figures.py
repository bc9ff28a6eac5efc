"""Sets the common style of figures, and saves them without ever leaving half a file."""

from __future__ import annotations

import contextlib
import io
import pathlib
import textwrap

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.runtime.atomic_write import draft_of

# Blue and orange can be told apart by colour-blind readers and in grey print.
BLUE, ORANGE, GREY = "#2b5c8a", "#d1791f", "#6b6b6b"

_POINTS_PER_INCH = 72
_LETTER_WIDTH = 0.65  # of a letter, as a share of the font's size


def plain_axes(*, font_size: float = 9) -> contextlib.AbstractContextManager:
    """Within the context, axes have no frame at the top and at the right."""
    return mpl.rc_context(
        {"font.size": font_size, "axes.spines.top": False, "axes.spines.right": False}
    )


def fitted(title: str, figure: Figure, *, size: float = 11) -> str:
    """Returns a title on as many lines as fit the width of a figure: paths may be long.

    Args:
      title: of any length.
      figure: its size must be set.
      size: of the font, in points.
    """
    letters = int(figure.get_figwidth() * _POINTS_PER_INCH / (size * _LETTER_WIDTH))
    return plain(textwrap.fill(title, letters))


def plain(text: str) -> str:
    """Returns text of others that Matplotlib draws as it is, and not ``$...$`` as mathematics."""
    return text.replace("$", r"\$")


def legend_below(figure: Figure, *panels: Axes) -> None:
    """Puts one line that explains the colours and markers of some panels below a figure."""
    entries = [panel.get_legend_handles_labels() for panel in panels]
    handles = [handle for column, _ in entries for handle in column]
    labels = [label for _, column in entries for label in column]
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside lower center")


def figure_bytes(figure: Figure, *, dpi: int = 110) -> bytes:
    """Returns a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | pathlib.Path, *, dpi: int = 110) -> None:
    """Writes a figure as a PNG file, replacing an old one.

    Raises:
      WriteError: if it cannot be written; an old file stays.
    """
    with draft_of(pathlib.Path(path)) as draft:
        figure.savefig(draft, dpi=dpi, format="png")
