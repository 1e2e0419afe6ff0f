"""Services speak TLS, with the newest certificate, and refuse to be reached by others without it."""

import asyncio
import contextlib
import http.client
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from security.certificates import Authority
from todoku.cli.checks.exposure import exposure
from todoku.cli.client import ServiceClient, client
from todoku.cli.errors import CommandFailed
from todoku.console.forwarding import make_client
from todoku.diagnosis import CheckStatus
from todoku.host import HttpServer, server_config
from todoku.settings import Settings, SettingsInvalid, Sources, load
from todoku.system import system
from todoku.tls import ServerCertificate, TlsUnusable, own_context, public_context, require_tls
from web.raw import echo_app

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def serving(settings: Settings, certificate: ServerCertificate) -> AsyncIterator[int]:
    """Serve an application with TLS, as `todoku run` does; yield the port."""
    server = HttpServer(server_config("orders", settings, echo_app(), certificate))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


def status(connection: http.client.HTTPSConnection) -> int:
    connection.request("GET", "/", headers={"Host": "127.0.0.1"})
    with connection.getresponse() as response:
        response.read()
        return response.status


def serial(connection: http.client.HTTPSConnection) -> object:
    """Return which certificate the server has shown on this connection."""
    certificate = connection.sock.getpeercert()
    assert certificate
    return certificate["serialNumber"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_new_certificate_is_served_without_closing_connections(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path)
    trusted = public_context(authority.write(tmp_path / "ca.pem"))
    settings = system.settings(tls_cert=cert, tls_key=key)
    certificate = ServerCertificate(cert, key)

    async def scenario() -> None:
        async with serving(settings, certificate) as port:
            old, new = (
                http.client.HTTPSConnection("127.0.0.1", port, context=trusted) for _ in range(2)
            )
            with contextlib.closing(old), contextlib.closing(new):
                assert await asyncio.to_thread(status, old) == 200
                first = serial(old)
                authority.issue(tmp_path)
                certificate.reload_if_changed()
                assert await asyncio.to_thread(status, new) == 200
                assert serial(new) != first
                assert await asyncio.to_thread(status, old) == 200
                assert serial(old) == first

    run(scenario())


def test_console_trusts_services_elsewhere_by_their_authority(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path)
    trusted = public_context(authority.write(tmp_path / "ca.pem"))
    settings = system.settings(tls_cert=cert, tls_key=key)

    async def scenario() -> None:
        async with serving(settings, ServerCertificate(cert, key)) as port:
            async with make_client(others=trusted) as http:
                assert (await http.get(f"https://127.0.0.1:{port}/")).status_code == 200
            async with make_client() as http:
                with pytest.raises(httpx.ConnectError):
                    await http.get(f"https://127.0.0.1:{port}/")

    asyncio.run(scenario())


def test_unusable_new_certificate_leaves_the_old_one_in_use(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path)
    trusted = public_context(authority.write(tmp_path / "ca.pem"))
    settings = system.settings(tls_cert=cert, tls_key=key)
    certificate = ServerCertificate(cert, key)

    async def scenario() -> None:
        async with serving(settings, certificate) as port:
            cert.write_bytes(cert.read_bytes()[:100])  # Half of it is written.
            certificate.reload_if_changed()
            authority.issue(tmp_path / "other")
            (tmp_path / "other" / "cert.pem").replace(cert)  # The key is still the old one.
            certificate.reload_if_changed()
            key.unlink()
            certificate.reload_if_changed()
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted)
            with contextlib.closing(connection):
                assert await asyncio.to_thread(status, connection) == 200

    (tmp_path / "other").mkdir()
    uvloop.run(scenario())


