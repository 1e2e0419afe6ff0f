"""Spans that are kept until they are exported."""

import os
import stat
from pathlib import Path

from telemetry.receiver import decode, let_go
from todoku.telemetry import encoding
from todoku.telemetry.store import SpanStore

SHAPE = encoding.shape("POST /orders", encoding.SERVER, {})


def span(n: int, name: bytes = SHAPE) -> bytes:
    return encoding.span(bytes(15) + b"\1", n.to_bytes(8), b"", 1, 2, name)


def unfinished(n: int) -> bytes:
    return encoding.UNFINISHED + span(n, encoding.shape("unanswered", encoding.SERVER, {}))[1:]


def taken(store: SpanStore) -> list[int]:
    """Return the ids of all spans that wait, as if they were exported."""
    found: list[int] = []
    while (batch := store.take()) is not None:
        found += [int.from_bytes(each.span_id) for each in decode(batch.read())]
        store.done(batch)
    return found


def test_spans_are_exported_once_and_leave_no_file(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders")
    store.write(span(1), 1)
    store.add(span(2))
    assert taken(store) == [1, 2]
    assert taken(store) == []
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_next_process_exports_what_a_killed_one_has_written(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders")
    store.write(span(1), 1)
    assert store.take() is not None  # It is being exported.
    store.write(span(2), 1)
    store.add(span(3))  # Nothing refers to it yet.
    let_go(store)
    after = SpanStore(tmp_path, "orders")
    assert after.adopt() == 2
    assert sorted(taken(after)) == [1, 2]


def test_unfinished_span_is_exported_only_if_its_process_ended_before_it(tmp_path: Path) -> None:
    unanswered = unfinished(1)
    store = SpanStore(tmp_path, "orders")
    store.write(span(2), 1, unfinished={"one": unanswered})
    assert taken(store) == [2]
    let_go(store)
    after = SpanStore(tmp_path, "orders")
    after.adopt()
    assert taken(after) == [1]

    store = SpanStore(tmp_path, "orders")
    store.write(b"", 0, unfinished={"one": unanswered})
    store.finished("one", span(1))
    store.write(span(2), 1)
    let_go(store)
    after = SpanStore(tmp_path, "orders")
    after.adopt()
    assert taken(after) == [1, 2]


def test_files_of_living_processes_and_of_other_services_are_left_alone(tmp_path: Path) -> None:
    living, other = SpanStore(tmp_path, "orders"), SpanStore(tmp_path, "shipping")
    living.write(span(1), 1)
    other.write(span(2), 1)
    let_go(other)
    assert SpanStore(tmp_path, "orders").adopt() == 0
    assert taken(living) == [1]


def test_record_that_was_torn_by_a_power_cut_is_left_out(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders")
    store.write(span(1) + span(2), 2)
    assert store._path is not None
    os.truncate(store._path, store._path.stat().st_size - 1)
    let_go(store)
    after = SpanStore(tmp_path, "orders")
    after.adopt()
    assert taken(after) == [1]


def test_oldest_spans_are_dropped_while_nothing_takes_them(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders", bytes_max=10 * len(span(1)))
    for n in range(1, 101):
        store.write(span(n), 1)
    left = taken(store)
    assert left[-1] == 100
    assert len(left) + store.dropped == 100
    assert 0 < len(left) <= 12


def test_few_files_are_open_while_nothing_takes_the_spans(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders")
    for n in range(1, 101):
        store.write(span(n), 1)
        assert store.take() is not None
    assert len(list(tmp_path.iterdir())) == 2
    assert taken(store) == list(range(1, 101))


def test_files_are_private(tmp_path: Path) -> None:
    store = SpanStore(tmp_path / "traces", "orders")
    assert store._path is not None
    assert stat.S_IMODE(store._path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store._path.parent.stat().st_mode) == 0o700


def test_spans_are_kept_in_memory_where_the_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("a file is in its place")
    store = SpanStore(tmp_path / "traces", "orders")
    store.write(span(1), 1)
    assert taken(store) == [1]
