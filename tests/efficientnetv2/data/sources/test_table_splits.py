"""Tables of labels: every spelling that people use is read, and every mistake named in one line."""

import collections
import csv
import dataclasses
import json
import shutil

import pandas
import pytest

from efficientnetv2.data.sources.folder_splits import scan_folder
from efficientnetv2.data.sources.image_splits import SPLITS
from efficientnetv2.data.sources.label_table import TableColumns
from efficientnetv2.data.sources.table_splits import divide_table
from efficientnetv2.data.sources.table_writer import write_table
from hparams.errors import DataError
from tests.efficientnetv2.data.sources.table_texts import (
    CLASSES,
    NUM_IMAGES,
    PLAIN,
    name_of,
    rows,
    several,
    sizes,
)


def labels_of(splits):
    return {image.path: image.label for split in SPLITS for image in splits.images[split]}


ONE_LABEL = {f"{number}.png": number % 2 for number in range(NUM_IMAGES)}


# ---------------------------------------------------------------------- spellings


@pytest.mark.parametrize(
    ("content", "suffix", "encoding"),
    [
        (PLAIN, ".csv", "utf-8"),
        (PLAIN, ".CSV", "utf-8"),
        (PLAIN, ".csv", "utf-8-sig"),
        (PLAIN, ".csv", "utf-16"),
        (PLAIN.replace("\n", "\r\n"), ".csv", "utf-8"),
        (PLAIN.replace("path,label", "Path, LABEL "), ".csv", "utf-8"),
        (PLAIN.replace("path,label", "filename,class"), ".csv", "utf-8"),
        (PLAIN.replace(",", ";"), ".csv", "utf-8"),
        ("sep=;\n" + PLAIN.replace(",", ";"), ".csv", "utf-8"),
        (PLAIN.replace(",", "\t"), ".tsv", "utf-8"),
        (PLAIN.replace(",", "\t"), ".csv", "utf-16"),
        (PLAIN.replace(",cat", ', "cat"').replace(' "', '"'), ".csv", "utf-8"),
        (PLAIN.replace(",cat", ",  cat "), ".csv", "utf-8"),
        (PLAIN.replace("\n", "\n\n") + ",\n,\n", ".csv", "utf-8"),
        (PLAIN.rstrip("\n"), ".csv", "utf-8"),
        (
            "a,path,label\n" + "".join(f"{n},{n}.png,{name_of(n)}\n" for n in range(50)),
            ".csv",
            "utf-8",
        ),
        (
            ",path,label\n" + "".join(f"{n},./{n}.png,{name_of(n)}\n" for n in range(50)),
            ".csv",
            "utf-8",
        ),
        (
            "".join(
                json.dumps({"path": f"{n}.png", "label": name_of(n)}) + "\n" for n in range(50)
            ),
            ".jsonl",
            "utf-8",
        ),
        (
            "".join(
                json.dumps({"label": name_of(n), "image": f"{n}.png"}) + "\n\n" for n in range(50)
            ),
            ".jsonl",
            "utf-8-sig",
        ),
    ],
)
def test_one_label_in_every_spelling(content, suffix, encoding, write):
    splits = divide_table(write(content, suffix=suffix, encoding=encoding), TableColumns())
    assert (splits.kind, list(splits.class_names)) == ("one", list(CLASSES))
    assert labels_of(splits) == ONE_LABEL
    assert sizes(splits) == (38, 6, 6)


def test_absolute_paths_and_those_of_windows(photos, write, tmp_path):
    text = PLAIN.replace("\n1.png", f"\n{photos}/1.png")
    splits = divide_table(write(text), TableColumns())
    assert labels_of(splits)[f"{photos}/1.png"] == 1
    (photos / "sub").mkdir()
    try:
        (photos / "sub" / "x.png").touch()
        splits = divide_table(write(PLAIN + "sub\\x.png,cat\n"), TableColumns())
        assert labels_of(splits)["sub/x.png"] == 0
    finally:
        shutil.rmtree(photos / "sub")


def test_names_with_quotes_commas_line_breaks_and_letters_of_any_alphabet(photos, write):
    odd = photos / 'a,"b"\n\u00e9.png'
    odd.touch()
    try:
        text = PLAIN + '"a,""b""\n\u00e9.png","\u732b"\n'
        splits = divide_table(write(text), TableColumns())
    finally:
        odd.unlink()
    assert labels_of(splits)['a,"b"\n\u00e9.png'] == 2
    assert splits.class_names[2] == "\u732b"


