"""Reads names of weights in other projects' stores, such as ``torchvision:efficientnet_v2_s``."""

from __future__ import annotations

import dataclasses
import os
import re

from hparams.errors import UserError, shown
from hparams.model_names import our_spelling
from hparams.models import MODELS
from hparams.registry import did_you_mean
from hparams.torchvision_weights import TORCHVISION
from hparams.weights import KERAS_FILES

HUB = "https://huggingface.co"
# How a name begins -> what follows, in words for messages.
STORES = {
    "torchvision:": "torchvision:NAME, such as torchvision:efficientnet_v2_s",
    "timm:": "timm:NAME, such as timm:tf_efficientnetv2_s.in21k_ft_in1k",
    "keras:": "keras:NAME, such as keras:efficientnetv2-s",
    "hf://": "hf://OWNER/NAME or hf://OWNER/NAME/FILE, such as hf://timm/efficientnet_b0.ra_in1k",
}
# The parts of an address that become folders of the cache; one that begins with a dot could lead
# out of it.
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}")
_NO_TOP = "_notop"


@dataclasses.dataclass(frozen=True)
class RemoteWeights:
    """Weights in a store.

    Attributes:
      place: parts of the path below the cache's folder, that of the store first.
      url: address of the file, or of the folder of several files.
      is_folder: whether the address is that of a folder of Hugging Face's hub.
      network: the row of ``hparams.models.MODELS`` that the name says; None: it says none.
      sha256: the checksum's first digits; "": not known.
      md5: the MD5 checksum; "": not known.
    """

    place: tuple[str, ...]
    url: str
    is_folder: bool = False
    network: str | None = None
    sha256: str = ""
    md5: str = ""


def is_remote(weights: str | os.PathLike[str] | None) -> bool:
    """Whether ``--weights`` names weights in a store."""
    return isinstance(weights, str) and weights.startswith(tuple(STORES))


def find_remote(weights: str, *, model_name: str | None = None) -> RemoteWeights:
    """Returns where weights of a store are; nothing is downloaded.

    Args:
      weights: a name for which ``is_remote`` is true.
      model_name: the network that they are for; None: not known.

    Raises:
      UserError: if the store has no such weights, or they are for another network.

    >>> find_remote("torchvision:efficientnet_v2_s").sha256
    'dd5fe13b'
    """
    store = next(start for start in STORES if weights.startswith(start))
    name = weights.removeprefix(store)
    find = {"torchvision:": _torchvision, "timm:": _timm, "keras:": _keras, "hf://": _hub}[store]
    remote = find(name)
    if model_name is None or remote.network is None:
        return remote
    requested = MODELS.canonical(model_name)
    if requested != remote.network:
        raise UserError(f"{shown(weights)} is for {remote.network}, not for {requested}")
    return remote


def network_of_remote(weights: str | os.PathLike[str] | None) -> str | None:
    """Returns the network that a store's name says; None: it says none, or is no such name.

    Raises:
      UserError: as ``find_remote``.
    """
    return find_remote(str(weights)).network if is_remote(weights) else None


def _torchvision(name: str) -> RemoteWeights:
    network, _, tag = name.partition(".")
    ours = our_spelling(network)
    rows = TORCHVISION.get(ours)
    if rows is None:
        raise UserError(
            f"torchvision has no weights of {shown(network)}{did_you_mean(ours, list(TORCHVISION))}"
        )
    tags = {row.tag: row for row in rows}
    row = tags.get(tag.upper()) if tag else rows[0]
    if row is None:
        raise UserError(
            f"torchvision has no weights {shown(tag)} of {network}; known: {', '.join(tags)}"
        )
    return RemoteWeights(("torchvision", row.file), row.url, False, ours, row.sha256_start)


def _timm(name: str) -> RemoteWeights:
    network = our_spelling(name.partition(".")[0])
    if network not in MODELS or not network.startswith("efficientnet"):
        raise UserError(
            f"timm's {shown(name)} is none of the networks here"
            f"{did_you_mean(network, [n for n in MODELS if n.startswith('efficientnet')])}"
        )
    return dataclasses.replace(_hub(f"timm/{name}"), network=network)


def _keras(name: str) -> RemoteWeights:
    network = our_spelling(name.removesuffix(_NO_TOP))
    row = KERAS_FILES.get((network, not name.endswith(_NO_TOP)))
    if row is None:
        known = sorted({model for model, _ in KERAS_FILES})
        raise UserError(f"Keras has no weights of {shown(name)}{did_you_mean(network, known)}")
    return RemoteWeights((row.url.rpartition("/")[2],), row.url, False, network, md5=row.md5)


def _hub(name: str) -> RemoteWeights:
    parts = name.split("/")
    if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise UserError(f"no address of weights: {shown(f'hf://{name}')}; give {STORES['hf://']}")
    owner, repository, *file = parts
    address = f"{HUB}/{owner}/{repository}/resolve/main"
    place = ("hf", owner, repository)
    ours = our_spelling(repository.partition(".")[0])
    network = ours if owner == "timm" and ours in MODELS else None
    if not file:
        return RemoteWeights(place, address, True, network)
    return RemoteWeights((*place, *file), f"{address}/{'/'.join(file)}", False, network)
