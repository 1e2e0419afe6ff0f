"""An order is followed to its end, through the absence of the service and no further than asked."""

import json
import os
import signal
from itertools import pairwise

import msgspec
import pytest
from calling import BOUND_SECONDS, Caller
from scripted import Scripted, answering, problem
from test_saga import COMPLETED, CREATED, INITIATED, RESERVED, heard

from todoku.cli.answers import OrderEvent
from todoku.cli.client import Client
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.follow import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, follow, next_pause

EVENTS = heard(
    (CREATED, "PENDING"),
    (INITIATED, "AWAITING_SHIPMENT"),
    (COMPLETED, "COMPLETED"),
    (RESERVED, "COMPLETED"),
)
AWAY = problem(503, "database-unavailable", "The database is not available", "Later.")


def history(*events: OrderEvent) -> Scripted:
    camel = [msgspec.structs.asdict(event) for event in events]
    return Scripted(msgspec.json.encode({"items": camel}))


def test_the_pauses_grow_to_a_bound_and_begin_anew_with_news() -> None:
    pauses = [PAUSE_SECONDS_MIN]
    for _ in range(20):
        pauses.append(next_pause(pauses[-1], news=False))

    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert pauses[-1] == PAUSE_SECONDS_MAX
    assert next_pause(pauses[-1], news=True) == PAUSE_SECONDS_MIN


def test_each_event_is_written_once_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    answers = (history(*EVENTS[:1]), history(*EVENTS[:1]), history(*EVENTS[:3]))
    with answering(*answers) as server:
        status = follow(Client("orders", server.url), "1", json=True, timeout_seconds=None)

    assert status == "COMPLETED"
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]


def test_of_an_order_that_has_ended_the_whole_story_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(history(*EVENTS)) as server:
        follow(Client("orders", server.url), "1", json=True, timeout_seconds=None)

    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_service_that_goes_away_and_comes_back_is_awaited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(history(EVENTS[0]), AWAY, AWAY, history(*EVENTS)) as server:
        status = follow(Client("orders", server.url), "1", json=True, timeout_seconds=None)

    assert status == "COMPLETED"
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 4
    assert [line.split()[-1] for line in written.err.splitlines()] == ["back", "back"]


def test_a_service_that_is_away_from_the_start_is_not_awaited() -> None:
    with answering(AWAY) as server, pytest.raises(CommandFailed) as raised:
        follow(Client("orders", server.url), "1", json=True, timeout_seconds=None)

    assert raised.value.exit_code is ExitCode.BUSY


def test_when_the_time_is_up_it_says_where_the_order_stands() -> None:
    with answering(history(EVENTS[0])) as server:
        client = Client("orders", server.url)
        with pytest.raises(CommandFailed, match="it is PENDING") as raised:
            follow(client, "1", json=True, timeout_seconds=0)

    assert raised.value.exit_code is ExitCode.NOT_ENDED


def test_unknown_status_ends_the_watching_with_a_message_and_an_exit_code_of_its_own() -> None:
    (created,) = heard((CREATED, "HELD_FOR_REVIEW"))
    with answering(history(created)) as server:
        client = Client("orders", server.url)
        with pytest.raises(CommandFailed, match="HELD_FOR_REVIEW, which this version") as raised:
            follow(client, "1", json=True, timeout_seconds=None)

    assert raised.value.exit_code is ExitCode.UNKNOWN_STATUS


def test_ctrl_c_ends_the_watching_and_not_the_order(todoku_alone: Caller) -> None:
    with (
        answering(history(EVENTS[0])) as server,
        todoku_alone.started("order", "watch", "1", "--url", server.url) as (process, output),
        os.fdopen(os.dup(output)) as written,
    ):
        assert "OrderCreatedEvent" in written.readline()
        process.send_signal(signal.SIGINT)

        assert process.wait(BOUND_SECONDS) == ExitCode.INTERRUPTED
        rest = written.read()
        assert "order 1 goes on without being watched" in rest
        assert "Traceback" not in rest
