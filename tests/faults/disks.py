"""Create small disks that can be filled and lose their power: ext4 on loop devices. Needs root."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
"""Drop what is neither on the disk nor in its journal, as in a power cut. Source: ext4.h."""

FILLER = "filler"
"""The name of the file that fills a disk."""

UNMOUNT_SECONDS_MAX = 20.0
POLL_SECONDS = 0.1

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("losetup"),
    reason="mounts a small disk: needs root on Linux",
)


class Disk:
    """Hold a file system of its own, mounted on `path`."""

    def __init__(self, device: str, path: Path) -> None:
        self.path = path
        self._device = device

    def mount(self) -> None:
        """Mount it."""
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", self._device, str(self.path))

    def unmount(self) -> None:
        """Unmount it; wait for its users, which were killed, to end."""
        deadline = time.monotonic() + UNMOUNT_SECONDS_MAX
        while True:
            try:
                _run("umount", str(self.path))
                return
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def fill(self) -> None:
        """Fill all free space."""
        fill(self.path)

    def free(self) -> None:
        """Free the space again."""
        free(self.path)

    def cut_power(self) -> None:
        """Lose what has not been synced. Every use of the disk fails from now on."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def power_on(self) -> None:
        """Mount it again, as after a power cut; its users must have ended."""
        self.unmount()
        self.mount()


def fill(folder: Path) -> None:
    """Fill all free space of the disk that a folder is on, with a file in it."""
    with (folder / FILLER).open("ab", buffering=0) as filler:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))


def free(folder: Path) -> None:
    """Free the space again."""
    (folder / FILLER).unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Disk]:
    """Create a disk of that size, mounted on `path`; remove it at the end."""
    image = path.with_name(f"{path.name}.img")
    image.parent.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    _run("mkfs.ext4", "-q", str(image))
    device = _run("losetup", "--show", "--find", str(image))
    try:
        disk = Disk(device, path)
        disk.mount()
        try:
            yield disk
        finally:
            # Lazily, if somebody still uses it: the device is freed when they end.
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("umount", "--lazy", str(path))
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
