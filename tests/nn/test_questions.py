"""Sessions that ask, against direct computations of one at a time; and reflection, which moves only its own session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tastemaker.nn.questions import Questions, Talk, Talks, size_bins
from tastemaker.nn.reflection import Tables, reflected
from tastemaker.serve.states import decoded, encoded
from tastemaker.types import Attributes, Columns, Feedback, ItemFilter, Jagged, Requests, request_seeds

N_ITEMS, N_TAGS, DIM = 50, 7, 4
RNG = np.random.default_rng(1)
HAS = RNG.random((N_ITEMS, N_TAGS)) < 0.4


def attributes() -> Attributes:
    """Tags 0 to 3 of one column, several an item; 4 to 6 of another, one an item at most."""
    has = HAS.copy()
    has[:, 4:] &= np.cumsum(has[:, 4:], axis=1) == 1
    rows, numbers = np.nonzero(has)
    names = tuple(("tags" if n < 4 else "town", f"t{n}") for n in range(N_TAGS))
    owned = Jagged.from_rows(rows, numbers.astype(np.int32), N_ITEMS)
    return Attributes(("tags", "town"), names, frozenset({"town"}), owned)


def rules(wholes: bool = False) -> Questions:
    return Questions(attributes(), 5, 3, wholes, N_TAGS + 2)


def asked(n: int = 6) -> Requests:
    told = Columns(
        attribute=np.array(["tags"] * n, dtype=object), value=np.array([f"t{i % 4}" for i in range(n)], object)
    )
    past = Jagged.from_lists([[i, i + 10] if i else [] for i in range(n)], dtype=np.int32)
    history = Jagged(Columns(item=past.values), past.offsets)
    return Requests(n, users=np.arange(n), history=history, exclude=past, context=told, seeds=request_seeds(n, 2))


def tables() -> Tables:
    rng = np.random.default_rng(3)
    return Tables(
        *(rng.standard_normal(size).astype(np.float32) for size in ((4, DIM), DIM, (N_ITEMS, DIM), (N_TAGS + 2, DIM)))
    )


def turned(refuse: bool) -> tuple[Talks, np.ndarray[Any, Any]]:
    """Six sessions that have shown a list of three, and what came back."""
    q = rules()
    talks = q.begin(asked(), DIM)
    items = np.stack([np.flatnonzero(row)[:3] for row in q.free(talks)]).astype(np.int32)
    _, talks = q.acted(talks, np.full(6, q.n_facets), items, np.zeros((6, 3), dtype=np.float32))
    taken = np.full(6, "accept", dtype=object)
    taken[: 4 if refuse else 0] = "impression"
    events = Columns(item=items[:, 0], position=np.zeros(6, int), kind=taken, value=np.ones(6), time=np.zeros(6, int))
    return q.heard(talks, Feedback(asked(), events=Jagged(events, np.arange(7))))


@pytest.mark.parametrize("wholes", [False, True])
def test_entropies_are_those_of_a_direct_computation(wholes: bool) -> None:
    q, has = rules(wholes), attributes().of_items(np.arange(N_ITEMS))
    talks = q.begin(asked(), DIM)
    told, sizes = q.entropies(talks, q.free(talks))
    for row in range(6):
        left = [i for i in range(N_ITEMS) if has[i, row % 4] and i not in ((row, row + 10) if row else ())]
        assert sizes[row] == len(left) and np.flatnonzero(q.free(talks)[row]).tolist() == left
        for facet in range(q.n_facets):
            members = [a for a in range(N_TAGS) if (a >= 4 if facet else a < 4)] if wholes else [facet]
            bits = 0.0
            for a in members:
                p = has[left, a].mean() if a < N_TAGS else 0.0
                for share in (p,) if wholes and facet else (p, 1 - p):
                    bits -= share * np.log2(share) if share > 0 else 0.0
            spoken = facet == (0 if wholes else row % 4)
            assert told[row, facet] == pytest.approx(0.0 if spoken else bits, abs=1e-6)
    assert np.array_equal(size_bins(np.array([0, 10, 11, 1000, 1001])).argmax(axis=1), [0, 0, 1, 6, 7])


def test_a_yes_leaves_items_that_have_it_and_a_no_leaves_all() -> None:
    q = rules()
    talks = q.begin(asked(2), DIM)
    before = q.free(talks)
    actions, talks = q.acted(talks, np.array([5, 5]), np.zeros((2, 3), np.int32), np.zeros((2, 3), np.float32))
    assert actions.ask is not None and list(actions.ask["values"]) == [("t5",)] * 2 and actions.slates is not None
    assert (actions.slates.items == -1).all()
    replies = Columns(attribute=actions.ask["attribute"], value=np.array(["t5", "t5"], object), reply=np.array([1, 0]))
    talks, refused = q.heard(talks, Feedback(asked(2), answers=replies))
    after = q.free(talks)
    assert np.array_equal(after[0], before[0] & attributes().of_items(np.arange(N_ITEMS))[:, 5])
    assert np.array_equal(after[1], before[1]) and not refused.any()
    assert talks.heard[:, 0].tolist() == [1, 0] and talks.known[:, 5].tolist() == [True, False]
    assert talks.asked[:, 5].all() and talks.asked[:, N_TAGS:].all(), "what stands for nothing is never open"


def test_a_refused_list_is_gone_and_candidates_and_filters_hold() -> None:
    talks, refused = turned(refuse=True)
    assert refused.tolist() == [True] * 4 + [False] * 2 and talks.heard[:, 0].tolist() == [-1] * 4 + [0] * 2
    free = rules().free(talks)
    assert not np.take_along_axis(free, talks.shown.astype(np.int64), axis=1).any()
    allowed = np.zeros((1, N_ITEMS), dtype=bool)
    allowed[0, 20:30] = True
    some = Requests(2, candidates=Jagged.from_lists([[21, 40], [22]]), filter=ItemFilter(allowed, np.array([0, -1])))
    assert [np.flatnonzero(row).tolist() for row in rules().free(rules().begin(some, DIM))] == [[21], [22]]


def test_scores_are_the_machine_s_pairs() -> None:
    """All pairs of (u, v, P) but those of P, which no item changes: a factorisation machine's, by its own formula."""
    t, talks = tables(), rules().begin(asked(), DIM)
    scores = t.scores(talks)
    for row in range(6):
        user = t.users[row] if row < 4 else t.stranger
        known = t.attributes[np.flatnonzero(talks.known[row])]
        for item in (0, 7, 49):
            every = np.stack([user, t.items[item], *known])
            pairs = (every.sum(axis=0) ** 2 - (every**2).sum(axis=0)).sum() / 2
            without = (
                np.stack([user, *known]).sum(axis=0) ** 2 - (np.stack([user, *known]) ** 2).sum(axis=0)
            ).sum() / 2
            assert scores[row, item] == pytest.approx(pairs - without, rel=1e-4, abs=1e-4)


