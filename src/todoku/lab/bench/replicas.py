"""Runs more processes of each service beside a stack, and puts a delay before its databases."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from todoku.database.addresses import parse_address
from todoku.lab.replica import Replica
from todoku.lab.stack import Stack
from todoku.settings import Settings
from todoku.system import load_system

POSTGRESQL_PORT = "5432"


class NoDelay(Exception):
    """A database cannot be delayed. The message says why."""


@contextmanager
def more_replicas(stack: Stack, count: int) -> Iterator[dict[str, Replica]]:
    """Run processes of each service until there are `count`, with the one of the stack; yield those by name.
    Raises `TimeoutError` and `ChildProcessError` if one does not become ready."""
    with ExitStack() as running:
        found = {
            f"{service}-{number}": Replica(service, stack.settings, stack.log)
            for number in range(2, count + 1)
            for service in stack.services
        }
        for replica in found.values():
            replica.launch()
            running.callback(replica.stop)
        for replica in found.values():
            replica.until_ready()
        yield found


@contextmanager
def delayed_databases(settings: Settings, milliseconds: float) -> Iterator[Settings]:
    """Yield settings in which each database answers later by that time a round trip. Raises `NoDelay`."""
    urls = {name: settings.database_urls.get(name) for name in load_system(settings).names}
    targets = {name: _target(name, url) for name, url in urls.items()}
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "todoku.lab.delaying_proxy", str(milliseconds)),
            *(f"{host}:{port}" for host, port in targets.values()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        delayed = {
            name: _through(str(url), port)
            for (name, url), port in zip(urls.items(), ports, strict=True)
        }
        yield msgspec.structs.replace(settings, database_urls=delayed)
        # Leaving the block closes its standard input, which ends it.


def _target(service: str, url: str | None) -> tuple[str, str]:
    parameters = parse_address(url).parameters if url else None
    if parameters is None:
        raise NoDelay(f"the database of {service} is not on PostgreSQL: set its database URL")
    host, port = parameters.get("host", ""), parameters.get("port", POSTGRESQL_PORT)
    if not host or host.startswith("/") or "," in host + port:
        raise NoDelay(f"the database of {service} has no single TCP address")
    return host, port


def _through(url: str, port: str) -> str:
    """Return a connection string to the same database through a port of this machine."""
    parameters = {**(parse_address(url).parameters or {}), "host": "127.0.0.1", "port": port}
    parameters.pop("hostaddr", None)
    return " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
