"""Reads the names that Keras, timm, torchvision and the official code give to the networks."""

from __future__ import annotations

import re

from hparams.errors import UserError, shown

# A name in lower case without '-', '_' and what timm writes before it -> our name.
_FORMS = (
    (re.compile(r"(?:efficientnet|effnet)?v2(s|m|l|xl|b[0-3])"), "efficientnetv2-{}"),
    (re.compile(r"(?:efficientnet|effnet)(b[0-8]|l2)"), "efficientnet-{}"),
    (re.compile(r"(?:efficientnet|effnet)?(lite[0-4])"), "efficientnet-{}"),
)
# What timm writes behind a name -> the release; the older versions without a dot come second.
_TAGS_V2 = {
    "in1k": "imagenet",
    "in21k": "imagenet21k",
    "in21kftin1k": "imagenet21k-ft1k",
    "in21ft1k": "imagenet21k-ft1k",
}
_TAGS_V1 = {"apin1k": "imagenet", "nsjftin1k": "jft", "ap": "imagenet", "ns": "jft"}
_OLD_TAG = re.compile(r"(.+)_(in21k|in21ft1k|ap|ns)")


def our_spelling(name: str) -> str:
    """Returns the spelling that this program has for a network, whose name need not be known.

    >>> our_spelling("EfficientNetV2S"), our_spelling("tf_efficientnet_b0"), our_spelling("V2-B0")
    ('efficientnetv2-s', 'efficientnet-b0', 'efficientnetv2-b0')
    """
    name = name.lower()
    compact = re.sub(r"[-_ ]", "", re.sub(r"^(?:timm/)?(?:tf_)?", "", name))
    for form, ours in _FORMS:
        match = form.fullmatch(compact)
        if match:
            return ours.format(match[1])
    return name


def split_weights(name: str) -> tuple[str, str | None]:
    """Splits a name of timm into the network and the name of its released weights.

    Args:
      name: of a network, with or without weights behind it.

    Returns:
      (name of the network, None or one of ``hparams.weights.NAMES``).

    Raises:
      UserError: if there are weights in the name that are no release of that network.

    >>> split_weights("tf_efficientnetv2_s.in21k_ft_in1k"), split_weights("efficientnet-b0")
    (('efficientnetv2-s', 'imagenet21k-ft1k'), ('efficientnet-b0', None))
    """
    network, _, tag = name.lower().partition(".")
    old = _OLD_TAG.fullmatch(network)
    if old and not tag:
        network, tag = old.groups()
    ours = our_spelling(network)
    if not tag or not ours.startswith("efficientnet"):
        return our_spelling(name), None
    tags = _TAGS_V2 if ours.startswith("efficientnetv2") else _TAGS_V1
    weights = tags.get(re.sub(r"[-_ ]", "", tag))
    if weights is None:
        raise UserError(
            f"{shown(name)} names weights '{tag}', which are no release of {ours}; give "
            f"{ours} and --weights with the path of a file"
        )
    return ours, weights
