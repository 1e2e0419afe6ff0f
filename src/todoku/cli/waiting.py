"""Describe what an order waits for."""

from collections.abc import Iterator, Mapping
from typing import Final

from todoku.cli.formatting import counted, day_and_time
from todoku.cli.responses import Waiting

WORDS: Final[Mapping[str, str]] = {
    "stock": "inventory to reserve the stock",
    "restock": "stock to arrive",
    "carrier": "the carrier to accept the parcel",
    "release": "the release of its holds",
    "cancellation": "the decision about its cancellation",
    "manualAction": "manual action",
}


def waiting_text(found: Waiting) -> str:
    """Return what an order waits for, since when and why; what a newer service names, by its own word."""
    return "; ".join(_parts(found))


def _parts(found: Waiting) -> Iterator[str]:
    yield f"{WORDS.get(found.what, found.what)}, since {day_and_time(found.since)}"
    for pause in found.pauses:
        what = pause.service if pause.target == "service" else pause.target
        yield f"{what} is paused since {day_and_time(pause.since)} by {pause.by}: {pause.reason}"
    if found.letter_id is not None:
        yield f"todoku dead show {found.letter_id} --service {found.service}"
    if found.attempts is not None:
        yield f"{counted(found.attempts, 'attempt')} failed, the last one with: {found.last_error}"
    if found.next_attempt_at is not None and found.reported_at is not None:
        yield (
            f"the next one is due {day_and_time(found.next_attempt_at)}"
            f" (as of {day_and_time(found.reported_at)})"
        )
