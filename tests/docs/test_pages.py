"""The pages are true: generated pages are current, and what the pages name exists."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.mutants import MUTANTS
from todoku.cli import COMMANDS
from todoku.engine.failpoints import POINTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
GUIDES = [ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES = [*READMES, *GUIDES, *sorted(DOCS.glob("**/*.md"))]


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> str:
    """Return the text of each page in turn."""
    path: Path = request.param
    return path.read_text(encoding="utf-8")


def test_generated_pages_are_current() -> None:
    """If not, run `make docs`."""
    check = [sys.executable, str(DOCS / "generate.py"), "--check"]
    completed = subprocess.run(check, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning is an error, such as a link that leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    completed = subprocess.run(
        [*build, "--doctree-dir", str(folder / "cache"), str(DOCS), str(folder / "site")],
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return folder / "site"


def test_site_requests_nothing_from_other_servers(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*\shref="https?:"""
        r"""|url\(["']?https?:|@import[^;]*https?:"""
    )
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not fetched.search(file.read_text(encoding="utf-8")), file


def test_search_index_is_a_script_that_browsers_load_from_the_disk(site: Path) -> None:
    assert '<script src="searchindex.js"' in (site / "search.html").read_text(encoding="utf-8")
    assert "outbox" in (site / "searchindex.js").read_text(encoding="utf-8")


def test_first_page_of_the_site_is_the_tutorial_of_the_readme(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "curl -s http://127.0.0.1:8080/orders" in re.sub(r"<[^>]+>", "", first)


def test_every_file_that_a_page_names_exists(page: str) -> None:
    """In the repository, or in an example that adds it."""
    for name in re.findall(r"`((?:src|tests|docs|deploy)/[\w./-]+)`", page):
        added = DOCS.glob(f"examples/*/{name.removeprefix('src/todoku/').rstrip('/')}")
        assert (ROOT / name).exists() or any(added), name


@pytest.fixture(scope="module")
def members() -> set[str]:
    """Return `Class.member` for each method and field in the source, and for what it assigns to self."""
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.update(f"{node.name}.{name}" for name in _members(node))
    return found


def _members(of_class: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(of_class):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)):
                yield name
            case ast.Assign(targets=[ast.Attribute(attr=name)]):
                yield name


def test_every_member_of_a_class_that_the_index_names_exists(members: set[str]) -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]\w+\.[a-z_]\w+)`", text))
    assert len(named) > 10
    assert named <= members


WHERE = re.findall(
    r"^\| .* \| `([\w/.]+)` \| (.*)\|$",
    (DOCS / "where.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("file", "names"), WHERE, ids=[file for file, _ in WHERE])
def test_every_place_that_the_page_of_places_names_exists(file: str, names: str) -> None:
    tree = ast.parse((ROOT / "src" / "todoku" / file).read_text(encoding="utf-8"))
    assert set(re.findall(r"`([\w.]+)`", names)) <= set(_defined(tree.body))


def _defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Yield what a module or class defines, as `function`, `CONSTANT`, `Class` and `Class.method`."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _defined(node.body, f"{name}.")


def test_every_command_that_a_page_names_exists(page: str) -> None:
    typed = re.sub(r"^```text\n.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"\btodoku ([a-z]+(?:-[a-z]+)*)\b", typed):
        assert name in COMMANDS, name


def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"(?:`|^)make ([a-z-]+)", page, re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


@pytest.mark.parametrize("file", [*READMES, *GUIDES], ids=lambda file: file.name)
def test_every_link_of_a_root_page_leads_to_a_file(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"{file.name}: {target}"


@pytest.mark.parametrize("name", ["AGENTS.md", "CONTRIBUTING.md"])
def test_guides_for_contributors_stay_short(name: str) -> None:
    assert (ROOT / name).stat().st_size <= 8 * 1024


STANDARD_TERMS = {
    "saga": "サーガ",
    "choreography": "コレオグラフィ",
    "compensating transaction": "補償トランザクション",
    "outbox": "アウトボックス",
    "inbox": "inbox",
    "idempotent consumer": "冪等なコンシューマー",
    "at-least-once delivery": "at-least-once",
    "dead-letter queue": "デッドレターキュー",
    "eventually consistent|eventual consistency": "結果整合性",
    "event-driven": "イベント駆動アーキテクチャ",
    "database per service": "サービスごとのデータベース",
    "optimistic locking": "楽観的ロック",
    "pessimistic locking": "悲観的ロック",
    "backpressure": "バックプレッシャー",
}


@pytest.mark.parametrize("term", STANDARD_TERMS)
def test_introductions_use_the_standard_term(term: str) -> None:
    """So that a search for the usual name of a pattern finds it."""
    for page in (READMES[0], DOCS / "architecture.md", DOCS / "glossary.md"):
        text = " ".join(page.read_text(encoding="utf-8").replace("**", "").split())
        assert re.search(term, text, re.IGNORECASE), page.name
    assert STANDARD_TERMS[term] in READMES[1].read_text(encoding="utf-8")


def test_rules_name_every_planted_bug_and_no_other() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    rules = text[text.index("## The eight rules") : text.index("## Faults")]
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", rules))
    assert named == {mutant.name for mutant in MUTANTS}


def test_every_failpoint_is_named() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    assert all(f"`{point}`" in text for point in POINTS)
