"""The checks of the config section ``search``, whose problems come in one message."""

import pytest

from hparams import resolve
from hparams.overrides import ConfigError
from hparams.search_space import read_space


def test_all_problems_in_one_message():
    given = {
        "search.backbone": ["r1_k3_s1_e1_i8_o8", "r1_k3_s2_e4_i12_o16"],
        "search.kernels": [2, 3, 4],
        "search.operations": [],
        "search.expansions": [4, 4],
        "search.study_name": "",
        "search.storage": "study.db",
    }
    with pytest.raises(ConfigError) as caught:
        resolve("efficientnetv2-s", "digits", given)
    assert caught.value.problems == (
        "search.operations must not be empty",
        "search.expansions must not repeat a value, got [4, 4]",
        "search.kernels must be odd, got [2, 4]",
        "search.study_name must not be empty",
        "search.storage must be a URL such as postgresql://user@host/name, or journal:FILE, got "
        "'study.db'",
        "search.backbone: 'r1_k3_s2_e4_i12_o16' takes 12 channels, but the stage before it "
        "outputs 8",
    )


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("efficientnet-b44", "unknown model 'efficientnet-b44'; did you mean"),
        ("resnet152", "resnet152 has no stages to search over"),
        ("r1_k3", "block 'r1_k3': missing"),
        ("[]", "must hold at least one block string"),
        ("[efficientnet-b0,efficientnet-b1]", "block 'efficientnet-b0': unknown field"),
    ],
)
def test_what_is_no_backbone(backbone, message):
    with pytest.raises(ConfigError, match=f"^search.backbone: {message}|search.backbone {message}"):
        resolve("efficientnetv2-s", "digits", f"search.backbone={backbone}")


@pytest.mark.parametrize("backbone", ["EfficientNet-B0", "[r1_k3_s1_e1_i8_o8]"])
def test_what_is_one(backbone):
    config = resolve("efficientnetv2-s", "digits", f"search.backbone={backbone}")
    assert len(config.search.backbone) == 1


@pytest.mark.parametrize(("key", "value"), [("w", 0.07), ("v", 0.05), ("max_spread", 0)])
def test_signs(key, value):
    with pytest.raises(ConfigError, match=f"search.{key} must be"):
        resolve("efficientnetv2-s", "digits", {f"search.{key}": value})


@pytest.mark.parametrize("values", ["0|[0.1,0.2,0.3]", "[0.1,0.2,0.3]..[0.2,0.3,0.4]"])
def test_a_list_is_chosen_as_one_number(values):
    with pytest.raises(ConfigError, match=r"data.color_jitter is chosen as one number, got"):
        read_space([f"data.color_jitter:{values}"])
