"""Export spans over OTLP/HTTP, in a thread of its own."""

import contextvars
import gzip
from collections.abc import Iterable, Mapping
from threading import Event, Thread
from typing import Final

import msgspec
import structlog

from todoku.telemetry import encoding
from todoku.telemetry.store import Batch, SpanStore

log = structlog.get_logger(__name__)

EXPORT_SECONDS: Final = 1.0
"""How often spans are exported."""

BACKOFF_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)

STOP_SECONDS: Final = 2.0
"""How long the end of a process waits for the last export; the next process exports what is left."""

RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""The status codes after which OTLP has a client try again."""


REDIRECTED: Final = 300
"""The first status code that does not mean that the spans were taken."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans go, as the OTEL_EXPORTER_OTLP_* variables say."""

    url: str
    headers: Mapping[str, str] = {}
    timeout_seconds: float = 10.0
    compressed: bool = False
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class Exporter:
    """Exports what is in the store, until it is stopped. `head` is the encoded resource and scope."""

    def __init__(self, store: SpanStore, endpoint: Endpoint, head: tuple[bytes, bytes]) -> None:
        import requests  # The exporter of the extra `otel` depends on it.

        self.exported = 0
        self.failures = 0
        self._store, self._endpoint, self._head = store, endpoint, head
        self._session = requests.Session()
        self._session.headers.update(
            {
                **endpoint.headers,
                "Content-Type": "application/x-protobuf",
                **({"Content-Encoding": "gzip"} if endpoint.compressed else {}),
            }
        )
        # What `Session.post` would find out each time: proxies, certificates, credentials.
        self._request = self._session.prepare_request(requests.Request("POST", endpoint.url))
        certificate = endpoint.client_certificate
        self._settings = self._session.merge_environment_settings(
            endpoint.url,
            {},
            stream=False,
            verify=endpoint.certificate,
            cert=None if certificate is None else (certificate, endpoint.client_key or certificate),
        )
        self._adapter = self._session.get_adapter(endpoint.url)
        self._stopping = Event()
        # Its log lines have the fields of the service.
        run = contextvars.copy_context().run
        self._thread = Thread(target=run, args=(self._run,), name="export spans", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Export what is left, within bounds; the rest stays in its files."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        self._store.close()
        self._session.close()

    def export(self) -> bool:
        """Export all that is kept; return False if nothing takes it at present."""
        while (batch := self._store.take()) is not None:
            if not self._send(batch):
                return False
            self._store.done(batch)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_seconds()):
            self._try()
        self._try()

    def _try(self) -> None:
        if self.export():
            self.failures = 0

    def _pause_seconds(self) -> float:
        if not self.failures:
            return EXPORT_SECONDS
        return BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS)) - 1]

    def _send(self, batch: Batch) -> bool:
        """Send a batch; return False if it is to be sent again later."""
        import requests

        first = encoding.beginning(self._head, batch.size)
        length = len(first) + batch.size
        body: Iterable[bytes | memoryview] = batch.pieces(first)
        if self._endpoint.compressed:
            data = gzip.compress(first + batch.read(), 1)
            body, length = (data,), len(data)
        self._request.body = body  # type: ignore[assignment]
        self._request.headers["Content-Length"] = str(length)
        try:
            answer = self._adapter.send(
                self._request, timeout=self._endpoint.timeout_seconds, **self._settings
            )
            answer.close()
        except (requests.RequestException, OSError) as error:
            return self._failed(str(error))
        if answer.status_code in RETRYABLE:
            return self._failed(f"status {answer.status_code}")
        if answer.status_code < REDIRECTED:
            self.exported += batch.count
        else:
            self._store.dropped += batch.count
            log.error("spans_refused", status=answer.status_code, count=batch.count)
        return True

    def _failed(self, error: str) -> bool:
        if self.failures == 0:
            log.warning("spans_not_exported", url=self._endpoint.url, error=error)
        self.failures += 1
        return False
