"""Crops of a photograph, which tests copy, damage and blur."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

GOLDEN = pathlib.Path(__file__).parents[3] / "golden"


@pytest.fixture(scope="session")
def photograph():
    """A photograph: uint8 ``[375, 500, 3]``."""
    return np.array(Image.open(GOLDEN / "photo_500x375.jpg").convert("RGB"))


@pytest.fixture(scope="session")
def crops(photograph):
    """Crops of 100 x 90 pixels that do not overlap, as Pillow images; none is of plain sky."""
    pieces = [
        Image.fromarray(photograph[y : y + 90, x : x + 100])
        for y in range(0, 360, 90)
        for x in range(0, 500, 100)
    ]
    return [piece for piece in pieces if np.std(piece.convert("L")) > 12]


@pytest.fixture(scope="session")
def encoded():
    """Returns the bytes of an image file."""

    def encode(image, file_format="JPEG", **options):
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode
