"""The documentation as Markdown: the pages in the wheel, or those of the source tree.

Only the standard library: the wheel is built with it where nothing else is installed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

PACKED: Final = Path(__file__).parent / "pages"
"""Where the wheel has the pages, with what they include in its place."""

SOURCE: Final = Path(__file__).parents[3] / "docs"
SECTIONS: Final = (("Pages", "*.md"), ("How to", "how-to/*.md"), ("Optional", "decisions/*.md"))
"""What is optional may be skipped where a context is small, as llmstxt.org has it."""

LEFT_OUT: Final = frozenset({"index.md", "ja.md", "licence.md"})
SENTENCE_CHARACTERS_MAX: Final = 200
NUMBER_DIGITS: Final = 4

_find_include = re.compile(r"```\{include\} (\S+)\n(?::[^\n]*\n)*```").search
_find_sentence = re.compile(r"\A.*?\.(?=\s|\Z)", re.DOTALL).search
_is_heading = re.compile(r"#{1,6} ").match


class Page(NamedTuple):
    """A page: its name (its path without `.md`), its title, its first sentence, and its Markdown."""

    name: str
    title: str
    summary: str
    text: str


class Passage(NamedTuple):
    """Where searched words are: the page, the heading of the section, and the line that has most of them."""

    page: str
    heading: str
    line: str


def documentation() -> Mapping[str, Page]:
    """Return all pages by name; none where the program was installed without them."""
    folder = PACKED if PACKED.is_dir() else SOURCE
    return {page.name: page for page in _read(folder)}


def find(pages: Mapping[str, Page], wanted: str) -> list[Page]:
    """Return the page that is called so: by its name, by the end of it, or by the number of a decision. If
    there is none, return those whose names contain it."""
    name = wanted.strip().strip("/").removesuffix(".md").lower()
    if name in pages:
        return [pages[name]]
    number = f"decisions/{name.zfill(NUMBER_DIGITS)}-" if name.isdecimal() else None
    exact = [
        page
        for page in pages.values()
        if page.name.endswith(f"/{name}") or (number and page.name.startswith(number))
    ]
    return exact or [page for page in pages.values() if name in page.name]


def search(pages: Mapping[str, Page], text: str) -> list[Passage]:
    """Return the sections that contain all words of a text; first those with most of them in the heading,
    then those that have them most often."""
    words = text.lower().split()
    found: list[tuple[int, int, Passage]] = []
    for page in pages.values():
        for heading, lines in _sections(page.text):
            body = "\n".join(lines).lower()
            if words and all(word in body for word in words):
                best = max(lines, key=lambda line: _count(line, words))
                named = sum(word in heading.lower() for word in words)
                often = sum(map(body.count, words))
                found.append((-named, -often, Passage(page.name, heading, best.strip())))
    return [passage for _, _, passage in sorted(found, key=lambda each: each[:2])]


def text_of(page: Path) -> str:
    """Return a page as Markdown, with what it includes in its place."""
    text = page.read_text(encoding="utf-8")
    if found := _find_include(text):
        included = (page.parent / found[1]).read_text(encoding="utf-8")
        return included if included.startswith("#") else text.replace(found[0], included)
    return text


def described(text: str) -> tuple[str, str]:
    """Return the title of a page, and the first sentence of its text."""
    title = next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")
    paragraphs = (part.strip() for part in text.partition(f"# {title}")[2].split("\n\n"))
    first = next(part for part in paragraphs if part and part[0] not in "<#|`[!>-")
    found = _find_sentence(" ".join(first.replace("**Context.**", "").split()))
    sentence = _without_links(found[0] if found else " ".join(first.split()))
    return title, sentence[:SENTENCE_CHARACTERS_MAX]


def _read(folder: Path) -> Iterator[Page]:
    for _, pattern in SECTIONS:
        for path in sorted(folder.glob(pattern)):
            if path.name not in LEFT_OUT:
                text = text_of(path)
                name = path.relative_to(folder).with_suffix("").as_posix()
                yield Page(name, *described(text), text)


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each heading with its lines, itself among them. Comments in code are no headings."""
    heading, lines, in_code = "", list[str](), False
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        if _is_heading(line) and not in_code:
            yield heading, lines
            heading, lines = line.lstrip("# "), []
        lines.append(line)
    yield heading, lines


def _count(line: str, words: list[str]) -> int:
    return sum(word in line.lower() for word in words)


def _without_links(text: str) -> str:
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
