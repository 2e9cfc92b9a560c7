"""InteRecAgent: what is shown obeys plans and filters, calls are as few as claimed, a model's failures end nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.contracts import Acts, Binds, Narrates, Profiles, Resources
from tastemaker.data import synthetic
from tastemaker.language.accounts import Counted, Scripted
from tastemaker.language.chat import ChatError
from tastemaker.language.tasks import (
    HardFilter,
    LookUp,
    Named,
    NextStep,
    Plan,
    Profile,
    Ranking,
    Reply,
    Show,
    SoftFilter,
    Step,
    Verdict,
)
from tastemaker.serve.states import decoded, encoded
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    BundleError,
    CapabilityError,
    Columns,
    Dataset,
    Feedback,
    ItemFilter,
    Jagged,
    Requests,
    generator,
)

N = 200


@cache
def data() -> Dataset:
    return synthetic(300, n_items=N, seed=3)


@cache
def bundle(**config: Any) -> Bundle:
    return fit("interecagent", data(), config)


def agent(chat: Any = None, **config: Any) -> Any:
    """A system of its own, so that what is bound to one test does not reach another."""
    fitted = bundle(**{name: value for name, value in config.items() if name in ("ranker", "similar")})
    system = type(fitted.system)(replace(fitted.config, **config), fitted.schema)
    system.restore(fitted.system.export())
    system.bind(Resources(chat=chat, catalogue=data().items))
    return system


def said(text: str, n: int = 1) -> Any:
    return np.array([text] * n, dtype=object)


def begun(system: Any, text: str | None = None, history: list[int] | None = None, **more: Any) -> Any:
    words = {} if text is None else {"text": said(text)}
    return system.begin(Requests.of_items([history or []], **words, **more))[0]


def told(system: Any, session: Any, text: str) -> Any:
    return system.observe([session], Feedback(Requests.of_users([-1]), text=said(text)))[0]


def act(system: Any, session: Any) -> tuple[list[int], str, list[dict[str, Any]], Any]:
    """One turn: what is shown, the words, the trace, the session."""
    actions, [after] = system.act([session])
    row = actions.slates.items[0]
    return row[row >= 0].tolist(), actions.text[0], actions.content[0]["trace"], after


def planned(*steps: Step, reply: str = "Here.", **more: Any) -> Scripted:
    answers = {"profile": lambda _: Profile(), **more}
    return Scripted(plan=lambda _: Plan(steps=steps), reply=lambda _: Reply(text=reply), **answers)


def title(number: int) -> str:
    return str(data().items["title"][number])


# -- what is shown


def predicates(rng: np.random.Generator) -> tuple[str, pl.Expr]:
    """A filter as a plan writes it, and as Polars knows it."""
    genres = ["comedy", "drama", "horror", "crime", "romance"]
    genre, other = rng.choice(genres, 2, replace=False).tolist()
    year, price = int(rng.integers(1950, 2023)), float(rng.choice([3.0, 5.0, 9.0]))
    made: list[tuple[str, pl.Expr]] = [
        (f"'{genre}' = ANY(genres)", pl.col("genres").list.contains(genre)),
        (f"NOT genres has '{other}'", ~pl.col("genres").list.contains(other)),
        (f"year >= {year}", pl.col("year") >= year),
        (f"price < {price}", pl.col("price") < price),
        (f"year BETWEEN {year - 20} AND {year + 5}", pl.col("year").is_between(year - 20, year + 5)),
    ]
    picked = [made[place] for place in rng.choice(len(made), int(rng.integers(1, 4)), replace=False)]
    whole = picked[0][1]
    for _, expression in picked[1:]:
        whole &= expression
    return " AND ".join(text for text, _ in picked), whole


def holds(expression: pl.Expr) -> Any:
    return data().items.select(expression.fill_null(False)).to_series().to_numpy()


def test_gold_plans_break_no_filter_and_miss_nothing() -> None:
    rng = generator(0, "filters")
    cases = [predicates(rng) for _ in range(60)]
    filters = iter(cases)
    system = agent(
        Scripted(
            plan=lambda _: Plan(steps=(HardFilter(where=next(filters)[0]), Ranking(by="preference"), Show(k=7))),
            reply=lambda _: Reply(text="Here."),
        ),
        profile_every=0,
        demonstrations=0,
    )
    for where, expression in cases:
        shown, _, trace, _ = act(system, begun(system, "please", [1, 2, 3]))
        right = holds(expression)
        assert right[shown].all(), where
        assert len(shown) == min(7, int(right.sum())), where
        assert f"{int(right.sum())} left" in trace[0]["output"]


def fuzzed(rng: np.random.Generator) -> tuple[list[Step], list[pl.Expr]]:
    """Steps in any order, sensible and not; and the filters among them that can be applied."""
    steps: list[Step] = []
    filters: list[pl.Expr] = []
    junk = ["", "'", "title", title(int(rng.integers(N))).upper(), "1; DROP TABLE items", "\u202e", "x" * 3000, "'%'"]
    for _ in range(int(rng.integers(0, 7))):
        names = tuple(str(one) for one in rng.choice(junk, 2)) if rng.random() < 0.5 else (title(int(rng.integers(N))),)
        kind = rng.integers(8)
        if kind <= 1:
            where, expression = predicates(rng)
            steps.append(HardFilter(where=where))
            filters.append(expression)
        elif kind == 2:
            steps.append(HardFilter(where=str(rng.choice(junk))))
            filters.append(pl.lit(False))  # none of these says anything of an item
        elif kind == 3:
            steps.append(Named(names=names))
        elif kind == 4:
            steps.append(SoftFilter(like=names, share=float(rng.uniform(0.001, 1))))
        elif kind == 5:
            by = ("popularity", "similarity", "preference")[rng.integers(3)]
            steps.append(Ranking(by=by, prefer=names[: rng.integers(2)], unwanted=names[: rng.integers(2)]))
        elif kind == 6:
            steps.append(LookUp(where=str(rng.choice([*junk, "year > 1990"])), names=names[: rng.integers(2)]))
        else:
            steps.append(Show(k=int(rng.integers(1, 30))))
    return steps, filters


def test_a_thousand_plans_of_any_kind_show_only_items_that_their_filters_and_the_request_allow() -> None:
    rng = generator(1, "plans")
    plans = [fuzzed(rng) for _ in range(1000)]
    turn = iter(plans)
    system = agent(
        Scripted(plan=lambda _: Plan(steps=tuple(next(turn)[0])), reply=lambda _: Reply(text="x")),
        profile_every=0,
        demonstrations=0,
    )
    shown_at_all = 0
    for start in range(0, len(plans), 100):
        allowed = rng.random((1, N)) < 0.7
        seen = rng.choice(N, 20, replace=False).tolist()
        requests = Requests.of_items(
            [[3, 4]] * 100,
            text=said("go", 100),
            exclude=Jagged.from_lists([seen] * 100, dtype=np.int32),
            filter=ItemFilter(allowed, np.zeros(100, dtype=np.int32)),
            seeds=np.arange(100, dtype=np.uint64),
        )
        actions, _ = system.act(system.begin(requests))
        for row, (_, filters) in zip(actions.slates.items, plans[start : start + 100], strict=True):
            shown = row[row >= 0]
            shown_at_all += len(shown)
            assert len(set(shown.tolist())) == len(shown) and (shown < N).all()
            assert allowed[0, shown].all() and not np.isin(shown, seen).any()
            for expression in filters:
                assert expression.meta.eq(pl.lit(False)) or holds(expression)[shown].all()
                assert not expression.meta.eq(pl.lit(False)) or not len(shown)
    assert shown_at_all > 1000


def test_words_of_the_reply_are_not_a_list() -> None:
    others = "; ".join(title(n) for n in range(50, 60))
    system = agent(planned(Named(names=(title(1), title(2))), reply=f"Take {others} instead."))
    shown, text, _, _ = act(system, begun(system, "which?"))
    assert shown == [1, 2] and others in text


def test_a_question_about_facts_shows_no_list() -> None:
    system = agent(planned(LookUp(names=(title(5),), columns=("maker",))))
    shown, _, trace, _ = act(system, begun(system, "who made it?"))
    assert not shown and data().items["maker"][5] in trace[0]["output"]


# -- how the ranker matters


def chains() -> Dataset:
    """Who saw an item sees the next one; most begin among the first: what is popular helps, the order far more."""
    from tastemaker.data.build import build

    rng, n_users, n_items, length = generator(0, "chains"), 200, 60, 9
    starts = np.minimum(rng.geometric(0.06, n_users) - 1, n_items - length)
    items = (starts[:, None] + np.arange(length)).ravel()
    events = pl.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), length),
            "item": items,
            "time": np.tile(np.arange(length), n_users) + 10_000 * np.repeat(np.arange(n_users), length),
            "kind": "view",
            "value": np.float32(1.0),
        }
    )
    table = pl.DataFrame({"item": np.arange(n_items), "title": [f"Part {n} of it" for n in range(n_items)]})
    return build("chains", events, pl.DataFrame({"user": np.arange(n_users)}), table, time_unit="step")


def test_a_sequence_model_ranks_better_than_popularity_and_that_better_than_chance() -> None:
    world = chains()
    small = {"dim": 16, "epochs": 5, "max_len": 8, "batch_size": 64, "lr": 0.01, "every": 5}
    system = fit("interecagent", world, {"ranker": {"name": "sasrec", "config": small}}).system
    rng, gains = generator(2, "cases"), {"preference": [], "popularity": [], "chance": []}
    number = {part: place for place, part in enumerate(world.items["item"].to_list())}
    twenty = np.arange(1, 21)
    for _ in range(40):
        start = int(np.minimum(rng.geometric(0.06) - 1, 50))
        history, target = list(range(start, start + 6)), start + 6
        rest = [part for part in range(60) if part not in (*history, target)]
        listed = rng.permutation([target, *rng.choice(rest, 19, replace=False)]).tolist()
        past = [number[part] for part in history]
        for by in ("preference", "popularity"):
            names = Named(names=tuple(f"Part {n} of it" for n in listed))
            system.bind(Resources(chat=planned(names, Ranking(by=by), Show(k=20)), catalogue=world.items))
            shown, _, _, _ = act(system, begun(system, "rank these", past))
            assert sorted(shown) == sorted(number[part] for part in listed)
            gains[by].append(1 / np.log2(shown.index(number[target]) + 2))
        gains["chance"].append(float((1 / np.log2(twenty + 1)).mean()))
    ndcg = {by: float(np.mean(values)) for by, values in gains.items()}
    assert ndcg["preference"] > ndcg["popularity"] + 0.1 > ndcg["chance"] + 0.1, ndcg


def test_a_system_that_is_mounted_ranks_in_the_rankers_place() -> None:
    class Backwards:
        def score(self, requests: Requests, items: Any = None) -> Any:
            rows = np.tile(np.arange(N, dtype=np.float32), (requests.n, 1))
            return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)

    chat = planned(Ranking(by="preference"), Show(k=3))
    system = agent(chat, mounted="other")
    session = begun(system, "please", [5])
    own = act(system, session)[0]
    system.bind(Resources(chat=chat, catalogue=data().items, systems={"other": Backwards()}))
    assert act(system, session)[0] == [N - 1, N - 2, N - 3] != own


def test_a_catalogue_is_read_once_however_often_others_are_lent() -> None:
    system = agent()
    lexicon = system.agent.tools.lexicon
    system.bind(Resources(catalogue=system.resources.catalogue, systems={"another": object()}))
    assert system.agent.tools.lexicon is lexicon
    system.bind(Resources(catalogue=data().items.clone()))
    assert system.agent.tools.lexicon is not lexicon


def test_likeness_comes_from_vectors_of_another_system_too() -> None:
    fitted = fit("interecagent", data(), {"similar": {"name": "puresvd", "config": {"dim": 8}}, "content": 0.0})
    system = fitted.system
    vectors = np.asarray(system.kin.items())
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    system.bind(Resources(chat=planned(SoftFilter(like=(title(9),)), Ranking(by="similarity")), catalogue=data().items))
    shown, _, _, _ = act(system, begun(system, "like that"))
    order = [n for n in np.argsort(-(unit @ unit[9]), kind="stable").tolist() if n != 9]
    assert shown == order[:5]


# -- calls


GOLD = (HardFilter(where="'comedy' = ANY(genres)"), Ranking(by="popularity"), Show(k=5))


def test_a_turn_costs_two_calls_when_planned_and_tools_and_one_step_by_step() -> None:
    first = Counted(planned(*GOLD))
    system = agent(first, profile_every=0)
    by_plan, _, _, _ = act(system, begun(system, "a comedy"))
    assert {task: spent.calls for task, spent in first.account().items()} == {"plan": 1, "reply": 1}
    steps = Scripted(step=lambda given: NextStep(step=GOLD[len(given.trace)]), reply=lambda _: Reply(text="Here."))
    second = Counted(steps)
    system = agent(second, profile_every=0, execution="step")
    by_step, _, _, _ = act(system, begun(system, "a comedy"))
    assert second.total().calls == len(GOLD) + 1 and by_step == by_plan
    assert [len(given.trace) for task, given in steps.asked if task == "step"] == [0, 1, 2]


def test_step_by_step_takes_no_step_that_would_undo_a_filter() -> None:
    later = iter([GOLD[0], Named(names=(title(0),)), GOLD[1], None])
    chat = Scripted(step=lambda _: NextStep(step=next(later)), reply=lambda _: Reply(text="Here."))
    system = agent(chat, execution="step", profile_every=0)
    shown, _, trace, _ = act(system, begun(system, "a comedy"))
    assert len(shown) == 5 and all("comedy" in data().items["genres"][n] for n in shown)
    assert [(step["tool"], step["failed"]) for step in trace] == [
        ("hard filter", False),
        ("store", True),
        ("ranking", False),
        ("map", False),
    ]


def test_an_endless_model_is_stopped() -> None:
    chat = Scripted(step=lambda _: NextStep(step=LookUp()), reply=lambda _: Reply(text="Here."))
    system = agent(chat, execution="step", profile_every=0)
    shown, _, trace, _ = act(system, begun(system, "a comedy"))
    assert len(shown) == 5 and len(trace) == 13


def test_a_critic_mends_wrong_plans() -> None:
    """Each first plan looks for another genre than the person asks for; the critic says so."""
    genres = ["comedy", "drama", "horror", "crime"]

    def plan(given: Any) -> Plan:
        wanted = given.advice or "western"
        return Plan(steps=(HardFilter(where=f"'{wanted}' = ANY(genres)"), Ranking(), Show(k=5)))

    def critic(given: Any) -> Verdict:
        right = given.text in given.trace[0].input
        return Verdict(good=right, advice="" if right else given.text)

    hits = {}
    for reflections in (0, 3):
        chat = Counted(Scripted(plan=plan, critic=critic, reply=lambda _: Reply(text="Here.")))
        system = agent(chat, reflections=reflections, profile_every=0)
        lists = [act(system, begun(system, genre))[0] for genre in genres]
        hits[reflections] = sum(
            genre in data().items["genres"][n] for genre, row in zip(genres, lists, strict=True) for n in row
        )
        calls = {task: spent.calls for task, spent in chat.account().items()}
        assert calls == ({"plan": 4, "reply": 4} if not reflections else {"plan": 8, "reply": 8, "critic": 8})
    assert hits[3] == 20 > hits[0]


def test_a_critic_who_is_never_content_is_heard_three_times_and_one_who_cannot_be_read_is_content() -> None:
    never = Counted(planned(*GOLD, critic=lambda _: Verdict(good=False, advice="again")))
    system = agent(never, reflections=3, profile_every=0)
    shown, _, trace, _ = act(system, begun(system, "a comedy"))
    assert len(shown) == 5 and never.account()["plan"].calls == 4
    assert sum(step["tool"] == "critic" for step in trace) == 3
    for mumble in (lambda _: ChatError("no verdict"), lambda _: {"good": "perhaps", "also": 1}):
        mumbling = Counted(planned(*GOLD, critic=mumble))
        system = agent(mumbling, reflections=3, profile_every=0)
        assert len(act(system, begun(system, "a comedy"))[0]) == 5 and mumbling.account()["plan"].calls == 1


def test_a_second_plan_that_cannot_be_had_leaves_the_first() -> None:
    plans = iter([Plan(steps=GOLD), ChatError("gone")])
    chat = Scripted(
        plan=lambda _: next(plans),
        reply=lambda _: Reply(text="Here."),
        critic=lambda _: Verdict(good=False, advice="again"),
    )
    system = agent(chat, reflections=1, profile_every=0)
    shown, text, _, _ = act(system, begun(system, "a comedy"))
    assert text == "Here." and all("comedy" in data().items["genres"][n] for n in shown)


# -- when the model fails


@pytest.mark.parametrize(
    "failure",
    [ChatError("it is down"), TimeoutError(), ConnectionError("secret: k3y"), {"steps": "nonsense"}, {}],
    ids=["down", "late", "lost", "unreadable", "empty"],
)
def test_where_the_model_fails_the_most_chosen_come_and_it_is_said(failure: Any) -> None:
    system = agent(Scripted(plan=lambda _: failure), profile_every=0)
    session = begun(system, "a comedy", exclude=Jagged.from_lists([[0, 1, 2]], dtype=np.int32))
    shown, text, trace, after = act(system, session)
    allowed = np.setdiff1d(np.arange(N), [0, 1, 2])
    assert len(shown) == 5 and "most people choose" in text
    assert system.popularity[shown].min() >= np.sort(system.popularity[allowed])[-5]
    assert trace[-1]["failed"] and "k3y" not in str(trace)
    assert after.dialogue[0] == ("person", "a comedy")  # and the conversation goes on
    assert act(system, told(system, after, "and now?"))[3].turns == 2


def test_where_the_words_fail_the_list_stands() -> None:
    system = agent(Scripted(plan=lambda _: Plan(steps=GOLD), reply=lambda _: ChatError("no")), profile_every=0)
    shown, text, _, _ = act(system, begun(system, "a comedy"))
    assert len(shown) == 5 and text == "Here is what fits best."


def test_without_a_catalogue_it_says_what_to_bind() -> None:
    system = agent()
    system.bind(Resources())
    with pytest.raises(CapabilityError, match="catalogue"):
        system.act([begun(system, "a comedy")])
    stepwise = agent(execution="step")
    with pytest.raises(CapabilityError, match="language model"):
        stepwise.act([begun(stepwise, "a comedy")])


# -- sessions


def test_it_is_what_it_claims_to_be() -> None:
    system = agent()
    assert isinstance(system, Acts) and isinstance(system, Narrates)
    assert isinstance(system, Profiles) and isinstance(system, Binds)


def test_many_sessions_at_once_are_answered_as_each_alone_and_states_can_be_stored() -> None:
    system = agent(diverse=True)
    texts = ["a comedy", "something like " + title(4), "cheap horror", "hello", "no drama please"]
    requests = Requests.of_items(
        [[n] for n in range(5)], text=np.array(texts, dtype=object), seeds=np.arange(5, dtype=np.uint64)
    )
    sessions = system.begin(requests)
    actions, after = system.act(sessions)
    for b, session in enumerate(sessions):
        stored = decoded(encoded(session), system.State)
        shown, text, _, alone = act(system, stored)
        row = actions.slates.items[b]
        assert shown == row[row >= 0].tolist() and text == actions.text[b]
        assert encoded(alone) == encoded(after[b])
    assert (np.diff(np.where(actions.slates.items >= 0, actions.slates.scores, -1e9)) <= 0).all()


def test_steps_are_told_as_they_are_done() -> None:
    system = agent(planned(*GOLD), profile_every=0)
    telling = system.narrate([begun(system, "a comedy")])
    row, step = next(telling)
    assert (row, step["tool"], step["failed"]) == (0, "hard filter", False)
    rest = [next(telling)[1], next(telling)[1]]
    with pytest.raises(StopIteration) as done:
        next(telling)
    actions, _ = done.value.value
    assert actions.content[0]["trace"] == [step, *rest] and len(rest) == 2


def test_without_a_word_it_ranks_by_preference_and_asks_nobody() -> None:
    system = agent(Scripted())
    history = data().histories(("item",))[3]["item"].tolist()
    shown, text, _, _ = act(system, begun(system, history=history, users=np.array([3])))
    own = system.retrieve(Requests.of_items([history], exclude=Jagged.from_lists([history], dtype=np.int32)), 5)
    assert shown == own.items[0].tolist() and text.endswith("?")


def test_a_dialogue_keeps_to_its_budget() -> None:
    system = agent(planned(*GOLD, reply="word " * 40), profile_every=0, memory=64)
    session = begun(system, "one two three")
    for n in range(6):
        *_, session = act(system, session)
        assert sum(len(text.split()) for _, text in session.dialogue) <= 64
        session = told(system, session, f"more {n} " + "and " * 10)
    assert session.dialogue[-1][0] == "system" and len(encoded(session)) < 4000


def test_likes_and_refusals_move_into_the_profile_and_the_lists() -> None:
    system = agent(planned(Ranking(by="popularity"), Show(k=3)), profile_every=0)
    session = begun(system, "what is popular?")
    [first, second, third], _, _, session = act(system, session)
    events = Columns(
        item=np.array([first, second, third, 9], dtype=np.int32),
        kind=np.array(["dislike", "like", "purchase", "impression"], dtype=object),
        value=np.ones(4, dtype=np.float32),
    )
    feedback = Feedback(Requests.of_users([-1]), events=Jagged(events, np.array([0, 4])), text=said("and now?"))
    [session] = system.observe([session], feedback)
    assert system.profile(session) == {
        "history": [title(third)],
        "liked": [title(second)],
        "unwanted": [title(first)],
    }
    shown, *_ = act(system, session)
    assert first not in shown and second in shown


def test_a_profile_grows_from_words_and_can_be_read_corrected_and_erased() -> None:
    found = iter([{"liked": ("comedies", title(3))}, {"liked": (title(4),), "unwanted": ("comedies",)}, {}])
    system = agent(planned(*GOLD, profile=lambda _: Profile(**next(found))))
    *_, session = act(system, begun(system, f"I like comedies, and I loved {title(3)}"))
    assert system.profile(session)["liked"] == ["comedies", title(3)]
    *_, session = act(system, told(system, session, f"no more comedies. {title(4)} was good"))
    assert system.profile(session) == {"history": [], "liked": [title(3), title(4)], "unwanted": ["comedies"]}
    mended = system.with_profile(session, {"liked": [title(4), "short films"], "history": [title(7)]})
    assert system.profile(mended) == {"history": [title(7)], "liked": [title(4), "short films"], "unwanted": []}
    assert mended.history == (7,) and mended.dialogue == ()
    erased = system.with_profile(session, {})
    assert not any(system.profile(erased).values()) and "comedies" not in encoded(erased).decode()


def test_a_profile_is_renewed_every_so_many_turns() -> None:
    chat = planned(*GOLD, profile=lambda _: Profile())
    system = agent(chat, profile_every=3)
    session = begun(system, "one")
    for n in range(6):
        *_, session = act(system, session)
        session = told(system, session, f"turn {n}")
    asked = [given for task, given in chat.asked if task == "profile"]
    assert len(asked) == 2 and [turn.text for turn in asked[0].turns if turn.who == "person"] == [
        "one",
        "turn 0",
        "turn 1",
    ]


def test_demonstrations_near_to_the_request_are_shown_to_the_model() -> None:
    chat = planned(*GOLD)
    system = agent(chat, profile_every=0, demonstrations=3, domain="film")
    act(system, begun(system, "more like Alien, please"))
    [asked] = [given for task, given in chat.asked if task == "plan"]
    assert asked.demonstrations[0].request == "More like ITEM A" and len(asked.demonstrations) == 3
    assert {column.name for column in asked.columns} >= {"genres", "year", "price"}


def test_sql_runs_only_where_it_is_wanted() -> None:
    pytest.importorskip("duckdb")
    select = HardFilter(where="SELECT item FROM items WHERE list_contains(genres, 'comedy') ORDER BY year LIMIT 4")
    chat = planned(select, Show(k=9))
    typed = agent(chat, profile_every=0)
    assert act(typed, begun(typed, "old comedies"))[0] == []
    free = agent(chat, profile_every=0, filters="sql")
    shown, _, trace, _ = act(free, begun(free, "old comedies", exclude=Jagged.from_lists([[7]], dtype=np.int32)))
    comedies = data().items.with_row_index("n").filter(pl.col("genres").list.contains("comedy") & (pl.col("n") != 7))
    assert [data().items["year"][n] for n in shown] == comedies.sort("year")["year"].head(4).to_list()
    assert "by SQL" in trace[0]["output"]
    hostile = agent(planned(HardFilter(where="SELECT * FROM read_csv('/etc/passwd')"), Show(k=9)), filters="sql")
    assert act(hostile, begun(hostile, "read"))[0] == []


# -- what a bundle keeps


def test_a_bundle_opens_with_its_ranker_inside_and_converses(tmp_path: Any) -> None:
    bundle().save(tmp_path / "agent")
    opened = Bundle.load(tmp_path / "agent", Resources(chat=planned(*GOLD)))
    session = begun(opened.system, "a comedy", [1, 2])
    there = agent(planned(*GOLD))
    assert act(opened.system, session)[0] == act(there, session)[0]
    own = Bundle.load(tmp_path / "agent")  # the embedded planner, without a key
    shown, *_ = act(own.system, begun(own.system, "I want a comedy"))
    assert shown and all("comedy" in data().items["genres"][n] for n in shown)


def test_damaged_state_is_refused() -> None:
    whole = bundle().system.export()
    for name, wrong in [
        ("popularity", np.zeros(3, dtype=np.float32)),
        ("texts", np.full((N, 2), np.nan, dtype=np.float32)),
        ("latest", np.zeros(2, dtype=np.int64)),
        ("examples", np.frombuffer(b"[1]", dtype=np.uint8)),
        ("ranker.start", np.zeros(2, dtype=np.float32)),
    ]:
        system = type(bundle().system)(bundle().config, bundle().schema)
        with pytest.raises(BundleError):
            system.restore({**whole, name: wrong})
