"""The client reads just enough of HTTP to be told what became of an order."""

import pytest

from todoku.lab.bench.connection import Answer, read_answer, request

ANSWER = b'HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"id":"1"}'


def test_an_answer_is_its_status_and_its_body() -> None:
    assert read_answer(ANSWER) == Answer(201, b'{"id":"1"}')


@pytest.mark.parametrize("length", range(0, len(ANSWER), 7))
def test_an_answer_that_has_not_come_whole_is_none(length: int) -> None:
    assert read_answer(ANSWER[:length]) is None


def test_the_names_of_headers_may_be_written_in_any_case() -> None:
    assert read_answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nX: y\r\n\r\n{}") == Answer(
        503, b"{}"
    )


def test_an_answer_that_does_not_say_how_long_it_is_is_refused() -> None:
    with pytest.raises(ValueError, match="not found"):
        read_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_a_request_with_a_body_says_how_long_it_is() -> None:
    head, _, body = request("POST", "h:1", "/orders", b"{}").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /orders HTTP/1.1",
        b"Host: h:1",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
    assert body == b"{}"
