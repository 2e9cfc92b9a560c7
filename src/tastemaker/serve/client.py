"""A client for the server's HTTP interface.

    with Client("http://127.0.0.1:8000", key="tm_...") as client:
        found = client.recommend(user="u42", k=5, explain=True)
        client.feedback([{"user": "u42", "item": found["items"][0]["item"], "kind": "like", "slate": found["slate"]}])

What the server refuses is raised with its own words. What it was too busy for is asked again after the time it names.
Events get a key before they are sent, so that one that is sent twice, since no answer came, counts once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx

from tastemaker.types import TastemakerError

BUSY = frozenset({429, 503})


class ServerError(TastemakerError):
    """The server answered with a problem.

    status: its HTTP status; problem: all that it said
    """

    exit_code = 9

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title')}", hint=problem.get("hint"))
        self.status, self.problem = status, dict(problem)


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


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"title": answer.reason_phrase, "detail": answer.text[:200]}
