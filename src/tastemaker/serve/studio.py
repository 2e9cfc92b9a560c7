"""Routes of those who run the server: pipelines, experiments, the leaderboard."""

from __future__ import annotations

import json as text
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, StrictBool, StrictStr
from starlette.responses import Response

from tastemaker.compose import PipelineError, PipelineSpec, compile, diagram, svg  # noqa: A004
from tastemaker.serve import models
from tastemaker.serve.desk import Desk, asked, listed, wanted
from tastemaker.serve.entry import Entry
from tastemaker.serve.experiments import read_experiment
from tastemaker.serve.live import Live, explained, told
from tastemaker.serve.problems import RESPONSES, problem
from tastemaker.serve.routes import OnPath, json
from tastemaker.types import NotFound

ADMIN = "administer"


class SpecBody(models.Body):
    """A pipeline."""

    spec: dict[str, Any]


class PreviewBody(SpecBody):
    """A pipeline, and a question it is tried on."""

    question: models.RecommendBody


class ExperimentBody(models.Body):
    """An experiment."""

    experiment: dict[str, Any]


class PromoteBody(models.Body):
    """What to serve from now on; nothing: what the result calls for."""

    arm: Annotated[StrictStr, Field(max_length=100)] | None = None
    force: StrictBool = Field(default=False, description="Whatever the result says.")


def studio(desk: Desk, live: Live) -> APIRouter:
    """All of them."""
    router, runtime = APIRouter(responses=RESPONSES), desk.runtime

    # -- pipelines

    @router.get("/pipelines", tags=["look"])
    async def pipelines() -> Response:
        """Pipelines that are served, the form of one, and the systems one can be made of."""
        found = [
            {"name": name, "spec": entry.bundle.spec.model_dump(mode="json", exclude_none=True), "served": True}
            for name, entry in runtime.shelf.items()
            if entry.kind == "pipeline"
        ]
        return json({"pipelines": found, "schema": PipelineSpec.json_schema(), "shelf": list(runtime.systems())})

    @router.post("/pipelines/check", tags=["ask"])
    async def check(body: SpecBody) -> Response:
        """Whether a pipeline fits together, and its diagram; else everything that is wrong with it."""
        return await made(
            body, lambda pipeline: {"ok": True, "svg": svg(pipeline.spec), "mermaid": diagram(pipeline.spec)}
        )

    @router.post("/pipelines/preview", tags=["ask"])
    async def preview(body: PreviewBody) -> Response:
        """A list from a pipeline that is not served; it is not written down."""

        def tried(pipeline: Any) -> Any:
            entry = Entry(pipeline.name, pipeline, snapshot="preview")
            question = runtime.complete(asked(body.question, k=body.question.k, **wanted(body.question)))
            [answer] = entry.answer([question])
            if isinstance(answer, Exception):
                raise answer
            shown = {"slate": None, "system": entry.name, "snapshot": "preview", "experiment": None, "arm": None}
            return {**shown, "items": listed(entry, answer, 0), "next": None}

        return await made(body, tried)

    @router.post("/admin/pipelines", tags=[ADMIN])
    async def keep(body: SpecBody) -> Response:
        """Serve a pipeline under its name, and keep it in the server's folder of pipelines, where there is one."""

        def served(pipeline: Any) -> Any:
            return runtime.serve_pipeline(pipeline.spec).name

        answer = await made(body, lambda pipeline: {"name": served(pipeline)}, slow=True)
        return answer

    async def made(body: SpecBody, work: Any, *, slow: bool = False) -> Response:
        def compiled() -> Any:
            return work(compile(PipelineSpec.from_json(body.spec), runtime.systems()))

        try:
            return json(await (runtime.slowly(compiled) if slow else runtime.apart(compiled)))
        except PipelineError as error:
            faults = [{"where": one.where, "what": one.what, "hint": one.hint} for one in error.faults]
            return problem(422, error.message, hint=error.hint, errors=faults)

    # -- experiments

    @router.get("/experiments", tags=["look"])
    async def experiments() -> Response:
        """All experiments."""
        return json({"experiments": [told(one) for one in live.all.values()]})

    @router.get("/experiments/{name}", tags=["look"])
    async def experiment(name: OnPath) -> Response:
        """Where an experiment stands; the intervals hold however often one looks."""
        one = live.get(name)
        return json(explained(one, await runtime.slowly(live.result, name)))

    @router.post("/admin/experiments", tags=[ADMIN])
    async def add(body: ExperimentBody) -> Response:
        """One more experiment."""
        return json(told(live.add(read_experiment(body.experiment))))

    @router.post("/admin/experiments/{name}/start", tags=[ADMIN])
    async def start(name: OnPath) -> Response:
        """Put a draft in force."""
        return json(told(live.start(name)))

    @router.post("/admin/experiments/{name}/stop", tags=[ADMIN])
    async def stop(name: OnPath) -> Response:
        """End it; what is served stays as it was before."""
        return json(told(live.stop(name)))

    @router.post("/admin/experiments/{name}/promote", tags=[ADMIN])
    async def promote(name: OnPath, body: PromoteBody | None = None) -> Response:
        """Do what the result calls for, or serve an arm by hand."""
        wish = body or PromoteBody()
        decision = await runtime.slowly(lambda: live.decision(name, arm=wish.arm, force=wish.force))
        done = live.carry_out(decision)
        return json(
            {"action": done.action, "surface": done.surface, "serve": done.serve, "arm": done.arm, "why": done.why}
        )

    # -- the leaderboard

    @router.get("/leaderboard", tags=["look"])
    async def leaderboard() -> Response:
        """What `choose` found: figures with intervals, and what each system costs."""
        folder = runtime.settings.reports_dir
        if folder is None or not (Path(folder) / "choice.json").is_file():
            raise NotFound(
                "this server shows no leaderboard", hint="tastemaker serve --reports FOLDER, as `choose` wrote it"
            )
        return json(board(text.loads((Path(folder) / "choice.json").read_text(encoding="utf-8"))))

    return router


def board(choice: dict[str, Any]) -> dict[str, Any]:
    """The table of a choice as it is shown."""
    kept = ("system", "value", "low", "high", "tied", "fit_seconds", "ms_per_request", "bundle_mb")
    best = max((row["value"] for row in choice["finalists"]), default=0.0)
    rows = [{**{name: row.get(name) for name in kept}, "gives_up": best - row["value"]} for row in choice["finalists"]]
    return {"metric": choice["metric"], "rows": rows, "note": choice["verdict"]}
