"""The server as an ASGI application: the gate, the routes, health, metrics, and what an administrator may do."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

import tastemaker
from tastemaker.serve import models
from tastemaker.serve.acting import Acting
from tastemaker.serve.browse import browse
from tastemaker.serve.desk import Desk, about
from tastemaker.serve.entry import Entry
from tastemaker.serve.gate import Gate
from tastemaker.serve.keys import Keyring
from tastemaker.serve.learning import Learning
from tastemaker.serve.mcp import application, server
from tastemaker.serve.problems import RESPONSES, problem, told
from tastemaker.serve.routes import OnPath, by_capability, json, routes
from tastemaker.serve.runtime import Runtime
from tastemaker.serve.sessions import open_sessions
from tastemaker.serve.studio import studio
from tastemaker.types import TastemakerError, UsageError

log = logging.getLogger("tastemaker.server")
COLLECTIONS = 50_000, 20, 50  # objects, then younger collections, after which garbage is looked for
SUMMARY = "Recommendations, explanations and feedback, from systems fitted by Tastemaker."


def create_app(runtime: Runtime) -> Any:
    """The application over a runtime, whose settings it follows; it closes the runtime when it ends."""
    settings = runtime.settings
    keyring, desk = Keyring(settings.keys_file), Desk(runtime)
    learning = Learning(runtime, settings.learn_every)
    acting = Acting(desk, open_sessions(settings.sessions_url or settings.log_url))
    agents = server(desk, acting) if settings.mcp else None
    door = None if agents is None else application(agents)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with agents.session_manager.run() if agents is not None else nullcontext():
            runtime.ready = True
            runtime.background(acting.sweep())
            runtime.background(learning.go_on())
            with rare_collections():
                yield
            runtime.ready = False
        learning.close()
        acting.close()
        runtime.close()
        acting.store.close()

    api = FastAPI(
        title="Tastemaker",
        version=tastemaker.__version__,
        summary=SUMMARY,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    for kind in (TastemakerError, RequestValidationError, HTTPException, TimeoutError, Exception):
        api.add_exception_handler(kind, _tell)
    waiting = by_capability(desk, acting)

    def bring(entry: Entry) -> None:
        """The routes of what a new entry can, where they are not there yet."""
        for name in entry.capabilities:
            if (router := waiting.pop(name, None)) is not None:
                api.include_router(router)
                api.openapi_schema = None

    for entry in runtime.shelf.values():
        bring(entry)
    runtime.on_put.append(bring)
    for router in (routes(desk), studio(desk, desk.live), browse(runtime)):  # what is asked most is looked for first
        api.include_router(router)
    _watch(api, runtime)
    _administer(api, runtime)
    if door is not None:
        api.mount("/mcp", door)
    described = api.openapi

    def openapi() -> dict[str, Any]:
        """Its document, with the keys it asks for and the form of its errors."""
        if api.openapi_schema is None:
            document = described()
            parts = document.setdefault("components", {})
            parts.setdefault("schemas", {})["Problem"] = models.Problem.model_json_schema()
            if not keyring.open:
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                document["security"] = [{"key": []}]
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
    if settings.web:
        from tastemaker.serve.web import mount

        mount(api)
    app: Any = api
    if settings.cors:
        app = CORSMiddleware(
            app,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "x-api-key", "content-type"],
        )
    return Gate(app, settings, runtime, keyring)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cycles of garbage seldom, and not among what is there already.

    A request leaves hardly any, and what 64 requests at work hold is looked through again and again in vain: with the
    interpreter's own thresholds, the event loop spends a third of its time on it.
    """
    found = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*found)
        gc.unfreeze()


async def _tell(request: Request, error: Exception) -> Response:
    name = request.scope.get("state", {}).get("request")
    return told(error, name)


def _watch(api: FastAPI, runtime: Runtime) -> None:
    @api.get("/health/live", tags=["health"])
    async def live() -> Response:
        """The process runs."""
        return json({"status": "alive"})

    @api.get("/health/ready", tags=["health"], responses={503: RESPONSES[503]})
    async def ready() -> Response:
        """Questions can be answered: a system is warm, and the log can be written to."""
        try:
            state = await runtime.apart(runtime.health)
        except Exception as error:
            log.warning("not ready: %s", error)
            return problem(503, "the event log cannot be reached")
        if state["status"] != "ready" or not runtime.ready:
            return problem(503, "no system is served yet")
        return json(state)

    @api.get("/traffic", tags=["health"])
    async def traffic() -> Response:
        """The last hour of this process: requests by minute, what each system did, the last lists and events."""
        return json(runtime.traffic.shown(runtime.shelf))

    @api.get("/metrics", tags=["health"], responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        runtime.metrics.waiting.set(runtime.waiting())
        return Response(runtime.metrics.text(), media_type="text/plain; version=0.0.4")


def _administer(api: FastAPI, runtime: Runtime) -> None:
    @api.post(
        "/admin/systems/{name}/reload", response_model=models.SystemInfo, tags=["administer"], responses=RESPONSES
    )
    async def reload(name: OnPath) -> Response:
        """Open the bundle of this name again from its folder, and serve it once it is warm."""
        source = runtime.source(name)
        if source is None:
            raise UsageError(f"{name!r} was not opened from a folder, so it cannot be opened again")
        return json(about(await runtime.slowly(runtime.open, source, name)))

    @api.post(
        "/admin/systems/{name}/rollback", response_model=models.SystemInfo, tags=["administer"], responses=RESPONSES
    )
    async def rollback(name: OnPath) -> Response:
        """Serve again what was served under this name before."""
        return json(about(runtime.roll_back(name)))
