"""What comes from OpenTelemetry's SDK, the extra `otel`: resource, sampler, and the OTEL_* variables.

Spans that a plug-in makes with OpenTelemetry's API are exported by the SDK itself.
"""

import os
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Final

from todoku.settings import SettingsInvalid
from todoku.telemetry.encoding import Value
from todoku.telemetry.export import Endpoint

DEFAULT_URL: Final = "http://localhost:4318"

SHUTDOWN_SECONDS: Final = 2.0

MISSING: Final = (
    "traces=otlp needs OpenTelemetry's SDK and its exporter, which are not installed ({error}): install"
    " them with `pip install 'todoku[otel]'`, or set TODOKU_TRACES=off"
)


class Sdk:
    """The configured SDK. Raises `SettingsInvalid` if it is not installed, or a variable is wrong."""

    def __init__(self, service: str, version: str, instance: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SettingsInvalid([MISSING.format(error=error)]) from error
        attributes = {"service.namespace": "todoku", "service.version": version}
        attributes["service.instance.id"] = instance
        if not os.environ.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = service
        self.endpoint = endpoint_from_environment()
        resource = Resource.create(attributes)
        self.resource: dict[str, Value] = dict(resource.attributes)  # type: ignore[arg-type]
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=self.endpoint.url))
        )

    def serve_plugins(self) -> None:
        """Make the spans of plug-ins go where Todoku's own go, unless the process has another provider."""
        from opentelemetry import trace

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)

    def shutdown(self) -> None:
        """Export what plug-ins have left, within bounds."""
        ending = Thread(target=self._provider.shutdown, name="end plug-ins' spans", daemon=True)
        ending.start()
        ending.join(SHUTDOWN_SECONDS)

    def sample(self) -> Callable[[str], bool]:
        """Return what tells whether a trace that begins is sampled, as OTEL_TRACES_SAMPLER says."""
        sampler: Any = self._provider.sampler
        description = sampler.get_description()
        if description == "AlwaysOnSampler" or "root:AlwaysOnSampler" in description:
            return lambda trace: True

        def sample(trace: str) -> bool:
            found = sampler.should_sample(None, int(trace, 16), "order")
            return bool(found.decision.is_sampled())

        return sample


def endpoint_from_environment() -> Endpoint:
    """Return where spans go, from the OTEL_EXPORTER_OTLP_* variables. Raises `SettingsInvalid`."""
    url = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not url:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_URL
        url = f"{base.rstrip('/')}/v1/traces"
    if not url.startswith(("http://", "https://")):
        raise SettingsInvalid(
            [f"the endpoint of traces is {url!r}, but begins with http:// or https:// (OTLP/HTTP)"]
        )
    protocol = _variable("PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise SettingsInvalid(
            [f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; Todoku exports http/protobuf"]
        )
    return Endpoint(
        url=url,
        headers=_headers(_variable("HEADERS")),
        timeout_seconds=_seconds(_variable("TIMEOUT")),
        compressed=_variable("COMPRESSION") == "gzip",
        certificate=_variable("CERTIFICATE") or None,
        client_certificate=_variable("CLIENT_CERTIFICATE") or None,
        client_key=_variable("CLIENT_KEY") or None,
    )


def _variable(name: str) -> str:
    """Return a variable of the exporter: that of traces, else that of all signals."""
    traces = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
    return traces or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def _headers(text: str) -> Mapping[str, str]:
    from opentelemetry.util.re import parse_env_headers

    return parse_env_headers(text, liberal=True)


def _seconds(text: str) -> float:
    try:
        return float(text or 10)
    except ValueError:
        raise SettingsInvalid(
            [f"OTEL_EXPORTER_OTLP_TIMEOUT is {text!r}, not a number of seconds"]
        ) from None
