"""Losses, one value a row, each as its paper writes it.

B rows, n negatives a row, I items, D width. Scores are logits: nothing has been squashed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid(positive - negative), averaged over the negatives of a row.

    Shapes: positive [B], negative [B, n]; returns [B].
    Ref: Rendle et al., "BPR", UAI 2009, arXiv:1205.2618, section 4.
    """
    return F.softplus(negative - positive.unsqueeze(-1)).mean(dim=-1)


def bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of one positive and n negatives, the negatives' terms summed.

    Shapes: positive [B], negative [B, n]; returns [B].
    Ref: Kang, McAuley, "SASRec", arXiv:1808.09781, equation 7 (n = 1).
    """
    return F.softplus(-positive) + F.softplus(negative).sum(dim=-1)


def gbce(positive: Tensor, negative: Tensor, n_items: int, calibration: float = 0.75) -> Tensor:
    """Generalised binary cross-entropy: the positive's probability is raised to a power below 1.

    The power undoes, to the degree `calibration` (0: not at all, 1: in full), the overconfidence that comes from
    showing n of `n_items` - 1 negatives.

    Shapes: positive [B], negative [B, n]; returns [B].
    Ref: Petrov, Macdonald, "gSASRec", arXiv:2308.07192, equations 11 and 18.
    """
    share = negative.shape[-1] / (n_items - 1)
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    return power * F.softplus(-positive) + F.softplus(negative).sum(dim=-1)


def softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the whole catalogue.

    Shapes: logits [B, I], targets [B]; returns [B].
    """
    return F.cross_entropy(logits, targets, reduction="none")


def sampled_softmax(
    positive: Tensor, negative: Tensor, positive_logq: Tensor | None = None, negative_logq: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the positive among itself and sampled negatives, their logits corrected for how often each
    is sampled. With many negatives the gradient is that of the full softmax in expectation, in two ways:

    * negatives drawn from q, the positive not among them: negative_logq = log(n q), n being how many are drawn; the
      positive is there for certain, so it is not corrected;
    * negatives and positive alike are items of a batch of choices: both logq are the log-frequencies of the items.

    Shapes: positive [B], negative [B, n], positive_logq [B], negative_logq [n] or [B, n]; a negative of -inf takes
        no part; returns [B].
    Ref: Bengio, Senecal, "Adaptive importance sampling to accelerate training", 2008; Yi et al., RecSys 2019,
        doi:10.1145/3298689.3346996, equations 4 and 5.
    """
    if positive_logq is not None:
        positive = positive - positive_logq
    if negative_logq is not None:
        negative = negative - negative_logq
    return torch.logsumexp(torch.cat([positive.unsqueeze(-1), negative], dim=-1), dim=-1) - positive


def ccl(positive: Tensor, negative: Tensor, margin: float = 0.9, weight: float = 150.0) -> Tensor:
    """Cosine contrastive loss: 1 - positive + weight * mean of max(0, negative - margin).

    Shapes: positive [B] and negative [B, n], both cosines; returns [B].
    Ref: Mao et al., "SimpleX", arXiv:2109.12613, equation 1.
    """
    return (1 - positive) + weight * F.relu(negative - margin).mean(dim=-1)


def info_nce(left: Tensor, right: Tensor, temperature: float = 0.2) -> Tensor:
    """How well each row of `left` finds its own row of `right` among all of them, by cosine.

    Shapes: left, right [B, D]; returns [B].
    Ref: van den Oord et al., arXiv:1807.03748, equation 4; as in SimGCL, arXiv:2112.08679, equation 2.
    """
    left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
    logits = left @ right.T / temperature
    return F.cross_entropy(logits, torch.arange(len(left), device=left.device), reduction="none")


def alignment(left: Tensor, right: Tensor) -> Tensor:
    """Squared distance of the normalised vectors of a pair.

    Shapes: left, right [B, D]; returns [B].
    Ref: Wang, Isola, arXiv:2005.10242, section 4.1.1; as in DirectAU, arXiv:2206.12811, equation 6.
    """
    return (F.normalize(left, dim=-1) - F.normalize(right, dim=-1)).square().sum(dim=-1)


def uniformity(vectors: Tensor, scale: float = 2.0) -> Tensor:
    """Log of the mean of exp(-scale * squared distance) over all pairs of different rows, vectors normalised.

    Shapes: vectors [B, D], B at least 2; returns a scalar.
    Ref: Wang, Isola, arXiv:2005.10242, section 4.1.2; as in DirectAU, arXiv:2206.12811, equation 7.
    """
    return torch.pdist(F.normalize(vectors, dim=-1)).square().mul(-scale).exp().mean().log()


def margin(positive: Tensor, negative: Tensor, gap: float = 1.0) -> Tensor:
    """Hinge: max(0, gap - positive + negative), averaged over the negatives of a row.

    Shapes: positive [B], negative [B, n]; returns [B].
    Ref: Weston et al., "WSABIE", IJCAI 2011, equation 3, without the weight of the rank; Hsieh et al.,
        "Collaborative metric learning", WWW 2017, equation 1, with scores for negative distances.
    """
    return F.relu(gap - positive.unsqueeze(-1) + negative).mean(dim=-1)


def bpr_max(positive: Tensor, negative: Tensor, reg: float = 0.0) -> Tensor:
    """-log of the mean of sigmoid(positive - negative) under the softmax of the negatives, plus `reg` times the mean
    of their squares under it: the hardest of a sample decide, however large it is.

    Shapes: positive [B], negative [B, n]; a negative of -inf takes no part; returns [B].
    Ref: Hidasi, Karatzoglou, "Recurrent neural networks with top-k gains", arXiv:1706.03847, section 3.3.
    """
    shares, scores = _hardness(negative)
    losses = -torch.logsumexp(shares + F.logsigmoid(positive.unsqueeze(-1) - negative), dim=-1)
    return losses + reg * (shares.exp() * scores.square()).sum(dim=-1)


def top1_max(positive: Tensor, negative: Tensor) -> Tensor:
    """The mean of sigmoid(negative - positive) + sigmoid(negative^2) under the softmax of the negatives.

    Shapes: positive [B], negative [B, n]; a negative of -inf takes no part; returns [B].
    Ref: Hidasi, Karatzoglou, "Recurrent neural networks with top-k gains", arXiv:1706.03847, section 3.3.
    """
    shares, scores = _hardness(negative)
    lost = torch.sigmoid(negative - positive.unsqueeze(-1)) + torch.sigmoid(scores.square())
    return (shares.exp() * lost).sum(dim=-1)


def _hardness(negative: Tensor) -> tuple[Tensor, Tensor]:
    """Log of each negative's share in the softmax of its row, and the negatives with 0 for -inf [B, n]."""
    absent = negative == -torch.inf
    return torch.log_softmax(negative.masked_fill(absent, -1e30), dim=-1), negative.masked_fill(absent, 0.0)