def test_numbered_classes_are_in_the_order_of_their_numbers(write):
    splits = divide_table(write(rows(lambda n: n % 12, header="path,label")), TableColumns())
    assert list(splits.class_names) == [str(number) for number in range(12)]


def test_parquet_with_whole_numbers_lists_and_columns_of_other_types(photos, write):
    frame = pandas.DataFrame(
        {
            "path": [f"{n}.png" for n in range(NUM_IMAGES)],
            "label": [float(n % 2) for n in range(NUM_IMAGES)],
            "taken": pandas.Timestamp("2026-01-01"),
        }
    )
    path = write(b"", suffix=".parquet")
    frame.to_parquet(path)
    splits = divide_table(path, TableColumns())
    assert list(splits.class_names) == ["0", "1"]
    assert labels_of(splits) == ONE_LABEL
    frame = frame.drop(columns="label")
    frame["labels"] = [["a", "b"] if n % 2 else [] for n in range(NUM_IMAGES)]
    frame.to_parquet(path)
    splits = divide_table(path, TableColumns())
    assert labels_of(splits)["0.png"] == () and labels_of(splits)["1.png"] == (0, 1)
    with pytest.raises(DataError, match=r"row 1, column 'taken': it must hold text or a number"):
        divide_table(path, TableColumns(labels=("taken",)))


# ---------------------------------------------------------------------- kinds of labels


def test_several_labels_in_a_cell(write):
    splits = divide_table(write(rows(several, header="path,labels")), TableColumns())
    assert (splits.kind, list(splits.class_names)) == ("several", ["cat", "dog", "owl"])
    expected = [(), (0,), (0, 1), (0, 2), (1,)]
    assert labels_of(splits) == {f"{n}.png": expected[n % 5] for n in range(NUM_IMAGES)}


def test_a_column_for_each_class(write):
    text = rows(lambda n: n % 2, lambda n: ("True", "false", 1.0)[n % 3], header="path,dog,Cat")
    splits = divide_table(write(text), TableColumns(labels=("cat", "dog")))
    assert (splits.kind, list(splits.class_names)) == ("several", ["Cat", "dog"])
    assert labels_of(splits)["0.png"] == (0,)
    assert labels_of(splits)["1.png"] == (1,)
    assert labels_of(splits)["4.png"] == ()
    assert labels_of(splits)["5.png"] == (0, 1)


def test_the_column_of_labels_by_another_name(write):
    path = write(rows(name_of, several, header="path,species,seen"))
    splits = divide_table(path, TableColumns(labels=("species",)))
    assert (splits.kind, labels_of(splits)) == ("one", ONE_LABEL)
    splits = divide_table(path, TableColumns(labels=("seen",), multi_label=True))
    assert (splits.kind, labels_of(splits)["2.png"]) == ("several", (0, 1))


@pytest.mark.parametrize(
    ("header", "columns", "names"),
    [
        ("path,target", TableColumns(), ["target"]),
        ("path,age", TableColumns(targets=("age",)), ["age"]),
    ],
)
def test_a_number(header, columns, names, write):
    splits = divide_table(write(rows(lambda n: n / 7 - 1e-3, header=header)), columns)
    assert (splits.kind, list(splits.class_names)) == ("numbers", names)
    assert labels_of(splits) == {f"{n}.png": (n / 7 - 1e-3,) for n in range(NUM_IMAGES)}
    assert sizes(splits) == (40, 5, 5)


def test_several_numbers(write):
    text = rows(lambda n: n, lambda n: f"{-n}e-3", header="path,target_x,target_y")
    splits = divide_table(write(text), TableColumns())
    assert list(splits.class_names) == ["target_x", "target_y"]
    assert labels_of(splits)["3.png"] == (3.0, -0.003)


# ---------------------------------------------------------------------- splits, groups, weights


def test_splits_in_every_usual_spelling(write):
    names = ["TRAIN", "valid", "Test", "training", "val", "testing", "train set", "dev", "holdout"]
    path = write(rows(name_of, lambda n: names[n % 9], header="path,label,split"))
    splits = divide_table(path, TableColumns())
    for place, split in enumerate(SPLITS):
        expected = {f"{n}.png" for n in range(NUM_IMAGES) if n % 3 == place}
        assert {image.path for image in splits.images[split]} == expected
    assert "a tenth" not in splits.notices[0]


