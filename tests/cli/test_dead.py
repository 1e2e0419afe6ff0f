"""`todoku dead` with a running system and invalid messages in its stream."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from calling import Caller, CommandResult
from scripted import Scripted, answering

from broker_access import connect_as_operator
from todoku.cli.exit_codes import ExitCode
from todoku.contracts import OrderCreatedEvent, OrderedItem, encode, seal

BOUND_SECONDS = 60.0
UNKNOWN = "0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e"

Publish = Callable[[str, bytes], None]


@pytest.fixture
def publish(settings_of_running: Mapping[str, str], running_data: Path) -> Publish:
    """Publishes a message directly to the stream."""

    async def send(subject: str, body: bytes) -> None:
        port = settings_of_running["TODOKU_NATS_PORT"]
        async with await connect_as_operator(port, running_data) as connection:
            await connection.jetstream().publish(subject, body)

    return lambda subject, body: asyncio.run(send(subject, body))


def until(look: Callable[[], Any]) -> Any:
    """Poll `look` until it returns something."""
    ends = time.monotonic() + BOUND_SECONDS
    while not (found := look()):
        assert time.monotonic() < ends, "in vain"
        time.sleep(0.1)
    return found


@pytest.fixture
def garbage(todoku: Caller, publish: Publish) -> Iterator[str]:
    """The id of a dead letter at inventory whose body is not an event."""
    before = {letter["id"] for letter in listed(todoku)}
    publish("orders.created", b"\xff " + uuid.uuid4().hex.encode())
    found = until(lambda: [one for one in listed(todoku) if one["id"] not in before])
    letter_id: str = found[0]["id"]
    yield letter_id
    todoku("dead", "discard", letter_id, "--reason", "the test is over")


@pytest.fixture
def undecodable(todoku: Caller, publish: Publish) -> tuple[OrderCreatedEvent, str]:
    """An order's event without items, and its dead letter at inventory."""
    placed = todoku.ok("order", "place", "--user", "alice", "none:1@5", "--json").object
    event = OrderCreatedEvent(
        order_id=str(uuid.uuid4()),
        user_id="alice",
        items=(OrderedItem(product_id="plenty", quantity=1, price=5),),
        total_amount=5,
    )
    assert placed["id"] != event.order_id
    body = encode(seal(event, datetime.now(UTC))).replace(b'"items"', b'"stuff"')
    publish("orders.created", body)
    found = until(lambda: todoku("dead", "list", "--order", event.order_id, "--json").lines)
    return event, found[0]["id"]


def listed(todoku: Caller, *words: str) -> list[Any]:
    return todoku.ok("dead", "list", "--service", "inventory", *words, "--json").lines


def test_letters_are_grouped_by_error_and_shown_in_full(todoku: Caller, garbage: str) -> None:
    (letter,) = (one for one in listed(todoku) if one["id"] == garbage)
    assert (letter["service"], letter["state"]) == ("inventory", "PARKED")
    rows = todoku("dead", "list", COLUMNS="200").out.splitlines()
    header = next(row for row in rows if letter["group"] in row)
    assert header.startswith(f"inventory {letter['group']} UndecodableEvent: ")
    assert any(row.split()[:2] == [garbage, "undecodable"] for row in rows)
    shown = todoku.ok("dead", "show", garbage).out
    assert "b'\\xff" in shown
    assert "Traceback" in shown
    details = todoku.ok("dead", "show", garbage, "--json").object
    assert (details["body"], details["subject"]) == (None, "orders.created")


def test_letters_are_grouped_by_order(
    todoku: Caller, undecodable: tuple[OrderCreatedEvent, str]
) -> None:
    event, letter_id = undecodable
    out = todoku.ok("dead", "list", "--by", "order").out.splitlines()
    at = out.index(f"inventory {event.order_id}")
    assert any(letter_id in row for row in out[at:])
    assert "alice" not in "\n".join(out)


def test_failed_retry_gives_error_and_next_command(todoku: Caller, garbage: str) -> None:
    result = todoku("dead", "retry", garbage, "--by", "bob")
    assert result.code == ExitCode.FAILED
    assert "UndecodableEvent" in result.err
    history = todoku.ok("dead", "show", garbage, "--json").object["history"]
    assert [attempt["askedBy"] for attempt in history] == [None, "bob"]


def test_correction_from_stdin_is_processed_and_saga_continues(
    todoku: Caller, undecodable: tuple[OrderCreatedEvent, str]
) -> None:
    event, letter_id = undecodable
    correction = msgspec.json.encode(event).decode()
    result = todoku("dead", "edit", letter_id, "--file", "-", "--json", stdin=correction)
    assert result.code == ExitCode.OK, result
    successor = result.object
    assert (successor["state"], successor["replaces"]) == ("RETRIED", letter_id)
    assert todoku.ok("dead", "show", letter_id, "--json").object["state"] == "EDITED"
    until(lambda: todoku("shipment", "list", "--order", event.order_id, "--json").lines)


