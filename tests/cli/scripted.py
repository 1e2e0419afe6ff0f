"""A server that gives the answers it was told to give, to see how the command line takes them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Scripted(msgspec.Struct, frozen=True):
    """An answer: JSON with status 200, unless it says otherwise. `cut_short` hangs up in the body."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    cut_short: bool = False


class Server(ThreadingHTTPServer):
    """Gives each answer once, in order, and the last one for ever; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: Sequence[Scripted]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut_short))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def answering(*answers: Scripted) -> Iterator[Server]:
    """A server with these answers."""
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def problem(status: int, slug: str, title: str, detail: str, **more: object) -> Scripted:
    """An RFC 9457 answer."""
    details = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail}
    return Scripted(
        msgspec.json.encode(details | more), status=status, content_type="application/problem+json"
    )
