"""Losses of policies that learn from rewards for what they did, one value a row, each as its paper writes it.

B rows, G answers to a prompt, Q tokens of an answer, T steps of an episode.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Ratio = Literal["token", "sequence"]
Mean = Literal["answers", "tokens"]
EPS = 1e-4  # a group whose rewards are all alike teaches nothing


def group_advantages(rewards: Tensor, there: Tensor | None = None, *, scale: bool = True) -> Tensor:
    """How much better than its group each answer is: (r - mean) / (standard deviation + 1e-4), 0 where there is none.

    Args:
        scale: whether to divide. Without it groups that are nearly all right or all wrong count less.

    Shapes: rewards [B, G], there [B, G] bool or None; returns [B, G].
    Ref: Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1.2 (the deviation of a sample: n - 1 below the line);
    Liu et al., "Understanding R1-Zero-like training", arXiv:2503.20783, for `scale=False`.
    """
    kept = torch.ones_like(rewards) if there is None else there.to(rewards.dtype)
    n = kept.sum(dim=-1, keepdim=True)
    centred = (rewards - (rewards * kept).sum(dim=-1, keepdim=True) / n.clamp_min(1)) * kept
    if not scale:
        return centred
    deviation = (centred.square().sum(dim=-1, keepdim=True) / (n - 1).clamp_min(1)).sqrt()
    return centred / (deviation + EPS)


def kl_k3(logp: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence of a policy from a reference at what was drawn from the policy: never negative,
    and right in expectation.

    Shapes: log-probabilities [..] of both; returns [..].
    Ref: Schulman, "Approximating KL divergence", 2020, the estimator k3; arXiv:2402.03300, equation 4.
    """
    gap = reference - logp
    return gap.exp() - gap - 1


def grpo(
    logp: Tensor,
    advantages: Tensor,
    *,
    reference: Tensor | None = None,
    beta: float = 0.0,
    old: Tensor | None = None,
    clip: float | None = None,
    ratio: Ratio = "token",
    there: Tensor | None = None,
    mean: Mean = "answers",
) -> Tensor:
    """Group relative policy optimisation: answers are made likelier by how much they are better than their group.

    Of each token: -min(r A, clip(r) A) + beta KL, where r is the token's probability over what it was when it was
    drawn. Where each experience is learnt from once, r is 1 and carries the gradient alone.

    Args:
        reference, beta: log-probabilities under the policy that is to be kept near, and how much that counts.
        old: log-probabilities under the policy that drew; None: it was this one.
        clip: how far from 1 a ratio may go before it teaches no more; None: any.
        ratio: of each "token", or of the whole "sequence": the geometric mean of its tokens'.
        there: which tokens there are, where answers differ in length or number.
        mean: over the tokens of each answer and then over "answers", or over all "tokens" of the batch.

    Shapes: logp, reference, old [B, G, Q], advantages [B, G], there [B, G, Q] bool; returns [B].
    Ref: arXiv:2402.03300, equation 3; Yu et al., "DAPO", arXiv:2503.14476, equation 8 (`mean="tokens"`); Zheng et al.,
    "Group sequence policy optimization", arXiv:2507.18071, equations 5 to 7 (`ratio="sequence"`).
    """
    kept = torch.ones_like(logp) if there is None else there.to(logp.dtype)
    count = kept.sum(dim=-1)  # [B, G]
    moved = (logp - (logp if old is None else old).detach()) * kept
    if ratio == "sequence":
        moved = (moved.sum(dim=-1) / count.clamp_min(1)).unsqueeze(-1).expand_as(logp)
    ratios, gains = moved.exp(), advantages.unsqueeze(-1)
    gained = ratios * gains
    if clip is not None:
        gained = torch.minimum(gained, ratios.clamp(1 - clip, 1 + clip) * gains)
    losses = -gained
    if reference is not None and beta:
        losses = losses + beta * kl_k3(logp, reference)
    losses = (losses * kept).sum(dim=-1)  # [B, G]
    if mean == "tokens":
        return losses.sum(dim=-1) * len(logp) / count.sum().clamp_min(1)
    answers = (count > 0).sum(dim=-1)
    return (losses / count.clamp_min(1)).sum(dim=-1) / answers.clamp_min(1)


def returns_to_go(rewards: Tensor, discount: float = 1.0) -> Tensor:
    """What each step and those after it brought: R[t] = r[t] + discount R[t + 1].

    Shapes: rewards [B, T], 0 after an episode's end; returns [B, T].
    """
    total = torch.zeros_like(rewards[:, 0])
    found = []
    for step in reversed(rewards.unbind(dim=1)):
        total = step + discount * total
        found.append(total)
    return torch.stack(found[::-1], dim=1)


def reinforce(logp: Tensor, returns: Tensor) -> Tensor:
    """-log p(action) times what came of it, whose gradient is that of the expected return.

    Shapes: logp, returns [..] (a baseline may have been taken off); returns [..].
    Ref: Williams, "Simple statistical gradient-following algorithms", Machine Learning 8, 1992.
    """
    return -logp * returns.detach()