def test_a_single_held_out_split_is_test_and_minival_is_taken_from_train(write):
    path = write(rows(name_of, lambda n: "val" if n < 10 else "train", header="path,label,set"))
    splits = divide_table(path, TableColumns(split="set"))
    assert sizes(splits) == (36, 4, 10)


def test_images_to_be_predicted_need_no_label(write):
    path = write(
        rows(
            lambda n: "" if n % 5 == 4 else name_of(n),
            lambda n: "predict" if n % 5 == 4 else "train",
            header="path,label,split",
        )
    )
    splits = divide_table(path, TableColumns())
    assert sum(sizes(splits)) == 40
    assert splits.notices[0].endswith("; 10 images without labels are not used")


def test_groups_stay_whole_and_classes_keep_their_shares(photos, write):
    path = write(rows(name_of, lambda n: "" if n > 40 else n // 4, header="path,label,group"))
    splits = divide_table(path, TableColumns())
    homes = collections.defaultdict(set)
    for split in SPLITS:
        for image in splits.images[split]:
            number = int(image.path.split(".")[0])
            homes[number // 4 if number <= 40 else f"alone {number}"].add(split)
    assert all(len(home) == 1 for home in homes.values())
    assert min(sizes(splits)) >= 3 and sum(sizes(splits)) == NUM_IMAGES
    shuffled = path.read_text().splitlines(keepends=True)
    path.write_text("".join([shuffled[0], *reversed(shuffled[1:])]))
    assert divide_table(path, TableColumns()) == splits


def test_a_class_of_one_group_stays_in_train(write):
    path = write(
        rows(lambda n: "owl" if n < 4 else name_of(n), lambda n: n // 4, header="path,label,group")
    )
    splits = divide_table(path, TableColumns())
    trained = {image.label for image in splits.images["train"]}
    assert trained == {0, 1, 2}


def test_each_rare_label_stays_in_train(write):
    names = {0: "rare", 1: "rare|cat", 2: "single|rare"}
    path = write(rows(lambda n: names.get(n, several(n)), header="path,labels"))
    splits = divide_table(path, TableColumns())
    trained = {label for image in splits.images["train"] for label in image.label}
    assert trained == set(range(len(splits.class_names)))


def test_weights(write):
    splits = divide_table(
        write(rows(name_of, lambda n: n / 2, header="path,label,weight")), TableColumns()
    )
    weights = {image.path: image.weight for split in SPLITS for image in splits.images[split]}
    assert weights == {f"{n}.png": n / 2 for n in range(NUM_IMAGES)}


@pytest.mark.parametrize("name", ["weight", "group", "split"])
def test_a_column_that_is_a_label_is_nothing_else(write, tmp_path, name):
    """A weight in kilograms must not weigh the images."""
    table = write(rows(lambda n: n, lambda n: n % 2, header=f"path,age,{name}"))
    columns = TableColumns(targets=("age", name))
    splits = divide_table(table, columns)
    images = [image for split in SPLITS for image in splits.images[split]]
    assert {image.weight for image in images} == {1.0} and len(images) == NUM_IMAGES
    assert {tuple(image.label) for image in images} == {(n, n % 2) for n in range(NUM_IMAGES)}
    weighted = dataclasses.replace(
        splits,
        images={
            split: [image._replace(weight=2.5) for image in splits.images[split]]
            for split in SPLITS
        },
    )
    _, flags = write_table(weighted, tmp_path / "written.csv")
    renamed = f" --{name}_column=image_{name}" * (name in ("split", "weight"))
    assert flags == f" --target_columns=age,{name}{renamed}"
    other = "image_weight" if name == "weight" else "weight"
    again = divide_table(
        tmp_path / "written.csv",
        TableColumns(
            targets=("age", name),
            weight=other,
            split="image_split" if name == "split" else None,
        ),
    )
    for split in SPLITS:
        found = sorted((tuple(image.label), image.weight) for image in again.images[split])
        assert found == sorted((tuple(image.label), 2.5) for image in splits.images[split])


def test_a_table_of_a_folder_has_the_same_splits(photos, tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").touch()
    folder = scan_folder(tmp_path)
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([f"{c}/{n}.png", c] for n in range(20) for c in CLASSES)
    table = divide_table(path, TableColumns())
    assert dict(table.images) == {split: list(folder.images[split]) for split in SPLITS}
    assert (table.root, list(table.class_names)) == (folder.root, list(folder.class_names))
