"""The folds of a cross-validation: those of scikit-learn, whatever the order of the images."""

import collections
import os

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from efficientnetv2.data.sources.fold_splits import assign_folds, combinations
from efficientnetv2.data.sources.image_splits import HELD_OUT, SPLITS
from efficientnetv2.data.sources.own_images import divide_folds, open_images
from efficientnetv2.data.sources.split_file import load_splits, save_splits
from hparams import resolve
from hparams.errors import DataError
from hparams.folds import Fold
from hparams.label_kinds import NUMBERS, ONE, SEVERAL
from tests.efficientnetv2.data.sources.table_texts import NUM_IMAGES, name_of, rows, several

COUNT, SEED = 5, 7
ALL = [Fold(number, COUNT) for number in range(1, COUNT + 1)]


def config_for(path, **settings):
    values = {f"data.{key}": value for key, value in settings.items()}
    values.update({"data.data_dir": os.fspath(path), "train.seed": SEED})
    return resolve("efficientnetv2-b0", "folder", values)


def table(folder, *cells, header):
    for number in range(NUM_IMAGES):
        (folder / f"{number}.png").touch()
    (folder / "labels.csv").write_text(rows(*cells, header=header))
    return folder / "labels.csv"


def paths(splits, split):
    return [image.path for image in splits.images[split]]


def expected(splitter, names, labels, groups=None):
    """Returns the images that scikit-learn holds out in each fold."""
    return [{names[i] for i in held} for _, held in splitter.split(names, labels, groups)]


OPTIONS = {"n_splits": COUNT, "shuffle": True, "random_state": SEED}
NAMES = sorted(f"{number}.png" for number in range(NUM_IMAGES))
NUMBER_OF = [int(name.partition(".")[0]) for name in NAMES]


def patient(number):
    return f"p{number // 4}"


def first_number(number):
    return number * 1.5


