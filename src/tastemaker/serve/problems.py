"""Errors as answers: application/problem+json with what was expected, what came and what to do, and nothing else.

An error that the server did not expect says no more than its request's name; the rest goes to the server's log.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tastemaker.serve.batching import Overloaded, TimedOut
from tastemaker.serve.log import Full
from tastemaker.serve.sessions import Conflict
from tastemaker.types import CapabilityError, DataError, NotFound, TastemakerError, UsageError

TYPE = "application/problem+json"
SHOWN = 10  # faults of a body that are told
TITLES = {
    400: "bad request",
    401: "no valid key",
    403: "not allowed",
    404: "not found",
    405: "method not allowed",
    409: "conflict",
    413: "too large",
    415: "not JSON",
    422: "the body does not fit",
    429: "too many requests",
    500: "internal error",
    501: "cannot do this",
    503: "not ready",
    504: "timed out",
}
PATHS = re.compile(r"(?<![\w.])/(?:[\w.\-]+/)+[\w.\-]+")
PLACES = re.compile(r"\b(?:https?|wss?)://[^\s,;]+")


def status_of(error: Exception) -> int:
    """The status that an error of ours answers with."""
    if isinstance(error, Overloaded | Full):
        return 429
    if isinstance(error, TimedOut | TimeoutError):
        return 504
    if isinstance(error, Conflict):
        return 409
    if isinstance(error, CapabilityError):
        return 501
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, UsageError | DataError):
        return 422
    return 503 if isinstance(error, TastemakerError) else 500


def fields(status: int, detail: str, *, hint: str | None = None, request: str | None = None) -> dict[str, Any]:
    """The members of a problem."""
    told: dict[str, Any] = {"type": "about:blank", "title": TITLES.get(status, "error"), "status": status}
    told["detail"] = placeless(detail)
    if hint:
        told["hint"] = placeless(hint)
    if request:
        told["request"] = request
    return told


def placeless(text: str) -> str:
    """Without files of the server, or addresses that it asks."""
    return PATHS.sub("a file of the server", PLACES.sub("an address of the server", text))


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """An answer that tells of a problem."""
    extra = more.pop("errors", None)
    told = fields(status, detail, **more)
    if extra is not None:
        told["errors"] = extra
    return Response(orjson.dumps(told), status, headers, TYPE)


def told(error: Exception, request: str | None = None) -> Response:
    """Any error as an answer."""
    if isinstance(error, RequestValidationError):
        return unfit(error, request)
    if isinstance(error, HTTPException):
        detail = error.detail if isinstance(error.detail, str) else TITLES.get(error.status_code, "error")
        return problem(error.status_code, detail, headers=dict(error.headers or {}), request=request)
    status = status_of(error)
    if isinstance(error, TastemakerError):
        headers = {"Retry-After": str(getattr(error, "retry_after", 1))} if status == 429 else None
        return problem(status, error.message, hint=error.hint, headers=headers, request=request)
    if status == 504:
        return problem(504, "no answer in time", hint="ask for less, or again later", request=request)
    return problem(500, "something went wrong here; it is in the server's log", request=request)


def members(error: Exception, request: str | None = None) -> dict[str, Any]:
    """Any error as the members of a problem, for what is told in the middle of an answer."""
    found: dict[str, Any] = orjson.loads(told(error, request).body)
    return found


def unfit(error: RequestValidationError, request: str | None = None) -> Response:
    """What of a request does not fit, by place; what was sent is not sent back."""
    found = error.errors()
    shown = [{"where": ".".join(map(str, one["loc"]))[:200], "what": str(one["msg"])[:300]} for one in found[:SHOWN]]
    bad_json = any(one["type"].startswith("json") for one in found)
    detail = "the body is not JSON" if bad_json else f"{shown[0]['where']}: {shown[0]['what']}"
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 and not bad_json else ""
    return problem(400 if bad_json else 422, detail + more, errors=shown, request=request)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": TITLES[status], "content": {TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status in (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 501, 503, 504)
}
"""What any route may answer beside its own, for the OpenAPI document."""
