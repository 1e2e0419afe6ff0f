"""The one writer: what a batch does to the database, and what is to be done after its commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from engine.bank import (
    NOW,
    OWNER,
    BankUnitOfWork,
    Billed,
    Booked,
    Branch,
    NothingPaid,
    OpenAccount,
    Paid,
    Refunded,
    SendBill,
    account_id,
    bank,
    bank_database,
    delivery,
    paid,
    seconds,
)
from todoku.database import ConstraintViolated, DatabaseBroken, DatabaseUnavailable
from todoku.engine import STREAM, RetryPolicy
from todoku.engine.due_rows import POSTPONED_SECONDS
from todoku.engine.messages import IncomingEvent, Receipt, StoredEvents, UndecodableMessage
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.receipts import Publisher
from todoku.events import Envelope, UndecodableEvent, encode, fact_id, read_envelope, seal

CUSTOMERS = Publisher("customers")
ATTEMPTS_MAX = RetryPolicy().failing_attempts_max


def booked_id(number: int) -> str:
    return fact_id(account_id(number), "Booked")


def paid_id(number: int) -> str:
    return fact_id(account_id(number), "Paid")


class Faulty:
    """A database whose commits fail as they are told to: before or after they went through."""

    def __init__(self) -> None:
        self.database = bank_database()
        self.faults: list[str | None] = []
        self.exclusive = True

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        fault = self.faults.pop(0) if self.faults else None
        with self.database.transaction() as connection:
            yield connection
            if fault == "before":
                raise DatabaseUnavailable("the disk is full")
        if fault == "after":
            raise DatabaseUnavailable("the connection was lost, and with it the answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


def effects(actions: PostCommitActions) -> list[object]:
    return [pending.effect for pending in actions.effects]


class TestBatch:
    def test_batch_is_committed_as_a_whole(self) -> None:
        branch = Branch()
        actions = branch.step(
            branch.command(OpenAccount(account_id=account_id(1), balance=5)), paid(2, 7), paid(3, 8)
        )
        assert branch.balances() == {account_id(1): 5, account_id(2): 7, account_id(3): 8}
        assert branch.inbox() == {paid_id(2), paid_id(3)}
        assert [row.position for row in actions.published] == [1, 2]
        assert branch.writer.position == 2

    def test_crash_before_the_commit_changes_nothing(self) -> None:
        def die(point: str) -> None:
            if point == "before-commit":
                raise SystemExit

        branch = Branch(failpoint=die)
        with pytest.raises(SystemExit):
            branch.step(paid(1), paid(2))
        assert branch.balances() == {}
        assert branch.inbox() == set()
        assert branch.outbox() == []
        assert branch.writer.position == 0

    def test_event_is_acknowledged_and_confirmed_after_its_commit(self) -> None:
        branch, message = Branch(), paid(1)
        actions = branch.step(message)
        assert actions.acks == [message.delivery]
        assert actions.receipts == {CUSTOMERS: [paid_id(1)]}
        assert actions.naks == []
        assert actions.terms == []

    def test_decisions_of_a_batch_see_each_other(self) -> None:
        branch = Branch()
        branch.step(branch.command(OpenAccount(account_id=account_id(1), balance=5)), paid(1, 7))
        assert branch.balances() == {account_id(1): 12}

    def test_empty_batch_is_committed(self) -> None:
        assert Branch().step().published == []


class TestDuplicates:
    def test_processed_event_is_confirmed_again_and_decided_once(self) -> None:
        branch, again = Branch(), paid(1, 7, attempt=2, sequence=9)
        branch.step(paid(1, 7))
        actions = branch.step(again)
        assert branch.balances() == {account_id(1): 7}
        assert actions.acks == [again.delivery]
        assert actions.receipts == {CUSTOMERS: [paid_id(1)]}
        assert actions.published == []

    def test_duplicates_in_a_batch_are_acknowledged_and_decided_once(self) -> None:
        branch = Branch()
        copies = [paid(1, 7, sequence=n) for n in (1, 2, 3)]
        actions = branch.step(*copies)
        assert branch.balances() == {account_id(1): 7}
        assert {d.sequence for d in actions.acks} == {1, 2, 3}
        assert set(actions.receipts[CUSTOMERS]) == {paid_id(1)}
        assert len(actions.published) == 1

    def test_duplicate_of_a_failed_event_is_not_confirmed(self) -> None:
        """Else its publisher would forget what nobody has dealt with."""
        branch = Branch()
        actions = branch.step(paid(1, 0, sequence=1), paid(1, 0, sequence=2))
        assert actions.receipts == {}
        assert actions.acks == []
        assert {(d.sequence, pause) for d, pause in actions.naks} == {(1, 1.0), (2, 1.0)}

    def test_duplicate_of_a_parked_event_is_acknowledged(self) -> None:
        branch = Branch()
        copies = [paid(1, 0, attempt=ATTEMPTS_MAX, sequence=n) for n in (1, 2)]
        actions = branch.step(*copies)
        assert {d.sequence for d in (*actions.acks, *actions.terms)} == {1, 2}
        assert actions.naks == []
        assert len(branch.rows("dead_letters", "id")) == 1


class TestRaisingDecision:
    def test_raising_decision_fails_only_its_message(self) -> None:
        branch = Branch()
        actions = branch.step(paid(1, 1), paid(2, 0), paid(3, 3))
        assert branch.balances() == {account_id(1): 1, account_id(3): 3}
        assert branch.inbox() == {paid_id(1), paid_id(3)}
        assert [d for d, _ in actions.naks] == [paid(2, 0).delivery]
        assert actions.receipts == {CUSTOMERS: [paid_id(1), paid_id(3)]}

    @pytest.mark.parametrize(("attempt", "pause"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0)])
    def test_failed_message_is_nacked_with_growing_delay(self, attempt: int, pause: float) -> None:
        actions = Branch().step(paid(1, 0, attempt=attempt))
        assert [(d.attempt, p) for d, p in actions.naks] == [(attempt, pause)]
        assert actions.receipts == {}

    @pytest.mark.parametrize(("attempt", "pause"), [(7, 60.0), (5_000, 60.0)])
    def test_nack_delay_is_limited(self, attempt: int, pause: float) -> None:
        assert RetryPolicy().delay_seconds(attempt) == pause

    def test_message_is_parked_at_its_last_attempt(self) -> None:
        branch, message = Branch(), paid(1, 0, attempt=ATTEMPTS_MAX)
        actions = branch.step(message, paid(2))
        assert actions.terms == [message.delivery]
        assert actions.naks == []
        assert actions.receipts == {CUSTOMERS: [paid_id(1), paid_id(2)]}
        assert branch.inbox() == {paid_id(1), paid_id(2)}
        (letter,) = branch.rows(
            "dead_letters",
            *("id", "subject", "body", "headers", "error", "attempts"),
            *("event_id", "event_type", "order_id", "parked_at"),
        )
        assert letter == (
            paid_id(1),
            Paid.subject,
            message.delivery.body,
            '{"Some":"header"}',
            f"NothingPaid: {account_id(1)}",
            ATTEMPTS_MAX,
            paid_id(1),
            "Paid",
            account_id(1),
            NOW,
        )
        ((traceback,),) = branch.rows("dead_letters", "traceback")
        assert "in book\n    raise NothingPaid" in traceback

    def test_redelivered_parked_event_is_acknowledged_and_its_letter_unchanged(self) -> None:
        branch = Branch()
        branch.step(paid(1, 0, attempt=ATTEMPTS_MAX))
        actions = branch.step(paid(1, 0, attempt=ATTEMPTS_MAX + 1))
        assert len(actions.acks) == 1
        assert actions.receipts == {CUSTOMERS: [paid_id(1)]}
        assert branch.rows("dead_letters", "attempts") == [(ATTEMPTS_MAX,)]

    def test_event_without_handler_is_acknowledged(self) -> None:
        branch = Branch()
        event = Refunded(account_id=account_id(1))
        message = IncomingEvent(delivery(), seal(event, NOW), event)
        actions = branch.step(message)
        assert actions.acks == [message.delivery]
        assert actions.receipts == {CUSTOMERS: [message.envelope.id]}


def fail_for(key: str, phase: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bank's store raise an error in a phase of any batch that changes this account."""
    store, record = type(bank.store), BankUnitOfWork.record
    load, save = store.load, store.save

    def failing_load(self: Any, connection: Any, subjects: Any, cache: Any) -> Any:
        unit_of_work = load(self, connection, subjects, cache)
        if phase == "load" and any(getattr(s, "account_id", None) == key for s in subjects):
            raise error
        return unit_of_work

    def failing_save(self: Any, connection: Any, unit_of_work: Any, now: Any) -> None:
        save(self, connection, unit_of_work, now)
        if phase == "save" and unit_of_work.after.get(key) is not unit_of_work.before.get(key):
            raise error

    def failing_record(self: Any, envelope: Envelope) -> None:
        if phase == "record" and envelope.subject == key:
            raise error
        record(self, envelope)

    monkeypatch.setattr(store, "load", failing_load)
    monkeypatch.setattr(store, "save", failing_save)
    monkeypatch.setattr(BankUnitOfWork, "record", failing_record)


