"""RQ-VAE: vectors of items through an encoder, its output as the sum of one code vector a level, and back.

Ref: Zeghidour et al., "SoundStream", arXiv:2107.03312 (residual quantisation); van den Oord et al., "Neural discrete
representation learning", arXiv:1711.00937 (straight-through gradients, commitment); for items: Rajput et al.,
"Recommender systems with generative retrieval", arXiv:2305.05065, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.nn.quantise import kmeans
from tastemaker.types import generator, to_numpy

COMMITMENT = 0.25


@dataclass(frozen=True, eq=False)
class Vectors:
    """B vectors [B, W] of a batch."""

    values: Any

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: slice) -> Vectors:
        return Vectors(self.values[rows])


class Coded(NamedTuple):
    """Codes [B, Q], the sum of their vectors [B, Z], and how far each level's residual lies from its code's vector,
    seen from the code [B] and, the code being held still, from the encoder [B]."""

    codes: Tensor
    summed: Tensor
    moved: Tensor
    committed: Tensor


class RQVAE(nn.Module):
    """Vectors [B, W] as Q codes and back.

    Args:
        width: W, of the vectors.
        hidden: widths of the encoder's layers, the last being Z, of the code vectors; the decoder is its mirror.
        n_levels, size: levels, and codes of each.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, hidden: Sequence[int], n_levels: int, size: int) -> None:
        super().__init__()
        widths = [width, *hidden]
        self.encoder = _layers(widths)
        self.decoder = _layers(widths[::-1])
        self.codes = nn.Parameter(torch.randn(n_levels, size, widths[-1]) * 0.1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(1))

    @torch.no_grad()
    def begin(self, vectors: NDArray[np.float32], seed: int, *, most: int = 20_000) -> None:
        """Standardise by these vectors, and put each level's codes at the centres of clusters of its residuals.

        Args:
            most: vectors that are clustered; of more, some are drawn.
        """
        rng = generator(seed, "rqvae")
        self.mean.copy_(torch.from_numpy(vectors.mean(axis=0)))
        self.scale.fill_(max(float(vectors.std()), 1e-12))
        if len(vectors) > most:
            vectors = vectors[rng.choice(len(vectors), most, replace=False)]
        left = to_numpy(self.encoder(self.standardised(torch.from_numpy(vectors).to(self.mean.device))))
        for level in self.codes:
            centres = kmeans(left, len(level), rng, iterations=20)
            level.copy_(torch.from_numpy(centres))
            near = to_numpy(self._nearest(torch.from_numpy(left).to(level.device), level))
            left = left - centres[near]

    def standardised(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) / self.scale

    def quantise(self, z: Tensor) -> Coded:
        """Codes of encoded vectors [B, Z], level by level from what is left."""
        left, summed = z, torch.zeros_like(z)
        codes, moved, committed = [], z.new_zeros(len(z)), z.new_zeros(len(z))
        for level in self.codes:
            near = self._nearest(left.detach(), level)
            picked = nn.functional.embedding(near, level)
            moved = moved + (left.detach() - picked).square().sum(dim=-1)
            committed = committed + (left - picked.detach()).square().sum(dim=-1)
            summed = summed + picked
            left = left - picked.detach()
            codes.append(near)
        return Coded(torch.stack(codes, dim=-1), summed, moved, committed)

    def forward(self, vectors: Tensor) -> Tensor:
        """The loss of each vector [B]: of what comes back, of codes that lie far, of an encoder that strays from them.

        Ref: arXiv:2305.05065, section 3.1, with its beta of 0.25.
        """
        x = self.standardised(vectors)
        z = self.encoder(x)
        coded = self.quantise(z)
        through = z + (coded.summed - z).detach()  # the gradient passes as if nothing had been rounded
        back = (self.decoder(through) - x).square().sum(dim=-1)
        loss: Tensor = back + coded.moved + COMMITMENT * coded.committed
        return loss

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Codes [n, Q] of vectors [n, W]."""
        return self.quantise(self.encoder(self.standardised(vectors))).codes

    @torch.no_grad()
    def last_residual(self, vectors: Tensor) -> Tensor:
        """What the levels before the last leave over of each vector [n, Z]."""
        z: Tensor = self.encoder(self.standardised(vectors))
        codes = self.quantise(z).codes
        for level, column in zip(self.codes[:-1], codes.T, strict=False):
            z = z - level[column]
        return z

    @torch.no_grad()
    def error(self, vectors: Tensor) -> float:
        """The share of the vectors' variance that does not come back."""
        x = self.standardised(vectors)
        back = self.decoder(self.quantise(self.encoder(x)).summed)
        return float((back - x).square().sum() / x.square().sum().clamp_min(1e-12))

    @staticmethod
    def _nearest(x: Tensor, level: Tensor) -> Tensor:
        away: Tensor = level.square().sum(dim=-1) - 2 * (x @ level.T)
        return away.argmin(dim=-1)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    made: list[nn.Module] = []
    for before, after in pairwise(widths):
        made += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*made[:-1])
