"""Mistakes in tables of labels: each is one line that names the row and the column."""

import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from efficientnetv2.data.sources.label_table import TableColumns
from efficientnetv2.data.sources.table_splits import divide_table
from hparams.errors import DataError
from tests.efficientnetv2.data.sources.table_texts import PLAIN, name_of, rows, several, sizes

# ---------------------------------------------------------------------- mistakes


def broken(old, new):
    assert PLAIN.count(old)
    return PLAIN.replace(old, new, 1)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", {}, ": it is empty"),
        ("\n\n", {}, ": it is empty"),
        ("path,label\n", {}, ": it has no row besides the names of the columns"),
        (
            PLAIN.split("\n", 1)[1],
            {},
            ": it has no column 'path' with the image files, only '0.png', 'cat'; the ",
        ),
        (
            rows(name_of, header="path,animal"),
            {},
            ": it has no column 'label', 'labels' or 'target', only 'path', 'animal'",
        ),
        (
            PLAIN,
            {"path": "pth"},
            ": it has no column 'pth' (data.path_column); its columns: path, label",
        ),
        (PLAIN, {"labels": ("lable",)}, ": it has no column 'lable' (data.label_columns); its"),
        (PLAIN, {"targets": ("age",)}, ": it has no column 'age' (data.target_columns); its"),
        (PLAIN, {"split": "set"}, ": it has no column 'set' (data.split_column); its"),
        (
            PLAIN,
            {"labels": ("label",), "targets": ("label",)},
            ": data.label_columns and data.target_columns are both given",
        ),
        (PLAIN, {"targets": ("label", "Label")}, ": a column is named twice: 'label', 'label'"),
        (
            rows(name_of, several, header="path,label,labels"),
            {},
            ": its columns 'label', 'labels' all look like labels; say with",
        ),
        (rows(name_of, name_of, header="path,label,label"), {}, ": two columns are called 'label'"),
        (
            broken("7.png,dog", "7.png,"),
            {},
            ", row 9, column 'label': it is empty; it must name the class",
        ),
        (
            broken("7.png,dog", ",dog"),
            {},
            ", row 9, column 'path': it is empty; it must name an image file",
        ),
        (
            broken("7.png,dog", "7.txt,dog"),
            {},
            ", row 9, column 'path': '7.txt' is no image file (.jpg, ",
        ),
        (
            broken("7.png,dog", "77.png,dog"),
            {},
            ", row 9, column 'path': there is no image '{photos}/77.png'; data.on_bad_image=skip",
        ),
        (
            broken("7.png,dog", "5.png,dog"),
            {},
            ", row 9, column 'path': '5.png' stands in row 7, too; an image of several ",
        ),
        (
            broken("7.png,dog", "./5.png,dog"),
            {},
            ", row 9, column 'path': '5.png' stands in row 7, too",
        ),
        (
            broken("7.png,dog", "7.png,dog,1"),
            {},
            ", row 9: it has 3 cells, but there are 2 columns; quote cells that hold ','",
        ),
        (broken("7.png,dog", "7.png"), {}, ", row 9: it has 1 cells, but there are 2 columns"),
        (
            broken("7.png,dog", '7.png,"dog"x'),
            {},
            ", row 9: it is not CSV: ',' expected after '\"'",
        ),
        (broken("7.png,dog", '7.png,"dog'), {}, ", row 9: it is not CSV: "),
        (
            broken("7.png,dog", '7.png,"d\nog"'),
            {},
            ", row 9, column 'label': 'd\\nog' is no name of a class: it must be UTF-8",
        ),
        (
            PLAIN.replace("dog", "k\u00e4fer").encode("latin-1"),
            {},
            ", row 3, column 'label': 'k\\xe4fer' is no name of a class: it must be UTF-8",
        ),
        (PLAIN.replace("dog", "cat"), {}, ", column 'label': all images are of one class, 'cat'"),
        (PLAIN.encode("utf-16")[:-1], {}, ": it begins like utf-16, but is not"),
        (
            rows(name_of, lambda n: "trian" if n == 7 else "train", header="path,label,split"),
            {},
            ", row 9, column 'split': it is 'trian'; give train, val or test, or predict",
        ),
        (
            rows(name_of, lambda n: "" if n == 7 else "train", header="path,label,split"),
            {},
            ", row 9, column 'split': it is empty; give train, val or test",
        ),
        (
            rows(name_of, lambda n: "test", header="path,label,split"),
            {},
            ", column 'split': no image is of the split train",
        ),
        (
            rows(lambda n: "", lambda n: "predict", header="path,label,split"),
            {},
            ": all its rows are images without labels, to be predicted",
        ),
        (
            rows(
                lambda n: "owl" if n == 7 else name_of(n),
                lambda n: "test" if n == 7 else "train",
                header="path,label,split",
            ),
            {},
            ", row 9, column 'label': 'owl' has no image in train",
        ),
        (
            rows(
                name_of,
                lambda n: "test" if n == 7 else "train",
                lambda n: n // 4,
                header="path,label,split,group",
            ),
            {},
            "column 'group': '1' is in test here and in train in row 6; a group ",
        ),
        (
            rows(name_of, lambda n: n % 2, header="path,label,group"),
            {},
            ", column 'group': 2 groups are too few to take test and minival out of train",
        ),
        (
            rows(name_of, lambda n: -1 if n == 7 else 1, header="path,label,weight"),
            {},
            ", row 9, column 'weight': a weight must be at least 0, got -1",
        ),
        (
            rows(name_of, lambda n: "x" if n == 7 else 1, header="path,label,weight"),
            {},
            ", row 9, column 'weight': it must be a number such as 1.5 (up to 1e+12), got 'x'",
        ),
        (
            rows(lambda n: "cat||dog" if n == 7 else "cat|dog", header="path,labels"),
            {},
            ", row 9, column 'labels': a name is missing in 'cat||dog'",
        ),
        (rows(lambda n: "", header="path,labels"), {}, ", column 'labels': no image has a label"),
        (
            rows(lambda n: 2 if n == 7 else 1, lambda n: n % 2, header="path,a,b"),
            {"labels": ("a", "b")},
            ", row 9, column 'a': it must be 0 or 1, got '2'",
        ),
        (
            rows(lambda n: "" if n == 7 else 1, lambda n: n % 2, header="path,a,b"),
            {"labels": ("a", "b")},
            ", row 9, column 'a': it must be 0 or 1, got nothing",
        ),
        (
            rows(lambda n: 0, lambda n: n % 2, header="path,a,b"),
            {"labels": ("a", "b")},
            ", column 'a': it is 0 in all images of train",
        ),
        (
            rows(lambda n: 1, lambda n: n % 2, header="path,a|c,b"),
            {"labels": ("a|c", "b")},
            ": rename the column 'a|c': the name of a class must be",
        ),
        *[
            (
                rows(lambda n, bad=bad: bad if n == 7 else n, header="path,target"),
                {},
                f"column 'target': it must be a number such as 1.5 (up to 1e+12), got {said}",
            )
            for bad, said in [
                ("", "nothing"),
                ("nan", "'nan'"),
                ("inf", "'inf'"),
                ("1e999", "'1e999'"),
                ("1_0", "'1_0'"),
                ("3 cm", "'3 cm'"),
                ("\u0663", "'\u0663'"),
            ]
        ],
    ],
)
def test_a_mistake_is_named_with_its_row_and_column(content, columns, message, write, photos):
    path = write(content)
    with pytest.raises(DataError) as error:
        divide_table(path, TableColumns(**columns))
    text = str(error.value)
    assert text.startswith(f"table '{path}'{message.format(photos=photos)}"[:150]) or (
        message in text
    )
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ('{"path": "0.png", "label": "cat"}\n{"path": \n', ".jsonl", ", row 2: it is not JSON: "),
        ("[1]\n", ".jsonl", ", row 1: it must be an object, got [1]"),
        ('{"path": "0.png", "label": {"a": 1}}', ".jsonl", ", row 1, column 'label': it must hold"),
        (
            '{"path": "0.png", "label": "cat"}\n{"path": "1.png"}',
            ".jsonl",
            ", row 2, column 'label': it is empty",
        ),
        ('{"path": "0.png", "label": NaN}', ".jsonl", ", row 1, column 'label': it is empty"),
        ("[" * 100_000, ".jsonl", ", row 1: it is not JSON: "),
        ("no parquet", ".parquet", ": it is not Parquet: "),
        ("x" * (1 << 25), ".csv", ", row 1: it is not CSV: field larger than field limit"),
        ("\0" * 1000, ".csv", ": it has no row besides the names of the columns"),
        ('sep="\npath,label\n0.png,cat\n', ".csv", ", row 2: it has 2 cells, but there are 1"),
    ],
)
def test_a_damaged_file_of_another_kind_is_named(content, suffix, message, write):
    path = write(content, suffix=suffix)
    with pytest.raises(DataError) as error:
        divide_table(path, TableColumns())
    assert str(error.value).startswith(f"table '{path}'{message}")


def test_parquet_with_text_that_is_not_utf_8_is_named(write):
    text = pyarrow.array([b"0.png", b"\xff.png"])
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, text.buffers())
    path = write(b"", suffix=".parquet")
    pyarrow.parquet.write_table(pyarrow.table({"path": broken, "label": ["a", "b"]}), path)
    with pytest.raises(DataError, match="it is not Parquet: 'utf-8' codec can't decode"):
        divide_table(path, TableColumns())


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="Parquet needs pyarrow: pip install pyarrow"):
        divide_table(write("x", suffix=".parquet"), TableColumns())


def test_ten_thousand_rows_are_checked_within_a_second(tmp_path):
    (tmp_path / "0.png").touch()
    for number in range(1, 10_000):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    lines = [f"{number}.png,{number % 10}" for number in range(10_000)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["path,label", *lines]))
    start = time.process_time()
    assert sum(sizes(divide_table(path, TableColumns()))) == 10_000
    assert time.process_time() - start < 1
    path.write_text("\n".join(["path,label", *lines[:-1], "9999.png,"]))
    with pytest.raises(DataError, match="row 10001, column 'label': it is empty"):
        divide_table(path, TableColumns())
