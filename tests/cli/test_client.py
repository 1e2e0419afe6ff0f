"""Every failure of a request becomes a message with advice."""

import socket
import threading

import pytest
from scripted import Scripted, answering, problem

from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.responses import Order


def failure_of(url: str, *, method: str = "GET", find_out: str = "") -> CommandFailed:
    client = ServiceClient("orders", url, timeout_seconds=5)
    with pytest.raises(CommandFailed) as raised:
        client.request(method, "/orders", b"{}" if method == "POST" else None, find_out=find_out)
    return raised.value


def test_unreachable_service_is_reported_with_address_and_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

    failure = failure_of(url)

    assert failure.exit_code is ExitCode.UNREACHABLE
    for word in (url, "Connection refused", "`todoku up`", "--orders-port", "--url"):
        assert word in str(failure)


@pytest.mark.parametrize(
    "url", ["", "localhost", "localhost:8080", "ftp://a", "http://", "http://a:b", "http://a/?b"]
)
def test_invalid_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(CommandFailed, match=r"use http://HOST:PORT") as raised:
        ServiceClient("orders", url)

    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("url", ["http://a..b:80", "http://" + "a" * 70])
def test_invalid_host_name_is_unreachable(url: str) -> None:
    assert failure_of(url).exit_code is ExitCode.UNREACHABLE


def test_password_in_address_is_hidden() -> None:
    assert "secret" not in str(failure_of("http://me:secret@127.0.0.1:1"))


@pytest.mark.parametrize(
    "answer",
    [
        Scripted(b"<html>", content_type="text/html"),
        Scripted(b"{}", status=404),
        Scripted(b"moved", status=301, content_type="text/plain"),
        problem(404, "unknown-address", "There is nothing at this address", "See /docs."),
        Scripted(b"oh no", status=502, content_type="application/problem+json"),
    ],
)
def test_response_of_other_server_is_detected(answer: Scripted) -> None:
    with answering(answer) as server:
        failure = failure_of(server.url)

    assert failure.exit_code is ExitCode.UNREACHABLE
    assert f"the server at {server.url} is not the orders service" in str(failure)
    assert "--url" in str(failure)


def test_non_http_response_is_detected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"INFO {}\r\n")
                connection.recv(65_536)

        thread = threading.Thread(target=greet)
        thread.start()
        failure = failure_of(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()

    assert failure.exit_code is ExitCode.UNREACHABLE
    assert "not an HTTP response" in str(failure)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"id": 5}'])
def test_unexpected_json_is_detected(body: bytes) -> None:
    with answering(Scripted(body)) as server:
        client = ServiceClient("orders", server.url)

        with pytest.raises(CommandFailed, match="unexpected JSON") as raised:
            client.read(client.get("/orders/1"), Order)

    assert raised.value.exit_code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "slug", "code"),
    [
        (400, "invalid-parameter", ExitCode.REFUSED),
        (404, "unknown-order", ExitCode.NOT_FOUND),
        (409, "stock-not-settable", ExitCode.REFUSED),
        (422, "invalid-body", ExitCode.REFUSED),
        (500, "internal-error", ExitCode.FAILED),
        (503, "overloaded", ExitCode.BUSY),
        (503, "database-unavailable", ExitCode.BUSY),
        (503, "outcome-unknown", ExitCode.OUTCOME_UNKNOWN),
    ],
)
def test_exit_code_depends_on_kind_of_problem(status: int, slug: str, code: ExitCode) -> None:
    with answering(problem(status, slug, "A title", "What to do.")) as server:
        failure = failure_of(server.url)

    assert failure.exit_code is code
    assert str(failure) == (f"todoku: A title\n  What to do.\n  See {server.url}/problems/{slug}")


def test_problem_is_printed_with_errors_and_page() -> None:
    errors = [{"detail": "Must be at least 1.", "pointer": "#/items/0/quantity"}]
    with answering(problem(422, "invalid-body", "A title", "Long.", errors=errors)) as server:
        failure = failure_of(server.url)

    assert "  #/items/0/quantity: Must be at least 1.\n" in str(failure)
    assert "Long." not in str(failure)


