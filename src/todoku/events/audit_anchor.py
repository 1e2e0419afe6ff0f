"""The base of the events that anchor the audit log of a service at another one."""

from typing import ClassVar

from todoku.events.event import Event


class AuditAnchoredEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """The head of a chain of the audit log of `service`: its row `sequence` has this `hash`, in hexadecimal.
    Whoever keeps it can tell later whether a row up to that one was changed or removed."""

    key_field: ClassVar[str] = "service"

    service: str
    chain: str
    sequence: int
    hash: str

    @property
    def fact(self) -> str:
        """Return the name of the fact: a service has many chains, and each grows."""
        return f"{type(self).__name__} {self.chain} {self.sequence}"