def test_old_protocols_are_refused(authority: Authority, tmp_path: Path) -> None:
    context = ServerCertificate(*authority.issue(tmp_path)).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda cert, key: cert.unlink(), "cert.pem cannot be read: No such file"),
        (lambda cert, key: cert.write_text("x"), "no usable certificate and key: they are not PEM"),
        (lambda cert, key: key.write_text("x"), "no usable certificate and key"),
    ],
)
def test_unusable_files_are_named(
    spoil: Callable[[Path, Path], None], reason: str, authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue(tmp_path)
    spoil(*files)
    with pytest.raises(TlsUnusable, match=reason):
        ServerCertificate(*files)


def test_key_of_another_certificate_is_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = authority.issue(tmp_path)
    _, key = authority.issue(tmp_path / "other")
    with pytest.raises(TlsUnusable, match="the key belongs to another certificate"):
        ServerCertificate(cert, key)


def test_commands_trust_the_own_certificate_and_no_other(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path)
    (tmp_path / "other").mkdir()
    other_cert, _ = authority.issue(tmp_path / "other")
    certificate = ServerCertificate(cert, key)
    settings = system.settings(tls_cert=cert, tls_key=key)
    other = system.settings(tls_cert=other_cert, tls_key=key)

    async def scenario() -> None:
        async with serving(settings, certificate) as port:

            def get(trusted: ssl.SSLContext | None) -> bytes:
                url = f"https://127.0.0.1:{port}"
                return ServiceClient("orders", url, tls=trusted).get("/")

            assert await asyncio.to_thread(get, own_context(settings))
            with pytest.raises(CommandFailed, match="certificate verify failed"):
                await asyncio.to_thread(get, own_context(other))

    uvloop.run(scenario())


def test_commands_trust_the_authority_of_the_settings(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue(tmp_path)
    ca = authority.write(tmp_path / "ca.pem")
    certificate = ServerCertificate(cert, key)
    served = system.settings(tls_cert=cert, tls_key=key)

    async def scenario() -> None:
        async with serving(served, certificate) as port:

            def get(host: str, settings: Settings) -> bytes:
                return client("orders", f"https://{host}:{port}", settings).get("/")

            assert await asyncio.to_thread(get, "127.0.0.1", system.settings(tls_ca=ca))
            for host, settings in [
                ("127.0.0.1", system.settings()),
                ("localhost", system.settings(tls_ca=ca)),  # It is not a name of the certificate.
            ]:
                with pytest.raises(CommandFailed, match="certificate verify failed"):
                    await asyncio.to_thread(get, host, settings)

    uvloop.run(scenario())


def test_unusable_authority_is_named(tmp_path: Path) -> None:
    settings = system.settings(tls_ca=tmp_path / "absent.pem")
    with pytest.raises(CommandFailed, match=r"absent\.pem has no usable CA certificates"):
        client("orders", "https://shop.example", settings)


def test_service_reached_by_others_needs_tls_or_a_proxy(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path)
    with pytest.raises(
        SettingsInvalid, match=r"host is 0\.0\.0\.0.*tls_cert and tls_key.*behind_proxy"
    ):
        require_tls(system.settings(host="0.0.0.0"), loopback=False)
    require_tls(system.settings(), loopback=True)
    require_tls(system.settings(host="0.0.0.0", behind_proxy=True), loopback=False)
    require_tls(system.settings(host="0.0.0.0", tls_cert=cert, tls_key=key), loopback=False)


@pytest.mark.parametrize("one", ["tls_cert", "tls_key"])
def test_certificate_and_key_need_each_other(one: str) -> None:
    sources = Sources(flags={one: "x.pem"}, environment={}, file=None, in_file={})
    with pytest.raises(SettingsInvalid, match=rf"{one} \(flag .*TLS needs both"):
        load(sources, list(system))


@pytest.mark.parametrize(
    ("ends_in", "verdict"),
    [
        (timedelta(days=90), CheckStatus.OK),
        (timedelta(days=3), CheckStatus.WARNING),
        (timedelta(hours=-1), CheckStatus.WRONG),
    ],
)
def test_doctor_tells_how_long_the_certificate_is_valid(
    ends_in: timedelta, verdict: CheckStatus, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue(tmp_path, ends_in=ends_in)
    reached, certificate = exposure(
        system.settings(host="0.0.0.0", auth="required", tls_cert=cert, tls_key=key)
    )
    assert (reached.verdict, reached.found) == (CheckStatus.OK, "0.0.0.0, with TLS")
    assert certificate.verdict is verdict


def test_doctor_repeats_that_services_are_exposed(tmp_path: Path) -> None:
    (reached,) = exposure(system.settings(host="0.0.0.0"))
    assert reached.verdict is CheckStatus.WRONG
    assert "set tls_cert and tls_key" in reached.fix
