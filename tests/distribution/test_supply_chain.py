"""Dependencies have upper bounds that contain what is tested, and the licences of all are known."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIRED = [
    *PROJECT["project"]["dependencies"],
    *(each for extra in PROJECT["project"]["optional-dependencies"].values() for each in extra),
]


def locked(lock: str) -> dict[str, Version]:
    text = (LOCKS / lock).read_text()
    return {name: Version(v) for name, v in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("required", REQUIRED)
def test_dependency_has_an_upper_bound_that_contains_the_tested_version(required: str) -> None:
    requirement = Requirement(required)
    assert any(each.operator == "<" for each in requirement.specifier)
    assert requirement.specifier.contains(locked("dev.lock")[requirement.name])


def test_tested_version_is_of_the_newest_line_that_is_allowed() -> None:
    """A bound far above what is tested would promise what nobody has tried."""
    for requirement in map(Requirement, REQUIRED):
        version = locked("dev.lock")[requirement.name]
        bound = max(Version(s.version) for s in requirement.specifier if s.operator == "<")
        following = [
            Version(f"{version.major}.{version.minor + 1}"),
            Version(f"{version.major + 1}"),
        ]
        assert bound in following, requirement


@pytest.mark.parametrize("lock", ["dev.lock", "image.lock", "image-build.lock", "audit.lock"])
def test_locks_have_hashes_and_no_addresses(lock: str) -> None:
    text = (LOCKS / lock).read_text()
    assert "http" not in re.sub(r"^[\w.-]+==.*$", "", text, flags=re.MULTILINE)
    for name, entry in re.findall(r"^([\w.-]+)==((?:.*\\\n)+.*)$", text, re.MULTILINE):
        assert "--hash=sha256:" in entry, name


def test_tools_of_the_audit_are_in_no_other_lock() -> None:
    for name in ("bandit", "pip-audit", "cyclonedx-bom"):
        assert name in locked("audit.lock")
        assert name not in locked("dev.lock")


def test_licences_are_read_from_identifiers_or_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LOCKS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from sbom import licences_of  # type: ignore[import-not-found]

    exact, classifier = {"id": "MIT"}, {"name": "License :: OSI Approved :: MIT License"}
    for licences, name in [
        ([{"license": exact}, {"license": classifier}], "MIT"),
        ([{"license": classifier}], "MIT License"),
        ([{"expression": "MIT OR Apache-2.0"}], "MIT OR Apache-2.0"),
        ([], ""),
    ]:
        assert licences_of({"name": "x", "licenses": licences}) == name
