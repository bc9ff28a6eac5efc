"""Tests what the automatic choice of a LiteRT file tries, which it takes, and what it writes."""

import dataclasses
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.export.auto import Trial, choose, mixtures, write_auto
from efficientnetv2.export.formats import FORMATS, ExportJob, HeldOut
from efficientnetv2.export.litert import convert_int8, float_operators
from efficientnetv2.export.points_lost import PointsLost
from efficientnetv2.int8.mixed_runner import weighted_layer_of
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.reporting.export_report import _show_trials


@pytest.fixture(scope="module")
def network(servable, pixels):
    return QuantisedNetwork(servable.folded, pixels)


@pytest.fixture(scope="module")
def mixed(servable, pixels):
    return QuantisedNetwork(servable.folded, pixels, in_float=["stem_conv", "block3a_expand_conv"])


def test_layers_belong_to_the_last_layer_with_weights_before_them(servable):
    unit = weighted_layer_of(servable.folded)
    assert unit["image"] == unit["rescaling"] == unit["stem_activation"] == "stem_conv"
    assert unit["block3a_expand_activation"] == unit["block3a_expand_conv"] == "block3a_expand_conv"
    assert unit["block3a_se_excite"] == unit["block3a_se_expand"] == "block3a_se_expand"
    assert unit["block3b_add"] == "block3b_project_conv"
    assert set(unit) == {layer.name for layer in servable.folded.layers}


def test_layers_in_float_compute_in_float_and_the_others_in_integers(servable, mixed, pixels):
    file = convert_int8(servable, mixed, integer_io=False)
    kinds = sorted(entry.split()[0] for entry in float_operators(file))
    # SiLU is a sigmoid and a product; the first two operators are the normalisation.
    once = ["CONV_2D", "LOGISTIC", "MUL"]
    assert kinds == sorted([*once, *once, "MUL", "ADD"])
    outputs = run_file(file, pixels)
    simulated = mixed(tf.constant(pixels)).numpy()
    assert np.abs(outputs - simulated).max() < 0.08
    assert np.abs(outputs - simulated).mean() < 0.004


def run_file(file, pixels):
    from ai_edge_litert.interpreter import Interpreter

    classify = Interpreter(model_content=file).get_signature_runner()
    return np.concatenate([classify(image=p[np.newaxis])["probabilities"] for p in pixels])


def test_the_noisiest_layers_in_float_come_nearest(servable, network, pixels):
    expected = servable.model.predict(pixels, verbose=0)
    ranked = [row.layer for row in sorted(network.layer_noise, key=lambda row: row.own_db)]

    def error(names):
        near = QuantisedNetwork(servable.folded, pixels, in_float=names)
        return np.square(near(tf.constant(pixels)) - expected).mean()

    in_8_bits = np.square(network(tf.constant(pixels)) - expected).mean()
    assert error(ranked) < 1e-10
    assert error(ranked[:9]) < 0.8 * in_8_bits
    assert error(ranked[:9]) < error(ranked[9:])


def test_a_layer_s_own_noise_is_that_of_8_bits_alone(network):
    """Each of its 256 levels spans a few times the deviation: 28 to 45 dB."""
    own = {row.layer: row.own_db for row in network.layer_noise}
    assert all(28 < decibels < 45 for decibels in own.values()), own
    # What SiLU makes of values far below 0 is nothing, so their rounding is not counted.
    before = {row.layer: row.output_db for row in network.layer_noise}
    assert before["top_conv"] < 15
    assert own["top_conv"] > 30


def test_mixtures_take_the_noisiest_layers_and_stay_below_16_bits(servable, network):
    found = mixtures(network.layer_noise, servable.folded)
    noise = {row.layer: row.own_db for row in network.layer_noise}
    weights = {name: servable.folded.get_layer(name).count_params() for name in noise}
    assert [len(names) for names in found][:2] == [1, 2]
    for names in found:
        assert max(noise[name] for name in names) <= min(
            value for name, value in noise.items() if name not in names
        )
        in_float = sum(weights[name] for name in names)
        assert 4 * in_float + sum(weights.values()) - in_float < 2 * sum(weights.values())


