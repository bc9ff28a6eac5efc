"""The rule by which presets choose settings from the images."""

import itertools

import pytest

from hparams.choices import PRESETS
from hparams.datasets import DATASETS
from hparams.facts import ImageFacts
from hparams.models import MODELS
from hparams.presets import CHOSEN, choose, resolve_for_images
from hparams.resolve import ConfigError, flat, resolve

FOLDER = {"data.data_dir": "/photos"}
FASHION = ImageFacts(num_images=10_799, side=28)
PHOTOS = ImageFacts(num_images=240, side=400)
WEIGHTS = {"train.ft_init_ckpt": "imagenet"}


def chosen(facts, *overrides, model="efficientnetv2-b0", name="folder"):
    return resolve_for_images(model, name, FOLDER, *overrides, facts=facts)[0]


def sizes(config):
    return config.data.ibase, config.train.isize, config.eval.isize


def test_small_images_become_twice_as_large_and_no_larger():
    assert sizes(chosen(FASHION)) == (32, 64, 64)
    assert sizes(chosen(ImageFacts(1000, 64))) == (64, 104, 128)
    assert sizes(chosen(ImageFacts(1000, 8))) == (32, 32, 32)
    assert chosen(ImageFacts(1000, 8)).train.stages == 1


def test_small_images_keep_their_size_unless_the_user_asks_for_more():
    assert chosen(FASHION).train.stages == 1
    assert chosen(FASHION, {"data.ibase": 48}).train.stages == 2
    assert chosen(FASHION, {"train.size_schedule": "random"}).train.stages == 2
    asked = chosen(FASHION, {"train.stages": 3})
    assert (asked.train.stages, asked.data.ibase) == (3, 32)
    assert chosen(PHOTOS).train.stages == 4


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "64 px, one size: "),
        ({"train.stages": 1}, "64 px, one size: "),
        ({"data.ibase": 48, "train.size_schedule": "fixed"}, "64 px, one size: "),
        ({"train.stages": 3}, "32 to 64 px: "),
        ({"data.ibase": 48}, "48 to 64 px: "),
    ],
)
def test_the_reason_names_the_sizes_of_the_training_also_when_it_goes_on(given, text):
    options = ("efficientnetv2-b0", "folder", FOLDER)
    first, reasons = resolve_for_images(*options, given, facts=FASHION)
    again, kept_reasons = resolve_for_images(*options, facts=FASHION, kept=first)
    assert reasons[0].startswith(text)
    if "train.size_schedule" not in given:  # which a training that goes on has to be given again
        assert (again, kept_reasons) == (first, reasons)


def test_a_fine_tuning_says_why_it_has_adamw_and_an_older_one_goes_on_with_rmsprop():
    options = ("efficientnetv2-b0", "folder", FOLDER, WEIGHTS)
    _, reasons = resolve_for_images(*options, facts=PHOTOS)
    older, others = resolve_for_images(*options, {"train.optimizer": "rmsprop"}, facts=PHOTOS)
    again, kept_reasons = resolve_for_images(*options, facts=PHOTOS, kept=older)
    assert any("AdamW" in reason for reason in reasons)
    assert (again, kept_reasons) == (older, others) and not any("AdamW" in r for r in others)


@pytest.mark.parametrize("side", [112, 500, None])
@pytest.mark.parametrize("model", ["efficientnetv2-b0", "efficientnetv2-b2", "efficientnetv2-s"])
def test_large_images_have_the_sizes_of_the_model(model, side):
    if side == 112 and model != "efficientnetv2-b0":
        side = 200
    config = chosen(ImageFacts(240, side), model=model)
    trained = MODELS[model].progressive.image_size[1]
    assert sizes(config)[1:] == (trained, MODELS[model].eval_size)
    assert trained / 2 <= config.data.ibase < trained / 2 + 32


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (64, 104, 128)),  # sqrt(0.675) of 128: the side of a crop of the mean area
        ({"data.crop_area": [0.1, 1.0]}, (64, 96, 128)),
        ({"data.crop_area": [1.0, 1.0]}, (64, 128, 128)),
        ({"data.resize": "published"}, (64, 128, 128)),
        ({"eval.isize": 160}, (64, 128, 160)),
        ({"train.isize": 128}, (64, 128, 128)),
        ({"train.isize": 128, "eval.isize": 160}, (64, 128, 160)),
        (WEIGHTS, (64, 128, 128)),
    ],
)
def test_training_is_at_the_size_at_which_things_are_as_large_as_in_evaluation(settings, expected):
    """V2-B0 on photographs, three seeds: 128 px 74.8%, 104 px evaluated at 128 px 78.1%."""
    found = chosen(ImageFacts(1440, 77), {"train.preset": "fast"}, settings)
    assert (found.train.isize, found.eval.isize) == expected[1:]
    if settings is not WEIGHTS:
        assert sizes(found) == expected


