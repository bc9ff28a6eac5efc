"""What --image_path names: a file, a folder or a pattern; and what is refused in one line."""

import os

import pytest

from efficientnetv2.data.sources.image_files import find_images
from hparams.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """Two images in sight, one behind a link, and what must be left out."""
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in ("cat/1.JPG", "cat/deep/2.png", ".hidden/3.jpg", "cat/.4.jpg", "cat/notes.txt"):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    elsewhere.mkdir()
    (elsewhere / "5.webp").touch()
    (folder / "link").symlink_to(elsewhere)
    (folder / "cat" / "circle").symlink_to(folder)
    return folder


def test_a_folder_gives_its_images_and_says_what_is_left_out(photos, capsys):
    expected = ["cat/1.JPG", "cat/deep/2.png", "link/5.webp"]
    assert list(find_images(photos)) == [photos / path for path in expected]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"folder '{photos}': left out 2 hidden, 1 .txt, 1 link to a folder that is read already"
    )


def test_a_file_or_a_pattern_is_taken_as_it_is_named(photos):
    hidden = photos / "cat" / ".4.jpg"
    assert list(find_images(hidden)) == [hidden]
    assert list(find_images(photos / "cat" / "*.JPG")) == [photos / "cat" / "1.JPG"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.png", ["cat/deep/2.png"]),
        ("**/[12].*", ["cat/1.JPG", "cat/deep/2.png"]),
        ("*/**/*.webp", ["link/5.webp"]),
        ("cat/**", ["cat/1.JPG", "cat/deep/2.png", "cat/notes.txt"]),
        ("c*/**/deep/**/?.png", ["cat/deep/2.png"]),
    ],
)
def test_two_stars_are_any_number_of_folders(pattern, expected, photos):
    assert list(find_images(photos / pattern)) == [photos / path for path in expected]


def test_two_stars_end_where_folders_link_to_each_other(photos):
    for name in ("a", "b", "c"):
        (photos / name).mkdir()
        (photos / name / f"{name}.jpg").touch()
    for name in ("a", "b", "c"):
        for other in ("a", "b", "c"):
            (photos / name / f"to_{other}").symlink_to(photos / other)
    assert [path.name for path in find_images(photos / "**" / "*.jpg")] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"two\nlines.jpg", b"bell\x07.jpg"])
def test_names_that_no_list_can_hold_are_refused(name, photos):
    odd = photos / os.fsdecode(name)
    odd.touch()
    shown = {b"caf\xe9.jpg": r"caf\\xe9", b"two\nlines.jpg": r"two\\nlines"}.get(name, r"bell\\x07")
    for path in (odd, photos, photos / "*.jpg"):
        with pytest.raises(UserError, match=f"rename '.*{shown}.jpg'") as caught:
            find_images(path)
        assert str(caught.value).isprintable()
    (photos / "other\n.jpg").touch()
    with pytest.raises(UserError, match=r"\(2 such files\)"):
        find_images(photos)


def test_what_holds_no_image_is_named(photos, tmp_path):
    with pytest.raises(UserError, match="matches no file"):
        find_images(photos / "*.gif")
    with pytest.raises(UserError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no image \(\.jpg, \.jpeg, .*\.webp.*\)$"):
        find_images(empty)
    for number in range(9):
        (empty / f"{number}.jp2").touch()
    with pytest.raises(UserError, match=r"\); left out 9 \.jp2 \(convert them to JPEG or PNG\)$"):
        find_images(empty)


def test_a_fifo_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"pipe.jpg' is no regular file"):
        find_images(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"holds no image .*left out 1 FIFO, socket or device"):
        find_images(tmp_path)
