"""Splits deal every choice out once, show what they may, ask for what was held out, and tell what they let through."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tastemaker.data.build import build
from tastemaker.data.splits import KINDS, holdout, parse, split
from tastemaker.types import PARTS, Cases, DataError, Dataset, NotFound, Split, UsageError

TIMELESS = [
    "leave-one-out",
    "leave-one-out:valid=false",
    "leave-k:2",
    "ratio:0.6,0.2,0.2",
    "random:0.5,0.2,0.3",
    "cold-user:0.3,valid=0.2,shown=0.5,by=random",
    "cold-user:0.4,shown=2,by=random",
    "cold-item:0.3,valid=0.2",
    "k-fold:3,fold=1",
    "k-fold:3,fold=2,valid=true",
]
TIMED = [
    *TIMELESS,
    "ratio:0.6,0.2,0.2,by=time",
    "time:0.5",
    "time:0.5,0.2,0.3",
    "time:6",
    "time:4,9",
    "session:1",
    "session:2,valid=false",
    "session:1,ask=next",
    "session:0.3",
    "session:0.3,ask=next,valid=false",
    "cold-user:0.3",
    "leave-one-out:repeats=true",
    "ratio:0.5,0.2,0.3,history=known",
]
CHANCE = ("ratio", "random", "k-fold", "cold-user", "cold-item")

rows = st.tuples(
    st.integers(0, 5),
    st.integers(0, 7),
    st.integers(0, 12),
    st.sampled_from(["buy", "buy", "buy", "impression", "search"]),
    st.integers(0, 2),
)


def log(events: list[tuple[int, int, int, str, int]], *, timed: bool = True) -> Dataset:
    """A dataset of (user, item, time, kind, session); searches have no item, sessions are those of a user."""
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u, *_ in events],
            "item": [None if kind == "search" else f"i{i}" for _, i, _, kind, _ in events],
            "time": [t for _, _, t, _, _ in events],
            "kind": [kind for *_, kind, _ in events],
            "value": [float(i % 3) for _, i, *_ in events],
            "session": [10 * u + s for u, *_, s in events],
        },
        schema_overrides={"item": pl.String},
    )
    return build("log", frame, time_unit="step") if timed else build("log", frame.drop("time"))


def made(data: Dataset, kind: str, **more: Any) -> Split:
    """The split, where the data is large enough to be split so."""
    try:
        return split(data, kind, **more)
    except (UsageError, DataError) as error:
        assume(not any(said in str(error) for said in ("nothing to", "leave none")))
        raise


def plain_cases(parts: Split, part: str) -> list[dict[str, Any]]:
    """Cases as plain loops find them."""
    rows = parts.data.events.with_row_index("row").to_dicts()
    code = PARTS[part]  # type: ignore[index]
    for row in rows:
        at = row["row"]
        row["part"] = int(parts.part[at])
        row["case"] = row["user"] if parts.case is None else int(parts.case[at])
        row["asked"] = True if parts.asked is None else bool(parts.asked[at])
    rows = [r for r in rows if r["item"] is not None and r["kind"] not in ("impression", "search")]
    earlier = {"train", "valid"} if part == "test" else {"train"}
    shown = earlier if parts.history == "known" else {"train"}
    by_case: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["part"] == code and row["asked"]:
            by_case[row["case"]].append(row)
    found = []
    for case, held in by_case.items():
        own = [r for r in rows if r["user"] == held[0]["user"]]
        beside = [r for r in own if r["part"] == code and r["case"] == case and not r["asked"]]
        seen = [r for r in own if r["part"] in {PARTS[p] for p in earlier}] + beside
        history = [r for r in own if r["part"] in {PARTS[p] for p in shown}] + beside
        targets = []
        for row in held:
            if row["item"] not in [t["item"] for t in targets]:
                targets.append(row)
        if not parts.repeats:
            targets = [t for t in targets if t["item"] not in {r["item"] for r in seen}]
        if not targets:
            continue
        trained = any(r["part"] == 0 for r in own)
        found.append(
            {
                "first": held[0]["row"],
                "user": held[0]["user"] if trained else -1,
                "history": [(r["item"], r["value"]) for r in sorted(history, key=lambda r: r["row"])],
                "exclude": None if parts.repeats else sorted(r["item"] for r in seen),
                "targets": [t["item"] for t in targets],
                "now": targets[0].get("time"),
            }
        )
    return sorted(found, key=lambda c: c["first"])


def as_plain(cases: Cases) -> list[dict[str, Any]]:
    asked = cases.requests
    assert asked.users is not None and asked.history is not None
    found = []
    for b in range(len(cases)):
        history = asked.history[b]
        found.append(
            {
                "user": int(asked.users[b]),
                "history": list(zip(history["item"].tolist(), history["value"].tolist(), strict=True)),
                "exclude": None if asked.exclude is None else sorted(asked.exclude[b].tolist()),
                "targets": cases.targets[b].tolist(),
                "now": None if asked.now is None else int(asked.now[b]),
            }
        )
    return found


def check_honest(parts: Split) -> None:
    """What every split owes: whole parts, targets that were never seen, histories that may be shown."""
    chosen = parts.data.choices()
    of_choices = parts.part if chosen is None else parts.part[chosen]
    if parts.cut is None:
        assert (of_choices >= 0).all(), "a choice is in no part"
    else:
        times = parts.data.events["time"].to_numpy()
        assert (times[parts.part == 0] < parts.cut).all(), "training holds events from after the cut"
        held = of_choices > 0
        assert ((times if chosen is None else times[chosen])[held] >= parts.cut).all(), (
            "a choice before the cut is held"
        )
    assert sum(parts.sizes.values()) == np.count_nonzero(parts.part >= 0)
    for part in ("valid", "test"):
        cases = parts.cases(part)  # type: ignore[arg-type]
        expected = plain_cases(parts, part)
        assert as_plain(cases) == [{k: v for k, v in c.items() if k != "first"} for c in expected]
        if not parts.repeats:
            seen = cases.requests.exclude
            assert seen is not None
            for targets, past in zip(cases.targets, seen, strict=True):
                assert not set(targets.tolist()) & set(past.tolist()), "a target had been seen"
        assert all(len(targets) == len(set(targets.tolist())) > 0 for targets in cases.targets)
        if parts.cut is not None:
            history, now = cases.requests.history, cases.requests.now
            assert history is not None and now is not None
            assert (history.values["time"] <= now[history.rows]).all(), "a history tells of the future"
        trained = set(_items(parts, 0))
        assert cases.cold_targets == sum(t not in trained for t in cases.targets.values.tolist())
        assert cases.strangers == sum(c["user"] < 0 for c in expected)


def _items(parts: Split, code: int) -> list[int]:
    events = parts.data.events.filter(pl.Series(parts.part == code))
    return events.filter(~pl.col("kind").is_in(["impression", "search"]))["item"].to_list()


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(TIMED), events=st.lists(rows, min_size=12, max_size=60), seed=st.integers(0, 3))
def test_timed_splits_are_honest(kind: str, events: list[Any], seed: int) -> None:
    check_honest(made(log(events), kind, seed=seed))


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(TIMELESS), events=st.lists(rows, min_size=12, max_size=60))
def test_splits_without_times_are_honest(kind: str, events: list[Any]) -> None:
    parts = made(log(events, timed=False), kind)
    check_honest(parts)
    assert len(parts.warnings) == 1 and "no times" in parts.warnings[0]


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(TIMED),
    events=st.lists(rows, min_size=12, max_size=60, unique_by=lambda r: (r[0], r[2])),
    seed=st.integers(0, 3),
)
def test_text_spec_and_order_of_rows_make_the_same_split(kind: str, events: list[Any], seed: int) -> None:
    data = log(events)
    first = made(data, kind, seed=seed)
    for again in (split(data, kind, seed=seed), split(data, first.name), split(data, **first.spec)):
        assert same(first, again)
    shuffled = [events[r] for r in np.random.default_rng(seed).permutation(len(events))]
    assert same(first, split(log(shuffled), kind, seed=seed))


def same(left: Split, right: Split) -> bool:
    arrays = [(getattr(left, c), getattr(right, c)) for c in ("part", "case", "asked")]
    equal = all((a is None and b is None) or np.array_equal(a, b) for a, b in arrays)
    facts = ("name", "spec", "cut", "history", "warnings", "repeats")
    return equal and all(getattr(left, f) == getattr(right, f) for f in facts)


@pytest.mark.parametrize("kind", [k for k in TIMELESS if k.startswith(CHANCE)])
@pytest.mark.parametrize("timed", [True, False])
def test_chance_asks_who_what_and_when_not_where_a_row_stands(kind: str, timed: bool) -> None:
    pairs = [(u, i, 7, "buy", 0) for u in range(6) for i in range(8) if (u * i + u) % 5]
    order = np.random.default_rng(1).permutation(len(pairs))
    fates = []
    for events in (pairs, [pairs[r] for r in order]):
        parts = split(log(events, timed=timed), kind, seed=3)
        named = parts.data.events.select("user", "item").with_columns(part=pl.Series(parts.part))
        assert parts.data.user_ids.series.is_sorted() and parts.data.item_ids.series.is_sorted()
        fates.append(set(named.rows()))
    assert fates[0] == fates[1]


def users_log(lengths: list[int], seed: int = 0) -> Dataset:
    """Users with so many choices of different items, at different times."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    user = np.repeat(np.arange(len(lengths)), lengths)
    item = np.concatenate([rng.permutation(max(lengths))[:size] for size in lengths])
    frame = pl.DataFrame({"user": user, "item": item, "time": rng.permutation(n)})
    return build("users", frame, time_unit="step")