class TestRejectedByDatabase:
    def test_rejected_message_is_nacked_and_its_neighbours_committed(self) -> None:
        branch = Branch()
        actions = branch.step(paid(1, 1), paid(2, -5), paid(3, 3))
        assert branch.balances() == {account_id(1): 1, account_id(3): 3}
        assert [(d, pause) for d, pause in actions.naks] == [(paid(2, -5).delivery, 1.0)]
        assert actions.receipts == {CUSTOMERS: [paid_id(1), paid_id(3)]}
        assert [row.position for row in actions.published] == [1, 2]

    def test_rejected_message_is_found_by_halving(self) -> None:
        commits: list[str] = []
        branch = Branch(failpoint=commits.append)
        actions = branch.step(*(paid(n, -5 if n == 70 else 1) for n in range(1, 129)))
        assert len(actions.acks) == 127
        assert commits.count("before-commit") == 7 + 1  # A half at each of 7 levels, then it alone.

    def test_rejected_message_is_parked_at_its_last_attempt(self) -> None:
        branch, refused = Branch(), paid(2, -5, attempt=ATTEMPTS_MAX)
        actions = branch.step(paid(1, 1), refused)
        assert actions.terms == [refused.delivery]
        ((order_id, error),) = branch.rows("dead_letters", "order_id", "error")
        assert order_id == account_id(2)
        assert error.startswith("ConstraintViolated")
        assert "nothing_overdrawn" in error
        assert branch.balances() == {account_id(1): 1}

    @pytest.mark.parametrize(
        "error",
        [ValueError("no time zone"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), KeyError("x")],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("phase", ["load", "save", "record"])
    def test_value_error_while_saving_fails_only_its_message(
        self, phase: str, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else one message would end the process again and again."""
        branch = Branch()
        fail_for(account_id(2), phase, error, monkeypatch)
        bad = paid(2, attempt=ATTEMPTS_MAX)
        actions = branch.step(paid(1), bad, paid(3))
        assert branch.balances() == {account_id(1): 1, account_id(3): 1}
        assert actions.terms == [bad.delivery]
        (letter_error,) = (row[0] for row in branch.rows("dead_letters", "error"))
        assert type(error).__name__ in letter_error

    def test_value_error_of_a_due_row_postpones_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        branch = Branch()
        branch.open(1, 2, balance=5, fee=2, due_at=NOW)
        fail_for(account_id(2), "save", ValueError("no time zone"), monkeypatch)
        branch.step(now=seconds(1), effect_slots=9)
        assert branch.balances() == {account_id(1): 3, account_id(2): 5}

    def test_rejected_command_gets_the_error_and_its_neighbours_succeed(self) -> None:
        branch = Branch()
        good, bad = (
            branch.command(OpenAccount(account_id=account_id(n), balance=balance))
            for n, balance in ((1, 5), (2, -5))
        )
        actions = branch.step(good, bad, paid(3))
        answers = dict(zip(("good", "bad"), (a for _, a in actions.answers), strict=True))
        assert answers["good"].balance == 5
        assert isinstance(answers["bad"], ConstraintViolated)
        assert branch.balances() == {account_id(1): 5, account_id(3): 1}

    def test_integer_overflow_fails_only_its_message(self) -> None:
        branch = Branch()
        actions = branch.step(paid(1, 1), paid(2, 2**63), paid(3, 2**70))
        assert branch.balances() == {account_id(1): 1}
        assert len(actions.naks) == 2


class TestCommands:
    def test_command_returns_the_resulting_state(self) -> None:
        branch = Branch()
        ask = branch.command(OpenAccount(account_id=account_id(1), balance=5))
        ((answered, state),) = branch.step(ask).answers
        assert answered is ask
        assert (state.id, state.balance) == (account_id(1), 5)

    def test_command_returns_the_error_of_its_decision(self) -> None:
        branch = Branch()
        branch.open(1)
        actions = branch.step(
            branch.command(OpenAccount(account_id=account_id(1))),
            branch.command(OpenAccount(account_id=account_id(2), balance=7)),
        )
        assert isinstance(actions.answers[0][1], NothingPaid)
        assert actions.answers[1][1].balance == 7
        assert branch.balances() == {account_id(1): 0, account_id(2): 7}

    def test_unknown_command_returns_an_error(self) -> None:
        branch = Branch()
        ((_, error),) = branch.step(branch.command(SendBill(account_id(1)))).answers
        assert isinstance(error, KeyError)


def undecodable_message(
    *, attempt: int = 1, again: bool, body: bytes | None = None, sequence: int = 1
) -> UndecodableMessage:
    """Return a payment that cannot be decoded, although its envelope can."""
    body = encode(paid(1).envelope) if body is None else body
    return UndecodableMessage(
        delivery(body, attempt=attempt, sequence=sequence),
        "?",
        "Traceback",
        again,
        envelope_of(body),
    )


def envelope_of(body: bytes) -> Envelope | None:
    try:
        return read_envelope(body)
    except UndecodableEvent:
        return None


class TestUndecodableMessage:
    def test_unknown_type_is_retried_then_parked(self) -> None:
        attempts_max = RetryPolicy().unknown_attempts_max
        for attempt in range(1, attempts_max):
            actions = Branch().step(undecodable_message(attempt=attempt, again=True))
            assert len(actions.naks) == 1
            assert actions.receipts == {}
        actions = Branch().step(undecodable_message(attempt=attempts_max, again=True))
        assert len(actions.terms) == 1

    def test_event_for_a_newer_version_waits_for_it_and_is_never_parked(self) -> None:
        for attempt in (1, 12, 1_000):
            waiting = undecodable_message(attempt=attempt, again=True)
            branch = Branch()
            actions = branch.step(msgspec.structs.replace(waiting, for_newer=True))
            ((_, delay_seconds),) = actions.naks
            assert delay_seconds <= RetryPolicy().backoff_seconds_max
            assert (actions.terms, actions.receipts) == ([], {})
            assert branch.rows("dead_letters", "id") == []

    def test_undecodable_message_is_parked_at_once(self) -> None:
        branch, message = Branch(), undecodable_message(again=False)
        actions = branch.step(paid(2), message, paid(3))
        assert actions.terms == [message.delivery]
        assert set(actions.receipts[CUSTOMERS]) == {paid_id(1), paid_id(2), paid_id(3)}
        assert branch.rows("dead_letters", "id", "body", "error", "traceback", "order_id") == [
            (paid_id(1), message.delivery.body, "?", "Traceback", account_id(1))
        ]
        assert branch.balances() == {account_id(2): 1, account_id(3): 1}

    def test_message_without_envelope_is_parked_without_receipt(self) -> None:
        branch = Branch()
        actions = branch.step(undecodable_message(again=False, body=b"\xff"))
        assert len(actions.terms) == 1
        assert actions.receipts == {}
        assert branch.rows("dead_letters", "body", "event_id") == [(b"\xff", None)]

    def test_same_sequence_in_another_stream_epoch_is_another_letter(self) -> None:
        branch = Branch()
        branch.step(undecodable_message(again=False, body=b"one"))
        branch.step(undecodable_message(again=False, body=b"other"))
        branch.step(undecodable_message(again=False, body=b"other", sequence=2))
        assert sorted(branch.rows("dead_letters", "body")) == [(b"one",), (b"other",)]

    def test_redelivered_parked_message_is_confirmed_again(self) -> None:
        """As when its term was lost, or the receipt for it."""
        branch = Branch()
        branch.step(undecodable_message(again=False))
        actions = branch.step(undecodable_message(again=False, attempt=2), paid(2))
        assert len(actions.terms) + len(actions.acks) == 2
        assert set(actions.receipts[CUSTOMERS]) == {paid_id(1), paid_id(2)}
        assert len(branch.rows("dead_letters", "id")) == 1

    def test_duplicates_of_an_undecodable_message_are_one_letter(self) -> None:
        branch = Branch()
        actions = branch.step(
            *(undecodable_message(again=False, sequence=n) for n in (1, 2)), paid(2)
        )
        assert {d.sequence for d in (*actions.terms, *actions.acks)} == {1, 2}
        assert actions.naks == []
        assert len(branch.rows("dead_letters", "id")) == 1

    def test_undecodable_copy_of_a_processed_event_is_acknowledged(self) -> None:
        branch = Branch()
        branch.step(paid(1))
        actions = branch.step(undecodable_message(again=True))
        assert len(actions.acks) == 1
        assert branch.rows("dead_letters", "id") == []

    def test_deeply_nested_message_does_not_stop_the_writer(
        self,
    ) -> None:
        branch = Branch()
        deep = undecodable_message(again=False, body=b"[" * 100_000)
        assert branch.step(deep, paid(2)).terms == [deep.delivery]


class TestOutbox:
    def test_event_is_pending_for_each_subscriber(self) -> None:
        branch = Branch()
        (row,) = branch.step(paid(1, 7)).published
        envelope = msgspec.json.decode(row.body)
        assert (row.position, row.subject) == (1, Booked.subject)
        assert envelope["id"] == booked_id(1)
        assert envelope["data"] == {"accountId": account_id(1), "balance": 7}
        assert branch.rows("outbox", "event_id", "reader", "owner", "position", "body") == [
            (booked_id(1), reader, OWNER, 1, row.body) for reader in ("ledger", "statistics")
        ]

    def test_context_is_passed_on(self) -> None:
        branch = Branch()
        (row,) = branch.step(paid(1, 7)).published
        envelope = msgspec.json.decode(row.body)
        assert (envelope["actor"], envelope["traceparent"]) == ("customer", "00-trace")

    def test_event_without_subscribers_is_pending_for_the_stream_until_it_is_stored(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=1, due_at=NOW)
        actions = branch.step(effect_slots=1)
        assert [row.subject for row in actions.published] == [Billed.subject]
        assert branch.rows("outbox", "reader", "position") == [(STREAM, 1)]
        branch.step(StoredEvents(0, 1))
        assert branch.outbox() == []

    def test_receipt_deletes_the_row_of_its_subscriber_only(self) -> None:
        branch = Branch()
        branch.step(paid(1), paid(2))
        branch.step(Receipt("ledger", (booked_id(1), booked_id(2), "unknown")))
        assert branch.rows("outbox", "event_id", "reader") == sorted(
            (booked_id(n), "statistics") for n in (1, 2)
        )
        branch.step(Receipt("statistics", (booked_id(1),)), Receipt("statistics", (booked_id(2),)))
        assert branch.outbox() == []

    def test_repeated_receipt_is_ignored(self) -> None:
        branch = Branch()
        branch.step(paid(1))
        for _ in range(2):
            branch.step(*[Receipt("ledger", (booked_id(1),))] * 2)
        assert branch.rows("outbox", "reader") == [("statistics",)]

    def test_positions_count_published_events(self) -> None:
        branch = Branch()
        assert [row.position for row in branch.step(paid(1), paid(2)).published] == [1, 2]
        assert branch.step(paid(3, 0)).published == []
        assert [row.position for row in branch.step(paid(4)).published] == [3]


class TestAdoption:
    """A database that only this process can open: whoever else left something is gone."""

    def test_adopted_rows_follow_own_rows_in_order(self) -> None:
        branch = Branch()
        branch.step(paid(1))
        branch.enqueue("dead-a", 7, 9, 12)
        branch.enqueue("dead-b", 1, 2)
        last = branch.writer.adopt(NOW, 15)
        assert [
            (position, body) for _, position, body in branch.outbox() if body.startswith(b"dead")
        ] == [
            (2, b"dead-a 7"),
            (4, b"dead-a 9"),
            (7, b"dead-a 12"),
            (8, b"dead-b 1"),
            (9, b"dead-b 2"),
        ]
        assert {owner for owner, _, _ in branch.outbox()} == {OWNER}
        assert last == branch.writer.position == 9

    def test_new_events_follow_adopted_rows(self) -> None:
        branch = Branch()
        branch.enqueue("dead", 5, 6)
        assert branch.writer.adopt(NOW, 15) == 2
        assert [row.position for row in branch.step(paid(1)).published] == [3]

    def test_adopting_nothing_changes_nothing(self) -> None:
        branch = Branch()
        branch.step(paid(1))
        assert branch.writer.adopt(NOW, 15) == 1
        assert branch.writer.adopt(NOW, 15) == 1


class TestAgenda:
    def test_due_rows_are_handled_oldest_first(self) -> None:
        branch = Branch()
        for n, due in ((1, 3), (2, 1), (3, 2), (4, 99)):
            branch.open(n, balance=5, fee=2, due_at=seconds(due))
        actions = branch.step(now=seconds(3), effect_slots=10)
        assert effects(actions) == [SendBill(account_id(n)) for n in (2, 3, 1)]
        assert branch.balances() == {account_id(n): b for n, b in ((1, 3), (2, 3), (3, 3), (4, 5))}
        assert actions.next_due.effects_at == seconds(99)

    def test_row_is_not_handled_before_it_is_due(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=2, due_at=seconds(1))
        actions = branch.step(effect_slots=10)
        assert effects(actions) == []
        assert actions.next_due.effects_at == seconds(1)

    def test_row_stays_due_without_effect_slot(self) -> None:
        branch = Branch()
        branch.open(1, 2, 3, balance=5, fee=2, due_at=NOW)
        assert effects(branch.step(effect_slots=0)) == []
        assert effects(branch.step(effect_slots=2)) == [
            SendBill(account_id(1)),
            SendBill(account_id(2)),
        ]
        actions = branch.step(effect_slots=2)
        assert effects(actions) == [SendBill(account_id(3))]
        assert actions.next_due.effects_at is None

    def test_due_rows_of_a_batch_are_limited(self) -> None:
        branch = Branch(due_max=2)
        branch.open(1, 2, 3, balance=5, fee=2, due_at=NOW)
        actions = branch.step(effect_slots=100)
        assert len(actions.effects) == 2
        assert actions.next_due.effects_at == NOW

    def test_row_due_at_once_is_handled_in_the_same_commit(self) -> None:
        branch = Branch()
        ask = branch.command(OpenAccount(account_id=account_id(1), balance=5, fee=2, due_at=NOW))
        actions = branch.step(ask, effect_slots=1)
        assert effects(actions) == [SendBill(account_id(1))]
        assert actions.answers[0][1].balance == 3

    def test_row_due_at_once_stays_due_without_effect_slot(self) -> None:
        branch = Branch()
        asks = [
            branch.command(OpenAccount(account_id=account_id(n), balance=5, fee=2, due_at=NOW))
            for n in (1, 2)
        ]
        actions = branch.step(*asks, effect_slots=1)
        assert effects(actions) == [SendBill(account_id(1))]
        assert actions.next_due.effects_at == NOW

    def test_due_rows_and_rows_due_at_once_share_the_effect_slots(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=2, due_at=seconds(-1))
        ask = branch.command(OpenAccount(account_id=account_id(2), balance=5, fee=2, due_at=NOW))
        assert len(branch.step(ask, effect_slots=1).effects) == 1
        assert len(branch.step(effect_slots=1).effects) == 1

    @pytest.mark.parametrize(
        "poison",
        [{"balance": 5, "fee": 0}, {"balance": 5, "fee": 9}],
        ids=["raises", "is refused by the database"],
    )
    def test_failing_due_row_is_postponed_and_blocks_nothing(self, poison: dict[str, int]) -> None:
        branch = Branch()
        branch.open(1, **poison, due_at=seconds(-9))
        branch.open(2, balance=5, fee=2, due_at=NOW)
        branch.open(3, balance=5, fee=2, due_at=seconds(5))
        actions = branch.step(paid(4), effect_slots=10)
        assert effects(actions) == [SendBill(account_id(2))]
        assert branch.balances()[account_id(4)] == 1
        assert actions.next_due.effects_at is not None
        assert NOW < actions.next_due.effects_at <= seconds(5)

        later = branch.step(now=seconds(5), effect_slots=1)
        assert effects(later) == [SendBill(account_id(3))]

    def test_postponed_row_is_retried_later_without_spinning(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=0, due_at=NOW)
        assert effects(branch.step(effect_slots=1)) == []
        branch.open(1, balance=5, fee=2, due_at=NOW)
        now, actions = NOW, PostCommitActions()
        while not actions.effects:
            actions = branch.step(now=now, effect_slots=1)
            assert actions.effects or actions.next_due.effects_at > now  # type: ignore[operator]
            now = actions.next_due.effects_at or now
        assert effects(actions) == [SendBill(account_id(1))]
        assert now == seconds(POSTPONED_SECONDS)

    def test_postponed_row_hides_no_other_due_row(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=0, due_at=seconds(-1))
        branch.open(2, 3, balance=5, fee=2, due_at=NOW)
        branch.step(effect_slots=1)
        actions = branch.step(effect_slots=1)
        assert effects(actions) == [SendBill(account_id(2))]
        assert actions.next_due.effects_at == NOW


class TestUnavailableDatabase:
    def branch(self) -> tuple[Branch, list[str | None]]:
        database = Faulty()
        return Branch(database), database.faults  # type: ignore[arg-type]

    def test_batch_can_be_retried_after_database_was_unavailable(self) -> None:
        branch, faults = self.branch()
        faults.append("before")
        with pytest.raises(DatabaseUnavailable):
            branch.step(paid(1, 7), paid(2, 8))
        assert branch.balances() == {}
        actions = branch.step(paid(1, 7), paid(2, 8))
        assert branch.balances() == {account_id(1): 7, account_id(2): 8}
        assert [row.position for row in actions.published] == [1, 2]

    def test_commit_with_unknown_result_is_not_repeated(self) -> None:
        branch, faults = self.branch()
        faults.append("after")
        with pytest.raises(DatabaseUnavailable):
            branch.step(paid(1, 7))
        actions = branch.step(paid(1, 7))
        assert branch.balances() == {account_id(1): 7}
        assert actions.acks == [paid(1, 7).delivery]
        assert actions.published == []

    def test_commit_with_unknown_result_clears_the_cache(self) -> None:
        branch, faults = self.branch()
        branch.open(1, balance=10, fee=3, due_at=NOW)
        faults.append("after")
        with pytest.raises(DatabaseUnavailable):
            branch.step(paid(1, 5))
        branch.step(effect_slots=1)
        assert branch.balances() == {account_id(1): 12}

    def test_position_includes_commit_with_unknown_result(self) -> None:
        """Else what it said would share its positions with what is said next, and never be sent."""
        branch, faults = self.branch()
        branch.step(paid(1))
        faults.append("after")
        with pytest.raises(DatabaseUnavailable):
            branch.step(paid(2), paid(3))
        branch.step(paid(2), paid(3))
        assert branch.writer.position == 3
        assert [row.position for row in branch.step(paid(4)).published] == [4]
        positions = [(body, position) for _, position, body in branch.outbox()]
        assert sorted({position for _, position in positions}) == [1, 2, 3, 4]

    def test_parts_of_a_rejected_batch_are_not_lost(self) -> None:
        branch, faults = self.branch()
        # The batch is refused, the first is committed, the second is refused and put back.
        faults += [None, None, None, None, "before"]
        batch = (paid(1), paid(2, -1), paid(3))
        with pytest.raises(DatabaseUnavailable):
            branch.step(*batch)
        branch.step(*batch)
        assert branch.balances() == {account_id(1): 1, account_id(3): 1}
        assert branch.writer.position == 2
        assert sorted({position for _, position, _ in branch.outbox()}) == [1, 2]


class TestStreamPosition:
    """What a restored database is told by: a place that is noted too low makes it recover in vain."""

    @staticmethod
    def places(branch: Branch) -> list[tuple[Any, ...]]:
        return branch.rows("stream_positions", "incarnation", "sequence")

    @staticmethod
    def places_of_owners(branch: Branch) -> list[tuple[Any, ...]]:
        return branch.rows("owner_positions", "owner", "stream_epoch", "sequence")

    def test_last_sequence_is_saved_for_each_stream_epoch(self) -> None:
        branch = Branch()
        branch.step(paid(1, sequence=7, epoch="a"), paid(2, sequence=9, epoch="a"))
        branch.step(paid(3, sequence=8, epoch="a"), paid(4, 0, sequence=10, epoch="a"))
        assert self.places(branch) == [("a", 9)]
        branch.step(paid(5, sequence=1, epoch="b"))
        assert self.places(branch) == [("a", 9), ("b", 1)]

    def test_batch_may_hold_messages_of_two_stream_epochs(self) -> None:
        branch = Branch()
        branch.step(paid(1, sequence=9, epoch="a"), paid(2, sequence=1, epoch="b"))
        assert self.places(branch) == [("a", 9), ("b", 1)]

    def test_slower_replica_does_not_lower_the_sequence(self) -> None:
        ahead = Branch()
        behind = Branch(ahead.database, owner="bank-2")
        behind.step(paid(1, sequence=1, epoch="a"))
        ahead.step(paid(2, sequence=20, epoch="a"))
        behind.step(paid(3, sequence=15, epoch="a"))
        assert self.places(ahead) == [("a", 20)]

    @pytest.mark.parametrize("exclusive", [True, False])
    def test_sequence_is_saved_with_the_successful_commit(self, exclusive: bool) -> None:
        database = Faulty()
        database.exclusive = exclusive
        branch = Branch(database)  # type: ignore[arg-type]
        branch.step(paid(1, sequence=5, epoch="a"))
        database.faults.append("before")
        with pytest.raises(DatabaseUnavailable):
            branch.step(paid(2, sequence=10, epoch="a"))
        branch.step(paid(2, sequence=10, epoch="a"))
        if exclusive:
            assert self.places(branch) == [("a", 10)]
        else:
            assert self.places_of_owners(branch) == [(branch.writer.owner, "a", 10)]

    def test_replicas_save_in_rows_of_their_own(self) -> None:
        database = Faulty()
        database.exclusive = False
        one = Branch(database)  # type: ignore[arg-type]
        two = Branch(database, owner="bank-2")  # type: ignore[arg-type]
        one.step(paid(1, sequence=20, epoch="a"))
        two.step(paid(2, sequence=15, epoch="a"))
        assert self.places(one) == []
        assert self.places_of_owners(one) == [(one.writer.owner, "a", 20), ("bank-2", "a", 15)]
        positions = one.tables.positions
        with database.read() as connection:
            assert positions.get(connection, "a") == 20
            assert positions.saved_by(connection, "a", "bank-2") == 15
            assert not positions.is_new(connection)

    def test_rows_of_dead_owners_are_merged(self) -> None:
        database = Faulty()
        database.exclusive = False
        one = Branch(database)  # type: ignore[arg-type]
        two = Branch(database, owner="bank-2")  # type: ignore[arg-type]
        one.writer.adopt(seconds(0), 10)
        one.step(paid(1, sequence=20, epoch="a"))
        two.step(paid(2, sequence=25, epoch="a"), paid(3, sequence=3, epoch="b"))
        one.writer.adopt(seconds(1), 10)
        assert self.places(one) == [("a", 25), ("b", 3)]
        assert self.places_of_owners(one) == [(one.writer.owner, "a", 20)]
        # It lives after all.
        database.faults.append("before")
        with pytest.raises(DatabaseUnavailable):
            two.step(paid(4, sequence=4, epoch="b"))
        two.step(paid(4, sequence=4, epoch="b"))
        assert self.places_of_owners(one)[-1] == ("bank-2", "b", 4)

    @pytest.mark.parametrize("others", [0, 9])
    def test_database_that_went_back_under_a_process_ends_it(self, others: int) -> None:
        """PostgreSQL was restored, or replaced by a server that lacks the last commits. The connection is
        lost by that, and the next start of the process recovers. What others have handled since then does not
        hide it."""
        database = Faulty()
        database.exclusive = False
        one = Branch(database)  # type: ignore[arg-type]
        one.step(paid(1, sequence=5, epoch="a"))
        with database.transaction() as connection:
            connection.execute(one.tables.positions.by_owner.update().values(sequence=4))
        if others:
            two = Branch(database, owner="bank-2")  # type: ignore[arg-type]
            two.step(paid(2, sequence=others, epoch="a"))
        database.faults.append("before")
        with pytest.raises(DatabaseUnavailable):
            one.step(paid(3, sequence=6, epoch="a"))
        with pytest.raises(DatabaseBroken, match="up to 4, and this process had committed up to 5"):
            one.step(paid(3, sequence=6, epoch="a"))

    def test_idle_replica_notes_what_others_have_handled(self) -> None:
        database = Faulty()
        database.exclusive = False
        one = Branch(database)  # type: ignore[arg-type]
        two = Branch(database, owner="bank-2")  # type: ignore[arg-type]
        one.step(paid(1, sequence=5_000, epoch="a"))
        two.writer.maintenance.note_position("a", 5_100)
        assert self.places_of_owners(one) == [(one.writer.owner, "a", 5_000)]
        two.writer.maintenance.note_position("a", 6_500)
        assert self.places_of_owners(one)[-1] == ("bank-2", "a", 6_500)

    def test_sequence_is_saved_when_a_batch_is_split(self) -> None:
        branch = Branch()
        branch.step(paid(1, sequence=5, epoch="a"), paid(2, -1, sequence=6, epoch="a"))
        assert self.places(branch) == [("a", 5)]


class TestInbox:
    def test_prune_deletes_limited_number_of_old_entries(self) -> None:
        branch = Branch()
        for n in range(4):
            branch.step(paid(n), now=seconds(n))
        assert branch.writer.maintenance.prune_inbox(seconds(3), 2) == 2
        assert branch.writer.maintenance.prune_inbox(seconds(3), 2) == 1
        assert branch.writer.maintenance.prune_inbox(seconds(3), 2) == 0
        assert branch.inbox() == {paid_id(3)}


def test_failpoints_surround_the_commit() -> None:
    seen: list[tuple[str, Any]] = []
    branch: Branch

    def look(point: str) -> None:
        seen.append((point, branch.writer.position))

    branch = Branch(failpoint=look)
    branch.step(paid(1))
    assert seen == [("before-commit", 0), ("after-commit", 0)]
