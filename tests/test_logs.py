"""No log line shows a secret: neither local variables of a traceback nor passwords in addresses."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import structlog

from todoku import logs

Style = Literal["console", "json"]
Written = Callable[[], str]

ADDRESS = "Shibuya 1-2-3"


@pytest.fixture(params=["console", "json"])
def style(request: pytest.FixtureRequest) -> Style:
    style: Style = request.param
    return style


@pytest.fixture
def written(style: Style, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """What is logged in this style, by this process as a service does."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        logs.configure("info", style, "orders")
    yield stream.getvalue
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def fail(address: str) -> None:
    """Raise with a secret in a local variable of two frames."""
    bearer_token = f"Bearer {address}"
    raise ValueError(f"no more than {len(bearer_token)}")


def test_local_variables_are_not_logged(written: Written) -> None:
    try:
        fail(ADDRESS)
    except ValueError:
        structlog.get_logger("todoku").exception("request_failed")

    assert "ValueError" in written()
    assert "in fail" in written() or '"fail"' in written()
    assert ADDRESS not in written()


def test_local_variables_are_not_logged_by_libraries(written: Written) -> None:
    try:
        fail(ADDRESS)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")

    assert "ValueError" in written()
    assert ADDRESS not in written()


def test_password_in_field_message_and_traceback_is_hidden(written: Written) -> None:
    url = "postgresql://me:hunter2@db/orders"
    log = structlog.get_logger("todoku")
    try:
        raise ConnectionError(f"cannot reach {url}")
    except ConnectionError as error:
        log.warning("database_unavailable", url=url, urls=[url], error=error, exc_info=True)
    logging.getLogger("alembic").warning("connecting to %s", url)

    assert "hunter2" not in written()
    assert written().count("***@db/orders") >= 4


def test_json_lines_have_time_level_service_and_fields(written: Written, style: Style) -> None:
    structlog.get_logger("todoku").info("order_accepted", order_id="1", count=2)

    if style == "json":
        entry = json.loads(written())
        assert entry.pop("timestamp").endswith("Z")
        assert entry == {
            "event": "order_accepted",
            "event_name": "order_accepted",
            "level": "info",
            "severity_text": "INFO",
            "severity_number": 9,
            "service": "orders",
            "order_id": "1",
            "count": 2,
        }