def counts_of(parts: Split) -> list[list[int]]:
    """Train, valid and test events of each user."""
    users = parts.data.events["user"].to_numpy()
    return [
        [int(np.count_nonzero((users == u) & (parts.part == c))) for c in range(3)] for u in range(parts.data.n_users)
    ]


def by_length(parts: Split) -> dict[int, list[int]]:
    return {sum(counts): counts for counts in counts_of(parts)}


def test_leave_one_out_takes_exactly_the_last() -> None:
    parts = split(users_log([1, 2, 3, 9]), "leave-one-out")
    assert by_length(parts) == {1: [1, 0, 0], 2: [2, 0, 0], 3: [1, 1, 1], 9: [7, 1, 1]}
    frame = parts.data.events.with_columns(part=pl.Series(parts.part))
    last = (
        frame.group_by("user")
        .agg(pl.all().sort_by("time").last())
        .filter(pl.col("user").is_in(frame.filter(pl.col("part") == 2)["user"].implode()))
    )
    assert (last["part"] == 2).all() and last.height == 2
    assert by_length(split(parts.data, "leave-one-out", valid=False)) == {
        1: [1, 0, 0],
        2: [1, 0, 1],
        3: [2, 0, 1],
        9: [8, 0, 1],
    }
    assert by_length(split(parts.data, "leave-k:3")) == {1: [1, 0, 0], 2: [2, 0, 0], 3: [3, 0, 0], 9: [3, 3, 3]}


