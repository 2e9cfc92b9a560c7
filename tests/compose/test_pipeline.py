"""A whole pipeline: it answers as systems do, every rule holds through every stage, and reasons rest on something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.compose import Pipeline, PipelineError, check, compile  # noqa: A004
from tastemaker.evaluate import evaluate
from tastemaker.index import retriever
from tastemaker.testing import blocks, share_of_own_block
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    CapabilityError,
    Columns,
    DataError,
    Dataset,
    ItemFilter,
    Jagged,
    Reason,
    Requests,
    Slates,
    Split,
    UsageError,
    request_seeds,
)

K = 10
SPEC: dict[str, Any] = {
    "name": "whole",
    "retrieve": [
        {"system": "ials", "k": 60},
        {"system": "itemknn", "k": 40, "weight": 0.5, "where": "year > 1970"},
        {"system": "popularity", "k": 30},
    ],
    "filter": [{"kind": "where", "where": "year > 1955"}, {"kind": "seen"}],
    "score": {"system": "itemknn", "weight": 0.8},
    "rerank": [
        {"kind": "mmr", "column": "genres", "weight": 0.3},
        {"kind": "mmr", "vectors": "ials", "weight": 0.1},
        {"kind": "calibrated", "column": "genres"},
        {"kind": "boost", "where": "price < 5", "factor": 1.2},
        {"kind": "fair", "column": "popularity", "shares": {"tail": 0.3}},
        {"kind": "pin", "items": ["f000003"], "place": 2, "always": True},
    ],
    "explain": {"kind": "because", "column": "genres", "text": "Because of {item}: {shared}"},
}
BLENDS = [{"kind": "rrf"}, {"kind": "scores", "scale": "z"}, {"kind": "interleave"}]


@pytest.fixture(scope="module")
def whole(shelf: dict[str, Bundle]) -> Pipeline:
    return compile(SPEC, shelf)


@pytest.fixture(scope="module")
def asked(parts: Split) -> Requests:
    requests = parts.cases("test").requests.take(slice(0, 40))
    return requests.with_(seeds=request_seeds(requests.n, 3))


def same(left: Slates, right: Slates) -> None:
    np.testing.assert_array_equal(left.items, right.items)
    np.testing.assert_array_equal(left.scores, right.scores)


# -- as every system


@pytest.mark.parametrize("blend", BLENDS, ids=lambda b: b["kind"])
def test_lists_are_lists(blend: Any, shelf: dict[str, Bundle], asked: Requests) -> None:
    slates = compile({**SPEC, "blend": blend}, shelf).retrieve(asked, K)
    assert slates.items.shape == (asked.n, K) and (slates.lengths == K).all()
    assert asked.exclude is not None
    for row, seen in zip(slates.items, asked.exclude, strict=True):
        assert len(set(row.tolist())) == K and not np.isin(row, seen).any()
    assert np.isfinite(slates.scores).all() and (np.diff(slates.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("blend", BLENDS, ids=lambda b: b["kind"])
def test_batch_equals_single_in_any_order_and_twice(blend: Any, shelf: dict[str, Bundle], asked: Requests) -> None:
    pipeline = compile({**SPEC, "blend": blend}, shelf)
    answer = pipeline.retrieve(asked, K)
    same(answer, compile({**SPEC, "blend": blend}, shelf).retrieve(asked, K))
    order = np.random.default_rng(0).permutation(asked.n)
    same(answer.take(order), pipeline.retrieve(asked.take(order), K))
    for row in range(0, asked.n, 7):
        one = slice(row, row + 1)
        same(answer.take(one), pipeline.retrieve(asked.take(one), K))


def test_many_blocks_give_what_one_gives(whole: Pipeline, asked: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = whole.retrieve(asked, K)
    monkeypatch.setattr("tastemaker.compose.pipeline.BLOCK_ROWS", 7)
    same(answer, whole.retrieve(asked, K))


def test_k_only_says_where_the_answer_is_cut(whole: Pipeline, asked: Requests) -> None:
    long = whole.retrieve(asked, 45)
    for k in (1, 3, 20):
        same(long.head(k), whole.retrieve(asked, k))
    longer = whole.retrieve(asked, 300)
    assert longer.items.shape[1] == 300
    assert (
        (longer.lengths < 150).all() and (longer.items[:, -1] == -1).all() and np.isneginf(longer.scores[:, -1]).all()
    )


def test_what_a_pin_moves_down_makes_room(shelf: dict[str, Bundle], asked: Requests) -> None:
    """Items pinned below the cut leave places above it, which a step before must have decided."""
    spec = {
        "name": "x",
        "retrieve": [{"system": "popularity", "k": 60}],
        "rerank": [{"kind": "mmr", "column": "genres"}],
    }
    first = compile(spec, shelf).retrieve(asked.take(slice(0, 1)), 8).items[0]
    named = [shelf["popularity"].items.series[int(i)] for i in first[[0, 2, 5]]]
    steps = [
        *spec["rerank"],
        {"kind": "pin", "items": named, "place": 30},
        {"kind": "pin", "items": named[:1], "place": 50},
    ]
    pipeline = compile({**spec, "rerank": steps}, shelf)
    same(pipeline.retrieve(asked, 60).head(6), pipeline.retrieve(asked, 6))


def test_nobody_asks_nothing(whole: Pipeline, asked: Requests) -> None:
    assert whole.retrieve(asked.take(slice(0, 0)), 3).items.shape == (0, 3)
    with pytest.raises(UsageError, match="k = 0"):
        whole.retrieve(asked, 0)


def test_candidates_filters_and_exclusions_hold_through_all_stages(
    whole: Pipeline, shelf: dict[str, Bundle], asked: Requests, data: Dataset
) -> None:
    rng = np.random.default_rng(1)
    n = data.n_items
    candidates = Jagged.from_lists(
        [rng.choice(n, size, replace=False) for size in rng.integers(0, 60, asked.n)], np.int32
    )
    rule = ItemFilter(rng.random((2, n)) < 0.5, np.arange(asked.n, dtype=np.int32) % 3 - 1)
    exclude = Jagged.from_lists([rng.integers(0, n, 30) for _ in range(asked.n)], np.int32)
    slates = whole.retrieve(asked.with_(candidates=candidates, filter=rule, exclude=exclude), 50)
    year, pinned = data.items["year"].to_numpy(), data.item_ids.number("f000003")
    assert asked.history is not None
    for r, row in enumerate(slates.items):
        shown = row[row >= 0]
        assert np.isin(shown, candidates[r]).all() and not np.isin(shown, exclude[r]).any()
        assert rule.which[r] < 0 or rule.allowed[rule.which[r], shown].all()
        assert (year[shown] > 1955).all() and not np.isin(shown, asked.items()[r]).any()
    free = whole.retrieve(asked.with_(exclude=None), K).items
    may = (year[pinned] > 1955) & ~np.array([pinned in row for row in asked.items()])
    assert may.any() and (free[may, 1] == pinned).all() and not (free[~may] == pinned).any()


class Rude:
    """Answers with the same items whatever it is asked."""

    def retrieve(self, requests: Requests, k: int) -> Slates:
        return Slates(np.tile(np.arange(k), (requests.n, 1)), np.tile(-np.arange(k, dtype=float), (requests.n, 1)))


def test_a_retriever_that_ignores_the_rules_changes_nothing(shelf: dict[str, Bundle], asked: Requests) -> None:
    rude = replace(shelf["popularity"], system=Rude())
    rule = ItemFilter(np.arange(150)[None] % 3 == 0, np.zeros(asked.n, dtype=np.int32))
    listed = Jagged.from_lists([[0, 1, 3, 6, 9]] * asked.n, np.int32)
    pipeline = compile({"name": "x", "retrieve": [{"system": "rude", "k": 30}]}, {"rude": rude})
    slates = pipeline.retrieve(asked.with_(filter=rule, candidates=listed), K)
    assert asked.exclude is not None
    for row, seen in zip(slates.items, asked.exclude, strict=True):
        assert row[row >= 0].tolist() == [i for i in (0, 3, 6, 9) if i not in seen]


def test_one_retriever_alone_is_that_system(shelf: dict[str, Bundle], asked: Requests) -> None:
    pipeline = compile({"name": "x", "retrieve": [{"system": "ials", "k": 50}]}, shelf)
    np.testing.assert_array_equal(pipeline.retrieve(asked, K).items, shelf["ials"].retriever.retrieve(asked, K).items)
    assert pipeline.needs == {"history"} and pipeline.name == "x" and len(pipeline.users) == len(shelf["ials"].users)


def test_strangers_and_unknown_items(whole: Pipeline, data: Dataset) -> None:
    items = Jagged(np.array([-1, 0, -1, data.n_items - 1], dtype=np.int32), np.array([0, 0, 2, 4]))
    history = Jagged(Columns(item=items.values, time=np.zeros(4, dtype=np.int64)), items.offsets)
    slates = whole.retrieve(Requests(3, users=np.full(3, -1), history=history), K)
    assert (slates.lengths == K).all() and np.isfinite(slates.scores).all()
    with pytest.raises(CapabilityError, match="needs history"):
        whole.retrieve(Requests.of_users([1]), K)


def test_it_is_evaluated_as_any_system(whole: Pipeline, parts: Split, shelf: dict[str, Bundle]) -> None:
    report = evaluate(whole, parts, ks=(K,))
    assert report.system["label"] == "whole" and report.system["config"]["spec"]["name"] == "whole"
    assert report.value(f"recall@{K}") > 0
    assert not any("did not learn" in w for w in report.warnings)
    other = {**shelf, "popularity": fit("popularity", parts.data)}
    warned = evaluate(compile(SPEC, other), parts, ks=(K,), metrics=["ndcg"]).warnings
    assert any("did not learn" in w for w in warned), "one of its systems saw the test events"


def test_the_right_items_are_found() -> None:
    """Users who keep to a block of items get that block, through every stage."""
    data = blocks()
    made = {name: fit(name, data) for name in ("itemknn", "popularity")}
    spec = {
        "name": "x",
        "retrieve": [{"system": "popularity", "k": 100}, {"system": "itemknn", "k": 30}],
        "score": {"system": "itemknn"},
        "filter": [{"kind": "seen"}],
    }
    users = np.arange(0, 240, 5)
    asked = Requests(len(users), users=users, history=data.histories().take(users))
    assert share_of_own_block(data, compile(spec, made).retrieve(asked, K), users) > 0.95


# -- stages


def test_bundles_that_know_other_users_and_items(data: Dataset, parts: Split, shelf: dict[str, Bundle]) -> None:
    """A system fitted on part of the items, in another order, with its own user numbers."""
    keep = np.random.default_rng(0).permutation(data.n_items)[:100]
    number = np.full(data.n_items, -1)
    number[keep] = np.arange(100)
    train = parts.train
    events = train.events.with_columns(
        pl.Series("item", number, dtype=pl.Int32).gather(train.events["item"].fill_null(0))
    )
    events = events.filter((pl.col("item") >= 0) & (pl.col("user") >= 20)).with_columns(pl.col("user") - 20)
    items = data.items[keep].drop("available")
    small = replace(train, users=data.users[20:].drop("available", strict=False), items=items, events=events, edges={})
    other = fit("ials", small, seed=1)
    spec = {
        "name": "x",
        "retrieve": [{"system": "itemknn", "k": 40}, {"system": "other", "k": 40, "where": "year > 1970"}],
        "rerank": [{"kind": "mmr", "vectors": "other", "weight": 0.2}],
    }
    pipeline = compile(spec, {"itemknn": shelf["itemknn"], "other": other})
    requests = parts.cases("test").requests
    pool = pipeline.pool(requests)
    found = pool.rank[:, :, 1] > 0
    named = pool.items[found]
    assert np.isin(named, keep).all() and (data.items["year"].to_numpy()[named] > 1970).all()
    assert found.sum(axis=1).min() > 20, "its lists are not starved by what it may not name"
    rows = np.flatnonzero(np.isin(np.arange(requests.n), np.arange(3)))
    assert requests.history is not None and requests.exclude is not None
    for r in rows:
        past = number[requests.items()[int(r)]]
        alone = Requests.of_items([past[past >= 0]], exclude=Jagged.from_lists([past[past >= 0]], np.int32))
        allowed = ItemFilter(items["year"].to_numpy()[None] > 1970, np.zeros(1, dtype=np.int32))
        wanted = other.retriever.retrieve(alone.with_(filter=allowed), 40)
        ranked = pool.items[r][found[r]][np.argsort(pool.rank[r][found[r], 1])]
        assert ranked.tolist() == keep[wanted.items[0][wanted.items[0] >= 0]].tolist()
    answer = pipeline.retrieve(requests, K)
    assert (answer.lengths == K).all()
    back = compile(
        {**spec, "retrieve": spec["retrieve"][::-1], "rerank": []}, {"itemknn": shelf["itemknn"], "other": other}
    )
    assert back.catalogue.height == 100 and back.retrieve(Requests.of_items([[1], [2, 3]]), K).items.max() < 100


def test_a_scorer_orders_what_retrievers_found(shelf: dict[str, Bundle], asked: Requests) -> None:
    plain = {"name": "x", "retrieve": [{"system": "popularity", "k": 30}]}
    found = compile(plain, shelf).retrieve(asked, 30)
    scored = compile({**plain, "score": {"system": "itemknn"}}, shelf).retrieve(asked, 30)
    for r in range(asked.n):
        assert sorted(found.items[r]) == sorted(scored.items[r])
        listed = scored.items[r : r + 1]
        worth = shelf["itemknn"].system.score(asked.take(slice(r, r + 1)), listed[:, :])[0]
        assert (np.diff(worth[listed[0] >= 0]) <= 1e-5).all()
    idle = compile({**plain, "score": {"system": "itemknn", "weight": 0.0}}, shelf).retrieve(asked, 30)
    np.testing.assert_array_equal(idle.items, found.items)


def test_stock_and_prices_may_be_newer_than_the_bundle(shelf: dict[str, Bundle], asked: Requests) -> None:
    ids = shelf["ials"].items.series
    fresh = pl.DataFrame({"item": ids.head(50), "left": range(50), "price": [0.5] * 50})
    spec = {
        "name": "x",
        "retrieve": [{"system": "ials", "k": 60}],
        "filter": [{"kind": "stock", "column": "left"}, {"kind": "where", "where": "price < 1"}],
    }
    shown = compile(spec, shelf, catalogue=fresh).retrieve(asked, 100).items
    assert set(shown[shown >= 0].tolist()) == set(range(1, 50)), "number 0 has none left, the rest is not listed"
    with pytest.raises(PipelineError, match="no column 'left'"):
        compile(spec, shelf)
    with pytest.raises(PipelineError, match="holds String"):
        compile(spec, shelf, catalogue=fresh.with_columns(price=pl.lit("cheap")))
    twice = pl.concat([fresh, fresh])
    with pytest.raises(PipelineError, match="name an item twice"):
        compile(spec, shelf, catalogue=twice)
    assert issubclass(PipelineError, UsageError) and not issubclass(DataError, UsageError)


def test_inspect_says_where_items_come_from(whole: Pipeline, asked: Requests) -> None:
    table = whole.inspect(asked.take(slice(0, 4)), 5)
    slates, pool = whole.retrieve(asked.take(slice(0, 4)), 5), whole.pool(asked.take(slice(0, 4)))
    assert table["item"].to_list() == whole.items.ids(slates.items.ravel()).to_list()
    assert {"ials rank", "ials score", "itemknn rank", "popularity score"} <= set(table.columns)
    first = pool.items[0].tolist().index(slates.items[0, 0])
    assert table["ials rank"][0] == (int(pool.rank[0, first, 0]) or None)


def test_traces_of_retrievers_come_along(shelf: dict[str, Bundle], asked: Requests) -> None:
    class Tracing(Rude):
        def retrieve(self, requests: Requests, k: int) -> Slates:
            lists = super().retrieve(requests, k)
            assert requests.seeds is not None
            return Slates(lists.items, lists.scores, trace=Columns(arm=requests.seeds))

    made = {"bandit": replace(shelf["popularity"], system=Tracing()), "ials": shelf["ials"]}
    spec = {"name": "x", "retrieve": [{"system": "ials"}, {"system": "bandit", "k": 9}]}
    trace = compile(spec, made).retrieve(asked, K).trace
    assert trace is not None and list(trace) == ["bandit.arm"]
    np.testing.assert_array_equal(trace["bandit.arm"], asked.seeds)


def test_a_pipeline_is_a_system_of_another(whole: Pipeline, shelf: dict[str, Bundle], asked: Requests) -> None:
    outer = compile({"name": "outer", "retrieve": [{"system": "inner", "k": 20}, {"system": "popularity"}]},
                    {"inner": whole, "popularity": shelf["popularity"]})  # fmt: skip
    assert (outer.retrieve(asked, K).lengths == K).all() and outer.needs == {"history"}
    assert retriever(whole) is whole


def test_recommend_answers_by_id(whole: Pipeline, data: Dataset) -> None:
    someone = data.user_ids.series[0]
    table = whole.recommend([someone], k=4, filter="year > 2000", columns=["year"])
    assert table.columns == ["request", "user", "rank", "item", "score", "year"]
    assert table.height == 4 and (table["year"] > 2000).all()
    assert whole.recommend(history=[data.item_ids.series.head(2).to_list()], k=3).height == 3
    assert whole.warm() is whole


# -- reasons


def test_because_names_an_item_of_the_history(whole: Pipeline, asked: Requests, data: Dataset) -> None:
    slates = whole.retrieve(asked, K)
    reasons = whole.explain(asked, slates)
    genres = [set(g) for g in data.items["genres"].to_list()]
    given = 0
    for r, row in enumerate(reasons):
        past = asked.items()[r].tolist()
        for item, reason in zip(slates.items[r].tolist(), row, strict=True):
            like = {p: len(genres[p] & genres[item]) / len(genres[p] | genres[item]) for p in past if p != item}
            if reason is None:
                assert max(like.values(), default=0) < 0.2
                continue
            (near,) = reason.because_of
            given += 1
            assert near in past and like[near] == pytest.approx(max(like.values()))
            title, shared = data.items["title"][near], ", ".join(sorted(genres[near] & genres[item]))
            assert reason.text == f"Because of {title}: {shared}" and reason.source == "because"
    assert given > 100
    nothing = whole.explain(Requests.of_items([[]]), slates.take(slice(0, 1)))
    assert nothing == [[None] * K], "without a history nothing is made up"


def test_because_by_vectors_takes_the_latest_of_equals(shelf: dict[str, Bundle]) -> None:
    spec = {
        "name": "x",
        "retrieve": [{"system": "ials"}],
        "explain": {"kind": "because", "vectors": "ials", "least": 0},
    }
    pipeline = compile(spec, shelf)
    vectors = shelf["ials"].system.items()
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    past = [5, 9, 40, 9]
    (row,) = pipeline.explain(Requests.of_items([past]), Slates(np.array([[9, 3, -1]]), np.array([[2, 1, -np.inf]])))
    assert row[2] is None and row[0] is not None and row[1] is not None
    assert row[1].because_of[0] == max(past, key=lambda p: unit[p] @ unit[3])
    assert row[0].because_of[0] != 9, "an item is no reason for itself"
    assert pipeline.explain(Requests.of_items([[]]), Slates(np.array([[9]]), np.array([[1]]))) == [[None]]


def test_a_system_explains_in_the_pipelines_numbers(shelf: dict[str, Bundle], parts: Split, data: Dataset) -> None:
    class Talks:
        def score(self, requests: Requests, items: Any = None) -> Any:
            return np.zeros((requests.n, 100 if items is None else items.shape[1]))

        def explain(self, requests: Requests, slates: Slates) -> list[list[Reason | None]]:
            return [
                [None if i < 0 else Reason(f"their {i}", (int(i), 0)) for i in row] for row in slates.items.tolist()
            ]

    base = shelf["popularity"]
    order = np.arange(149, 49, -1)  # it knows the last hundred items, in reverse
    catalogue = base.catalogue[order]
    schema = replace(base.schema, n_items=100)
    talks = Bundle(Talks(), base.info, base.config, schema, base.users, catalogue, about=base.about)
    spec = {"name": "x", "retrieve": [{"system": "ials"}], "explain": {"kind": "system", "system": "talks"}}
    pipeline = compile(spec, {**shelf, "talks": talks})
    assert pipeline.info.capabilities == ("retrieves", "explains")
    shown = Slates(np.array([[3, 149, 50, -1]]), np.array([[3, 2, 1, -np.inf]]))
    (row,) = pipeline.explain(Requests.of_items([[1]]), shown)
    assert row == [None, Reason("their 0", (149, 149)), Reason("their 99", (50, 149)), None]
    silent = compile({"name": "x", "retrieve": [{"system": "ials"}]}, shelf)
    assert silent.info.capabilities == ("retrieves",)
    with pytest.raises(CapabilityError, match="no stage that explains"):
        silent.explain(Requests.of_items([[1]]), shown)


# -- what does not fit together


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        ({"retrieve": [{"system": "ials"}, {"system": "itemkn"}]}, "retrieve.1.system", "did you mean 'itemknn'"),
        ({"retrieve": [{"system": "nothing"}]}, "retrieve.0.system", "there is no system"),
        ({"score": {"system": "ialss"}}, "score.system", "'ials'"),
        ({"filter": [{"kind": "where", "where": "yaer > 1"}]}, "filter.0", "did you mean 'year'"),
        ({"filter": [{"kind": "stock", "column": "title"}]}, "filter.0", "numbers or flags"),
        ({"retrieve": [{"system": "ials", "where": "1 = 1"}]}, "retrieve.0.where", "looks at no column"),
        ({"rerank": [{"kind": "mmr", "column": "genre"}]}, "rerank.0", "did you mean 'genres'"),
        ({"rerank": [{"kind": "mmr", "column": "price"}]}, "rerank.0", "categories is wanted"),
        ({"rerank": [{"kind": "mmr", "vectors": "itemknn"}]}, "rerank.0", "no vectors of items: it can do scores"),
        ({"rerank": [{"kind": "mmr", "vectors": "als"}]}, "rerank.0.vectors", "did you mean 'ials'"),
        ({"rerank": [{"kind": "fair", "column": "genres", "shares": {"drama": 0.1}}]}, "rerank.0", "one value an item"),
        ({"rerank": [{"kind": "fair", "column": "popularity", "shares": {"tale": 0.1}}]}, "rerank.0", "'tail'"),
        ({"rerank": [{"kind": "pin", "items": ["f999999"]}]}, "rerank.0", "no item has the id 'f999999'"),
        ({"rerank": [{"kind": "boost", "where": "SUM(year) > 1"}]}, "rerank.0", "cannot use 'SUM'"),
        ({"explain": {"kind": "system", "system": "ials"}}, "explain", "cannot explain"),
        ({"explain": {"kind": "because", "vectors": "ials", "text": "{shared}"}}, "explain", "needs a column"),
        ({"blend": {"kind": "learned"}}, "blend", "not trained"),
        ({"blend": {"kind": "learned", "columns": ["title"]}}, "blend.columns.0", "numbers or flags"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(
    change: dict[str, Any], place: str, said: str, shelf: dict[str, Bundle]
) -> None:
    spec = {"name": "x", "retrieve": [{"system": "ials"}], **change}
    found = {fault.where: str(fault) for fault in check(spec, shelf)}
    assert place in found and said in found[place], found
    with pytest.raises(PipelineError, match="the pipeline 'x'"):
        compile(spec, shelf)


def test_all_faults_are_found_at_once(shelf: dict[str, Bundle]) -> None:
    spec = {**SPEC, "score": {"system": "no"}, "filter": [{"kind": "stock", "column": "no"}], "explain": None}
    assert [fault.where for fault in check(spec, shelf)] == ["score.system", "filter.0"]
    assert check(SPEC, shelf) == ()


def test_popularity_needs_histories(shelf: dict[str, Bundle]) -> None:
    bare = {key: replace(bundle, histories=None) for key, bundle in shelf.items()}
    assert "holds none" in str(check(SPEC, bare)[0])
    assert check(SPEC, {**bare, "itemknn": shelf["itemknn"]}) == (), "any of its bundles may store them"
