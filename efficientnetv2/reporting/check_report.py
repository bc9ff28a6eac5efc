"""Reports what is wrong with images: a summary, ``check.csv``, and the page ``report.html``."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from efficientnetv2.data.quality.findings import FINDINGS, CheckedImage, Finding
from efficientnetv2.data.quality.image_measures import ImageMeasures, open_image
from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import HELD_OUT, SPLITS
from efficientnetv2.reporting.html_page import embedded_thumbnail, write_page
from efficientnetv2.reporting.tables import table, write_csv_rows

CSV, PAGE = "check.csv", "report.html"
_HEADER = (
    *("finding", "path", "label", "split"),
    *("other_path", "other_label", "other_split", "suggested_label", "detail"),
)
_SHOWN = 24  # findings of a kind with pictures: more than anybody looks at, and below 5 MB
_THUMBNAIL = 144  # pixels
_CLASSES = 200  # in the table of the page
_PERCENTILES = (0, 5, 50, 95, 100)


@dataclasses.dataclass(frozen=True)
class DataCheck:
    """What ``--mode=check`` has found.

    Attributes:
      images: all images.
      findings: in the order of ``FINDINGS``; they refer to images by their numbers.
      folder: where ``check.csv`` and ``report.html`` are.
    """

    images: Sequence[CheckedImage]
    findings: Sequence[Finding]
    folder: pathlib.Path

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that there is."""
        return dict(collections.Counter(finding.kind for finding in self.findings))

    @property
    def has_problems(self) -> bool:
        """Whether there is something that counts for ``--strict``."""
        return any(FINDINGS[finding.kind].is_problem for finding in self.findings)

    @property
    def report(self) -> pathlib.Path:
        """The page."""
        return self.folder / PAGE


def report_check(
    check: DataCheck,
    measures: Sequence[ImageMeasures],
    class_names: Sequence[str],
    *,
    title: str,
    notes: Sequence[str],
    command: str,
) -> None:
    """Writes ``check.csv`` and ``report.html``, then prints a summary.

    Args:
      check: what was found.
      measures: of each image.
      class_names: K names; empty: the images have numbers.
      title: of the page, and the first words of the summary.
      notes: what was not looked for, and the like, one sentence each.
      command: repeats the check.

    Raises:
      WriteError: if a file cannot be written.
    """
    splits = _splits(check.images)
    counts = dict.fromkeys(splits, 0)
    for image in check.images:
        counts[image.split] += 1
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    what = f"{len(check.images):,} images"
    what += f" of {len(class_names):,} classes" if class_names else ""
    write_csv_rows([_HEADER, *_csv_rows(check)], check.folder / CSV)
    sizes = _sizes(measures)
    write_page(
        check.report,
        "check.html",
        title=title,
        summary=f"{what}: {parts}",
        kinds=[_kind(check, kind) for kind in check.counts],
        notes=notes,
        splits=splits,
        classes=_class_rows(check.images, class_names),
        num_classes=len(class_names),
        sizes=sizes,
        command=command,
    )
    print(f"{title}: {what}: {parts}")
    for name, (smallest, _, median, _, largest) in sizes:
        print(f"{name}: {smallest} to {largest} (median {median})")
    _show_findings(check)
    for note in notes:
        print(note)
    print(f"written to {check.folder}: {CSV}, {PAGE}")


def _show_findings(check: DataCheck) -> None:
    if not check.findings:
        print("nothing is wrong that can be seen by a program")
        return
    first: dict[str, Finding] = {}
    for finding in check.findings:
        first.setdefault(finding.kind, finding)
    rows = [[FINDINGS[kind].title, f"{count:,}"] for kind, count in check.counts.items()]
    header, *lines = table(["found", "count"], rows).split("\n")
    examples = [_example(check, first[kind]) for kind in check.counts]
    print("", header, *map("  ".join, zip(lines, examples)), "", sep="\n")


def _example(check: DataCheck, finding: Finding) -> str:
    one = printable(check.images[finding.image].path)
    other = check.images[finding.other].path if finding.other is not None else None
    return f"'{one}'" + (f" and '{printable(other)}'" if other else f": {finding.detail}")


def _csv_rows(check: DataCheck) -> Iterator[list[str]]:
    for finding in check.findings:
        image = check.images[finding.image]
        row = [finding.kind, printable(image.path), image.label, image.split]
        if finding.other is None:
            row += ["", "", ""]
        else:
            other = check.images[finding.other]
            row += [printable(other.path), other.label, other.split]
        yield [*row, finding.suggestion, finding.detail]


def _kind(check: DataCheck, kind: str) -> dict[str, Any]:
    """Returns what the page says of a kind of finding."""
    found = [finding for finding in check.findings if finding.kind == kind]
    return {
        **dataclasses.asdict(FINDINGS[kind]),
        "name": kind,
        "count": len(found),
        "has_pairs": found[0].other is not None,
        "examples": [_page_example(check, finding) for finding in found[:_SHOWN]],
    }


def _page_example(check: DataCheck, finding: Finding) -> Mapping[str, Any]:
    numbers = [finding.image] if finding.other is None else [finding.image, finding.other]
    shots = []
    for image in (check.images[number] for number in numbers):
        shots.append(
            {
                "picture": _thumbnail(image.path),
                "path": printable(pathlib.Path(*image.path.parts[-3:])),
                "label": image.label,
                "split": image.split,
            }
        )
    return {"shots": shots, "detail": finding.detail}


def _thumbnail(path: pathlib.Path) -> str:
    """Returns the picture of an image; empty if it cannot be read."""
    from PIL import ImageOps

    try:
        with open_image(path.read_bytes()) as image:
            image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
            return embedded_thumbnail(ImageOps.exif_transpose(image), side=_THUMBNAIL)
    except Exception:  # Pillow's plugins raise any type
        return ""


def _splits(images: Sequence[CheckedImage]) -> tuple[str, ...]:
    """Returns the splits of the images: the usual three, and what a fold holds out."""
    is_fold = any(image.split == HELD_OUT for image in images)
    return (*SPLITS, HELD_OUT) if is_fold else SPLITS


def _class_rows(images: Sequence[CheckedImage], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the number of images of each class by split, the largest classes first."""
    splits = _splits(images)
    counts = {name: dict.fromkeys(splits, 0) for name in class_names}
    for image in images:
        for name in {image.label} & counts.keys() or set(image.label.split("|")) & counts.keys():
            counts[name][image.split] += 1
    largest = sorted(counts, key=lambda name: -sum(counts[name].values()))
    most = max(1, sum(counts[largest[0]].values())) if largest else 1
    return [
        {
            "name": name,
            "counts": list(counts[name].values()),
            "bars": [(round(100 * n / most, 1), split) for split, n in counts[name].items()],
        }
        for name in largest[:_CLASSES]
    ]


def _sizes(measures: Sequence[ImageMeasures]) -> list[tuple[str, list[str]]]:
    """Returns percentiles of the images' sides and of the ratio of these."""
    readable = [(m.width, m.height) for m in measures if not m.problem]
    if not readable:
        return []
    sides = np.array(readable)
    ratio = sides.max(1) / sides.min(1)

    def cells(values: np.ndarray, form: str) -> list[str]:
        found = np.percentile(values, _PERCENTILES, method="nearest")
        return [format(value, form) for value in found.tolist()]

    return [
        ("width", cells(sides[:, 0], ",")),
        ("height", cells(sides[:, 1], ",")),
        ("longer side over shorter", cells(ratio, ".2f")),
    ]
