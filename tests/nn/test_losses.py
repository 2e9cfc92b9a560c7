"""Losses against their formulas in NumPy, at usual and at extreme scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tastemaker.nn import losses
from tastemaker.nn.pairwise import penalised_bpr, plain_penalised_bpr, scores_of

RNG = np.random.default_rng(4)
Floats = Any


def softplus(x: Floats) -> Floats:
    return np.logaddexp(0.0, x)


def unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_sum(x: Floats) -> Floats:
    return np.log(np.exp(x).sum(axis=-1))


def gbce(positive: Floats, negative: Floats, n_items: int = 50, calibration: float = 0.75) -> Floats:
    """-log sigmoid(s+)^beta - sum log(1 - sigmoid(s-)), beta = a (t (1 - 1 / a) + 1 / a), a = n / (I - 1)."""
    a = negative.shape[-1] / (n_items - 1)
    beta = a * (calibration * (1 - 1 / a) + 1 / a)
    return -np.log((1 / (1 + np.exp(-positive))) ** beta) - np.log(1 - 1 / (1 + np.exp(-negative))).sum(axis=-1)


PAIRWISE: dict[str, tuple[Callable[..., Tensor], Callable[..., Floats]]] = {
    "bpr": (losses.bpr, lambda p, q: softplus(q - p[:, None]).mean(axis=-1)),
    "bce": (losses.bce, lambda p, q: softplus(-p) + softplus(q).sum(axis=-1)),
    "gbce": (lambda p, q: losses.gbce(p, q, 50), gbce),
    "sampled_softmax": (losses.sampled_softmax, lambda p, q: log_sum(np.column_stack([p, q])) - p),
    "ccl": (
        lambda p, q: losses.ccl(p, q, 0.4, 20.0),
        lambda p, q: 1 - p + 20 * np.maximum(0, q - 0.4).mean(axis=-1),
    ),
    "margin": (lambda p, q: losses.margin(p, q, 0.7), lambda p, q: np.maximum(0, 0.7 - p[:, None] + q).mean(axis=-1)),
}
VECTORS: dict[str, tuple[Callable[..., Tensor], Callable[..., Floats]]] = {
    "info_nce": (
        losses.info_nce,
        lambda a, b: log_sum(unit(a) @ unit(b).T / 0.2) - np.diag(unit(a) @ unit(b).T) / 0.2,
    ),
    "alignment": (losses.alignment, lambda a, b: ((unit(a) - unit(b)) ** 2).sum(axis=-1)),
}


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("n", [1, 4])
def test_pairwise_losses_are_their_formulas(name: str, n: int) -> None:
    ours, formula = PAIRWISE[name]
    positive, negative = RNG.normal(size=7), RNG.normal(size=(7, n))
    got = ours(torch.tensor(positive), torch.tensor(negative))
    assert got.shape == (7,)
    np.testing.assert_allclose(got.numpy(), formula(positive, negative), rtol=1e-10)


@pytest.mark.parametrize("name", VECTORS)
def test_losses_of_vectors_are_their_formulas(name: str) -> None:
    ours, formula = VECTORS[name]
    left, right = RNG.normal(size=(2, 6, 5))
    got = ours(torch.tensor(left), torch.tensor(right))
    assert got.shape == (6,)
    np.testing.assert_allclose(got.numpy(), formula(left, right), rtol=1e-10)


def test_uniformity_is_its_formula() -> None:
    vectors = RNG.normal(size=(6, 5))
    distances = ((unit(vectors)[:, None] - unit(vectors)[None]) ** 2).sum(axis=-1)[np.triu_indices(6, 1)]
    got = losses.uniformity(torch.tensor(vectors))
    assert got.shape == ()
    np.testing.assert_allclose(got.item(), np.log(np.exp(-2 * distances).mean()), rtol=1e-10)


def test_softmax_is_its_formula() -> None:
    logits, targets = RNG.normal(size=(5, 9)), RNG.integers(0, 9, 5)
    got = losses.softmax(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(got.numpy(), log_sum(logits) - logits[np.arange(5), targets], rtol=1e-10)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_gradients_are_finite_at_extreme_scores(name: str, size: float) -> None:
    positive = torch.full((3,), size, requires_grad=True)
    negative = torch.tensor([[size, -size], [-size, -size], [size, size]], requires_grad=True)
    loss = PAIRWISE[name][0](positive, negative)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and loss.dtype == torch.float32
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in (positive, negative))


@pytest.mark.parametrize("size", [1e18, 1e-18, 0.0])
def test_gradients_of_vectors_are_finite_at_extreme_lengths(size: float) -> None:
    for loss in (losses.info_nce, losses.alignment, lambda a, b: losses.uniformity(a) + losses.uniformity(b)):
        left, right = ((torch.randn(4, 3) * size).requires_grad_() for _ in range(2))
        loss(left, right).sum().backward()
        assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in (left, right))


def test_a_negative_of_minus_infinity_takes_no_part() -> None:
    positive, negative = torch.randn(3), torch.randn(3, 4)
    masked = torch.cat([negative, torch.full((3, 2), -torch.inf)], dim=1).requires_grad_()
    loss = losses.sampled_softmax(positive, masked)
    torch.testing.assert_close(loss, losses.sampled_softmax(positive, negative))
    loss.sum().backward()
    assert masked.grad is not None and torch.isfinite(masked.grad).all() and not masked.grad[:, 4:].any()
    alone = losses.sampled_softmax(positive, torch.full((3, 2), -torch.inf))
    torch.testing.assert_close(alone, torch.zeros(3))


# -- sampled softmax against the full one

N, B = 12, 4
LOGITS = torch.tensor(RNG.normal(size=(B, N)))
TARGETS = torch.tensor(RNG.integers(0, N, B))


def full_gradient(targets: Tensor) -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    losses.softmax(logits, targets).sum().backward()
    assert logits.grad is not None
    return logits.grad


def sampled_gradient(corrected: bool, n: int = 400, draws: int = 800) -> Tensor:
    """Mean gradient where negatives are drawn unevenly, the target never among them."""
    q = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(N) * 5))
    without = q.repeat(B, 1).scatter(1, TARGETS.unsqueeze(1), 0.0)
    without = without / without.sum(dim=1, keepdim=True)
    logits = LOGITS.clone().requires_grad_()
    torch.manual_seed(0)
    for _ in range(draws):
        drawn = torch.multinomial(without, n, replacement=True)
        logq = (n * without.gather(1, drawn)).log() if corrected else None
        positive, negative = logits.gather(1, TARGETS.unsqueeze(1)).squeeze(1), logits.gather(1, drawn)
        (losses.sampled_softmax(positive, negative, None, logq).sum() / draws).backward()
    assert logits.grad is not None
    return logits.grad


def test_corrected_for_sampling_the_gradient_is_that_of_the_full_softmax() -> None:
    expected = full_gradient(TARGETS)
    off, biased = ((sampled_gradient(corrected) - expected).abs().max() for corrected in (True, False))
    assert off < 0.01 and biased > 10 * off


def test_corrected_in_batch_softmax_is_the_full_softmax_in_expectation() -> None:
    """Rows of a batch are each other's negatives; what is popular among them is not held against popular items."""
    rng, batches, rows = np.random.default_rng(1), 400, 128
    frequency = rng.dirichlet(np.ones(N) * 2)
    itself = torch.eye(rows, dtype=torch.bool)
    found = {True: np.zeros((B, N)), False: np.zeros((B, N))}
    for _ in range(batches):
        users, items = rng.integers(0, B, rows), rng.choice(N, rows, p=frequency)  # an item depends on no user here
        logq = torch.tensor(np.log(frequency[items]))
        for corrected, gradient in found.items():
            scores = LOGITS[users][:, items].requires_grad_()
            held = scores.masked_fill(itself, -torch.inf)
            using = (logq, logq) if corrected else (None, None)
            losses.sampled_softmax(scores.diagonal(), held, *using).mean().backward()
            assert scores.grad is not None
            places = users[:, None] * N + items[None, :]
            gradient += np.bincount(places.ravel(), scores.grad.numpy().ravel(), B * N).reshape(B, N) / batches
    probabilities = torch.softmax(LOGITS, dim=1).numpy()
    expected = (probabilities - frequency) / B
    off, biased = (np.abs(gradient - expected).max() for gradient in found.values())
    assert off < 0.01 and biased > 3 * off


