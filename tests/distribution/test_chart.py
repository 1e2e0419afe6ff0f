"""The Helm chart, and the manifests that are rendered from it, are valid and fit the system."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from todoku.broker.partitions import NUMBERS
from todoku.console.host import addresses
from todoku.exposure import require_protection
from todoku.settings import CONSOLE
from todoku.system import load_settings, system

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "todoku"
RENDERED = ROOT / "deploy" / "kubernetes" / "todoku.yaml"
VERSIONS = ["1.35", "1.36", "1.37"]
"""The versions of Kubernetes that are maintained."""

MANIFESTS: list[Any] = list(yaml.safe_load_all(RENDERED.read_text()))

helm = pytest.mark.skipif(shutil.which("helm") is None, reason="install helm to render the chart")


@pytest.fixture(scope="module")
def values() -> Any:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def containers() -> Iterator[tuple[Any, Any]]:
    """Yield each container with the pod that it is in."""
    for manifest in MANIFESTS:
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            for container in pod["containers"]:
                yield container, pod


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    for manifest in MANIFESTS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_values_fit_their_schema(values: Any) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert [str(e) for e in jsonschema_rs.validator_for(schema).iter_errors(values)] == []
    values["image"]["digets"] = "sha256:0"
    assert not jsonschema_rs.validator_for(schema).is_valid(values)


def test_numbers_of_partitions_are_those_that_the_services_know() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert tuple(schema["properties"]["partitions"]["enum"]) == NUMBERS


def test_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["version"]}"' in project
    assert chart["appVersion"] == chart["version"]


def test_every_service_of_the_system_is_deployed_at_its_port(values: Any) -> None:
    ports = {service.name: service.default_port for service in system}
    assert {name: it["port"] for name, it in values["services"].items()} == ports
    assert {container["name"] for container, _ in containers()} == {*ports, CONSOLE}


def test_settings_exist() -> None:
    variables = {setting.variable for setting in system.declared.values()}
    for container, _ in containers():
        named = {variable["name"] for variable in container["env"]}
        assert {name.removesuffix("_FILE") for name in named - variables} <= variables


def test_callers_need_a_key_and_only_orders_gets_the_first_one() -> None:
    for container, pod in containers():
        named = {variable["name"]: variable["value"] for variable in container["env"]}
        assert named["TODOKU_AUTH"] == "required"
        assert ("TODOKU_BOOTSTRAP_KEY_FILE" in named) is (container["name"] == "orders")
        if container["name"] == CONSOLE:
            assert "volumes" not in pod  # Nor any other secret.
            continue
        secrets = {volume["name"]: volume for volume in pod["volumes"]}["secrets"]["projected"]
        mounted = {item["path"] for each in secrets["sources"] for item in each["secret"]["items"]}
        assert ("bootstrap-key" in mounted) is (container["name"] == "orders")


def test_containers_have_no_rights() -> None:
    """What the Pod Security Standard `restricted` asks for, and no folder to write but one."""
    for container, pod in containers():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_variables_of_kubernetes_do_not_meet_those_of_todoku() -> None:
    """It would set TODOKU_ORDERS_PORT=tcp://… for a Service of that name."""
    assert not any(pod["enableServiceLinks"] for _, pod in containers())


def test_pods_are_given_time_to_drain_and_stop(values: Any) -> None:
    for container, pod in containers():
        needed = values["shutdownGraceSeconds"]
        if container["name"] != CONSOLE:
            needed += values["drainSeconds"]
        assert pod["terminationGracePeriodSeconds"] > needed


def test_console_starts_there_and_reaches_each_service_at_its_port() -> None:
    [console] = [container for container, _ in containers() if container["name"] == CONSOLE]
    variables = {each["name"]: each["value"] for each in console["env"]}
    settings = load_settings(environment=variables | {"TODOKU_HOST": "0.0.0.0"}).settings
    require_protection(settings)
    deployed = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in MANIFESTS}
    for name, address in addresses(settings).items():
        host, port = address.removeprefix("http://").split(":")
        assert host == f"todoku-{name}"
        assert deployed["Service", host]["ports"][0]["port"] == int(port)
    assert settings.console_port == deployed["Service", "todoku-console"]["ports"][0]["port"]


