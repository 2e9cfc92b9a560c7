"""States of conversations: what is drawn has what it must, and the order of questions is the rule's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.feeds import confirmed
from tastemaker.types import Attributes, Jagged

N_USERS, N_ITEMS, N_TAGS, TURNS = 40, 60, 9, 4


def world(columns: bool = False) -> tuple[sp.csr_array, Attributes]:
    rng = np.random.default_rng(2)
    has = rng.random((N_ITEMS, N_TAGS)) < rng.uniform(0.1, 0.6, N_TAGS)
    has[5] = False  # an item without attributes
    chosen = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.2).astype(np.float32))
    rows, numbers = np.nonzero(has)
    owned = Jagged.from_rows(rows, numbers.astype(np.int32), N_ITEMS)
    names = tuple((f"c{n // 3}" if columns else "tag", f"t{n}") for n in range(N_TAGS))
    return chosen, Attributes(tuple(dict.fromkeys(c for c, _ in names)), names, frozenset(), owned)


@cache
def talked(columns: bool, item: int, first: int) -> list[set[int]]:
    attributes = world(columns)[1]
    of = attributes.column if columns else np.arange(N_TAGS)
    return talk(attributes.of_items(np.arange(N_ITEMS)), item, first, of)


def talk(has: np.ndarray, item: int, first: int, of: np.ndarray) -> list[set[int]]:
    """What is known after each confirmation, in a conversation that begins with `first`."""
    known, asked, found = {first}, {of[first]}, [{first}]
    for _ in range(TURNS):
        left = has[:, sorted(known)].all(axis=1)
        share = has[left].mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.nan_to_num(-share * np.log(share)) + np.nan_to_num(-(1 - share) * np.log(1 - share))
        tells = [each[of == facet].sum() if facet not in asked else -1.0 for facet in range(of.max() + 1)]
        best = int(np.argmax(tells))
        if tells[best] <= 0:
            break
        asked.add(best)
        more = {a for a in range(N_TAGS) if of[a] == best and has[item, a]} - known
        if more:
            known = known | more
            found.append(set(known))
    return found


@pytest.mark.parametrize("columns", [False, True])
def test_rows_are_states_of_the_rule_s_conversations(columns: bool) -> None:
    chosen, attributes = world(columns)
    has = attributes.of_items(np.arange(N_ITEMS))
    of = attributes.column if columns else np.arange(N_TAGS)
    feed = confirmed(chosen, attributes, 64, turns=TURNS, facet=of, n_facets=int(of.max()) + 1)
    seen, none, depths = 0, 0, set()
    for epoch in range(1):
        for number in range(len(feed)):
            batch = feed.batch(epoch, number)
            for row in range(len(batch)):
                user, item = batch.users[row], batch.items[row]
                known = set(np.flatnonzero(batch.known[row]).tolist())
                assert chosen[user, item] and item != 5
                assert any(known in talked(columns, int(item), int(first)) for first in np.flatnonzero(has[item]))
                depths.add(len(known))
                assert not chosen[user, batch.others[row]]
                like = has[:, sorted(known)].all(axis=1) & (chosen[[user]].toarray()[0] == 0)
                assert like[batch.near[row]] if batch.near[row] >= 0 else not like.any()
                wanted, unwanted = batch.wanted[row], batch.unwanted[row]
                assert (
                    wanted < 0 if known == set(np.flatnonzero(has[item])) else has[item, wanted] and wanted not in known
                )
                assert not has[item, unwanted]
                seen, none = seen + 1, none + (batch.near[row] < 0)
    assert seen == int((chosen.toarray()[:, np.arange(N_ITEMS) != 5] > 0).sum()) and none < seen
    assert {1, 2, 3} <= depths, "states come from all depths of a conversation"


def test_a_batch_depends_on_its_number_alone() -> None:
    chosen, attributes = world()
    made = [confirmed(chosen, attributes, 50, turns=TURNS, facet=np.arange(N_TAGS), n_facets=N_TAGS) for _ in range(2)]
    for feed in made:
        feed.start(5)
    one, other = made[0].batch(1, 2), list(made[1].batch(1, n) for n in range(3))[2]
    for name in ("users", "items", "known", "others", "near", "wanted", "unwanted"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert not np.array_equal(one.known, made[0].batch(2, 2).known)
