"""Generators of clients in other languages take the OpenAPI documents.

Needs Java, and `pip install openapi-generator-cli`: 30 MB that no other test uses.
"""

import py_compile
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from todoku.system import system
from web.test_openapi import document

GENERATOR = shutil.which("openapi-generator-cli")
SECONDS_MAX = 300

pytestmark = pytest.mark.skipif(
    GENERATOR is None or shutil.which("java") is None,
    reason="needs Java and PyPI's openapi-generator-cli",
)


@pytest.mark.parametrize("language", ["go", "typescript-fetch", "python"])
@pytest.mark.parametrize("service", system.names)
def test_generator_takes_the_document(service: str, language: str, tmp_path: Path) -> None:
    written = tmp_path / "openapi.json"
    written.write_bytes(msgspec.json.encode(document(service)))
    client = tmp_path / "client"
    run = subprocess.run(
        [str(GENERATOR), "generate", "-i", str(written), "-g", language, "-o", str(client)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    assert "[error]" not in output, output
    for module in client.rglob("*.py"):
        py_compile.compile(str(module), doraise=True)
    if language == "go" and shutil.which("gofmt"):
        files = [str(file) for file in client.rglob("*.go")]
        subprocess.run(["gofmt", "-e", "-l", *files], check=True, capture_output=True)
