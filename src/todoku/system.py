"""List the services of a system, and find the system that the settings name."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from todoku.descriptor import Effects, ServiceDescriptor, resolve
from todoku.inventory.descriptor import inventory
from todoku.orders.descriptor import orders
from todoku.settings import (
    CONSOLE,
    Loaded,
    Origin,
    Setting,
    Settings,
    SettingsInvalid,
    Sources,
    compose,
    declare,
    load,
    unusable,
)
from todoku.shipping.descriptor import shipping

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from todoku.audit import Report
    from todoku.engine import Service
    from todoku.events import Event

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_NAMES = frozenset({"broker", "receipts", "ended", "nats", "up", "reader", CONSOLE})
"""They mean something else in subjects, settings, credentials or the output of `todoku up`."""


class System:
    """Services that work together, in the order in which an order passes them.

    `declared` has every setting by its name. Raises `ValueError` for a name of a service or a
    setting that cannot be used.
    """

    def __init__(self, *services: ServiceDescriptor) -> None:
        self.services = services
        self._by_name = {service.name: service for service in services}
        _check_names([service.name for service in services])
        self.declared: Mapping[str, Setting] = declare(services)

    def __iter__(self) -> Iterator[ServiceDescriptor]:
        return iter(self.services)

    def __getitem__(self, name: str) -> ServiceDescriptor:
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the services."""
        return tuple(self._by_name)

    def settings(self, **values: Any) -> Settings:
        """Return settings from these values by name; the others have their defaults."""
        unknown = values.keys() - self.declared.keys()
        if unknown:
            raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
        return compose(values, self.services)

    def build(self, settings: Settings, *, effects: Effects | None = None) -> "tuple[Service, ...]":
        """Return every service; `effects` replace those that the settings choose."""
        return tuple(service.build(settings, effects=effects) for service in self.services)

    def audit(
        self, connections: Mapping[str, "Connection"], now: datetime, *, overdue_after: timedelta
    ) -> "Report":
        """Check the databases, by service, for broken invariants."""
        from todoku.audit import audit

        parts = {s.name: None if s.audit is None else resolve(s.audit) for s in self.services}
        return audit(parts, connections, now, overdue_after=overdue_after)

    def examples(self) -> "Mapping[type[Event], Event]":
        """Return an event of each type that the services publish, by the type."""
        parts = (service.examples for service in self.services if service.examples is not None)
        return {kind: event for part in parts for kind, event in resolve(part).items()}


def _check_names(names: list[str]) -> None:
    for name in names:
        if not SERVICE_NAME.fullmatch(name) or name in RESERVED_NAMES:
            raise ValueError(
                f"a service cannot be called {name!r}: use lower-case letters, digits and _, and"
                f" none of {', '.join(sorted(RESERVED_NAMES))}"
            )
        if names.count(name) > 1:
            raise ValueError(f"two services are called {name!r}: rename one of them")


system = System(orders, inventory, shipping)
"""The built-in services."""

SYSTEM = system.declared["system"]
"""The setting that names the system."""


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
    on_this_machine: bool = False,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Load the settings of the system that they name. Raises `SettingsInvalid` with every problem.

    `defaults` replaces defaults for one command; `on_this_machine` takes those that the services
    declare for `todoku up`.
    """
    sources = Sources.read(flags, environment, directory)
    found = find_system(sources)
    local = [service.local_defaults for service in found] if on_this_machine else []
    replaced = {name: value for each in (*local, defaults or {}) for name, value in each.items()}
    return load(sources, found.services, defaults=replaced)


def find_system(sources: Sources) -> System:
    """Return the system that is set. Raises `SettingsInvalid`."""
    written, origin = sources.find(SYSTEM, SYSTEM.default)
    try:
        name = SYSTEM.convert(written)
    except ValueError:
        raise SettingsInvalid([unusable(SYSTEM, written, origin)]) from None
    return _resolved(name, origin)


def load_system(settings: Settings) -> System:
    """Return the system that the settings name. Raises `SettingsInvalid`."""
    return _resolved(settings.system, Origin("default"))


def _resolved(name: str, origin: Origin) -> System:
    try:
        found = resolve_name(name)
    except Exception as error:  # Importing a package runs whatever is in it.
        raise SettingsInvalid(
            [
                f"system names {name!r} ({origin}), which cannot be imported:"
                f" {type(error).__name__}: {error}. Install that package in this environment, put"
                f" its folder on PYTHONPATH, or correct {SYSTEM.variable}."
            ]
        ) from error
    if not isinstance(found, System):
        raise SettingsInvalid(
            [
                f"system names {name!r} ({origin}), which is a {type(found).__name__}:"
                " name a todoku.system.System."
            ]
        )
    return found
