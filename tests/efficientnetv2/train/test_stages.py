"""Plans of progressive learning against the paper's formula and its Table 6."""

import itertools

import numpy as np
import pytest

from efficientnetv2.train.stages import Stage, build_stages, plan_stages, stage_at
from hparams.resolve import resolve

PAIRS = list(itertools.product([1, 2, 3, 5, 7, 8, 90, 350], [1, 2, 3, 4, 7, 10]))


def plan(epochs: int, stages: int) -> list[Stage]:
    return plan_stages(
        epochs=epochs,
        stages=stages,
        image_size=(128, 300),
        dropout_rate=(0.1, 0.3),
        magnitude=(5.0, 15.0),
        mixup_alpha=(0.0, 0.5),
        cutmix_alpha=(1.0, 0.25),
    )


def factors(stage: Stage) -> tuple[float, ...]:
    return stage.dropout_rate, stage.magnitude, stage.mixup_alpha, stage.cutmix_alpha


FIRST, LAST = (0.1, 5.0, 0.0, 1.0), (0.3, 15.0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("image_size", "sizes"),
    [
        ((128, 300), [128, 184, 240, 300]),
        ((128, 380), [128, 208, 296, 380]),
        ((171, 299), [171, 216, 256, 299]),
        ((224, 224), [224, 224, 224, 224]),
        ((130, 134), [130, 130, 134, 134]),
    ],
)
def test_image_sizes_are_the_ends_and_multiples_of_8_between_them(
    image_size: tuple[int, int], sizes: list[int]
) -> None:
    stages = plan_stages(epochs=8, stages=4, image_size=image_size, dropout_rate=(0.1, 0.3))
    assert [stage.image_size for stage in stages] == sizes


@pytest.mark.parametrize("stages", [2, 3, 4, 7])
def test_every_factor_is_linear_in_the_stage(stages: int) -> None:
    made = np.array([factors(stage) for stage in plan(70, stages)])
    np.testing.assert_allclose(made, np.linspace(FIRST, LAST, stages), atol=1e-12)
    assert factors(plan(70, stages)[0]) == FIRST


@pytest.mark.parametrize("stages", [2, 3, 4, 7, 10])
def test_inner_image_sizes_are_within_4_pixels_of_the_line(stages: int) -> None:
    sizes = np.array([stage.image_size for stage in plan(70, stages)])
    assert (sizes[0], sizes[-1]) == (128, 300)
    assert (sizes[1:-1] % 8 == 0).all()
    assert np.abs(sizes - np.linspace(128, 300, stages)).max() <= 4


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stages_cover_all_epochs_without_a_gap(epochs: int, stages: int) -> None:
    made = plan(epochs, stages)
    covered = [epoch for stage in made for epoch in range(stage.first_epoch, stage.end_epoch)]
    assert covered == list(range(epochs))
    assert [stage.index for stage in made] == list(range(min(epochs, stages)))


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stages_are_equally_long_up_to_one_epoch(epochs: int, stages: int) -> None:
    lengths = [stage.end_epoch - stage.first_epoch for stage in plan(epochs, stages)]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stage_at_finds_each_epochs_stage(epochs: int, stages: int) -> None:
    made = plan(epochs, stages)
    for epoch in range(epochs):
        stage = stage_at(made, epoch)
        assert stage.first_epoch <= epoch < stage.end_epoch


@pytest.mark.parametrize("epochs", [1, 5])
def test_one_stage_has_the_last_values(epochs: int) -> None:
    (stage,) = plan(epochs, 1)
    assert (stage.image_size, *factors(stage)) == (300, *LAST)
    assert (stage.first_epoch, stage.end_epoch) == (0, epochs)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_fewer_epochs_than_stages_run_only_the_last_stages(epochs: int) -> None:
    full, short = plan(8, 4)[-epochs:], plan(epochs, 4)
    assert [stage.image_size for stage in short] == [stage.image_size for stage in full]
    assert [factors(stage) for stage in short] == [factors(stage) for stage in full]
    assert factors(short[-1]) == LAST


@pytest.mark.parametrize(
    ("model_name", "sizes", "magnitudes", "mixup_alphas", "dropout_rates"),
    [
        ("efficientnetv2-s", (128, 300), (5, 15), (0, 0), (0.1, 0.3)),
        ("efficientnetv2-m", (128, 380), (5, 20), (0, 0.2), (0.1, 0.4)),
        ("efficientnetv2-l", (128, 380), (5, 25), (0, 0.5), (0.1, 0.5)),
    ],
)
def test_the_stages_of_imagenet_end_where_table_6_says(
    model_name: str, sizes: tuple, magnitudes: tuple, mixup_alphas: tuple, dropout_rates: tuple
) -> None:
    made = build_stages(resolve(model_name, "imagenet2012"))
    ends = made[0], made[-1]
    assert tuple(stage.image_size for stage in ends) == sizes
    assert tuple(stage.magnitude for stage in ends) == magnitudes
    assert tuple(stage.mixup_alpha for stage in ends) == mixup_alphas
    assert tuple(stage.dropout_rate for stage in ends) == dropout_rates
    assert [stage.end_epoch for stage in made] == [87, 175, 262, 350]


def build(overrides: str) -> list[Stage]:
    return build_stages(resolve("efficientnetv2-m", "imagenet2012", overrides))


def test_without_a_first_dropout_rate_all_stages_have_the_last() -> None:
    config = resolve("efficientnet-b0", "imagenet2012", "train.stages=3,model.dropout_rate=0.25")
    assert config.model.dropout_base is None
    assert [stage.dropout_rate for stage in build_stages(config)] == [0.25] * 3


def test_the_magnitude_belongs_to_randaug_alone() -> None:
    assert [stage.magnitude for stage in build("data.augname=autoaug")] == [0.0] * 4
    assert [stage.magnitude for stage in build("data.ram=11,data.ram_base=5")] == [5, 7, 9, 11]


def test_cutmix_grows_from_0() -> None:
    alphas = [stage.cutmix_alpha for stage in build("data.cutmix_alpha=0.75")]
    assert alphas == pytest.approx([0.0, 0.25, 0.5, 0.75])
