"""The site has its pages as Markdown too, and a list of them for machines."""

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_llms_txt_lists_every_page_that_is_written(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "markdown_pages.py"))["write"](tmp_path)
    listed = (tmp_path / "llms.txt").read_text(encoding="utf-8")
    links = set(re.findall(r"^- \[.+\]\((\S+)\): \S", listed, re.MULTILINE))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")}
    left_out = {"index.md", "ja.md", "licence.md"}
    assert links == {page for page in pages if not page.startswith("examples/")} - left_out
    assert listed.startswith("# Todoku\n\n> ")
    for link in links:
        text = (tmp_path / link).read_text(encoding="utf-8")
        assert re.search("^# ", text, re.MULTILINE)
        assert "{include}" not in text
