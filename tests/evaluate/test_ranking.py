"""The protocol: what is asked, what counts, what is recorded; on systems whose right figures are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.evaluate import METRICS, evaluate
from tastemaker.evaluate.candidates import with_candidates
from tastemaker.evaluate.slices import slice_table
from tastemaker.types import (
    CapabilityError,
    Cases,
    Jagged,
    NotFound,
    Requests,
    Slates,
    Split,
    UsageError,
)


@dataclass(eq=False)
class Fixed:
    """Answers user u with row u of a table, and keeps what it was asked."""

    lists: np.ndarray
    asked: list[Requests]

    def retrieve(self, requests: Requests, k: int) -> Slates:
        self.asked.append(requests)
        assert requests.users is not None
        items = self.lists[requests.users][:, :k]
        return Slates(items, np.where(items >= 0, -np.arange(items.shape[1], dtype=np.float32), -np.inf))


def cases_of(targets: list[list[int]], **fields: Any) -> Cases:
    return Cases(Requests.of_users(np.arange(len(targets)), **fields), Jagged.from_lists(targets, dtype=np.int32))


def test_known_figures() -> None:
    """Three users: a first place, a second place, and a miss."""
    cases = cases_of([[4], [7, 8], [1]])
    lists = Slates(np.array([[4, 2], [3, 8], [5, 6]]), np.zeros((3, 2)))
    report = evaluate(lists, cases, ks=(1, 2), metrics=["recall", "mrr", "ndcg@2", "hit_rate"], name="mine")
    expected = {
        "recall@1": 1 / 3,
        "recall@2": (1 + 0.5) / 3,
        "ndcg@2": (1 + (1 / np.log2(3)) / (1 + 1 / np.log2(3))) / 3,
        "mrr@1": 1 / 3,
        "mrr@2": (1 + 0.5) / 3,
        "hit_rate@1": 1 / 3,
        "hit_rate@2": 2 / 3,
    }
    assert set(report.values()) == set(expected)
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, abs=1e-6), name
    assert report.label == "mine" and report.n == 3


def test_an_oracle_scores_one_and_its_reverse_zero(parts: Split) -> None:
    cases = parts.cases()
    table = np.full((parts.data.n_users, 3), -1, dtype=np.int32)
    assert cases.requests.users is not None
    table[cases.requests.users] = cases.targets.padded(3)
    report = evaluate(Fixed(table, []), parts, ks=(3,))
    for name in ("recall", "ndcg", "map", "mrr", "hit_rate"):
        assert report[f"{name}@3"] == 1.0
    assert not any("empty" in warning or "hold" in warning for warning in report.warnings)


def test_the_same_figures_in_blocks_of_any_size(parts: Split, vectors: Any) -> None:
    names = [name for name in METRICS if name not in ("auc", "r_precision")]
    whole = evaluate(vectors, parts, ks=(2, 7), metrics=[*names, "auc", "r_precision"])
    cut = evaluate(vectors, parts, ks=(2, 7), metrics=[*names, "auc", "r_precision"], budget_mb=0.03)
    assert whole.values() == cut.values()
    for name, values in whole.rows.items():
        np.testing.assert_array_equal(values, cut.rows[name])


def test_figures_do_not_depend_on_the_order_of_cases(parts: Split, vectors: Any) -> None:
    cases = parts.cases()
    turned = cases.take(np.arange(len(cases))[::-1])
    first, second = (evaluate(vectors, parts, cases=c, ks=(5,)) for c in (cases, turned))
    for name, values in first.rows.items():
        np.testing.assert_array_equal(values, second.rows[name][::-1])
    for name, value in first.totals.items():
        assert value == pytest.approx(second.totals[name])


def test_seen_items_are_a_recorded_switch(parts: Split, vectors: Any) -> None:
    out, within = (evaluate(vectors, parts, ks=(10,), exclude_seen=seen) for seen in (True, False))
    assert out.protocol["exclude_seen"] and not within.protocol["exclude_seen"]
    assert out["recall@10"] != within["recall@10"]
    table = np.tile(np.arange(10, dtype=np.int32), (parts.data.n_users, 1))
    seen = Fixed(table, [])
    assert any("were to be excluded" in warning for warning in evaluate(seen, parts, ks=(10,)).warnings)
    assert seen.asked[0].exclude is not None
    evaluate(seen, parts, ks=(10,), exclude_seen=False)
    assert seen.asked[-1].exclude is None


def test_faults_of_a_system_are_told() -> None:
    cases = cases_of([[1], [2], [3]])
    lists = Slates(np.array([[1, 1, 1], [-1, -1, -1], [0, 3, -1]]), np.zeros((3, 3)))
    report = evaluate(lists, cases, ks=(3,))
    assert report["precision@3"] == pytest.approx((1 / 3 + 0 + 1 / 3) / 3, abs=1e-6)  # no hit counts twice
    text = " ".join(report.warnings)
    assert "repeat items in 2 places" in text and "1 of 3 requests got an empty list" in text
    assert report.protocol["lists_empty"] == 1 and report.protocol["lists_short"] == 2


def test_requests_without_targets_are_left_out_and_counted() -> None:
    cases = cases_of([[1], [], [3]])
    report = evaluate(Slates(np.array([[1], [0], [3]]), np.zeros((3, 1))), cases, ks=(1,))
    assert report.n == 2 and report["recall@1"] == 1.0 and report.protocol["requests_without_targets"] == 1
    with pytest.raises(UsageError, match="nothing to measure"):
        evaluate(Slates(np.array([[1]]), np.zeros((1, 1))), cases_of([[]]), ks=(1,))


def test_what_the_system_has_never_seen(parts: Split, vectors: Any) -> None:
    """Targets beyond its catalogue are misses; users and history items beyond it are not shown to it."""
    small = replace(vectors, n_items=50)
    small.schema = type("Sizes", (), {"n_users": 40, "n_items": 50})()
    asked: list[Requests] = []

    def queries(requests: Requests) -> np.ndarray:
        asked.append(requests)
        return vectors.queries(requests)

    small.queries = queries
    cases = parts.cases()
    report = evaluate(small, parts, ks=(50,), metrics=["recall", "auc"])
    unknown = cases.targets.values >= 50
    assert report.protocol["targets_unknown"] == unknown.sum() > 0
    assert any("does not know" in warning for warning in report.warnings)
    all_found = 1 - np.bincount(cases.targets.rows, unknown) / cases.targets.lengths
    assert report["recall@50"] == pytest.approx(all_found.mean(), abs=1e-6)  # all it knows fits into 50 places
    for requests in asked:
        assert requests.users is not None and requests.users.max() < 40
        assert requests.history is not None and requests.history.values["item"].max() < 50


def test_graded_gains_reach_ndcg_alone(parts: Split, vectors: Any) -> None:
    cases = parts.cases()
    worth = np.random.default_rng(0).integers(1, 6, len(cases.targets.values)).astype(np.float32)
    graded = replace(cases, gains=Jagged(worth, cases.targets.offsets))
    plain, rated = (evaluate(vectors, parts, cases=c, ks=(10,)) for c in (cases, graded))
    assert plain["recall@10"] == rated["recall@10"] and plain["map@10"] == rated["map@10"]
    assert plain["ndcg@10"] != rated["ndcg@10"] and rated.protocol["graded"]
    with pytest.raises(UsageError, match="worth"):
        evaluate(vectors, parts, cases=replace(cases, gains=Jagged(-worth, cases.targets.offsets)))


# -- candidates


def test_sampled_candidates(parts: Split, vectors: Any) -> None:
    report = evaluate(vectors, parts, ks=(10,), candidates=20, metrics=["ndcg", "recall", "auc"])
    full = evaluate(vectors, parts, ks=(10,), metrics=["ndcg", "recall", "auc"])
    assert report["recall@10"] > full["recall@10"] * 1.5  # far easier, which is why it must be named
    assert report["auc"] == pytest.approx(full["auc"], abs=0.03)  # AUC alone is an unbiased estimate
    assert report.protocol["candidates"] == {"kind": "sampled", "negatives": 20, "seed": 0}
    assert "SAMPLED" in str(report.protocol["facts"]) and any("not the full catalogue" in w for w in report.warnings)
    again = evaluate(vectors, parts, ks=(10,), candidates=20, metrics=["ndcg"], budget_mb=0.05)
    other = evaluate(vectors, parts, ks=(10,), candidates=20, metrics=["ndcg"], seed=1)
    np.testing.assert_array_equal(report.rows["ndcg@10"], again.rows["ndcg@10"])
    assert (report.rows["ndcg@10"] != other.rows["ndcg@10"]).any()


@pytest.mark.parametrize(("n_items", "wanted"), [(400, 10), (24, 10), (12, 10)])  # roomy, crowded, too few
def test_what_is_drawn(n_items: int, wanted: int) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(n_items)[:8] for _ in range(3000)]
    targets = Jagged.from_lists([row[:3] for row in rows], dtype=np.int32)
    exclude = Jagged.from_lists([[*row[3:], row[3]] for row in rows], dtype=np.int32)
    part = Cases(Requests.of_users(np.arange(3000), exclude=exclude), targets)
    drawn = with_candidates(part, part.requests, wanted, 0, n_items, 5).candidates
    assert drawn is not None
    free = np.array([n_items - 8] * 3000)
    np.testing.assert_array_equal(drawn.lengths, 3 + np.minimum(wanted, free))
    keys = drawn.rows * n_items + drawn.values
    assert len(np.unique(keys)) == len(keys)
    assert not np.isin(keys, exclude.rows * n_items + exclude.values).any()
    assert np.isin(targets.rows * n_items + targets.values, keys).all()
    negative = ~np.isin(keys, targets.rows * n_items + targets.values)
    counts = np.bincount(drawn.values[negative], minlength=n_items)
    expected = counts.sum() / n_items
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected) + 1).all()  # uniform
    tail = part.take(slice(1000, 1010))
    later = with_candidates(tail, tail.requests, wanted, 1000, n_items, 5).candidates
    assert later == drawn.take(slice(1000, 1010))


def test_given_candidates(parts: Split, vectors: Any) -> None:
    cases = parts.cases()
    own = evaluate(vectors, parts, ks=(3,), candidates=cases.targets)
    assert own["recall@3"] == 1.0 and own.protocol["candidates"]["kind"] == "given"
    with pytest.raises(UsageError, match="rows of candidates"):
        evaluate(vectors, parts, candidates=cases.targets.take(slice(0, 2)))
    for wrong in (0, True, "some", 2.5):
        with pytest.raises(UsageError, match="candidates cannot be"):
            evaluate(vectors, parts, candidates=wrong)  # type: ignore[arg-type]


# -- metrics, slices, errors


def test_metrics_are_chosen_by_name(parts: Split, vectors: Any) -> None:
    report = evaluate(vectors, parts, ks=(3, 5), metrics=["ndcg@7", "recall", "auc", "coverage"])
    assert report.metrics == ["recall@3", "recall@5", "ndcg@7", "auc", "coverage@3", "coverage@5"]
    assert report.slices.is_empty()
    usual = evaluate(vectors, parts, ks=(5,))
    assert set(usual.metrics) == {f"{name}@5" for name, metric in METRICS.items() if metric.usual}
    for wrong, says in (
        ("ndgc", "did you mean 'ndcg'"),
        ("ndcg@x", "no metric at a cut-off"),
        ("auc@5", "no metric at"),
    ):
        with pytest.raises(UsageError, match=says):
            evaluate(vectors, parts, metrics=[wrong])
    with pytest.raises(UsageError, match="whole numbers from 1"):
        evaluate(vectors, parts, ks=(0,))
    with pytest.raises(UsageError, match="needs the training events"):
        evaluate(vectors, parts.cases(), metrics=["arp"])
    with pytest.raises(CapabilityError):
        evaluate(Slates(np.array([[1]]), np.zeros((1, 1))), cases_of([[1]]), metrics=["auc"])


def test_wrong_lists_are_refused() -> None:
    with pytest.raises(UsageError, match="2 cases need 2 lists"):
        evaluate(Slates(np.array([[1]]), np.zeros((1, 1))), cases_of([[1], [2]]))

    class Few:
        def retrieve(self, requests: Requests, k: int) -> Slates:
            return Slates(np.zeros((1, k)), np.zeros((1, k)))

    with pytest.raises(UsageError, match="got 1 lists"):
        evaluate(Few(), cases_of([[1], [2]]))

    class Beyond(Few):
        schema = type("Sizes", (), {"n_users": 9, "n_items": 5})()

        def retrieve(self, requests: Requests, k: int) -> Slates:
            return Slates(np.full((requests.n, 1), 5), np.zeros((requests.n, 1)))

    with pytest.raises(UsageError, match="the catalogue has 5 items"):
        evaluate(Beyond(), cases_of([[1], [2]]), ks=(1,))


def test_slices(parts: Split, vectors: Any) -> None:
    names = ("history", "popularity", "users.age", "users.land", "items.maker", "items.genres")
    report = evaluate(vectors, parts, ks=(10,), slices=names)
    cases, table = parts.cases(), report.slices
    assert set(table["slice"]) == set(names)
    recall = table.filter(pl.col("metric") == "recall@10")
    lands = parts.data.users["land"].gather(cases.requests.users).to_numpy()  # type: ignore[arg-type]
    for land in np.unique(lands):
        row = recall.filter((pl.col("slice") == "users.land") & (pl.col("value") == land))
        assert row["mean"][0] == pytest.approx(report.rows["recall@10"][lands == land].mean(), abs=1e-6)
        assert row["n"][0] == (lands == land).sum() and row["low"][0] < row["mean"][0] < row["high"][0]
    for name in ("history", "users.land"):  # each request stands in exactly one group
        assert recall.filter(pl.col("slice") == name)["n"].sum() == report.n
    assert "missing" in recall.filter(pl.col("slice") == "users.age")["value"].to_list()
    makers = parts.data.items["maker"].to_numpy()[cases.targets.values]
    shown = recall.filter(pl.col("slice") == "items.maker")["value"].to_list()
    assert shown[-1] == "12 others" and len(shown) == 9
    own = cases.targets.where(makers == shown[0])
    again = evaluate(vectors, parts, cases=replace(cases, targets=own), ks=(10,), metrics=["recall"])
    row = recall.filter((pl.col("slice") == "items.maker") & (pl.col("value") == shown[0]))
    assert row["mean"][0] == pytest.approx(again["recall@10"], abs=1e-6) and row["n"][0] == again.n
    for wrong in ("users.agee", "items.title", "shoe size"):
        with pytest.raises(UsageError):
            evaluate(vectors, parts, ks=(10,), slices=[wrong])


def test_slice_of_one_value(parts: Split) -> None:
    """Equal values give one group, and a group of one request has no interval."""
    cases = parts.cases().take(slice(0, 1))
    places = np.zeros(len(cases.targets.values), dtype=np.int32)
    rows = {"recall@5": np.ones(1, np.float32)}
    table = slice_table(["history"], cases, places, rows, data=None, popularity=None, level=0.95)
    assert table.height == 1 and table["mean"][0] == 1.0 and table["low"][0] is None


def test_provenance(parts: Split, vectors: Any) -> None:
    report = evaluate(vectors, parts, ks=(5,), tuning={"trials": 20}, seed=3)
    assert report.split["name"] == "last three" and report.split["spec"] == {"kind": "leave-k", "k": 3}
    assert report.split["data"]["fingerprint"] == parts.data.fingerprint
    assert "The clock <is> off." in report.warnings
    assert report.system["tuning"] == {"trials": 20} and report.system["name"] == "Vectors"
    assert report.statistics.seed == 3 and report.machine["cores"] >= 1
    assert {"seconds", "lists_seconds", "metrics_seconds", "peak_mb"} <= set(report.cost)
    table = report.by_request()
    assert table.height == report.n and {"user", "targets", "history", "ndcg@5"} <= set(table.columns)
    assert table["user"].to_list() == parts.data.user_ids.ids(parts.cases().requests.users).to_list()  # type: ignore[arg-type]
    elsewhere = evaluate(vectors, parts, cases=parts.cases().take(slice(0, 10)), ks=(5,))
    assert elsewhere.split["cases"] != report.split["cases"]


def test_unknown_names_offer_the_nearest(parts: Split, vectors: Any) -> None:
    report = evaluate(vectors, parts, ks=(5,), metrics=["ndcg"])
    with pytest.raises(NotFound, match="did you mean 'ndcg@5'"):
        report.value("ndcg@6")
