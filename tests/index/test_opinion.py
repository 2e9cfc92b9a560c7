"""What another system thinks of items, by whatever it can do, without a matrix of items by items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tastemaker.index.opinion import Opinion
from tastemaker.types import Requests, Slates

N, D = 50, 6
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(N, D)).astype(np.float32)
TABLE = RNG.random((N, N)).astype(np.float32)


class Vectors:
    def queries(self, requests: Requests) -> Any:
        return np.stack([VECTORS[row].sum(axis=0) for row in requests.items()])

    def items(self, numbers: Any = None) -> Any:
        return VECTORS if numbers is None else VECTORS[numbers]


class Rows:
    def score(self, requests: Requests, items: Any = None) -> Any:
        rows = np.stack([TABLE[row].sum(axis=0) for row in requests.items()])
        return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)


class Few:
    """Lists of three at most."""

    def retrieve(self, requests: Requests, k: int) -> Slates:
        rows = Rows().score(requests)
        if requests.candidates is not None:
            for row, allowed in zip(rows, requests.candidates, strict=True):
                row[np.setdiff1d(np.arange(N), allowed)] = -np.inf
        order = np.argsort(-rows, axis=1, kind="stable")[:, :3].astype(np.int32)
        items = np.pad(order, ((0, 0), (0, max(0, k - 3))), constant_values=-1)[:, :k]
        scores = np.where(items >= 0, np.take_along_axis(rows, np.maximum(items, 0), 1), -np.inf)
        return Slates(np.where(np.isfinite(scores), items, -1), scores)


@pytest.mark.parametrize("system", [Vectors(), Rows()])
@pytest.mark.parametrize("n", [7, N])
def test_items_come_in_the_order_the_system_sees_them(system: Any, n: int) -> None:
    prefer = np.array([3, 8], dtype=np.int32)
    items = RNG.permutation(N)[:n].astype(np.int32)
    whole = VECTORS @ VECTORS[prefer].sum(axis=0) if isinstance(system, Vectors) else TABLE[prefer].sum(axis=0)
    found, scores = Opinion(system, N).suited(prefer, items, 5)
    wanted = items[np.argsort(-whole[items], kind="stable")][:5]
    assert found.tolist() == wanted.tolist() and np.allclose(scores, whole[wanted], rtol=1e-4)


def test_what_a_system_has_no_opinion_of_follows_in_the_order_given() -> None:
    prefer, items = np.array([3], dtype=np.int32), np.arange(40, 20, -1, dtype=np.int32)
    found, scores = Opinion(Few(), N).suited(prefer, items, 8)
    best = items[np.argsort(-TABLE[3][items], kind="stable")][:3].tolist()
    assert found[:3].tolist() == best
    assert found[3:].tolist() == [n for n in items.tolist() if n not in best][:5] and (np.diff(scores) <= 0).all()


def test_likeness_is_the_mean_over_seeds() -> None:
    seeds = np.array([4, 9], dtype=np.int32)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    assert np.allclose(Opinion(Vectors(), N).alike(seeds), (unit @ unit[seeds].T).mean(axis=1), atol=1e-5)
    assert np.allclose(Opinion(Rows(), N).alike(seeds), TABLE[seeds].mean(axis=0), atol=1e-6)
    alike = Opinion(Few(), N).alike(seeds)
    assert (alike > 0).sum() <= 6 and alike.argmax() in np.argsort(-TABLE[seeds], axis=1)[:, :3]


@pytest.mark.parametrize("latest", [None, 5_000])
def test_histories_have_times_where_the_system_knows_times(latest: int | None) -> None:
    class Asked(Rows):
        def score(self, requests: Requests, items: Any = None) -> Any:
            assert requests.history is not None and requests.users is not None
            if latest is None:
                assert "time" not in requests.history.values
            else:
                assert requests.history.values["time"].tolist() == [5001, 5002]
            assert requests.users.tolist() == [7]
            return super().score(requests, items)

    Opinion(Asked(), N, latest).suited(np.array([1, 2]), np.arange(10, dtype=np.int32), 3, user=7, seed=1)
