"""Compound scaling: computed by hand, against the published networks, and on the command line."""

import dataclasses

import pytest

from hparams import UserError, resolve
from hparams.architecture import cost, scaled_architecture
from hparams.block_strings import encode_block
from hparams.models import MODELS
from hparams.resolve import resolve_model
from hparams.scale import RULES, Rule, main, scale


def test_the_papers_coefficients_double_the_cost():
    """EfficientNet paper, section 3.3: d * w^2 * r^2 is about 2."""
    assert Rule().growth == pytest.approx(1.2 * 1.21 * 1.3225)
    assert Rule().growth == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnetv2-b3", "efficientnet-lite4"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_phi_0_is_the_network_itself(name, rule):
    scaled = scale(name, 0, rule=rule)
    assert scaled.architecture == scaled_architecture(resolve_model(name))
    assert scaled.image_size == MODELS[name].eval_size


def test_a_stage_by_hand():
    """V2-S's fifth stage, 9 layers of 160 channels, at phi 2."""
    rule = Rule(depth=1.2, width=1.1, resolution=1.15, later_layers=1.05, max_image_size=480)
    scaled = scale("efficientnetv2-s", 2, rule=rule)
    assert [stage.num_repeat for stage in scaled.architecture.stages] == [3, 6, 6, 9, 15, 24]
    assert scaled.architecture.stages[4].output_filters == 192  # 160 * 1.21 = 193.6
    assert scaled.architecture.head_filters == 1552  # 1280 * 1.21 = 1548.8
    assert scaled.image_size == 480  # 384 * 1.3225 = 508
    free = scale("efficientnetv2-s", 2, rule=dataclasses.replace(rule, max_image_size=None))
    assert free.image_size == 508


# Published network, network to start from, phi, rule, added last stage; largest relative difference
# in parameters and in multiply-adds. docs/recipes.md shows the numbers.
PUBLISHED = [
    ("efficientnetv2-m", "efficientnetv2-s", 1.26, "v2", (5, 512), 0.04, 0.08),
    ("efficientnetv2-l", "efficientnetv2-s", 3.3, "v2", (7, 640), 0.06, 0.02),
    ("efficientnetv2-b1", "efficientnetv2-b0", 0.5, "v1", None, 0.09, 0.06),
    ("efficientnetv2-b2", "efficientnetv2-b0", 1.0, "v1", None, 0.01, 0.01),
    ("efficientnetv2-b3", "efficientnetv2-b0", 2.0, "v1", None, 0.03, 0.03),
]


@pytest.mark.parametrize(
    ("name", "start", "phi", "rule", "last_stage", "parameters", "multiply_adds"), PUBLISHED
)
def test_the_rule_comes_close_to_what_was_published(
    name, start, phi, rule, last_stage, parameters, multiply_adds
):
    rule = dataclasses.replace(RULES[rule], later_layers=1.0)
    scaled = scale(start, phi, rule=rule, last_stage=last_stage)
    ours = cost(scaled.architecture, image_size=scaled.image_size)
    theirs = cost(scaled_architecture(resolve_model(name)), image_size=MODELS[name].eval_size)
    assert ours.parameters == pytest.approx(theirs.parameters, rel=parameters)
    assert ours.multiply_adds == pytest.approx(theirs.multiply_adds, rel=multiply_adds)


