"""A turn as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): told while it works.

`step`, as often as the system does something; then, each at most once, `words`, `ask`, `items`, `profile`; `turn` ends
a turn that counts. An `error`, a problem as other routes answer it, ends one that does not. The data of every event is
a JSON object. A comment now and then says that there is somebody yet, so that nothing on the way hangs up.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Send

from tastemaker.serve.acting import ERROR, Underway
from tastemaker.serve.problems import members

log = logging.getLogger("tastemaker.server")
TYPE = "text/event-stream"
PATIENCE = 10.0  # seconds without an event, after which a comment is sent
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would gather events otherwise
ALIVE = b": at work\n\n"


class Stream(StreamingResponse):
    """Events of a turn; where the one who listens goes away, the turn is left."""

    media_type = TYPE

    def __init__(self, turn: Underway, request: str | None = None) -> None:
        super().__init__(_events(turn, request), headers=HEADERS)
        self.turn = turn

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            self.turn.leave()


async def _events(turn: Underway, request: str | None) -> AsyncIterator[bytes]:
    async for one in turn.events(PATIENCE):
        if one is None:
            yield ALIVE
            continue
        kind, what = one
        if kind == ERROR:
            what = members(what, request)
            if what["status"] == 500:
                log.error("request %s failed in its turn", request, exc_info=one[1])
        yield event(kind, what)


def event(kind: str, what: Any) -> bytes:
    """One event; JSON has no line breaks of its own."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(what))
