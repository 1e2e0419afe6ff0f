"""`todoku backup`: copy all databases as of one instant."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_of_running
from todoku.cli.options import Folder, Json
from todoku.cli.output import write_object
from todoku.cli.streams import to_json
from todoku.settings import Settings
from todoku.system import load_system

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
"""Checksums in the format of `sha256sum --check`."""


class DatabaseCopy(msgspec.Struct, frozen=True):
    """A database in a backup: its schema version, size and checksum."""

    file: str
    revision: str | None
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """The contents of a backup. All databases are as of one instant, just before `taken_at`."""

    taken_at: datetime
    todoku_version: str
    databases: dict[str, DatabaseCopy]


class Backup(msgspec.Struct, frozen=True, rename="camel"):
    """A backup and its folder."""

    folder: str
    manifest: Manifest


def backup(destination: Folder, *, json: Json = False, flags: Flags = None) -> ExitCode:
    """Copy all databases as of one instant, while the services run.

    Creates a folder under the destination, named by the time, with the copies, a
    manifest and SHA256SUMS. The folder appears once it is complete and synced to
    disk. If `todoku up` runs on the data folder, its settings are used. A system
    that is started on the copies is paused until `todoku resume`, so that nothing
    is sent twice. docs/how-to/backup-and-restore.md describes how to restore a
    backup, and what is lost by that.

    For example:

        todoku backup /var/backups/todoku
        todoku backup /mnt/backup --data-dir /var/lib/todoku --json

    Parameters
    ----------
    destination
        The folder for backups; it is created if it does not exist.
    """
    settings = settings_of_running(flags)[0].settings
    sources = {service: _file(service, settings) for service in load_system(settings).names}
    result = _make(destination.absolute(), sources)
    if json:
        write_object(to_json(result))
    else:
        print(_as_text(result))
    return ExitCode.OK


def _file(service: str, settings: Settings) -> Path:
    """Return the file of a service's database. Raises `CommandFailed` for PostgreSQL."""
    from todoku.cli.databases import file_of

    file = file_of(settings.database(service))
    if file is None:
        raise CommandFailed(
            f"the {service} database is on a PostgreSQL server. Back it up there, for example"
            " with pg_dump or continuous archiving.",
            exit_code=ExitCode.USAGE,
        )
    return file


def _make(destination: Path, sources: dict[str, Path]) -> Backup:
    from todoku.database import DatabaseError, back_up
    from todoku.engine.copies import mark_copy

    try:
        with _complete_or_absent(destination) as (folder, final):
            copies = {file: folder / f"{name}.db" for name, file in sources.items()}
            back_up(copies, mark=partial(mark_copy, now=datetime.now(UTC)))
            manifest = _manifest(folder, sources)
            (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            (folder / SUMS).write_text(
                "".join(f"{copy.sha256}  {copy.file}\n" for copy in manifest.databases.values())
            )
        return Backup(str(final), manifest)
    except DatabaseError as error:
        raise CommandFailed(f"backup failed. {error}") from error
    except OSError as error:
        raise CommandFailed(f"cannot write a backup to {destination}: {error.strerror}.") from error


def _manifest(folder: Path, services: Iterable[str]) -> Manifest:
    from todoku import __version__

    return Manifest(
        datetime.now(UTC),
        __version__,
        {service: _describe(folder / f"{service}.db") for service in services},
    )


def _describe(file: Path) -> DatabaseCopy:
    from todoku.database import Database, current_revision

    with Database.open_read_only(file) as database:
        revision = current_revision(database)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return DatabaseCopy(file.name, revision, file.stat().st_size, sha256)


@contextmanager
def _complete_or_absent(destination: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder and its final path; sync and rename it afterwards."""
    # Orders hold personal data: only the owner may read backups.
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"
    folder, final = destination / f".{name}.partial", destination / name
    folder.mkdir(mode=0o700)
    try:
        yield folder, final
        for path in (*folder.iterdir(), folder):
            _sync(path)
        folder.rename(final)
        _sync(destination)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_text(result: Backup) -> str:
    lines = [
        f"{service:<10} {copy.bytes:>15,} bytes, version {copy.revision}"
        for service, copy in result.manifest.databases.items()
    ]
    return "\n".join([*lines, f"backed up to {result.folder}"])
