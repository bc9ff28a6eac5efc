"""The section ``search`` of a configuration in; what is wrong with its space of networks, out."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import config_dict

from hparams import blocks
from hparams.models import MODELS
from hparams.registry import UnknownNameError

_CHOICES = ("operations", "kernels", "expansions", "layers")


def impossible_search(search: config_dict.ConfigDict) -> list[str]:
    """Returns one line for each thing that makes no space, or no study."""
    problems = []
    for key in _CHOICES:
        values = list(search[key])
        if not values:
            problems.append(f"search.{key} must name at least one")
        elif len(set(values)) < len(values):
            problems.append(f"search.{key} names one twice: {values}")
    even = [kernel for kernel in search.kernels if kernel % 2 == 0]
    if even:
        problems.append(f"search.kernels must be odd, got {even}")
    if not search.study_name:
        problems.append("search.study_name must not be empty")
    storage = search.storage
    if storage is not None and "://" not in storage and not storage.startswith("journal:"):
        problems.append(
            f"search.storage must be a URL such as postgresql://user@host/name, or journal:FILE, "
            f"got '{storage}'"
        )
    return problems + _impossible_backbone(list(search.backbone))


def _impossible_backbone(backbone: list[str]) -> list[str]:
    if len(backbone) == 1 and "_" not in backbone[0]:  # block strings have several fields
        try:
            family = MODELS[backbone[0]].family
        except UnknownNameError as error:
            return [f"search.backbone: {error}"]
        if family == "resnet":
            return [f"search.backbone: {backbone[0]} has no stages to search over"]
        return []
    return impossible_blocks(backbone, key="search.backbone")


def impossible_blocks(block_strings: Sequence[str], *, key: str) -> list[str]:
    """Returns one line for each block string that is wrong or does not follow the one before.

    Args:
      block_strings: the stages of a network.
      key: where they stand, for the messages.
    """
    if not block_strings:
        return [f"{key} must hold at least one block string"]
    problems = []
    specs = []
    for text in block_strings:
        try:
            specs.append(blocks.decode_block(text))
        except blocks.BlockStringError as error:
            problems.append(f"{key}: {error}")
    if problems:
        return problems
    for index in range(1, len(specs)):
        made, taken = specs[index - 1].output_filters, specs[index].input_filters
        if made != taken:
            problems.append(
                f"{key}: '{block_strings[index]}' takes {taken} channels, but the "
                f"stage before it gives {made}"
            )
    return problems
