"""Tests the memory that is left, from files as the kernel writes them."""

import pytest

from efficientnetv2.runtime.available_memory import available_bytes

MIB = 2**20


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def kernel(tmp_path):
    """Folders of a machine with 8 GiB, of which 6,000 MiB are available."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc, meminfo=f"MemTotal: {8192 * 1024} kB\nMemAvailable:   {6000 * 1024} kB")
    return {"proc": proc, "groups": groups}


def join(kernel, line):
    write(kernel["proc"] / "self", cgroup=line)


def test_this_machine_has_some():
    assert 10 * MIB < available_bytes() < 2**50


def test_no_limit(kernel):
    assert available_bytes(**kernel) == 6000 * MIB
    join(kernel, "0::/")
    write(kernel["groups"], memory__max="max", memory__current=100 * MIB)
    assert available_bytes(**kernel) == 6000 * MIB


def test_version_2_takes_the_tightest_of_the_groups(kernel):
    join(kernel, "0::/pod/container")
    pod, container = kernel["groups"] / "pod", kernel["groups"] / "pod" / "container"
    write(pod, memory__max=3000 * MIB, memory__current=2600 * MIB)
    write(container, memory__max=2000 * MIB, memory__current=500 * MIB)
    assert available_bytes(**kernel) == 400 * MIB
    write(pod, memory__max="max")
    assert available_bytes(**kernel) == 1500 * MIB


def test_cached_files_are_given_up(kernel):
    join(kernel, "0::/")
    stat = f"anon {100 * MIB}\ninactive_file {300 * MIB}\nactive_file {50 * MIB}"
    write(kernel["groups"], memory__max=1000 * MIB, memory__current=900 * MIB, memory__stat=stat)
    assert available_bytes(**kernel) == 400 * MIB


def test_version_1_and_a_path_that_only_the_host_has(kernel):
    join(kernel, "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/")
    write(
        kernel["groups"] / "memory",
        memory__limit_in_bytes=1024 * MIB,
        memory__usage_in_bytes=1000 * MIB,
        memory__stat=f"inactive_file {1 * MIB}\ntotal_inactive_file {200 * MIB}",
    )
    assert available_bytes(**kernel) == 224 * MIB


def test_more_than_the_limit_is_used(kernel):
    join(kernel, "0::/")
    write(kernel["groups"], memory__max=10 * MIB, memory__current=12 * MIB)
    assert available_bytes(**kernel) == 0
