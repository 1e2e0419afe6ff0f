"""What a tool is, and how its functions reach the services."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from todoku.cli.client import RESPONSE_SECONDS_MAX, ServiceClient, client
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.console.host import addresses
from todoku.settings import Settings

LIMIT_MAX: Final = 50

OrderId = Annotated[str, Meta(max_length=100, description="The id of an order.")]
Reason = Annotated[str, Meta(min_length=1, max_length=400, description="Why, in a sentence.")]
ServiceName = Annotated[
    str, Meta(max_length=100, description="A service: orders, inventory or shipping.")
]
Cursor = Annotated[
    str | None, Meta(description="nextCursor of the page before; left out: the first page.")
]
Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="The most items.")]


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the arguments of all tools."""


class Changing(Arguments, frozen=True, kw_only=True):
    """Base of the arguments of tools that change something."""

    confirm: Annotated[
        str | None,
        Meta(
            description="Left out: a dry run, which changes nothing and says what would be done. The token"
            " of the dry run: do it.",
        ),
    ] = None


class Services:
    """The services as the tools reach them: with the caller's credential, or the user's own."""

    def __init__(self, settings: Settings, *, agent: str, is_remote: bool) -> None:
        self.settings = settings
        self.agent = agent
        self.is_remote = is_remote
        """Whether callers come over HTTP: they see what services answer, and no file of this machine."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all services, in the order of the system."""
        return tuple(self._addresses)

    @cached_property
    def are_here(self) -> bool:
        """Whether all services run on this machine, as far as the settings say."""
        return all(self._url(name) is None for name in self._addresses)

    def client(self, name: str, seconds: float = RESPONSE_SECONDS_MAX) -> ServiceClient:
        """Return a client of a service. Raises `CommandFailed`."""
        if name not in self._addresses:
            raise CommandFailed(
                f"no service is called {name!r}: there are {', '.join(self.names)}.",
                exit_code=ExitCode.USAGE,
            )
        return client(name, self._url(name), self.settings, timeout_seconds=seconds)

    def get(self, name: str, path: str, query: Mapping[str, object] | None = None) -> Any:
        """Return what a service answers. Raises `CommandFailed`."""
        service = self.client(name)
        return service.read(service.get(path, query), object)

    @cached_property
    def _addresses(self) -> Mapping[str, str]:
        return addresses(self.settings)

    def _url(self, name: str) -> str | None:
        found = self._addresses[name]
        return None if found == self.settings.http_url(name) else found


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A change that a tool would make: the request, which may have no `body`, to each of `paths`; the same
    in words and as a command; and the state of what it is about."""

    service: str
    paths: tuple[str, ...]
    body: Mapping[str, Any] | None
    summary: str
    command: str
    about: Any
    takes_by: bool = False
    """Whether the body may say who decides; else only a credential does."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool: its arguments, and either what it `reads`, or what it `plans` to change."""

    name: str
    description: str
    arguments: type[Arguments]
    reads: Callable[[Services, Any], Any] | None = None
    plans: Callable[[Services, Any], Plan] | None = None

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of its arguments."""
        _, found = msgspec.json.schema_components([self.arguments])
        schema: dict[str, Any] = found[self.arguments.__name__]
        return {
            name: value for name, value in schema.items() if name not in ("title", "description")
        }
