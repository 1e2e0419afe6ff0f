"""Run PostgreSQL and PgBouncer of the operating system in folders of their own. Needs root."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from todoku.lab.stack import free_ports

READY_SECONDS_MAX = 60.0
USER = "postgres"

SETTINGS = "listen_addresses = '*'\nunix_socket_directories = ''\nmax_connections = 60\n"
TRUST = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n"


def _newest_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


BIN = _newest_bin()
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_postgresql = pytest.mark.skipif(
    os.geteuid() != 0 or BIN is None or not shutil.which("runuser"),
    reason="needs root and Debian's package postgresql",
)
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="needs Debian's package pgbouncer")
needs_namespaces = pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2")


class PostgreSQL:
    """A server on a free port; with `namespace`, inside that network namespace on `host`."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", namespace: str = "") -> None:
        self.data = folder / "data"
        self.host = host
        self.port = free_ports(1)[0]
        self._prefix = ("ip", "netns", "exec", namespace) if namespace else ()

    def create(self) -> None:
        """Create an empty cluster."""
        self._as_user(
            "initdb", "-D", str(self.data), "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"
        )
        self._append("postgresql.conf", f"{SETTINGS}port = {self.port}\n")
        self._append("pg_hba.conf", TRUST)

    def create_standby_of(self, primary: "PostgreSQL") -> None:
        """Copy a running server, and follow it asynchronously once started."""
        self._as_user(
            "pg_basebackup", "-R", "-D", str(self.data), "-d", primary.url("postgres"), "-c", "fast"
        )
        self._append("postgresql.conf", f"port = {self.port}\n")

    def stop_following(self) -> None:
        """Fall behind from now on, as by a slow network."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        self._as_user("pg_ctl", "-D", str(self.data), "-w", "promote")

    def start(self) -> None:
        self._as_user(
            "pg_ctl", "-D", str(self.data), "-l", str(self.data.with_name("log")), "-w", "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop, if it runs; `immediate` is like `kill -9` of all its processes."""
        if not (self.data / "postmaster.pid").exists():
            return
        with contextlib.suppress(subprocess.CalledProcessError):
            self._as_user("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_databases(self, names: Sequence[str]) -> None:
        for name in names:
            self.execute(f"CREATE DATABASE {name}")

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{self.host}:{self.port}/{database}"

    def _append(self, name: str, text: str) -> None:
        with (self.data / name).open("a") as file:
            file.write(text)

    def _as_user(self, program: str, *arguments: str) -> None:
        assert BIN is not None
        command = [*self._prefix, "runuser", "-u", USER, "--", str(BIN / program), *arguments]
        # Its output would keep pipes open for as long as the server runs.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@contextmanager
def postgresql(**options: str) -> Iterator[PostgreSQL]:
    """Run a server in a temporary folder outside of pytest's, which its user may not enter."""
    with tempfile.TemporaryDirectory(prefix="todoku-pg-") as name:
        folder = Path(name)
        shutil.chown(folder, USER)
        server = PostgreSQL(folder, **options)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def standby_of(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """Run an asynchronous standby of a server."""
    with tempfile.TemporaryDirectory(prefix="todoku-pg-") as name:
        shutil.chown(name, USER)
        server = PostgreSQL(Path(name))
        server.create_standby_of(primary)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pgbouncer(server: PostgreSQL, pool_mode: str) -> Iterator[int]:
    """Run PgBouncer before a server; return its port."""
    port = free_ports(1)[0]
    pool_size = 3 if pool_mode == "transaction" else 10  # Every client has a session of its own.
    with tempfile.TemporaryDirectory(prefix="todoku-pgb-") as name:
        folder = Path(name)
        shutil.chown(folder, USER)
        (folder / "users").write_text(f'"{USER}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={server.host} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder}/users\npool_mode = {pool_mode}\n"
            f"max_client_conn = 100\ndefault_pool_size = {pool_size}\nlogfile = {folder}/log\n"
        )
        for file in folder.iterdir():
            shutil.chown(file, USER)
        process = subprocess.Popen(
            ["runuser", "-u", USER, "--", str(PGBOUNCER), str(folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _until_listening(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.05)


class Machine:
    """A network namespace that can be cut off, as a machine that loses its power or its cable."""

    def __init__(self, number: int) -> None:
        self.name = f"todoku-{os.getpid()}-{number}"
        self.host = f"10.213.{number}.2"
        self._near = f"td{os.getpid() % 100_000}n{number}"
        self._far = f"td{os.getpid() % 100_000}f{number}"
        self._gateway = f"10.213.{number}.1"

    def __enter__(self) -> "Machine":
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", self.name)
        _ip("addr", "add", f"{self._gateway}/24", "dev", self._near)
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "addr", "add", f"{self.host}/24", "dev", self._far)
        _ip("-n", self.name, "link", "set", self._far, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._near)
        _ip("netns", "del", self.name)

    def cut_off(self) -> None:
        """Drop every packet, without a word to anybody."""
        _ip("-n", self.name, "link", "set", self._far, "down")

    def reconnect(self) -> None:
        _ip("-n", self.name, "link", "set", self._far, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdout=subprocess.DEVNULL)
