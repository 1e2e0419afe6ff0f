"""Put the pages into the wheel, where `todoku docs` finds them. Hatchling calls this when it builds one."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DOCS = Path(__file__).parent
IN_WHEEL = "todoku/documentation/pages"


class PagesHook(BuildHookInterface[Any]):
    """Writes the pages as Markdown, and includes them. An editable installation reads this folder itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]
        from markdown_pages import write_pages

        self._folder = tempfile.TemporaryDirectory()
        write_pages(Path(self._folder.name))
        build_data["force_include"][self._folder.name] = IN_WHEEL

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
