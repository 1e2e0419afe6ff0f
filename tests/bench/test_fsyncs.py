"""Tests that every fsync of the counted thread and its processes is counted, and no other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.fsyncs import CannotCount, FsyncCounter, counting_fsyncs


@pytest.fixture
def counter() -> Iterator[FsyncCounter]:
    try:
        with counting_fsyncs() as counter:
            yield counter
    except CannotCount as reason:
        pytest.skip(str(reason))


def sync(file: Path, times: int = 1) -> None:
    with file.open("wb") as opened:
        for _ in range(times):
            os.fsync(opened.fileno())
        os.fdatasync(opened.fileno())


def test_fsync_and_fdatasync_are_counted_by_file(counter: FsyncCounter, tmp_path: Path) -> None:
    counter.run(sync, tmp_path / "a", times=2)
    counter.run(sync, tmp_path / "b")

    assert counter.counts == {str(tmp_path / "a"): 3, str(tmp_path / "b"): 2}


def test_fsyncs_of_child_processes_are_counted(counter: FsyncCounter, tmp_path: Path) -> None:
    code = "import os, sys; os.fsync(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR))"
    counter.run(subprocess.run, [sys.executable, "-c", code, str(tmp_path / "a")], check=True)

    assert counter.counts == {str(tmp_path / "a"): 1}


def test_fsyncs_of_other_threads_are_not_counted(counter: FsyncCounter, tmp_path: Path) -> None:
    sync(tmp_path / "a")

    assert counter.counts == {}


def test_failing_fsync_still_fails(counter: FsyncCounter) -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            counter.run(os.fsync, write)
    finally:
        os.close(read)
        os.close(write)


def test_exception_of_counted_function_is_raised(counter: FsyncCounter) -> None:
    with pytest.raises(ZeroDivisionError):
        counter.run(divmod, 1, 0)