def direct(t: Tables, talks: Talks, row: int, how: dict[str, Any]) -> tuple[Any, Any, Any]:
    """One session's reflection by torch's descent over copies of the whole tables, pairs as the session drew them."""
    from tastemaker.nn.draws import uniforms
    from tastemaker.types import mix

    user, items, tags = (
        torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (t.users[row], t.items, t.attributes)
    )
    known, past, shown = np.flatnonzero(talks.known[row]), talks.past[row].astype(int), talks.shown[row].astype(int)
    optimiser = torch.optim.SGD([user, items, tags], lr=how["lr"])
    for step in range(how["passes"]):
        luck = uniforms(mix(talks.seed[[row]] ^ mix(talks.turn[[row]])[:, None], 11 + step), np.arange(32)[None])[0]
        good = past[(np.arange(32) + 32 * step) % len(past)]
        bad = shown[(luck * len(shown)).astype(int)]
        query = user + tags[known].sum(dim=0)
        loss = torch.nn.functional.softplus(((items[bad] - items[good]) * query).sum(dim=1)).sum()
        used = np.unique(np.concatenate([past, shown]))
        loss = loss + how["reg"] * (user.square().sum() + tags[known].square().sum() + items[used].square().sum())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return user, items, tags


def test_reflection_is_descent_on_copies_and_moves_nobody_else() -> None:
    t, how = tables(), {"lr": 0.05, "reg": 0.01, "passes": 3}
    kept = [a.copy() for a in (t.users, t.stranger, t.items, t.attributes)]
    talks, refused = turned(refuse=True)
    after = reflected(t, talks, refused, spread=False, **how)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (t.users, t.stranger, t.items, t.attributes), strict=True))
    assert not len(after.moved[0]), "nothing is in this history"
    assert after.moved.lengths[4:].tolist() == [0, 0], "these took their list"
    assert np.array_equal(t.scores(after)[4:], t.scores(talks)[4:]) and np.array_equal(
        t.scores(after)[0], t.scores(talks)[0]
    )
    for row in (1, 2, 3):
        user, items, tags = direct(t, talks, row, how)
        query = (user + tags[np.flatnonzero(talks.known[row])].sum(dim=0)).detach().numpy()
        np.testing.assert_allclose(t.queries(after)[row], query, rtol=1e-5)
        left = np.setdiff1d(np.arange(N_ITEMS), talks.shown[row])
        np.testing.assert_allclose(
            t.scores(after)[row, left], (items.detach().numpy() @ query)[left], rtol=1e-4, atol=1e-5
        )
        assert _gap(t, after, row) > _gap(t, talks, row)


def _gap(t: Tables, talks: Talks, row: int) -> float:
    """How far the history lies above what was shown, by the vectors as the session has them."""
    return float(
        t.scores(talks)[row, talks.past[row]].mean() - (t.items[talks.shown[row]] @ t.queries(talks)[row]).mean()
    )


def test_a_second_reflection_goes_on_from_the_first_and_draws_beside() -> None:
    t = tables()
    talks, refused = turned(refuse=True)
    once = reflected(t, talks, refused, lr=0.05, reg=0.0, passes=2, spread=False)
    again = reflected(t, once, refused, lr=0.05, reg=0.0, passes=2, spread=False)
    assert not np.allclose(t.queries(again)[1], t.queries(once)[1])
    assert np.array_equal(again.moved[1], once.moved[1]) and (np.diff(again.moved[1]) > 0).all()
    wide = reflected(t, talks, refused, lr=0.05, reg=0.0, passes=2, spread=True)
    drawn = set(wide.moved[2].tolist()) - set(once.moved[2].tolist())
    assert drawn and not drawn & {1 + i for i in (*talks.past[2].tolist(), *talks.shown[2].tolist())}


def test_a_session_is_stored_and_read_back_whole() -> None:
    talks, refused = turned(refuse=True)
    for one in reflected(tables(), talks, refused, lr=0.05, reg=0.0, passes=1, spread=False).apart():
        back = decoded(encoded(one), Talk)
        again, first = Talks.of([back]), Talks.of([one])
        assert np.array_equal(tables().scores(again), tables().scores(first))
        assert again.known.tolist() == first.known.tolist() and again.left.tolist() == first.left.tolist()
        assert again.user.tolist() == first.user.tolist() and np.array_equal(again.seed, first.seed)
