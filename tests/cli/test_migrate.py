"""`todoku migrate` migrates databases, checks them first, and refuses newer ones."""

import os
import sqlite3
from pathlib import Path

import pytest
from calling import Caller

from todoku.cli.exit_codes import ExitCode
from todoku.database import head_revision
from todoku.database.lock import FileLock
from todoku.system import system

HEADS = {service.name: head_revision(service.package) for service in system}


def set_version(data: Path, service: str, version: str) -> None:
    with sqlite3.connect(data / f"{service}.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()


def test_databases_are_created_once(todoku_alone: Caller) -> None:
    first = todoku_alone.ok("migrate", "--json").lines
    second = todoku_alone.ok("migrate", "--json").lines

    assert [(step["service"], step["was"], step["needed"]) for step in first] == [
        (service, None, HEADS[service]) for service in system.names
    ]
    assert all(step["migrated"] for step in first)
    assert [step["was"] for step in second] == list(HEADS.values())
    assert not any(step["migrated"] for step in second)


def test_check_reports_pending_migrations_and_changes_nothing(todoku_alone: Caller) -> None:
    result = todoku_alone("migrate", "--check")

    assert result.code == ExitCode.FAILED
    assert result.out.splitlines() == [
        f"{service:<10} no tables: version {HEADS[service]} is needed" for service in system.names
    ]
    assert list(todoku_alone.folder.iterdir()) == []

    todoku_alone.ok("migrate")
    assert todoku_alone.ok("migrate", "--check").out.count(": up to date") == len(system.names)


def test_only_named_services_are_migrated(todoku_alone: Caller) -> None:
    result = todoku_alone.ok("migrate", "shipping")

    assert result.out == f"shipping   no tables → version {HEADS['shipping']}\n"
    assert not (todoku_alone.folder / "todoku-data" / "orders.db").exists()


@pytest.mark.parametrize("words", [("migrate",), ("migrate", "--check")])
def test_newer_database_is_refused_with_advice(
    words: tuple[str, ...], todoku_alone: Caller
) -> None:
    todoku_alone.ok("migrate")
    set_version(todoku_alone.folder / "todoku-data", "inventory", "9999")

    result = todoku_alone(*words)

    assert result.code == ExitCode.CANNOT_START
    assert "a newer version was here. Run that version, or restore a backup" in result.err


def test_database_in_use_names_process_to_stop(todoku_alone: Caller) -> None:
    data = todoku_alone.folder / "todoku-data"
    data.mkdir()
    lock = FileLock(data / "orders.db.lock")
    try:
        result = todoku_alone("migrate")
    finally:
        lock.release()

    assert result.code == ExitCode.IN_USE
    assert f"the orders database is in use by process {os.getpid()} (" in result.err
    assert "Stop that process first" in result.err


def test_running_system_of_this_version_needs_no_migration(
    todoku: Caller, running_data: Path
) -> None:
    result = todoku.ok("migrate", "--data-dir", str(running_data))

    assert result.out.count("up to date") == len(system.names)


def test_file_that_is_no_database_is_explained(todoku_alone: Caller) -> None:
    (todoku_alone.folder / "orders.db").write_text("no database at all, but long enough" * 100)

    result = todoku_alone("migrate", "--data-dir", ".")

    assert result.code == ExitCode.CANNOT_START
    assert result.err.startswith("todoku: orders: ")
    assert "Traceback" not in result.err
