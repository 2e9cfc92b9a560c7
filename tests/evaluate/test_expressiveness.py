"""Closeness, colours and what systems tell apart, on graphs whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.contracts import find
from tastemaker.data import split, synthetic
from tastemaker.evaluate import closeness
from tastemaker.evaluate.expressiveness import look_alike, nodes_told_apart, refine, walks
from tastemaker.train import fit
from tastemaker.types import CapabilityError, Dataset, Requests, UsageError

RNG = np.random.default_rng(3)


def dataset(matrix: Any) -> Dataset:
    users, items = np.nonzero(np.asarray(matrix))
    events = pl.DataFrame({"user": users, "item": items}).cast(pl.Int32)
    n_users, n_items = np.shape(matrix)
    return Dataset("toy", pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": range(n_items)}), events)


def csr(matrix: Any) -> sp.csr_array:
    return sp.csr_array(np.asarray(matrix, dtype=np.float32))


class Fixed:
    """A system with given scores."""

    def __init__(self, scores: Any) -> None:
        self.scores = np.asarray(scores, dtype=np.float32)

    def score(self, requests: Requests, items: Any = None) -> Any:
        rows = self.scores[requests.users]
        return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)


def tau_b(x: Any, y: Any) -> float:
    """Kendall's tau-b pair by pair."""
    a, b = np.sign(np.subtract.outer(x, x)), np.sign(np.subtract.outer(y, y))
    untied = np.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / untied) if untied else 0.0


CHOSEN = (RNG.random((30, 25)) < 0.15).astype(int)
SHORT_WALKS = CHOSEN @ CHOSEN.T @ CHOSEN


# -- links


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 3, 5]), st.integers(0, 2**32))
def test_walks_are_powers_of_the_adjacency_matrix(n: int, m: int, hops: int, seed: int) -> None:
    chosen = (np.random.default_rng(seed).random((n, m)) < 0.4).astype(int)
    adjacency = np.block([[np.zeros((n, n), dtype=int), chosen], [chosen.T, np.zeros((m, m), dtype=int)]])
    expected = np.linalg.matrix_power(adjacency, hops)[:n, n:]
    users = np.arange(n)[::-1]
    np.testing.assert_array_equal(walks(csr(chosen), users, hops).toarray(), expected[users])


@pytest.mark.parametrize("hops", [3, 5])
def test_closeness_is_the_mean_tau_of_new_items_within_reach(hops: int) -> None:
    scores = RNG.standard_normal(CHOSEN.shape).round(1)  # with ties
    counts = CHOSEN @ np.linalg.matrix_power(CHOSEN.T @ CHOSEN, hops // 2)
    taus = []
    for user in range(30):
        there = (counts[user] > 0) & (CHOSEN[user] == 0)
        if len(set(counts[user, there])) > 1:
            taus.append(tau_b(scores[user, there], counts[user, there]))
    found = closeness(Fixed(scores), dataset(CHOSEN), hops=hops)
    np.testing.assert_allclose(found.taus, taus, atol=1e-9)
    assert found.tau.mean == pytest.approx(np.mean(taus)) and found.tau.n == len(taus)
    assert found.tau.low is not None and found.tau.low <= found.tau.mean <= found.tau.high  # type: ignore[operator]


def test_scores_that_order_as_walks_do_are_perfect_and_reversed_ones_the_opposite() -> None:
    data = dataset(CHOSEN)
    assert closeness(fit("gte", data), data).tau.mean == 1.0
    assert closeness(Fixed(np.sqrt(SHORT_WALKS)), data).tau.mean == pytest.approx(1.0)
    assert closeness(Fixed(-SHORT_WALKS), data).tau.mean == pytest.approx(-1.0)
    assert closeness(Fixed(np.zeros(CHOSEN.shape)), data).tau.mean == 0.0


def test_longer_walks_are_another_measure() -> None:
    data = dataset(CHOSEN)
    five = fit("gte", data, {"n_layers": 5})
    assert closeness(five, data, hops=3).tau.mean < 1.0
    assert 0.5 < closeness(fit("gte", data), data, hops=5).tau.mean < 1.0


def test_trained_smoothing_is_closer_than_ids_alone_and_chance_is_not_close() -> None:
    parts = split(synthetic(300, n_items=200, seed=3), "ratio:0.8,0,0.2", seed=5)
    small = {"dim": 16, "lr": 0.01, "batch_size": 256, "epochs": 5, "every": 5}
    chance = closeness(fit("random", parts), parts).tau
    ids, smooth = (closeness(fit("lightgcn", parts, {**small, "n_layers": n}), parts).tau for n in (0, 3))
    assert abs(chance.mean) < 0.03
    assert chance.high < ids.low < ids.high < smooth.low  # type: ignore[operator]


def test_users_are_drawn_by_the_seed_and_those_with_nothing_to_order_are_counted() -> None:
    data = dataset(CHOSEN)
    few, again, others = (closeness(Fixed(SHORT_WALKS), data, n_users=6, seed=s) for s in (1, 1, 2))
    assert len(few.users) == 6 and np.array_equal(few.users, again.users)
    assert not np.array_equal(few.users, others.users)
    alone = closeness(Fixed(np.zeros((2, 2))), dataset(np.eye(2)))
    assert alone.undefined == 2 and np.isnan(alone.tau.mean) and len(alone.users) == 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="odd"):
        closeness(Fixed(SHORT_WALKS), dataset(CHOSEN), hops=2)
    with pytest.raises(CapabilityError, match="vectors"):
        nodes_told_apart(fit("gte", dataset(CHOSEN)), dataset(CHOSEN))