@pytest.mark.parametrize("start", ["efficientnetv2-b0", "efficientnet-lite0", "efficientnet-b2"])
def test_a_file_brings_the_same_network_back(start, tmp_path, capsys):
    out = tmp_path / "larger.yaml"
    assert main([start, "--phi=1.5", "--last_stage=2x64", f"--out={out}"]) == 0
    scaled = scale(start, 1.5, rule=RULES["v2"], last_stage=(2, 64))
    config = resolve(start, "digits", str(out))
    assert scaled_architecture(config.model) == scaled.architecture
    assert config.eval.isize == scaled.image_size
    printed = capsys.readouterr().out
    assert all(encode_block(stage) in printed for stage in scaled.architecture.stages)
    expected = cost(scaled.architecture, image_size=scaled.image_size)
    assert f"{expected.parameters:,} parameters, {expected.multiply_adds / 1e9:.2f} B" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["efficientnetv2-z", "--phi=1"], "unknown model 'efficientnetv2-z'; did you mean"),
        (["resnet50", "--phi=1"], "resnet50 has no block strings to scale"),
        (["efficientnetv2-s", "--phi=-1"], "phi must be at least 0, got -1"),
        (
            ["efficientnetv2-s", "--phi=1", "--depth=0.5"],
            "depth must be at least 1 and below 10, got 0.5",
        ),
        (["efficientnetv2-s", "--phi=1", "--last_stage=5"], "must be LAYERSxCHANNELS, such as"),
        (["efficientnetv2-s", "--phi=nan"], "argument --phi: must be a number, got 'nan'"),
        (["efficientnetv2-s", "--phi=1e300"], "phi must be at most 20, got 1e+300"),
        (["efficientnetv2-s", "--phi=1_0"], "argument --phi: must be a number, got '1_0'"),
        (["efficientnetv2-s", "--phi=\u0663"], "argument --phi: must be a number, got '\u0663'"),
        (["efficientnetv2-s", "--phi=1", "--width=inf"], "argument --width: must be a number, got"),
        (
            ["efficientnetv2-s", "--phi=20"],
            "phi=20 makes efficientnetv2-s too large: num_repeat must be at most 500, got",
        ),
        (
            ["efficientnetv2-s", "--phi=20", "--depth=1", "--rule=v1", "--resolution=9"],
            "px are too large; give a smaller phi or resolution",
        ),
        (
            ["efficientnetv2-s", "--phi=10", "--depth=1.1", "--width=1.6"],
            "billion parameters; at most 10 billion can be built",
        ),
        (
            ["efficientnetv2-s", "--phi=1", "--last_stage=9999999999x999999999"],
            "argument --last_stage: layers of last_stage must be at most 500, got 9999999999",
        ),
        (
            ["efficientnetv2-s", "--phi=1", "--last_stage=5x999999999"],
            "argument --last_stage: channels of last_stage must be at most 65536, got 999999999",
        ),
        (["efficientnetv2-s", "--phi=1", f"--last_stage={'9' * 5000}x5"], "LAYERSxCHANNELS, such"),
        (["x" * 5000, "--phi=1"], "unknown model 'xxx"),
        (["efficientnetv2-s", "--phi=1", "x" * 5000], "unrecognized arguments: xxx"),
        (
            ["efficientnetv2-s", "--phi=1", "--out=x.txt"],
            "argument --out: must end in .yaml or .yml, got 'x.txt'",
        ),
        (["efficientnetv2-s", "--phi=1", "--out="], "argument --out: must end in .yaml or .yml"),
        (
            ["efficientnetv2-s", "--phi=1", f"--out=/tmp/{'x' * 300}.yaml"],
            "xxx.yaml': File name too long",
        ),
        (["efficientnetv2-s", "--phi=99"], "phi must be at most 20, got 99"),
        (["efficientnetv2-s"], "the following arguments are required: --phi"),
        (["efficientnetv2-s", "--phi=1", "--out=/no/where.yaml"], "No such file or directory"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(arguments, message, capsys):
    try:
        code = main(arguments)
    except SystemExit as exit_error:
        code = exit_error.code
    assert code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("python -m hparams.scale: ")
    assert message in printed
    assert len(printed) < 600


@pytest.mark.parametrize(
    ("phi", "last_stage", "error", "message"),
    [
        ("fast", None, UserError, "phi must be a number, got 'fast'"),
        (True, None, UserError, "phi must be a number, got True"),
        (None, None, UserError, "phi must be a number, got None"),
        (1, (5,), TypeError, r"last_stage must be \(layers, channels\), got \(5,\)"),
        (1, "5x6", TypeError, r"last_stage must be \(layers, channels\), got '5x6'"),
        (1, (5, 0), ValueError, "channels of last_stage must be at least 1, got 0"),
        (1, (2.0, 8), TypeError, r"layers of last_stage must be a whole number, got 2\.0"),
    ],
)
def test_wrong_arguments_of_python_code(phi, last_stage, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        scale("efficientnetv2-s", phi, rule=RULES["v2"], last_stage=last_stage)


def test_no_coefficient_shrinks():
    with pytest.raises(UserError, match=r"width must be at least 1 and below 10, got 0\.9"):
        Rule(width=0.9)
