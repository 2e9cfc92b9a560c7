"""Conversations over HTTP: told while they are made, one turn after the other, left when nobody listens, forgotten."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tests.serve.talking import Narrator, Talker, entry

from tastemaker.serve.app import create_app
from tastemaker.serve.keys import add_key

Told = list[tuple[str, Any]]
PATIENCE = 10.0


def told(text: str) -> Told:
    """Events of a stream, comments left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            kind, data = lines
            assert kind.startswith("event: ") and data.startswith("data: ")
            found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def chat(client: Any, **body: Any) -> Told:
    answer = client.post("/chat", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return told(answer.text)


def of(events: Told, kind: str) -> Any:
    [one] = [what for name, what in events if name == kind]
    return one


def until(test: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


@pytest.fixture(params=[Narrator, Talker], ids=["narrates", "acts"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def talking(make: Callable[..., Any], bundles: dict[str, Any]) -> Callable[..., Any]:
    """talking(kind, **settings) -> a runtime that serves the double beside other systems."""

    def served(kind: type[Talker] = Narrator, **settings: Any) -> Any:
        runtime = make(**settings)
        runtime.put(entry(bundles["popularity"], kind=kind))
        return runtime

    return served


@pytest.fixture
def client(talking: Callable[..., Any]) -> Iterator[Any]:
    with TestClient(create_app(talking())) as asking:
        yield asking


def test_a_conversation_asks_shows_and_is_written_down(talking: Callable[..., Any], kind: type[Talker]) -> None:
    runtime = talking(kind)
    genres = runtime.entry("talker").system.genres
    numbers = {item: n for n, item in enumerate(runtime.entry("talker").ids)}
    with TestClient(create_app(runtime)) as client:
        first = chat(client, user="u1", text="something for tonight")
        assert [name for name, _ in first] == ["step"] * 3 + ["words", "ask", "profile", "turn"]
        assert [what["tool"] for name, what in first if name == "step"] == ["look-up", "hard filter", "ranking"]
        assert first[0][1] == {"tool": "look-up", "input": "something for tonight", "output": f"{len(genres)} left", "failed": False}  # fmt: skip  # noqa: E501
        assert of(first, "ask") == {"attribute": "genres", "values": ["comedy", "drama"]}
        turn = of(first, "turn")
        assert turn == {"session": turn["session"], "turn": 1, "system": "talker", "snapshot": "first"}
        answers = [
            {"attribute": "genres", "value": "drama", "reply": "no"},
            {"attribute": "genres", "value": "comedy", "reply": "yes"},
        ]
        second = chat(client, session=turn["session"], answers=answers, text="with a dog")
        assert [name for name, _ in second] == ["step"] * 3 + ["words", "items", "profile", "turn"]
        assert of(second, "words") == {"text": "Some comedy, since you said: with a dog"}
        shown = of(second, "items")
        assert [row["rank"] for row in shown["items"]] == [1, 2, 3, 4, 5] and shown["items"][0]["title"]
        assert all("comedy" in genres[numbers[row["item"]]] for row in shown["items"])
        assert of(second, "profile")["unwanted"] == ["drama"], "each of several answers is heard"
        like = {"kind": "like", "item": shown["items"][0]["item"], "slate": shown["slate"], "position": 1, "key": "k1"}
        third = chat(client, session=turn["session"], user="u1", events=[like])
        assert like["item"] not in [row["item"] for row in of(third, "items")["items"]]
        assert of(third, "profile")["liked"] == [shown["items"][0]["title"]] and of(third, "turn")["turn"] == 3
        events = [row for frame in runtime.log.events() for row in frame.iter_rows(named=True)]
        assert [(row["user"], row["item"], row["slate"]) for row in events] == [("u1", like["item"], shown["slate"])]
        until(lambda: len([row for f in runtime.log.slates() for row in f.iter_rows(named=True)]) == 2)
        served = {row["slate"]: row for frame in runtime.log.slates() for row in frame.iter_rows(named=True)}
        assert served[shown["slate"]]["session"] == turn["session"]
        assert served[shown["slate"]]["items"] == [row["item"] for row in shown["items"]]


def test_steps_are_told_while_the_turn_is_at_work(talking: Callable[..., Any], live: Callable[..., str]) -> None:
    """Each step arrives while the one after it is held up."""
    runtime = talking()
    go_on = threading.Semaphore(0)
    runtime.entry("talker").system.pause = lambda: held(go_on)
    with httpx.stream("POST", live(runtime) + "/chat", json={"text": "a film"}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        for tool in ("look-up", "hard filter", "ranking"):
            kind, data, end = next(lines), next(lines), next(lines)
            assert (kind, json.loads(data[6:])["tool"], end) == ("event: step", tool, "")
            go_on.release()
        rest = [line.removeprefix("event: ") for line in lines if line.startswith("event")]
        assert rest == ["words", "ask", "profile", "turn"]


def held(by: threading.Semaphore) -> None:
    assert by.acquire(timeout=PATIENCE)


def test_whoever_goes_away_leaves_the_session_as_it_was(talking: Callable[..., Any], live: Callable[..., str]) -> None:
    runtime = talking()
    url, system = live(runtime), runtime.entry("talker").system
    session = of(told(httpx.post(url + "/chat", json={"text": "one"}).text), "turn")["session"]
    go_on = threading.Semaphore(0)
    system.pause, system.stopped = lambda: held(go_on), threading.Event()
    with httpx.stream("POST", url + "/chat", json={"session": session, "text": "two"}, timeout=PATIENCE) as answer:
        assert next(answer.iter_lines()) == "event: step"
    time.sleep(0.3)  # until the server has heard that nobody listens
    go_on.release()
    assert system.stopped.wait(PATIENCE), "the turn ends between two steps: nobody let it go on to the third"
    system.pause = lambda: None
    again = told(httpx.post(url + "/chat", json={"session": session, "text": "three"}).text)
    assert of(again, "turn")["turn"] == 2, "the turn nobody heard does not count"
    assert of(again, "profile")["wishes"] == ["one", "three"]


def test_of_two_turns_at_once_one_counts(talking: Callable[..., Any], live: Callable[..., str], kind: Any) -> None:
    runtime = talking(kind)
    url, system = live(runtime), runtime.entry("talker").system
    session = of(told(httpx.post(url + "/chat", json={"text": "one"}).text), "turn")["session"]
    both = threading.Barrier(2)
    system.pause = lambda: both.wait(PATIENCE) or None
    found: list[Told] = []

    def say(text: str) -> None:
        answer = httpx.post(url + "/chat", json={"session": session, "text": text}, timeout=PATIENCE)
        found.append(told(answer.text))

    threads = [threading.Thread(target=say, args=(text,)) for text in ("two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = sorted((events[-1] for events in found), key=lambda one: one[0])
    assert [name for name, _ in ends] == ["error", "turn"]
    assert ends[0][1]["status"] == 409 and "changed" in ends[0][1]["detail"] and ends[0][1]["request"]
    refused = next(events for events in found if events[-1][0] == "error")
    assert {name for name, _ in refused} <= {"step", "error"}, "no words of a turn that does not count"
    system.pause = lambda: None
    last = told(httpx.post(url + "/chat", json={"session": session, "text": "four"}).text)
    assert of(last, "turn")["turn"] == 3 and len(of(last, "profile")["wishes"]) == 3


def test_errors_are_problems_before_the_stream_and_events_within(talking: Callable[..., Any], kind: Any) -> None:
    with TestClient(create_app(talking(kind)), raise_server_exceptions=False) as client:
        for body, status, says in [
            ({"session": "nobody"}, 404, "no such session"),
            ({"system": "ials", "text": "hi"}, 501, "holds no sessions"),
            ({"system": "talkr"}, 404, "talker"),
            ({"text": "x" * 4001}, 422, "4000"),
            ({"text": "hi", "answers": [{"attribute": "genres", "reply": "perhaps"}]}, 422, "yes"),
            ({"events": [{"item": "f1"}]}, 422, "names a user"),
        ]:
            answer = client.post("/chat", json=body)
            assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
            assert says in answer.json()["detail"] + str(answer.json().get("hint"))
        [*steps, (name, problem)] = chat(client, text="fail")
        assert name == "error" and {kind for kind, _ in steps} <= {"step"}
        assert (problem["status"], problem["hint"]) == (503, "say it otherwise")
        assert problem["detail"] == "the ranking at an address of the server is out of order"
        name, problem = chat(client, text="break")[-1]
        assert name == "error" and problem["status"] == 500 and "fault of the program" not in json.dumps(problem)
        assert client.post("/act", json={"text": "fail"}).status_code == 503
        failed = chat(client, text="unreachable")[0][1]
        assert failed["failed"] and failed["output"] == "an address of the server cannot be reached"


def test_a_turn_may_take_so_long_and_so_many_may_be_at_work(
    talking: Callable[..., Any], live: Callable[..., str]
) -> None:
    runtime = talking(turns=1, turn_seconds=0.5)
    go_on = threading.Semaphore(0)
    system = runtime.entry("talker").system
    system.pause = lambda: held(go_on)
    url = live(runtime)
    with httpx.stream("POST", url + "/chat", json={"text": "slowly"}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        next(lines)
        full = httpx.post(url + "/chat", json={"text": "me too"})
        assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
        assert httpx.post(url + "/recommend", json={}).status_code == 200, "lists do not wait for conversations"
        name, problem = told("\n".join(["event: step", *lines]))[-1]
        assert name == "error" and problem["status"] == 504
    go_on.release(2)
    system.pause = lambda: None
    until(lambda: httpx.post(url + "/chat", json={"text": "now"}).status_code == 200)


def test_sessions_expire_and_end_and_are_no_use_to_a_renewed_system(
    talking: Callable[..., Any], bundles: dict[str, Any]
) -> None:
    runtime = talking(session_seconds=1)
    with TestClient(create_app(runtime)) as client:
        session = of(chat(client, text="one", user="u1"), "turn")["session"]
        ended = of(chat(client, text="one", user="u1"), "turn")["session"]
        assert client.delete(f"/sessions/{ended}", params={"user": "u2"}).status_code == 404
        assert client.delete(f"/sessions/{ended}", params={"user": "u1"}).json() == {"session": ended}
        assert client.post("/chat", json={"session": ended, "text": "two"}).status_code == 404
        runtime.put(entry(bundles["popularity"], snapshot="second"))
        for answer in (
            client.post("/chat", json={"session": session, "text": "two"}),
            client.get(f"/sessions/{session}/profile"),
        ):
            assert answer.status_code == 409 and "renewed" in answer.json()["detail"]
        gone = client.delete(f"/sessions/{session}/profile").json()
        assert gone == {"session": session, "turn": 1, "profile": {}, "ended": True}, "what cannot be read goes whole"
        assert client.get(f"/sessions/{session}/profile").status_code == 404
        session = of(chat(client, text="one"), "turn")["session"]
        time.sleep(1.1)
        assert client.post("/chat", json={"session": session, "text": "two"}).status_code == 404


def test_a_profile_is_read_corrected_and_erased_by_its_own_person(client: Any) -> None:
    told_ = chat(client, user="u1", text="with dogs")
    session = of(told_, "turn")["session"]
    where = f"/sessions/{session}/profile"
    read = client.get(where, params={"user": "u1"}).json()
    lists = {"liked": [], "unwanted": [], "wishes": ["with dogs"]}
    assert read == {"session": session, "turn": 1, "profile": lists, "ended": False} and of(told_, "profile") == lists
    for answer in (
        client.get(where, params={"user": "u2"}),
        client.put(where, json={"profile": {}, "user": "u2"}),
        client.delete(where, params={"user": "u2"}),
        client.get("/sessions/another/profile"),
    ):
        assert answer.status_code == 404
    wrong = client.put(where, json={"profile": {"likes": ["x"]}})
    assert wrong.status_code == 422 and "liked, unwanted, wishes" in wrong.json()["hint"]
    assert client.put(where, json={"profile": {"liked": ["x" * 301]}}).status_code == 422
    fixed = client.put(where, json={"profile": {"liked": ["Heat"], "wishes": ["with cats"]}, "turn": 1}).json()
    assert fixed["profile"] == {"liked": ["Heat"], "unwanted": [], "wishes": ["with cats"]} and fixed["turn"] == 2
    late = client.put(where, json={"profile": {}, "turn": 1})
    assert late.status_code == 409, "a correction of what was read before another is refused"
    assert of(chat(client, session=session, text="now"), "profile")["wishes"] == ["with cats", "now"]
    empty = client.delete(where, params={"user": "u1"}).json()
    assert empty["profile"] == {"liked": [], "unwanted": [], "wishes": []} == client.get(where).json()["profile"]
    assert of(chat(client, session=session, text="anew"), "profile")["wishes"] == ["anew"], "the talk goes on"


def test_erasing_a_user_removes_sessions_and_profiles(talking: Callable[..., Any], tmp_path: Path) -> None:
    from tastemaker.serve.erase import erase
    from tastemaker.serve.sessions import open_sessions

    with TestClient(create_app(talking())) as client:
        mine = of(chat(client, user="u1", text="unmistakable"), "turn")["session"]
        other = of(chat(client, user="u2", text="kept"), "turn")["session"]
        store = open_sessions(f"sqlite:///{tmp_path / 'log.db'}")
        [place] = erase("u1", sessions=store).places
        assert (place.what, place.count) == ("sessions", 1)
        assert client.get(f"/sessions/{mine}/profile").status_code == 404
        assert client.post("/chat", json={"session": mine, "text": "two"}).status_code == 404
        assert client.get(f"/sessions/{other}/profile").json()["profile"]["wishes"] == ["kept"]
        raw = b"".join(file.read_bytes() for file in tmp_path.glob("log.db*"))
        assert b"unmistakable" not in raw and b"kept" in raw, "no file holds the words any more"
        store.close()


def test_keys_gate_conversations_too(talking: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {name: add_key(file, name, frozenset(scopes)) for name, scopes in
            {"reader": {"read"}, "teller": {"feedback"}, "both": {"read", "feedback"}}.items()}  # fmt: skip
    with TestClient(create_app(talking(keys_file=file, body_bytes=3000))) as client:

        def post(path: str, name: str | None, **body: Any) -> int:
            headers = {} if name is None else {"Authorization": f"Bearer {keys[name]}"}
            return int(client.post(path, json=body, headers=headers).status_code)

        event = {"kind": "like", "item": "f000001", "user": "u"}
        assert post("/chat", None, text="hi") == 401 and post("/chat", "teller", text="hi") == 403
        assert post("/chat", "reader", text="hi") == 200 and post("/chat", "both", text="hi", events=[event]) == 200
        for path in ("/chat", "/act"):
            assert post(path, "reader", text="hi", events=[event]) == 403, "a reader writes nothing down"
        assert client.get("/sessions/x/profile").status_code == 401
        assert post("/chat", "reader", text="x" * 3500) == 413


def test_act_tells_the_same_turn_at_once(client: Any) -> None:
    turn = client.post("/act", json={"user": "u1", "text": "a film"}).json()
    assert turn["ask"]["attribute"] == "genres" and turn["items"] == [] and turn["slate"] is None
    answer = {"attribute": "genres", "value": "comedy"}
    turn = client.post("/act", json={"session": turn["session"], "answer": answer}).json()
    assert turn["turn"] == 2 and len(turn["items"]) == 5 and turn["slate"] and turn["ask"] is None


def test_the_routes_come_with_a_system_that_converses(make: Callable[..., Any], bundles: dict[str, Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        assert client.post("/chat", json={}).status_code == 404
        runtime.put(entry(bundles["ease"]))
        paths = client.get("/openapi.json").json()["paths"]
        assert paths["/chat"]["post"]["responses"]["200"]["content"].keys() == {"text/event-stream"}
        assert paths["/sessions/{session}/profile"].keys() == {"get", "put", "delete"}
        assert {"act", "profile"} <= set(client.get("/systems/talker").json()["capabilities"])


def test_a_server_that_stops_leaves_its_turns(talking: Callable[..., Any], tmp_path: Path) -> None:
    from tastemaker.serve.acting import Acting
    from tastemaker.serve.desk import Desk
    from tastemaker.serve.models import ChatBody
    from tastemaker.serve.sessions import open_sessions

    runtime = talking()
    system = runtime.entry("talker").system
    begun = threading.Event()
    system.pause = lambda: begun.set() or time.sleep(0.2)

    async def scenario() -> list[str]:
        acting = Acting(Desk(runtime), open_sessions(f"sqlite:///{tmp_path / 'log.db'}"))
        turn = await acting.begin(ChatBody(text="one"))
        await asyncio.to_thread(begun.wait, PATIENCE)
        acting.close()
        assert system.stopped.is_set(), "and it waits until the turn has noticed"
        kinds = [one[0] async for one in turn.events(PATIENCE) if one is not None]
        acting.store.close()
        return kinds

    assert set(asyncio.run(scenario())) == {"step"}, "it is cut off between two steps, and does not count"


def test_the_client_holds_a_conversation(talking: Callable[..., Any], live: Callable[..., str]) -> None:
    from tastemaker.serve.client import Client, ServerError

    url = live(talking())
    with Client(url) as client:
        talk = client.conversation(user="u1", system="talker")
        kinds = [one.kind for one in talk.say("a film")]
        assert kinds == ["step"] * 3 + ["words", "ask", "profile", "turn"]
        assert talk.words == "Which genre?" and talk.ask == {"attribute": "genres", "values": ["comedy", "drama"]}
        talk.say_all(answers=[{"attribute": "genres", "value": "drama"}])
        assert len(talk.items) == 5 and talk.ask is None and len(talk.steps) == 3
        like = {"kind": "like", "item": talk.items[0]["item"], "slate": talk.slate, "position": 1}
        liked = talk.items[0]["title"]
        assert like["item"] not in [row["item"] for row in talk.say_all("more", events=[like]).items]
        assert talk.session is not None
        known = client.profile(talk.session, user="u1")
        assert known["profile"]["liked"] == [liked]
        fixed = client.correct_profile(talk.session, {"liked": ["Heat"]}, turn=known["turn"], user="u1")
        assert fixed["profile"] == {"liked": ["Heat"], "unwanted": [], "wishes": []}
        with pytest.raises(ServerError, match="went on"):
            client.correct_profile(talk.session, {}, turn=known["turn"])
        assert client.erase_profile(talk.session, user="u1")["profile"]["liked"] == []
        with pytest.raises(ServerError, match="out of order") as error:
            talk.say_all("fail")
        assert error.value.status == 503 and talk.items == []
        client.end_session(talk.session, user="u1")
        with pytest.raises(ServerError, match="no such session"):
            talk.say_all("gone")
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(ServerError, match="cannot be reached"):
        nobody.conversation().say_all("hello")


def test_agents_take_turns_over_mcp(talking: Callable[..., Any], tmp_path: Path) -> None:
    from mcp import Client as Agent

    from tastemaker.serve.acting import Acting
    from tastemaker.serve.desk import Desk
    from tastemaker.serve.mcp import server
    from tastemaker.serve.sessions import open_sessions

    runtime = talking()

    async def scenario() -> None:
        acting = Acting(Desk(runtime), open_sessions(f"sqlite:///{tmp_path / 'log.db'}"))
        async with Agent(server(acting.desk, acting)) as agent:
            answer = await agent.call_tool("chat", {"text": "a film"})
            first = answer.structured_content
            assert first["ask"]["attribute"] == "genres"
            reply = {"attribute": "genres", "value": "comedy", "reply": "yes"}
            second = await agent.call_tool("chat", {"session": first["session"], "answer": reply})
            assert len(second.structured_content["items"]) == 5
            wrong = await agent.call_tool("chat", {"session": "nobody"})
            assert wrong.is_error and "no such session" in wrong.content[0].text
        acting.close()
        acting.store.close()

    asyncio.run(scenario())


class Leaning(Narrator):
    """The double, which notes what it is given to lean on."""

    def bind(self, resources: Any) -> None:
        self.resources = resources


def test_a_served_system_is_given_what_it_leans_on(
    make: Callable[..., Any], bundles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue, the endpoint of the settings, and the systems beside it that number the same items."""
    import polars as pl

    from tastemaker.serve.entry import Entry
    from tastemaker.types import ConfigError

    with pytest.raises(ConfigError, match="the name is missing"):
        make(chat_url="http://127.0.0.1:1/v1")
    runtime = make(chat_url="http://127.0.0.1:1/v1", chat_model="small", chat_key_variable="SOME_KEY")
    one = entry(bundles["ease"], kind=Leaning)
    runtime.put(one)
    bound = one.system.resources
    assert bound.catalogue is one.catalogue and set(bound.systems) == {"ials", "ease", "popularity"}
    assert bound.systems["ials"] is bundles["ials"].system
    assert "small" in bound.chat.identity and bound.chat.config.key_variable == "SOME_KEY"
    runtime.remove("ials")
    assert set(one.system.resources.systems) == {"ease", "popularity"}
    other = make()
    other.put(entry(bundles["ease"], kind=Leaning, name="plain"))
    assert other.entry("plain").system.resources.chat is None, "no endpoint: the rules it brings"
    apart = replace(bundles["ials"], catalogue=bundles["ials"].catalogue.with_columns(pl.col("item") + "x"))
    runtime.put(Entry("ials", apart, snapshot="apart"))
    assert "ials" not in one.system.resources.systems, "its numbers mean other items"
    kept = one.system.resources
    runtime.put(Entry("ease", bundles["ease"], snapshot="first+1"), keep_before=False)
    assert one.system.resources is kept, "what another learns by the way makes nobody begin anew"


def test_a_system_that_learns_meanwhile_goes_on_with_its_sessions(
    talking: Callable[..., Any], bundles: dict[str, Any]
) -> None:
    runtime = talking()
    with TestClient(create_app(runtime)) as client:
        session = of(chat(client, text="one"), "turn")["session"]
        runtime.put(entry(bundles["popularity"], snapshot="first+7"))
        assert of(chat(client, session=session, text="two"), "turn")["snapshot"] == "first+7"