def test_console_may_reach_the_services_and_nothing_else() -> None:
    policies = {each["metadata"]["name"]: each for each in MANIFESTS if "Network" in each["kind"]}
    of_services, of_console = policies["todoku-todoku"], policies["todoku-todoku-console"]
    selector = of_services["spec"]["podSelector"]["matchExpressions"]
    component = "app.kubernetes.io/component"
    assert selector == [{"key": component, "operator": "NotIn", "values": [CONSOLE]}]
    allowed = [port for rule in of_console["spec"]["egress"] for port in rule["ports"]]
    assert [each["port"] for each in allowed] == [
        53,
        53,
        *(it.default_port for it in sorted_system()),
    ]
    sources = [each for rule in of_services["spec"]["ingress"] for each in rule["from"]]
    assert CONSOLE in [
        each["podSelector"].get("matchLabels", {}).get(component) for each in sources
    ]


def sorted_system() -> list[Any]:
    """Return the services in the order in which the chart has them."""
    return sorted(system, key=lambda descriptor: descriptor.name)


@helm
def test_chart_without_console_is_valid_and_has_none() -> None:
    rendered = render(VERSIONS[-1], "console.enabled=false")
    assert "component: console" not in rendered
    for manifest in yaml.safe_load_all(rendered):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@helm
def test_console_gets_the_secret_of_its_client_and_no_other() -> None:
    manifests = yaml.safe_load_all(
        render(VERSIONS[-1], "console.oidcClientSecret.existingSecret=idp")
    )
    [pod] = [
        manifest["spec"]["template"]["spec"]
        for manifest in manifests
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == "todoku-console"
    ]
    [volume], [container] = pod["volumes"], pod["containers"]
    assert volume["secret"]["secretName"] == "idp"
    [mount] = container["volumeMounts"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    file = variables["TODOKU_OIDC_CONSOLE_CLIENT_SECRET_FILE"]
    assert file == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"


@helm
def test_services_that_clients_reach_directly_need_a_certificate() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(VERSIONS[-1], "behindProxy=false")
    assert "need a certificate, tls.existingSecret" in refused.value.stderr
    rendered = render(VERSIONS[-1], "behindProxy=false", "tls.existingSecret=todoku-tls")
    assert rendered.count("scheme: HTTPS") == rendered.count("httpGet:")
    assert "orders=https://todoku-orders:8080" in rendered


@helm
def test_number_of_partitions_is_the_same_for_all_services() -> None:
    manifests = yaml.safe_load_all(render(VERSIONS[-1], "partitions=3"))
    numbers = [
        variable["value"]
        for manifest in manifests
        if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]
        if variable["name"] == "TODOKU_PARTITIONS"
    ]
    assert numbers == ["3"] * len(system.names)


@helm
def test_manifests_are_rendered_from_the_chart() -> None:
    """Versions of Helm differ in empty lines."""
    assert list(yaml.safe_load_all(render(VERSIONS[-1]))) == MANIFESTS


@helm
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_that_can_be_enabled_is_valid(version: str) -> None:
    enabled = [
        "migrationJob.enabled=true",
        "auth.bootstrapKey.existingSecret=",
        "nats.existingSecret.name=nats",
        "nats.seeds.existingSecret=nats-seeds",
        "nats.ca.existingSecret=nats-ca",
        "console.oidcClientSecret.existingSecret=console-client",
        "tls.existingSecret=todoku-tls",
        "behindProxy=false",
    ]
    enabled += [f"services.{service.name}.autoscaling.enabled=true" for service in system]
    for manifest in yaml.safe_load_all(render(version, *enabled)):
        kubernetes_validate.validate(manifest, version, strict=True)


@helm
def test_old_cluster_gets_the_versions_that_it_knows() -> None:
    manifests = yaml.safe_load_all(render("1.20", "services.orders.autoscaling.enabled=true"))
    versions = {manifest["kind"]: manifest["apiVersion"] for manifest in manifests}
    assert versions["PodDisruptionBudget"] == "policy/v1beta1"
    assert versions["HorizontalPodAutoscaler"] == "autoscaling/v2beta2"


@helm
def test_helm_finds_no_fault() -> None:
    subprocess.run(["helm", "lint", "--strict", CHART], check=True, capture_output=True)


def render(version: str, *values: str) -> str:
    sets = [word for value in values for word in ("--set", value)]
    command = ["helm", "template", "todoku", str(CHART), "--kube-version", version, *sets]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
