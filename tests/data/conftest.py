"""A server on this machine that has what it is given, and misbehaves as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Script:
    """What the server does: which files it has, and how it misbehaves, request after request."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    stated: bool = True
    cut: list[int] = field(default_factory=list)  # break the next connections after so many bytes of the body
    answers: list[int] = field(default_factory=list)  # answer the next requests with these errors
    stall: list[float] = field(default_factory=list)
    to: str | None = None  # send everything on to this address
    asked: list[str | None] = field(default_factory=list)  # the Range of each request


@pytest.fixture
def server() -> Iterator[tuple[str, Script]]:
    """The server's address, and the script it plays."""
    script = Script()
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(self.headers.get("Range"))
            if script.stall:
                done.wait(script.stall.pop(0))
            if script.to is not None:
                self.send_response(302)
                self.send_header("Location", script.to)
                self.end_headers()
                return
            if script.answers:
                self.send_error(script.answers.pop(0))
                return
            data = script.files.get(self.path.lstrip("/"))
            if data is None:
                self.send_error(404)
                return
            start, wanted = 0, self.headers.get("Range")
            if wanted and script.ranges and self.headers.get("If-Range") in (None, script.etag):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            if script.stated:
                self.send_header("Content-Length", str(len(data) - start))
            if script.etag:
                self.send_header("ETag", script.etag)
            self.end_headers()
            self.wfile.write(data[start : start + script.cut.pop(0)] if script.cut else data[start:])

        def log_message(self, *args: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/", script
    finally:
        done.set()
        running.shutdown()
        running.server_close()
        thread.join()