# -- nodes and graphs


def test_colours_of_a_star_a_path_and_a_lonely_node() -> None:
    #          items:  0  1  2  3 (chosen by nobody)
    colours = refine(csr([[1, 1, 0, 0], [0, 1, 1, 0]]))  # the path 0 - u0 - 1 - u1 - 2
    assert colours.users[0] == colours.users[1], "the path looks the same from both ends"
    assert colours.items[0] == colours.items[2] != colours.items[1]
    assert colours.n_users == 1 and colours.n_items == 3
    assert not set(colours.users) & set(colours.items)


def test_rounds_see_so_far_and_no_farther() -> None:
    path = np.zeros((4, 4))  # u0 - i0 - u1 - i1 - u2 - i2 - u3 - i3: a path, whose ends are a user and an item
    path[[0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3]] = 1
    assert refine(csr(path), rounds=0).n_users == 1
    assert refine(csr(path), rounds=1).n_users == 2, "degrees"
    assert refine(csr(path)).n_users == 4 and refine(csr(path)).rounds == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32))
def test_colours_go_with_the_nodes_when_they_are_renumbered(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = (rng.random((n, m)) < 0.4).astype(int)
    users, items = rng.permutation(n), rng.permutation(m)
    plain, moved = refine(csr(chosen)), refine(csr(chosen[users][:, items]))
    np.testing.assert_array_equal(
        np.equal.outer(plain.users[users], plain.users[users]), np.equal.outer(moved.users, moved.users)
    )
    assert look_alike(csr(chosen), csr(chosen[users][:, items]))


def test_refinement_tells_most_graphs_apart_and_regular_ones_not() -> None:
    ring = np.eye(6) + np.roll(np.eye(6), 1, axis=1)  # one ring of 12 nodes
    rings = np.kron(np.eye(2), np.eye(3) + np.roll(np.eye(3), 1, axis=1))  # two rings of 6
    assert look_alike(csr(ring), csr(rings)), "the known blind spot of the test"
    more = ring.copy()
    more[0, [1, 3]] = 0, 1
    assert not look_alike(csr(ring), csr(more))
    assert not look_alike(csr(ring), csr(ring[:5]))


def smoothed(data: Dataset) -> Any:
    """LightGCN before its first step."""
    info = find("lightgcn")
    system = info.cls(info.config(dim=8), data.schema)
    program = system.program(data)
    stage = program.send(None)
    program.send(stage.function(*stage.args))
    return system.eval()


def test_random_ids_tell_twins_apart_and_smoothing_alone_does_not() -> None:
    twins = np.repeat(CHOSEN[:10], 2, axis=0)  # users 2n and 2n + 1 chose the same
    data = dataset(twins)
    told = nodes_told_apart(smoothed(data), data)
    assert told.user_colours == refine(csr(twins)).n_users <= 10 < told.users == 20
    blank = smoothed(data)
    blank.table.weight.data.fill_(0.5)  # no ids: only the graph is left to tell nodes apart by
    told = nodes_told_apart(blank.eval(), data)
    assert 1 < told.users <= told.user_colours and told.items <= told.item_colours
