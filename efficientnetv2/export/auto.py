"""Finds the smallest LiteRT file that loses at most some points of accuracy on held-out images.

Tried in this order, until one keeps the limit: 8 bits; 8 bits with the layers that add the most
noise in float32, more and more of them; 16-bit activations with 8-bit weights; 16-bit weights. The
third is slow on processors, and only chosen if it is no slower than the last.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tensorflow import keras

from efficientnetv2.export.formats import FORMATS, ExportJob, is_quantisable
from efficientnetv2.export.litert import (
    convert,
    convert_int8,
    convert_int8_by_tensorflow,
    convert_int16x8,
)
from efficientnetv2.export.points_lost import PointsLost, points_lost
from efficientnetv2.export.servable import Servable
from efficientnetv2.export.verify import latency
from efficientnetv2.int8.quantizer import LayerNoise, QuantisedNetwork
from efficientnetv2.int8.rounded_network import RoundedNetwork

_SHARES = (1 / 32, 1 / 8, 1 / 3)  # of the layers with weights, in float32


@dataclasses.dataclass(frozen=True)
class Trial:
    """A file that was tried.

    Attributes:
      precision: what it computes in, in words.
      float_layers: its layers in float32, the noisiest first; empty: all are rounded alike.
      lost: what it loses.
      megabytes: its size in 10^6 bytes.
      milliseconds: median time of one image, with batch 1 on all cores.
      chosen: whether it is the file that was written.
    """

    precision: str
    float_layers: Sequence[str]
    lost: PointsLost
    megabytes: float
    milliseconds: float
    chosen: bool


@dataclasses.dataclass(frozen=True)
class _Candidate:
    precision: str
    make: Callable[[Servable], bytes]
    float_layers: Sequence[str] = ()
    may_be_slow: bool = False


def write_auto(path: pathlib.Path, job: ExportJob) -> None:
    """Writes the file that is chosen, and appends what was tried to ``job.trials``.

    If no file is within ``job.max_loss``, it is the last one, with weights in 16 bits. The file's
    metadata say what it is, as ``precision`` and ``float_layers``.
    """
    files, trials = [], []
    for candidate in _candidates(job):
        path.write_bytes(candidate.make(_described(job.servable, candidate)))
        files.append(path.read_bytes())
        trials.append(_measure(path, candidate, job))
        print(f"{candidate.precision}: loses {trials[-1].lost}", flush=True)
        if trials[-1].lost.points <= job.max_loss and not candidate.may_be_slow:
            break
    chosen = choose(trials, max_loss=job.max_loss)
    path.write_bytes(files[chosen])
    trials[chosen] = dataclasses.replace(trials[chosen], chosen=True)
    job.trials.extend(trials)


def choose(trials: Sequence[Trial], *, max_loss: float) -> int:
    """Returns the place of the smallest file within the limit that is no slower than the last.

    Without one, it is the last, which is the most exact.
    """
    good = [
        place
        for place, trial in enumerate(trials)
        if trial.lost.points <= max_loss and trial.milliseconds <= trials[-1].milliseconds
    ]
    return min(good, key=lambda place: trials[place].megabytes, default=len(trials) - 1)


def _described(servable: Servable, candidate: _Candidate) -> Servable:
    entries = {"precision": candidate.precision, "float_layers": list(candidate.float_layers)}
    return dataclasses.replace(servable, precision=entries)


def _measure(path: pathlib.Path, candidate: _Candidate, job: ExportJob) -> Trial:
    run = FORMATS["tflite"].open(path)
    held_out = job.held_out
    outputs = np.concatenate([run(image[np.newaxis]) for image in held_out.inputs])
    return Trial(
        candidate.precision,
        candidate.float_layers,
        points_lost(job.servable.answers, outputs, held_out.expected, held_out.labels),
        megabytes=round(path.stat().st_size / 1e6, 3),
        milliseconds=round(latency(run, held_out.inputs[:1]), 2),
        chosen=False,
    )


def _candidates(job: ExportJob) -> Iterator[_Candidate]:
    """Yields what to try; later ones are made only if earlier ones lose too much."""

    def in_8_bits(network: RoundedNetwork) -> Callable[[Servable], bytes]:
        return lambda servable: convert_int8(servable, network, integer_io=False)

    if is_quantisable(job.servable):
        network = job.int8()
        yield _Candidate("8 bits", in_8_bits(network))
        noise = network.layer_noise if isinstance(network, QuantisedNetwork) else []
        for names in mixtures(noise, job.servable.standardised):
            title = f"8 bits, {len(names)} of {len(noise)} layers in float32"
            yield _Candidate(title, in_8_bits(job.quantise(in_float=names)), names)
    else:
        yield _Candidate(
            "8 bits",
            lambda servable: convert_int8_by_tensorflow(
                servable, job.calibration, integer_io=False
            ),
        )
    # Processors have no fast kernels for it: some signal processors have.
    yield _Candidate(
        "16-bit activations, 8-bit weights",
        lambda servable: convert_int16x8(servable, job.weights_in_8_bits(), job.calibration),
        may_be_slow=True,
    )
    yield _Candidate("16-bit weights", lambda servable: convert(servable, "float16"))


def mixtures(noise: Sequence[LayerNoise], folded: keras.Model) -> list[list[str]]:
    """Returns which layers to keep in float32: few, more and many, those that add most noise first.

    Left out are mixtures that would be no smaller than a file with all weights in 16 bits.

    Args:
      noise: of the network in 8 bits.
      folded: the network.
    """
    worst = [row.layer for row in sorted(noise, key=lambda row: row.own_db)]
    weights = {name: folded.get_layer(name).count_params() for name in worst}
    counts = sorted({max(1, round(share * len(worst))) for share in _SHARES})
    # A float32 weight takes 4 bytes, and one of 8 bits takes 1.
    return [
        worst[:count]
        for count in counts
        if 3 * sum(weights[name] for name in worst[:count]) < sum(weights.values())
    ]