def test_equal_times_keep_the_order_of_the_file() -> None:
    frame = pl.DataFrame({"user": [1] * 4, "item": [9, 2, 7, 5], "time": [3, 3, 3, 3]})
    parts = split(build("ties", frame, time_unit="step"), "leave-one-out")
    held = {part: parts.data.item_ids.ids(parts.events(part)["item"].to_numpy()).to_list() for part in PARTS}
    assert held == {"train": [9, 2], "valid": [7], "test": [5]}


@pytest.mark.parametrize("by", ["random", "time"])
def test_shares_round_down_for_each_user(by: str) -> None:
    parts = split(users_log([5, 10, 19, 30, 70]), "ratio:0.8,0.1,0.1", by=by)
    assert by_length(parts) == {5: [5, 0, 0], 10: [8, 1, 1], 19: [17, 1, 1], 30: [24, 3, 3], 70: [56, 7, 7]}
    assert by_length(split(parts.data, "ratio:0.8", by=by))[70] == [56, 0, 14]


def test_random_parts_have_their_share_and_folds_cover_everything() -> None:
    data = users_log([40, 30, 20, 13])
    assert split(data, "random:0.7,0.1,0.2").sizes == {"train": 73, "valid": 10, "test": 20}
    folds = [split(data, "k-fold:4", fold=i, seed=3) for i in range(4)]
    covered = np.stack([fold.part == PARTS["test"] for fold in folds])
    assert (covered.sum(axis=0) == 1).all() and set(covered.sum(axis=1).tolist()) <= {25, 26}
    assert not same(folds[0], split(data, "k-fold:4", seed=4))
    one = split(data, "k-fold:4,fold=3,valid=true", seed=3)
    assert np.array_equal(one.part == PARTS["valid"], folds[0].part == PARTS["test"])


