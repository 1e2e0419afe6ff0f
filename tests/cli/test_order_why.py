"""`todoku order why` with a running system, and beside one."""

import shlex
from collections.abc import Callable
from pathlib import Path

from calling import Caller

from end_to_end.running import Up
from todoku.cli.exit_codes import ExitCode

PROGRAMS = ("orders", "inventory", "shipping", "nats")
UNKNOWN = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"


def held(todoku: Caller) -> str:
    """Place an order that is held, and return its id."""
    body = (
        '{"userId": "alice", "items": [{"productId": "plenty", "quantity": 1}],'
        ' "holds": [{"holder": "fraud", "reason": "New card."}]}'
    )
    order_id: str = todoku.ok("order", "place", "--from", "-", "--json", stdin=body).object["id"]
    return order_id


def test_order_that_has_ended_waits_for_nothing(todoku: Caller) -> None:
    placed = todoku("order", "place", "--user", "alice", "plenty", "--watch", "--json")
    order_id = placed.lines[0]["data"]["orderId"]
    found = todoku.ok("order", "why", order_id, "--json").object
    assert [cause["code"] for cause in found["causes"]] == ["ended"]


def test_held_order_is_explained_with_the_command_that_releases_it(todoku: Caller) -> None:
    order_id = held(todoku)
    found = todoku.ok("order", "why", order_id).out
    assert "fraud holds it since" in found
    (release,) = [line for line in found.splitlines() if "todoku order release" in line]
    todoku.ok(*release.partition("#")[0].split()[1:])


def test_printed_command_finds_the_system_that_the_order_is_in(
    todoku: Caller, todoku_alone: Caller, running_data: Path
) -> None:
    """Its ports were given to `up` in another shell, and its data folder to this command only."""
    order_id = held(todoku)
    found = todoku_alone.ok("order", "why", order_id, "--data-dir", str(running_data)).out
    (release,) = [line for line in found.splitlines() if "todoku order release" in line]
    folder, _, *words = shlex.split(release, comments=True)
    assert folder == f"TODOKU_DATA_DIR={running_data}"
    released = todoku_alone(*words, TODOKU_DATA_DIR=str(running_data))
    assert released.code == ExitCode.OK, released


def test_unknown_order_is_said_to_be_unknown(todoku: Caller) -> None:
    assert todoku("order", "why", UNKNOWN).code == ExitCode.NOT_FOUND


def test_order_is_read_from_the_database_where_the_service_does_not_answer(
    todoku: Caller,
    running: Up,
    running_data: Path,
    free_ports: Callable[[int], list[int]],
) -> None:
    order_id = held(todoku)
    (port,) = free_ports(1)
    flags = ("--orders-port", str(port), "--data-dir", str(running_data))
    found = todoku.ok("order", "why", order_id, "--json", *flags).object
    assert found["orderId"] == order_id
    codes = [cause["code"] for cause in found["causes"]]
    assert codes[0] == "service-does-not-answer"
    assert "as-stored" in codes
    assert f"nothing listens at http://127.0.0.1:{port}" in found["causes"][0]["text"]


def test_without_service_and_database_the_order_is_unreachable(
    todoku_alone: Caller, free_ports: Callable[[int], list[int]]
) -> None:
    ports = [str(port) for port in free_ports(4)]
    flags = [f"--{name}-port={port}" for name, port in zip(PROGRAMS, ports, strict=True)]
    result = todoku_alone("order", "why", UNKNOWN, *flags)
    assert result.code == ExitCode.UNREACHABLE
    assert "because the orders service does not work: nothing listens at http://" in result.err
    assert "→ start it with `todoku up`" in result.err
