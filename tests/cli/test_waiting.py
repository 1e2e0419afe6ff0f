"""What an order waits for, in words."""

from datetime import UTC, datetime, timedelta
from typing import Final

from todoku.cli.responses import Waiting
from todoku.cli.waiting import WORDS, waiting_text
from todoku.orders.domain import ORDER
from todoku.orders.waiting_for import MANUAL_ACTION, RELEASE, RESTOCK

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_everything_that_an_order_waits_for_has_words() -> None:
    waits_for = {status.stage.waits_for for status in ORDER.statuses if not status.terminal}
    assert waits_for | {MANUAL_ACTION, RELEASE, RESTOCK} <= WORDS.keys()


def test_what_a_newer_service_names_is_shown_by_its_own_word() -> None:
    assert waiting_text(Waiting(what="payment", since=NOW)).startswith("payment, since ")


def test_failed_attempts_are_counted_with_the_last_error_and_the_next_one() -> None:
    found = Waiting(
        what="carrier",
        since=NOW,
        attempts=3,
        last_error="TimeoutError",
        next_attempt_at=NOW + timedelta(seconds=8),
        reported_at=NOW,
    )
    text = waiting_text(found)
    assert text.startswith("the carrier to accept the parcel, since ")
    assert "; 3 attempts failed, the last one with: TimeoutError; the next one is due " in text


def test_parked_message_is_shown_with_the_command_that_shows_it() -> None:
    found = Waiting(what="manualAction", since=NOW, service="shipping", letter_id="letter")
    assert waiting_text(found).endswith("; todoku dead show letter --service shipping")
