"""Makes the changes that a how-to lists, on a copy of the source."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
EXAMPLES = ROOT / "docs" / "examples"


def extended_source(page: str, example: str, folder: Path) -> Path:
    """A copy of the source in which `docs/how-to/<page>` was followed; the folder to import from."""
    source = folder / "src"
    # With the compiled files: they stay valid, because the times of the sources are copied too.
    shutil.copytree(ROOT / "src" / "todoku", source / "todoku")
    shutil.copytree(EXAMPLES / example, source / "todoku", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in re.findall(r"^```diff\n(.*?)^```$", (HOW_TO / page).read_text(), re.S | re.M):
        _apply(block, folder)
    return source


def changed_files(page: str) -> set[str]:
    """Return the files that `docs/how-to/<page>` changes, besides those of the example itself."""
    blocks = re.findall(r"^```diff\n(.*?)^```$", (HOW_TO / page).read_text(), re.S | re.M)
    return {name for block in blocks for name in re.findall(r"^--- (.*)$", block, re.M)}


def _apply(block: str, folder: Path) -> None:
    """Make the changes of a diff. `@@` stands between places; a place is found by its lines."""
    for part in re.split(r"^--- ", block, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        file = folder / name
        text = file.read_text()
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            if not before:
                continue
            assert text.count(before) == 1, f"{name} has {text.count(before)} of:\n{before}"
            text = text.replace(before, after)
        file.write_text(text)
