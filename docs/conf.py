"""Sphinx builds these pages as a site: `make docs`. Nothing in it is fetched from elsewhere."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import markdown_pages

project = "Todoku"
copyright = "the Todoku authors, Apache-2.0"
html_title = "Todoku"
language = "en"

extensions = ["myst_parser"]
exclude_patterns = ["examples"]
myst_heading_anchors = 3
myst_enable_extensions = ["alert"]

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # Summaries are fetched, which browsers refuse on a disk.
pygments_style = "tango"
pygments_dark_style = "github-dark"

PAGES_OF_ROOT_FILES = {
    "README.md": "index",
    "README.ja.md": "ja",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "AGENTS.md": "agents",
    "LICENSE": "licence",
    "examples/loyalty/README.md": "how-to/service-in-your-package",
}
"""Files beside this folder that are pages of the site: a page here includes each of them."""


def link_root_files(app: Sphinx, document: nodes.document) -> None:
    """Point links to files of the root to their pages."""
    for link in document.findall(addnodes.pending_xref):
        if page := PAGES_OF_ROOT_FILES.get(link["reftarget"]):
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", page, None


def add_markdown(app: Sphinx, error: Exception | None) -> None:
    """Put every page beside its HTML as Markdown, and their list."""
    if error is None:
        markdown_pages.write(Path(app.outdir))


def setup(app: Sphinx) -> None:
    """Register what Sphinx calls."""
    app.connect("doctree-read", link_root_files)
    app.connect("build-finished", add_markdown)
