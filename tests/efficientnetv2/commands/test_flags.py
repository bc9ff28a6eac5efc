"""Tests what the flags say, before a mode reads them."""

import pytest

from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse
from hparams.errors import UserError


def parsed(*arguments):
    return parse(define_flags({}), ["main_tf2.py", *arguments])


@pytest.mark.parametrize("mode", ["train", "infer", "export", "eval"])
def test_a_name_of_timm_is_a_network_and_its_weights(mode):
    values = parsed(f"--mode={mode}", "--model_name=tf_efficientnetv2_s.in21k_ft_in1k")
    assert (values.model_name, values.weights) == ("efficientnetv2-s", "imagenet21k-ft1k")


def test_the_same_weights_may_be_given_twice():
    values = parsed("--model_name=tf_efficientnetv2_s.in21k", "--weights=imagenet21k")
    assert (values.model_name, values.weights) == ("efficientnetv2-s", "imagenet21k")


def test_a_name_alone_keeps_the_other_weights():
    values = parsed("--model_name=tf_efficientnetv2_s", "--weights=a.pth")
    assert (values.model_name, values.weights) == ("tf_efficientnetv2_s", "a.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--weights=imagenet21k"],
            "'tf_efficientnetv2_s.in1k' names the weights 'imagenet', not 'imagenet21k'",
        ),
        (["--mode=benchmark"], "--mode=benchmark takes no weights; give --model_name=effic"),
    ],
)
def test_weights_in_the_name_that_cannot_be_used(arguments, message):
    with pytest.raises(UserError, match=message):
        parsed("--model_name=tf_efficientnetv2_s.in1k", *arguments)
