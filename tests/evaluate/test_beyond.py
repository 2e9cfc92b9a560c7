"""Beyond accuracy: against the published formulas, written out plainly."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest

from tastemaker.evaluate import evaluate
from tastemaker.evaluate.beyond import Popularity, Variety, entropy, evenness, spread
from tastemaker.types import Dataset, NotFound, Slates, Split, UsageError

K = 5


def reference(lists: list[list[int]], targets: list[list[int]], users: list[int], train: Dataset) -> dict[str, float]:
    """Formulas of arXiv:2309.03613 (the notes of its evaluation code), one user and one item at a time."""
    pairs = {(u, i) for u, i in train.events.select("user", "item").iter_rows()}
    users_of = np.zeros(train.n_items)
    for _, i in pairs:
        users_of[i] += 1
    n_users, total, n_items = len({u for u, _ in pairs}), users_of.sum(), train.n_items
    head, covered = set(), 0.0
    for i in np.argsort(-users_of, kind="stable"):
        if covered >= 0.8 * total:
            break
        head.add(int(i))
        covered += users_of[i]
    counts = np.zeros(n_items)
    for row in lists:
        for i in row:
            counts[i] += 1
    shown, n = np.sort(counts[counts > 0]), counts.sum()
    n_shown = len(shown)
    gini = 1 - sum((2 * (j + n_items - n_shown + 1) - n_items - 1) * c / n for j, c in enumerate(shown)) / (n_items - 1)
    weight = np.zeros(n_items)
    for row in lists:
        for i in row:
            weight[i] += 1 / len(row)
    bits = sum(weight[i] * -np.log2(counts[i] / n) for i in range(n_items) if counts[i]) / len(lists)

    def discounted(worth, row, right):
        discount = [1 / np.log2(j + 2) for j in range(len(row))]
        return sum(d * worth(i) for d, i in zip(discount, row, strict=True) if i in right) / sum(discount)

    both = list(zip(lists, targets, strict=True))
    epc = np.mean([discounted(lambda i: 1 - users_of[i] / n_users, row, set(right)) for row, right in both])
    efd = np.mean([discounted(lambda i: -np.log2(users_of[i] / total), row, set(right)) for row, right in both])

    def by_group(part, whole):
        rates = np.array([part(g) / whole(g) for g in (True, False)])
        return rates.std() / rates.mean()

    hits = [i for row, right in both for i in row if i in right]
    relevant = [i for _, right in both for i in right]
    unseen = [(u, i) for u in users for i in range(n_items) if (u, i) not in pairs]
    popreo = by_group(lambda g: sum((i in head) == g for i in hits), lambda g: sum((i in head) == g for i in relevant))
    poprsp = by_group(
        lambda g: sum((i in head) == g for row in lists for i in row),
        lambda g: sum((i in head) == g for _, i in unseen),
    )
    ranked = np.argsort(-users_of, kind="stable")
    serendipity = []
    for u, (row, right) in zip(users, both, strict=True):
        usual = [i for i in ranked if (u, i) not in pairs][:K]
        serendipity.append(sum(i in right and i not in usual for i in row) / K)
    return {
        "coverage": float((counts > 0).sum() / n_items),
        "gini": float(gini),
        "entropy": float(bits),
        "epc": float(epc),
        "efd": float(efd),
        "arp": float(np.mean([np.mean([users_of[i] for i in row]) for row in lists])),
        "aclt": float(np.mean([sum(i not in head for i in row) for row in lists])),
        "aplt": float(np.mean([np.mean([i not in head for i in row]) for row in lists])),
        "self_information": float(np.mean([np.mean([np.log2(n_users / users_of[i]) for i in row]) for row in lists])),
        "popreo": float(popreo),
        "poprsp": float(poprsp),
        "serendipity": float(np.mean(serendipity)),
    }


@pytest.mark.parametrize("short", [False, True])
def test_equal_to_the_published_formulas(parts: Split, vectors: object, short: bool) -> None:
    cases = parts.cases()
    assert cases.requests.users is not None
    lists = _lists(vectors, cases, short)
    names = ["coverage", "gini", "entropy", "epc", "efd", "arp", "aclt", "aplt", "self_information"]
    names += ["popreo", "poprsp", "serendipity"]
    report = evaluate(lists, parts, ks=(K,), metrics=names)
    rows = [[int(i) for i in row if i >= 0] for row in lists.items]
    expected = reference(rows, cases.targets.to_lists(), cases.requests.users.tolist(), parts.train)
    for name in names:
        assert report.value(f"{name}@{K}") == pytest.approx(expected[name], rel=1e-5), name


def _lists(vectors: object, cases: object, short: bool) -> Slates:
    from tastemaker.index import retriever

    lists = retriever(vectors).retrieve(cases.requests, K)  # type: ignore[attr-defined]
    if not short:
        return lists
    items = lists.items.copy()
    for row in range(0, len(items), 3):
        items[row, 1 + row % 4 :] = -1
    return Slates(items, np.where(items >= 0, lists.scores, -np.inf))


def test_popularity_counts_users_once(ring: Dataset) -> None:
    twice = ring.with_events(pl.concat([ring.events, ring.events]))
    once, again = Popularity.of(ring), Popularity.of(twice)
    np.testing.assert_array_equal(once.counts, again.counts)
    expected = ring.events.unique(["user", "item"])["item"].to_numpy()
    np.testing.assert_array_equal(once.counts, np.bincount(expected, minlength=ring.n_items))
    assert once.n_users == ring.events["user"].n_unique()
    share = once.counts[~once.tail].sum() / once.counts.sum()
    assert 0.8 <= share < 0.8 + once.counts.max() / once.counts.sum()


@pytest.mark.parametrize("by", ["genres", "items.maker", "taste", "vectors"])
def test_diversity_is_the_mean_over_pairs(ring: Dataset, by: str) -> None:
    rng = np.random.default_rng(2)
    given = rng.normal(size=(ring.n_items, 4))
    variety = Variety.of_items(given if by == "vectors" else by, ring)
    assert variety is not None
    lists = np.stack([rng.permutation(ring.n_items)[:6] for _ in range(40)]).astype(np.int32)
    lists[::4, 3:] = -1
    lists[0, 1:] = -1
    got = variety.within(lists)
    if by == "vectors":
        rows = given
    elif by == "taste":
        rows = np.array(ring.items["taste"].to_list())
    else:
        column = ring.items[by.removeprefix("items.")].to_list()
        sets = [set() if v is None else {v} if isinstance(v, str) else set(v) for v in column]
        names = sorted(set().union(*sets))
        rows = np.array([[float(name in s) for name in names] for s in sets])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / length) if length else 0.0

    for row, items in enumerate(lists):
        shown = [i for i in items if i >= 0]
        if len(shown) < 2:
            assert np.isnan(got[row])
        else:
            expected = np.mean([1 - cosine(rows[a], rows[b]) for a, b in combinations(shown, 2)])
            assert got[row] == pytest.approx(expected, abs=1e-5)


def test_diversity_takes_the_first_categories(parts: Split, vectors: object) -> None:
    report = evaluate(vectors, parts, ks=(K,))
    assert report.protocol["diversity_by"] == "items.genres"
    assert 0 < report.value(f"diversity@{K}") < 1
    with pytest.raises(NotFound, match="no column 'gernes'"):
        evaluate(vectors, parts, diversity="gernes")
    with pytest.raises(UsageError, match="holds text"):
        evaluate(vectors, parts, diversity="title")
    with pytest.raises(UsageError, match="one row an item"):
        evaluate(vectors, parts, diversity=np.ones((3, 2)))


def test_ends_of_the_scales() -> None:
    assert evenness(np.array([3, 3, 3])) == pytest.approx(1.0)
    assert evenness(np.array([9, 0, 0])) == pytest.approx(0.0)
    assert np.isnan(evenness(np.zeros(4))) and evenness(np.array([2])) == 1.0
    assert entropy(np.array([2, 2, 0]), np.array([1.0, 1.0, 0.0]), 2) == pytest.approx(1.0)
    assert spread(np.array([3, 0]), [6, 5]) == pytest.approx(1.0)
    assert spread(np.array([3, 2]), [6, 4]) == pytest.approx(0.0)
    assert np.isnan(spread(np.array([0, 0]), [6, 4])) and spread(np.array([3, 0]), [6, 0]) == 0.0
