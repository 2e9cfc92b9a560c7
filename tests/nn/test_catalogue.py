"""Cross-entropy over the catalogue in strips, against the table of scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tastemaker.nn import catalogue
from tastemaker.nn.catalogue import catalogue_softmax


def reference(hidden: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
    scores = hidden @ items.T
    return F.cross_entropy(scores if bias is None else scores + bias, targets, reduction="none")


def inputs(m: int, n: int, dim: int, biased: bool, seed: int, scale: float = 1.0) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    shapes = [(m, dim), (n, dim), *([(n,)] if biased else [])]
    made = [torch.randn(*shape, generator=rng).mul_(scale).requires_grad_() for shape in shapes]
    return made[0], made[1], torch.randint(0, n, (m,), generator=rng), *made[2:]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.integers(1, 200),
    st.integers(0, 9),
)
def test_losses_and_gradients_equal_the_reference(
    m: int, n: int, dim: int, biased: bool, weighed: bool, cells: int, seed: int
) -> None:
    hidden, items, targets, *bias = inputs(m, n, dim, biased, seed)
    weights = torch.rand(m, generator=torch.Generator().manual_seed(seed)) if weighed else torch.full((m,), 1 / m)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "CELLS", {"cpu": cells})  # strips of a few rows, and of one
        patch.setattr(catalogue, "ROWS", 1)
        for function in (reference, catalogue_softmax):
            losses = function(hidden, items, targets, bias[0] if biased else None)
            gradients = torch.autograd.grad((losses * weights).sum(), [hidden, items, *bias])
            found.append([losses.detach(), *gradients])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    hidden, items, targets = inputs(50, 20, 4, False, 0, scale=20.0)
    losses = catalogue_softmax(hidden, items, targets)
    assert losses.isfinite().all() and losses.max() > 200
    torch.testing.assert_close(losses, reference(hidden, items, targets, None), rtol=1e-5, atol=1e-3)
    gradients = torch.autograd.grad(losses.mean(), [hidden, items])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_what_needs_no_gradient_gets_none() -> None:
    hidden, items, targets = inputs(9, 5, 3, False, 1)
    alone = catalogue_softmax(hidden, items.detach(), targets)
    (gradient,) = torch.autograd.grad(alone.mean(), [hidden])
    (wanted,) = torch.autograd.grad(reference(hidden, items, targets, None).mean(), [hidden])
    torch.testing.assert_close(gradient, wanted)
    with torch.no_grad():
        torch.testing.assert_close(catalogue_softmax(hidden, items, targets), alone.detach())


def test_low_precision_stays_near() -> None:
    hidden, items, targets = inputs(64, 40, 8, False, 2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = catalogue_softmax(hidden, items, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, reference(hidden, items, targets, None), rtol=0.03, atol=0.05)
    gradient, wanted = (
        torch.autograd.grad(x.mean(), [items])[0] for x in (losses, reference(hidden, items, targets, None))
    )
    assert F.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0) > 0.999


def test_memory_is_that_of_a_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of rows by items is ever made."""
    hidden, items, targets = inputs(600, 500, 4, False, 3)
    monkeypatch.setattr(catalogue, "CELLS", {"cpu": 5000})
    monkeypatch.setattr(catalogue, "ROWS", 4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as seen:
        catalogue_softmax(hidden, items, targets).mean().backward()
    shapes = [shape for event in seen.events() for shape in event.input_shapes or () if len(shape) == 2]
    assert max(rows for rows, columns in shapes if columns == 500) == 10