def test_control_characters_in_problem_are_replaced() -> None:
    with answering(problem(422, "x", "\x1b[2J", "\x1b]0;evil\x07")) as server:
        failure = failure_of(server.url)

    assert "\x1b" not in str(failure)


def test_broken_read_request_may_be_retried() -> None:
    with answering(Scripted(b"{}", cut_short=True)) as server:
        failure = failure_of(server.url)

    assert failure.exit_code is ExitCode.UNREACHABLE
    assert "Try again" in str(failure)


def test_proxy_error_for_command_is_outcome_unknown() -> None:
    with answering(Scripted(b"<html>", status=504, content_type="text/html")) as server:
        asked = failure_of(server.url)
        sent = failure_of(server.url, method="POST", find_out="Look first.")

    assert asked.exit_code is ExitCode.UNREACHABLE
    assert sent.exit_code is ExitCode.OUTCOME_UNKNOWN
    assert "504" in str(sent)


def test_broken_command_tells_how_to_check_result() -> None:
    with answering(Scripted(b"{}", cut_short=True)) as server:
        failure = failure_of(server.url, method="POST", find_out="Look first.")

    assert failure.exit_code is ExitCode.OUTCOME_UNKNOWN
    assert "The request may have been processed. Look first." in str(failure)


def test_broken_command_is_sent_again_with_its_key_until_it_is_answered() -> None:
    answers = (
        Scripted(b"{}", cut_short=True),
        problem(409, "request-in-progress", "The first one is in progress", "Wait."),
        problem(503, "overloaded", "The service is overloaded", "Wait."),
        Scripted(b'{"id": "1"}', status=201),
    )
    with answering(*answers) as server:
        client = ServiceClient("orders", server.url)
        assert client.send("POST", "/orders", b"{}", find_out="Look.") == b'{"id": "1"}'

    assert len(server.keys) == 4
    assert len(set(server.keys)) == 1
    assert server.keys[0]


def test_each_command_has_a_key_of_its_own() -> None:
    with answering(Scripted(b"{}", status=201)) as server:
        client = ServiceClient("orders", server.url)
        for _ in range(2):
            client.send("POST", "/orders", b"{}", find_out="Look.")

    assert len(set(server.keys)) == 2


def test_command_that_is_never_answered_tells_how_to_check_result() -> None:
    answers = (
        Scripted(b"{}", cut_short=True),
        problem(503, "overloaded", "The service is overloaded", "Wait."),
    )
    with answering(*answers) as server:
        client = ServiceClient("orders", server.url, repeated_for_seconds=0.3)
        with pytest.raises(CommandFailed, match=r"Look first\.") as raised:
            client.send("POST", "/orders", b"{}", find_out="Look first.")

    assert raised.value.exit_code is ExitCode.OUTCOME_UNKNOWN
    assert len(server.keys) == 2


def test_refused_command_is_not_sent_again() -> None:
    with answering(problem(503, "overloaded", "The service is overloaded", "Wait.")) as server:
        client = ServiceClient("orders", server.url)
        with pytest.raises(CommandFailed):
            client.send("POST", "/orders", b"{}", find_out="Look.")

    assert len(server.keys) == 1


def test_list_is_requested_page_by_page_up_to_limit() -> None:
    pages = (
        Scripted(b'{"items": [1, 2], "nextCursor": "abc"}'),
        Scripted(b'{"items": [3], "nextCursor": "def"}'),
    )
    with answering(*pages) as server:
        client = ServiceClient("orders", server.url + "/behind/a/proxy/")
        found = list(client.list("/orders", {"userId": "a b", "status": None}, items_max=3))

    assert found == [b"1", b"2", b"3"]
    assert [request for request, _ in server.asked] == [
        "GET /behind/a/proxy/orders?userId=a+b&limit=3",
        "GET /behind/a/proxy/orders?userId=a+b&limit=1&cursor=abc",
    ]


def test_last_page_ends_list() -> None:
    with answering(Scripted(b'{"items": [1], "nextCursor": null}')) as server:
        assert list(ServiceClient("orders", server.url).list("/orders", {}, items_max=1_000)) == [
            b"1"
        ]
        assert len(server.asked) == 1
