"""Export over OTLP/HTTP, and what the OTEL_* variables say."""

import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.receiver import HEAD, receiving
from todoku.settings import SettingsInvalid
from todoku.telemetry import encoding
from todoku.telemetry.export import Endpoint, Exporter
from todoku.telemetry.sdk import Sdk, endpoint_from_environment
from todoku.telemetry.store import SpanStore

SPAN = encoding.span(bytes(15) + b"\1", bytes(7) + b"\1", b"", 1, 2, encoding.shape("one", 1, {}))


def test_spans_arrive_with_their_resource(tmp_path: Path) -> None:
    store = SpanStore(tmp_path, "orders")
    store.write(SPAN + SPAN, 2)
    with receiving() as receiver:
        exporter = Exporter(store, Endpoint(url=receiver.url), HEAD)
        assert exporter.export()
        assert exporter.exported == 2
        (request,) = receiver.requests
    resource = request.resource_spans[0]
    assert resource.resource.attributes[0].value.string_value == "test"
    assert resource.scope_spans[0].scope.name == "todoku"
    assert [span.name for span in receiver.spans] == ["one", "one"]


def test_spans_wait_while_the_endpoint_is_busy_and_are_dropped_if_it_refuses_them(
    tmp_path: Path,
) -> None:
    store = SpanStore(tmp_path, "orders")
    store.write(SPAN, 1)
    with receiving() as receiver:
        exporter = Exporter(store, Endpoint(url=receiver.url), HEAD)
        receiver.status = 503
        assert not exporter.export()
        receiver.status = 200
        assert exporter.export()
        assert (len(receiver.spans), store.dropped) == (1, 0)
        store.write(SPAN, 1)
        receiver.status = 400
        assert exporter.export()
        assert store.dropped == 1


def test_unreachable_endpoint_loses_nothing(tmp_path: Path) -> None:
    with receiving() as receiver:
        url = receiver.url
    store = SpanStore(tmp_path, "orders")
    store.write(SPAN, 1)
    exporter = Exporter(store, Endpoint(url=url), HEAD)
    exporter.start()
    exporter.stop()
    assert SpanStore(tmp_path, "orders").adopt() == 1


def test_endpoint_follows_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint_from_environment() == Endpoint(url="http://localhost:4318/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret,x=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    endpoint = endpoint_from_environment()
    assert endpoint.url == "https://otlp.example/v1/traces"
    assert dict(endpoint.headers) == {"api-key": "secret", "x": "1"}
    assert (endpoint.timeout_seconds, endpoint.compressed) == (3.0, True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://tempo.example/spans")
    assert endpoint_from_environment().url == "http://tempo.example/spans"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ],
)
def test_wrong_variable_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=value):
        endpoint_from_environment()


def test_sampler_and_resource_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Sdk("orders", "1.2.3", "host:1")
    assert sdk.resource["service.name"] == "orders"
    assert sdk.resource["service.version"] == "1.2.3"
    assert sdk.sample()("f" * 32)
    sdk.shutdown()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-orders")
    sdk = Sdk("orders", "1.2.3", "host:1")
    assert sdk.resource["service.name"] == "shop-orders"
    assert [sdk.sample()(f"{0:016x}{half:016x}") for half in (1, 2**64 - 1)] == [True, False]
    sdk.shutdown()


def test_missing_sdk_is_told_with_what_to_install() -> None:
    without = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from todoku.telemetry.sdk import Sdk\n"
        "from todoku.settings import SettingsInvalid\n"
        "try: Sdk('orders', '1', 'i')\n"
        "except SettingsInvalid as invalid: print(invalid.problems[0])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=True
    )
    assert "pip install 'todoku[otel]'" in ran.stdout


def test_untraced_process_imports_nothing_of_it() -> None:
    shown = "import sys, todoku.host; print([m for m in sys.modules if 'telemetry' in m])"
    ran = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
