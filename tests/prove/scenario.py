"""What an exploration explores: services, what clients may ask of them, and what must always hold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from todoku.engine import Service
from todoku.events import Event


class Asked(msgspec.Struct, frozen=True):
    """A command that a client may send to a service at any moment: once, repeatedly or not at all."""

    text: str
    service: str
    command: Any


class Outside(msgspec.Struct, frozen=True):
    """The outside that an effect calls, such as a carrier.

    It decides once about each effect: one of `answers`. `unknown` is what comes when the answer is lost.
    `command` makes the service's next command from an effect and an answer.
    """

    answers: Sequence[Any]
    unknown: Any
    command: Callable[[Any, Any], Any]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one entity in one state of the exploration.

    `states` is what each service knows about it. `published` are its events, `reworded` those of them
    that were published again with other contents, `waiting` those that some subscriber has not handled,
    by subscriber. `calls` are the effects that are running, `outside` what the outside has decided about
    each. `asked` are the commands that were executed, `written` what was added to a ledger. `silent` says
    that nothing happens any more unless a client or a fault begins it.
    """

    key: str
    states: Mapping[str, Any]
    published: frozenset[Event]
    reworded: frozenset[Event]
    waiting: frozenset[tuple[str, Event]]
    calls: tuple[Any, ...]
    outside: Mapping[Any, Any]
    asked: frozenset[Any]
    written: tuple[Any, ...]
    silent: bool


Problems = Iterable[str]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """The services, what clients do, and the checks. Two entities with the same commands are one `Plan`.

    `setup` is executed first. `common` are commands that are about no entity, each at most once.
    `check_step` compares an entity before and after a step, `check` looks at it in every state, and
    `check_total` at what the entities share, with `measure` of each of them. `outcome` returns what is given
    about an entity at rest, and what must follow from that, whatever the order of arrival was.
    """

    services: tuple[Service, ...]
    plans: Sequence[tuple[str, Sequence[Asked]]]
    outside: Outside
    setup: Sequence[Asked] = ()
    common: Sequence[Asked] = ()
    check_step: Callable[[Seen, Seen], Problems]
    check: Callable[[Seen], Problems]
    measure: Callable[[Seen], tuple[int, ...]]
    check_total: Callable[[Sequence[tuple[int, ...]], Mapping[str, Any]], Problems]
    outcome: Callable[[Seen], tuple[object, object]]
    republishes: bool = False
