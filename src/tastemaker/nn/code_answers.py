"""What any network that writes codes answers with: lists, samples and scores of the items that codes stand for.

The network reads requests and says how likely codes are; all else (search on the tree, drawing, exact scores,
exclusions, filters and candidates) is the same for all of them.

B requests, n samples, k items, C items to be scored, Q levels, V codes of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tastemaker.nn.decoding import (
    Found,
    Limits,
    Steps,
    Tree,
    as_samples,
    codes_of,
    sample,
    search,
    told_logp,
    uniforms_of,
)
from tastemaker.types import (
    Array,
    Codebook,
    Decoding,
    Greedy,
    Requests,
    Sample,
    Samples,
    Slates,
    UsageError,
    to_numpy,
)

BEGINNINGS = 1 << 13  # beginnings that are written on with at once
COLUMNS = 256  # items whose log-probabilities are computed at once


class Reading(Protocol):
    """B requests as a network has read them."""

    def steps(self) -> Steps:
        """The network, about to write a first code for each."""

    def logp(self, codes: Tensor) -> list[Tensor]:
        """For each level the log-probabilities [B, n, V] of its codes after those before of tuples [B, n, Q]."""


class KeptTree:
    """The tree of a codebook on a device, made anew where either is another."""

    def __init__(self) -> None:
        self._kept: tuple[Codebook, Any, Tree] | None = None

    def of(self, book: Codebook, device: Any) -> Tree:
        if self._kept is None or self._kept[0] is not book or self._kept[1] != device:
            self._kept = book, device, Tree.of(book.trie, device)
        return self._kept[2]


@dataclass(frozen=True, eq=False)
class CodeAnswers:
    """Answers of a network by the codes of a book; `beams`: beginnings that a search keeps, or as many as it is asked
    for."""

    read: Callable[[Requests], Reading]
    book: Codebook
    tree: Tree
    beams: int

    @torch.no_grad()
    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k likeliest items that a beam search finds."""
        items, scores = np.full((requests.n, k), -1, dtype=np.int32), np.full((requests.n, k), -np.inf, np.float32)
        most = min(k, self.book.n_items)
        for part in _blocks(requests.n, max(1, BEGINNINGS // max(self.beams, most))):
            found = self._search(requests.take(part), most, self.beams)
            n = found.items.shape[1]
            items[part, :n], scores[part, :n] = to_numpy(found.items), to_numpy(found.scores)
        return Slates(items, scores)

    @torch.no_grad()
    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n items a request as their codes, each a list of one item.

        `logp` is that of each code among those that lead to an allowed item, which is how samples are drawn. Scores
        are the network's own log-probabilities, over all codes, where a search found them.
        """
        if isinstance(decoding, Sample):
            if requests.seeds is None:
                raise UsageError("samples are drawn from the streams of the requests' seeds, and these have none")
            uniforms = torch.from_numpy(uniforms_of(requests.seeds, n, self.book.depth)).to(self._device)
            writing, limits = self.read(requests).steps(), self._limits(requests)
            items, logp, codes = sample(writing, self.tree, uniforms, temperature=decoding.temperature, limits=limits)
            scores = logp.sum(dim=-1)
        else:
            if isinstance(decoding, Greedy) and n != 1:
                raise UsageError(f"Greedy() gives one answer a request, {n} were asked for", hint="Beam() or Sample()")
            width = 1 if isinstance(decoding, Greedy) else decoding.width or self.beams
            found = self._search(requests, n, width)
            items, scores, codes = _filled(found, n)
            logp, _ = self._told(requests, codes)
        return as_samples(items, scores, codes, logp, self.book)

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        """Log-probability of each code of samples among those that lead to an allowed item [N], differentiable."""
        codes, there = (torch.from_numpy(a) for a in codes_of(samples, requests.n, self.book))
        told, whole = self._told(requests, codes.to(self._device))
        there = there.to(whole.device)
        if not bool(whole[there].all()):
            raise UsageError("a sample holds codes that lead to no item which its request allows")
        kept: Tensor = told[there].flatten()
        return kept

    @torch.no_grad()
    def score(self, requests: Requests, items: Array | None = None) -> Tensor:
        """Log-probabilities of items [B, C], exact; of all of them that takes far longer than a search for the best."""
        every = np.broadcast_to(np.arange(self.book.n_items), (requests.n, self.book.n_items))
        listed = np.maximum(every if items is None else to_numpy(items), 0)
        wide = np.pad(listed, ((0, 0), (0, -listed.shape[1] % COLUMNS)))  # equal shapes, so equal sums to the bit
        out = torch.zeros(wide.shape)
        for part in _blocks(requests.n, BEGINNINGS // COLUMNS):
            reading = self.read(requests.take(part))
            for columns in _blocks(wide.shape[1], COLUMNS):
                codes = torch.from_numpy(self.book.codes[wide[part, columns]]).to(self._device)
                picked = picked_logp(reading.logp(codes), codes)
                out[part, columns] = picked.sum(dim=-1).cpu()
        return out[:, : listed.shape[1]]

    @property
    def _device(self) -> torch.device:
        return self.tree.order.device

    def _limits(self, requests: Requests) -> Limits | None:
        return Limits.of(requests, self.book.trie, self._device)

    def _search(self, requests: Requests, k: int, width: int) -> Found:
        return search(self.read(requests).steps(), self.tree, k, width, self._limits(requests))

    def _told(self, requests: Requests, codes: Tensor) -> tuple[Tensor, Tensor]:
        """`told_logp` of tuples [B, n, Q]."""
        return told_logp(self.read(requests).logp(codes), codes, self.tree, self._limits(requests))


def picked_logp(logp: list[Tensor], codes: Tensor) -> Tensor:
    """The log-probability [B, n, Q] of each code of tuples [B, n, Q], from those of all codes of each level."""
    told = [one.gather(-1, codes[..., level, None]).squeeze(-1) for level, one in enumerate(logp)]
    return torch.stack(told, dim=-1)


def _filled(found: Found, n: int) -> Found:
    """With n items a request, -1 after the last."""
    short = n - found.items.shape[1]
    items, scores = F.pad(found.items, (0, short), value=-1), F.pad(found.scores, (0, short), value=-torch.inf)
    return Found(items, scores, F.pad(found.codes, (0, 0, 0, short)))


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
