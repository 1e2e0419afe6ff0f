"""A receiver of OTLP, and what a trace must be: whole."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from todoku.telemetry import encoding
from todoku.telemetry.store import SpanStore

HEAD = encoding.request({"service.name": "test"}, "todoku", "1")


def decode(spans: bytes) -> list[Span]:
    """Decode spans as our encoder wrote them, with the official package."""
    request = ExportTraceServiceRequest.FromString(encoding.beginning(HEAD, len(spans)) + spans)
    return [*request.resource_spans[0].scope_spans[0].spans] if request.resource_spans else []


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span or a link as Python values."""
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


def let_go(store: SpanStore) -> None:
    """Close the files of a store, as the end of its process does: its locks go with them."""
    begun = () if store._begun is None else store._begun[1:]
    for descriptor in (store._descriptor, *begun, *(each.descriptor for each in store._waiting)):
        if descriptor is not None:
            os.close(descriptor)
    store._descriptor = store._begun = None


def traces(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Return spans by trace."""
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.trace_id.hex()].append(span)
    return found


def torn(spans: Sequence[Span]) -> list[str]:
    """Return what is wrong with a trace: it has one root, all parents are present, and no id twice."""
    ids = Counter(span.span_id for span in spans)
    roots = [span for span in spans if not span.parent_span_id]
    problems = [f"{len(roots)} roots"] if len(roots) != 1 else []
    problems += [f"{count} spans {key.hex()}" for key, count in ids.items() if count > 1]
    problems += [
        f"{span.name} has lost its parent"
        for span in spans
        if span.parent_span_id and span.parent_span_id not in ids
    ]
    return problems


class Receiver:
    """What an OTLP/HTTP receiver has received."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.status = 200
        self.url = ""

    @property
    def spans(self) -> list[Span]:
        """Return all spans that were received."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive OTLP/HTTP at a free port of this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.status == 200:
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
