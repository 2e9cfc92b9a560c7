"""The other two doors: the Python client, and the tools of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tastemaker.serve.app import create_app
from tastemaker.serve.client import Client, ServerError
from tastemaker.serve.desk import Desk
from tastemaker.serve.mcp import server


@pytest.fixture
def asking(make: Callable[..., Any]) -> Any:
    with TestClient(create_app(make())) as inner:
        client = Client("http://testserver")
        client.http = inner  # httpx of the same form, in this process
        yield client


def test_the_client_asks_tells_and_pages(asking: Client) -> None:
    user = asking.users(limit=1)[0]
    found = asking.recommend(user, k=3, explain=True)
    assert len(found["items"]) == 3
    assert [row["item"] for row in asking.pages(user, k=2)][:3] == [row["item"] for row in found["items"]]
    told = asking.feedback([{"user": user, "item": found["items"][0]["item"], "kind": "like", "slate": found["slate"]}])
    assert told["stored"] == 1 and len(told["keys"][0]) == 32
    items = [row["item"] for row in found["items"]]
    assert len(asking.score(items, user=user)) == 3
    assert {row["item"] for row in asking.rerank(items, user=user)} == set(items)
    assert len(asking.explain(items, user=user)) == 3
    assert asking.similar(items[0], k=2) and asking.item(items[0])["item"] == items[0]
    assert asking.user(user)["history"] and asking.items(limit=2) and len(asking.systems()) == 3
    assert [len(one["items"]) for one in asking.recommend_many([{"user": user, "k": 2}, {"k": 1}])] == [2, 1]


def test_the_client_raises_the_servers_own_words(asking: Client) -> None:
    with pytest.raises(ServerError, match="no system is served") as error:
        asking.recommend(system="eas")
    assert error.value.status == 404 and "ease" in str(error.value)


def test_the_client_waits_where_the_server_is_busy_and_sends_events_under_one_key() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        if len(seen) == 1:
            return httpx.Response(429, headers={"Retry-After": "0"}, json={"title": "busy"})
        if len(seen) == 2:
            raise httpx.ReadError("broken")
        return httpx.Response(200, json={"stored": 0, "doubled": 1, "keys": []})

    with Client("http://nowhere", transport=httpx.MockTransport(handler)) as client:
        assert client.feedback([{"user": "u", "kind": "like"}])["doubled"] == 1
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2] and seen[0]["events"][0]["key"]


def test_a_server_that_is_not_there_is_said_so() -> None:
    with Client("http://127.0.0.1:9", tries=2) as client, pytest.raises(ServerError, match="cannot be reached"):
        client.systems()


def test_tools_answer_what_the_routes_answer(make: Callable[..., Any]) -> None:
    from mcp import Client as Agent

    runtime = make()
    made = server(Desk(runtime))

    async def scenario() -> None:
        async with Agent(made) as agent:
            tools = {tool.name for tool in (await agent.list_tools()).tools}
            assert tools == {
                "recommend",
                "similar",
                "score",
                "rerank",
                "explain",
                "feedback",
                "find_items",
                "item",
                "user",
                "systems",
            }

            async def call(name: str, **given: Any) -> Any:
                answer = await agent.call_tool(name, given)
                return answer.structured_content if not answer.is_error else answer.content[0].text

            user = runtime.entry().bundle.users.series[0]
            found = await call("recommend", user=user, k=3)
            assert len(found["items"]) == 3 and found["items"][0]["reason"]
            item = found["items"][0]["item"]
            event = {"user": user, "item": item, "kind": "hide", "slate": found["slate"]}
            assert (await call("feedback", events=[event]))["stored"] == 1
            after = await call("recommend", user=user, k=3)
            assert item not in [row["item"] for row in after["items"]]
            assert "no item has the id" in await call("similar", item="unheard of")
            assert "greater than or equal" in await call("recommend", k=0)
            assert (await call("find_items", letters=found["items"][1]["title"]))["items"]

    asyncio.run(scenario())


def test_the_endpoint_speaks_over_http_and_asks_for_the_key(make: Callable[..., Any], tmp_path: Any) -> None:
    from tastemaker.serve.keys import add_key

    file = tmp_path / "keys.json"
    key = add_key(file, "agent", frozenset({"read", "feedback"}))
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-03-26",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    with TestClient(create_app(make(keys_file=file))) as client:
        assert client.post("/mcp/", json=hello, headers=accept).status_code == 401
        answer = client.post("/mcp/", json=hello, headers={**accept, "Authorization": f"Bearer {key}"})
        assert answer.status_code == 200 and answer.json()["result"]["serverInfo"]["name"] == "tastemaker"
