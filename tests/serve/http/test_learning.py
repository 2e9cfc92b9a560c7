"""A system that learns while it serves: what users do moves the lists of all, snapshot by snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from starlette.testclient import TestClient

from tastemaker.serve.app import create_app
from tastemaker.serve.entry import Entry


class Counts:
    """Scores an item by how often it was liked; nothing that is applied changes what was there."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    def score(self, requests: Any, items: Any = None) -> np.ndarray:
        whole = np.broadcast_to(self.counts, (requests.n, len(self.counts)))
        return whole if items is None else np.take_along_axis(whole, np.maximum(items, 0), axis=1)

    def update(self, feedback: Any) -> np.ndarray:
        events = feedback.events.values
        liked = events["item"][events["kind"] == "like"]
        return np.bincount(liked, minlength=len(self.counts)).astype(np.float32)

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left + right

    def apply(self, delta: np.ndarray) -> Self:
        return type(self)(self.counts + delta)


@pytest.fixture
def entry(bundles: dict[str, Any]) -> Entry:
    from tastemaker.index import retriever

    inner = bundles["popularity"]
    info = SimpleNamespace(needs=frozenset(), title="Counts", capabilities=("scores", "updates"))
    kept = {name: getattr(inner, name) for name in ("catalogue", "users", "items", "histories", "schema")}

    class Whole(SimpleNamespace):
        @property
        def retriever(self) -> Any:
            return retriever(self.system)

    system = Counts(np.zeros(inner.catalogue.height, dtype=np.float32))
    return Entry("counts", Whole(system=system, info=info, name="counts", about={}, **kept), snapshot="first")


def test_likes_of_some_move_the_list_of_another(make: Callable[..., Any], entry: Entry) -> None:
    runtime = make(learn_every=0.05)
    runtime.put(entry)
    with TestClient(create_app(runtime)) as client:
        item = entry.ids[17]
        ask = {"system": "counts", "history": [], "k": 1}
        first = client.post("/recommend", json=ask).json()
        assert first["snapshot"] == "first" and first["items"][0]["item"] != item
        for user in ("a", "b", "c"):
            client.post("/feedback", json={"events": [{"user": user, "item": item, "kind": "like"}]})
        for _ in range(100):
            found = client.post("/recommend", json=ask).json()
            if found["items"][0]["score"] == 3.0:
                break
            time.sleep(0.05)
        assert found["items"][0]["item"] == item and found["items"][0]["score"] == 3.0, "every like counted once"
        assert found["snapshot"].startswith("first+")
        assert entry.system.counts.sum() == 0, "the snapshot before is as it was"
        client.post("/feedback", json={"events": [{"user": "d", "item": "unheard of", "kind": "like"}]})
        client.post("/admin/systems/counts/rollback")
        assert client.post("/recommend", json=ask).json()["snapshot"] == "first"


def test_a_bandit_learns_from_what_was_served_though_its_user_is_another_by_now(
    make: Callable[..., Any], data: Any
) -> None:
    from tastemaker.train import fit

    runtime = make(learn_every=0.05)
    bundle = fit("diag-linucb", data, {"prior": 0.0, "n_clusters": 8, "nearest": 2})
    entry = Entry("diag-linucb", bundle, snapshot="first")
    runtime.put(entry)
    with TestClient(create_app(runtime)) as client:
        user = bundle.users.series[0]
        ask = {"system": "diag-linucb", "user": user, "k": 5}
        shown = client.post("/recommend", json=ask).json()
        liked, number = shown["items"][2]["item"], bundle.items.number(shown["items"][2]["item"])
        numbers, weights = bundle.system.clusters.memberships(bundle.system.space.queries(entry.requests([_of(user)])))
        for kind, who in (("like", user), ("like", "somebody else")):
            event = {"user": who, "item": liked, "kind": kind, "slate": shown["slate"]}
            client.post("/feedback", json={"events": [event]})
        for _ in range(100):
            learnt = runtime.entry("diag-linucb").bundle.system
            earned = learnt.edges.earned.sum()
            if earned > 1.9:
                break
            time.sleep(0.05)
        edges = {int(key): place for place, key in enumerate(learnt.edges.keys)}
        for cluster, weight in zip(numbers[0].tolist(), weights[0].tolist(), strict=True):
            place = edges[cluster * 2**32 + number]
            assert learnt.edges.earned[place] == pytest.approx(2 * weight), "both trials went to the clusters as served"
            assert learnt.edges.seen[place] == pytest.approx(1 + 2 * weight**2)
        assert np.count_nonzero(learnt.edges.earned) == 2, "and to no other"
        assert entry.bundle.system.edges.earned.sum() == 0


def _of(user: Any) -> Any:
    from tastemaker.serve.questions import Question

    return Question(user=user)
