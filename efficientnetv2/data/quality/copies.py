"""Finds images that are copies of others: the same file, or encoded anew, resized, cropped a bit.

Copies of one file have equal bytes. Other copies are looked for by a perceptual hash, that of the
package imagehash, and confirmed at the level of pixels; see ``alignment``.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from efficientnetv2.data.quality.alignment import SAME, SIDE, edge_similarity, small_grey
from efficientnetv2.data.quality.image_measures import ImageMeasures, grey_image, open_image

BITS = 64  # of a hash
MOST_BITS = 12  # in which the hashes of copies differ; crops of 3% reach 10
LOWEST_CONTRAST = 2.0  # grey levels; the hash of an image of one shade says nothing
_FEWEST_PAIRS = 2_000  # that are compared pixel by pixel, whatever the number of images
_BLOCK = 4096  # hashes that are compared at once with as many others
_COLOURS = 4  # colours are compared on so many squares in each direction
_COLOUR_DIFFERENCE = 16.0  # of 255, mean over these squares: copies stay below 5
_KEPT = 4096  # small images that are kept in memory, of 16 KiB each


@dataclasses.dataclass(frozen=True)
class Copy:
    """An image that shows the same as an earlier one.

    Attributes:
      image: number of the image.
      original: number of the first image with the same bytes, or else of the first that shows the
        same.
      group: number of the first image that shows the same, whatever its bytes.
      similarity: of image and original, as ``edge_similarity``; 1 if the files are equal. It may be
        small for two images that are both like a third.
      is_exact: whether their files are equal.
    """

    image: int
    original: int
    group: int
    similarity: float
    is_exact: bool


@dataclasses.dataclass(frozen=True)
class CopySearch:
    """What a search for copies has found.

    Attributes:
      copies: in the order of their images.
      bits: the largest difference of hashes up to which pairs were compared.
      num_pairs: pairs that were compared pixel by pixel.
    """

    copies: Sequence[Copy]
    bits: int
    num_pairs: int


def find_copies(paths: Sequence[pathlib.Path], measures: Sequence[ImageMeasures]) -> CopySearch:
    """Finds the images that show the same as an earlier one.

    Where very many images are alike, as digits are, pairs whose hashes differ much are not
    compared: at most as many pairs as there are images are, or 2,000.

    Args:
      paths: N image files.
      measures: of each.
    """
    groups = _Groups(len(paths))
    seen: dict[bytes, int] = {}
    exact: dict[int, int] = {}  # image -> the first one with the same bytes
    for number, measured in enumerate(measures):
        if not measured.problem and seen.setdefault(measured.digest, number) != number:
            exact[number] = seen[measured.digest]
            groups.join(seen[measured.digest], number)
    distinct = [n for n in seen.values() if measures[n].contrast >= LOWEST_CONTRAST]
    pairs, bits = _alike([measures[n].bits for n in distinct])
    compared = 0
    load = functools.lru_cache(_KEPT)(lambda number: _small_images(paths[number]))
    for first, second in pairs:
        one, other = distinct[first], distinct[second]
        if groups.root(one) == groups.root(other):
            continue
        compared += 1
        if _similarity(load(one), load(other)) >= SAME:
            groups.join(one, other)
    copies = []
    for number in range(len(paths)):
        group = groups.root(number)
        if number in exact:
            copies.append(Copy(number, exact[number], group, 1.0, True))
        elif group != number:
            alike = _similarity(load(group), load(number))
            copies.append(Copy(number, group, group, alike, False))
    return CopySearch(copies, bits, compared)


class _Groups:
    """Sets of images that show the same; the smallest number stands for each (union-find)."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low


def _alike(hashes: Sequence[int]) -> tuple[np.ndarray, int]:
    """Returns int64 ``[P, 2]``: pairs of hashes that differ little, and up to how many bits.

    The most alike come first. With more pairs than are worth a look, those that differ most are
    left out.
    """
    most = max(_FEWEST_PAIRS, len(hashes))
    limit = MOST_BITS
    found: list[tuple[np.ndarray, np.ndarray]] = []  # pairs, and their distances
    counts = np.zeros(MOST_BITS + 1, np.int64)  # pairs at each distance
    for pairs, distances in _close_pairs(hashes):
        found.append((pairs, distances))
        counts += np.bincount(distances, minlength=len(counts))
        while counts[: limit + 1].sum() > most and limit > 0:
            limit -= 2  # two hashes above their medians in as many places differ in an even number
            found = [(p[d <= limit], d[d <= limit]) for p, d in found]
    if not found:
        return np.zeros([0, 2], np.int64), limit
    pairs, distances = (np.concatenate(part) for part in zip(*found))
    near = distances <= limit
    order = np.argsort(distances[near], kind="stable")
    return pairs[near][order], limit


def _close_pairs(hashes: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of pairs ``[P, 2]`` that differ in at most ``MOST_BITS``, and in how many."""
    octets = np.frombuffer(b"".join(h.to_bytes(BITS // 8, "big") for h in hashes), np.uint8)
    signs = np.unpackbits(octets.reshape(-1, BITS // 8), axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(signs), _BLOCK):
        for other in range(start, len(signs), _BLOCK):
            # A product of +-1 counts equal bits less different ones.
            product = signs[start : start + _BLOCK] @ signs[other : other + _BLOCK].T
            rows, columns = np.nonzero(product >= BITS - 2 * MOST_BITS)
            upper = rows + start < columns + other
            rows, columns = rows[upper], columns[upper]
            distances = (BITS - product[rows, columns]) / 2
            yield np.stack([rows + start, columns + other], 1), distances.astype(np.int64)


def _small_images(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the grey levels for ``edge_similarity``, and a few colours float32 ``[4, 4, 3]``."""
    from PIL import Image, ImageOps

    encoded = path.read_bytes()
    with open_image(encoded) as image:
        grey = np.asarray(grey_image(image, side=2 * SIDE))
    with open_image(encoded) as image:
        image.draft("RGB", (SIDE, SIDE))
        coloured = ImageOps.exif_transpose(image).convert("RGB")
    colours = coloured.resize((_COLOURS, _COLOURS), Image.Resampling.BOX)
    return small_grey(grey), np.asarray(colours, np.float32)


def _similarity(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns how alike two images are, -1..1; 0 if their colours differ."""
    if np.abs(one[1] - other[1]).mean() > _COLOUR_DIFFERENCE:
        return 0.0
    return edge_similarity(one[0], other[0])