# -- the fused pairwise step


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.1, 1.0, 30.0]),
    st.integers(0, 1000),
)
def test_the_fused_step_equals_the_formula(
    rows: int, n: int, dim: int, biased: bool, reg: float, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    users, items = torch.randn(rows, dim) * size, torch.randn(rows, 1 + n, dim + biased) * size
    found = []
    for step in (penalised_bpr, plain_penalised_bpr):
        read = users.clone().requires_grad_(), items.clone().requires_grad_()
        loss = step(*read, reg)
        (loss * torch.arange(1.0, rows + 1)).sum().backward()
        found.append((loss, *(value.grad for value in read)))
    for ours, plain in zip(*found, strict=True):
        assert ours is not None and plain is not None
        torch.testing.assert_close(ours, plain, rtol=2e-4, atol=2e-4 * max(1.0, size))


def test_the_fused_step_takes_views_and_other_precisions() -> None:
    wide = torch.randn(6, 9, dtype=torch.float64)
    users, items = wide[:, ::2], torch.randn(6, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(penalised_bpr(users, items, 0.1), plain_penalised_bpr(users, items, 0.1))
    single, things = wide.float()[:, ::2].requires_grad_(), items.float().requires_grad_()
    penalised_bpr(single, things, 0.1).sum().backward()
    torch.testing.assert_close(penalised_bpr(single, things, 0.1), plain_penalised_bpr(single, things, 0.1))
    assert things.grad is not None and torch.isfinite(things.grad).all()


@pytest.mark.parametrize("bias", [False, True])
def test_scores_of_rows_are_inner_products(bias: bool) -> None:
    users = torch.from_numpy(RNG.standard_normal((7, 5)).astype(np.float32))
    items = torch.from_numpy(RNG.standard_normal((9, 5 + bias)).astype(np.float32))
    rows, columns = RNG.integers(0, 7, 4), RNG.integers(0, 9, (4, 3))
    expected = (users[:, None] * items[None, :, :5]).sum(-1) + (items[:, 5] if bias else 0.0)
    found = scores_of(users, items, rows, columns)
    torch.testing.assert_close(found, expected[rows[:, None], columns])
    plain = scores_of(users.double(), items.double(), rows, columns)
    torch.testing.assert_close(found.double(), plain, rtol=1e-5, atol=1e-6)
