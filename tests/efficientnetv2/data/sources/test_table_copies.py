"""What a run keeps of a table of labels, and tables that are written."""

import math
import os

import pytest

from efficientnetv2.data.sources.folder_splits import scan_folder
from efficientnetv2.data.sources.image_splits import SPLITS
from efficientnetv2.data.sources.label_table import TableColumns
from efficientnetv2.data.sources.own_images import open_images
from efficientnetv2.data.sources.table_splits import divide_table
from efficientnetv2.data.sources.table_writer import write_table
from hparams import resolve
from hparams.errors import DataError, UserError
from tests.efficientnetv2.data.sources.table_texts import NUM_IMAGES, PLAIN, name_of, rows, several

# ---------------------------------------------------------------------- a run's own copy


def config_of(path, **settings):
    settings = {"data.data_dir": os.fspath(path), **settings}
    return resolve("efficientnetv2-b0", "folder", settings)


TABLES = {
    "one": rows(name_of, header="path,label"),
    "several": rows(several, header="path,labels"),
    "numbers": rows(lambda n: n / 7, lambda n: -math.pi * n, header="path,target_x,target_y"),
    "weights": rows(name_of, lambda n: n / 3, header="path,label,weight"),
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_run_keeps_splits_and_labels(content, write, tmp_path):
    path, file = write(content), tmp_path / "run" / "split.csv"
    before = open_images(config_of(path), file, writes=True)
    after = open_images(config_of(path), file)
    assert after == before
    assert after.notices == []
    assert before.notices[0].startswith(f"table '{path}': ")


def test_what_changes_in_the_table_later_is_said_and_not_used(photos, write, tmp_path):
    lines = PLAIN.splitlines(keepends=True)
    path, file = write("".join(lines[:41])), tmp_path / "run" / "split.csv"
    before = open_images(config_of(path), file, writes=True)
    path.write_text("".join(lines).replace("7.png,dog", "7.png,cat", 1))
    after = open_images(config_of(path), file)
    assert after == before
    assert after.notices == [
        f"table '{path}': 10 new rows and 1 other labels are not in '{file}' and not used; another "
        "--model_dir reads the table anew"
    ]
    path.write_text("nothing")
    assert open_images(config_of(path), file) == before


def test_an_image_that_is_gone_is_named_or_left_out(photos, write, tmp_path):
    path, file = write(PLAIN), tmp_path / "run" / "split.csv"
    before = open_images(config_of(path), file, writes=True)
    (photos / "7.png").rename(photos / "away")
    try:
        with pytest.raises(DataError, match=r"has no '7.png', which '.*split.csv' lists; put it"):
            open_images(config_of(path), file)
        skip = config_of(path, **{"data.on_bad_image": "skip"})
        assert open_images(skip, file) == before
        splits = open_images(skip)
        assert splits == before
        assert splits.notices[1].endswith(f"there is no image '{photos}/7.png'; left out")
    finally:
        (photos / "away").rename(photos / "7.png")


def test_columns_are_for_tables_only(tmp_path, photos):
    config = config_of(photos, **{"data.path_column": "file"})
    with pytest.raises(DataError, match=r"data.path_column names a column of a table, but '.*' is"):
        open_images(config)
    (tmp_path / "labels.xlsx").touch()
    with pytest.raises(DataError, match=r"is neither a folder of images nor a table \(.csv, .tsv,"):
        open_images(config_of(tmp_path / "labels.xlsx"))
    with pytest.raises(DataError, match=r"table '.*/no.csv': cannot read it: No such file"):
        open_images(config_of(tmp_path / "no.csv"))


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", ["other.csv", "sub/other.tsv"])
def test_a_table_is_written_and_read_again(content, name, photos, write, tmp_path):
    splits = divide_table(write(content), TableColumns())
    folder = tmp_path / "sub"
    folder.mkdir()
    path = tmp_path / name
    assert write_table(splits, path)[0] == NUM_IMAGES
    again = divide_table(path, TableColumns())
    assert (again.kind, again.class_names) == (splits.kind, splits.class_names)
    for split in SPLITS:
        found = {(again.root / i.path).resolve(): i[1:] for i in again.images[split]}
        assert found == {photos / i.path: i[1:] for i in splits.images[split]}


def test_a_folder_with_odd_names_becomes_a_table(tmp_path):
    names = [
        "1.png",
        'a,"b".png',
        "new\nline.png",
        os.fsdecode(b"\xff.png"),
        " space.png",
        "e\r.png",
    ]
    for label in ("x", "y, z"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for name in names:
            (tmp_path / "photos" / label / name).touch()
    splits = scan_folder(tmp_path / "photos")
    path = tmp_path / "labels.csv"
    write_table(splits, path)
    again = divide_table(path, TableColumns())
    for split in SPLITS:
        found = [(again.root / i.path, i.label) for i in again.images[split]]
        assert found == [(splits.root / i.path, i.label) for i in splits.images[split]]


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.json", "must end in .csv or .tsv"), ("no/x.csv", "the folder '.*no' does not exist")],
)
def test_a_table_that_cannot_be_written_is_refused(name, message, photos, write, tmp_path):
    splits = divide_table(write(PLAIN), TableColumns())
    with pytest.raises(UserError, match=message):
        write_table(splits, tmp_path / name)
