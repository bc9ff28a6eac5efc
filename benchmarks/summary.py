"""Result files of training steps and inference in; a table and a picture of the ratios out."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_NAME = re.compile(r"(train_step|inference)-(\w+)-(\d+)px-batch(\d+)-(.+)\.csv")
_KINDS = {"train_step": "training", "inference": "inference"}
_KERAS = ("keras.applications", "keras.applications, predict")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network, size and batch, in one run.

    Attributes:
      kind: training or inference.
      network: of EfficientNetV2.
      size: pixels.
      batch: images a call.
      images_per_second: by contestant.
      ratios: by contestant: how many times as fast ours is; median, smallest, largest.
    """

    kind: str
    network: str
    size: int
    batch: int
    images_per_second: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]

    @property
    def name(self) -> str:
        return f"{self.network.upper()}, {self.size} px, batch {self.batch}"

    @property
    def best_timm(self) -> str | None:
        """The quickest of timm's settings, by the median ratio."""
        settings = [name for name in self.ratios if name.startswith("timm")]
        return min(settings, key=lambda name: self.ratios[name][0], default=None)


def read(folder: pathlib.Path) -> list[Case]:
    """Returns the cases of a folder, of this module's kinds, in order."""
    cases = []
    for path in sorted(folder.glob("*.csv")):
        if found := _NAME.fullmatch(path.name):
            kind, network, size, batch, _ = found.groups()
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == 7][1:]
            speeds = {row[0]: float(row[3]) for row in rows}
            ratios = {row[0]: tuple(map(float, row[4:7])) for row in rows}
            case = Case(_KINDS[kind], network, int(size), int(batch), speeds, ratios)
            cases.append(case)
    order = {"b0": 0, "s": 1, "m": 2}
    return sorted(cases, key=lambda c: (c.kind, order[c.network], c.batch, c.size))


def summarise(cases: Sequence[Case]) -> str:
    """Returns a Markdown table: how many times as fast ours is, with the spread."""
    lines = [
        "| what | ours, images/s | x keras.applications | x the best of timm |",
        "|---|---|---|---|",
    ]
    for case in cases:
        timm = case.best_timm
        keras = _cell(case.ratios[_KERAS[0]]) if _KERAS[0] in case.ratios else ""
        if _KERAS[1] in case.ratios:
            keras += f"; predict {_cell(case.ratios[_KERAS[1]])}"
        other = f"{_cell(case.ratios[timm])}, {timm[5:]}" if timm else ""
        speed = case.images_per_second["ours"]
        lines.append(f"| {case.kind}, {case.name} | {speed:.1f} | {keras} | {other} |")
    return "\n".join(lines)


def _cell(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def draw(cases: Sequence[Case], path: pathlib.Path) -> None:
    """Draws the ratios as bars, with their spread, and a line where both are as fast."""
    kinds = sorted({case.kind for case in cases})
    figure, axes = pyplot.subplots(
        1, max(len(kinds), 1), figsize=(11, 2.2 + 0.42 * len(cases)), squeeze=False
    )
    for kind, axis in zip(kinds, axes[0]):
        rows = [
            (case.name, _bars(case)) for case in reversed(cases) if case.kind == kind
        ]  # the first on top
        for place, (_, bars) in enumerate(rows):
            for shift, (ratio, colour) in zip((0.19, -0.19) if len(bars) > 1 else (0,), bars):
                spread = [[ratio[0] - ratio[1]], [ratio[2] - ratio[0]]]
                axis.barh(place + shift, ratio[0], 0.36, color=colour, xerr=spread, ecolor="0.35")
                axis.text(0.06, place + shift, f"{ratio[0]:.2f}", va="center", color="white")
        axis.axvline(1.0, color="0.2", linewidth=1)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.set_xlim(0, 3)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        axis.set_xlabel("ours is x times as fast")
        axis.set_title(kind)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS]
    labels = ["as keras.applications", "as the best of timm's settings"]
    used = 2 if any(case.best_timm for case in cases) else 1
    title = "median of the rounds, and the least and the most:"
    figure.legend(
        handles[:used], labels[:used], title=title, loc="lower center", ncols=2, frameon=False
    )
    figure.tight_layout(rect=(0, 0.17, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    print(f"written to {path.name}")


_COLOURS = ("#1f6fb4", "#c8641e")


def _bars(case: Case) -> list[tuple[tuple[float, float, float], str]]:
    rivals = (_KERAS[0], case.best_timm)
    return [(case.ratios[r], c) for r, c in zip(rivals, _COLOURS) if r in case.ratios]
