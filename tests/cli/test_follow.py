"""Following an order: until it ends, through outages of the service, or until the timeout."""

import json
import os
import signal
from itertools import pairwise

import msgspec
import pytest
from calling import BOUND_SECONDS, Caller
from scripted import Scripted, answering, problem
from test_saga import COMPLETED, CREATED, INITIATED, RESERVED, recorded

from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.follow import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, follow, next_pause
from todoku.cli.responses import OrderEvent

EVENTS = recorded(
    (CREATED, "PENDING"),
    (INITIATED, "AWAITING_SHIPMENT"),
    (COMPLETED, "COMPLETED"),
    (RESERVED, "COMPLETED"),
)
AWAY = problem(503, "database-unavailable", "The database is not available", "Later.")


def history(*events: OrderEvent) -> Scripted:
    camel = [msgspec.structs.asdict(event) for event in events]
    return Scripted(msgspec.json.encode({"items": camel}))


def test_pauses_grow_to_limit_and_reset_after_new_events() -> None:
    pauses = [PAUSE_SECONDS_MIN]
    for _ in range(20):
        pauses.append(next_pause(pauses[-1], found=False))

    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert pauses[-1] == PAUSE_SECONDS_MAX
    assert next_pause(pauses[-1], found=True) == PAUSE_SECONDS_MIN


def test_each_event_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers = (history(*EVENTS[:1]), history(*EVENTS[:1]), history(*EVENTS[:3]))
    with answering(*answers) as server:
        status = follow(ServiceClient("orders", server.url), "1", json=True, timeout_seconds=None)

    assert status == "COMPLETED"
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]


def test_all_events_of_ended_order_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(history(*EVENTS)) as server:
        follow(ServiceClient("orders", server.url), "1", json=True, timeout_seconds=None)

    assert len(capsys.readouterr().out.splitlines()) == 4


def test_polling_continues_while_service_is_unavailable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(history(EVENTS[0]), AWAY, AWAY, history(*EVENTS)) as server:
        status = follow(ServiceClient("orders", server.url), "1", json=True, timeout_seconds=None)

    assert status == "COMPLETED"
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 4
    assert [line.split()[-1] for line in written.err.splitlines()] == ["retrying", "back"]


def test_service_unavailable_at_start_is_an_error() -> None:
    with answering(AWAY) as server, pytest.raises(CommandFailed) as raised:
        follow(ServiceClient("orders", server.url), "1", json=True, timeout_seconds=None)

    assert raised.value.exit_code is ExitCode.BUSY


def test_timeout_reports_current_status() -> None:
    with answering(history(EVENTS[0])) as server:
        client = ServiceClient("orders", server.url)
        with pytest.raises(CommandFailed, match="its status is PENDING") as raised:
            follow(client, "1", json=True, timeout_seconds=0)

    assert raised.value.exit_code is ExitCode.NOT_ENDED


def test_unknown_status_stops_watching_with_its_own_exit_code() -> None:
    (created,) = recorded((CREATED, "HELD_FOR_REVIEW"))
    with answering(history(created)) as server:
        client = ServiceClient("orders", server.url)
        with pytest.raises(CommandFailed, match="HELD_FOR_REVIEW, which this version") as raised:
            follow(client, "1", json=True, timeout_seconds=None)

    assert raised.value.exit_code is ExitCode.UNKNOWN_STATUS


def test_ctrl_c_stops_watching_but_not_order(todoku_alone: Caller) -> None:
    with (
        answering(history(EVENTS[0])) as server,
        todoku_alone.started("order", "watch", "1", "--url", server.url) as (process, output),
        os.fdopen(os.dup(output)) as written,
    ):
        assert "OrderCreatedEvent" in written.readline()
        process.send_signal(signal.SIGINT)

        assert process.wait(BOUND_SECONDS) == ExitCode.INTERRUPTED
        rest = written.read()
        assert "order 1 is still processed" in rest
        assert "Traceback" not in rest
