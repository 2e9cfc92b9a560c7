"""A client for the server's HTTP interface.

    with Client("http://127.0.0.1:8000", key="tm_...") as client:
        found = client.recommend(user="u42", k=5, explain=True)
        client.feedback([{"user": "u42", "item": found["items"][0]["item"], "kind": "like", "slate": found["slate"]}])

What the server refuses is raised with its own words. What it was too busy for is asked again after the time it names.
Events get a key before they are sent, so that one that is sent twice, since no answer came, counts once.

    talk = client.conversation(user="u42")
    for told in talk.say("something funny, and short"):   # steps, words, items, as they come
        print(told.kind, told.data)
    like = {"kind": "like", "item": talk.items[0]["item"], "slate": talk.slate}
    print(talk.say_all("more like this", events=[like]).words)
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, cast
from urllib.parse import quote

import httpx

from tastemaker.types import TastemakerError

BUSY = frozenset({429, 503})
Kind: TypeAlias = Literal["step", "words", "ask", "items", "profile", "turn"]
SILENCE = 30.0  # seconds after which a turn counts as lost; the server says every ten that it is there


class ServerError(TastemakerError):
    """The server answered with a problem.

    status: its HTTP status; problem: all that it said
    """

    exit_code = 9

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title')}", hint=problem.get("hint"))
        self.status, self.problem = status, dict(problem)


@dataclass(frozen=True)
class Told:
    """Something that is told in a turn of a conversation; what it holds: see the server's /chat."""

    kind: Kind
    data: dict[str, Any]


