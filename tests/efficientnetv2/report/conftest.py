"""What a report draws, to be looked at by the tests."""

import pytest
from matplotlib import figure

from efficientnetv2.report import pictures, plots


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[figure.Figure]:
    """The figures that are made from now on."""
    made: list[figure.Figure] = []

    def make(*args: object, **settings: object) -> figure.Figure:
        made.append(figure.Figure(*args, **settings))
        return made[-1]

    for module in (pictures, plots):
        monkeypatch.setattr(module, "Figure", make)
    return made
