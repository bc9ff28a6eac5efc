"""Writes pages of one file: pictures are inside, nothing is loaded from elsewhere.

The pages are the templates in ``pages/``, filled in by Jinja2, which escapes whatever names of
files and classes hold.
"""

from __future__ import annotations

import base64
import datetime
import functools
import io
import pathlib
from typing import Any

import efficientnetv2
from efficientnetv2.runtime.atomic_write import replace_bytes

_PAGES = pathlib.Path(__file__).with_name("pages")
_QUALITY = 75  # of JPEG


def write_page(path: pathlib.Path, template: str, **values: Any) -> None:
    """Fills in a template and writes the page.

    Args:
      path: of the page.
      template: a file in ``pages/``.
      **values: what the template names, besides version and date.

    Raises:
      WriteError: if it cannot be written.
    """
    date = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    version = f"efficientnetv2 {efficientnetv2.__version__}"
    text = _templates().get_template(template).render(version=version, date=date, **values)
    # Names of files may be any bytes.
    replace_bytes(path, text.encode("utf-8", errors="backslashreplace"))


@functools.cache
def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def embedded(content: bytes, *, kind: str) -> str:
    """Returns a picture as an address that holds it.

    Args:
      content: of the file.
      kind: ``png``, ``jpeg`` or ``svg+xml``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embedded_thumbnail(image: Any, *, side: int) -> str:
    """Returns a Pillow image as an address, reduced to at most ``side`` pixels; never enlarged."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return embedded(buffer.getvalue(), kind="jpeg")
