"""What was released stays: its number, its migrations, its events on the wire."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASES: dict[str, str] = {
    each["version"]: each["commit"]
    for each in tomllib.loads(Path(__file__).with_name("releases.toml").read_text())["release"]
}
UNNUMBERED = "0.1.0"
"""What there was before commits were numbered."""

KEPT = ["src/todoku/*/migrations/*.py", "tests/contracts/golden"]
"""Files that never change once they are released."""


def git(*arguments: str) -> str:
    """Run git in the repository; skip the test where this is none, or lacks the commit."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this checkout lacks the release: {done.stderr.strip()}")
    return done.stdout


def test_every_version_of_the_changelog_is_listed_with_its_commit() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert versions == [*RELEASES, UNNUMBERED]


def test_version_of_this_source_is_the_last_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == next(iter(RELEASES))


@pytest.mark.parametrize("version", RELEASES)
def test_commit_of_a_release_has_its_number(version: str) -> None:
    project = tomllib.loads(git("show", f"{RELEASES[version]}:pyproject.toml"))["project"]
    assert project["version"] == version


@pytest.mark.parametrize("version", RELEASES)
def test_released_migrations_and_golden_files_are_unchanged(version: str) -> None:
    changes = git("diff", "--name-status", "--no-renames", RELEASES[version], "--", *KEPT)
    assert [line for line in changes.splitlines() if not line.startswith("A")] == []
