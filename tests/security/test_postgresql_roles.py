"""On PostgreSQL each service has a role that touches only its own database, a password in a file, and TLS."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from faults.postgres import BIN, USER, PostgreSQL, needs_postgresql, postgresql
from security.certificates import Authority
from todoku.database import (
    Database,
    DatabaseError,
    DatabaseUnavailable,
    migrate,
    require_current,
    require_tables,
)
from todoku.database.errors import NotPermitted
from todoku.database.passwords import take_password_file
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.settings.base import with_password_file
from todoku.system import system

SCRIPT = Path(__file__).parents[2] / "deploy" / "postgres" / "roles" / "service.sql"
PACKAGE = "todoku.orders"


def connect(address: str) -> None:
    """Open a database, and read in it."""
    with Database.open(address) as database, database.read():
        pass


class Server:
    """A server with the roles of orders and inventory, and TLS."""

    def __init__(self, server: PostgreSQL, folder: Path) -> None:
        self._server = server
        self._folder = folder

    def url(self, role: str, database: str = "orders", **parameters: str) -> str:
        """Return the address of a database for a role whose password is in its file."""
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        place = f"{self._server.host}:{self._server.port}/{database}"
        return f"postgresql://{role}@{place}?password_file={self.password_file(role)}{query}"

    def password_file(self, role: str) -> Path:
        """Return the file with the password of a role."""
        return self._folder / f"{role}.password"

    def set_password(self, role: str, password: str) -> None:
        """Change the password of a role, but not in its file."""
        self._server.execute(f"ALTER ROLE {role} PASSWORD '{password}'")

    def disconnect(self, role: str) -> None:
        """End the sessions of a role."""
        self._server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        )

    def create(self, service: str) -> None:
        """Run the script for one service."""
        for role in (service, f"{service}_owner"):
            self.password_file(role).write_text(f"pass/word' of {role}\n")
        assert BIN is not None
        subprocess.run(
            [
                *(BIN / "psql", self._server.url("postgres"), "-qv", f"service={service}"),
                *("-v", f"password_file={self.password_file(service)}"),
                *("-v", f"owner_password_file={self.password_file(f'{service}_owner')}"),
                *("-f", SCRIPT),
            ],
            check=True,
        )


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("passwords")
    with postgresql() as running:
        for file in authority.issue(running.data):
            shutil.chown(file, USER)
            file.chmod(0o600)
        tls = "ssl = on\nssl_cert_file = 'cert.pem'\nssl_key_file = 'key.pem'\n"
        (running.data / "postgresql.auto.conf").write_text(tls)
        rules = f"host all {USER} 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (running.data / "pg_hba.conf").write_text(rules)
        running.execute("SELECT pg_reload_conf()")
        server = Server(running, folder)
        server.create("orders")
        server.create("inventory")
        with Database.open(server.url("orders_owner")) as database:
            migrate(database, PACKAGE)
        yield server


@needs_postgresql
def test_service_starts_as_a_role_that_may_not_change_tables(server: Server) -> None:
    service = orders_service(Settings())
    with Database.open(server.url("orders")) as database:
        migrate(database, PACKAGE)
        require_current(database, PACKAGE)
        require_tables(database, service.store.metadata)
        for table in service.store.metadata.sorted_tables:
            with database.transaction() as connection:
                connection.execute(table.select().limit(1)).all()
                connection.execute(table.delete())
        for statement, refusal in [
            ("CREATE TABLE stolen (id int)", "permission denied"),
            ("DROP TABLE orders", "must be owner"),
        ]:
            with pytest.raises(NotPermitted, match=refusal), database.transaction() as connection:
                connection.exec_driver_sql(statement)


@needs_postgresql
@pytest.mark.parametrize("role", ["orders", "orders_owner"])
def test_role_of_a_service_reaches_no_other_database(server: Server, role: str) -> None:
    with pytest.raises(DatabaseError, match='permission denied for database "inventory"'):
        connect(server.url(role, "inventory"))


@needs_postgresql
def test_pending_migration_is_refused_by_the_role_of_the_service(server: Server) -> None:
    """`todoku migrate` with the owner's address is what the message asks for."""
    with (
        Database.open(server.url("inventory", "inventory")) as database,
        pytest.raises(NotPermitted, match=r"may not change the tables.*todoku migrate"),
    ):
        migrate(database, "todoku.inventory")


@needs_postgresql
def test_changed_password_is_read_at_the_next_connection(server: Server) -> None:
    file = server.password_file("inventory")
    with Database.open(server.url("inventory", "inventory")) as database:
        server.set_password("inventory", "new")
        server.disconnect("inventory")
        with pytest.raises(DatabaseError), database.read():
            pass
        file.write_text("new")
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1


@needs_postgresql
def test_passfile_of_libpq_works(server: Server, tmp_path: Path) -> None:
    password = server.password_file("orders").read_text().strip()
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:orders:orders:{password}\n")
    passfile.chmod(0o600)
    url = server.url("orders").partition("?")[0]
    connect(f"{url}?passfile={passfile}")


@needs_postgresql
def test_tls_modes_check_what_they_promise(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    other = Authority().write(tmp_path / "other.pem")
    used = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    url = server.url("orders", sslmode="verify-full", sslrootcert=str(ca))
    with Database.open(url) as database, database.read() as connection:
        assert connection.exec_driver_sql(used).scalar() is True
    for parameters in (
        {"sslmode": "verify-full", "sslrootcert": str(other)},
        {"sslmode": "disable"},
        {"sslmode": "verify-full", "sslrootcert": str(ca), "host": "localhost"},
    ):
        with pytest.raises(DatabaseError):
            connect(server.url("orders", **parameters))


@pytest.mark.parametrize(
    ("address", "path", "rest"),
    [
        ("postgresql://u@h/d", "/run/a b", "postgresql://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "/p&q", "postgresql://u@h/d?sslmode=require"),
        ("host=h dbname=d", "/it's \\ here", "host=h dbname=d"),
    ],
)
def test_password_file_is_added_to_an_address_and_taken_out_again(
    address: str, path: str, rest: str
) -> None:
    with_file = with_password_file(address, Path(path))
    assert take_password_file(with_file) == (rest, path)
    psycopg.conninfo.conninfo_to_dict(rest)


def test_parameters_after_the_password_file_stay() -> None:
    url = "postgresql://u@h/d?password_file=/p&sslmode=require"
    assert take_password_file(url) == ("postgresql://u@h/d?sslmode=require", "/p")


def test_setting_names_the_password_file_of_a_service(tmp_path: Path) -> None:
    settings = system.settings(
        orders_database_url="postgresql://u@h/d", orders_database_password_file=tmp_path / "p"
    )
    assert settings.database("orders") == f"postgresql://u@h/d?password_file={tmp_path}/p"


def test_missing_password_file_is_named(tmp_path: Path) -> None:
    url = f"postgresql://u@127.0.0.1:1/d?password_file={tmp_path}/absent"
    with pytest.raises(DatabaseUnavailable, match="absent cannot be read: No such file"):
        connect(url)
