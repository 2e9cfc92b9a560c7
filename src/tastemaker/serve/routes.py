"""The routes: what each takes and answers. What they do is done at the desk.

What asks a system is there where a system that is served can answer it; a new system brings its routes along.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as InPath
from starlette.responses import Response

from tastemaker.serve import models
from tastemaker.serve.acting import Acting
from tastemaker.serve.desk import Desk
from tastemaker.serve.problems import RESPONSES
from tastemaker.serve.stream import TYPE, Stream

CAPABILITIES = ("recommend", "similar", "score", "rerank", "explain", "act", "profile")
PAGE = 200  # items or users of a page at most
OnPath = Annotated[str, InPath(max_length=models.LONGEST_ID, pattern=r"^[^\x00]+$")]
OfSystem = Annotated[
    str | None, Query(max_length=models.LONGEST_ID, pattern=r"^[^\x00]*$", description="Default: the server's first.")
]
Limit = Annotated[int, Query(ge=1, le=PAGE)]
Cursor = Annotated[str | None, Query(max_length=1000)]
OfUser = Annotated[
    str | None, Query(max_length=models.LONGEST_ID, pattern=r"^[^\x00]+$", description="Whose session it must be.")
]
Find = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Part of a title or an id.")]

CHAT = """Server-sent events; the data of each is a JSON object. `step` {tool, input, output, failed}, as they are done;
then, where there are such, `words` {text}, `ask` {attribute, values}, `items` {slate, items}, `profile` {name: lines};
`turn` {session, turn, system, snapshot} ends a turn that counts, `error`, a problem, one that does not."""

EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["step", "words", "ask", "items", "profile", "turn", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


def may_tell(request: Request, body: models.TurnBody) -> None:
    """Events are written down: a key that may not send any may not put them into a turn either."""
    scopes = getattr(request.state, "scopes", None)
    if body.events and scopes is not None and not {"feedback", "admin"} & scopes:
        raise HTTPException(403, "this key may not send events: it lacks the scope feedback")


def json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def by_capability(desk: Desk, acting: Acting) -> dict[str, APIRouter]:
    """The routes that a capability brings with it."""
    found = {name: APIRouter(responses=RESPONSES) for name in CAPABILITIES}

    @found["recommend"].post("/recommend", response_model=models.Recommended, tags=["ask"])
    async def recommend(body: models.RecommendBody) -> Response:
        """The best items for a user, or for a history of items."""
        return json(await desk.recommend(body))

    @found["recommend"].post("/recommend/batch", response_model=models.RecommendedBatch, tags=["ask"])
    async def recommend_batch(body: models.RecommendBatch) -> Response:
        """Lists for several users at once; a fault of one leaves the others alone."""
        return json(await desk.recommend_batch(body))

    @found["similar"].post("/similar", response_model=models.Scored, tags=["ask"])
    async def similar(body: models.SimilarBody) -> Response:
        """Items near an item."""
        return json(await desk.similar(body))

    @found["score"].post("/score", response_model=models.Scored, tags=["ask"])
    async def score(body: models.ItemsBody) -> Response:
        """How much each of these items suits a user, in the order they are named."""
        return json(await desk.score(body))

    @found["rerank"].post("/rerank", response_model=models.Scored, tags=["ask"])
    async def rerank(body: models.ItemsBody) -> Response:
        """These items in the order that suits a user."""
        return json(await desk.rerank(body))

    @found["explain"].post("/explain", response_model=models.Explained, tags=["ask"])
    async def explain(body: models.ItemsBody) -> Response:
        """Why each of these items suits a user; null where there is nothing to say."""
        return json(await desk.explain(body))

    @found["act"].post("/act", response_model=models.Turn, tags=["ask"])
    async def act(body: models.ActBody, request: Request) -> Response:
        """A turn of a session: the system may say something, ask something and show a list, all at once."""
        may_tell(request, body)
        return json(await acting.act(body))

    @found["act"].post(
        "/chat",
        status_code=200,
        response_class=Stream,
        tags=["ask"],
        responses={200: {"description": CHAT, "content": {TYPE: {"schema": EVENT}}}},
    )
    async def chat(body: models.ChatBody, request: Request) -> Response:
        """A turn of a conversation, told while the system works at it."""
        may_tell(request, body)
        return Stream(await acting.begin(body), getattr(request.state, "request", None))

    @found["act"].delete("/sessions/{session}", response_model=models.Ended, tags=["ask"])
    async def end(session: OnPath, user: OfUser = None) -> Response:
        """End a session: all that it knows is removed."""
        return json(await acting.end(session, user))

    @found["profile"].get("/sessions/{session}/profile", response_model=models.Profile, tags=["look"])
    async def profile(session: OnPath, user: OfUser = None) -> Response:
        """What a session knows of the person."""
        return json(await acting.profile(session, user))

    @found["profile"].put("/sessions/{session}/profile", response_model=models.Profile, tags=["tell"])
    async def correct(session: OnPath, body: models.ProfileBody) -> Response:
        """Correct it: these lists take the place of those that are there."""
        return json(await acting.correct(session, body))

    @found["profile"].delete("/sessions/{session}/profile", response_model=models.Profile, tags=["tell"])
    async def forget(session: OnPath, user: OfUser = None) -> Response:
        """Erase it: its lists are emptied; a session that cannot be opened any more goes as a whole."""
        return json(await acting.forget(session, user))

    return found


def routes(desk: Desk) -> APIRouter:
    """The routes that are always there: tell and look."""
    router = APIRouter(responses=RESPONSES)

    @router.post("/feedback", response_model=models.Acknowledged, tags=["tell"])
    async def feedback(body: models.FeedbackBody) -> Response:
        """Events; the answer comes when they are safe on the disk. A key that was there before changes nothing."""
        return json(await desk.feedback(body))

    @router.get("/systems", response_model=models.Systems, tags=["look"])
    async def systems() -> Response:
        """What is served: each system's needs and capabilities."""
        return json(desk.systems())

    @router.get("/systems/{name}", response_model=models.SystemInfo, tags=["look"])
    async def one_system(name: OnPath) -> Response:
        """One of them."""
        return json(desk.system(name))

    @router.get("/items", response_model=models.Items, tags=["look"])
    async def items(system: OfSystem = None, find: Find = None, limit: Limit = 50, cursor: Cursor = None) -> Response:
        """The catalogue, page by page, or the items whose title or id has some letters in it."""
        return json(await desk.items(system, find, limit, cursor))

    @router.get("/items/{item:path}", response_model=models.Item, tags=["look"])
    async def one_item(item: OnPath, system: OfSystem = None) -> Response:
        """An item with all its columns."""
        return json(desk.item(system, item))

    @router.get("/users", response_model=models.Users, tags=["look"])
    async def users(system: OfSystem = None, find: Find = None, limit: Limit = 50, cursor: Cursor = None) -> Response:
        """Users the system was fitted with, page by page."""
        return json(await desk.users(system, find, limit, cursor))

    @router.get("/users/{user:path}", response_model=models.User, tags=["look"])
    async def one_user(user: OnPath, system: OfSystem = None, limit: Limit = 50) -> Response:
        """What is known of a user: the latest choices first, and what the user does not want to see."""
        return json(await desk.user(system, user, limit))

    return router
