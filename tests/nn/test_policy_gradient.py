"""Losses of policies against their formulas in NumPy, and their gradients against what they are said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tastemaker.nn.policy_gradient import group_advantages, grpo, kl_k3, reinforce, returns_to_go

B, G, Q = 3, 4, 3
THERE = np.ones((B, G, Q), dtype=bool)
THERE[0, 3] = False  # a shorter group
THERE[1, 1, 2] = THERE[2, 0, 1:] = False  # shorter answers


def numbers(seed: int) -> np.ndarray:
    return np.log(np.random.default_rng(seed).uniform(0.1, 0.9, (B, G, Q)))


LOGP, OLD, REFERENCE = numbers(0), numbers(1), numbers(2)
REWARDS = np.random.default_rng(3).normal(size=(B, G))


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(array)


def test_advantages_are_those_of_the_formula() -> None:
    whole = group_advantages(tensor(REWARDS)).numpy()
    expected = (REWARDS - REWARDS.mean(1, keepdims=True)) / (REWARDS.std(1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(whole, expected)
    np.testing.assert_allclose(
        group_advantages(tensor(REWARDS), scale=False), REWARDS - REWARDS.mean(1, keepdims=True), atol=1e-12
    )


def test_what_is_not_there_counts_for_nothing() -> None:
    there = THERE.any(axis=-1)
    found = group_advantages(tensor(REWARDS), tensor(there)).numpy()
    short = group_advantages(tensor(REWARDS[:1, :3])).numpy()
    np.testing.assert_allclose(found[0], [*short[0], 0.0])
    alike = group_advantages(torch.full((2, 4), 0.7, dtype=torch.float64))
    assert (alike.abs() < 1e-9).all(), "a group of equal rewards teaches nothing"


def test_the_divergence_is_never_negative_and_right_in_expectation() -> None:
    assert (kl_k3(tensor(LOGP), tensor(REFERENCE)) >= 0).all()
    assert (kl_k3(tensor(LOGP), tensor(LOGP)) == 0).all()
    rng = np.random.default_rng(0)
    p, q = (np.log(rng.dirichlet(np.ones(5))) for _ in range(2))
    expected = (np.exp(p) * (p - q)).sum()
    found = (np.exp(p) * kl_k3(tensor(p), tensor(q)).numpy()).sum()
    assert found == pytest.approx(expected, abs=1e-12)


def plain(how: dict[str, Any]) -> np.ndarray:
    """One loss a group, as the papers write it."""
    losses, tokens = np.zeros(B), THERE.sum()
    for b in range(B):
        answers = []
        for g in range(G):
            at = np.flatnonzero(THERE[b, g])
            if not len(at):
                continue
            gap = LOGP[b, g, at] - OLD[b, g, at]
            ratio = np.exp(np.full(len(at), gap.mean())) if how.get("ratio") == "sequence" else np.exp(gap)
            advantage = REWARDS[b, g]
            clipped = np.clip(ratio, 1 - how["clip"], 1 + how["clip"])
            gain = np.minimum(ratio * advantage, clipped * advantage)
            away = REFERENCE[b, g, at] - LOGP[b, g, at]
            each = -(gain - how["beta"] * (np.exp(away) - away - 1))
            answers.append(each.sum() if how.get("mean") == "tokens" else each.mean())
        losses[b] = np.sum(answers) * B / tokens if how.get("mean") == "tokens" else np.mean(answers)
    return losses


@pytest.mark.parametrize(
    "more", [{}, {"mean": "tokens"}, {"ratio": "sequence"}, {"ratio": "sequence", "mean": "tokens"}]
)
def test_losses_are_those_of_the_formulas(more: dict[str, Any]) -> None:
    how = {"clip": 0.2, "beta": 0.3, **more}
    found = grpo(
        tensor(LOGP), tensor(REWARDS), old=tensor(OLD), reference=tensor(REFERENCE), there=tensor(THERE), **how
    )
    np.testing.assert_allclose(found, plain(how), rtol=1e-12)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_with_one_update_the_gradient_is_that_of_the_policy_times_the_advantage(ratio: Any) -> None:
    logp = tensor(LOGP).requires_grad_()
    losses = grpo(logp, tensor(REWARDS), ratio=ratio)
    np.testing.assert_allclose(losses.detach(), -REWARDS.mean(axis=1))  # ratios are 1
    (gradient,) = torch.autograd.grad(losses.sum(), logp)
    np.testing.assert_allclose(gradient, np.repeat(-REWARDS[..., None], Q, axis=2) / (G * Q))


def test_ratios_that_went_far_the_right_way_teach_no_more() -> None:
    logp = torch.log(torch.tensor([[[0.5], [0.5], [0.5], [0.5]]], dtype=torch.float64)).requires_grad_()
    old = torch.log(torch.tensor([[[0.4], [0.9], [0.4], [0.9]]], dtype=torch.float64))
    losses = grpo(logp, torch.tensor([[1.0, -1.0, -1.0, 1.0]], dtype=torch.float64), old=old, clip=0.2)
    (gradient,) = torch.autograd.grad(losses.sum(), logp)
    assert gradient[0, :2, 0].tolist() == [0, 0], "likelier and better, less likely and worse: far enough"
    assert gradient[0, 2, 0] > 0 > gradient[0, 3, 0], "the wrong way: back, however far"


def test_returns_and_reinforce() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    assert returns_to_go(rewards, 0.5).tolist() == [[1.5, 1.0, 2.0], [1.5, 3.0, 0.0]]
    assert returns_to_go(rewards).tolist() == [[3.0, 2.0, 2.0], [3.0, 3.0, 0.0]]


def test_reinforce_climbs_the_expected_return() -> None:
    logits, worth = torch.tensor([0.3, -0.2, 0.1], requires_grad=True), torch.tensor([1.0, -2.0, 0.5])
    logp = torch.log_softmax(logits, dim=0)
    (expected,) = torch.autograd.grad((logp.exp() * worth).sum(), logits, retain_graph=True)
    losses = logp.exp().detach() * reinforce(logp, worth)  # each action as often as it is taken
    (found,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(-found, expected)
