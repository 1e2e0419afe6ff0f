"""Describe every setting of a system, and put their values together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Protocol, get_args, get_type_hints

import msgspec
from msgspec import Meta, inspect

from todoku.settings.base import Settings
from todoku.settings.types import Port, Span

ENVIRONMENT_PREFIX = "TODOKU_"
FIRST_PORT = 8080
OF_SERVICES = ("ports", "database_urls", "database_password_files", "own_settings")
"""The fields of `Settings` that hold what the services add."""


class Declares(Protocol):
    """What a service declares about its settings."""

    @property
    def name(self) -> str:
        """The name of the service."""

    @property
    def settings(self) -> type[msgspec.Struct] | None:
        """Its own settings, if it has any."""

    @property
    def default_port(self) -> int | None:
        """The port that it has by default; without one, it gets the next that is free."""


class DeclarationInvalid(ValueError):
    """What a service declares cannot be used."""


class Setting(msgspec.Struct, frozen=True):
    """A setting, as it is documented and converted."""

    name: str
    type: Any
    default: Any
    meaning: str
    allowed: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return variable_of(self.name)

    @property
    def file_variable(self) -> str:
        """The variable that names a file with its value, as container platforms mount secrets."""
        return f"{self.variable}_FILE"

    @property
    def may_hold_secret(self) -> bool:
        """Whether its value may hold a password: it is an address."""
        return self.name.endswith("_url")

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return flag_of(self.name)

    @property
    def type_is_path(self) -> bool:
        """Whether its value is a path, if it has one."""
        return Path in get_args(get_args(self.type)[0])

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, and so a flag without a value."""
        return isinstance(self.default, bool)

    def convert(self, written: object) -> Any:
        """Return the value that was written in a flag, a variable or a file. Raises `ValueError`."""
        if isinstance(written, str) and "\0" in written:
            raise ValueError(written)  # A file may have it; no path, host or address can.
        if isinstance(self.default, Path) or (self.type_is_path and written is not None):
            return _absolute_path(written)
        if isinstance(self.default, Span):
            return Span.parse(written)
        value = msgspec.convert(written, self.type, strict=False)
        if value != value:  # not a number: it would pass every limit
            raise ValueError(written)
        return value


def variable_of(name: str) -> str:
    """Return the name that a setting has in the environment."""
    return ENVIRONMENT_PREFIX + name.upper()


def flag_of(name: str) -> str:
    """Return the name that a setting has on the command line."""
    return "--" + name.replace("_", "-")


def port_flag(service: str) -> str:
    """Return the flag that sets a service's port."""
    return flag_of(f"{service}_port")


def declare(services: Sequence[Declares]) -> dict[str, Setting]:
    """Return every setting of a system by its name. Raises `DeclarationInvalid`.

    Those of every system come first, then port, database and own settings of each service.
    """
    declared = {each.name: each for each in _describe(Settings)}
    ports = default_ports(services)
    for service in services:
        for each in (*_port_and_database(service.name, ports), *_own(service)):
            if each.name in declared:
                raise DeclarationInvalid(
                    f"{service.name} declares the setting {each.name}, which there is already:"
                    " choose another name."
                )
            declared[each.name] = each
    return declared


def compose(values: Mapping[str, Any], services: Sequence[Declares]) -> Settings:
    """Return the settings of a system from their values by name; the others have their defaults."""
    ports = default_ports(services)
    names = {field.name for field in msgspec.structs.fields(Settings)} - {*OF_SERVICES}
    own = tuple(_own_struct(each.settings, values) for each in services if each.settings)
    return Settings(
        **{name: value for name, value in values.items() if name in names},
        ports={name: values.get(f"{name}_port", port) for name, port in ports.items()},
        database_urls={each.name: values.get(f"{each.name}_database_url") for each in services},
        database_password_files={
            each.name: values.get(f"{each.name}_database_password_file") for each in services
        },
        own_settings=own,
    )


def values_of(settings: Settings) -> dict[str, Any]:
    """Return the value of every setting by its name."""
    values = msgspec.structs.asdict(settings)
    for name in OF_SERVICES:
        del values[name]
    values |= {f"{name}_port": port for name, port in settings.ports.items()}
    values |= {f"{name}_database_url": url for name, url in settings.database_urls.items()}
    values |= {
        f"{name}_database_password_file": path
        for name, path in settings.database_password_files.items()
    }
    for own in settings.own_settings:
        values |= msgspec.structs.asdict(own)
    return values


def default_ports(services: Sequence[Declares]) -> dict[str, int]:
    """Return the default port of each service, by its name."""
    taken = {each.default_port for each in services}
    free = (port for port in count(FIRST_PORT) if port not in taken)
    return {each.name: each.default_port or next(free) for each in services}


def _own_struct(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> msgspec.Struct:
    names = [field.name for field in msgspec.structs.fields(kind)]
    return kind(**{name: values[name] for name in names if name in values})


def _own(service: Declares) -> Iterator[Setting]:
    if service.settings is None:
        return
    for each in _describe(service.settings):
        if each.default is msgspec.NODEFAULT:
            raise DeclarationInvalid(
                f"the setting {each.name} of {service.name} has no default: give it one, or None."
            )
        yield each


def _port_and_database(service: str, ports: Mapping[str, int]) -> Iterator[Setting]:
    port = Annotated[Port, Meta(description=f"The port of the {service} service.")]
    yield _setting(f"{service}_port", port, ports[service])
    meaning = f"The {service} database; without one, {service}.db in the data folder."
    url = Annotated[str | None, Meta(description=meaning)]
    yield _setting(f"{service}_database_url", url, None)
    meaning = (
        f"The file with the password of the {service} database, if its URL has none (PostgreSQL); read at"
        " each connection, so that the password can change."
    )
    file = Annotated[
        Path | None, Meta(description=meaning, extra={"allowed": "the path of a file"})
    ]
    yield _setting(f"{service}_database_password_file", file, None)


def _describe(struct: type[msgspec.Struct]) -> Iterator[Setting]:
    annotations = get_type_hints(struct, include_extras=True)
    # msgspec has those of a base class first.
    fields = sorted(
        msgspec.structs.fields(struct), key=lambda f: f.name not in struct.__annotations__
    )
    for field in fields:
        if struct is not Settings or field.name not in OF_SERVICES:
            yield _setting(field.name, annotations[field.name], field.default)


def _setting(name: str, annotation: Any, default: Any) -> Setting:
    kind = inspect.type_info(annotation)
    schema = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    if not schema or "description" not in schema:
        raise DeclarationInvalid(
            f"the setting {name} has no meaning: give its type a msgspec.Meta(description=…)."
        )
    return Setting(name, annotation, default, schema["description"], _what_is_allowed(kind))


def _what_is_allowed(kind: inspect.Type) -> str:
    """Return the limits of a type in words."""
    match kind:
        case inspect.Metadata(extra={"allowed": str(allowed)}):
            return allowed
        case inspect.Metadata(type=inner) | inspect.UnionType(types=(inner, inspect.NoneType())):
            return _what_is_allowed(inner)
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case _:
            return "a text"


def _absolute_path(written: object) -> Path:
    """Return a path as a person writes it, independent of the working directory."""
    if not isinstance(written, str | Path) or not str(written):
        raise ValueError(written)
    return Path(os.path.abspath(os.path.expanduser(written)))
