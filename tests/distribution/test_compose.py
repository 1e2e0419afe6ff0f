"""The broker of `compose.yaml` is set up as the embedded one is."""

import asyncio
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from todoku.broker.embedded import find_server, is_ready
from todoku.broker.server_config import API
from todoku.cli.broker_config import broker_config
from todoku.console.host import addresses
from todoku.exposure import require_protection
from todoku.settings import Settings
from todoku.system import load_settings, system

BOUND_SECONDS = 20.0
ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "schemas" / "compose-spec.json"
CONFIG = ROOT / "deploy" / "nats.conf"
OBSERVABILITY = ROOT / "deploy" / "observability"
HAPROXY = shutil.which("haproxy")
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_compose_file_follows_specification(compose: Any) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    assert [str(error) for error in validator.iter_errors(compose)] == []


def test_mounted_files_exist_and_volumes_are_declared(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source[0] == "." else source in compose["volumes"]


def test_ports_are_bound_to_loopback(compose: Any) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_without_a_profile_only_the_broker_starts(compose: Any) -> None:
    assert [name for name, it in compose["services"].items() if "profiles" not in it] == ["nats"]


def test_every_service_of_the_system_runs_small_and_at_scale(compose: Any) -> None:
    """With its own command, health check and, at scale, its own database and three replicas."""
    for descriptor in system:
        name = descriptor.name
        small, scaled = compose["services"][name], compose["services"][f"{name}-scaled"]
        assert (small["profiles"], scaled["profiles"], scaled["scale"]) == (["small"], ["scale"], 3)
        assert scaled["environment"][f"TODOKU_{name.upper()}_DATABASE_URL"].endswith(f"/{name}")
        for service in small, scaled:
            assert service["command"] == ["run", name]
            assert f'("127.0.0.1", {descriptor.default_port})' in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize(("name", "through"), [("console", ""), ("console-scaled", "balancer")])
def test_console_starts_there_and_reaches_each_service(
    compose: Any, name: str, through: str
) -> None:
    """With no key of its own: it is in front of services that ask for one."""
    service = compose["services"][name]
    assert "secrets" not in service
    variables = {key: str(value) for key, value in service["environment"].items()}
    settings = load_settings(environment=variables | {"TODOKU_HOST": "0.0.0.0"}).settings
    require_protection(settings)
    for descriptor in system:
        where = f"http://{through or descriptor.name}:{descriptor.default_port}"
        assert addresses(settings)[descriptor.name] == where
    published = compose["services"][through or name]["ports"]
    assert f"127.0.0.1:{settings.console_port}:{settings.console_port}" in published
    assert f'("127.0.0.1", {settings.console_port})' in service["healthcheck"]["test"][-1]


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is absent (Debian package haproxy)")
def test_balancer_accepts_its_settings() -> None:
    config = ROOT / "deploy" / "haproxy.cfg"
    subprocess.run([HAPROXY, "-c", "-f", config], check=True, capture_output=True)  # type: ignore[list-item]


def test_settings_of_the_services_exist(compose: Any) -> None:
    variables = {setting.variable for setting in system.declared.values()}
    for service in compose["services"].values():
        if service["image"].endswith("todoku}"):
            assert {v for v in service["environment"] if v.startswith("TODOKU_")} <= variables


def test_callers_need_a_key_and_the_first_one_is_a_secret(compose: Any) -> None:
    for descriptor in system:
        for name in (descriptor.name, f"{descriptor.name}-scaled"):
            service = compose["services"][name]
            assert service["environment"]["TODOKU_AUTH"] == "required"
            file = service["environment"].get("TODOKU_BOOTSTRAP_KEY_FILE")
            if descriptor.name == "orders":
                assert file == f"/run/secrets/{service['secrets'][0]}"
                assert service["secrets"][0] in compose["secrets"]
            else:
                assert (file, service.get("secrets")) == (None, None)


def test_observability_sees_every_process_of_every_service(compose: Any) -> None:
    scraped = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())["scrape_configs"][0]
    found = {name: each["port"] for each in scraped["dns_sd_configs"] for name in each["names"]}
    ports = {each.name: each.default_port for each in system if each.name in compose["services"]}
    assert found == ports | {f"{name}-scaled": port for name, port in ports.items()}
    for name in found:
        exported = compose["services"][name]["environment"]
        assert exported["TODOKU_TRACES"] == "${TODOKU_TRACES:-off}"
        assert "jaeger:4318" in exported["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert {
        name
        for name, it in compose["services"].items()
        if "observability" in it.get("profiles", ())
    } == {
        "prometheus",
        "jaeger",
        "grafana",
    }


