"""Lists the released pretrained checkpoints: address, classes and preprocessing of each.

The addresses are those of google/automl's ``efficientnetv2`` and google-research's ``efficientnet``
releases. This was written without access to them, so no checksum is known.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from hparams.errors import UserError, shown
from hparams.model_names import split_weights
from hparams.models import MODELS
from hparams.registry import did_you_mean

_BUCKET = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"
UNVERIFIED = "unverified"


@dataclasses.dataclass(frozen=True)
class Release:
    """One released checkpoint.

    Attributes:
      url: address of a .tar.gz archive that holds a TF1 name-based checkpoint.
      num_classes: outputs of its classifier.
      preprocess: how its input is prepared, a row of ``hparams.choices.NORMALISATIONS``.
      sha256: checksum of the archive, or "unverified".
    """

    url: str
    num_classes: int
    preprocess: str
    sha256: str = UNVERIFIED


NAMES: Mapping[str, str] = {
    "imagenet": "ImageNet-1k alone",
    "imagenet21k": "ImageNet-21k",
    "imagenet21k-ft1k": "ImageNet-21k, then ImageNet-1k",
    "jft": "ImageNet-1k and 300 million unlabelled images (Noisy Student)",
}
_SUFFIXES = {"imagenet": "", "imagenet21k": "-21k", "imagenet21k-ft1k": "-21k-ft1k"}


def _releases() -> dict[tuple[str, str], Release]:
    table = {}
    for size in ("s", "m", "l", "xl", "b0", "b1", "b2", "b3"):
        model = f"efficientnetv2-{size}"
        for name, suffix in _SUFFIXES.items():
            if (size, name) != ("xl", "imagenet"):  # there is no XL without ImageNet-21k
                table[model, name] = Release(
                    f"{_BUCKET}/v2/{model}{suffix}.tgz",
                    21_843 if name == "imagenet21k" else 1000,
                    MODELS[model].preprocess,
                )
    for number in range(9):
        model = f"efficientnet-b{number}"
        # AdvProp's networks take pixels of -1..1, like V2's (AdvProp release notes).
        table[model, "imagenet"] = Release(f"{_BUCKET}/advprop/{model}.tar.gz", 1000, "v2")
    for size in (*(f"b{number}" for number in range(8)), "l2"):
        model = f"efficientnet-{size}"
        url = f"{_BUCKET}/noisystudent/noisy_student_{model}.tar.gz"
        table[model, "jft"] = Release(url, 1000, "v1")
    return table


RELEASES: Mapping[tuple[str, str], Release] = _releases()


RANDOM = "random"  # asks for training from scratch, without pretrained weights


def name_and_weights(
    model_name: str, weights: str | pathlib.Path | None
) -> tuple[str, str | pathlib.Path | None]:
    """Moves weights that are part of a name, such as timm's ``tf_efficientnetv2_s.in21k``.

    Args:
      model_name: of the network, in any spelling.
      weights: those that are asked for beside the name; None: none.

    Returns:
      (name of the network alone, weights).

    Raises:
      UserError: if the name has other weights, or some that were not released.
    """
    network, named = split_weights(model_name)
    if named is not None and weights is not None and str(weights) != named:
        raise UserError(
            f"{shown(model_name)} names the weights '{named}', not {shown(str(weights))}"
        )
    return network, named or weights


def require_weights(weights: str | pathlib.Path, *, model_name: str) -> None:
    """Checks that weights exist, without reading them.

    Args:
      weights: one of ``NAMES``, or the path of a file.
      model_name: a row of ``hparams.models.MODELS``.

    Raises:
      UserError: if the model has no such release, or there is nothing at the path.
    """
    if str(weights) in NAMES:
        find_release(model_name, str(weights))
        return
    path = str(weights)
    if not path or not (_exists(path) or _exists(f"{path}.index")):
        raise UserError(
            f"there are no weights {shown(path)}: give the path of a file, or one of "
            f"{', '.join(NAMES)}"
        )


def _exists(path: str) -> bool:
    try:
        return pathlib.Path(path).exists()
    except (OSError, ValueError):  # too long a name; a NUL
        return False


def imagenet_classes() -> list[str]:
    """Returns the names of ImageNet-1k's classes, in the order of their labels.

    Each is the first lemma of its synset in WordNet (Princeton University), which is free to use.
    """
    file = pathlib.Path(__file__).parent / "imagenet_classes.txt"
    return file.read_text(encoding="utf-8").splitlines()


def find_release(model_name: str, name: str) -> Release:
    """Returns a model's released weights of one name.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      name: one of ``NAMES``.

    Raises:
      UserError: if there are none; the message lists the names that the model has.
    """
    model_name = MODELS.canonical(model_name)
    if (model_name, name) in RELEASES:
        return RELEASES[model_name, name]
    known = [release_name for model, release_name in RELEASES if model == model_name]
    if not known:
        raise UserError(f"there are no released weights for {model_name}; give the path of a file")
    hint = f"; known: {', '.join(known)}" if name in NAMES else did_you_mean(name, known)
    raise UserError(f"there are no weights {shown(name)} for {model_name}{hint}")
