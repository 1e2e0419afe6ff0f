"""The pages as Markdown, for machines and agents: their list `llms.txt` (llmstxt.org), and their texts."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent
SECTIONS: Final = (("Pages", "*.md"), ("How to", "how-to/*.md"), ("Optional", "decisions/*.md"))
"""What is optional may be skipped where a context is small, as the convention has it."""

LEFT_OUT: Final = frozenset({"index.md", "ja.md", "licence.md"})
HEAD: Final = """# Todoku

> An event-driven backend of three services (orders, inventory, shipping) in Python over NATS JetStream,
> with SQLite or PostgreSQL, that accepts orders over HTTP, reserves stock, ships, compensates, and never
> loses an order.

`todoku up` starts all of it on one machine. Each page below is Markdown; the OpenAPI document of a service
is at its `/openapi.json`, the AsyncAPI document of all events is [asyncapi.json](asyncapi.json).
"""
_find_include = re.compile(r"```\{include\} (\S+)\n(?::[^\n]*\n)*```").search
_find_sentence = re.compile(r"\A.*?\.(?=\s|\Z)", re.DOTALL).search
SENTENCE_CHARACTERS_MAX: Final = 200


def llms_txt() -> str:
    """Return the list of all pages, each with its first sentence."""
    return "\n".join([HEAD, *(line for section in SECTIONS for line in _section(*section))])


def text_of(page: Path) -> str:
    """Return a page as Markdown, with what it includes in its place."""
    text = page.read_text(encoding="utf-8")
    if found := _find_include(text):
        included = (page.parent / found[1]).read_text(encoding="utf-8")
        return included if included.startswith("#") else text.replace(found[0], included)
    return text


def write(folder: Path) -> None:
    """Write the list and all pages as Markdown into a folder, under the paths that the list has."""
    for page in _pages():
        target = folder / page.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text_of(page), encoding="utf-8")
    (folder / "llms.txt").write_text(llms_txt(), encoding="utf-8")
    shutil.copyfile(DOCS / "asyncapi.json", folder / "asyncapi.json")


def _section(title: str, pattern: str) -> Iterator[str]:
    yield f"## {title}\n"
    for page in sorted(DOCS.glob(pattern)):
        if page.name not in LEFT_OUT:
            name, sentence = _described(text_of(page))
            yield f"- [{name}]({page.relative_to(DOCS)}): {sentence}"
    yield ""


def _described(text: str) -> tuple[str, str]:
    """Return the title of a page, and the first sentence of its text."""
    title = next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")
    paragraphs = (part.strip() for part in text.partition(f"# {title}")[2].split("\n\n"))
    first = next(part for part in paragraphs if part and part[0] not in "<#|`[!>-")
    found = _find_sentence(" ".join(first.replace("**Context.**", "").split()))
    sentence = _without_links(found[0] if found else " ".join(first.split()))
    return title, sentence[:SENTENCE_CHARACTERS_MAX]


def _without_links(text: str) -> str:
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


def _pages() -> list[Path]:
    return [page for _, pattern in SECTIONS for page in sorted(DOCS.glob(pattern))]
