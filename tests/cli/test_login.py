"""`todoku login` and `todoku logout`: what is kept, for whom, and what comes before it."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import Scripted, Server, answering, problem

from todoku.cli.client import ServiceClient
from todoku.cli.credential import credential, find_credential, how_to_get_in
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.login import login, logout
from todoku.cli.whoami import whoami

KEY = "tdk_9f86d081884c7d65_secret"
ALICE = {"auth": "required", "actor": "alice", "keyId": "9f86d081884c7d65", "scopes": ["repair"]}
VALID = Scripted(json.dumps(ALICE).encode())
NOBODY = Scripted(json.dumps(ALICE | {"auth": "none", "actor": None}).encode())
REFUSED = problem(401, "unauthenticated", "A valid credential is needed", "The key is revoked.")

Type = Callable[[str], None]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the credential is kept."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "todoku" / "key"


@pytest.fixture
def orders(kept: Path) -> Iterator[Server]:
    with answering(VALID) as server:
        yield server


@pytest.fixture
def type_key(monkeypatch: pytest.MonkeyPatch) -> Type:
    """Pipes a text into the command."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_key_is_kept_for_its_user_alone_and_sent_until_logout(
    orders: Server, kept: Path, type_key: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    type_key(f"{KEY}\n")
    login(url=orders.url)
    assert kept.read_text() == f"{KEY}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert list(kept.parent.iterdir()) == [kept]
    assert credential() == KEY
    whoami(url=orders.url)
    printed = capsys.readouterr().out
    assert f"You are alice. The credential is kept in {kept}." in printed
    assert f"{kept}(todokulogin)" in "".join(printed.split())
    assert KEY not in printed
    logout()
    logout()
    assert not kept.exists()
    assert credential() is None
    printed = capsys.readouterr().out
    assert printed == f"{kept} is deleted.\nNo credential is kept.\n"


def test_it_is_typed_at_a_prompt_that_does_not_show_it(
    orders: Server, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = os.openpty()
    with open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr("getpass.getpass", lambda _: KEY)
        login(url=orders.url)
    os.close(controller)
    assert kept.read_text() == f"{KEY}\n"


def test_key_that_is_not_valid_or_not_needed_is_not_kept(
    orders: Server, kept: Path, type_key: Type
) -> None:
    for answer, text in ((REFUSED, "The key is revoked"), (NOBODY, "auth = none")):
        orders.answers = [answer]
        type_key(KEY)
        with pytest.raises(CommandFailed, match=text) as failed:
            login(url=orders.url)
        assert failed.value.exit_code is ExitCode.REFUSED
    for typed in ("", "two words", "ключ", "x" * 20_000):
        type_key(typed)
        with pytest.raises(CommandFailed, match="has no credential, as it is "):
            login(url=orders.url)
    assert not kept.exists()


def test_variables_come_before_the_file(
    orders: Server,
    kept: Path,
    type_key: Type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mounted").write_text("tdk_c_d\n")
    monkeypatch.setenv("TODOKU_KEY_FILE", str(tmp_path / "mounted"))
    type_key(KEY)
    login(url=orders.url)
    assert "TODOKU_KEY_FILE is set, and comes before it" in capsys.readouterr().err
    assert credential() == "tdk_c_d"
    whoami(json=True, url=orders.url)
    shown = json.loads(capsys.readouterr().out)
    assert shown["credentialSource"] == f"{tmp_path / 'mounted'} (TODOKU_KEY_FILE)"


def test_reason_of_a_refusal_is_printed_though_the_kept_file_is_unusable(
    orders: Server, kept: Path, type_key: Type
) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("tdk_old")
    kept.chmod(0o644)
    orders.answers = [REFUSED]
    type_key("tdk_wrong")
    with pytest.raises(
        CommandFailed, match=r"The key is revoked\.(.|\n)*That was the one you gave"
    ):
        login(url=orders.url)


def test_interrupted_prompt_ends_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    controller, terminal = os.openpty()
    with open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr("getpass.getpass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            login()
    os.close(controller)
    assert capsys.readouterr().err == "\n"


def test_file_that_others_can_read_is_not_used(kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text(KEY)
    kept.chmod(0o640)
    with pytest.raises(CommandFailed, match="chmod 600"):
        find_credential()


def test_refused_command_says_where_its_credential_comes_from_and_how_to_give_another(
    orders: Server, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.answers = [REFUSED]
    with pytest.raises(CommandFailed) as failed:
        ServiceClient("orders", orders.url).get("/orders")
    last = str(failed.value).splitlines()[-1]
    for named in ("No credential was sent", "`todoku login`", "TODOKU_KEY,", "TODOKU_KEY_FILE"):
        assert named in last
    monkeypatch.setenv("TODOKU_KEY", KEY)
    assert "the variable TODOKU_KEY" in how_to_get_in(KEY)
    assert KEY not in how_to_get_in(KEY)
    assert "unset TODOKU_KEY and run `todoku login`" in how_to_get_in(KEY)
    assert "That was the one you gave" in how_to_get_in("tdk_other")
