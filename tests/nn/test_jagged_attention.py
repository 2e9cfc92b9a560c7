"""Ragged attention by SiLU: blocks against a rectangle, the rectangle against loops, and how much is held at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tastemaker.nn import jagged_attention
from tastemaker.nn.jagged_attention import N_STEPS, Sight, attend, reference, steps_of_time

ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=6)  # keys and queries of a row


def tables(seed: int, n_positions: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return tuple(torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (n_positions, N_STEPS))  # type: ignore[return-value]


def parts(n_queries: int, n_keys: int, heads: int, dim: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (n_queries, heads, dim), (n_keys, heads, dim), (n_keys, heads, width)
    return tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)  # type: ignore[return-value]


def sight_of(rows: list[tuple[int, int]], rng: np.random.Generator, *, causal: bool, timed: bool) -> Sight:
    """Of causal rows, or of queries that see some first part of their row's keys."""
    n_keys = torch.tensor([keys for keys, _ in rows])
    n_queries = n_keys if causal else torch.tensor([queries for _, queries in rows])
    key_offsets, query_offsets = (torch.cat([torch.zeros(1).long(), n.cumsum(0)]) for n in (n_keys, n_queries))
    told = torch.from_numpy(rng.integers(-(10**9), 10**9, int(key_offsets[-1])) // 10 ** rng.integers(0, 9))
    asked = torch.from_numpy(rng.integers(-(10**9), 10**9, int(query_offsets[-1])) // 10 ** rng.integers(0, 9))
    times = (asked, told) if timed else (None, None)
    if causal:
        columns = torch.cat([torch.arange(n) for n in n_keys.tolist()])
        return Sight.causal(key_offsets, columns, *times)
    longest = torch.repeat_interleave(n_keys, n_queries)
    reach = torch.from_numpy(rng.integers(0, longest.numpy() + 1))
    return Sight.of(query_offsets, key_offsets, reach, reach, *times)


@pytest.mark.parametrize("compiled", [True, False])
@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 99))
def test_blocks_equal_the_rectangle_with_their_gradients(
    compiled: bool, rows: Any, heads: int, dim: int, n_positions: int, causal: bool, timed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jagged_attention, "PAIRS", int(rng.integers(1, 60)))
        patch.setattr(jagged_attention, "QUERIES", int(rng.integers(1, 5)))
        patch.setattr(jagged_attention, "WASTE", int(rng.integers(0, 20)))
        if not compiled:
            patch.setattr(jagged_attention, "_compiled_for", lambda tensor: False)
        sight = sight_of(rows, rng, causal=causal, timed=timed)
        read = [*tables(seed, n_positions)]
        read = [*parts(sight.n_queries, int(sight.key_offsets[-1]), heads, dim, dim + 1), *read]
        found, expected = (one(*read, sight, 0.3) for one in (attend, reference))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weights = torch.randn_like(found)
        slopes = [torch.autograd.grad((out * weights).sum(), read, allow_unused=True) for out in (found, expected)]
    for got, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if wanted is None else wanted, rtol=1e-10, atol=1e-10)


def test_the_rectangle_equals_loops() -> None:
    rng, rows = np.random.default_rng(0), [(4, 4), (0, 0), (6, 6)]
    sight = sight_of(rows, rng, causal=True, timed=True)
    positions, times = tables(0, 3)
    queries, keys, values = parts(10, 10, 2, 3, 5)
    assert sight.asked is not None and sight.told is not None
    expected = torch.zeros(10, 2, 5, dtype=torch.float64)
    for start, length in ((0, 4), (4, 6)):
        for i in range(length):
            for j in range(i + 1):
                apart = max(1, abs(int(sight.asked[start + i]) - int(sight.told[start + j])))
                bias = positions[min(i - j, 2)] + times[min(128, math.floor(math.log(apart) / 0.301))]
                for h in range(2):
                    score = queries[start + i, h] @ keys[start + j, h] + bias
                    expected[start + i, h] += 0.5 * score / (1 + torch.exp(-score)) * values[start + j, h]
    torch.testing.assert_close(reference(queries, keys, values, positions, times, sight, 0.5), expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_steps_of_time_are_those_of_the_logarithm(differences: list[int]) -> None:
    near = [round(math.exp(0.301 * abs(d % 70))) + d % 3 - 1 for d in differences]  # where steps begin
    for apart in differences, near:
        expected = [min(128, math.floor(math.log(max(1, abs(d))) / 0.301)) for d in apart]
        assert steps_of_time(torch.tensor(apart)).tolist() == expected


def test_every_pair_is_in_one_block_and_no_block_is_large() -> None:
    rng = np.random.default_rng(1)
    lengths = np.minimum(2048, np.exp(rng.normal(4, 1.5, 300)).astype(int) + 1)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
    sight = Sight.causal(offsets, torch.cat([torch.arange(n) for n in lengths.tolist()]))
    cells, seen = 0, torch.zeros(int(offsets[-1]), dtype=torch.int64)
    for block in sight.blocks:
        for strip in block.strips:
            size = strip.reach.numel() * strip.n_keys
            assert size <= jagged_attention.PAIRS
            cells += size
            seen.index_add_(0, strip.queries.flatten(), strip.reach.flatten())
    assert torch.equal(seen, sight.reach), "each query sees its keys once"
    pairs, rectangle = int(sight.reach.sum()), len(lengths) * int(lengths.max()) ** 2
    assert pairs < cells < 1.35 * pairs and cells < 0.1 * rectangle


def test_training_holds_no_more_pairs_than_a_block() -> None:
    """What is kept for the way back grows with the events, not with their pairs."""
    kept: list[int] = []
    sight = sight_of([(900, 0)], np.random.default_rng(0), causal=True, timed=True)
    read = [*parts(900, 900, 2, 4, 4), *tables(0, 50)]

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(*read, sight, 0.1).sum().backward()
    assert sum(kept) == sum(tensor.numel() for tensor in read)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_lower_precisions_stay_close(precision: torch.dtype) -> None:
    sight = sight_of([(70, 0), (5, 0)], np.random.default_rng(0), causal=True, timed=True)
    read = [*parts(75, 75, 2, 8, 8), *tables(0, 50)]
    low = [tensor.detach().to(precision).requires_grad_() for tensor in read]
    found, expected = attend(*low, sight, 0.02), attend(*read, sight, 0.02)
    near = {torch.float32: 1e-5, torch.bfloat16: 0.1}[precision]
    assert found.dtype == precision and (found.double() - expected).abs().max() < near
    found.sum().backward()
    expected.sum().backward()
    for got, wanted in zip(low, read, strict=True):
        assert got.grad is not None and wanted.grad is not None
        assert (got.grad.double() - wanted.grad).abs().max() <= 30 * near * wanted.grad.abs().max()


def test_nobody_and_nothing_to_see() -> None:
    for rows in ([(0, 0), (0, 0)], [(0, 3), (2, 0)]):
        sight = sight_of(rows, np.random.default_rng(0), causal=False, timed=True)
        read = [*parts(sight.n_queries, int(sight.key_offsets[-1]), 1, 2, 2), *tables(0, 3)]
        found = attend(*read, sight, 1.0)
        found.sum().backward()
        assert found.shape == (sight.n_queries, 1, 2) and not found.any()
