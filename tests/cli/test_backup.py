"""`todoku backup`, on real databases."""

import hashlib
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from todoku.cli.backup import backup
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.database import Database, back_up, migrate
from todoku.database.backup import version
from todoku.system import system

TRANSFERS = 300
BYSTANDERS = 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the databases of all services."""
    folder = tmp_path / "data"
    for service in system.names:
        with Database.open(folder / f"{service}.db") as database:
            migrate(database, system[service].package)
    return folder


def made_in(folder: Path) -> Path:
    """The one backup that is there."""
    (found,) = folder.iterdir()
    return found


def test_backup_is_complete_with_manifest_and_checksums(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while the services have their databases open."""
    with ExitStack() as stack:
        for service in system.names:
            stack.enter_context(Database.open(data / f"{service}.db"))
        assert backup(tmp_path / "a" / "b", json=True, flags={"data_dir": data}) is ExitCode.OK

    folder = made_in(tmp_path / "a" / "b")
    printed = msgspec.json.decode(capsys.readouterr().out)
    assert printed["folder"] == str(folder)
    assert msgspec.json.decode((folder / "manifest.json").read_bytes()) == printed["manifest"]
    assert {file.name for file in folder.iterdir()} == {
        "SHA256SUMS",
        "manifest.json",
        *(f"{service}.db" for service in system.names),
    }
    for service in system.names:
        copy = (folder / f"{service}.db").read_bytes()
        described = printed["manifest"]["databases"][service]
        assert described["sha256"] == hashlib.sha256(copy).hexdigest()
        assert described["bytes"] == len(copy)
        assert described["revision"] is not None
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=False)
    assert checked.returncode == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_copies_say_that_they_are_copies_and_the_databases_do_not(
    data: Path, tmp_path: Path
) -> None:
    backup(tmp_path / "there", flags={"data_dir": data})

    copies = made_in(tmp_path / "there")
    for service in system.names:
        for folder, marks in ((data, []), (copies, [("recovery", 0)])):
            connection = sqlite3.connect(folder / f"{service}.db")
            assert connection.execute("SELECT * FROM stream_positions").fetchall() == marks
            connection.close()


def test_copies_are_paused_and_the_databases_are_not(data: Path, tmp_path: Path) -> None:
    backup(tmp_path / "there", flags={"data_dir": data})

    copies = made_in(tmp_path / "there")
    for service in system.names:
        for folder, pauses in ((data, []), (copies, [("service", "todoku backup", None)])):
            connection = sqlite3.connect(folder / f"{service}.db")
            found = connection.execute("SELECT target, paused_by, resumed_at FROM pauses")
            assert found.fetchall() == pauses
            connection.close()


def test_folder_of_backup_is_printed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup(tmp_path / "there", flags={"data_dir": data})

    assert str(made_in(tmp_path / "there")) in capsys.readouterr().out


def test_failed_backup_leaves_no_files(data: Path, tmp_path: Path) -> None:
    with (data / "shipping.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)

    with pytest.raises(CommandFailed, match="backup failed"):
        backup(tmp_path / "there", flags={"data_dir": data})

    assert not list((tmp_path / "there").iterdir())


def test_database_in_a_read_only_folder_changes_as_its_file_does(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There SQLite takes each look for a change: it must not be asked."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    not_asked = sqlite3.connect(":memory:")
    not_asked.close()
    before = version(data / "orders.db", not_asked)
    assert version(data / "orders.db", not_asked) == before
    with (data / "orders.db").open("ab") as file:
        file.write(bytes(4096))
    assert version(data / "orders.db", not_asked) != before


def test_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"There is no database at .*orders\.db"):
        backup(tmp_path / "there", flags={"data_dir": tmp_path / "nothing"})


def test_unwritable_destination_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CommandFailed, match=r"cannot write a backup to .*file"):
        backup(tmp_path / "file", flags={"data_dir": data})


def test_postgresql_is_referred_to_its_own_tools(data: Path, tmp_path: Path) -> None:
    flags = {"data_dir": data, "orders_database_url": "postgresql://db.example/orders"}

    with pytest.raises(CommandFailed, match="pg_dump") as raised:
        backup(tmp_path / "there", flags=flags)

    assert raised.value.exit_code is ExitCode.USAGE


@pytest.fixture
def purses(tmp_path: Path) -> Iterator[list[Database]]:
    """Databases of one row each; what the first pays the last has got a moment later. Those in
    between take time to begin with."""
    with ExitStack() as stack:
        opened = []
        for name in ("payer", *map(str, range(BYSTANDERS)), "payee"):
            database = stack.enter_context(Database.open(tmp_path / f"{name}.db"))
            with database.transaction() as connection:
                connection.execute(text("CREATE TABLE purse (total INTEGER)"))
                connection.execute(text("INSERT INTO purse VALUES (0)"))
            opened.append(database)
        yield opened


def test_all_copies_are_of_one_instant(purses: list[Database], tmp_path: Path) -> None:
    """What one database has got from another, that one has given in the same backup."""
    ended = threading.Event()

    def pay() -> None:
        for _ in range(TRANSFERS):
            for database in (purses[0], purses[-1]):
                with database.transaction() as connection:
                    connection.execute(text("UPDATE purse SET total = total + 1"))
        ended.set()

    paying = threading.Thread(target=pay)
    paying.start()
    owed = set()
    while not ended.is_set():
        # The payee first: taken one after the other, its copy would be older than the payer's.
        copies = {Path(purse.name): Path(f"{purse.name}.copy") for purse in reversed(purses)}
        back_up(copies)
        payee, *_, payer = map(total_in, copies.values())
        owed.add(payer - payee)
    paying.join()
    assert owed <= {0, 1}


def total_in(file: Path) -> int:
    """What is in the purse."""
    connection = sqlite3.connect(file)
    (total,) = connection.execute("SELECT total FROM purse").fetchone()
    connection.close()
    return int(total)
