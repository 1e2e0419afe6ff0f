"""The page is one page under every path, runs its own files only, and speaks both languages."""

import re

import pytest

from console.stub import console_with_service
from todoku.console.pages import CONTENT_SECURITY_POLICY, STATIC

pytestmark = pytest.mark.anyio

FILES = sorted(file for file in STATIC.rglob("*") if file.is_file())
OWN = [
    file for file in FILES if file.suffix in {".js", ".css", ".html"} and "vendor" not in file.parts
]


@pytest.mark.parametrize("path", ["/", "/orders", "/orders/01a", "/dead-letters?service=orders"])
async def test_page_is_under_every_path(path: str) -> None:
    async with console_with_service() as (http, _):
        answer = await http.get(path)
        again = await http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert '<base href="/">' in answer.text
    assert (again.status_code, again.content) == (304, b"")


async def test_about_names_the_services_in_order() -> None:
    async with console_with_service() as (http, _):
        about = (await http.get("/api")).json()
        live = await http.get("/livez")
    assert about["services"] == ["orders"]
    assert live.json() == {"status": "ok"}


async def test_file_is_served_with_its_type_and_asked_for_again() -> None:
    async with console_with_service() as (http, _):
        script = await http.get("/static/main.js")
        absent = await http.get("/static/absent.js")
        outside = await http.get("/static/..%2f__init__.py")
    assert "javascript" in script.headers["content-type"]
    assert script.headers["cache-control"] == "no-cache"
    assert absent.status_code == outside.status_code == 404
    assert absent.json()["type"] == "/problems/unknown-address"


async def test_only_get_is_allowed_on_the_page() -> None:
    async with console_with_service() as (http, _):
        answer = await http.post("/orders")
    assert answer.status_code == 405


async def test_problem_types_of_the_console_have_a_page() -> None:
    async with console_with_service() as (http, _):
        answer = await http.get("/problems/service-unreachable")
    assert "todoku doctor" in answer.text


@pytest.mark.parametrize("file", OWN, ids=lambda file: str(file.relative_to(STATIC)))
def test_file_names_no_other_server_and_has_no_inline_script(file: object) -> None:
    text = file.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[\w.]", text)
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|\son\w+=\"|javascript:|\beval\(|new Function", text
    )


def test_imports_lead_to_files() -> None:
    for file in FILES:
        if file.suffix == ".js":
            for target in re.findall(r'(?:from|import) ?"(\.[^"]+)"', file.read_text("utf-8")):
                assert (file.parent / target).resolve().is_file(), (file, target)


def catalogue(language: str) -> dict[str, str]:
    text = (STATIC / "messages" / f"{language}.js").read_text(encoding="utf-8")
    return dict(re.findall(r'^  "([^"]+)": (.*),$', text, re.MULTILINE))


def test_both_languages_have_the_same_texts_with_the_same_values() -> None:
    english, japanese = catalogue("en"), catalogue("ja")
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(
            re.findall(r"\{(\w+)\}", japanese[key])
        ), key


def test_texts_that_are_named_exist_and_every_text_is_used() -> None:
    code = "\n".join(file.read_text("utf-8") for file in OWN if "messages" not in file.parts)
    named = set(re.findall(r'\bt\("([\w.-]+)"', code))
    english = catalogue("en").keys()
    assert named <= english
    built = {match + "." for match in re.findall(r"\bt\(`([\w.-]+)\.\$", code)}
    built |= {match + "." for match in re.findall(r"`([\w.-]+)\.\$\{", code)}
    unused = [
        key
        for key in english - named
        if f'"{key}"' not in code and not any(key.startswith(prefix) for prefix in built)
    ]
    assert unused in ([], [key for key in unused if key.endswith(".why")])


def test_vendored_files_are_named_with_version_and_licence() -> None:
    notice = (STATIC / "vendor" / "NOTICE.md").read_text(encoding="utf-8")
    for file in (STATIC / "vendor").iterdir():
        assert file.name in notice or file.name == "NOTICE.md"
