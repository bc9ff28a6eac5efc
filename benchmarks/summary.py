"""Sums up the results of training steps and inference in a table and a picture."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.measurement import KERAS

_NAME = re.compile(r"(train_step|inference)-(\w+)-(\d+)px-batch(\d+)-(.+)\.csv")
_KINDS = {"train_step": "training", "inference": "inference"}
Ratio = tuple[float, ...]  # median, smallest, largest


@dataclasses.dataclass(frozen=True)
class Case:
    """Holds the results of one network, image size and batch size.

    Attributes:
      kind: training or inference.
      network: of EfficientNetV2.
      size: pixels.
      batch: images a call.
      images_per_second: contestant -> images/s.
      ratios: contestant -> how many times as fast ours is: median, smallest, largest.
      bf16_ratios: the same ratios for ours in bfloat16.
    """

    kind: str
    network: str
    size: int
    batch: int
    images_per_second: dict[str, float]
    ratios: dict[str, Ratio]
    bf16_ratios: dict[str, Ratio]

    @property
    def name(self) -> str:
        return f"{self.network.upper()}, {self.size} px, batch {self.batch}"

    def best_timm(self, precision: str) -> str | None:
        """Returns the faster of timm's two settings of a precision, by the median ratio."""
        settings = [name for name in self.ratios if name.startswith(f"timm {precision}")]
        return min(settings, key=lambda name: self.ratios[name][0], default=None)

    def bars(self) -> list[Ratio | None]:
        """Returns the ratios to ``keras.applications``, timm in float32 and timm in bfloat16."""
        float32, bf16 = self.best_timm("fp32"), self.best_timm("bf16")
        return [
            self.ratios.get(KERAS),
            self.ratios[float32] if float32 else None,
            self.bf16_ratios[bf16] if bf16 else None,
        ]


def read(folder: pathlib.Path) -> list[Case]:
    """Returns the cases of the result files in a folder, in the order of the table."""
    cases = []
    for path in sorted(folder.glob("*.csv")):
        if match := _NAME.fullmatch(path.name):
            kind, network, size, batch, _ = match.groups()
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == 10][1:]
            speeds = {row[0]: float(row[3]) for row in rows}
            ratios = {row[0]: tuple(map(float, row[4:7])) for row in rows}
            bf16 = {row[0]: tuple(map(float, row[7:10])) for row in rows}
            case = Case(_KINDS[kind], network, int(size), int(batch), speeds, ratios, bf16)
            cases.append(case)
    order = {"b0": 0, "s": 1, "m": 2}
    return sorted(cases, key=lambda c: (c.kind, order[c.network], c.batch, c.size))


def summarise(cases: Sequence[Case]) -> str:
    """Returns a Markdown table: how many times as fast ours is, with the spread."""
    lines = [
        "| what | ours, images/s | x keras.applications | x timm | ours, bf16 | x timm, bf16 |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        keras, timm, bf16 = (_cell(bar) for bar in case.bars())
        own, own16 = (case.images_per_second[name] for name in ("ours", "ours, bf16"))
        lines.append(
            f"| {case.kind}, {case.name} | {own:.1f} | {keras} | {timm} | {own16:.1f} | {bf16} |"
        )
    return "\n".join(lines)


def _cell(ratio: Ratio | None) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else ""


def draw(cases: Sequence[Case], path: pathlib.Path) -> None:
    """Draws the ratios as bars, with their spread, and a line at 1, where both are equally fast."""
    kinds = sorted({case.kind for case in cases})
    tallest = max((sum(case.kind == kind for case in cases) for kind in kinds), default=0)
    longest = max((bar[2] for case in cases for bar in case.bars() if bar), default=1.0)
    figure, axes = pyplot.subplots(
        1, max(len(kinds), 1), figsize=(11, 2.2 + 0.6 * tallest), squeeze=False
    )
    for kind, axis in zip(kinds, axes[0]):
        chosen = [case for case in reversed(cases) if case.kind == kind]  # the first on top
        for place, case in enumerate(chosen):
            for bar, shift, (colour, _) in zip(case.bars(), (0.27, 0.0, -0.27), _BARS):
                if bar is None:
                    continue
                spread = [[bar[0] - bar[1]], [bar[2] - bar[0]]]
                axis.barh(place + shift, bar[0], 0.25, color=colour, xerr=spread, ecolor="0.35")
                axis.text(0.05, place + shift, f"{bar[0]:.2f}", va="center", color="white", size=8)
        axis.axvline(1.0, color="0.2", linewidth=1)
        axis.set_yticks(range(len(chosen)), [case.name for case in chosen])
        axis.set_xlim(0, 1.05 * longest)
        axis.set_ylim(-0.7, len(chosen) - 0.3)
        axis.set_xlabel("ours is x times as fast")
        axis.set_title(kind)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour, _ in _BARS]
    figure.legend(
        handles,
        [label for _, label in _BARS],
        title="median of the rounds, and the least and the most:",
        loc="lower center",
        ncols=3,
        frameon=False,
    )
    figure.tight_layout(rect=(0, min(0.17, 0.9 / figure.get_figheight()), 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    print(f"written to {path.name}")


_BARS = (
    ("#1f6fb4", "as keras.applications"),
    ("#c8641e", "as the better of timm's float32 settings"),
    ("#7a4fa3", "bf16, as the better of timm's bf16 settings"),
)
