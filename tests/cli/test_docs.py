"""`todoku docs`: the documentation that is part of the program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from todoku import documentation
from todoku.cli.docs import docs
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode

NOT_NEEDED = ("httpx", "http.client", "starlette", "sqlalchemy", "nats", "uvicorn")
Capture = pytest.CaptureFixture[str]


def test_list_names_every_page_that_can_be_printed(capsys: Capture) -> None:
    docs(json=True)
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [page["name"] for page in listed]
    assert {"reliability", "commands", "how-to/console", "decisions/0001-fact-ids"} <= set(names)
    assert all(page["title"] and page["summary"] for page in listed)
    docs()
    table = capsys.readouterr().out
    assert all(name in table for name in names)
    pages = documentation.documentation()
    assert [page.name for name in names for page in documentation.find(pages, name)] == names


def test_page_that_does_not_exist_is_named_even_if_its_name_is_that_of_a_secret() -> None:
    with pytest.raises(CommandFailed) as failed:
        docs("../../etc/passwd")
    assert "'../../etc/passwd'. `todoku docs` lists all" in str(failed.value)


@pytest.mark.parametrize("wanted", ["how-to/dead-letters", "dead-letters", "Dead-Letters.md"])
def test_page_is_printed_as_markdown(wanted: str, capsys: Capture) -> None:
    docs(wanted)
    assert capsys.readouterr().out.startswith("# Handle dead letters\n")


@pytest.mark.parametrize("number", ["1", "0001"])
def test_decision_is_found_by_its_number(number: str, capsys: Capture) -> None:
    docs(number)
    assert capsys.readouterr().out.startswith("# 1. ")


def test_page_includes_files_of_the_root(capsys: Capture) -> None:
    docs("agents")
    assert "# AGENTS.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ("nowhere", "`todoku docs` lists all"),
        ("add-a", "how-to/add-a-carrier, how-to/add-a-listener, how-to/add-a-step: name one"),
    ],
)
def test_name_that_is_not_one_page_says_what_to_do(wanted: str, advice: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        docs(wanted)
    assert failed.value.exit_code is ExitCode.USAGE
    assert advice in str(failed.value)


def test_search_finds_sections_with_all_words_best_first(capsys: Capture) -> None:
    docs(search_for="dead letter", limit=3, json=True)
    passages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(passages) == 3
    assert all("dead letter" in each["heading"].lower() for each in passages)
    docs(search_for="xyzzy")
    assert "no section contains" in capsys.readouterr().err


def test_page_and_search_exclude_each_other() -> None:
    with pytest.raises(CommandFailed):
        docs("events", search_for="x")


def test_installation_without_pages_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "SOURCE", Path("nowhere"))
    with pytest.raises(CommandFailed, match="install the wheel"):
        docs()


def test_it_imports_nothing_that_opens_a_connection(tmp_path: Path) -> None:
    code = f"""import sys; sys.argv = ["todoku", "docs", "reliability"]
from todoku.cli import application
application("docs")()
sys.exit(", ".join(name for name in {NOT_NEEDED} if name in sys.modules))"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.stderr.strip() == ""
    assert answer.stdout.startswith("# Reliability")