def test_every_user_of_a_split_by_user_keeps_a_history() -> None:
    data = users_log([3, 4, 5, 8, 13, 2, 2, 6])
    for kind in ("leave-one-out", "leave-k:2", "ratio:0.5,0.2,0.3", "ratio:0.5,by=time", "cold-user:0.5,shown=0.3"):
        for seed in range(5):
            cases = split(data, kind, seed=seed).cases()
            assert cases.requests.history is not None and len(cases)
            assert (cases.requests.history.lengths > 0).all(), kind


def test_held_out_users_and_items_are_unknown_to_training() -> None:
    data = users_log([9, 8, 7, 9, 8, 7, 9, 8, 7, 9])
    users = split(data, "cold-user:0.3,valid=0.1,shown=0.5", seed=1)
    for counts in counts_of(users):
        assert sorted(counts)[:2] == [0, 0], "a user's events lie in two parts"
    cases = users.cases()
    assert len(cases) == cases.strangers == 3
    assert cases.requests.history is not None
    asked = np.sort(cases.requests.history.lengths + cases.targets.lengths)
    assert asked.tolist() == sorted(sum(c) for c in counts_of(users) if c[2])
    assert split(data, "cold-user:0.3,shown=2").cases().requests.history.lengths.tolist() == [2, 2, 2]  # type: ignore[union-attr]
    items = split(data, "cold-item:0.4", seed=1)
    held = set(items.events("test")["item"].to_list())
    assert held and not held & set(items.events("train")["item"].to_list())
    assert items.cases().cold_targets == len(items.cases().targets.values) == items.sizes["test"]


def test_a_cut_hides_who_and_what_came_later() -> None:
    frame = pl.DataFrame(
        {"user": ["b", "b", "b", "a", "c"], "item": ["x", "y", "z", "x", "z"], "time": [1, 3, 10, 11, 12]}
    )
    parts = split(build("cut", frame, time_unit="step"), "time:10")
    assert parts.train.users["user"].to_list() == ["b"] and parts.train.items["item"].to_list() == ["x", "y"]
    assert parts.train == parts.train and parts.train.n_items == 2 and parts.cut == 10 and not parts.warnings
    cases = parts.cases()
    assert cases.requests.users is not None and cases.requests.users.tolist() == [0, -1, -1]
    assert cases.targets.to_lists() == [[2], [0], [2]] and cases.cold_targets == 2 and cases.strangers == 2
    assert cases.requests.now is not None and cases.requests.now.tolist() == [10, 11, 12]
    assert cases.take(slice(1, 3)).cold_targets == 1
    three = split(parts.data, "time:0.4,0.2,0.4")
    assert (three.cut, three.sizes) == (10, {"train": 2, "valid": 1, "test": 2})
    assert three.cases().requests.items().to_lists() == [[], []]


def test_dates_cut_where_they_say() -> None:
    day = 86_400_000_000
    frame = pl.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "time": [0, day, 2 * day]})
    data = build("days", frame, time_unit="us")
    assert split(data, "time:1970-01-02").sizes == {"train": 1, "valid": 0, "test": 2}
    assert split(data, "time:1970-01-02,1970-01-03").sizes == {"train": 1, "valid": 1, "test": 1}
    assert split(data, "time:1970-01-02T00:00:01").cut == day + 1_000_000
    assert split(data, f"time:{day + 1}").sizes["train"] == 2
    with pytest.raises(UsageError, match="nothing to learn from lies before 1970-01-01"):
        split(data, "time:1970-01-01")
    with pytest.raises(UsageError, match="nothing to hold out"):
        split(data, "time:1971-01-01")
    with pytest.raises(UsageError, match="valid begins before test"):
        split(data, "time:1970-01-03,1970-01-02")


