"""The base of the event that a person was erased."""

from typing import ClassVar

from todoku.events.event import Event


class ErasureEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """A person was erased, to whom these orders belonged. `digest` is a salted one of the person's id: it
    tells whether a given id is the person's, and nothing else."""

    key_field: ClassVar[str] = "erasure_id"

    erasure_id: str
    digest: str
    order_ids: tuple[str, ...]
