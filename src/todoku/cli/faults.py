"""Tell what is broken and keeps an order waiting, from the evidence: pure functions.

In the sequence in which it stops an order: the disk, the services that the order waits for, the broker, a
recovery, pauses, clocks, the broker's configuration.
"""

from collections.abc import Iterator
from typing import Final

from todoku.cli.causes import Action, Cause, as_sentence, concerned
from todoku.cli.checks.network import CLOCK_SECONDS_MAX
from todoku.cli.evidence import Evidence
from todoku.cli.formatting import counted

SPARE_BYTES: Final = 100 * 2**20
"""With less free space, a disk counts as full."""


def faults(evidence: Evidence) -> Iterator[Cause]:
    """Yield what is broken."""
    for fault in (_disk, broken_services, _broker, _recoveries, _pauses, _clocks, _configuration):
        yield from fault(evidence)


def _disk(evidence: Evidence) -> Iterator[Cause]:
    free = {
        name: state.metrics.get("todoku_disk_free_bytes") for name, state in concerned(evidence)
    }
    full = [name for name, found in free.items() if found is not None and found < SPARE_BYTES]
    here = evidence.free_bytes is not None and evidence.free_bytes < SPARE_BYTES
    if not full and not here:
        return
    where = f"of {' and '.join(full)}" if full else "with the data folder"
    spare = min(
        (found for found in free.values() if found is not None), default=evidence.free_bytes
    )
    yield Cause(
        code="disk-full",
        text=f"The disk {where} is full: {(spare or 0) / 2**20:,.0f} MiB are free. Nothing is lost: what"
        " could not be saved is kept and retried.",
        fix="Free some space; the services go on by themselves.",
        actions=(Action("todoku doctor", "see the disk and the data folder"),),
    )


def broken_services(evidence: Evidence) -> Iterator[Cause]:
    """Yield the services that do not work."""
    for name, state in concerned(evidence):
        if state.wrong:
            yield Cause(
                code="service-not-ready" if state.answers else "service-does-not-answer",
                text=f"The {name} service does not work: {state.wrong}.",
                fix=as_sentence(state.fix),
                actions=(Action("todoku doctor", "check everything on this machine"),),
            )


def _broker(evidence: Evidence) -> Iterator[Cause]:
    found = evidence.broker
    cut_off = [
        name
        for name, state in concerned(evidence)
        if state.metrics.get("todoku_broker_connected", 1.0) == 0.0
    ]
    if found is not None:
        yield Cause(
            code="broker",
            text=f"The broker does not work: {found.found}. Orders are accepted all the same, and their"
            " events are kept until it does.",
            fix=as_sentence(found.fix),
            actions=(Action("todoku doctor", "check the broker again"),),
        )
    elif cut_off:
        yield Cause(
            code="broker-not-connected",
            text=f"The broker answers here, but not {' and '.join(cut_off)}.",
            fix="Check the network between them, and `nats_url` of that service.",
        )


def _recoveries(evidence: Evidence) -> Iterator[Cause]:
    for name, state in concerned(evidence):
        letters = int(state.metric("recovery_dead_letters"))
        if letters:
            yield Cause(
                code="recovery-waits",
                text=f"The {name} service handles nothing new: its database was restored or lost, and"
                f" {counted(letters, 'dead letter tells', 'dead letters tell')} what it lacks.",
                fix="Enter again what is missing, then retry them.",
                actions=(
                    Action(f"todoku dead list --service {name}", "see what is missing"),
                    Action(f"todoku dead retry --all --service {name}", "go on"),
                ),
            )
        elif state.metric("recovering"):
            yield Cause(
                code="recovering",
                text=f"The {name} service is checking whether its database is complete, and reads the stream."
                " Until then it makes no calls.",
                fix="Wait; if the broker is away, it goes on when that is back.",
            )


def _pauses(evidence: Evidence) -> Iterator[Cause]:
    names = {name for name, _ in concerned(evidence)}
    for pause in evidence.pauses:
        if pause.service in names:
            yield Cause(
                code="paused",
                text=f"{pause.text.rstrip('.')}. Nothing of it starts.",
                fix="Resume it when the reason is gone.",
                actions=(Action(f"todoku resume {pause.what}", "let it go on"),),
            )


def _clocks(evidence: Evidence) -> Iterator[Cause]:
    for name, state in concerned(evidence):
        if state.ahead_seconds is not None and abs(state.ahead_seconds) > CLOCK_SECONDS_MAX:
            yield Cause(
                code="clock",
                text=f"The clock of the {name} service differs by {state.ahead_seconds:+,.0f} s from this"
                " machine's: what is due is due by its clock.",
                fix="Synchronise both with a time service (chrony, systemd-timesyncd).",
            )


def _configuration(evidence: Evidence) -> Iterator[Cause]:
    if any(state.metric("broker_configuration_problems") for _, state in concerned(evidence)):
        yield Cause(
            code="broker-configuration",
            text="The stream, or a durable consumer, is misconfigured in a way that cannot be corrected.",
            fix="See what it is.",
            actions=(Action("todoku doctor", "see which field, and what to do"),),
        )
