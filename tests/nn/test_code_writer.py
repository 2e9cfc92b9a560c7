"""The writer of codes: its decoder against the formulas, step by step as at once, and no look at what comes later."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tastemaker.nn.code_writer import CodeWriter, Memory, View, Writing
from tastemaker.nn.ragged import Layout

SIZES = (5, 4, 3)
LENGTHS = [4, 1, 7]


def writer(causal: bool = True, dropout: float = 0.0) -> CodeWriter:
    torch.manual_seed(0)
    made = CodeWriter(
        SIZES, 8, n_signs=3, longest=7, n_encoder=1, n_decoder=2, n_heads=2, hidden=16, dropout=dropout, causal=causal
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def read(model: CodeWriter, tokens: Tensor | None = None) -> tuple[Memory, Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(0, 15, (sum(LENGTHS),)) if tokens is None else tokens
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    return model.read(tokens, offsets, max(LENGTHS)), tokens


def tuples(n: int) -> Tensor:
    torch.manual_seed(2)
    return torch.stack([torch.randint(0, size, (n,)) for size in SIZES], dim=1)


def plain(model: CodeWriter, seen: Tensor, codes: Tensor) -> Tensor:
    """One tuple [Q] after the tokens' vectors [L, D], written out."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Tensor:
        heads = []
        for part in torch.arange(8).chunk(2):
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(len(part))
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(dim=-1) @ values[:, part])
        return torch.cat(heads, dim=1)

    shifts = torch.tensor([0, 5])
    before = model.tokens.weight[codes[:-1] + shifts] * math.sqrt(8)
    x = torch.cat([torch.zeros(1, 8), before]) + model.levels.weight
    for block in model.decoder:
        queries, keys, values = block.inward(block.first(x)).chunk(3, dim=-1)  # type: ignore[operator, union-attr]
        x = x + block.outward(attend(queries, keys, values, True))  # type: ignore[operator]
        keys, values = block.look(seen).chunk(2, dim=-1)  # type: ignore[operator]
        x = x + block.told(attend(block.ask(block.second(x)), keys, values, False))  # type: ignore[operator]
        x = x + block.each(block.third(x))  # type: ignore[operator]
    states: Tensor = model.final(x)
    return states


@pytest.mark.parametrize("causal", [True, False])
def test_states_are_those_of_the_formulas(causal: bool) -> None:
    model = writer(causal)
    memory, tokens = read(model)
    counts, sees = [2, 1, 3], torch.tensor([1, 4, 1, 1, 3, 7])
    layout = Layout.of(torch.tensor([0, *counts]).cumsum(0), 3, 6)
    codes = tuples(6)
    states = model.written(memory, codes, View(layout, sees))
    owners = [0, 0, 1, 2, 2, 2]
    rows = tokens.split(LENGTHS)
    for m, row in enumerate(owners):
        x = model.tokens.weight[rows[row]] * math.sqrt(8) + model.places.weight[: LENGTHS[row]]
        x = model.encoder(x, Layout.of(torch.tensor([0, LENGTHS[row]]), LENGTHS[row], LENGTHS[row]))
        torch.testing.assert_close(states[m], plain(model, x[: sees[m]], codes[m]), rtol=1e-4, atol=1e-5)


def test_written_step_by_step_as_at_once() -> None:
    model = writer()
    memory, _ = read(model)
    codes = tuples(12).view(3, 4, 3)
    states = model.written(memory, codes.view(12, 3), View.whole(memory, 4)).view(3, 4, 3, 8)
    writing = Writing(model, memory)
    first = writing()
    assert first.shape == (3, 1, 5)
    for n in range(4):
        torch.testing.assert_close(first[:, 0], model.logp(states[:, n, 0], 0))
    order = torch.tensor([[2, 0, 1, 3], [3, 2, 1, 0], [0, 0, 1, 1]])  # beginnings change places, and go on twice
    second = writing(torch.zeros(3, 4, dtype=torch.int64), codes[:, :, 0])
    torch.testing.assert_close(second, model.logp(states[:, :, 1], 1))
    moved = codes.gather(1, order.unsqueeze(-1).expand(-1, -1, 3))
    third = writing(order, moved[:, :, 1])
    expected = states[:, :, 2].gather(1, order.unsqueeze(-1).expand(-1, -1, 8))
    torch.testing.assert_close(third, model.logp(expected, 2))


def test_nothing_is_known_of_what_comes_later() -> None:
    model = writer(causal=True)
    _, tokens = read(model)
    codes = tuples(3)
    layout = Layout.of(torch.arange(4), 1, 3)
    view = View(layout, torch.tensor([2, 1, 3]))
    before = model.written(read(model)[0], codes, view)
    later = tokens.clone()
    later[[2, 3, 8, 9, 10, 11]] = (later[[2, 3, 8, 9, 10, 11]] + 1) % 15
    assert torch.equal(before, model.written(read(model, later)[0], codes, view)), "tokens after those a tuple may see"
    other = codes.clone()
    other[:, 1] = (other[:, 1] + 1) % 4
    moved = (model.written(read(model)[0], other, view) - before).abs().amax(dim=(0, 2))
    assert (moved[:2] == 0).all() and moved[2] > 1e-3, "a code tells of those after it alone"


def test_padding_leaves_no_trace_in_gradients() -> None:
    model = writer()
    layout = Layout.of(torch.tensor([0, 2, 2, 5]), 3, 5)
    memory, _ = read(model)
    states = model.written(memory, tuples(5), View(layout, torch.tensor([1, 4, 1, 3, 7])))
    loss = sum(F.cross_entropy(model.logits(states[:, q], q), tuples(5)[:, q]) for q in range(3))
    assert isinstance(loss, Tensor)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