def test_more_images_get_more_steps_and_fewer_epochs():
    counts = [100, 1000, 10_000, 100_000, 1_000_000]
    configs = [chosen(ImageFacts(count, 300)) for count in counts]
    steps = [c.train.epochs * (n // c.train.batch_size) for c, n in zip(configs, counts)]
    epochs = [config.train.epochs for config in configs]
    assert steps == sorted(steps) and epochs == sorted(epochs, reverse=True)
    batches = [config.train.batch_size for config in configs]
    assert batches == sorted(batches) and set(batches) <= {16, 32, 64, 128}


def test_presets_differ_in_length_and_size():
    fast, auto, best = (chosen(PHOTOS, {"train.preset": name}) for name in ("fast", "auto", "best"))
    assert fast.train.epochs < auto.train.epochs < best.train.epochs
    assert fast.eval.isize < auto.eval.isize == best.eval.isize


@pytest.mark.parametrize(
    ("images", "epochs", "is_long"),
    [(10_000, 29, False), (10_000, 60, False), (10_000, 70, True), (640, 200, False)],
)
def test_only_long_trainings_have_the_regularisation_of_the_model(images, epochs, is_long):
    """V2-B0 on 640 images, 50 epochs of 40 steps: 66.9% with that of its model, 78.0% without."""
    config = chosen(ImageFacts(images, 300), f"train.epochs={epochs}")
    expected = (0.8, "autoaug") if is_long else (1.0, "none")
    assert (config.model.survival_prob, config.data.augname) == expected
    assert config.data.crop_area == (0.35, 1.0)


@pytest.mark.parametrize("images", [50, 640, 2000, 10_000, 100_000, 1_000_000])
def test_no_training_is_so_long_by_default(images):
    assert chosen(ImageFacts(images, 300)).data.augname == "none"


def test_small_images_have_no_policy_however_long():
    small = chosen(ImageFacts(10_000, 28), "train.epochs=70")
    assert (small.model.survival_prob, small.data.augname) == (0.8, "none")
    assert small.data.crop_area == (0.85, 1.0)


def test_settings_that_are_given_count_more_and_the_rest_follows_from_them():
    config = chosen(FASHION, "train.epochs=100,train.batch_size=32,eval.isize=96")
    assert (config.train.epochs, config.train.batch_size) == (100, 32)
    assert config.train.lr_warmup_epoch == 5.0  # a tenth of 100 epochs would be 10
    assert config.train.lr_base * 32 / 256 == pytest.approx(0.004 / 2**0.5, rel=1e-3)
    assert sizes(config) == (64, 96, 96)
    assert chosen(FASHION, "model.survival_prob=0.9").model.survival_prob == 0.9


@pytest.mark.parametrize(
    ("model", "depth"),
    [
        ("efficientnetv2-b0", 1),
        ("efficientnet-lite0", 1),  # shallower
        ("resnet50", 1),
        ("efficientnetv2-b3", 32 / 21),
        ("efficientnetv2-s", 40 / 21),
        ("efficientnetv2-m", 57 / 21),
        ("efficientnet-b7", 55 / 21),
    ],
)
def test_networks_deeper_than_v2_b0_have_a_lower_learning_rate_from_scratch(model, depth):
    rates = [chosen(PHOTOS, model=name).train.lr_base for name in ("efficientnetv2-b0", model)]
    tuned = [chosen(PHOTOS, WEIGHTS, model=name) for name in ("efficientnetv2-b0", model)]
    assert rates[0] / rates[1] == pytest.approx(depth, rel=1e-2)
    assert tuned[0].train.lr_base == tuned[1].train.lr_base


def test_the_learning_rate_follows_the_depth_of_a_network_that_is_scaled():
    plain, deeper = chosen(PHOTOS), chosen(PHOTOS, {"model.depth_coefficient": 2})
    assert plain.train.lr_base / deeper.train.lr_base == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize(
    ("optimizer", "decay"), [("adamw", 0.05), ("lion", 0.05), ("momentum", 1e-5), ("rmsprop", 1e-5)]
)
def test_only_decoupled_weight_decay_is_large(optimizer, decay):
    assert chosen(PHOTOS, {"train.optimizer": optimizer}).train.weight_decay == decay


def test_pretrained_weights_are_fine_tuned_by_the_fine_tuning_recipe():
    by_weights, by_name = chosen(PHOTOS, WEIGHTS), chosen(PHOTOS, WEIGHTS, name="ft")
    names = {"data.ds_name"}
    assert {k: v for k, v in flat(by_weights).items() if k not in names} == {
        k: v for k, v in flat(by_name).items() if k not in names
    }
    assert (by_weights.train.optimizer, by_weights.train.stages) == ("adamw", 1)
    assert by_weights.train.weight_decay == 0
    asked = chosen(PHOTOS, WEIGHTS, {"train.optimizer": "rmsprop"})
    assert asked.train.optimizer == "rmsprop"
    assert by_weights.train.lr_base * by_weights.train.batch_size / 256 == pytest.approx(1e-3)
    assert sizes(by_weights)[1:] == (224, 224)
    from_scratch = chosen(PHOTOS, {"train.ft_init_ckpt": "random"})
    assert from_scratch.train.optimizer == "adamw"


def test_no_preset_is_the_recipe_of_the_data_set():
    plain = resolve("efficientnetv2-b0", "folder", FOLDER, {"train.preset": "none"})
    assert chosen(FASHION, {"train.preset": "none"}) == plain
    assert resolve_for_images("efficientnetv2-b0", "digits")[0] == resolve("efficientnetv2-b0")


def test_a_training_that_goes_on_keeps_its_choice_but_not_against_what_is_given():
    first = chosen(PHOTOS, "train.epochs=20")
    options = {"facts": FASHION, "kept": first}
    again, reasons = resolve_for_images("efficientnetv2-b0", "folder", FOLDER, **options)
    assert again == first and reasons[1].startswith("20 epochs of")  # those of the start
    more, _ = resolve_for_images(
        "efficientnetv2-b0", "folder", FOLDER, "train.epochs=40", **options
    )
    changed = {key for key, value in flat(more).items() if flat(first)[key] != value}
    assert changed == {"train.epochs"}
    fast = {"train.preset": "fast"}
    other, _ = resolve_for_images("efficientnetv2-b0", "folder", FOLDER, fast, **options)
    assert other == chosen(FASHION, fast)


@pytest.mark.parametrize("name", ["digits", "imagenet2012", "cifar10ft", "tfds:beans"])
def test_a_data_set_of_one_recipe_takes_no_preset(name):
    with pytest.raises(ConfigError, match=r"train\.preset=fast is for a folder of your own images"):
        resolve_for_images("efficientnetv2-b0", name, {"train.preset": "fast"})


@pytest.mark.parametrize(("name", "size"), [("cifar10", 64), ("mnist", 64), ("cars196", 224)])
def test_data_sets_of_known_size_are_chosen_for_without_their_files(name, size):
    config, reasons = resolve_for_images("efficientnetv2-b0", name)
    assert config.eval.isize == size and len(reasons) >= 2
    assert DATASETS[name].facts.num_images == DATASETS[name].train.num_images


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", ["efficientnetv2-xl", "efficientnet-lite0", "resnet50"])
@pytest.mark.parametrize("weights", ["imagenet", "random"])
def test_every_choice_is_a_valid_config(preset, model, weights):
    weights = {"train.ft_init_ckpt": weights}
    for num_images, side in itertools.product((1, 17, 1_000_000), (1, 3000)):
        facts = ImageFacts(num_images, side)
        config = chosen(facts, {"train.preset": preset}, weights, model=model)
        assert config.train.batch_size <= num_images
        assert config.eval.isize <= MODELS[model].eval_size


def test_reasons_name_what_they_are_about():
    choice = choose(
        "auto",
        model_name="efficientnetv2-b0",
        num_blocks=21,
        facts=FASHION,
        optimizer="adamw",
        enlargement=1.2,
        pretrained=False,
        given={},
    )
    assert set(choice.settings) <= set(CHOSEN)
    text = "\n".join(choice.reasons)
    epochs = f"{choice.settings['train.epochs']} epochs"
    for part in ("64 px, one size", "28 px", "10,799 images", epochs):
        assert part in text


@pytest.mark.parametrize(
    ("facts", "settings", "why"),
    [
        (ImageFacts(1_000_000, 300), {}, "few epochs"),  # 8, of 7,812 steps
        (ImageFacts(640, 300), {}, "few steps"),  # 50 epochs of 40
        (ImageFacts(640, 28), {}, "small images lose what tells them apart"),
        (ImageFacts(640, 300), {"train.ft_init_ckpt": "imagenet"}, "the weights are pretrained"),
    ],
)
def test_the_reason_for_no_policy_is_the_one_that_holds(facts, settings, why):
    _, reasons = resolve_for_images("efficientnetv2-b0", "folder", FOLDER, settings, facts=facts)
    assert f"no AutoAugment or RandAugment: {why}" in reasons


@pytest.mark.parametrize(
    ("overrides", "num_images", "key", "value"),
    [
        ({"train.isize": 96}, 2000, "data.ibase", 64),
        ({"train.accumulate": 32}, 30_000, "train.batch_size", 128),
        ({"train.lr_min": 0.0015}, 2000, "train.lr_base", 0.032),
        ({"data.repeats": 20}, 30_000, "train.batch_size", 128),
    ],
)
def test_settings_are_compared_with_what_the_preset_chooses(overrides, num_images, key, value):
    """And not with the recipe that it replaces, with which they would not go."""
    given = {"data.data_dir": "photos", **overrides}
    with pytest.raises(ConfigError):
        resolve("efficientnetv2-b0", "folder", given)
    facts = ImageFacts(num_images, None)
    config, _ = resolve_for_images("efficientnetv2-b0", "folder", given, facts=facts)
    assert flat(config)[key] == pytest.approx(value, rel=0.3)


def test_what_does_not_go_with_the_choice_of_the_preset_is_refused():
    given = {"data.data_dir": "photos", "train.accumulate": 3}
    facts = ImageFacts(30_000, None)
    with pytest.raises(ConfigError, match=r"train.batch_size \(128\) must be divisible"):
        resolve_for_images("efficientnetv2-b0", "folder", given, facts=facts)
