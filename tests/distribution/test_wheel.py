"""The wheel holds everything that it needs: installed where nothing else is, it runs."""

import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import todoku
from end_to_end.running import BOUND_SECONDS, PORT_COUNT, up
from todoku.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
LOOK_AGAIN_SECONDS = 0.05


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.iterdir()
    return built


def test_wheel_contains_all_package_files(wheel: Path) -> None:
    """Migrations, `py.typed`, and what `/docs` serves, too."""
    source = ROOT / "src"
    expected = {
        str(file.relative_to(source))
        for file in source.glob("todoku/**/*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert expected - packed == set()


def test_wheel_contains_the_documentation(wheel: Path) -> None:
    """Every page, with what it includes in its place; no pictures, which no terminal shows."""
    folder = "todoku/documentation/pages/"
    packed = zipfile.ZipFile(wheel)
    names = {name.removeprefix(folder) for name in packed.namelist() if name.startswith(folder)}
    docs = ROOT / "docs"
    expected = [*docs.glob("*.md"), *docs.glob("how-to/*.md"), *docs.glob("decisions/*.md")]
    assert names == {page.relative_to(docs).as_posix() for page in expected}
    assert b"{include}" not in packed.read(f"{folder}agents.md")


def test_wheel_contains_only_package_and_metadata(wheel: Path) -> None:
    name = f"todoku-{todoku.__version__}"
    for file in zipfile.ZipFile(wheel).namelist():
        assert file.startswith(("todoku/", f"{name}.dist-info/")), file
    assert f"{name}.dist-info/licenses/LICENSE" in zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel, installed with its dependencies in an environment of its own."""
    reachable = subprocess.run(
        [*PIP, "install", "--dry-run", "--no-deps", "--ignore-installed", "msgspec"],
        capture_output=True,
        text=True,
    )
    if reachable.returncode != 0:
        pytest.skip(f"pip reaches no package index: {reachable.stderr.strip()[-200:]}")
    environment = tmp_path_factory.mktemp("venv")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [*PIP, "--python", str(python), "install", "--quiet", str(wheel)],
        check=True,
        capture_output=True,
        text=True,
    )
    return environment / "bin" / "todoku"


def test_installed_wheel_processes_order_to_its_end(
    installed: Path,
    tmp_path: Path,
    free_ports: Callable[[int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{installed.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    flags = ("--carrier-delay-seconds", "0", "--carrier-success-rate", "1")

    with up(tmp_path, free_ports(PORT_COUNT), *flags, todoku=[str(installed)]) as running:
        running.output.until("todoku is ready in ")
        orders = running.url("orders")
        item = {"productId": "prod001", "quantity": 2, "price": 5000}
        order = get(f"{orders}/orders", {"userId": "user123", "items": [item]})
        deadline = time.monotonic() + BOUND_SECONDS
        while order["status"] in ("PENDING", "AWAITING_SHIPMENT"):
            assert time.monotonic() < deadline, order
            time.sleep(LOOK_AGAIN_SECONDS)
            order = get(f"{orders}/orders/{order['id']}")
        assert order["status"] == "COMPLETED"
        for page in ("/docs", "/static/rapidoc-min.js", "/problems/invalid-body"):
            with urllib.request.urlopen(orders + page) as answer:
                assert answer.status == 200

        assert running.interrupt() == ExitCode.OK


def get(url: str, body: Any = None) -> Any:
    """What a service answers, as JSON; with a body, to a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=BOUND_SECONDS) as answer:
        return json.load(answer)
