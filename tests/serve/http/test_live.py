"""Experiments, pipelines and sessions over HTTP, each from its beginning to its end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from tastemaker.compose import PipelineSpec
from tastemaker.compose import compile as compose
from tastemaker.serve.app import create_app
from tastemaker.serve.entry import Entry
from tastemaker.serve.states import decoded, encoded
from tastemaker.types import Actions, BundleError, Columns, Slates

METRIC = {"event": "click", "per": "list"}


def experiment(kind: str, **more: Any) -> dict[str, Any]:
    arms = {"old": {"serve": "popularity"}, "new": {"serve": "ials"}}
    return {"experiment": {"name": kind, "kind": kind, "arms": arms, "control": "old", "primary": METRIC, **more}}


def lists(runtime: Any, name: str, n: int) -> list[dict[str, Any]]:
    """The lists of an experiment, once n of them are written."""
    for _ in range(200):
        found = [row for frame in runtime.log.slates(experiment=name) for row in frame.iter_rows(named=True)]
        if len(found) >= n:
            break
        time.sleep(0.02)
    return found


def test_an_ab_experiment_deals_users_and_promotes_what_is_better(make: Callable[..., Any], tmp_path: Path) -> None:
    runtime = make(experiments_file=tmp_path / "experiments.json")
    with TestClient(create_app(runtime)) as client:
        users = runtime.entry().bundle.users.series.to_list()
        assert client.post("/admin/experiments", json=experiment("ab", window=0.001)).json()["state"] == "draft"
        ask = {"system": "popularity", "k": 3}
        assert client.post("/recommend", json={**ask, "user": users[0]}).json()["arm"] is None, (
            "a draft changes nothing"
        )
        assert client.post("/admin/experiments/ab/start").json()["state"] == "running"
        arms = {}
        for user in users[:120]:
            found = client.post("/recommend", json={**ask, "user": user}).json()
            again = client.post("/recommend", json={**ask, "user": user}).json()
            assert found["arm"] == again["arm"] and found["experiment"] == "ab"
            assert found["system"] == {"old": "popularity", "new": "ials"}[found["arm"]]
            arms[user] = found["arm"]
        counts = Counter(arms.values())
        assert min(counts.values()) > 35, counts
        assert len(lists(runtime, "ab", 240)) == 240
        assert client.post("/recommend", json={"user": users[0]}).json()["arm"] is None, "another surface is untouched"
        told = client.get("/experiments/ab")
        assert told.status_code == 422 and "wait for traffic" in told.json()["hint"]
        forced = client.post("/admin/experiments/ab/promote", json={"arm": "new", "force": True})
        assert forced.status_code == 422, "there are no events yet, so there is no result"
        item = runtime.entry().ids[0]
        client.post("/feedback", json={"events": [{"user": users[0], "item": item, "kind": "click"}]})
        result = client.get("/experiments/ab").json()
        assert {row["arm"] for row in result["arms"]} == {"old", "new"} and result["verdict"] == "not yet"
        waits = client.post("/admin/experiments/ab/promote").json()
        assert waits["action"] == "wait" and runtime.entry("popularity").snapshot == "first"
        done = client.post("/admin/experiments/ab/promote", json={"arm": "new", "force": True}).json()
        assert done["action"] == "promote"
        assert runtime.entry("popularity").bundle.name == "ials", "the winner answers under the old name"
        assert client.get("/experiments").json()["experiments"][0]["state"] == "stopped"
        assert json.loads((tmp_path / "experiments.json").read_text())[0]["state"] == "stopped"
        assert client.post("/admin/systems/popularity/rollback").json()["system"] == "popularity"


def test_an_interleaved_list_says_who_picked_what_and_pages_join(make: Callable[..., Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        client.post("/admin/experiments", json=experiment("interleave"))
        client.post("/admin/experiments/interleave/start")
        user = runtime.entry().bundle.users.series[0]
        ask = {"system": "popularity", "user": user, "seed": 5}
        whole = client.post("/recommend", json={**ask, "k": 8, "explain": True}).json()
        assert whole["arm"] == "mixed" and len({row["item"] for row in whole["items"]}) == 8
        first = client.post("/recommend", json={**ask, "k": 4}).json()
        second = client.post("/recommend", json={**ask, "k": 4, "cursor": first["next"]}).json()
        both = [row["item"] for row in first["items"] + second["items"]]
        assert both == [row["item"] for row in whole["items"]]
        logged = lists(runtime, "interleave", 3)[0]
        teams = json.loads(logged["trace"])["teams"]
        assert len(teams) == 8 and set(teams) <= {-1, 0, 1} and {0, 1} <= set(teams)


def test_a_shadow_answers_unseen(make: Callable[..., Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        client.post("/admin/experiments", json=experiment("shadow"))
        client.post("/admin/experiments/shadow/start")
        for user in runtime.entry().bundle.users.series.to_list()[:10]:
            found = client.post("/recommend", json={"system": "popularity", "user": user}).json()
            assert found["system"] == "popularity"
        client.post("/feedback", json={"events": [{"user": "u", "kind": "visit"}]})
        result = client.get("/experiments/shadow").json()
        assert result["shadows"][0]["arm"] == "new" and result["shadows"][0]["lists"] >= 9


def test_what_does_not_fit_is_refused(client: Any) -> None:
    wrong = experiment("ab")
    wrong["experiment"]["control"] = "nobody"
    assert "nobody" in client.post("/admin/experiments", json=wrong).json()["detail"]
    assert client.get("/experiments/none").status_code == 404
    started = experiment("ab")
    started["experiment"]["arms"]["new"]["serve"] = "unheard of"
    client.post("/admin/experiments", json=started)
    assert client.post("/admin/experiments/ab/start").status_code == 404, "an arm must be served"


# -- pipelines

SPEC = {
    "name": "home",
    "retrieve": [{"system": "ials", "k": 50}, {"system": "ease", "k": 50}],
    "filter": [{"kind": "where", "where": "price < 12"}],
    "rerank": [{"kind": "cap", "column": "maker", "most": 1, "first": 5}],
    "explain": {"kind": "because", "vectors": "ials"},
}


def test_a_pipeline_is_checked_tried_and_served(make: Callable[..., Any], tmp_path: Path, bundles: Any) -> None:
    runtime = make(pipelines_dir=tmp_path / "pipelines")
    with TestClient(create_app(runtime)) as client:
        user = runtime.entry().bundle.users.series[0]
        checked = client.post("/pipelines/check", json={"spec": SPEC})
        assert checked.status_code == 200, checked.text
        assert checked.json()["svg"].startswith("<svg")
        wrong = client.post("/pipelines/check", json={"spec": {**SPEC, "retrieve": [{"system": "eas"}]}})
        assert wrong.status_code == 422 and "ease" in json.dumps(wrong.json()["errors"])
        tried = client.post("/pipelines/preview", json={"spec": SPEC, "question": {"user": user, "k": 5}}).json()
        served = client.post("/admin/pipelines", json={"spec": SPEC})
        assert served.status_code == 200, served.text
        found = client.post("/recommend", json={"system": "home", "user": user, "k": 5, "explain": True}).json()
        assert [row["item"] for row in found["items"]] == [row["item"] for row in tried["items"]]
        prices = {row["item"]: client.get(f"/items/{row['item']}").json()["columns"] for row in found["items"]}
        assert all(columns["price"] < 12 for columns in prices.values())
        assert len({columns["maker"] for columns in prices.values()}) == 5
        assert client.get("/pipelines").json()["pipelines"][0]["name"] == "home"
        assert client.get("/systems/home").json()["kind"] == "pipeline"
        before = runtime.entry("home").bundle
        runtime.put(Entry("ials", bundles["ials"], snapshot="second"))
        assert runtime.entry("home").bundle is not before, "it leans on the new fit now"
        taken = client.post("/admin/pipelines", json={"spec": {**SPEC, "name": "ials"}})
        assert taken.status_code == 422
    again = make(pipelines_dir=tmp_path / "pipelines")
    again.open_pipelines()
    assert again.entry("home").kind == "pipeline", "what was kept is there after a restart"


def test_a_pipeline_with_systems_of_its_own_keeps_them(make: Callable[..., Any], bundles: Any) -> None:
    runtime = make()
    spec = PipelineSpec.model_validate({**SPEC, "name": "brought"})
    own = compose(spec, {"ials": bundles["ials"], "ease": bundles["ease"]})
    runtime.put(Entry("brought", own, snapshot="own"))
    runtime.put(Entry("ials", bundles["ials"], snapshot="second"))
    assert runtime.entry("brought").bundle is own


# -- sessions


@dataclass(frozen=True)
class Talk:
    """What a session remembers."""

    turns: int
    asked: np.ndarray
    liked: list[int]
    words: dict[str, str]


class Asker:
    """A system that asks once, then shows items, and never one that was refused."""

    State = Talk

    def begin(self, requests: Any) -> list[Talk]:
        return [Talk(0, np.zeros(2, dtype=np.int64), [], {}) for _ in range(requests.n)]

    def act(self, sessions: list[Talk]) -> tuple[Actions, list[Talk]]:
        one = sessions[0]
        after = Talk(one.turns + 1, one.asked + 1, one.liked, one.words)
        if one.turns == 0:
            ask = Columns(attribute=np.array(["genre"], dtype=object), values=wrapped(("drama", "comedy")))
            return Actions(1, ask=ask, text=np.array(["What do you like?"], dtype=object)), [after]
        free = [n for n in range(10) if n not in one.liked][:3]
        return Actions(1, slates=Slates(np.array([free]), np.array([[3.0, 2.0, 1.0]]))), [after]

    def observe(self, sessions: list[Talk], feedback: Any) -> list[Talk]:
        one = sessions[0]
        words = dict(one.words)
        if feedback.answers is not None:
            words[str(feedback.answers["attribute"][0])] = str(feedback.answers["value"][0])
        return [Talk(one.turns, one.asked, [*one.liked, *feedback.events[0]["item"].tolist()], words)]


def wrapped(values: tuple[str, ...]) -> Any:
    made = np.empty(1, dtype=object)
    made[0] = values
    return made


@pytest.fixture
def acting(make: Callable[..., Any], bundles: dict[str, Any]) -> Any:
    inner = bundles["ials"]
    info = SimpleNamespace(needs=frozenset(), title="Asker", capabilities=("acts",))
    bundle = SimpleNamespace(
        system=Asker(),
        info=info,
        name="asker",
        catalogue=inner.catalogue,
        users=inner.users,
        items=inner.items,
        histories=inner.histories,
        schema=inner.schema,
        about={},
    )
    runtime = make()
    app = create_app(runtime)
    with TestClient(app) as client:
        assert client.post("/act", json={}).status_code == 404, "there is no such route before a system brings it"
        runtime.put(Entry("asker", bundle, snapshot="first"))
        yield client, runtime


def test_a_session_goes_from_turn_to_turn(acting: Any) -> None:
    client, runtime = acting
    first = client.post("/act", json={"user": "u1"}).json()
    assert first["ask"] == {"attribute": "genre", "values": ["drama", "comedy"]} and first["text"]
    answer = {"attribute": "genre", "value": "drama"}
    second = client.post("/act", json={"session": first["session"], "answer": answer}).json()
    assert second["turn"] == 2 and len(second["items"]) == 3 and second["slate"]
    refused = second["items"][0]["item"]
    event = {"user": "u1", "item": refused, "kind": "hide", "slate": second["slate"]}
    third = client.post("/act", json={"session": first["session"], "events": [event]}).json()
    assert refused not in [row["item"] for row in third["items"]]
    logged = [row for frame in runtime.log.slates() for row in frame.iter_rows(named=True)]
    assert {row["session"] for row in logged} == {first["session"]}
    assert client.post("/act", json={"session": "no such"}).status_code == 404
    assert client.post("/act", json={"session": first["session"], "user": "somebody else"}).status_code == 404
    assert client.post("/act", json={"system": "ials"}).status_code == 501


def test_a_state_is_read_back_whole_and_of_its_own_version_only() -> None:
    state = Talk(3, np.array([1, 2]), [4, 5], {"genre": "drama"})
    back = decoded(encoded(state), Talk)
    assert (back.turns, back.asked.tolist(), back.liked, back.words) == (3, [1, 2], [4, 5], {"genre": "drama"})

    class Newer(Talk):
        VERSION = 2

    with pytest.raises(BundleError, match="another version"):
        decoded(encoded(state), Newer)
    for wrong in (b"{}", b"no", b'{"version": 1, "fields": {"dict": {}}, "arrays": {"v": ["O", [1], ""]}}'):
        with pytest.raises(BundleError):
            decoded(wrong, Talk)


def test_traffic_tells_what_happened(client: Any) -> None:
    user = client.get("/users").json()["users"][0]
    found = client.post("/recommend", json={"user": user}).json()
    client.post("/feedback", json={"events": [{"user": user, "item": found["items"][0]["item"], "kind": "like"}]})
    told = client.get("/traffic").json()
    assert told["minutes"][-1]["requests"] >= 3 and told["minutes"][-1]["p50_ms"] > 0
    assert told["systems"]["ials"]["requests"] == 1 and told["events"] == {"like": 1}
    assert [row["what"] for row in told["recent"]] == ["like", "list"]


def test_who_is_erased_is_forgotten_by_a_running_server(make: Callable[..., Any]) -> None:
    runtime = make()
    runtime.histories.every = 0.0
    with TestClient(create_app(runtime)) as client:
        item = runtime.entry().ids[3]
        client.post("/feedback", json={"events": [{"user": "somebody", "item": item, "kind": "like"}]})
        assert client.get("/users/somebody").json()["history"][0]["item"] == item
        runtime.log.erase("somebody")
        assert client.get("/users/somebody").status_code == 404
        assert "somebody" not in client.get("/traffic").text


def test_the_leaderboard_is_what_choose_wrote(make: Callable[..., Any], tmp_path: Path) -> None:
    row = {
        "value": 0.3,
        "low": 0.2,
        "high": 0.4,
        "tied": True,
        "fit_seconds": 1.0,
        "ms_per_request": 1.0,
        "bundle_mb": 2.0,
    }
    rows = [{**row, "system": "ials"}, {**row, "system": "ease", "value": 0.25, "bundle": "/secret/place"}]
    choice = {"metric": "ndcg@10", "finalists": rows, "verdict": "ials is best"}
    (tmp_path / "choice.json").write_text(json.dumps(choice))
    with TestClient(create_app(make(reports_dir=tmp_path))) as client:
        found = client.get("/leaderboard").json()
    assert [one["system"] for one in found["rows"]] == ["ials", "ease"]
    assert found["rows"][1]["gives_up"] == pytest.approx(0.05) and "secret" not in json.dumps(found)
    assert pl.DataFrame(found["rows"]).height == 2