def test_sessions_are_cases() -> None:
    events = [(0, 0, 0), (0, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4), (2, 5, 5), (2, 6, 6), (2, 7, 7)]
    frame = pl.DataFrame({"user": 0, "session": [s for s, *_ in events], "item": [i for _, i, _ in events],
                          "time": [t for *_, t in events]}, schema_overrides={"session": pl.Int64})  # fmt: skip
    data = build("sessions", frame, time_unit="step")
    cases = split(data, "session").cases()
    assert cases.targets.to_lists() == [[5, 6, 7]] and cases.requests.items().to_lists() == [[0, 1, 2, 3, 4]]
    following = split(data, "session:1,ask=next").cases()
    assert following.targets.to_lists() == [[7]] and following.requests.items().to_lists() == [list(range(7))]
    two = split(data, "session:2,valid=false,ask=next").cases()
    assert two.targets.to_lists() == [[4], [7]] and two.requests.items().to_lists() == [[0, 1, 2, 3], [0, 1, 5, 6]]
    latest = split(data, "session:0.4,valid=false")
    assert latest.cut == 5 and latest.cases().targets.to_lists() == [[5, 6, 7]]


def test_sessions_that_take_turns_and_sessions_by_silence() -> None:
    minute = 60_000_000
    times = [0, minute, 2 * minute, 40 * minute, 41 * minute]
    frame = pl.DataFrame({"user": 0, "session": [1, 2, 1, 2, 3], "item": [1, 2, 3, 4, 5], "time": times})
    data = build("turns", frame, time_unit="us")
    parts = split(data, "session")
    assert parts.part.tolist() == [0, 1, 0, 1, 2]
    silent = split(data, "session:1,gap=30,valid=false")
    assert silent.part.tolist() == [0, 0, 0, 2, 2]
    with pytest.raises(NotFound, match="gap=30"):
        split(data.with_events(data.events.drop("session")), "session")


def test_events_that_are_no_choice_go_with_the_next_choice() -> None:
    kinds = ["search", "buy", "impression", "search", "buy", "impression", "buy", "impression"]
    events = [(0, i, i, kind, 0) for i, kind in enumerate(kinds)]
    parts = split(log(events), "leave-one-out")
    assert parts.part.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert parts.cases().targets.to_lists() == [[parts.data.item_ids.number("i6")]]
    cold = split(log([(n % 4, n % 5, n, kinds[n % 8], 0) for n in range(80)]), "cold-item:0.4")
    assert not set(cold.events("train")["item"].drop_nulls()) & set(cold.events("test")["item"].drop_nulls())


def test_repeats_are_asked_for_only_where_allowed() -> None:
    frame = pl.DataFrame({"user": [1] * 4, "item": [1, 2, 1, 1], "time": [1, 2, 3, 4]})
    data = build("again", frame, time_unit="step")
    never = split(data, "leave-one-out").cases()
    assert len(never) == 0 and never.dropped == 1
    again = split(data, "leave-one-out", repeats=True)
    assert again.cases().targets.to_lists() == [[0]] and again.cases().requests.exclude is None
    assert again.spec["repeats"] is True and again.name == "leave-one-out:repeats=true"


def test_a_case_says_what_its_first_choice_was_asked_for_with() -> None:
    asked = ["hats", "shoes", None, "boots"]
    frame = pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 3], "time": [1, 2, 3, 4], "query": asked})
    data = build("shop", frame, time_unit="step")
    parts = split(data, "leave-one-out", valid=False)
    assert parts.cases().requests.text.tolist() == ["shoes", "boots"]  # type: ignore[union-attr]
    mute = replace(parts, part=np.array([0, 0, 1, 0], dtype=np.int8) * 2)
    assert mute.cases().requests.text is None
    both = replace(parts, part=np.array([0, 2, 2, 0], dtype=np.int8))
    assert both.cases().requests.text.tolist() == ["shoes", ""]  # type: ignore[union-attr]


