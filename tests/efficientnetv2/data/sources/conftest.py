"""Images and tables for tests of tables of labels."""

import pytest

from tests.efficientnetv2.data.sources.table_texts import NUM_IMAGES


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with 0.png to 49.png, which nobody opens."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_IMAGES):
        (folder / f"{number}.png").touch()
    return folder


@pytest.fixture
def write(photos):
    """Returns a function that writes a table beside the images; it is gone after the test."""
    written = []

    def write(content, *, suffix=".csv", encoding="utf-8"):
        path = photos / f"table{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        written.append(path)
        return path

    yield write
    for path in written:
        path.unlink(missing_ok=True)
