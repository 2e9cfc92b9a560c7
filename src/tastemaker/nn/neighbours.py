"""The nearest rows of dense vectors, and graphs of them: block by block, never all against all at once.

I items, W and D widths, k neighbours, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.types import BudgetExceeded, UsageError
from tastemaker.types.meter import available_memory_mb

BLOCK = 1 << 22  # similarities held at once


def nearest_rows(vectors: Tensor, k: int, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k rows of `among` (None: of themselves, each its own first) most like each row, by inner product.

    Rows of zeros say nothing: they have no neighbours but, among themselves, themselves, and are nobody's.

    Shapes: vectors [n, W], among [I, W], both of unit length; returns numbers [n, k] int64, -1 after the last, and
        likeness [n, k], 0 there.
    """
    own = among is None
    among = vectors if among is None else among
    k_most = min(k, len(among))
    numbers = torch.full((len(vectors), k), -1, dtype=torch.int64, device=vectors.device)
    likeness = vectors.new_zeros(len(vectors), k)
    said = among.any(dim=1)
    step = max(1, BLOCK // max(1, len(among)))
    for first in range(0, len(vectors), step):
        rows = vectors[first : first + step]
        scores = (rows @ among.T).masked_fill_(~said, -torch.inf)
        here = torch.arange(len(rows), device=rows.device)
        if own:
            scores[here, first + here] = torch.inf
        part = slice(first, first + step), slice(k_most)
        numbers[part], likeness[part] = _best(scores, rows, k_most)
    return numbers, likeness


def dense_neighbours(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `nearest_rows` finds among the rows themselves, by one matrix of all against all.

    Raises:
        BudgetExceeded: memory does not hold it.
    """
    needed, free = 3 * 4 * len(vectors) ** 2 / 2**20, available_memory_mb()
    if needed > free:
        raise BudgetExceeded(
            f"all {len(vectors):,} items against all need {needed:,.0f} MB, {free:,.0f} MB are free", hint="dense=False"
        )
    scores = (vectors @ vectors.T).masked_fill_(~vectors.any(dim=1), -torch.inf).fill_diagonal_(torch.inf)
    numbers, likeness = _best(scores, vectors, min(k, len(vectors)))
    short = max(0, k - len(vectors))
    return nn.functional.pad(numbers, (0, short), value=-1), nn.functional.pad(likeness, (0, short))


def _best(scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row of scores, in which a row's own is infinite and what says nothing is -inf."""
    best, place = scores.topk(k, dim=1)
    told = (best > -torch.inf) & (rows.any(dim=1).unsqueeze(1) | best.isinf())
    return place.masked_fill(~told, -1), best.clamp(max=1.0).masked_fill(~told, 0.0)


def edges(near: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns [I M k] of the entries that `joined` gives; an entry without an item is at column 0."""
    n, *many = near.shape
    rows = torch.arange(n, device=near.device).repeat_interleave(int(np.prod(many)))
    return rows, near.clamp(min=0).flatten()


def joined(near: Tensor, likeness: Tensor, weights: Tensor) -> Tensor:
    """D^-1/2 (sum of w_m A_m) D^-1/2 with D the sums of rows, entry by entry, differentiable.

    Shapes: near, likeness [I, M, k], -1 for no item; weights [M]; returns [I M k], in the order of `edges`.
    """
    entries = likeness.clamp(min=0) * (near >= 0) * weights.view(1, -1, 1)
    sums = entries.sum(dim=(1, 2))
    roots = torch.where(sums > 0, sums.clamp(min=1e-12).rsqrt(), 0.0)
    rows, columns = edges(near)
    return entries.flatten() * roots[rows] * roots[columns]


def neighbour_graph(vectors: NDArray[Any], k: int, *, weighted: bool = False) -> sp.csr_array:
    """The graph of each item's k nearest, itself among them: D^-1/2 A D^-1/2 with D the sums of rows, on both sides.

    Every entry of A is 1, or with `weighted` the likeness, at least 0. Where all rows have k entries of 1, every entry
    of the result is 1 / k. The graph is directed.

    Shapes: vectors [I, W] of unit length; returns [I, I] float32.
    Ref: Zhang et al., LATTICE, arXiv:2104.09036, equations 2 to 4; Zhou, Shen, FREEDOM, arXiv:2211.06924, equation 2.
    """
    numbers, likeness = (part.numpy() for part in nearest_rows(torch.from_numpy(np.asarray(vectors)), k))
    row, place = np.nonzero(numbers >= 0)
    data = likeness[row, place].clip(min=0) if weighted else np.ones(len(row), dtype=np.float32)
    n = len(numbers)
    sums = np.bincount(row, data, n)
    roots = np.divide(1, np.sqrt(sums), out=np.zeros(n), where=sums > 0)
    columns = numbers[row, place]
    graph = sp.csr_array(((data * roots[row] * roots[columns]).astype(np.float32), (row, columns)), shape=(n, n))
    graph.sort_indices()
    return graph


def blended(graphs: Sequence[sp.csr_array], shares: Sequence[float]) -> sp.csr_array:
    """The sum of graphs, each by its share."""
    total = sp.csr_array(graphs[0].shape, dtype=np.float32)
    for graph, share in zip(graphs, shares, strict=True):
        total = total + graph * np.float32(share)
    total = sp.csr_array(total)
    total.sort_indices()
    return total


def shares_of(given: str, kinds: Sequence[str], image: float = 0.1) -> list[float]:
    """What each modality counts, adding up to 1.

    Args:
        given: numbers separated by commas, in the order of the modalities; "": images together count `image`, beside
            others, and within both groups all count alike.
    """
    if given.strip():
        try:
            shares = [float(one) for one in given.split(",")]
        except ValueError as error:
            raise UsageError(f"shares are numbers separated by commas, got {given!r}") from error
        if len(shares) != len(kinds) or min(shares) < 0 or sum(shares) <= 0:
            raise UsageError(f"{len(kinds)} modalities need as many shares of at least 0, got {given!r}")
        return [share / sum(shares) for share in shares]
    pictures = sum(kind == "image" for kind in kinds)
    if pictures in (0, len(kinds)):
        return [1 / len(kinds)] * len(kinds)
    return [image / pictures if kind == "image" else (1 - image) / (len(kinds) - pictures) for kind in kinds]
