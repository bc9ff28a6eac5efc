"""Collects the figures that reports draw, for the tests to inspect."""

import pytest
from matplotlib import figure

from efficientnetv2.reporting import curves, preview_pictures, rate_curve


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[figure.Figure]:
    """The figures that are made while the test runs."""
    figures: list[figure.Figure] = []

    def make(*args: object, **settings: object) -> figure.Figure:
        figures.append(figure.Figure(*args, **settings))
        return figures[-1]

    for module in (preview_pictures, curves, rate_curve):
        monkeypatch.setattr(module, "Figure", make)
    return figures
