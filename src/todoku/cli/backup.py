"""`todoku backup`: copies of the databases as they were at one instant."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import Json
from todoku.cli.output import write_object
from todoku.settings import SERVICES, ServiceName, Settings

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
"""The sums in the form that `sha256sum --check` reads."""


class Copy(msgspec.Struct, frozen=True):
    """A database in a backup: the version of its tables, and how to know that it is unharmed."""

    file: str
    revision: str | None
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup holds. All databases are as they were at one instant, just before `taken_at`."""

    taken_at: datetime
    todoku_version: str
    databases: dict[ServiceName, Copy]


class Backup(msgspec.Struct, frozen=True, rename="camel"):
    """A backup that was made, and where it is."""

    folder: str
    manifest: Manifest


def backup(destination: Path, *, json: Json = False, flags: Flags = None) -> ExitCode:
    """Copy the databases as they were at one instant, while everything runs.

    The copies go into a new folder under the destination, named by the time,
    together with a manifest and SHA256SUMS. The folder appears when it is
    complete and on the disk. docs/how-to/backup-and-restore.md says how to
    restore one, and what is lost by that.

    For example:

        todoku backup /var/backups/todoku
        todoku backup /mnt/backup --data-dir /var/lib/todoku --json

    Parameters
    ----------
    destination
        The folder that holds the backups; it is made if it is not there.
    """
    settings = settings_from(flags).settings
    sources = {service: _file(service, settings) for service in SERVICES}
    made = _make(destination.absolute(), sources)
    if json:
        write_object(msgspec.json.encode(made))
    else:
        print(_as_text(made))
    return ExitCode.OK


def _file(service: ServiceName, settings: Settings) -> Path:
    """The file of a service's database. Raises `CommandFailed` where it is not a file."""
    from todoku.cli.databases import file_of

    file = file_of(settings.database(service))
    if file is None:
        raise CommandFailed(
            f"the {service} database is on a PostgreSQL server. Back it up there, for instance with"
            " pg_dump or continuous archiving.",
            exit_code=ExitCode.USAGE,
        )
    return file


def _make(destination: Path, sources: dict[ServiceName, Path]) -> Backup:
    from todoku.database import DatabaseError, back_up

    try:
        with _appearing_complete(destination) as (folder, final):
            back_up({file: folder / f"{name}.db" for name, file in sources.items()})
            manifest = _manifest(folder)
            (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            (folder / SUMS).write_text(
                "".join(f"{copy.sha256}  {copy.file}\n" for copy in manifest.databases.values())
            )
        return Backup(str(final), manifest)
    except DatabaseError as error:
        raise CommandFailed(f"no backup was made. {error}") from error
    except OSError as error:
        raise CommandFailed(f"no backup was made in {destination}: {error.strerror}.") from error


def _manifest(folder: Path) -> Manifest:
    from todoku import __version__

    return Manifest(
        datetime.now(UTC),
        __version__,
        {service: _describe(folder / f"{service}.db") for service in SERVICES},
    )


def _describe(file: Path) -> Copy:
    from todoku.database import Database, current_revision

    with Database.open_read_only(file) as database:
        revision = current_revision(database)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Copy(file.name, revision, file.stat().st_size, sha256)


@contextmanager
def _appearing_complete(destination: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to fill, and the one that it becomes once it is filled and on the disk."""
    # Orders name people: backups too are for their owner only.
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


def _as_text(made: Backup) -> str:
    lines = [
        f"{service:<10} {copy.bytes:>15,} bytes, version {copy.revision}"
        for service, copy in made.manifest.databases.items()
    ]
    return "\n".join([*lines, f"backed up to {made.folder}"])
