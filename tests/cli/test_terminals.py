"""Commands in terminals that are not UTF-8, and with standard streams that are closed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from calling import BOUND_SECONDS, Caller
from scripted import Scripted, answering

from todoku.cli.exit_codes import ExitCode

USER = "😀山田"
ORDER = {
    "id": "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e",
    "userId": USER,
    "items": [{"productId": "prod001", "quantity": 2, "price": 5000}],
    "totalAmount": 10_000,
    "currency": "JPY",
    "shippingAddress": "東京都",
    "status": "COMPLETED",
    "reason": None,
    "shipmentId": None,
    "trackingNumber": None,
    "createdAt": "2026-11-22T03:04:05Z",
    "updatedAt": "2026-11-22T03:04:05Z",
}
PAGE = Scripted(json.dumps({"items": [ORDER], "nextCursor": None}).encode())


@pytest.fixture(scope="session")
def sjis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a Japanese terminal that uses Shift JIS."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed, so there is no Shift JIS locale")
    folder = tmp_path_factory.mktemp("locales")
    command = ("localedef", "-f", "SHIFT_JIS", "-i", "ja_JP", str(folder / "ja_JP.SJIS"))
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / "ja_JP.SJIS").is_dir():
        pytest.skip(f"there is no Shift JIS locale: {made.stderr}")
    return {"LOCPATH": str(folder), "LC_ALL": "ja_JP.SJIS"}


def run(
    folder: Path, *words: bytes | str, **variables: str
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "todoku", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=BOUND_SECONDS,
        check=False,
    )


def test_characters_that_the_terminal_lacks_are_escaped(
    sjis: dict[str, str], tmp_path: Path
) -> None:
    with answering(PAGE) as orders:
        ended = run(tmp_path, "order", "list", "--url", orders.url, **sjis)

    assert ended.returncode == ExitCode.OK, ended.stderr
    assert "\\U0001f600山田".encode("shift_jis") in ended.stdout


def test_json_is_utf_8_in_every_terminal(sjis: dict[str, str], tmp_path: Path) -> None:
    with answering(PAGE) as orders:
        ended = run(tmp_path, "order", "list", "--json", "--url", orders.url, **sjis)

    assert ended.returncode == ExitCode.OK, ended.stderr
    assert json.loads(ended.stdout.decode("utf-8"))["userId"] == USER


def test_argument_in_another_encoding_is_rejected(sjis: dict[str, str], tmp_path: Path) -> None:
    in_utf_8_terminal = run(tmp_path, "order", "list", "--user", "山".encode("shift_jis"))
    in_sjis_terminal = run(tmp_path, "order", "list", "--user", "😀", **sjis)

    for ended in (in_utf_8_terminal, in_sjis_terminal):
        assert ended.returncode == ExitCode.USAGE
        assert b"LC_ALL" in ended.stderr
        assert b"Traceback" not in ended.stderr


def test_folder_with_utf_8_name_works_in_every_terminal(
    sjis: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "データ"
    folder.mkdir()

    for words in (("migrate",), ("verify", "--grace-seconds", "0"), ("config", "--json")):
        ended = run(folder, *words, **sjis)
        assert ended.returncode == ExitCode.OK, ended.stderr

    assert (folder / "todoku-data" / "orders.db").is_file()


def test_data_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\x83f\x81[\x83^"
    os.mkdir(folder)

    for words in (("up",), ("run", "orders")):
        ended = run(Path(os.fsdecode(folder)), *words)
        assert ended.returncode == ExitCode.CANNOT_START
        assert b"is not UTF-8" in ended.stderr
        assert b"Traceback" not in ended.stderr


@pytest.fixture
def shell(todoku_alone: Caller) -> Path:
    """A script that runs `todoku` with its arguments, for redirections of a shell."""
    script = todoku_alone.folder / "todoku"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m todoku "$@"\n')
    script.chmod(0o700)
    return script


def in_shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )


def test_error_goes_to_stdout_if_stderr_is_closed(shell: Path) -> None:
    ended = in_shell(f"{shell} up --orders-port x 2>&-", shell.parent)

    assert ended.returncode == ExitCode.USAGE
    assert "orders_port cannot be 'x'" in ended.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_neither_result_nor_files(closed: str, shell: Path) -> None:
    ended = in_shell(f"{shell} migrate --data-dir data {closed}", shell.parent)

    assert ended.returncode == ExitCode.OK
    assert ended.stderr == ""
    assert (shell.parent / "data" / "orders.db").read_bytes().startswith(b"SQLite format 3")
    assert (shell.parent / "data" / "orders.db.lock").read_bytes() == b""


def test_full_device_is_reported(shell: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    ended = in_shell(f"{shell} config >/dev/full", shell.parent)

    assert ended.returncode == ExitCode.FAILED
    assert ended.stderr == "todoku: cannot write the output: No space left on device.\n"


def test_created_files_are_readable_by_their_owner_only(shell: Path) -> None:
    ended = in_shell(f"umask 022; {shell} migrate --data-dir data", shell.parent)

    assert ended.returncode == ExitCode.OK, ended.stderr
    for path in (shell.parent / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
