"""A web server on this machine that can misbehave."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scratchnet.data import download


class Server(ThreadingHTTPServer):
    """Serves `body` at any address; `during` is called between the two halves of each answer."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.status = 200
        self.knows_ranges = True
        self.cuts: list[int] = []  # after so many bytes of the next answers, the connection breaks
        self.during: Callable[[], object] = lambda: None
        self.ranges: list[str | None] = []  # what was asked for

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that lost patience has hung up."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.ranges.append(asked)
        start = 0
        if server.status != 200:
            self.send_error(server.status)
            return
        if asked is not None and server.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        rest = server.body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        sent = rest[: server.cuts.pop(0)] if server.cuts else rest
        middle = len(sent) // 2
        self.wfile.write(sent[:middle])
        server.during()
        self.wfile.write(sent[middle:])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Let `download` fetch `body`, and expect it, from a server that runs until the context ends."""
    with Server(body) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(download, "URL", f"http://127.0.0.1:{server.server_port}/archive.tar.gz")
        monkeypatch.setattr(download, "OFFICIAL", {hashlib.md5(body).hexdigest()})
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