class Client:
    """Asks a server.

    Args:
        url: its address.
        key: an API key, where it asks for one.
        timeout: seconds an answer may take.
        tries: how often a request is sent, where the server is busy or the connection breaks.
        transport: of httpx, for tests.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 10.0, tries: int = 4, transport: Any = None
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout, transport=transport)
        self.tries = tries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    # -- asking

    def recommend(self, user: Any = None, *, k: int = 10, **more: Any) -> dict[str, Any]:
        """A list for a user, or for a `history` of items; all fields of the server's /recommend are taken."""
        return self._post("/recommend", {"user": user, "k": k, **more})

    def recommend_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Lists for several; one that cannot be made is a problem in its place."""
        answers: list[dict[str, Any]] = self._post("/recommend/batch", {"requests": list(requests)})["answers"]
        return answers

    def pages(self, user: Any = None, *, k: int = 50, **more: Any) -> Iterator[dict[str, Any]]:
        """The items of a list one after the other, its pages asked for when they are needed."""
        seed = more.pop("seed", secrets.randbits(62))
        cursor = None
        while True:
            found = self.recommend(user, k=k, seed=seed, cursor=cursor, **more)
            yield from found["items"]
            if (cursor := found["next"]) is None:
                return

    def similar(self, item: Any, *, k: int = 10, **more: Any) -> list[dict[str, Any]]:
        """Items near an item."""
        items: list[dict[str, Any]] = self._post("/similar", {"item": item, "k": k, **more})["items"]
        return items

    def score(self, items: Sequence[Any], *, user: Any = None, **more: Any) -> list[float]:
        """How much each item suits the user."""
        return [row["score"] for row in self._post("/score", {"items": list(items), "user": user, **more})["items"]]

    def rerank(self, items: Sequence[Any], *, user: Any = None, **more: Any) -> list[dict[str, Any]]:
        """The items in the order that suits."""
        found: list[dict[str, Any]] = self._post("/rerank", {"items": list(items), "user": user, **more})["items"]
        return found

    def explain(self, items: Sequence[Any], *, user: Any = None, **more: Any) -> list[dict[str, Any] | None]:
        """Why each item suits."""
        found: list[Any] = self._post("/explain", {"items": list(items), "user": user, **more})["reasons"]
        return found

    def act(self, **body: Any) -> dict[str, Any]:
        """A turn of a conversation or another session; see the server's /act."""
        return self._post("/act", body)

    def chat(self, text: str | None = None, **body: Any) -> Iterator[Told]:
        """A turn of a conversation, told as it comes: steps, then words, a question, items; `turn` is the last.

        It is sent once: a turn whose connection broke may have counted. Whoever stops listening ends it.

        Raises:
            ServerError: the turn was refused, or failed on its way.
        """
        sent = {name: value for name, value in {"text": text, **body}.items() if value is not None}
        usual = self.http.timeout
        limits = httpx.Timeout(connect=usual.connect, read=SILENCE, write=usual.write, pool=usual.pool)
        try:
            with self.http.stream("POST", "/chat", json=sent, timeout=limits) as answer:
                if not answer.is_success:
                    answer.read()
                    raise ServerError(answer.status_code, _problem(answer))
                for kind, data in _events(answer.iter_lines()):
                    if kind == "error":
                        raise ServerError(int(data.get("status", 500)), data)
                    yield Told(cast(Kind, kind), data)
        except httpx.TransportError as error:
            raise ServerError(503, {"detail": f"{self.http.base_url} cannot be reached: {error}"}) from error

    def conversation(self, **first: Any) -> Conversation:
        """A conversation; `user`, `history` and `system` of its first turn."""
        return Conversation(self, first)

    def profile(self, session: str, *, user: Any = None) -> dict[str, Any]:
        """What a session knows of its person: {session, turn, profile: {name: lines}}."""
        return self._get(_profile_path(session), user=user)

    def correct_profile(
        self, session: str, profile: Mapping[str, Sequence[str]], *, turn: int | None = None, user: Any = None
    ) -> dict[str, Any]:
        """Put these lists in the place of those a session has; refused if it went on since `turn`."""
        body = {"profile": {name: list(lines) for name, lines in profile.items()}, "turn": turn, "user": user}
        return self._send("PUT", _profile_path(session), json={n: v for n, v in body.items() if v is not None})

    def erase_profile(self, session: str, *, user: Any = None) -> dict[str, Any]:
        """Empty what a session knows of its person."""
        return self._send("DELETE", _profile_path(session), params={} if user is None else {"user": user})

    def end_session(self, session: str, *, user: Any = None) -> None:
        """Remove a session, and all that it knows."""
        path = f"/sessions/{quote(session, safe='')}"
        self._send("DELETE", path, params={} if user is None else {"user": user})

    # -- telling

    def feedback(self, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Send events; returns when the server has them safe on its disk."""
        named = [{"key": secrets.token_hex(16), **event} for event in events]
        return self._post("/feedback", {"events": named})

    # -- looking

    def systems(self) -> list[dict[str, Any]]:
        """What is served."""
        found: list[dict[str, Any]] = self._get("/systems")["systems"]
        return found

    def item(self, item: Any, **query: Any) -> dict[str, Any]:
        """An item and its columns."""
        return self._get(f"/items/{quote(str(item), safe='')}", **query)

    def items(self, find: str | None = None, *, limit: int = 50, **query: Any) -> list[dict[str, Any]]:
        """Items whose title or id has some letters in it."""
        found: list[dict[str, Any]] = self._get("/items", find=find, limit=limit, **query)["items"]
        return found

    def user(self, user: Any, **query: Any) -> dict[str, Any]:
        """What is known of a user."""
        return self._get(f"/users/{quote(str(user), safe='')}", **query)

    def users(self, find: str | None = None, *, limit: int = 50, **query: Any) -> list[Any]:
        """Ids of users."""
        found: list[Any] = self._get("/users", find=find, limit=limit, **query)["users"]
        return found

    # -- HTTP

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._send("GET", path, params={name: value for name, value in query.items() if value is not None})

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, json={name: value for name, value in body.items() if value is not None})

    def _send(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """Asking changes nothing, and events have keys: every request may be sent again."""
        for left in range(self.tries - 1, -1, -1):
            try:
                answer = self.http.request(method, path, **how)
            except httpx.TransportError as error:
                if not left:
                    raise ServerError(503, {"detail": f"{self.http.base_url} cannot be reached: {error}"}) from error
                time.sleep(0.2)
                continue
            if answer.status_code in BUSY and left:
                time.sleep(min(float(answer.headers.get("Retry-After", "1")), 30.0))
                continue
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                return found
            raise ServerError(answer.status_code, _problem(answer))
        raise AssertionError("unreachable")


class Conversation:
    """Turn after turn with one system; what the last turn showed is kept here.

    session: None before the first turn
    """

    def __init__(self, client: Client, first: Mapping[str, Any]) -> None:
        self.client, self.first = client, {name: value for name, value in first.items() if value is not None}
        self.session: str | None = None
        self._begin()

    def _begin(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.words: str | None = None
        self.ask: dict[str, Any] | None = None
        self.slate: str | None = None
        self.items: list[dict[str, Any]] = []

    def say(self, text: str | None = None, **more: Any) -> Iterator[Told]:
        """A turn, told as it comes; `answers` to what was asked, `events` on what was shown."""
        who = self.first if self.session is None else {"session": self.session, "user": self.first.get("user")}
        self._begin()
        for told in self.client.chat(text, **who, **more):
            if told.kind == "step":
                self.steps.append(told.data)
            elif told.kind == "words":
                self.words = told.data["text"]
            elif told.kind == "ask":
                self.ask = told.data
            elif told.kind == "items":
                self.slate, self.items = told.data["slate"], told.data["items"]
            elif told.kind == "turn":
                self.session = told.data["session"]
            yield told

    def say_all(self, text: str | None = None, **more: Any) -> Self:
        """A turn, when it is over: its words, question and items lie here."""
        for _ in self.say(text, **more):
            pass
        return self


def _profile_path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}/profile"


def _events(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events; comments, which say that somebody is there yet, are left out."""
    kind, data = "", []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            yield kind, json.loads("\n".join(data))
            kind, data = "", []


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"title": answer.reason_phrase, "detail": answer.text[:200]}
