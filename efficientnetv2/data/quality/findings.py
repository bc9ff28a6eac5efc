"""Lists what can be wrong with images, and finds it from their measures; a kind is one row."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

from efficientnetv2.data.quality.copies import Copy
from efficientnetv2.data.quality.image_measures import ImageMeasures
from efficientnetv2.data.quality.label_errors import SuspectLabel
from efficientnetv2.data.sources.image_splits import HELD_OUT, SPLITS, ImageFile, ImageSplits, Label
from hparams.label_kinds import NUMBERS

_TINY = 4  # times smaller than the median side
_HUGE = 4  # times larger than the median side
_MANY_PIXELS = 64_000_000  # takes a second to decode, and 200 MB
_LONG = 3.0  # longer side over shorter side
_EMPTY = 3.0  # grey levels of contrast
_BLURRED = 6  # times less sharp than the median: two thirds of blurred photos, 1% of sharp ones


@dataclasses.dataclass(frozen=True)
class FindingKind:
    """A kind of finding.

    Attributes:
      title: what is found, as a heading.
      advice: what to do about it, one sentence.
      is_problem: whether it counts for ``--strict``; others are worth a look.
    """

    title: str
    advice: str
    is_problem: bool = True


FINDINGS: Mapping[str, FindingKind] = {
    "unreadable": FindingKind(
        "cannot be read",
        "Replace or delete these files; data.on_bad_image=skip leaves them out of a training.",
    ),
    "conflict": FindingKind(
        "same picture, other label",
        "One of the two labels is wrong, or the picture needs both: correct the label, or delete "
        "one of the two.",
    ),
    "leak": FindingKind(
        "same picture in two splits",
        "A network that was trained on a picture knows it: accuracy on the other split is too "
        "high. Delete one of the two, or put both into one split.",
    ),
    "exact_copy": FindingKind(
        "copy of another file", "Delete all but one: a copy counts twice in training."
    ),
    "near_copy": FindingKind(
        "nearly the same picture",
        "Encoded anew, resized, cropped a bit, or the next frame of a film: keep one, or put all "
        "into one split.",
    ),
    "label": FindingKind(
        "label that is probably wrong",
        "Look at each: the picture looks like another class, or shows several.",
    ),
    "empty": FindingKind("nearly of one shade", "Delete those that show nothing.", False),
    "blurred": FindingKind(
        "possibly blurred",
        "Delete those that nobody could name; smooth scenes are here too.",
        False,
    ),
    "tiny": FindingKind(
        "much smaller than most", "Enlarged, they are a blur: look for a larger original.", False
    ),
    "huge": FindingKind(
        "much larger than most", "They take long to decode: make smaller copies.", False
    ),
    "long": FindingKind(
        "long and narrow",
        "A central crop loses much of them, and squeezing them into a square distorts them: see "
        "how the data are resized in docs/data.md.",
        False,
    ),
    "turned": FindingKind(
        "stored sideways",
        "The camera noted how to turn them. This program does it, but many others do not.",
        False,
    ),
}


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that was checked.

    Attributes:
      path: of the file.
      label: its class, classes or numbers, as text.
      split: train, minival or test.
    """

    path: pathlib.Path
    label: str
    split: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong with an image, or worth a look.

    Attributes:
      kind: a row of ``FINDINGS``.
      image: number of the image.
      other: number of the image that it is compared with, or None.
      detail: what was measured, in a few words.
      suggestion: the label that it seems to have; empty: none is suggested.
    """

    kind: str
    image: int
    other: int | None = None
    detail: str = ""
    suggestion: str = ""


def checked_images(splits: ImageSplits) -> list[CheckedImage]:
    """Returns all images of the splits, in the order train, minival, test, held out."""
    return [
        CheckedImage(splits.root / image.path, label_text(image.label, splits), split)
        for split, image in images_in_order(splits)
    ]


def images_in_order(splits: ImageSplits) -> list[tuple[str, ImageFile]]:
    """Returns (split, image) of all images that are checked, in the order of ``checked_images``."""
    return [
        (split, image) for split in (*SPLITS, HELD_OUT) for image in splits.images.get(split, ())
    ]


def label_text(label: Label, splits: ImageSplits) -> str:
    """Returns a label for people: names of classes separated by ``|``, or numbers."""
    if isinstance(label, int):
        return splits.class_names[label]
    if splits.kind == NUMBERS:
        return ", ".join(f"{number:g}" for number in label)
    return "|".join(splits.class_names[int(number)] for number in label)


def find_problems(
    images: Sequence[CheckedImage],
    measures: Sequence[ImageMeasures],
    copies: Sequence[Copy],
    suspects: Sequence[SuspectLabel],
    class_names: Sequence[str],
) -> list[Finding]:
    """Returns all findings, in the order of ``FINDINGS``.

    Args:
      images: N images.
      measures: of each.
      copies: images that show the same as others.
      suspects: labels that are probably wrong.
      class_names: K names, in the order of the labels.
    """
    found = [
        Finding("unreadable", number, detail=measured.problem)
        for number, measured in enumerate(measures)
        if measured.problem
    ]
    found += _of_copies(images, copies)
    found += [
        Finding(
            "label",
            suspect.image,
            detail=f"{suspect.probability:.0%} {class_names[suspect.suggestion]}, "
            f"{suspect.own_probability:.0%} {images[suspect.image].label}",
            suggestion=class_names[suspect.suggestion],
        )
        for suspect in suspects
    ]
    found += _of_measures(measures)
    order = list(FINDINGS)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def _of_copies(images: Sequence[CheckedImage], copies: Sequence[Copy]) -> Iterator[Finding]:
    first_of_label: dict[int, dict[str, int]] = {}  # group -> label -> its first image there
    first_of_split: dict[int, dict[str, int]] = {}
    for copy in copies:
        for number in (copy.group, copy.image):
            image = images[number]
            first_of_label.setdefault(copy.group, {}).setdefault(image.label, number)
            first_of_split.setdefault(copy.group, {}).setdefault(image.split, number)
    for copy in copies:
        image = images[copy.image]
        detail = "equal files" if copy.is_exact else f"{copy.similarity:.0%} alike"
        labelled = _first_other(first_of_label[copy.group], image.label, copy.image)
        divided = _first_other(first_of_split[copy.group], image.split, copy.image)
        if labelled < copy.image:
            yield Finding("conflict", copy.image, labelled, detail)
        if divided < copy.image:
            yield Finding("leak", copy.image, divided, detail)
        if min(labelled, divided) >= copy.image:
            kind = "exact_copy" if copy.is_exact else "near_copy"
            yield Finding(kind, copy.image, copy.original, detail)


def _first_other(firsts: Mapping[str, int], own: str, default: int) -> int:
    """Returns the first image of another label or split; the default if there is none."""
    return min((number for name, number in firsts.items() if name != own), default=default)


def _of_measures(measures: Sequence[ImageMeasures]) -> Iterator[Finding]:
    readable = [measured for measured in measures if not measured.problem]
    if not readable:
        return
    side = statistics.median((m.height * m.width) ** 0.5 for m in readable)
    sharpness = statistics.median(m.sharpness for m in readable)
    for number, measured in enumerate(measures):
        if measured.problem:
            continue
        shorter, longer = sorted((measured.height, measured.width))
        size = f"{measured.width} x {measured.height} pixels"
        if measured.contrast < _EMPTY:
            yield Finding("empty", number, detail=f"contrast {measured.contrast:.1f} of 255")
        elif measured.sharpness < sharpness / _BLURRED:
            share = measured.sharpness / sharpness
            yield Finding("blurred", number, detail=f"{share:.0%} as sharp as most")
        if (shorter * longer) ** 0.5 < side / _TINY:
            yield Finding("tiny", number, detail=size)
        if (shorter * longer) ** 0.5 > side * _HUGE or shorter * longer > _MANY_PIXELS:
            yield Finding("huge", number, detail=size)
        if longer > _LONG * shorter:
            yield Finding("long", number, detail=size)
        if measured.is_turned:
            yield Finding("turned", number, detail=size)
