"""Ragged layouts, dropout, and attention over them against attention written out, row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.transformer import Transformer

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def layout_of(lengths: list[int], spare: int = 0) -> Layout:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Layout.of(offsets, max(lengths) + spare, sum(lengths))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 2))
def test_layout_equals_a_loop(lengths: list[int], spare: int) -> None:
    layout = layout_of(lengths, spare)
    values = torch.arange(1.0, sum(lengths) * 2 + 1).view(-1, 2).requires_grad_()
    padded = layout.pad(values)
    expected = torch.zeros(len(lengths), max(lengths) + spare, 2)
    for row, part in enumerate(values.detach().split(lengths)):
        expected[row, : len(part)] = part
    assert torch.equal(padded, expected)
    assert torch.equal(layout.filled(), expected[..., 0] > 0)
    assert torch.equal(layout.flat(padded), values)
    assert layout.columns.tolist() == [c for n in lengths for c in range(n)]
    assert layout.ages.tolist() == [n - 1 - c for n in lengths for c in range(n)]
    assert torch.equal(values[layout.last], torch.stack([part[-1] for part in values.split(lengths)]))
    weights = torch.rand_like(padded)
    (gradient,) = torch.autograd.grad((padded * weights).sum(), [values])
    assert torch.equal(gradient, layout.flat(weights))


def written_out(model: Transformer, rows: Tensor, causal: bool) -> Tensor:
    """One sequence [n, D] through the blocks, as the formulas say."""
    n, dim = rows.shape
    x = rows
    for block in model.blocks:
        assert hasattr(block, "attention")

        def attend(y: Tensor, block: Any = block) -> Tensor:
            heads = block.attention.n_heads
            query, key, value = block.attention.inward(y).chunk(3, dim=-1)
            mixed = []
            for h in range(heads):
                part = slice(h * dim // heads, (h + 1) * dim // heads)
                scores = query[:, part] @ key[:, part].T / math.sqrt(dim / heads)
                if causal:
                    scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
                mixed.append(scores.softmax(dim=-1) @ value[:, part])
            out: Tensor = block.attention.outward(torch.cat(mixed, dim=-1))
            return out

        if block.norm == "pre":
            x = x + attend(block.first(x))
            x = x + block.each(block.second(x))
        else:
            x = block.first(x + attend(x))
            x = block.second(x + block.each(x))
    normed: Tensor = model.final(x)
    return normed


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.booleans(), st.sampled_from(("pre", "post")), st.sampled_from(("relu", "gelu")), st.integers(0, 3))
def test_ragged_blocks_equal_sequences_one_by_one(
    lengths: list[int], causal: bool, norm: Any, activation: Any, seed: int
) -> None:
    torch.manual_seed(seed)
    model = Transformer(8, 2, 2, dropout=0.5, causal=causal, norm=norm, activation=activation).eval()
    rows = torch.randn(sum(lengths), 8, requires_grad=True)
    weights = torch.randn(sum(lengths), 8)
    expected = torch.cat([written_out(model, part, causal) for part in rows.split(lengths)])
    found = model(rows, layout_of(lengths, spare=seed % 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    read = [rows, *model.parameters()]
    for wanted, got in zip(
        *(torch.autograd.grad((out * weights).sum(), read) for out in (expected, found)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_later_events_do_not_reach_earlier_ones() -> None:
    torch.manual_seed(0)
    model = Transformer(16, 2, 4, causal=True).eval()
    layout = layout_of([7, 3, 5])
    rows = torch.randn(15, 16)
    before = model(rows, layout)
    for row, start in enumerate((0, 7, 10)):
        stop = (7, 10, 15)[row]
        for place in range(start, stop):
            changed = rows.clone()
            changed[place] += 1.0
            moved = (model(changed, layout) - before).abs().amax(dim=1) > 0
            assert moved[place:stop].all() and not moved[:place].any() and not moved[stop:].any()


def test_heads_share_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        Transformer(8, 1, 3)


def test_dropout_keeps_shares_and_means() -> None:
    drop, x = Dropout(0.3), torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(0)
    out = drop(x)
    assert out.detach().unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.004)
    rows, columns = (out == 0).float().mean(dim=1), (out == 0).float().mean(dim=0)
    assert rows.std().item() == pytest.approx(math.sqrt(0.21 / 500), rel=0.2), "values fall out one by one"
    assert columns.std().item() == pytest.approx(math.sqrt(0.21 / 400), rel=0.2)
    (gradient,) = torch.autograd.grad(out.sum(), [x])
    assert torch.equal(gradient, out.detach()), "what was left out gets no gradient"
    torch.manual_seed(0)
    assert torch.equal(drop(x), out), "the draw is the stream's"
    assert not torch.equal(drop(x), out)


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_dropout_of_any_size(n: int) -> None:
    assert Dropout(0.5)(torch.ones(n)).shape == (n,)
    assert Dropout(0.5)(torch.ones(0, n)).shape == (0, n)


def test_dropout_leaves_evaluation_alone() -> None:
    x = torch.randn(5, 4)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0)(x) is x