def trial(points, megabytes, milliseconds):
    lost = PointsLost(points, points - 1, points + 1)
    return Trial("", (), lost, megabytes, milliseconds, chosen=False)


@pytest.mark.parametrize(
    ("trials", "place"),
    [
        ([trial(0.4, 1, 1)], 0),
        ([trial(0.6, 1, 1), trial(0.5, 1.2, 2)], 1),
        ([trial(0.6, 1, 1), trial(0.1, 1.1, 50), trial(0.0, 2, 4)], 2),  # the second is slow
        ([trial(0.6, 1, 1), trial(0.1, 1.1, 3), trial(0.0, 2, 4)], 1),
        ([trial(0.9, 1, 1), trial(0.8, 1.1, 3), trial(0.7, 2, 4)], 2),  # none is good enough
    ],
)
def test_the_smallest_file_within_the_limit_that_is_not_slow_is_taken(trials, place):
    assert choose(trials, max_loss=0.5) == place


def test_the_verdict_is_on_the_chosen_file(capsys):
    trials = [trial(0.6, 1, 1), trial(0.1, 1.1, 3), trial(0.0, 2, 4)]
    names = ("8 bits", "16-bit activations", "16-bit weights")
    trials = [
        dataclasses.replace(row, precision=name, chosen=name == names[1])
        for row, name in zip(trials, names)
    ]
    _show_trials(SimpleNamespace(trials=trials, images=360), SimpleNamespace(max_loss=0.5))
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("16-bit activations: within 0.5 points; loses 0.1 points")
    )


@pytest.fixture
def job(servable, network, pixels):
    """A job whose labels are what the network says; 24 images, so one is 4.2 points."""
    expected = servable.model.predict(pixels, verbose=0)
    return ExportJob(
        servable,
        SimpleNamespace(),
        lambda: network,
        lambda **settings: QuantisedNetwork(servable.folded, pixels, **settings),
        pixels,
        integer_io=False,
        with_xla=False,
        held_out=HeldOut(pixels, expected, expected.argmax(axis=1)),
        max_loss=0.0,
    )


def test_8_bits_are_taken_where_they_lose_nothing(job, tmp_path, capsys):
    path = tmp_path / "auto.tflite"
    write_auto(path, job)
    (only,) = job.trials
    assert (only.precision, only.lost.points, only.chosen) == ("8 bits", 0, True)
    assert only.megabytes == pytest.approx(path.stat().st_size / 1e6, abs=1e-3)
    assert capsys.readouterr().out == ("8 bits: loses 0.0 points, 95% interval -13.8..13.8\n")
    assert metadata(path)["precision"] == "8 bits"


@pytest.mark.slow
def test_everything_is_tried_where_all_lose_too_much(job, tmp_path, monkeypatch):
    path = tmp_path / "auto.tflite"
    wrong = np.roll(job.held_out.expected, 1, axis=1)
    object.__setattr__(job, "held_out", HeldOut(job.held_out.inputs, wrong, None))
    write_auto(path, job)
    assert [row.precision for row in job.trials] == [
        "8 bits",
        "8 bits, 1 of 17 layers in float32",
        "8 bits, 2 of 17 layers in float32",
        "8 bits, 6 of 17 layers in float32",
        "16-bit activations, 8-bit weights",
        "16-bit weights",
    ]
    assert [row.chosen for row in job.trials] == [False] * 5 + [True]
    sizes = [row.megabytes for row in job.trials]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    assert metadata(path)["precision"] == "16-bit weights"
    run = FORMATS["tflite_auto"].open(path)
    expected = np.roll(wrong, -1, axis=1)
    np.testing.assert_allclose(run(job.held_out.inputs[:1]), expected[:1], atol=2e-3)


def metadata(path):
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return json.loads(archive.read("metadata.json"))
