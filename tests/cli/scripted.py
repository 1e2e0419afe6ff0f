"""A server with scripted responses, to test how the command line handles them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Scripted(msgspec.Struct, frozen=True):
    """A response: JSON with status 200 by default. `cut_short` closes the connection in the body."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    cut_short: bool = False


class Server(ThreadingHTTPServer):
    """Sends each response once, in order, then the last one forever; records the requests."""

    daemon_threads = True

    def __init__(self, answers: Sequence[Scripted]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", body))
        self.server.keys.append(self.headers["Idempotency-Key"])
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut_short))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Discard the log."""


@contextmanager
def answering(*answers: Scripted) -> Iterator[Server]:
    """Run a server with these responses."""
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def problem(status: int, slug: str, title: str, detail: str, **more: object) -> Scripted:
    """Return an RFC 9457 response."""
    details = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail}
    return Scripted(
        msgspec.json.encode(details | more), status=status, content_type="application/problem+json"
    )
