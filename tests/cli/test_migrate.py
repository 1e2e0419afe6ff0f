"""`todoku migrate` brings databases to this version, tells before it does, and refuses newer ones."""

import os
import sqlite3
from pathlib import Path

import pytest
from calling import Caller

from todoku.cli.exit_codes import ExitCode
from todoku.database import head_revision
from todoku.database.lock import FileLock
from todoku.settings import SERVICES

HEADS = {service: head_revision(f"todoku.{service}") for service in SERVICES}


def set_version(data: Path, service: str, version: str) -> None:
    with sqlite3.connect(data / f"{service}.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()


def test_databases_are_made_and_then_left_alone(todoku_alone: Caller) -> None:
    first = todoku_alone.ok("migrate", "--json").lines
    second = todoku_alone.ok("migrate", "--json").lines

    assert [(step["service"], step["was"], step["needed"]) for step in first] == [
        (service, None, HEADS[service]) for service in SERVICES
    ]
    assert all(step["migrated"] for step in first)
    assert [step["was"] for step in second] == list(HEADS.values())
    assert not any(step["migrated"] for step in second)


def test_check_tells_what_is_to_be_done_and_does_nothing(todoku_alone: Caller) -> None:
    said = todoku_alone("migrate", "--check")

    assert said.code == ExitCode.FAILED
    assert said.out.splitlines() == [
        f"{service:<10} no tables: version {HEADS[service]} is needed" for service in SERVICES
    ]
    assert list(todoku_alone.folder.iterdir()) == []

    todoku_alone.ok("migrate")
    assert todoku_alone.ok("migrate", "--check").out.count(": up to date") == len(SERVICES)


def test_only_the_services_that_are_named_are_brought_up(todoku_alone: Caller) -> None:
    said = todoku_alone.ok("migrate", "shipping")

    assert said.out == f"shipping   no tables → version {HEADS['shipping']}\n"
    assert not (todoku_alone.folder / "todoku-data" / "orders.db").exists()


@pytest.mark.parametrize("words", [("migrate",), ("migrate", "--check")])
def test_a_database_of_a_newer_version_is_refused_with_advice(
    words: tuple[str, ...], todoku_alone: Caller
) -> None:
    todoku_alone.ok("migrate")
    set_version(todoku_alone.folder / "todoku-data", "inventory", "9999")

    said = todoku_alone(*words)

    assert said.code == ExitCode.CANNOT_START
    assert "a newer version was here. Run that version, or restore a backup" in said.err


def test_a_database_in_use_names_the_process_to_stop(todoku_alone: Caller) -> None:
    data = todoku_alone.folder / "todoku-data"
    data.mkdir()
    lock = FileLock(data / "orders.db.lock")
    try:
        said = todoku_alone("migrate")
    finally:
        lock.release()

    assert said.code == ExitCode.IN_USE
    assert f"the orders database is in use by process {os.getpid()} (" in said.err
    assert "Stop that one first" in said.err


def test_a_running_todoku_of_this_version_needs_nothing(todoku: Caller, running_data: Path) -> None:
    said = todoku.ok("migrate", "--data-dir", str(running_data))

    assert said.out.count("up to date") == len(SERVICES)


def test_what_is_no_database_is_explained(todoku_alone: Caller) -> None:
    (todoku_alone.folder / "orders.db").write_text("no database at all, but long enough" * 100)

    said = todoku_alone("migrate", "--data-dir", ".")

    assert said.code == ExitCode.CANNOT_START
    assert said.err.startswith("todoku: orders: ")
    assert "Traceback" not in said.err
