"""`todoku key` and `todoku whoami`, with scripted services."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import get_args

import pytest
from scripted import Scripted, Server, answering, problem

from todoku.cli import key
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.whoami import whoami
from todoku.identity import ROLES
from todoku.system import system

ID = "9f86d081884c7d65"
DETAILS = {
    "id": ID,
    "owner": "alice",
    "scopes": ["orders:read"],
    "createdAt": "2026-01-02T03:04:05Z",
    "expiresAt": None,
    "revokedAt": None,
    "lastUsedAt": None,
}
VALID = Scripted(json.dumps(DETAILS).encode())
REVOKED = Scripted(json.dumps(DETAILS | {"revokedAt": "2026-02-02T03:04:05Z"}).encode())
UNKNOWN = problem(404, "unknown-key", "Unknown API key", "There is no such key.")
REFUSED = problem(401, "unauthenticated", "A valid credential is needed", "The key is revoked.")


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """A server for each service, at the address of the settings, whose answers a test sets."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(answering(VALID)) for name in system.names}
        for name, server in found.items():
            monkeypatch.setenv(f"TODOKU_{name.upper()}_PORT", str(server.server_port))
        yield found


def test_created_key_alone_is_printed_to_stdout(
    services: dict[str, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    created = {"id": ID, "key": f"tdk_{ID}_secret", "owner": "alice"}
    services["orders"].answers = [Scripted(json.dumps(created).encode(), status=201)]

    key.create(role=("staff",), scope=("repair",), owner="alice", expires="2030-01-02T03:04:05Z")

    (request, body), *_ = services["orders"].asked
    assert request == "POST /keys"
    assert json.loads(body) == {
        "owner": "alice",
        "scopes": ["staff", "repair"],
        "expiresAt": "2030-01-02T03:04:05Z",
    }
    printed = capsys.readouterr()
    assert printed.out == f"tdk_{ID}_secret\n"
    assert "secret" not in printed.err


def test_key_is_not_created_twice_if_the_answer_is_lost(services: dict[str, Server]) -> None:
    services["orders"].answers = [Scripted(b"{}", status=201, cut_short=True)]

    with pytest.raises(CommandFailed, match="todoku key list") as failed:
        key.create(role=("staff",), owner="alice")

    assert failed.value.exit_code is ExitCode.OUTCOME_UNKNOWN
    assert len(services["orders"].asked) == 1


def test_key_that_permits_nothing_is_not_asked_for(services: dict[str, Server]) -> None:
    with pytest.raises(CommandFailed, match="--role or --scope"):
        key.create(owner="alice")

    assert services["orders"].asked == []


def test_list_shows_owner_state_and_scopes(
    services: dict[str, Server],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    past = DETAILS | {"id": "0" * 16, "expiresAt": "2020-01-02T03:04:05Z"}
    services["orders"].answers = [Scripted(json.dumps({"items": [DETAILS, past]}).encode())]

    key.list_keys()

    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["key", "owner", "created", "last", "used", "state", "scopes"]
    assert first.startswith(ID)
    assert first.split()[-2:] == ["valid", "orders:read"]
    assert "expired 2020-01-02" in second


def test_revoke_waits_until_each_service_refuses_the_key(
    services: dict[str, Server],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key, "LOOK_SECONDS", 0.01)
    services["orders"].answers = [REVOKED]
    services["inventory"].answers = [UNKNOWN, VALID, REVOKED]
    services["shipping"].answers = [REVOKED]

    assert key.revoke(f"tdk_{ID}_secret") is ExitCode.OK

    assert services["orders"].asked[0][0] == f"POST /keys/{ID}/revoke"
    assert [request for request, _ in services["inventory"].asked] == [f"GET /keys/{ID}"] * 3
    assert "it is refused by: orders, inventory, shipping" in capsys.readouterr().err


def test_services_that_do_not_know_of_the_revocation_are_named(
    services: dict[str, Server],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key, "REVOKED_WITHIN_SECONDS", 0)
    services["orders"].answers = [REVOKED]
    services["inventory"].answers = [VALID]
    services["shipping"].answers = [REFUSED]

    assert key.revoke(ID, json=True) is ExitCode.FAILED

    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "id": ID,
        "refusedBy": ["orders"],
        "notReached": ["inventory", "shipping"],
    }
    assert "inventory, shipping" in printed.err


def test_own_key_is_refused_where_it_no_longer_suffices_to_ask(
    services: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TODOKU_KEY", f"tdk_{ID}_secret")
    services["orders"].answers = [REVOKED]
    services["inventory"].answers = services["shipping"].answers = [REFUSED]

    assert key.revoke(ID) is ExitCode.OK


def test_roles_of_the_command_are_those_of_the_services() -> None:
    assert set(get_args(key.Role)) == set(ROLES)


def test_whoami_shows_actor_key_and_scopes(
    services: dict[str, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    caller = {
        "auth": "required",
        "actor": "alice",
        "keyId": ID,
        "scopes": ["orders:read", "repair"],
    }
    services["orders"].answers = [Scripted(json.dumps(caller).encode())]

    whoami()

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [(name, rest.strip()) for name, rest in lines] == [
        ("who", "alice"),
        ("key", ID),
        ("may", "orders:read, repair"),
    ]


def test_whoami_says_so_if_credentials_are_not_looked_at(
    services: dict[str, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    caller: dict[str, object] = {"auth": "none", "actor": None, "keyId": None, "scopes": []}
    services["orders"].answers = [Scripted(json.dumps(caller).encode())]

    whoami()

    assert "auth = none" in capsys.readouterr().out