def test_correction_is_made_in_editor(
    todoku: Caller, undecodable: tuple[OrderCreatedEvent, str], tmp_path: Path
) -> None:
    _, letter_id = undecodable
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\nsed -i s/stuff/items/ "$1"\n')
    editor.chmod(0o700)
    result = todoku("dead", "edit", letter_id, EDITOR=f"'{editor}'")
    assert result.code == ExitCode.OK, result
    assert "processed as " in result.err


def test_unedited_correction_changes_nothing(
    todoku: Caller, undecodable: tuple[OrderCreatedEvent, str]
) -> None:
    _, letter_id = undecodable
    result = todoku("dead", "edit", letter_id, EDITOR="true")
    assert result.code == ExitCode.FAILED
    assert "the data was not edited" in result.err
    assert todoku("dead", "edit", letter_id, EDITOR="false").code == ExitCode.FAILED
    assert todoku.ok("dead", "show", letter_id, "--json").object["state"] == "PARKED"


@pytest.mark.parametrize(("correction", "code"), [("{", ExitCode.USAGE), ("{}", ExitCode.REFUSED)])
def test_correction_of_wrong_event_is_rejected(
    todoku: Caller, undecodable: tuple[OrderCreatedEvent, str], correction: str, code: ExitCode
) -> None:
    _, letter_id = undecodable
    assert todoku("dead", "edit", letter_id, "--file", "-", stdin=correction).code == code
    assert todoku.ok("dead", "show", letter_id, "--json").object["state"] == "PARKED"


def test_discarded_letter_is_kept_with_user_and_reason(todoku: Caller, garbage: str) -> None:
    words = ("--reason", "noise", "--by", "bob")
    after = todoku.ok("dead", "discard", garbage, *words, "--json").object
    assert (after["state"], after["reason"], after["closedBy"]) == ("DISCARDED", "noise", "bob")
    assert garbage not in {one["id"] for one in listed(todoku)}
    assert garbage in {one["id"] for one in listed(todoku, "--state", "DISCARDED")}
    assert todoku("dead", "discard", garbage, "--reason", "again").code == ExitCode.REFUSED


def test_group_is_retried_in_background(todoku: Caller, garbage: str) -> None:
    (group,) = {one["group"] for one in listed(todoku) if one["id"] == garbage}
    words = ("--group", group, "--rate", "100", "--service", "inventory", "--by", "bob")
    result = todoku.ok("dead", "retry", *words, "--json")
    (scheduled,) = result.lines
    assert scheduled["scheduled"] >= 1

    def tried() -> bool:
        history = todoku.ok("dead", "show", garbage, "--json").object["history"]
        return bool(history[-1]["askedBy"] == "bob")

    until(tried)


@pytest.mark.parametrize("words", [(), ("--all", "--group", "0123456789ab"), (UNKNOWN, "--all")])
def test_retry_needs_exactly_one_selection(todoku_alone: Caller, words: tuple[str]) -> None:
    assert todoku_alone("dead", "retry", *words).code == ExitCode.USAGE


@pytest.mark.parametrize("rate", ["0", "1001", "-1"])
def test_invalid_rate_is_rejected_before_any_request(todoku_alone: Caller, rate: str) -> None:
    assert todoku_alone("dead", "retry", "--all", "--rate", rate).code == ExitCode.USAGE


@pytest.mark.parametrize(
    "words", [("show",), ("retry",), ("edit", "--file", "-"), ("discard", "--reason", "r")]
)
def test_unknown_letter_exits_with_not_found(todoku: Caller, words: tuple[str, ...]) -> None:
    verb, *options = words
    result: CommandResult = todoku("dead", verb, UNKNOWN, *options, stdin="{}")
    assert result.code == ExitCode.NOT_FOUND


def test_no_reachable_service_is_reported(todoku_alone: Caller, free_ports: Any) -> None:
    orders, inventory, shipping = map(str, free_ports(3))
    flags = ("--orders-port", orders, "--inventory-port", inventory, "--shipping-port", shipping)
    assert todoku_alone("dead", "list", *flags).code == ExitCode.UNREACHABLE
    assert todoku_alone("dead", "show", UNKNOWN, *flags).code == ExitCode.UNREACHABLE


def test_letter_at_two_services_needs_service_flag(todoku_alone: Caller) -> None:
    letter = Scripted(json.dumps({"id": UNKNOWN}).encode())
    with answering(letter) as one, answering(letter) as other:
        result = todoku_alone(
            *("dead", "show", UNKNOWN, "--orders-port", one.url.rpartition(":")[2]),
            *("--inventory-port", other.url.rpartition(":")[2]),
            *("--shipping-port", other.url.rpartition(":")[2]),
        )
    assert result.code == ExitCode.USAGE
    assert "--service" in result.err