def test_what_is_shown_follows_the_kind_and_can_be_told() -> None:
    data = users_log([9, 9, 9])
    for kind in ("leave-one-out", "time:0.5,0.2,0.3", "ratio:0.5,0.2,0.3,by=time"):
        assert split(data, kind).history == "known"
    for kind in ("random:0.5,0.2,0.3", "ratio:0.5,0.2,0.3", "cold-item:0.4", "k-fold:3"):
        assert split(data, kind).history == "train"
    parts = split(data, "leave-one-out", history="train")
    history, exclude = parts.cases().requests.items(), parts.cases().requests.exclude
    assert exclude is not None and history.lengths.tolist() == [7, 7, 7] and exclude.lengths.tolist() == [8, 8, 8]
    with pytest.raises(UsageError, match="one of train, known"):
        split(data, "leave-one-out", history="all")


@pytest.mark.parametrize(
    "kind", ["leave-one-out", "ratio:0.7,0.1,0.2", "random:0.8", "k-fold:4", "cold-user:0.4,by=random"]
)
def test_warnings_say_how_much_of_the_future_is_seen(kind: str) -> None:
    parts = split(users_log([10, 12, 14, 9, 30], seed=5), kind)
    frame = parts.data.events.with_columns(part=pl.Series(parts.part), row=pl.int_range(pl.len()))
    asked = frame.filter(
        (pl.col("part") == 2) if parts.asked is None else (pl.col("part") == 2) & pl.Series(parts.asked)
    )
    latest = frame.filter(pl.col("part") == 0)["time"].max()
    share = (asked["time"] < latest).mean()  # type: ignore[operator]
    assert share  # or the sentence would not be there
    assert f"{share:.1%} of the test events are older than the last training event" in parts.warnings[0]
    open_parts = [0, 1] if parts.history == "known" else [0]
    lies_open = pl.col("part").is_in(open_parts)
    shown = frame.filter(
        lies_open if parts.asked is None else lies_open | (pl.col("part") == 2) & ~pl.Series(parts.asked)
    )
    newest = dict(shown.group_by("user").agg(pl.col("time").max()).rows())
    own = np.mean([t < newest[u] for u, t in asked.select("user", "time").rows()])
    said = [w for w in parts.warnings if "same user" in w]
    assert (f"{own:.1%} of the test events are older than an event of the same user" in said[0]) if own else not said
    assert not split(parts.data, "time:0.7,0.1,0.2").warnings and not split(parts.data, "time:0.7").warnings


def test_what_happens_at_once_is_no_future() -> None:
    frame = pl.DataFrame({"user": np.repeat(range(5), 4), "item": [*range(4)] * 5, "time": [7] * 20})
    for kind in ("leave-one-out", "ratio:0.5", "k-fold:3"):
        assert not split(build("at once", frame, time_unit="step"), kind).warnings


def test_a_cut_warns_where_the_catalogue_cannot_be_dated() -> None:
    data = users_log([9, 9, 9])
    undated = replace(data, items=data.items.drop("available"))
    assert "first chosen after the cut" in split(undated, "time:0.2").warnings[0]


def test_published_columns() -> None:
    frame = pl.DataFrame({"user": [1] * 5 + [2] * 5, "item": [*range(5)] * 2, "time": [*range(5)] * 2,
                          "split": ["train", "train", "train", "val", "Test"] * 2, "fold": [1, 2, 3, 1, 4] * 2,
                          "ua_test": [False, False, False, False, True] * 2})  # fmt: skip
    data = build("published", frame, time_unit="step")
    parts = split(data, "column:split")
    assert parts.sizes == {"train": 6, "valid": 2, "test": 2} and parts.history == "known"
    assert split(data, "column:fold,test=2").part.tolist() == [0, 2, 0, 0, 0] * 2
    assert split(data, "column:fold,test=3|2,valid=1").part.tolist() == [1, 2, 2, 1, 0] * 2
    assert split(data, "column:ua_test").sizes == {"train": 8, "valid": 0, "test": 2}
    some = data.with_events(data.events.with_columns(pl.when(pl.col("item") > 0).then("split").alias("split")))
    assert split(some, "column:split").part.tolist() == [-1, 0, 0, 1, 2] * 2
    early = data.with_events(
        data.events.with_columns(split=pl.Series(["test", "train", "train", "train", "train"] * 2))
    )
    assert split(early, "column:split").history == "train"


