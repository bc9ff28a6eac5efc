"""Tests that printing never ends the work, whatever is wrong with what is printed to."""

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import threading

import pytest

from efficientnetv2.runtime.console import SteadyStream, muted, steady_console
from hparams.errors import visible

ROOT = pathlib.Path(__file__).parents[3]
# Prints much, then writes a file, then returns what the command line would.
PROGRAM = """
import pathlib, sys
from efficientnetv2 import cli
from efficientnetv2.commands import Outcome

def run_mode(values, stop):
    for number in range(20_000):
        print("a line", number, "\\u00fc\\udcff")
        print("another", file=sys.stderr)
    pathlib.Path(sys.argv[1]).write_text("done")
    return Outcome()

cli.run_mode = run_mode
sys.exit(cli.main(["main_tf2.py"]))
"""


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        ("| head -1", 141, ""),
        ("2>&1 >/dev/null | head -1", 0, ""),
        ("> /dev/full", 2, "main_tf2.py: cannot print: No space left on device\n"),
        ("2> /dev/full > /dev/null", 0, ""),
        (">&-", 0, ""),
        ("2>&- > /dev/null", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/null", 0, ""),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_work_is_done_whoever_reads(redirection, code, says, encoding, tmp_path):
    done = tmp_path / "done"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    line = f"{sys.executable} {program} {done} {redirection}; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )
    assert result.returncode == code, result.stderr
    assert done.read_text() == "done"
    assert [text for text in result.stderr.splitlines(keepends=True) if text != "another\n"] == (
        [says] if says else []
    )


def test_nothing_that_is_printed_moves_the_cursor():
    stream = io.StringIO()
    SteadyStream(stream).write("a\x1b[2Jb\rc\x07\x9b\u202ed\te\n")
    assert stream.getvalue() == "a\\x1b[2Jb\\rc\\x07\\x9b\\u202ed\te\n"
    assert visible("a\nb\udce4 ü") == "a\\nb\\udce4 ü"


def test_the_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), steady_console() as out:
        assert sys.stdout is out and not out.was_left
        raise KeyError
    assert (sys.stdout, sys.stderr) == before


def test_threads_may_end_being_muted_in_any_order(capsys) -> None:
    """Nested contexts of two threads once left standard output muted for good."""
    began, end = threading.Event(), threading.Event()

    def work() -> None:
        with muted():
            began.set()
            end.wait(10)
            print("by the muted thread")
        print("by the thread afterwards")

    before = sys.stdout
    thread = threading.Thread(target=work)
    with muted():
        thread.start()
        began.wait(10)
        print("muted")
    print("no longer muted")
    end.set()
    thread.join()
    assert sys.stdout is before
    assert capsys.readouterr().out == "no longer muted\nby the thread afterwards\n"
