"""The writer of tokens: what it knows of a continuation is what it knows of the whole row, step by step or at once."""

from __future__ import annotations

import torch
from torch import Tensor

from tastemaker.nn.dropout import nothing_dropped
from tastemaker.nn.token_writer import TokenWriter
from tastemaker.nn.transformer import Transformer

SIZES = (5, 4, 3)
LENGTHS = [4, 1, 7]


def writer(dropout: float = 0.0) -> TokenWriter:
    torch.manual_seed(0)
    body = Transformer(8, 2, 2, hidden=16, dropout=dropout)
    made = TokenWriter(SIZES, 8, body, n_words=6, n_signs=2, longest=12, dropout=dropout)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def rows() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(0, 20, (length,)) for length in LENGTHS]


def flat(parts: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    lengths = [len(part) for part in parts]
    return torch.cat(parts), torch.tensor([0, *lengths]).cumsum(0), max(lengths)


def tuples(*shape: int) -> Tensor:
    torch.manual_seed(2)
    return torch.stack([torch.randint(0, size, shape) for size in SIZES], dim=-1)


def test_a_continuation_is_known_as_if_it_stood_in_its_row() -> None:
    model, prompts, codes = writer(), rows(), tuples(3, 4)
    told = model.read(*flat(prompts)).logp(codes)
    assert [one.shape for one in told] == [(3, 4, 5), (3, 4, 4), (3, 4, 3)]
    for b, prompt in enumerate(prompts):
        for w in range(4):
            whole = torch.cat([prompt, codes[b, w, :2] + torch.tensor([0, 5])])
            states = model(*flat([whole]))[-3:]
            for level in range(3):
                expected = model.logp(states[level], level)
                torch.testing.assert_close(told[level][b, w], expected, rtol=1e-4, atol=1e-5)


def test_rows_beside_it_do_not_matter() -> None:
    model, prompts = writer(), rows()
    together = model(*flat(prompts)).split(LENGTHS)
    for prompt, states in zip(prompts, together, strict=True):
        torch.testing.assert_close(model(*flat([prompt])), states, rtol=1e-4, atol=1e-5)


def test_written_step_by_step_as_at_once() -> None:
    model, codes = writer(), tuples(3, 4)
    reading = model.read(*flat(rows()))
    told, steps = reading.logp(codes), reading.steps()
    torch.testing.assert_close(steps().expand(-1, 4, -1), told[0])
    second = steps(torch.zeros(3, 4, dtype=torch.int64), codes[:, :, 0])
    torch.testing.assert_close(second, told[1], rtol=1e-4, atol=1e-5)
    order = torch.tensor([[2, 0, 1, 3], [3, 2, 1, 0], [0, 0, 1, 1]])  # beginnings change places, and go on twice
    third = steps(order, codes[:, :, 1].gather(1, order))
    expected = told[2].gather(1, order.unsqueeze(-1).expand(-1, -1, 3))
    torch.testing.assert_close(third, expected, rtol=1e-4, atol=1e-5)


def test_words_are_chosen_among_words() -> None:
    model = writer()
    states = model(*flat(rows()))
    assert model.logits(states, 3).shape == (12, 6)
    assert torch.equal(model.logits(states, 3), states @ model.tokens.weight[12:18].T)


def test_gradients_reach_everything_that_reads_and_writes() -> None:
    model = writer()
    reading = model.read(*flat(rows()))
    loss = sum(one.logsumexp(-1).sum() + one[..., 0].sum() for one in reading.logp(tuples(3, 2)))
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_nothing_is_dropped_while_it_is_asked_not_to_be() -> None:
    model = writer(dropout=0.5).train()
    with nothing_dropped(model):
        first, again = model(*flat(rows())), model(*flat(rows()))
        assert torch.equal(first, again) and first.requires_grad
    assert model.training and not torch.equal(model(*flat(rows())), first)