def test_a_valid_part_is_carved_out_of_each_users_training() -> None:
    frame = pl.DataFrame(
        {"user": np.repeat([1, 2, 3], 20), "item": [*range(20)] * 3, "part": (["train"] * 15 + ["test"] * 5) * 3}
    )
    parts = split(build("carved", frame), "column:part,valid=0.1")
    assert counts_of(parts) == [[14, 1, 5]] * 3 and parts.history == "train"
    assert not same(parts, split(parts.data, "column:part,valid=0.1", seed=1))
    assert np.array_equal(parts.part == 2, split(parts.data, "column:part").part == 2)


def test_parts_written_by_others_are_read_as_they_are(tmp_path: Path) -> None:
    """Three files of rows, one a part, as splitting scripts write them."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user": rng.integers(0, 9, 200), "item": rng.integers(0, 30, 200)}).unique(
        maintain_order=True
    )
    names = pl.Series("part", rng.choice(["train", "valid", "test"], frame.height, p=[0.7, 0.1, 0.2]))
    for name in ("train", "valid", "test"):
        frame.filter(names == name).write_csv(tmp_path / f"{name}.csv")
    read = pl.concat([pl.read_csv(f).with_columns(part=pl.lit(f.stem)) for f in sorted(tmp_path.glob("*.csv"))])
    parts = split(build("files", read), "column:part")
    for name in PARTS:
        held = parts.events(name)
        pairs = set(
            zip(
                parts.data.user_ids.ids(held["user"].to_numpy()),
                parts.data.item_ids.ids(held["item"].to_numpy()),
                strict=True,
            )
        )
        assert pairs == set(frame.filter(names == name).rows())


def test_holdout_takes_from_training_alone() -> None:
    data = users_log([9, 12, 15, 7])
    parts = split(data, "leave-one-out")
    inner = holdout(parts, "ratio:0.5,0.2,0.3", seed=1)
    assert inner.data is parts.train and inner.sizes["test"] == 0 and inner.sizes["valid"] > 0
    held = {tuple(r) for r in parts.events("test").rows()} | {tuple(r) for r in parts.events("valid").rows()}
    assert not held & {tuple(r) for r in inner.data.events.rows()}
    assert len(inner.cases("valid")) == 4 and len(inner.cases("test")) == 0
    assert holdout(parts).sizes == {"train": parts.sizes["train"] - 4, "valid": 4, "test": 0}
    cut = holdout(split(data, "time:0.8"), "time:0.7")
    assert cut.cut is not None and cut.train.events["time"].max() < cut.cut  # type: ignore[operator]
    assert holdout(build("none", data.events.select("user", "item"))).sizes["valid"] == 2


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("leave-one-in", NotFound, "leave-one-out"),
        ("ratio:0.8,0.1", UsageError, "three that add up to 1"),
        ("ratio:0.8,0.1,0.2", UsageError, "three that add up to 1"),
        ("ratio:much", UsageError, "between 0 and 1"),
        ("ratio:0.8,by=date", UsageError, "one of random, time"),
        ("ratio:0.8,bye=time", NotFound, "'by'"),
        ("leave-k:0", UsageError, "at least 1, got 0"),
        ("leave-k:2.5", UsageError, "whole number"),
        ("leave-one-out:3", UsageError, "by name only"),
        ("k-fold:5,fold=5", UsageError, "numbered from 0 to 4"),
        ("k-fold:1", UsageError, "at least 2"),
        ("k-fold:2,valid=true", UsageError, "3 to 100 folds"),
        ("time:0.8,7", UsageError, "one or two times"),
        ("time:yesterday", UsageError, "whole number, got 'yesterday'"),
        ("column:splt", NotFound, "'splt'"),
        ("column:item,test=99", NotFound, "99 is no value"),
        ("column:item", UsageError, "test=VALUE"),
        ("cold-user:1.5", UsageError, "between 0 and 1"),
        ("cold-item:0.9,valid=0.2", UsageError, "leave none"),
        ("session:1,gap=30", UsageError, "no clock"),
        ("leave-k:50", UsageError, "nothing to hold out"),
        ("", UsageError, "kind:value"),
    ],
)
def test_what_cannot_be_split_so_is_told(kind: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        split(users_log([9, 8, 7]), kind)


def test_text_is_read_as_it_is_written() -> None:
    assert parse("leave-k:5,valid=false") == ("leave-k", {"k": 5, "valid": False})
    assert parse("time:2015-01-01T10:30:00") == ("time", {"at": "2015-01-01T10:30:00"})
    assert parse("column:fold,test=1|2") == ("column", {"name": "fold", "test": [1, 2]})
    assert parse("ratio:0.8,0.1,0.1,by=time")[1] == {"shares": [0.8, 0.1, 0.1], "by": "time"}
    assert set(KINDS) == {parse(kind)[0] for kind in TIMED} | {"column"}


@pytest.mark.parametrize("mutant", ["train holds a test event", "a part is lost", "cases forget the valid part"])
def test_a_leaking_split_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = log([(n % 5, n % 7, n // 3, "buy", n // 20) for n in range(60)])
    parts = split(data, "leave-one-out" if "cases" in mutant else "time:8")
    if mutant == "train holds a test event":
        part = parts.part.copy()
        part[np.flatnonzero(part == 2)[:1]] = 0
        parts = replace(parts, part=part)
    elif mutant == "a part is lost":
        parts = replace(parts, part=np.where(parts.part == 2, -1, parts.part).astype(np.int8), cut=None)
    else:
        honest = Split.cases
        monkeypatch.setattr(Split, "cases", lambda self, part: honest(replace(self, repeats=True), part))
    with pytest.raises(AssertionError):
        check_honest(parts)


@settings(max_examples=40, deadline=None)
@given(events=st.lists(rows, min_size=3, max_size=60), time=st.integers(0, 13))
def test_what_is_known_at_a_time_is_a_prefix(events: list[Any], time: int) -> None:
    data = log(events)
    known = data.asof(time)
    assert known.users.equals(data.users.head(known.n_users)) and known.items.equals(data.items.head(known.n_items))
    assert (known.events["time"] < time).all() and (data.events["time"] < time).sum() == known.n_events
    later = data.asof(time + 2)
    assert later.asof(time).fingerprint == known.fingerprint


def test_counts_of_a_known_protocol(shared_data: Path) -> None:
    """MovieLens-100K, 80/10/10 of each user's ratings rounded down, and leave one out: sizes others state for them."""
    frame = pl.read_parquet(shared_data / "ml-100k" / "ratings.parquet")
    frame = frame.rename({"user_id": "user", "item_id": "item", "timestamp": "time", "rating": "value"})
    data = build("ml-100k", frame.with_columns(pl.col("time").cast(pl.Int64) * 1_000_000), time_unit="us")
    assert split(data, "ratio:0.8,0.1,0.1", seed=42).sizes == {"train": 80_808, "valid": 9_596, "test": 9_596}
    assert split(data, "leave-one-out").sizes == {"train": 98_114, "valid": 943, "test": 943}
    assert [split(data, "column:fold", test=fold).sizes["test"] for fold in range(1, 6)] == [20_000] * 5
    assert split(data, "column:ua_test").sizes["test"] == 9_430
    gowalla = pl.read_parquet(shared_data / "gowalla" / "interactions.parquet")
    parts = split(build("gowalla", gowalla.rename({"user_id": "user", "item_id": "item"})), "column:split,valid=0.1")
    assert parts.sizes == {"train": 742_879, "valid": 67_249, "test": 217_242}
