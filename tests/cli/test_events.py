"""Exporting and following the events of all orders."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from scripted import Scripted, answering, problem

from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.event_feed import FeedPage, Wanted, choose, follow
from todoku.cli.event_file import EventFile
from todoku.cli.events import export
from todoku.cli.exit_codes import ExitCode

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
AWAY: Final = problem(503, "database-unavailable", "The database is not available", "Later.")
RESTARTED: Final = problem(410, "feed-restarted", "The feed has started over", "Start over.")


def event(n: int, **different: Any) -> dict[str, Any]:
    standard = {
        "position": n,
        "orderId": f"order-{n}",
        "type": "OrderCreatedEvent",
        "source": "orders",
        "recordedAt": (NOW + timedelta(seconds=n)).isoformat(),
        "status": "PENDING",
    }
    return standard | different


def page(*numbers: int, **different: Any) -> Scripted:
    items = [event(n, **different) for n in numbers]
    return Scripted(
        json.dumps({"items": items, "next": f"after-{max(numbers, default=9)}"}).encode()
    )


def exported(path: Path, *answers: Scripted, **filters: Any) -> list[str]:
    """Export to a file, and return the requests."""
    with answering(*answers) as server:
        export(output=path, url=server.url, **filters)
        return [request for request, _ in server.asked]


def positions(path: Path) -> list[int]:
    return [json.loads(line)["position"] for line in path.read_text().splitlines()]


def test_export_prints_every_page_and_the_cursor_to_go_on_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(page(1, 2), page(3), page()) as server:
        export(url=server.url)
        asked = [request for request, _ in server.asked]
    said = capsys.readouterr()
    assert [json.loads(line)["position"] for line in said.out.splitlines()] == [1, 2, 3]
    assert "3 events; go on with --after after-9" in said.err
    assert asked == [
        "GET /changes?limit=1000",
        "GET /changes?after=after-2&limit=1000",
        "GET /changes?after=after-3&limit=1000",
    ]


def test_export_to_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    exported(path, page(1, 2), page())
    asked = exported(path, page(3), page())
    assert asked[0] == "GET /changes?after=after-9&limit=1000"
    assert positions(path) == [1, 2, 3]


def test_export_that_was_killed_writes_no_event_twice(tmp_path: Path) -> None:
    """It dies after it has written events, before it has noted that."""
    path = tmp_path / "events.ndjson"
    with pytest.raises(CommandFailed):
        exported(path, page(1, 2), AWAY)
    with path.open("ab") as file:
        file.write(b'{"position":3}\n{"posit')
    asked = exported(path, page(3, 4), page())
    assert asked[0] == "GET /changes?after=after-2&limit=1000"
    assert positions(path) == [1, 2, 3, 4]


def test_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_text("something else")
    with pytest.raises(CommandFailed, match=r"events\.ndjson\.cursor") as failure:
        EventFile(path)
    assert failure.value.exit_code is ExitCode.USAGE
    assert path.read_text() == "something else"


def test_file_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CommandFailed, match="cannot be written: No such file or directory"
    ) as failure:
        EventFile(tmp_path / "nowhere" / "events.ndjson")
    assert failure.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("mark", ["{", '{"after":"x","bytes":100}', '{"after":"x","bytes":-1}'])
def test_mark_that_does_not_fit_its_file_is_refused(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "events.ndjson"
    path.write_text("{}\n")
    (tmp_path / "events.ndjson.cursor").write_text(mark)
    with pytest.raises(CommandFailed, match="does not fit"):
        EventFile(path)
    assert path.read_text() == "{}\n"


def test_export_after_a_restore_says_to_start_over(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    exported(path, page(1), page())
    with pytest.raises(CommandFailed, match=r"Remove .*, and export again") as failure:
        exported(path, RESTARTED)
    assert failure.value.exit_code is ExitCode.REFUSED


@pytest.mark.parametrize("text", ["yesterday", "2030-01-02", "2030-01-02T03:04:05"])
def test_time_without_an_offset_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="offset"):
        export(since=text)


def test_filters_choose_events(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(page(1, 2, 3, type="StockReservedEvent", source="inventory"), page()) as server:
        export(
            type=("StockReservedEvent", "OrderCreatedEvent"),
            subject=("inventory.*",),
            order=("ORDER-2", "order-3"),
            since="2030-01-01T00:00:03Z",
            url=server.url,
        )
        assert server.asked[0][0].startswith("GET /changes?since=2030-01-01T00%3A00%3A03%2B00%3A00")
    assert [json.loads(line)["position"] for line in capsys.readouterr().out.splitlines()] == [3]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), True),
        (Wanted(types={"Other"}), False),
        (
            Wanted(
                subjects=("orders.created",), subject_of={"OrderCreatedEvent": "orders.created"}
            ),
            True,
        ),
        (Wanted(subjects=("inventory.>", "orders.>")), True),
        (Wanted(subjects=("inventory.>",)), False),
        (Wanted(orders={"order-1"}), True),
        (Wanted(orders={"order-2"}), False),
        (Wanted(since=NOW), True),
        (Wanted(since=NOW + timedelta(days=1)), False),
    ],
)
def test_event_is_chosen_if_it_matches_all_filters(wanted: Wanted, found: bool) -> None:
    read = msgspec.json.decode(page(1).body, type=FeedPage)
    assert len(choose(read, wanted)) == found


def followed(*answers: Scripted, pages: int) -> tuple[Sequence[FeedPage], list[str], list[float]]:
    pauses: list[float] = []
    with answering(*answers) as server:
        orders = ServiceClient("orders", server.url)
        found = list(islice(follow(orders, {"start": "end"}, pauses.append), pages))
        return found, [request for request, _ in server.asked], pauses


def test_following_waits_out_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    pages, asked, pauses = followed(page(1), AWAY, AWAY, page(2), pages=2)
    assert [each.next for each in pages] == ["after-1", "after-2"]
    assert asked[0] == "GET /changes?start=end&limit=1000"
    assert asked[1:] == ["GET /changes?after=after-1&limit=1000"] * 3
    assert len(pauses) == 2
    assert capsys.readouterr().err.count("unavailable") == 1


def test_following_fails_if_the_first_request_does() -> None:
    with pytest.raises(CommandFailed):
        followed(AWAY, pages=1)


def test_following_fails_after_a_restore() -> None:
    with pytest.raises(CommandFailed, match="started over"):
        followed(page(1), RESTARTED, pages=2)
