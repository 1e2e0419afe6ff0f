"""Upgrade a service's tables from one version to the next.

A service has its migrations in its folder `migrations`, one file each, such as
`0001_first_tables.py`, with a function `upgrade()` that uses Alembic's operations. They are applied
by number; the number in a file's name is the version that it leads to, and stands nowhere else, so
that two branches which each add a migration can be merged. There is no alembic.ini and no env.py:
this module drives Alembic.

SQLite alters a column by rebuilding its table, so use `op.batch_alter_table`: it keeps what the
table is (STRICT, WITHOUT ROWID, named CHECKs) and alters in place on PostgreSQL.
"""

import importlib.resources
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Inspector,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
    update,
)

from todoku.database.database import Database
from todoku.database.errors import DatabaseUnsuitable, NotPermitted, SchemaMismatch

VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Keeps the version of the tables, in one row, in the table that Alembic itself would use."""

MIGRATION_FILES = "[0-9][0-9][0-9][0-9]_*.py"


def migrate(database: Database, service_package: str) -> None:
    """Upgrade the tables to the version of this program, if they are older.

    Processes that start together take turns, and all steps are committed together or none is.
    Raises `SchemaMismatch` if the tables have a newer version.
    """
    head = head_revision(service_package)
    if current_revision(database) == head:
        return  # importing Alembic takes 0.3 s: only where needed
    try:
        with database.schema_change() as connection:
            current = _current_revision(connection)  # another process may have been faster
            _refuse_newer(database, current, service_package)
            if current != head:
                _upgrade(connection, current, service_package)
    except NotPermitted as error:
        raise NotPermitted(
            f"The role of {database.name} may not change the tables ({error}): run `todoku migrate` with the"
            " address of their owner, then start the service."
        ) from error


def require_current(database: Database, service_package: str) -> None:
    """Raise `SchemaMismatch` unless the tables have this program's version."""
    current, head = current_revision(database), head_revision(service_package)
    _refuse_newer(database, current, service_package)
    if current != head:
        raise SchemaMismatch(
            f"{database.name} is at version {current or 'none'} of its tables and this program "
            f"needs {head}: start this version of the service on it once, which brings it there."
        )


def require_tables(database: Database, metadata: MetaData) -> None:
    """Raise `SchemaMismatch` unless every table of `metadata` exists: the engine has got a new one, for
    which the service has no migration yet. Raise `DatabaseUnsuitable` if one does not survive a crash."""
    with database.read() as connection:
        there = inspect(connection).get_table_names()
    missing = sorted(metadata.tables.keys() - set(there))
    if missing:
        raise SchemaMismatch(
            f"{database.name} lacks the tables {', '.join(missing)}: add a migration that creates them; "
            "todoku.engine.revisions.create_engine_tables() creates those of the engine."
        )
    if unlogged := sorted(metadata.tables.keys() & database.unlogged_tables()):
        raise DatabaseUnsuitable(
            f"PostgreSQL empties the tables {', '.join(unlogged)} of {database.name} after a crash, because"
            f" they are UNLOGGED: run {'; '.join(f'ALTER TABLE {name} SET LOGGED' for name in unlogged)}."
        )


def current_revision(database: Database) -> str | None:
    """Return the version of the tables; None where there are none yet."""
    with database.read() as connection:
        return _current_revision(connection)


def head_revision(service_package: str) -> str:
    """Return the version of the tables that this program needs."""
    return max(_files(service_package))


def schema_differences(database: Database, metadata: MetaData) -> list[str]:
    """Return the differences between the existing tables and those that `metadata` describes.

    Compares tables, columns, indexes, keys, the names of CHECKs, and STRICT and WITHOUT ROWID.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with database.read() as connection:
        there = inspect(connection)
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        return [repr(difference) for difference in differences] + [
            difference
            for declared in metadata.sorted_tables
            if there.has_table(declared.name)
            for difference in _unnoticed_by_alembic(declared, there)
        ]


def _unnoticed_by_alembic(declared: Table, there: Inspector) -> Iterator[str]:
    name = declared.name
    wanted = {str(c.name) for c in declared.constraints if isinstance(c, CheckConstraint)}
    found = {str(check["name"]) for check in there.get_check_constraints(name)}
    if wanted != found:
        yield f"{name}: CHECKs {sorted(found)} instead of {sorted(wanted)}"
    if there.dialect.name == "sqlite":
        options = there.get_table_options(name)
        for option, usual in (("sqlite_strict", False), ("sqlite_with_rowid", True)):
            if options.get(option, usual) != declared.kwargs.get(option, usual):
                yield f"{name}: {option} is {options.get(option, usual)}"


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION.name):
        return None
    return connection.scalar(select(VERSION.c.version_num))


def _files(service_package: str) -> dict[str, Path]:
    """Return the migrations of a service by their number, the first one first."""
    folder = Path(str(importlib.resources.files(service_package))) / "migrations"
    files: dict[str, Path] = {}
    for file in sorted(folder.glob(MIGRATION_FILES)):
        if other := files.get(file.name[:4]):
            raise ValueError(
                f"Two migrations in {folder} have one number: {other.name} and {file.name}. Give the "
                "one that was not released yet the next number."
            )
        files[file.name[:4]] = file
    return files


def _refuse_newer(database: Database, current: str | None, service_package: str) -> None:
    if current is not None and current not in _files(service_package):
        raise SchemaMismatch(
            f"{database.name} is at version {current} of its tables and this program knows them "
            f"up to {head_revision(service_package)}: a newer version was here. Run that version, "
            "or restore a backup from before."
        )


def _upgrade(connection: Connection, current: str | None, service_package: str) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    files = _files(service_package)
    with Operations.context(MigrationContext.configure(connection)):
        for number, file in files.items():
            if current is None or number > current:
                _load(file).upgrade()
    _note_version(connection, max(files))


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    return migration


def _note_version(connection: Connection, number: str) -> None:
    VERSION.create(connection, checkfirst=True)
    if not connection.execute(update(VERSION).values(version_num=number)).rowcount:
        connection.execute(insert(VERSION).values(version_num=number))