CASES = {
    "one": (
        [name_of],
        "path,label",
        {},
        expected(StratifiedKFold(**OPTIONS), NAMES, [n % 2 for n in NUMBER_OF]),
    ),
    "one, groups": (
        [name_of, patient],
        "path,label,group",
        {},
        expected(
            StratifiedGroupKFold(**OPTIONS),
            NAMES,
            [str(n % 2) for n in NUMBER_OF],
            [patient(n) for n in NUMBER_OF],
        ),
    ),
    "several": (
        [several],
        "path,labels",
        {"multi_label": True},
        # Of "", "cat", "cat|dog", "owl|cat" and "dog", there are 10 images each.
        expected(StratifiedKFold(**OPTIONS), NAMES, [n % 5 for n in NUMBER_OF]),
    ),
    "numbers": (
        [first_number],
        "path,target",
        {},
        expected(KFold(**OPTIONS), NAMES, None),
    ),
    "numbers, groups": (
        [first_number, patient],
        "path,target,group",
        {},
        expected(
            StratifiedGroupKFold(**OPTIONS),
            NAMES,
            [0] * NUM_IMAGES,
            [patient(n) for n in NUMBER_OF],
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_has_the_folds_of_scikit_learn(case, tmp_path):
    cells, header, settings, held_out = CASES[case]
    config = config_for(table(tmp_path, *cells, header=header), **settings)
    divided = divide_folds(config, ALL)
    assert [set(paths(one, HELD_OUT)) for one in divided] == held_out
    counts = collections.Counter(path for one in divided for path in paths(one, HELD_OUT))
    assert set(counts) == set(NAMES) and set(counts.values()) == {1}
    for one in divided:
        parts = [paths(one, split) for split in (*SPLITS, HELD_OUT)]
        assert sorted(path for part in parts for path in part) == NAMES  # disjoint and complete
        assert len(parts[0]) > 30 and len(parts[1]) >= 2 and not parts[2]
        if "groups" in case:
            groups = [{patient(int(p.partition(".")[0])) for p in part} for part in parts]
            assert len(set.union(*groups)) == sum(map(len, groups))


@pytest.fixture
def photos(tmp_path):
    for split, counts in {"train": (17, 11), "val": (5, 6), "test": (3, 4)}.items():
        for name, count in zip(("cat", "dog"), counts):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "photos" / split / name / f"{number}.jpg").touch()
    return tmp_path / "photos"


def test_test_images_stay_out_and_all_others_are_stratified(photos):
    divided = divide_folds(config_for(photos), ALL)
    pool = sorted(str(p.relative_to(photos)) for p in photos.glob("[tv][ra]*/*/*.jpg"))
    assert len(pool) == 39
    labels = ["dog" in path for path in pool]
    held_out = [set(paths(one, HELD_OUT)) for one in divided]
    assert held_out == expected(StratifiedKFold(**OPTIONS), pool, labels)
    for one, held in zip(divided, held_out):
        assert len(paths(one, "test")) == 7
        assert all(path.startswith("test/") for path in paths(one, "test"))
        by_class = collections.Counter(image.label for image in one.images[HELD_OUT])
        assert by_class[0] in (4, 5) and by_class[1] in (3, 4)  # 22 and 17 images
        assert len(paths(one, "minival")) == 3  # a tenth of 18 and of 14
        assert set(paths(one, "train")) | set(paths(one, "minival")) | held == set(pool)


def test_one_fold_alone_is_that_of_all(photos, tmp_path):
    third = divide_folds(config_for(photos), ALL)[2]
    alone = open_images(config_for(photos, fold="3/5"), tmp_path / "split.csv", writes=True)
    assert alone == third and alone.fold == "3/5"
    (photos / "train" / "cat" / "new.jpg").touch()  # moves no other image
    kept = open_images(config_for(photos, fold="3/5"), tmp_path / "split.csv")
    assert kept.images == third.images and "1 new images" in kept.notices[0]
    with pytest.raises(DataError, match=r"holds out fold 3/5 .*, but data\.fold asks for"):
        open_images(config_for(photos, fold="2/5"), tmp_path / "split.csv")
    with pytest.raises(DataError, match="asks for no fold; give the same, or another --model_dir"):
        open_images(config_for(photos), tmp_path / "split.csv")


@pytest.mark.parametrize("case", CASES)
def test_the_split_file_keeps_a_fold(case, tmp_path):
    cells, header, settings, _ = CASES[case]
    config = config_for(table(tmp_path, *cells, header=header), **settings)
    splits = divide_folds(config, ALL)[1]
    save_splits(splits, tmp_path / "split.csv")
    assert load_splits(tmp_path / "split.csv", tmp_path) == splits
    assert "\nheld_out 2/5," in (tmp_path / "split.csv").read_text()


@pytest.mark.parametrize("cell", ["held_out", "held_out 6/5", "train 1/5", "held_out 1/5"])
def test_a_damaged_split_is_named(cell, tmp_path):
    text = f"split,label,class,path\nheld_out 2/5,0,cat,0.jpg\n{cell},0,cat,1.jpg\n"
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=r"line 3 of .* is not a row of split,label,class,path"):
        load_splits(tmp_path / "split.csv", tmp_path)


def test_folds_depend_on_the_seed_and_not_on_the_order(seed):
    rng = np.random.default_rng(seed)
    labels = {f"{number}": int(rng.integers(3)) for number in range(100)}
    options = {"kind": ONE, "class_names": ["a", "b", "c"], "count": 4}
    folds = assign_folds(labels, {}, seed=1, **options)
    backwards = dict(reversed(labels.items()))
    assert assign_folds(backwards, {}, seed=1, **options) == folds
    assert assign_folds(labels, {}, seed=2, **options) != folds


def test_rare_combinations_are_divided_by_their_rarest_class():
    labels = [(0,)] * 6 + [(1,)] * 6 + [(0, 2)] * 2 + [(1, 2)] * 3 + [(0, 1, 3)] + [()]
    strata = combinations(labels, 5)
    assert strata == ["0"] * 6 + ["1"] * 6 + ["rarest 2"] * 5 + ["rest"] * 2
    named = {str(number): label for number, label in enumerate([*labels, (3,), (3,)])}
    folds = assign_folds(named, {}, kind=SEVERAL, class_names=list("abcd"), count=5, seed=0)
    assert sorted(folds[str(number)] for number in range(12, 17)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("labels", "groups", "kind", "message"),
    [
        (
            {"0": 0, "1": 0, "2": 0, "3": 1, "4": 1, "5": 1, "6": 0},
            {},
            ONE,
            "4 folds are too many: class 'dog' has 3 images; give at most as many",
        ),
        ({"0": (1.0,), "1": (2.0,)}, {}, NUMBERS, "4 folds are too many: there are 2 images"),
        (
            {str(number): number % 2 for number in range(20)},
            {str(number): f"p{number % 3}" for number in range(20)},
            ONE,
            "4 folds are too many: the images are of 3 groups; give at most as many",
        ),
        (
            {str(number): int(number < 4) for number in range(40)},
            {str(number): f"p{number // 4}" for number in range(40)},
            ONE,
            "class 'dog' cannot be cross-validated: all its images are in one of 4 folds",
        ),
        (
            {str(number): (0, 1) if number == 3 else (0,) for number in range(20)},
            {},
            SEVERAL,
            "class 'dog' cannot be cross-validated: all its images are in one of 4 folds",
        ),
    ],
)
def test_too_many_folds_are_refused(labels, groups, kind, message):
    with pytest.raises(DataError, match=message):
        assign_folds(labels, groups, kind=kind, class_names=["cat", "dog"], count=4, seed=0)
