"""Reads groups, attributes and values of an HDF5 file that may be hostile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from efficientnetv2.checkpoints.budget import Budget
from hparams.errors import WeightsError

_MOST_GROUPS = 50_000  # efficientnet-l2 has 4,000
_DEEPEST = 32


def member(group: h5py.Group, path: str) -> Any:
    """Follows a path step by step: a link could lead to another file of this machine.

    Raises:
      WeightsError: if a step is missing or a link.
    """
    for step in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(
            group.get(step, getlink=True), h5py.HardLink
        ):
            raise WeightsError(f"its entry '{step}' is missing or a link")
        group = group[step]
    return group


def text(name: Any) -> str:
    """Returns a name as text; HDF5 gives bytes or text."""
    return name.decode() if isinstance(name, bytes) else str(name)


def names(group: h5py.Group, attribute: str) -> list[str]:
    """Reads a list of names; Keras splits a long one into layer_names0, layer_names1, ..."""
    chunks = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(chunks)}" in group.attrs:
        chunks.append(f"{attribute}{len(chunks)}")
    return [text(name) for chunk in chunks for name in group.attrs[chunk]]


def values(group: h5py.Group, path: str, *, budget: Budget) -> np.ndarray:
    """Reads a data set.

    Raises:
      WeightsError: if it is not one of numbers in this file, or is larger than the budget.
    """
    dataset = member(group, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        raise WeightsError(f"the values of '{path}' are not weights")
    if dataset.is_virtual or dataset.external:
        raise WeightsError(f"the values of '{path}' are stored in another file")
    itemsize = dataset.dtype.itemsize
    budget.take(dataset.shape, itemsize, name=path)
    if dataset.chunks:  # one chunk is unpacked as a whole, and can be larger than the data set
        Budget(0).take(dataset.chunks, itemsize, name=path)
    return np.asarray(dataset[()])


def groups(file: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    """Yields (path, group) of all groups below one, each once, however many names it has.

    Raises:
      WeightsError: if there are more than a network has.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    while waiting:
        path, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        if len(seen) > _MOST_GROUPS:
            raise WeightsError(f"it has more groups than a network (over {_MOST_GROUPS:,})")
        if path.count("/") > _DEEPEST:
            raise WeightsError(f"its groups are nested deeper than models ({_DEEPEST} levels)")
        if path:
            yield path, group
        for name in reversed(list(group)):
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise WeightsError(f"its entry '{name}' is missing or a link")
            if group.get(name, getclass=True) is h5py.Group:
                waiting.append((f"{path}/{name}".lstrip("/"), group[name]))
