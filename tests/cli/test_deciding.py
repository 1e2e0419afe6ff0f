"""Who decides a command: the user's name where credentials are not looked at, else the credential."""

import json

import pytest
from scripted import Scripted, answering, problem

from todoku.cli.checks import contributed
from todoku.cli.client import ServiceClient
from todoku.cli.deciding import who
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.options import login_name
from todoku.cli.pausing import at_each
from todoku.system import load_settings

NOBODY = {"auth": "none", "actor": None, "keyId": None, "scopes": []}
ALICE = {"auth": "required", "actor": "alice", "keyId": "9f86d081", "scopes": ["repair"]}
INVALID = problem(
    422,
    "invalid-body",
    "The body is invalid",
    "#/by: Missing: say who decides.",
    errors=[{"pointer": "#/by", "detail": "Missing: say who decides."}],
)


@pytest.mark.parametrize(
    ("caller", "by", "decides"),
    [(NOBODY, None, login_name()), (NOBODY, "bob", "bob"), (ALICE, None, None), (ALICE, "x", "x")],
)
def test_credential_decides_only_where_it_is_looked_at(
    caller: dict[str, object], by: str | None, decides: str | None
) -> None:
    with answering(Scripted(json.dumps(caller).encode())) as server:
        assert who(by, ServiceClient("orders", server.url, key="tdk_x")) == decides


def test_user_decides_without_a_credential_and_no_service_is_asked() -> None:
    with answering(INVALID) as server:
        assert who(None, ServiceClient("orders", server.url)) == login_name()
        assert server.asked == []


def test_detail_of_a_refusal_at_one_of_several_services_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(INVALID) as server:
        service = ServiceClient("shipping", server.url)
        _, (failure,) = at_each([(service, "carrier")], lambda asked, _: asked.get("/pauses"))
    assert isinstance(failure, CommandFailed)
    assert capsys.readouterr().err == (
        "todoku: shipping: The body is invalid: #/by: Missing: say who decides.\n"
    )


def test_doctor_says_which_scope_a_credential_lacks() -> None:
    detail = "The credential does not have the scope 'carriers:read'."
    with answering(problem(403, "missing-scope", "A scope is missing", detail)) as server:
        environment = {"TODOKU_SHIPPING_PORT": str(server.server_port)}
        settings = load_settings({}, environment=environment).settings
        checked = list(contributed.services(settings, {"shipping"}))
    assert [check.found for check in checked] == [
        f"its checks were refused: A scope is missing: {detail}"
    ]


def test_reason_is_printed_why_a_service_changes_nothing_yet() -> None:
    detail = "It is not known yet whether the database lacks something: try later."
    overloaded = problem(503, "overloaded", "The service is overloaded", detail)
    with answering(overloaded) as server, pytest.raises(CommandFailed) as failed:
        ServiceClient("inventory", server.url).send("PUT", "/products/p", b"{}", find_out="Look.")
    assert failed.value.exit_code is ExitCode.BUSY
    assert str(failed.value).splitlines()[1].strip() == detail
