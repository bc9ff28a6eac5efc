"""Lists the released pretrained checkpoints: address, classes and preprocessing of each.

The addresses are those of google/automl's ``efficientnetv2``, of tensorflow/tpu's ``efficientnet``
and ``efficientnet/lite``, and of ``keras.applications``. This was written without access to them,
so only the checksums that Keras publishes are known.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from hparams.errors import UserError, shown
from hparams.model_names import split_weights
from hparams.models import MODELS
from hparams.published_weights import BEST, best_weights
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
    for number in range(5):
        model = f"efficientnet-lite{number}"
        url = f"{_BUCKET}/lite/{model}.tar.gz"
        table[model, "imagenet"] = Release(url, 1000, MODELS[model].preprocess)
    for size in (*(f"b{number}" for number in range(8)), "l2"):
        model = f"efficientnet-{size}"
        url = f"{_BUCKET}/noisystudent/noisy_student_{model}.tar.gz"
        table[model, "jft"] = Release(url, 1000, "v1")
    return table


RELEASES: Mapping[tuple[str, str], Release] = _releases()
# The release with ImageNet's classes, of networks that have none of the name ``imagenet``.
IMAGENET_RELEASES: Mapping[str, str] = {
    "efficientnetv2-xl": "imagenet21k-ft1k",
    "efficientnet-l2": "jft",
}


@dataclasses.dataclass(frozen=True)
class KerasRelease:
    """One of the files that ``keras.applications`` downloads for ``weights="imagenet"``.

    Attributes:
      url: address of an .h5 file.
      md5: its MD5 checksum, as ``keras.applications`` has it.
    """

    url: str
    md5: str


# Size of the network -> MD5 checksums of its files with and without a classifier.
_KERAS_V2 = {
    "b0": ("21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
    "b1": ("069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
    "b2": ("424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
    "b3": ("1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
    "s": ("e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    "m": ("a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
    "l": ("27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
}
_KERAS_V1 = {
    "b0": ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    "b1": ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    "b2": ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    "b3": ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    "b4": ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    "b5": ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    "b6": ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    "b7": ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
}
_KERAS_BUCKET = "https://storage.googleapis.com"


def _keras_files() -> dict[tuple[str, bool], KerasRelease]:
    files = {}
    v2 = "tensorflow/keras-applications/efficientnet_v2/efficientnetv2-"
    for model, start, table in (
        ("efficientnetv2-", v2, _KERAS_V2),
        ("efficientnet-", "keras-applications/efficientnet", _KERAS_V1),
    ):
        for size, (md5, headless_md5) in table.items():
            address = f"{_KERAS_BUCKET}/{start}{size}"
            files[f"{model}{size}", True] = KerasRelease(f"{address}.h5", md5)
            files[f"{model}{size}", False] = KerasRelease(f"{address}_notop.h5", headless_md5)
    return files


# (model, whether there is a classifier) -> the file
KERAS_FILES: Mapping[tuple[str, bool], KerasRelease] = _keras_files()


RANDOM = "random"  # asks for training from scratch, without pretrained weights


def name_and_weights(
    model_name: str, weights: str | pathlib.Path | None
) -> tuple[str, str | pathlib.Path | None]:
    """Moves weights that are part of a name, such as timm's ``tf_efficientnetv2_s.in21k``.

    ``best`` becomes the weights with the highest published accuracy.

    Args:
      model_name: of the network, in any spelling.
      weights: those that are asked for beside the name; None: none.

    Returns:
      (name of the network alone, weights).

    Raises:
      UserError: if the name has other weights, or some that were not released, or ``best`` is asked
        for where nothing is published.
    """
    network, named = split_weights(model_name)
    if named is not None and weights is not None and str(weights) != named:
        raise UserError(
            f"{shown(model_name)} names the weights '{named}', not {shown(str(weights))}"
        )
    if weights is not None and str(weights) == BEST:
        return network, best_weights(network).weights
    return network, named or weights


def require_weights(weights: str | pathlib.Path, *, model_name: str) -> None:
    """Checks that weights exist, without reading them.

    Args:
      weights: one of ``NAMES``, a name of ``hparams.remote_weights``, or the path of a file.
      model_name: a row of ``hparams.models.MODELS``.

    Raises:
      UserError: if the model has no such release, or there is nothing at the path.
    """
    from hparams.remote_weights import STORES, find_remote, is_remote  # which imports this module

    if is_remote(weights):
        find_remote(str(weights), model_name=model_name or None)
        return
    if str(weights) in NAMES:
        find_release(model_name, str(weights))
        return
    path = str(weights)
    if not path or not (_exists(path) or _exists(f"{path}.index")):
        raise UserError(
            f"there are no weights {shown(path)}: give the path of a file, or one of "
            f"{', '.join(NAMES)}, {BEST}, or a name that begins with {', '.join(STORES)}"
        )


def _exists(path: str) -> bool:
    try:
        return pathlib.Path(path).exists()
    except (OSError, ValueError):  # too long a name; a NUL
        return False


def imagenet_classes() -> list[str]:
    """Returns the names of ImageNet-1k's classes, in the order of their labels.

    Each is the first lemma of its synset in WordNet (Princeton University), which is free to use.
    Those that two synsets have in common are told apart, as in ``crane (bird)``.
    """
    return [name for _, name in _imagenet_rows()]


def imagenet_synsets() -> list[tuple[str, str]]:
    """Returns (WordNet's identifier, first lemma) of ImageNet-1k's classes, as Keras writes them.

    >>> imagenet_synsets()[134]
    ('n02012849', 'crane')
    """
    return [
        (synset, name.partition(" (")[0].replace(" ", "_")) for synset, name in _imagenet_rows()
    ]


def _imagenet_rows() -> list[tuple[str, str]]:
    file = pathlib.Path(__file__).parent / "imagenet_classes.txt"
    rows = (line.partition(" ") for line in file.read_text(encoding="utf-8").splitlines())
    return [(synset, name) for synset, _, name in rows]


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
