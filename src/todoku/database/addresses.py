"""Parse where a database is: a path, or a URL or connection string in a form that libpq takes."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from todoku.database.errors import DatabaseUnsuitable
from todoku.database.postgresql import parse_connection_string

IN_MEMORY = ":memory:"

KEYWORD_FORM = re.compile(
    r"\s*(host|hostaddr|port|dbname|user|password|passfile|password_file|service|options|application_name"
    r"|client_encoding|connect_timeout|sslmode|target_session_attrs)\s*=",
)
"""How a connection string of libpq starts: `host=127.0.0.1 dbname=orders`."""

POSTGRESQL = re.compile(r"(postgres|postgresql|postgresql\+psycopg)://")
SQLITE = "sqlite:///"

USE_INSTEAD = "write a path, sqlite:///path, or postgresql://USER@HOST/DATABASE"


class Address(msgspec.Struct, frozen=True):
    """Hold where a database is: the path of a SQLite file, or libpq's parameters.

    `name` has no password. Neither a path nor parameters: SQLite in memory.
    """

    name: str
    path: Path | None = None
    parameters: Mapping[str, str] | None = None


def parse_address(where: str | Path) -> Address:
    """Parse a setting. Raises `DatabaseUnsuitable` for a form that is not supported."""
    if isinstance(where, Path):
        return _file(str(where))
    if KEYWORD_FORM.match(where):
        return _postgresql(where)
    if POSTGRESQL.match(where):
        return _postgresql(f"postgresql://{where.partition('://')[2]}")
    scheme, separator, rest = where.partition("://")
    if not separator:
        return _plain(where)
    if scheme != "sqlite":
        raise DatabaseUnsuitable(f"There is no support for {_shown(scheme)}: {USE_INSTEAD}.")
    if rest and not rest.startswith("/"):
        raise DatabaseUnsuitable(f"sqlite://{rest} has two slashes: write sqlite:///{rest}.")
    if "?" in rest:
        raise DatabaseUnsuitable(f"sqlite:// takes no parameters: {USE_INSTEAD}.")
    return _file(rest.removeprefix("/"))


def file_of(where: str | Path) -> Path | None:
    """Return the file of a SQLite database; None for others and for what cannot be parsed."""
    if is_postgresql(where):
        return None  # Parsing it would import the driver.
    try:
        return parse_address(where).path
    except DatabaseUnsuitable:
        return None  # Opening it raises an error that says what to write.


def is_postgresql(where: str | Path) -> bool:
    """Return whether a setting names a PostgreSQL database, without importing a driver."""
    return isinstance(where, str) and bool(KEYWORD_FORM.match(where) or POSTGRESQL.match(where))


def _plain(text: str) -> Address:
    if re.match(r"(postgres|postgresql|sqlite|file|jdbc)(\+\w+)?:", text):
        raise DatabaseUnsuitable(f"{_shown(text)} is not a database URL: {USE_INSTEAD}.")
    return _file(text)


def _file(text: str) -> Address:
    if text in ("", IN_MEMORY):
        return Address(IN_MEMORY)
    path = Path(text).resolve()  # So that two names of one file share one lock.
    return Address(str(path), path=path)


def _postgresql(text: str) -> Address:
    parameters = parse_connection_string(text)
    user = f"{parameters['user']}@" if "user" in parameters else ""
    host = parameters.get("host") or parameters.get("hostaddr") or ""
    port = f":{parameters['port']}" if "port" in parameters else ""
    name = f"postgresql://{user}{host}{port}/{parameters.get('dbname', '')}"
    return Address(name, parameters=parameters)


def _shown(text: str) -> str:
    """Return the scheme of an address only: the rest may contain a password."""
    return text.partition(":")[0] or "this"
