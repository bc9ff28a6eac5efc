"""The tables of named choices hold what configs, flags and checks read from them."""

import pytest

from hparams.choices import AUGMENTATIONS, LOSSES, NORMALISATIONS, OPTIMIZERS
from hparams.factors import FACTORS, Factors, first_to_last
from hparams.keys import KEYS
from hparams.models import MODELS


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("train.loss_type", LOSSES),
        ("train.optimizer", OPTIMIZERS),
        ("data.augname", AUGMENTATIONS),
        ("model.preprocess", NORMALISATIONS),
    ],
)
def test_a_key_takes_the_names_of_its_table(key, table):
    assert KEYS[key].choices == tuple(table)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arguments_of_optimizers_are_numbers_or_keys(name):
    for value in OPTIMIZERS[name].arguments.values():
        assert value in KEYS if isinstance(value, str) else isinstance(value, float)


def test_only_softmax_shares_the_target():
    assert {name: loss.shares_target for name, loss in LOSSES.items()} == {
        "softmax": True,
        "sigmoid": False,
        "sigmoid_sum": False,
        "mse": False,
        "mae": False,
        "huber": False,
    }


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_brings_its_two_keys(name):
    factor = FACTORS[name]
    assert set(factor.keys) == {factor.first, factor.last}
    assert all(KEYS[key] is factor.keys[key] for key in factor.keys)
    assert factor.label.format(12)


def test_factors_that_are_not_named_stay_off():
    ends = first_to_last(image_size=(128, 300), magnitude=(5, 15))
    assert ends == Factors((128, 300), (5, 15), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    with pytest.raises(TypeError, match="magnitud"):
        first_to_last(magnitud=(5, 15))


def test_a_model_sets_both_keys_of_each_factor():
    overrides = MODELS["efficientnetv2-m"].overrides()
    values = {
        name: (overrides[factor.first], overrides[factor.last]) for name, factor in FACTORS.items()
    }
    assert values == {
        "image_size": (128, 380),
        "magnitude": (5, 20),
        "mixup_alpha": (0, 0.2),
        "cutmix_alpha": (0.0, 0.0),
        "dropout_rate": (0.1, 0.4),
    }
