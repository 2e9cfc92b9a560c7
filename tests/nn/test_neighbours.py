"""Nearest rows and graphs of them: against a full sort, block by block, with rows that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tastemaker.nn import neighbours
from tastemaker.nn.neighbours import (
    blended,
    dense_neighbours,
    edges,
    joined,
    nearest_rows,
    neighbour_graph,
    shares_of,
)
from tastemaker.types import BudgetExceeded, UsageError


def rows(n: int, silent: tuple[int, ...] = ()) -> torch.Tensor:
    torch.manual_seed(n)
    vectors = F.normalize(torch.randn(n, 6), dim=1)
    vectors[list(silent)] = 0
    return vectors


@pytest.mark.parametrize("block", [1 << 22, 150])
def test_the_nearest_are_those_of_a_full_sort(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    vectors = rows(70, silent=(3, 40))
    numbers, likeness = nearest_rows(vectors, 5)
    scores = vectors @ vectors.T
    scores.fill_diagonal_(9)
    scores[:, [3, 40]] = -9
    for i in range(70):
        if i in (3, 40):
            assert numbers[i].tolist() == [i, -1, -1, -1, -1] and likeness[i].tolist() == [1, 0, 0, 0, 0]
            continue
        assert numbers[i].tolist() == scores[i].argsort(descending=True)[:5].tolist()
        torch.testing.assert_close(likeness[i], scores[i, numbers[i]].clamp(max=1))
    for one, other in zip((numbers, likeness), dense_neighbours(vectors, 5), strict=True):
        torch.testing.assert_close(one, other)


def test_among_others_nobody_is_its_own() -> None:
    vectors, others = rows(8, silent=(2,)), rows(30, silent=(0,))
    numbers, likeness = nearest_rows(vectors, 40, others)
    assert (numbers[2] == -1).all() and (numbers != 0).all()
    known = [i for i in range(8) if i != 2]
    assert ((numbers[known] >= 0).sum(dim=1) == 29).all()
    torch.testing.assert_close(likeness[0, 0], (others @ vectors[0]).max())


def test_a_graph_of_ones_has_entries_of_one_over_k_and_a_weighted_one_is_normalised_on_both_sides() -> None:
    vectors = rows(40).numpy()
    plain = neighbour_graph(vectors, 4)
    assert plain.nnz == 160
    np.testing.assert_allclose(plain.data, 0.25, rtol=1e-6)
    weighted = neighbour_graph(vectors, 4, weighted=True).toarray()
    numbers, likeness = nearest_rows(torch.from_numpy(vectors), 4)
    a = np.zeros((40, 40))
    np.put_along_axis(a, numbers.numpy(), likeness.numpy().clip(min=0), axis=1)
    roots = 1 / np.sqrt(a.sum(axis=1))
    np.testing.assert_allclose(weighted, roots[:, None] * a * roots, atol=1e-6)
    both = blended([plain, neighbour_graph(vectors, 4, weighted=True)], [0.3, 0.7])
    np.testing.assert_allclose(both.toarray(), 0.3 * plain.toarray() + 0.7 * weighted, atol=1e-6)


def test_joined_entries_are_those_of_the_dense_formula_and_pass_gradients() -> None:
    near = torch.stack([nearest_rows(one, 3)[0] for one in (rows(12), rows(13)[:12])], dim=1)
    near[4, 1, 1:] = -1
    likeness = torch.rand(12, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    row, column = edges(near)
    found = torch.zeros(12, 12, dtype=torch.float64).index_put(
        (row, column), joined(near, likeness, weights), accumulate=True
    )
    a = torch.zeros(12, 12, dtype=torch.float64)
    for i in range(12):
        for m in range(2):
            for k in range(3):
                if near[i, m, k] >= 0:
                    a[i, near[i, m, k]] += (weights[m] * likeness[i, m, k]).detach()
    roots = a.sum(dim=1).rsqrt()
    torch.testing.assert_close(found.detach(), roots[:, None] * a * roots)
    assert torch.autograd.gradcheck(lambda x, w: joined(near, x, w), (likeness, weights))


def test_what_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "available_memory_mb", lambda: 0.001)
    with pytest.raises(BudgetExceeded, match="70 items against all"):
        dense_neighbours(rows(70), 3)


def test_shares_add_up_and_images_count_a_tenth() -> None:
    assert shares_of("", ["text", "image"]) == pytest.approx([0.9, 0.1])
    assert shares_of("", ["text", "vector", "image", "image"]) == pytest.approx([0.45, 0.45, 0.05, 0.05])
    assert shares_of("", ["vector", "vector"]) == [0.5, 0.5] == shares_of("2, 2", ["image", "image"])
    for wrong in ("1", "a,b", "-1,2", "0,0"):
        with pytest.raises(UsageError):
            shares_of(wrong, ["text", "image"])
