"""Describe a service in one object, from which everything else follows.

A descriptor is light: its heavy parts are named as `"module:attribute"` and imported when they are
used, so that a command that only needs names and ports stays quick.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import msgspec

from todoku.narration import Colour, Narration
from todoku.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from todoku.audit import AuditPart
    from todoku.diagnosis import Checks
    from todoku.engine import Reading, Service
    from todoku.events import Event
    from todoku.simulated import SimulatedService, World
    from todoku.web import Api, Backend

T = TypeVar("T")

Part: TypeAlias = str | T
"""A part of a service: the object itself, or its place as `"module:attribute"`."""

Effects: TypeAlias = Mapping[type[Any], Callable[[Any], Awaitable[Any]]]
"""What carries out each type of effect; what it returns is the service's next command."""


class ServiceDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """What a service is made of.

    name: how the service is called in subjects, settings, commands and documents.
    package: where it lives; its migrations are in the folder `migrations` of this package.
    service: builds the engine's `Service` from the settings: `(settings) -> Service`.
    api: what it offers over HTTP: `(backend) -> Api`.
    effects: builds what makes its calls to the outside: `(settings) -> Effects`. Only the process
        that runs the service calls it, so a plug-in that is missing stops that process alone.
    on_start: runs after the service has started and before it answers HTTP:
        `async (backend, settings) -> None`.
    settings: the struct of its own settings; each field has a default and a meaning. Port and
        database URL follow from the name.
    local_defaults: defaults of its own settings that differ under `todoku up`.
    default_port: its port where none is set; without one, the next that is free from 8080 on.
    collectors: its own Prometheus metrics, which `/metrics` shows beside those of the engine.
    readings: its own Prometheus metrics that are read from its database when they are scraped.
    checks: what `todoku doctor` checks while it runs: `(read_newest) -> Iterable[CheckResult]`.
    examples: an event of each type that it publishes, shown in the documents, by the type.
    narration: how its events read in `todoku order watch`; without one, they are lines without details.
    colour: of its name on a terminal.
    audit: what it contributes to `todoku verify`; without one, only its pending deliveries and its dead
        letters are checked.
    simulation: its part of `todoku simulate`: `(world) -> SimulatedService`. Without one, the rules
        of the engine are checked, and its effects fail, lose replies and come late.
    """

    name: str
    package: str
    service: Part[Callable[[Settings], "Service"]]
    api: Part[Callable[["Backend"], "Api"]]
    effects: Part[Callable[[Settings], Effects]] | None = None
    on_start: Part[Callable[["Backend", Settings], Awaitable[None]]] | None = None
    settings: type[msgspec.Struct] | None = None
    local_defaults: Mapping[str, object] = {}
    default_port: int | None = None
    examples: Part[Mapping[type["Event"], "Event"]] | None = None
    narration: Part[Narration] = Narration()
    colour: Colour = "green"
    audit: Part["AuditPart"] | None = None
    simulation: Part[Callable[["World"], "SimulatedService"]] = "todoku.simulated:SimulatedService"
    collectors: Part[Sequence["Collector"]] = ()
    readings: Part[Sequence["Reading"]] = ()
    checks: Part["Checks"] | None = None

    def build(self, settings: Settings, *, effects: Effects | None = None) -> "Service":
        """Return the engine's service; `effects` replace those that the settings choose."""
        service = resolve(self.service)(settings)
        if self.effects is None:
            return service
        return replace(
            service, effects=resolve(self.effects)(settings) if effects is None else effects
        )

    def build_api(self, backend: "Backend") -> "Api":
        """Return what the service offers over HTTP."""
        return resolve(self.api)(backend)

    async def started(self, backend: "Backend", settings: Settings) -> None:
        """Run what the service does at its start."""
        if self.on_start is not None:
            await resolve(self.on_start)(backend, settings)

    def simulated(self, world: "World") -> "SimulatedService":
        """Return the service's part of a simulated run."""
        return resolve(self.simulation)(world)


def resolve(part: Part[T]) -> T:
    """Return the part itself, imported if it is named. Raises what its import raises."""
    return cast(T, resolve_name(part)) if isinstance(part, str) else part
