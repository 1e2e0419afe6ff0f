"""The output of `todoku up`, on a terminal and in a pipe."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from todoku.cli.console import Console
from todoku.settings import Settings

BROKER_INFO = b"[1] 2026/11/22 18:30:39.600280 [INF] Server is ready"
BROKER_ERROR = b"[1] 2026/11/22 18:30:39.600280 [ERR] Disk full"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def colours_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(*lines: tuple[str, bytes], err: TextIO, settings: Settings | None = None) -> list[str]:
    console = Console(settings or Settings(), out=io.StringIO(), err=err)
    for program, line in lines:
        console.show(program, line)
    assert isinstance(err, io.StringIO)
    return err.getvalue().splitlines()


def test_terminal_lines_have_coloured_program_name() -> None:
    (line,) = shown(("orders", b"hello"), err=Terminal())

    assert line == "\x1b[36morders    |\x1b[0m hello"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert shown(("orders", b"hello"), err=Terminal()) == ["orders    | hello"]


def test_every_line_in_pipe_is_json() -> None:
    lines = shown(
        ("orders", b'{"event": "hello"}'),
        ("orders", b"Traceback \xff"),
        ("broker", BROKER_ERROR),
        err=io.StringIO(),
    )

    assert lines[0] == '{"event": "hello"}'
    assert [json.loads(line) for line in lines[1:]] == [
        {"service": "orders", "event": "Traceback \ufffd"},
        {
            "timestamp": "2026-11-22T18:30:39.600280Z",
            "level": "error",
            "event": "Disk full",
            "service": "broker",
        },
    ]


@pytest.mark.parametrize("err", [io.StringIO(), Terminal()])
def test_password_in_plain_line_is_hidden(err: TextIO) -> None:
    (line,) = shown(("orders", b"ValueError: postgresql://me:secret@db/orders"), err=err)

    assert "postgresql://***@db/orders" in line
    assert "secret" not in line


def test_format_can_be_set() -> None:
    assert shown(
        ("orders", b"hello"), err=io.StringIO(), settings=Settings(log_format="console")
    ) == ["orders    | hello"]
    assert shown(("orders", b"{}"), err=Terminal(), settings=Settings(log_format="json")) == ["{}"]


def test_routine_broker_lines_need_debug_level() -> None:
    assert shown(("broker", BROKER_INFO), err=io.StringIO()) == []
    assert shown(("broker", BROKER_INFO), err=io.StringIO(), settings=Settings(log_level="debug"))


@pytest.fixture
def pipe_without_reader() -> Iterator[TextIO]:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        yield stream


def test_closed_pipe_does_not_stop_console(pipe_without_reader: TextIO, tmp_path: Path) -> None:
    """Nor is what could not be written an error later, when the stream is closed."""
    console = Console(Settings(data_dir=tmp_path), out=pipe_without_reader, err=io.StringIO())

    console.say("hello")
    console.say("hello again")
