"""The candidate bus and its tools: order, caps, thresholds, what they say, and what they never do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.agents.bus import Bus, Person, Tools, arranged, most_chosen, one_line, run
from tastemaker.language.planner.lexicon import Lexicon
from tastemaker.language.tasks import HardFilter, LookUp, Named, Plan, Ranking, Show, SoftFilter
from tastemaker.types import UsageError

N = 40


def tools(**more: Any) -> Tools:
    """Items on a circle: item i is called "Title word i", is alike to its neighbours, and chosen N - i times."""
    words = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven")
    titles = [f"{words[n % 8]} {words[n // 8]} story" for n in range(N)]
    table = pl.DataFrame({"item": np.arange(N), "title": titles, "size": np.arange(N) % 10})

    def filtered(where: str, items: Any) -> tuple[Any, list[str]]:
        if where == "broken":
            raise UsageError("cannot be applied")
        return np.flatnonzero(table["size"].to_numpy()[items] < int(where)), []

    def alike(seeds: Any) -> Any:
        steps = np.abs(np.arange(N)[:, None] - seeds[None, :])
        return (1.0 / (1 + np.minimum(steps, N - steps))).mean(axis=1).astype(np.float32)

    def suited(person: Person, prefer: Any, items: Any) -> tuple[Any, Any]:
        scores = alike(prefer)[items]
        order = np.argsort(-scores, kind="stable")
        return items[order], scores[order]

    popularity = np.arange(N, 0, -1).astype(np.float32)
    return Tools(table, Lexicon(table), popularity, filtered, alike, suited, **more)


def bus(t: Tools) -> Bus:
    return Bus.begin(most_chosen(t.popularity))


def title(t: Tools, number: int) -> str:
    return str(t.table["title"][number])


def shown(t: Tools, *steps: Any, person: Person | None = None, start: Bus | None = None) -> list[int]:
    done = run(arranged(Plan(steps=steps), 5)[0], start or bus(t), t, person or Person())
    assert done.shown is not None
    return done.shown.tolist()


def test_candidates_begin_with_the_most_chosen_and_a_plan_without_map_gets_one() -> None:
    t = tools()
    assert shown(t, Ranking(by="popularity")) == [0, 1, 2, 3, 4]
    assert shown(t, HardFilter(where="3"), Show(k=4)) == [0, 1, 2, 10]
    steps, changed = arranged(Plan(steps=(Ranking(),)), 7)
    assert steps[-1] == Show(k=7) and "first 7" in changed[0]
    assert arranged(Plan(steps=(LookUp(),)), 5) == ([LookUp()], [])  # a question about facts is no list


def test_steps_come_in_the_order_of_their_tools_and_it_is_said() -> None:
    plan = Plan(
        steps=(Show(k=2), Ranking(), SoftFilter(like=("x",)), HardFilter(where="3"), LookUp(), Named(names=("y",)))
    )
    steps, changed = arranged(plan, 5)
    assert [step.tool for step in steps] == ["store", "look-up", "hard filter", "soft filter", "ranking", "map"]
    assert changed == ["steps were put in the order of their tools"]
    twice = Plan(steps=(HardFilter(where="3"), HardFilter(where="9"), Show(k=2), Show(k=9)))
    steps, changed = arranged(twice, 5)
    assert steps == [HardFilter(where="3"), HardFilter(where="9"), Show(k=2)] and "first that was asked" in changed[0]


def test_the_work_of_a_plan_is_bounded() -> None:
    t = tools()
    steps, changed = arranged(Plan(steps=(Ranking(),) * 500), 5)
    assert len(steps) == 25 and "first 24 steps" in changed[0]
    asked: list[int] = []
    counting = replace(t, alike=lambda seeds: asked.append(len(seeds)) or t.alike(seeds))
    names = tuple(f"{title(t, n % N)}{' ' * n}" for n in range(5000))
    run([SoftFilter(like=names)], bus(t), counting, Person())
    assert asked and asked[0] <= 100


def test_store_takes_what_was_named_as_people_write_it() -> None:
    t = tools()
    names = (title(t, 7).upper(), title(t, 3)[:-1], "nothing of the sort whatever")
    done = run([Named(names=names)], bus(t), t, Person())
    assert done.items.tolist() == [7, 3]
    assert "not in the catalogue: nothing of the sort" in done.trace[0].output
    nobody = run([Named(names=("quite unheard of",)), Show(k=3)], bus(t), t, Person())
    assert nobody.shown is not None and not len(nobody.shown) and nobody.trace[-1].failed


def test_store_brings_back_nothing_that_may_not_be_shown() -> None:
    t = tools()
    start = Bus.begin(np.arange(5, N, dtype=np.int32))
    assert shown(t, Named(names=(title(t, 2), title(t, 9))), start=start) == [9]


def test_the_soft_filter_keeps_what_lies_above_a_share_of_the_whole_catalogue() -> None:
    t = tools()
    seed, share = 20, 0.25
    scores = t.alike(np.array([seed]))
    above = set(np.argsort(-scores, kind="stable")[: int(share * N)].tolist())
    for start in (bus(t), Bus.begin(np.arange(20, dtype=np.int32))):  # the bar does not move with the candidates
        done = run([SoftFilter(like=(title(t, seed),), share=share)], start, t, Person())
        wanted = {n for n in start.items.tolist() if scores[n] > np.sort(scores)[::-1][int(share * N)] and n != seed}
        assert set(done.items.tolist()) == wanted <= above
        assert done.likeness is not None and np.allclose(done.likeness, scores[done.items])
    tiny = run([SoftFilter(like=(title(t, seed),), share=0.001)], bus(t), t, Person())
    assert len(tiny.items) == N - 1 and "all stay" in tiny.trace[0].output  # one lies above: the seed itself


def test_rankings_fall_back_as_they_must_and_say_so() -> None:
    t = tools()
    plain = run([Ranking(by="preference"), Show(k=3)], bus(t), t, Person())
    assert plain.shown is not None and plain.shown.tolist() == [0, 1, 2] and "by popularity" in plain.trace[0].output
    alike = run([Ranking(by="similarity"), Show(k=3)], bus(t), t, Person())
    assert alike.shown is not None and alike.shown.tolist() == [0, 1, 2] and "by popularity" in alike.trace[0].output
    forced = run([Ranking(by="popularity", prefer=(title(t, 30),)), Show(k=2)], bus(t), t, Person())
    assert forced.shown is not None and set(forced.shown.tolist()) == {29, 31}  # what is preferred decides
    known = run([Ranking(by="preference"), Show(k=2)], bus(t), t, Person(history=(10,)))
    assert known.shown is not None and set(known.shown.tolist()) == {9, 11}


def test_what_is_known_comes_last_and_what_is_unwanted_not_at_all() -> None:
    t = tools()
    three = Named(names=tuple(title(t, n) for n in (10, 11, 12)))
    wanted = Ranking(prefer=(title(t, 10),))
    assert shown(t, three, wanted)[-1] == 10
    assert shown(t, three, Ranking(prefer=(title(t, 10),), unwanted=(title(t, 11),))) == [12, 10]


def test_similarity_ranks_by_what_the_soft_filter_saved() -> None:
    t = tools()
    assert shown(t, SoftFilter(like=(title(t, 20),), share=0.3), Ranking(by="similarity"), Show(k=4)) == [
        19,
        21,
        18,
        22,
    ]


def test_caps_hold_after_filters_and_rankings() -> None:
    t = tools(cap=6, top=3)
    done = run([HardFilter(where="9")], bus(t), t, Person())
    assert done.items.tolist() == [0, 1, 2, 3, 4, 5]  # the most chosen
    assert len(run([Ranking()], bus(t), t, Person()).items) == 3
    assert len(run([SoftFilter(like=(title(t, 5),), share=0.9)], bus(t), t, Person()).items) == 6


def test_a_filter_that_cannot_be_applied_leaves_nothing() -> None:
    t = tools()
    done = run([HardFilter(where="broken"), Ranking(), Show(k=3)], bus(t), t, Person())
    assert done.shown is not None and not len(done.shown)
    assert [step.failed for step in done.trace] == [True, True, True] and "cannot be applied" in done.trace[0].output
    empty = run([HardFilter(where="0"), SoftFilter(like=(title(t, 1),)), Ranking(), Show(k=3)], bus(t), t, Person())
    assert empty.shown is not None and not len(empty.shown) and "0 left" in empty.trace[0].output


def test_a_look_up_reads_facts_within_a_budget_and_leaves_candidates_alone() -> None:
    t = tools()
    done = run([LookUp(names=(title(t, 4),), columns=("size",)), LookUp(where="9")], bus(t), t, Person())
    assert done.items.tolist() == bus(t).items.tolist()
    assert title(t, 4) in done.trace[0].output and "size: 4" in done.trace[0].output
    assert len(done.trace[1].output) < 2200 and "36 found" in done.trace[1].output


def test_the_trace_says_what_each_tool_did() -> None:
    t = tools()
    done = run([HardFilter(where="3"), Ranking(), Show(k=2)], bus(t), t, Person())
    assert [(step.tool, step.output) for step in done.trace] == [
        ("hard filter", "12 left"),
        ("ranking", "by popularity; 12 left"),
        ("map", "2 shown"),
    ]
    assert done.trace[0].input == "where: 3"
    assert all(title(t, n) not in step.output for step in done.trace for n in range(N))  # candidates are not read aloud


def test_diversity_draws_by_score_and_from_the_seed_alone() -> None:
    t = tools(diverse=True, top=5)
    lists = [tuple(shown(t, Ranking(), person=Person(seed=seed))) for seed in range(60)]
    assert len(set(lists)) > 50 and lists[0] == tuple(shown(t, Ranking(), person=Person(seed=0)))
    counts = np.bincount([number for row in lists for number in row], minlength=N)
    assert counts[:10].sum() > counts[-10:].sum()  # the most chosen are drawn more often


def test_ties_of_popularity_follow_no_number() -> None:
    order = most_chosen(np.zeros(50, dtype=np.float32))
    assert sorted(order.tolist()) == list(range(50)) and abs(np.corrcoef(order, np.arange(50))[0, 1]) < 0.5


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\u202eb", "a\nb", "a\u200bb" * 40])
def test_one_line_is_one_line(text: str) -> None:
    line = one_line(text, 50)
    assert line.isprintable() and len(line) <= 50
