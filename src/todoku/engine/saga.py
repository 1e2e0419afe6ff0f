"""Versions of the saga: an order that began before a step was added finishes without that step."""

from collections.abc import Callable, Mapping
from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar

from todoku.engine.decisions import Decide
from todoku.events import Context, Event

S = TypeVar("S", default=Any)


class BySagaVersion(Generic[S]):
    """An event handler for each version of the saga: `BySagaVersion({1: reserve_stock, 2: None})`.

    A key is the first version in which its handler is used. None means that the event needs no decision
    here in that version; so it is before the first key.
    """

    def __init__(self, handlers: Mapping[int, Decide[S] | None]) -> None:
        self._newest_first = sorted(handlers.items(), key=lambda item: -item[0])

    def handler(self, version: int) -> Decide[S] | None:
        """Return the handler in this version of the saga, None if there is none."""
        return next((handler for since, handler in self._newest_first if since <= version), None)


def by_saga_version(
    events: Mapping[int, type[Event]], handler: Decide[S]
) -> Mapping[type[Event], Decide[S] | BySagaVersion[S]]:
    """Return the event handlers of a step whose event depends on the version of the saga.

    Each event is handled in the sagas from its version to that of the next one, which replaces it.
    """
    versions = sorted(events)
    if len(versions) == 1:
        return {events[versions[0]]: handler}
    handlers: dict[type[Event], dict[int, Decide[S] | None]] = {}
    for version, replaced_in in zip(versions, (*versions[1:], None), strict=True):
        handlers.setdefault(events[version], {})[version] = handler
        if replaced_in is not None:
            handlers[events[version]][replaced_in] = None
    return {event: BySagaVersion(by_version) for event, by_version in handlers.items()}


class SagaStart(msgspec.Struct, frozen=True, kw_only=True):
    """How the service that starts sagas keeps the version of each.

    `version` is that of the sagas that begin now. `version_of` returns the version of a state, None if
    the state is absent or no saga. `with_version` returns the state of a saga that begins, with its
    version, which never changes again.
    """

    version: int
    version_of: Callable[[Any], int | None]
    with_version: Callable[[Any, int], Any]

    def begin(self, before: Any, state: Any, context: Context, version: int) -> tuple[Any, Context]:
        """Return the state, with this version if its saga begins with this decision, and the context
        with the version of the state's saga."""
        current = self.version_of(state)
        if current is None:
            return state, context
        if current != version and self.version_of(before) is None:
            state, current = self.with_version(state, version), version
        if current == context.saga_version:  # As in most sagas.
            return state, context
        return state, _in_version(context, current)

    def context(self, state: Any, context: Context) -> Context:
        """Return the context with the version of this state's saga."""
        version = self.version_of(state)
        return context if version is None else _in_version(context, version)


def _in_version(context: Context, version: int) -> Context:
    if version == context.saga_version:
        return context
    return msgspec.structs.replace(context, saga_version=version)
