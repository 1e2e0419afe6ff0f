"""The audit log of a writer: which rows it has, and that what was done to them is found."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from sqlalchemy import text

from engine.bank import NOW, Branch, OpenAccount, account_id, bank_database, seconds, store
from engine.test_writer import Faulty
from todoku.contracts import OrdersAuditAnchoredEvent
from todoku.database import DatabaseUnavailable
from todoku.engine import AuditEntry, AuditFilter, AuditRequest, IdempotencyKey
from todoku.engine.audit_log import Anchor, LogState, check_log, trail
from todoku.engine.audit_log.entries import NO_HASH, row_hash
from todoku.engine.audit_log.refusals import SOURCES_MAX, RefusalCounts
from todoku.engine.audit_log.trail_writer import TrailWriter
from todoku.engine.messages import PendingCommand

LOG: Final = store.tables.audit_log
NAMES: Final = store.tables.audit_names


class Audited(Branch):
    """A branch of the bank that writes an audit log."""

    def __init__(self, database: Any = None, owner: str = "bank-1") -> None:
        super().__init__(database or bank_database(), owner, audit=True)
        self.requests: list[AuditRequest] = []
        transactions = self.writer.transactions
        assert transactions.trail is not None
        self.trail = TrailWriter(
            transactions, transactions.trail, service="bank", anchor_event=None
        )

    def asked(self, number: int, actor: str = "alice", **command: Any) -> PendingCommand:
        request = AuditRequest(
            operation="openAccount", name_of=lambda error: type(error).__name__, actor=actor
        )
        self.requests.append(request)
        return PendingCommand(
            OpenAccount(account_id=account_id(number), **command),
            self.answers.append,
            request=request,
        )

    def said(self) -> list[tuple[str, str, str | None]]:
        """Return operation, outcome and actor of each row, the oldest first."""
        with self.database.read() as connection:
            rows = LOG.page(connection, AuditFilter(), limit=1_000)[::-1]
            names = NAMES.names(connection, {row.actor for row in rows if row.actor})
            return [(row.operation, row.outcome, names.get(row.actor or "")) for row in rows]

    def anchor(self) -> Anchor:
        """Return an anchor of the last row, as another service would keep it."""
        with self.database.read() as connection:
            (head,) = LOG.heads(connection, 1)
        return Anchor(head.chain, head.sequence, head.hash.hex(), NOW)

    def check(self, *anchors: Anchor) -> LogState:
        with self.database.read() as connection:
            return check_log(LOG.begins(connection), LOG.rows(connection), anchors)

    def tamper(self, *statements: str) -> None:
        with self.database.transaction() as connection:
            for statement in statements:
                connection.execute(text(statement))


def problems(state: LogState) -> list[str]:
    return [problem.problem for problem in state.problems]


def test_each_command_is_a_row_that_is_committed_with_it() -> None:
    branch = Audited()
    branch.step(branch.asked(1, balance=5), branch.asked(2, "bob", balance=7))
    branch.step(branch.asked(1, "bob"))
    assert branch.said() == [
        ("begin", "started", None),
        ("openAccount", "done", "alice"),
        ("openAccount", "done", "bob"),
        ("openAccount", "NothingPaid", "bob"),
    ]
    assert all(request.recorded for request in branch.requests)
    assert branch.check().problems == ()


def test_command_that_nobody_asked_for_over_http_is_no_row() -> None:
    branch = Audited()
    branch.open(1, balance=5)
    assert branch.said() == []


def test_repeated_request_is_told_apart() -> None:
    branch = Audited()
    for _ in range(2):
        asked = branch.asked(1, balance=5)
        branch.step(
            PendingCommand(
                asked.command, asked.answer, key=IdempotencyKey("k", "f"), request=asked.request
            )
        )
    assert [outcome for _, outcome, _ in branch.said()] == ["started", "done", "repeated"]


def test_subject_is_what_the_command_is_about() -> None:
    branch = Audited()
    branch.step(branch.asked(3, balance=5))
    with branch.database.read() as connection:
        wanted = AuditFilter(subject=account_id(3))
        assert [row.sequence for row in LOG.page(connection, wanted, limit=9)] == [2]


@pytest.mark.parametrize("fault", ["before", "after"])
def test_chain_goes_on_after_a_commit_whose_result_is_unknown(fault: str) -> None:
    database = Faulty()
    branch = Audited(database)
    branch.step(branch.asked(1, balance=5))
    database.faults.append(fault)
    again = branch.asked(2, balance=6)
    with pytest.raises(DatabaseUnavailable):
        branch.step(again)
    assert not branch.requests[1].recorded
    branch.step(again)
    assert branch.check(branch.anchor()).problems == ()


def written(branch: Audited, chain: str, sequence: int) -> None:
    """Write the chain anew behind a row, with hashes that fit."""
    with branch.database.read() as connection:
        rows = [row for row in LOG.rows(connection) if row.chain == chain]
    before = NO_HASH if sequence == 0 else rows[sequence - 1].hash
    for row in rows[sequence:]:
        values = (row.chain, row.sequence, int(row.at.timestamp() * 1_000_000), *row.said)
        before = row_hash(before, values)
        branch.tamper(
            f"UPDATE audit_log SET hash = x'{before.hex()}'"
            f" WHERE chain = '{chain}' AND sequence = {row.sequence}"
        )


SWAPPED: Final = (
    "UPDATE audit_log SET sequence = 99 WHERE sequence = 3",
    "UPDATE audit_log SET sequence = 3 WHERE sequence = 4",
    "UPDATE audit_log SET sequence = 4 WHERE sequence = 99",
)
CHANGED: Final = ("UPDATE audit_log SET subject = 'another' WHERE sequence = 3",)
REMOVED: Final = ("DELETE FROM audit_log WHERE sequence = 3",)


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (CHANGED, ["row 3 was changed, or exchanged with another"]),
        (REMOVED, ["row 3 is missing"]),
        (SWAPPED, ["row 3 and 2 more were changed, or exchanged with another"]),
        (
            ("DELETE FROM audit_log WHERE sequence > 4",),
            ["it was cut off: rows 5 to 6 are missing at its end"],
        ),
        (("DELETE FROM audit_log WHERE sequence = 1",), ["row 1 is missing"]),
        (("DELETE FROM audit_log",), ["the whole chain is missing, of 6 rows at least"]),
    ],
)
def test_what_was_done_to_rows_is_found(statements: Sequence[str], found: list[str]) -> None:
    branch = Audited()
    branch.step(*(branch.asked(n, balance=n) for n in range(1, 6)))
    anchor = branch.anchor()
    assert branch.check(anchor) == LogState(rows=6, chains=1)
    branch.tamper(*statements)
    assert problems(branch.check(anchor)) == found


@pytest.mark.parametrize(
    "forge",
    [
        lambda chain: CHANGED,
        lambda chain: (*REMOVED, "UPDATE audit_log SET sequence = sequence - 1 WHERE sequence > 3"),
    ],
)
def test_chain_that_was_written_anew_does_not_fit_its_anchors(
    forge: Callable[[str], Sequence[str]],
) -> None:
    branch = Audited()
    branch.step(*(branch.asked(n, balance=n) for n in range(1, 6)))
    anchor = branch.anchor()
    branch.step(*(branch.asked(n, balance=n) for n in range(6, 9)))
    branch.tamper(*forge(anchor.chain))
    written(branch, anchor.chain, 2)
    assert branch.check().problems == ()  # Nothing in the chain itself tells.
    (problem,) = problems(branch.check(anchor))
    assert "written anew: the hash of row 6" in problem


def test_rows_behind_the_last_anchor_are_counted() -> None:
    branch = Audited()
    branch.step(branch.asked(1, balance=5))
    anchor = branch.anchor()
    branch.step(branch.asked(2, balance=5), branch.asked(3, balance=5), now=seconds(9))
    state = branch.check(anchor)
    assert (state.not_anchored, state.oldest_not_anchored) == (2, seconds(9))


def test_end_of_a_chain_is_anchored_by_the_one_that_a_later_process_begins() -> None:
    first = Audited()
    first.step(*(first.asked(n, balance=n) for n in range(1, 6)))
    second = Audited(first.database, "bank-2")
    second.trail.begin_trail(seconds(1))
    anchor = second.anchor()
    assert second.check(anchor) == LogState(rows=7, chains=2)
    second.tamper("DELETE FROM audit_log WHERE sequence = 6")
    assert problems(second.check(anchor)) == ["it was cut off: row 6 is missing at its end"]


def test_chains_follow_one_another_when_the_clock_is_set_back() -> None:
    first = Audited()
    first.step(first.asked(1, balance=5), now=seconds(60))
    second = Audited(first.database, "bank-2")
    second.trail.begin_trail(NOW)
    with second.database.read() as connection:
        begins = LOG.begins(connection)
    assert begins[0].chain < begins[1].chain
    assert begins[1].said[4].startswith(begins[0].chain)


def test_what_a_restore_has_lost_is_no_fault_and_what_was_cut_off_before_it_is_one() -> None:
    branch = Audited()
    branch.step(*(branch.asked(n, balance=n) for n in range(1, 4)))
    backup = branch.database.serialize()
    branch.step(*(branch.asked(n, balance=n) for n in range(4, 6)))
    anchor = branch.anchor()

    database = type(branch.database).in_memory(backup)
    restored = Audited(database, "bank-2")
    restored.trail.begin_trail(seconds(60))
    assert problems(restored.check(anchor)) == [
        "it was cut off: rows 5 to 6 are missing at its end"
    ]
    restored.writer.maintenance.begin_recovery(seconds(61))
    state = restored.check(anchor)
    assert (state.problems, state.restored_at) == ((), (seconds(61),))
    restored.tamper("DELETE FROM audit_log WHERE sequence = 4")
    assert problems(restored.check(anchor)) == [
        "it was cut off: rows 4 to 6 are missing at its end"
    ]


def test_erased_name_leaves_rows_of_which_nobody_can_tell_whose_they_are() -> None:
    branch = Audited()
    branch.step(branch.asked(1, "carol", balance=5))
    with branch.database.transaction() as connection:
        NAMES.erase(connection, "carol")
    branch.trail.anchor_trail(NOW)  # It reads names again after that.
    branch.step(branch.asked(2, "carol", balance=5))
    assert branch.said()[1:] == [("openAccount", "done", None), ("openAccount", "done", "carol")]
    assert branch.check().problems == ()
    rows = branch.rows("audit_names", "name")
    assert rows == [("carol",)]


def test_name_that_was_exchanged_is_found() -> None:
    branch = Audited()
    branch.step(branch.asked(1, "carol", balance=5))
    branch.tamper("UPDATE audit_names SET name = 'mallory'")
    with branch.database.read() as connection:
        assert len(NAMES.wrong(connection)) == 1


def test_second_anchor_of_a_row_does_not_replace_the_first() -> None:
    branch = Branch()
    anchors = store.tables.audit_anchors
    with branch.database.transaction() as connection:
        for digest in ("aa", "bb"):
            event = OrdersAuditAnchoredEvent(service="orders", chain="c", sequence=4, hash=digest)
            anchors.keep(connection, [event], NOW)
        assert anchors.read(connection) == [("orders", Anchor("c", 4, "aa", NOW))]


def test_counts_of_refused_requests_take_no_more_memory_however_many_sources_there_are() -> None:
    counts = RefusalCounts()
    for n in range(SOURCES_MAX + 50):
        counts.add(f"10.0.0.{n}", "unauthorized")
    counts.add("10.0.0.1", "unauthorized")
    entries = counts.take()
    assert len(entries) == SOURCES_MAX + 1
    others = AuditEntry(operation="refused", outcome="unauthorized", times=50)
    assert others in entries
    twice = AuditEntry(operation="refused", outcome="unauthorized", source="10.0.0.1", times=2)
    assert twice in entries
    assert counts.take() == []


UNCHAINED: Final = """
INSERT INTO audit_log (chain, sequence, at, operation, outcome, times, hash)
SELECT '{}', {}, at, operation, outcome, times, hash FROM audit_log WHERE sequence = 2
"""


@pytest.mark.parametrize(
    ("chain", "sequence", "found"),
    [
        (
            "forged",
            1,
            [
                "its first row does not begin a chain",
                "row 1 was changed, or exchanged with another",
            ],
        ),
        ("forged", 5, ["rows 1 to 4 are missing"]),
        ("the chain", 7, ["row 7 was changed, or exchanged with another"]),
    ],
)
def test_row_that_is_in_no_chain_is_found(chain: str, sequence: int, found: list[str]) -> None:
    branch = Audited()
    branch.step(*(branch.asked(n, balance=n) for n in range(1, 6)))
    anchor = branch.anchor()
    name = anchor.chain if chain == "the chain" else chain
    branch.tamper(UNCHAINED.format(name, sequence))
    assert problems(branch.check(anchor)) == found


def _unlinked(last: bytes, values: Any) -> bytes:
    """Hash a row without the one before it."""
    return row_hash(NO_HASH, values)


def _lose_rows(patch: pytest.MonkeyPatch) -> None:
    """Write all rows of a transaction but the last."""
    insert = LOG.insert
    patch.setattr(LOG, "insert", lambda connection, rows: insert(connection, rows[:-1]))


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (
            lambda patch: patch.setattr(trail, "row_hash", _unlinked),
            "row 2 and 5 more were changed, or exchanged with another",
        ),
        (_lose_rows, "row 1 is missing"),
    ],
)
def test_writer_that_chains_its_rows_wrongly_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    branch = Audited()
    for n in range(1, 4):
        branch.step(branch.asked(n, balance=n), branch.asked(n + 10, balance=n))
    assert problems(branch.check())[0] == found
