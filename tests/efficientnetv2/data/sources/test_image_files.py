"""Training and prediction find the same image files, by the one scanner."""

import pytest

from efficientnetv2.data.sources.image_files import SUFFIXES, find_images, image_paths
from hparams.errors import DataError, UserError


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


def test_hidden_files_are_left_out_and_links_are_followed_once(photos):
    expected = ["cat/1.JPG", "cat/deep/2.png", "link/5.webp"]
    assert sorted(image_paths(photos)) == expected
    assert find_images(photos) == [photos / path for path in expected]


def test_a_file_or_a_pattern_is_taken_as_it_is_named(photos):
    hidden = photos / "cat" / ".4.jpg"
    assert find_images(hidden) == [hidden]
    assert find_images(photos / "cat" / "*.JPG") == [photos / "cat" / "1.JPG"]


def test_what_holds_no_image_is_named(photos, tmp_path):
    with pytest.raises(UserError, match="matches no file"):
        find_images(photos / "*.gif")
    with pytest.raises(UserError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=rf"holds no image \({', '.join(SUFFIXES)}\)"):
        find_images(empty)
    with pytest.raises(DataError, match="does not exist"):
        image_paths(tmp_path / "nowhere")
