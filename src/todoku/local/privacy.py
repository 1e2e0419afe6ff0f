"""Keeps the data folder private: orders hold personal data, and its files decide what is written where."""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from todoku.local.errors import Unavailable

OTHERS = 0o077


def protect(folder: Path, databases: Sequence[str]) -> None:
    """Restrict the files of this folder to their owner.

    `databases` are the names of the databases without `.db`; other files than those of Todoku are
    left alone. Raises `Unavailable` if other users can write to the folder, and for a symbolic link
    in the place of a file.
    """
    _require_unwritable_for_others(folder)
    for path in _own_files(folder, databases):
        # A running broker deletes files of its own at any time.
        with contextlib.suppress(FileNotFoundError):
            _restrict(path)


def _restrict(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise Unavailable(
            f"{path} is a symbolic link, which could lead to a file elsewhere. Remove it; to keep the"
            " data elsewhere, use --data-dir."
        )
    if status.st_mode & OTHERS and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)


def _own_files(folder: Path, databases: Sequence[str]) -> Iterator[Path]:
    """Yield the files and folders of Todoku in a data folder, each folder before its content."""
    for pattern in ("up.lock", *(f"{name}.db*" for name in databases)):
        yield from folder.glob(pattern)
    for own in (folder / name for name in ("broker", "credentials", "logs", "traces")):
        if own.is_symlink() or own.is_dir():
            yield own
            # Links in the server's own files are found before the server follows them.
            for parent, folders, files in os.walk(own, followlinks=False):
                yield from (Path(parent, name) for name in (*folders, *files))


def _require_unwritable_for_others(folder: Path) -> None:
    status = folder.stat()
    by_group = status.st_mode & stat.S_IWGRP and _has_other_members(status.st_gid)
    if status.st_mode & stat.S_IWOTH or by_group:
        raise Unavailable(
            f"other users can write to the data folder {folder}, so they could replace its files."
            f" Run `chmod go-w {folder}`, or use a new folder in it: --data-dir {folder / 'data'}"
        )


def _has_other_members(group: int) -> bool:
    """Return whether a group has a user besides this one and root."""
    trusted = {os.geteuid(), 0}
    if any(user.pw_gid == group and user.pw_uid not in trusted for user in pwd.getpwall()):
        return True
    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:
        return (
            False  # A group without a name, as volumes of containers have it, has no members here.
        )
    names = {user.pw_name for user in pwd.getpwall() if user.pw_uid in trusted}
    return not names.issuperset(members)
