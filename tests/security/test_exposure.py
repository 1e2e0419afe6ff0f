"""Services that other machines reach ask for credentials, or do not start."""

import asyncio

import pytest

from todoku import host
from todoku.cli.checks.exposure import exposure
from todoku.console import host as console_host
from todoku.diagnosis import CheckStatus
from todoku.exposure import require_protection
from todoku.settings import SettingsInvalid
from todoku.system import system


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.0.5", "machine.example"])
def test_service_reached_by_others_needs_credentials_of_callers(address: str) -> None:
    with pytest.raises(SettingsInvalid, match="TODOKU_AUTH=required") as refused:
        require_protection(system.settings(host=address, behind_proxy=True))
    assert len(refused.value.problems) == 1
    require_protection(system.settings(host=address, behind_proxy=True, auth="required"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_service_on_loopback_needs_nothing(address: str) -> None:
    require_protection(system.settings(host=address))


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        require_protection(system.settings(host="0.0.0.0"))
    tls, auth = refused.value.problems
    assert "tls_cert" in tls
    assert "TODOKU_BOOTSTRAP_KEY_FILE" in auth


def test_neither_services_nor_the_console_start_without_protection() -> None:
    settings = system.settings(host="0.0.0.0", behind_proxy=True)
    for serving in (
        host.serve("orders", settings, asyncio.Event()),
        console_host.serve(settings, asyncio.Event()),
    ):
        with pytest.raises(SettingsInvalid, match="TODOKU_AUTH=required"):
            asyncio.run(serving)


def test_doctor_repeats_that_callers_need_no_credential() -> None:
    (found,) = exposure(system.settings(host="0.0.0.0", behind_proxy=True))
    assert (found.verdict, found.found) == (CheckStatus.WRONG, "0.0.0.0, without authentication")
    assert "TODOKU_AUTH=required" in found.fix
