"""A service in a package of its own, installed beside todoku, is part of everything."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker_access import connect_as_operator
from todoku.lab.stack import SECONDS_MAX, Stack, free_port_settings
from todoku.settings import Settings, Span, to_environment
from todoku.system import System

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "loyalty"
PRICE = 5
PYTHON_LINES_MAX = 120
SERVICES = ("orders", "inventory", "shipping", "loyalty")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
WAIT_SECONDS = 0.05


class Shop(msgspec.Struct, frozen=True):
    """An environment in which todoku and loyalty are installed from wheels, and what runs in it."""

    scripts: Path
    folder: Path
    settings: Settings

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        # The NATS server is beside the Python that runs the tests.
        path = os.pathsep.join([str(self.scripts), str(Path(sys.executable).parent), "/usr/bin"])
        kept = {"PATH": path, "HOME": str(self.folder), "PYTHONPATH": ""}
        return {**to_environment(self.settings), **kept}

    def up(self) -> Stack:
        """Return its `todoku up`, not started yet."""
        return Stack(
            self.settings,
            self.folder / "up.stderr",
            command=[str(self.scripts / "todoku"), "up"],
            environment=self.variables,
            folder=self.folder,
        )

    def run(self, *words: str, codes: Sequence[int] = (0,), **variables: str) -> str:
        """Run a command and return what it prints."""
        ended = subprocess.run(
            [str(self.scripts / "todoku"), *words],
            cwd=self.folder,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode in codes, ended
        return ended.stdout

    def ask(self, service: str, path: str, body: Any = None) -> Any:
        """Return what a service responds, as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.settings.http_url(service) + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
            return json.load(answer)

    def order(self, user: str, amount: int) -> str:
        """Place an order for this amount of the product that there is plenty of; return its id."""
        item = {"productId": "plenty", "quantity": amount // PRICE, "price": PRICE}
        return str(self.ask("orders", "/orders", {"userId": user, "items": [item]})["id"])

    def points(self, user: str) -> int:
        """Return the points that a customer has."""
        found = self.ask("loyalty", f"/points/{user}")
        assert found["userId"] == user
        return int(found["points"])

    def report(self) -> Any:
        """Return what `todoku verify` reports now."""
        return json.loads(self.run("verify", "--json", codes=(0, 1)))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment with both wheels, and the dependencies of this one."""
    wheels, environment = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("venv")
    for project in (ROOT, PACKAGE):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
    venv.create(environment, symlinks=True)
    [site] = environment.glob("lib/python*/site-packages")
    # Not todoku itself, which an editable install finds through a .pth file of this environment.
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    python = str(environment / "bin" / "python")
    subprocess.run(
        [*PIP, "--python", python, *install, *map(str, wheels.iterdir())],
        check=True,
        capture_output=True,
        text=True,
    )
    return environment / "bin"


@pytest.fixture(scope="module")
def shop(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with the loyalty service, whose carrier accepts every parcel at once."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE / "src"))
        system: System = importlib.import_module("loyalty.system").system
        settings = system.settings(
            **free_port_settings(system.names),
            system="loyalty.system:system",
            data_dir=folder / "data",
            carrier_delay_seconds=Span(0, 0),
            carrier_success_rate=1.0,
        )
        yield Shop(scripts, folder, settings)


@pytest.fixture(scope="module")
def running(shop: Shop) -> Iterator[Stack]:
    """The shop, run by `todoku up`."""
    before = shop.run("migrate", "--check", codes=(1,))
    assert "loyalty    no tables: version 0001 is needed" in before
    assert "loyalty    no tables → version 0001" in shop.run("migrate", "loyalty")
    with shop.up() as stack:
        stack.start()
        shop.run(
            "product", "set", "plenty", "--name", "P", "--price", str(PRICE), "--stock", "9999"
        )
        yield stack
        assert stack.stop() == 0


def until(found: Callable[[], Any], good: Callable[[Any], object]) -> Any:
    """Return the first result that is good."""
    deadline = time.monotonic() + SECONDS_MAX
    while not good(result := found()):
        assert time.monotonic() < deadline, result
        time.sleep(WAIT_SECONDS)
    return result


def test_package_is_small_and_imports_only_packages_of_todoku() -> None:
    files = list(PACKAGE.glob("src/**/*.py"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith("from todoku")}

    assert len(lines) <= PYTHON_LINES_MAX
    assert imported <= {
        *("todoku", "todoku.contracts", "todoku.database", "todoku.descriptor", "todoku.engine"),
        *("todoku.engine.revisions", "todoku.settings", "todoku.web"),
    }


def test_completed_order_gives_points_and_cancelled_one_gives_none(
    shop: Shop, running: Stack
) -> None:
    assert shop.points("newcomer") == 0
    completed = shop.order("newcomer", 1_250)
    item = {"productId": "no-such-product", "quantity": 1, "price": 5_000}
    cancelled = shop.ask("orders", "/orders", {"userId": "newcomer", "items": [item]})["id"]

    assert "COMPLETED" in shop.run("order", "watch", completed)
    assert "CANCELLED_NO_STOCK" in shop.run("order", "watch", cancelled, codes=(10,))
    assert until(lambda: shop.points("newcomer"), bool) == 12


def test_points_are_given_exactly_once_also_after_kill_9(shop: Shop, running: Stack) -> None:
    count = 60
    for n in range(count):
        shop.order("regular", 300)
        if n % 20 == 10:
            running.kill("loyalty")
            running.kill("orders")
            running.until_ready()

    until(shop.report, lambda report: report["settled"])

    assert shop.points("regular") == 3 * count
    assert shop.report()["clean"]


def test_verify_reports_deliveries_that_wait_for_it(shop: Shop, running: Stack) -> None:
    running.freeze("loyalty")
    try:
        shop.run("order", "watch", shop.order("waiting", 100))
        waiting = until(shop.report, lambda report: report["awaited"])["awaited"]
    finally:
        running.thaw("loyalty")

    assert {(each["service"], each["reader"]) for each in waiting} == {("orders", "loyalty")}
    until(shop.report, lambda report: report["settled"])
    assert shop.points("waiting") == 1


async def publish(settings: Settings, subject: str, body: bytes) -> None:
    """Publish a message as the broker's operator may."""
    connection = await connect_as_operator(settings.nats_port, settings.data_dir)
    await connection.jetstream().publish(subject, body)
    await connection.close()


def test_its_dead_letters_are_listed_verified_and_discarded(shop: Shop, running: Stack) -> None:
    asyncio.run(publish(shop.settings, "orders.completed", b"no event"))

    listing = ("dead", "list", "--service", "loyalty", "--json")
    [letter] = map(json.loads, until(lambda: shop.run(*listing), bool).splitlines())

    assert letter["service"] == "loyalty"
    assert [each["service"] for each in shop.report()["dead_letters"]] == ["loyalty"]
    shop.run("dead", "discard", letter["id"], "--reason", "from a test")
    assert shop.report()["dead_letters"] == []


def test_backup_doctor_and_documents_include_it(shop: Shop, running: Stack) -> None:
    made = json.loads(shop.run("backup", str(shop.folder / "backups"), "--json"))
    checks = json.loads(shop.run("doctor", "--json"))["checks"]

    assert list(made["manifest"]["databases"]) == list(SERVICES)
    found = {check["check"]: check["found"] for check in checks}
    assert "served by todoku" in found["loyalty port"]
    assert "version 0001" in found["loyalty database"]
    assert "/points/{userId}" in shop.ask("loyalty", "/openapi.json")["paths"]
    channels = shop.ask("loyalty", "/asyncapi.json")["channels"]
    assert "loyalty" in channels["OrderCompletedEvent"]["description"]
    with urllib.request.urlopen(shop.settings.http_url("loyalty") + "/docs") as page:
        assert page.status == 200


def test_config_and_completion_know_its_settings(shop: Shop) -> None:
    setting = json.loads(shop.run("config", "--json"))["loyalty_port"]

    assert setting["value"] == shop.settings.port("loyalty")
    assert setting["meaning"] == "The port of the loyalty service."
    script = shop.run("--install-completion", "--shell", "bash", "--print")
    assert "--loyalty-port" in script
    assert "--loyalty-database-url" in script


def test_simulation_includes_it(shop: Shop) -> None:
    told = shop.run("simulate", "--seed", "1", "--trace")

    assert "loyalty" in told
    assert "clean: no invariant was broken" in shop.run("simulate", "--seeds", "4")


@pytest.mark.parametrize(
    ("system", "seeds", "found"),
    [
        ("system", 12, "clean: no invariant was broken"),
        ("awards_again", 20, "broke an invariant"),
        ("awards_too_little", 20, "broke an invariant"),
    ],
)
def test_simulation_finds_the_bugs_that_are_planted_into_it(
    shop: Shop, system: str, seeds: int, found: str
) -> None:
    told = shop.run(
        *("simulate", "--seeds", str(seeds), "--shrink-seconds", "0"),
        codes=(0, 1),
        TODOKU_SYSTEM=f"simulated_loyalty:{system}",
        PYTHONPATH=str(PACKAGE / "tests"),
    )
    assert found in told
