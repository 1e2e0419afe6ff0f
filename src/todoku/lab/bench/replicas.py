"""Runs more processes of each service beside a stack, and puts a delay before its databases."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import msgspec

from todoku.database.addresses import parse_address
from todoku.lab.stack import TODOKU, Stack, free_ports
from todoku.lab.system_client import SystemClient
from todoku.settings import Settings, to_environment
from todoku.system import load_system

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05
POSTGRESQL_PORT = "5432"


class Replica(msgspec.Struct, frozen=True):
    """One more process of a service."""

    service: str
    port: int
    pid: int
    client: SystemClient

    def metrics(self) -> Mapping[str, float]:
        """Return its metrics."""
        return self.client.metrics(self.service)


class NoDelay(Exception):
    """A database cannot be delayed. The message says why."""


@contextmanager
def more_replicas(stack: Stack, count: int) -> Iterator[dict[str, Replica]]:
    """Run processes of each service until there are `count`, with the one of the stack; yield those by name.
    Raises `TimeoutError` if one does not become ready."""
    with ExitStack() as running:
        found = {
            f"{service}-{number}": running.enter_context(_replica(stack, service))
            for number in range(2, count + 1)
            for service in stack.services
        }
        deadline = time.monotonic() + READY_SECONDS_MAX
        for name, replica in found.items():
            while not replica.client.is_ready(replica.service):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} did not become ready: see {stack.log}")
                time.sleep(POLL_SECONDS)
        yield found


@contextmanager
def _replica(stack: Stack, service: str) -> Iterator[Replica]:
    port = free_ports(1)[0]
    settings = msgspec.structs.replace(
        stack.settings, ports={**stack.settings.ports, service: port}
    )
    with stack.log.open("a") as log:
        process = subprocess.Popen(
            [*TODOKU, "run", service],
            env={**os.environ, **to_environment(settings)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Replica(service, port, process.pid, SystemClient(settings, timeout_seconds=5.0))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
