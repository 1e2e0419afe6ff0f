"""Test how processes divide what they read."""

import uuid
from itertools import chain

import pytest

from todoku.broker.memory.subjects import matches
from todoku.broker.partitions import (
    NUMBERS,
    SLOTS,
    durables_of,
    most_consumed,
    partitions_of,
    with_slot,
    without_slot,
)
from todoku.engine.partition_share import TAKEOVER_SECONDS, PartitionShare

SUBJECT = "orders.created"


@pytest.mark.parametrize("count", NUMBERS)
def test_each_event_is_read_by_one_partition(count: int) -> None:
    published = [SUBJECT, *(f"{SUBJECT}.{slot}" for slot in range(SLOTS))]
    for subject in published:
        readers = [
            each.number
            for each in partitions_of("inventory", count)
            if any(matches(pattern, subject) for pattern in each.filters([SUBJECT]))
        ]
        assert len(readers) == 1, subject
    assert any(matches(p, SUBJECT) for p in partitions_of("inventory", count)[0].filters([SUBJECT]))


def test_events_about_one_entity_have_one_slot_and_all_slots_are_used() -> None:
    ids = [str(uuid.UUID(int=n)) for n in range(500)]
    assert {with_slot(SUBJECT, each) for each in ids} == {
        f"{SUBJECT}.{slot}" for slot in range(SLOTS)
    }
    assert with_slot("orders.created", ids[0])[-1] == with_slot("shipping.failed", ids[0])[-1]


@pytest.mark.parametrize(
    ("published", "subject"),
    [
        ("orders.created", "orders.created"),
        ("orders.created.0", "orders.created"),
        ("orders.created.11", "orders.created"),
        ("orders.created.12", "orders.created.12"),
        ("orders.v2", "orders.v2"),
        ("orders.created.007", "orders.created.007"),
        ("7", "7"),
        (".7", ".7"),
        ("", ""),
    ],
)
def test_subject_of_an_event_has_no_slot(published: str, subject: str) -> None:
    assert without_slot(published) == subject


def test_durables_have_different_names() -> None:
    names = list(chain(durables_of("orders"), durables_of("inventory")))
    assert len(set(names)) == len(names) == 2 * sum(NUMBERS)


def test_service_has_consumed_what_all_partitions_of_one_number_have() -> None:
    assert most_consumed({}, "orders") is None
    assert most_consumed({"orders": 7, "inventory": 9}, "orders") == 7
    assert most_consumed({"orders-2-0": 5}, "orders") is None
    assert most_consumed({"orders-2-0": 5, "orders-2-1": 4}, "orders") == 4
    assert most_consumed({"orders": 3, "orders-2-0": 5, "orders-2-1": 4}, "orders") == 4
    assert most_consumed({"orders": 8, "orders-2-0": 5, "orders-2-1": 4}, "orders") == 8


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_processes_divide_all_partitions_evenly(count: int, processes: int) -> None:
    owners = [f"process {n}" for n in range(processes)]
    shares = [PartitionShare(owner, count).numbers(owners, 0.0) for owner in owners]
    assert sorted(chain(*shares)) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_process_that_is_not_among_the_living_counts_itself() -> None:
    assert PartitionShare("only", 3).numbers([], 0.0) == {0, 1, 2}


def test_partition_without_progress_is_read_by_others_for_a_while() -> None:
    """Its owner lives, and hangs or has lost the broker."""
    share = PartitionShare("a", 3)
    alive = ["a", "b", "c"]
    share.look({0: 9, 1: 4, 2: 5}, last_sequence=9, now=0.0)
    assert share.numbers(alive, 0.0) == {0}
    share.look({0: 9, 1: 4, 2: 6}, last_sequence=9, now=2.0)
    assert share.numbers(alive, 2.0) == {0, 1}
    share.look({0: 9, 1: 7, 2: 8}, last_sequence=9, now=4.0)
    assert share.numbers(alive, 4.0) == {0, 1}
    assert share.numbers(alive, 2.1 + TAKEOVER_SECONDS) == {0}


def test_partition_with_nothing_to_read_is_not_taken_over() -> None:
    share = PartitionShare("a", 2)
    for second in range(5):
        share.look({0: 9, 1: 9}, last_sequence=9, now=float(second))
    assert share.numbers(["a", "b"], 5.0) == {0}
