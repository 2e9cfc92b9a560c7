"""A system that learns while it serves: what users do moves the lists of all, snapshot by snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from starlette.testclient import TestClient

from tastemaker.serve.app import create_app
from tastemaker.serve.entry import Entry
from tastemaker.serve.learning import Learning, feedback_of
from tastemaker.serve.learnt import decoded, encoded
from tastemaker.serve.log import Event, Served
from tastemaker.serve.names import new_id


@dataclass(frozen=True)
class Likes:
    """How often each item was liked."""

    counts: np.ndarray


class Counts:
    """Scores an item by how often it was liked; nothing that is applied changes what was there."""

    Delta = Likes

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    def score(self, requests: Any, items: Any = None) -> np.ndarray:
        whole = np.broadcast_to(self.counts, (requests.n, len(self.counts)))
        return whole if items is None else np.take_along_axis(whole, np.maximum(items, 0), axis=1)

    def update(self, feedback: Any) -> Likes:
        events = feedback.events.values
        if "poison" in events["kind"]:
            raise ValueError("this cannot be learnt from")
        liked = events["item"][events["kind"] == "like"]
        return Likes(np.bincount(liked, minlength=len(self.counts)).astype(np.float32))

    def merge(self, left: Likes, right: Likes) -> Likes:
        return Likes(left.counts + right.counts)

    def apply(self, delta: Likes) -> Self:
        return type(self)(self.counts + delta.counts)


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


# -- several processes on one log


def likes(*items: str, slate: str | None = None) -> list[Event]:
    return [Event(new_id(), n, "like", "somebody", item, slate=slate) for n, item in enumerate(items)]


def learning(make: Callable[..., Any], entry: Entry, **given: Any) -> Learning:
    """A process of its own, as far as the log can tell."""
    runtime = make(**given)
    runtime.put(Entry(entry.name, entry.bundle, snapshot=entry.snapshot))
    return Learning(runtime, settle=0.0)


def served(process: Learning, name: str) -> tuple[str, Any]:
    found = process.runtime.entry(name)
    return found.snapshot, found.system


def test_each_process_learns_what_any_was_told_and_every_event_once(make: Callable[..., Any], entry: Entry) -> None:
    one, two = learning(make, entry), learning(make, entry)
    a, b = entry.ids[:2]
    events = likes(a, b, a)
    one.log.append(events)
    two.log.append([events[0], *likes(b)])  # one of them is sent again
    for process in (one, two, one):
        process.turn()
    for process in (one, two):
        snapshot, system = served(process, "counts")
        assert system.counts[:3].tolist() == [2, 2, 0]
        assert snapshot == f"first+{one.log.changed_since(None)[1]}", "its name says how far it has read"
    two.log.append(likes(a))
    later = learning(make, entry)
    later.turn()
    assert served(later, "counts")[1].counts[:2].tolist() == [3, 2], "who comes later learns all since the first served"


def test_what_cannot_be_learnt_from_harms_no_other_event(make: Callable[..., Any], entry: Entry) -> None:
    process = learning(make, entry)
    a, b = entry.ids[:2]
    bad = Event(new_id(), 1, "poison", "somebody", a)
    process.log.append([*likes(a), bad, *likes(b, "unheard of", b)])
    process.turn()
    assert served(process, "counts")[1].counts[:2].tolist() == [1, 2]
    process.log.append(likes(a))
    process.turn()
    assert served(process, "counts")[1].counts[:2].tolist() == [2, 2]


def test_an_event_is_read_when_its_list_has_had_time_to_come(make: Callable[..., Any], entry: Entry) -> None:
    process = learning(make, entry)
    process.settle = 0.3
    process.turn()
    process.log.append(likes(entry.ids[0]))
    process.turn()
    assert served(process, "counts")[0] == "first"
    time.sleep(0.3)
    process.turn()
    assert served(process, "counts")[0] == "first+1"


def test_taking_the_bundle_back_forgets_in_all_processes(make: Callable[..., Any], entry: Entry) -> None:
    one, two = learning(make, entry), learning(make, entry)
    a = entry.ids[0]
    one.log.append(likes(a, a))
    one.turn(), two.turn()
    one.runtime.roll_back("counts")
    one.log.append(likes(a))
    one.turn(), two.turn()
    for process in (one, two, learning(make, entry)):
        process.turn()
        assert served(process, "counts")[1].counts[0] == 1, "only what came after is known"
    one.runtime.roll_back("counts")
    one.runtime.roll_back("counts")  # no, do bring it back
    one.turn()
    assert served(one, "counts")[1].counts[0] == 1
    again = Entry("counts", entry.bundle, snapshot="second")
    one.runtime.put(again)
    one.log.append(likes(a))
    one.turn()
    assert served(one, "counts")[0] == "second+4" and served(one, "counts")[1].counts[0] == 1


@pytest.fixture
def bandit(data: Any) -> Entry:
    from tastemaker.train import fit

    bundle = fit("diag-linucb", data, {"prior": 0.0, "n_clusters": 8, "nearest": 2})
    return Entry("diag-linucb", bundle, snapshot="first")


def test_a_process_goes_on_from_what_was_kept(
    make: Callable[..., Any], bandit: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = learning(make, bandit)
    process.log.append(likes(*bandit.ids[:30]))
    process.turn()
    process.close()
    process.log.append(likes(*bandit.ids[30:40]))
    after, read = learning(make, bandit), []
    honest = after.log.next_events
    monkeypatch.setattr(after.log, "next_events", lambda *given: read.append(given[0]) or honest(*given))
    after.turn(), process.turn()
    assert read == [30], "the first thirty were not read again"
    np.testing.assert_allclose(
        served(after, "diag-linucb")[1].edges.earned, served(process, "diag-linucb")[1].edges.earned
    )
    [file] = (Path(str(process.log.engine.url.database) + ".learnt")).iterdir()
    file.write_bytes(file.read_bytes()[:100])
    anew = learning(make, bandit)
    anew.turn()
    np.testing.assert_allclose(
        served(anew, "diag-linucb")[1].edges.earned, served(process, "diag-linucb")[1].edges.earned
    )


def test_a_list_of_another_fit_lends_its_trace_to_no_event(make: Callable[..., Any], bandit: Entry) -> None:
    process = learning(make, bandit)
    user, item = str(bandit.bundle.users.series[0]), bandit.ids[0]
    trace = {"cluster": [7, 6], "weight": [0.5, 0.5]}
    for snapshot in ("first+3", "another"):
        shown = Served(snapshot, 0, user, None, "diag-linucb", snapshot, None, None, (item,), (1.0,), trace=trace)
        process.log.append(served=[shown])
    found = [
        process.log.traces("diag-linucb", "first", ["first+3", "another"]),
        process.log.traces("x", "first", ["first+3"]),
    ]
    assert found == [{"first+3": trace}, {}]


@pytest.mark.services
def test_in_redis_one_process_reads_the_log_for_all(
    make: Callable[..., Any], bandit: Entry, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"bandit {new_id()}"  # the Redis is shared by tests
    bandit = Entry(name, bandit.bundle, snapshot="first")
    one, two, alone = (
        learning(make, bandit, learning_url=url) for url in (redis_url, redis_url, "redis://127.0.0.1:1/0")
    )
    one.log.append([*likes(*bandit.ids[:30]), *likes("unheard of")])
    one.turn()
    monkeypatch.setattr(two.log, "next_events", None)
    two.turn(), alone.turn()
    one.log.append(likes("unheard of"))
    one.turn(), two.turn()
    assert served(one, name)[0] == served(two, name)[0] == served(alone, name)[0] == "first+31"
    assert two.places[name].at == 32, "that a part says nothing is known too"
    for process in (two, alone):
        np.testing.assert_array_equal(served(process, name)[1].edges.earned, served(one, name)[1].edges.earned)
    assert served(one, name)[1].edges.earned.sum() > 0


def test_what_was_learnt_from_another_log_is_nothing_to_this_one(
    make: Callable[..., Any], bandit: Entry, tmp_path: Path
) -> None:
    one = learning(make, bandit, learnt_dir=tmp_path / "learnt")
    one.log.append(likes(*bandit.ids[:30]))
    one.turn()
    one.close()
    other = learning(make, bandit, learnt_dir=tmp_path / "learnt", log_url=f"sqlite:///{tmp_path / 'other.db'}")
    events = likes(*bandit.ids[30:70])
    other.log.append(events)
    other.turn()
    assert other.log.identity != one.log.identity == learning(make, bandit).log.identity
    [told] = feedback_of(bandit, events)
    expected = bandit.system.apply(bandit.system.update(told))
    np.testing.assert_allclose(served(other, "diag-linucb")[1].edges.earned, expected.edges.earned)


def test_a_delta_comes_back_from_bytes(bandit: Entry) -> None:
    from tastemaker.nn.edges import EdgeSums
    from tastemaker.types import BundleError

    delta = EdgeSums.of(np.array([5, 3, 5]), np.array([0.25, 0.5, 0.25]), np.array([0.5, 0.0, 0.5]))
    at, again = decoded(encoded(17, delta), EdgeSums)
    assert at == 17 and all(
        np.array_equal(getattr(again, n), getattr(delta, n)) for n in ("keys", "squares", "rewards")
    )
    assert decoded(encoded(17, None), EdgeSums) == (17, None)
    for raw in (b"", encoded(17, delta)[:-3]):
        with pytest.raises(BundleError):
            decoded(raw, EdgeSums)