def test_images_of_others_have_a_version(compose: Any) -> None:
    for name, service in compose["services"].items():
        if not service["image"].endswith("todoku}"):
            assert re.search(r":v?\d+(\.\d+)*(-\w+)?$", service["image"]), name


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is absent (Debian package prometheus)")
def test_prometheus_accepts_its_settings(tmp_path: Path) -> None:
    config = (OBSERVABILITY / "prometheus.yaml").read_text()
    (tmp_path / "bootstrap-key").write_text("tdk_")
    for written, here in (
        ("/etc/prometheus/rules.yaml", OBSERVABILITY / "rules.yaml"),
        ("/run/secrets/bootstrap-key", tmp_path / "bootstrap-key"),
    ):
        config = config.replace(written, str(here))
    (tmp_path / "prometheus.yaml").write_text(config)
    assert PROMTOOL is not None
    checked = [PROMTOOL, "check", "config", tmp_path / "prometheus.yaml"]
    subprocess.run(checked, check=True, capture_output=True)


def test_exemplars_lead_to_the_traces() -> None:
    sources = yaml.safe_load((OBSERVABILITY / "grafana" / "datasources.yaml").read_text())
    prometheus, jaeger = sources["datasources"]
    (leads_to,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert leads_to == {"name": "trace_id", "datasourceUid": jaeger["uid"]}


def test_containers_of_services_write_nothing_but_their_volume(compose: Any) -> None:
    for service in compose["services"].values():
        if service["image"].endswith("todoku}"):
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]


def test_nats_servers_of_the_cluster_and_services_find_what_is_written_for_them(
    compose: Any, tmp_path: Path
) -> None:
    services = compose["services"]
    name, destination, *nodes = services["credentials"]["command"]
    assert services["credentials"]["volumes"] == ["nats-config:/data"]
    assert (name, destination) == ("broker-config", "/data/nats")
    broker_config(tmp_path / "nats", node=tuple(node.removeprefix("--node=") for node in nodes))

    def written(path: str) -> Path:
        return tmp_path / path.removeprefix("/nats/")

    for node in ("nats-1", "nats-2", "nats-3"):
        config = written(services[node]["command"][-1])
        assert "nats-config:/nats:ro" in services[node]["volumes"]
        assert json.loads(config.read_text())["jetstream"]["store_dir"] == "/data"
        subprocess.run([find_server().path, "-t", "-c", config], check=True, capture_output=True)
    for descriptor in system:
        scaled = services[f"{descriptor.name}-scaled"]
        assert "nats-config:/nats:ro" in scaled["volumes"]
        seed = scaled["environment"]["TODOKU_NATS_SEED_FILE"].format(service=descriptor.name)
        assert written(seed).exists()
        assert scaled["environment"]["TODOKU_NATS_API_PREFIX"].replace("$$", "$") == API


def test_nats_server_accepts_its_settings() -> None:
    subprocess.run([find_server().path, "-t", "-c", CONFIG], check=True, capture_output=True)


def test_nats_server_has_jetstream_and_syncs_every_write(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    port, monitoring_port = free_ports(2)
    config = CONFIG.read_text()
    for written, here in (
        ("0.0.0.0:4222", f"127.0.0.1:{port}"),
        ("0.0.0.0:8222", f"127.0.0.1:{monitoring_port}"),
        ("store_dir: /data", f'store_dir: "{tmp_path}"'),
    ):
        assert config.count(written) == 1
        config = config.replace(written, here)
    (tmp_path / "nats.conf").write_text(config)

    with subprocess.Popen(
        [find_server().path, "-c", tmp_path / "nats.conf"], stderr=subprocess.DEVNULL
    ) as server:
        try:
            asyncio.run(until_ready(port))
            with urllib.request.urlopen(f"http://127.0.0.1:{monitoring_port}/jsz") as answer:
                jetstream = json.load(answer)["config"]
        finally:
            server.terminate()

    assert jetstream["sync_always"]
    assert jetstream["max_storage"] >= 2 * Settings().stream_max_bytes


async def until_ready(port: int) -> None:
    """Wait until the server answers, with JetStream."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not await is_ready(port):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)
