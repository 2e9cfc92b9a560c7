"""Attention in bands against the formula written out for each row, with its slopes; and how rows are banded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tastemaker.nn.attending import attend
from tastemaker.nn.ragged import Layout

KEYS = [1, 2, 3, 5, 9, 20]
QUERIES = [2, 1, 4, 1, 0, 3]


def layout(lengths: list[int]) -> Layout:
    return Layout.of(torch.tensor([0, *lengths]).cumsum(0), max(lengths), sum(lengths))


def plain(queries: Tensor, keys: Tensor, values: Tensor, asking: list[int], seen: list[int], sees: Tensor) -> Tensor:
    """Row by row, query by query, head by head."""
    out, at, start = [], 0, 0
    for n, length in zip(asking, seen, strict=True):
        for _ in range(n):
            known = slice(start, start + int(sees[at]))
            parts = []
            for part in torch.arange(queries.shape[1]).chunk(2):
                weights = (keys[known][:, part] @ queries[at, part] / math.sqrt(len(part))).softmax(dim=0)
                parts.append(weights @ values[known][:, part])
            out.append(torch.cat(parts))
            at += 1
        start += length
    return torch.stack(out)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 4, 2]], ids=["bands", "one rectangle"])
@pytest.mark.parametrize("how", ["causal", "whole", "first"])
def test_as_the_formula_row_by_row(how: str, order: list[int]) -> None:
    torch.manual_seed(0)
    seen = [KEYS[n] for n in order]
    asking = seen if how == "causal" else [QUERIES[n] for n in order]
    whole = torch.tensor(seen).repeat_interleave(torch.tensor(asking))
    sees = {
        "causal": torch.cat([torch.arange(1, n + 1) for n in seen]),
        "whole": whole,
        "first": (torch.rand(len(whole)) * whole).long() + 1,
    }[how]
    parts = [torch.randn(sum(n), 8, dtype=torch.float64, requires_grad=True) for n in (asking, seen, seen)]
    told = sees if how == "first" else None
    found = attend(*parts, layout(asking), layout(seen), 2, sees=told, causal=how == "causal")
    expected = plain(*parts, asking, seen, sees)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    found_slopes = torch.autograd.grad(found, parts, slope)
    for one, other in zip(found_slopes, torch.autograd.grad(expected, parts, slope), strict=True):
        torch.testing.assert_close(one, other)


def test_bands_hold_every_row_once() -> None:
    assert layout(KEYS).bands == [(0, 4), (4, 5), (5, 6)]
    assert layout(KEYS[::-1]).bands == [(0, 6)], "rows in no order are one rectangle"
    assert layout([4, 4, 4]).bands == [(0, 3)]
    assert layout([1, 1, 9]).bands == [(0, 2), (2, 3)]
