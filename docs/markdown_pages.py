"""The pages as Markdown, for machines and agents: their list `llms.txt` (llmstxt.org), and their texts."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from todoku.documentation import LEFT_OUT, SECTIONS, described, text_of

DOCS: Final = Path(__file__).parent
HEAD: Final = """# Todoku

> An event-driven backend of three services (orders, inventory, shipping) in Python over NATS JetStream,
> with SQLite or PostgreSQL, that accepts orders over HTTP, reserves stock, ships, compensates, and never
> loses an order.

`todoku up` starts all of it on one machine, and `todoku docs` prints these pages without a network.
`todoku mcp` offers tools to agents, over the Model Context Protocol ([how](how-to/agents.md)). Each page
below is Markdown; the OpenAPI document of a service is at its `/openapi.json`, the AsyncAPI document of all
events is [asyncapi.json](asyncapi.json).
"""


def llms_txt() -> str:
    """Return the list of all pages, each with its first sentence."""
    return "\n".join([HEAD, *(line for section in SECTIONS for line in _section(*section))])


def write(folder: Path) -> None:
    """Write the list and all pages as Markdown into a folder, under the paths that the list has."""
    write_pages(folder)
    (folder / "llms.txt").write_text(llms_txt(), encoding="utf-8")
    shutil.copyfile(DOCS / "asyncapi.json", folder / "asyncapi.json")


def write_pages(folder: Path) -> None:
    """Write all pages as Markdown into a folder."""
    for page in _pages():
        target = folder / page.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text_of(page), encoding="utf-8")


def _section(title: str, pattern: str) -> Iterator[str]:
    yield f"## {title}\n"
    for page in sorted(DOCS.glob(pattern)):
        if page.name not in LEFT_OUT:
            name, sentence = described(text_of(page))
            yield f"- [{name}]({page.relative_to(DOCS)}): {sentence}"
    yield ""


def _pages() -> list[Path]:
    return [page for _, pattern in SECTIONS for page in sorted(DOCS.glob(pattern))]
