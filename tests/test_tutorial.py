"""Runs docs/tutorial.ipynb from top to bottom, as a reader does, in a kernel of its own."""

import os
import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
LARGEST = 1_000_000  # bytes, with its pictures


@pytest.mark.slow
# The kernel's own libraries warn of what they will change.
@pytest.mark.filterwarnings("default")
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells[1:])  # the first makes the photographs
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert "image/png" in kinds  # preview, curves and heat map are shown
    (line,) = [o["data"]["text/plain"] for o in cells[-1].outputs if "data" in o]
    assert float(line) > 0.9


def test_what_it_shows_is_small_and_without_errors():
    assert NOTEBOOK.stat().st_size < LARGEST
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.outputs for cell in cells[1:])
    streams = [o for cell in cells for o in cell.outputs if o.output_type in ("error", "stream")]
    assert streams == []
