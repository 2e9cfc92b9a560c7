"""Items written code by code, only such as there are: beam search and sampling on the tree of all tuples.

A system says how likely each next code is (`Steps`); what may follow is read from the tree. Nothing loops over
requests or beams, and nothing of the size of nodes times vocabulary is made: the children of the beginnings that are
kept are gathered from the tree's rows, as many as the widest node of a level has.

An exclusion, a filter or a list of candidates closes every node without an allowed item below it. Items below a node
lie side by side, so how many of them are allowed is a difference of two running totals, or of two places in a sorted
list; no table of nodes is made for a request. Therefore no beam ends at a forbidden item, and a list is short only
where fewer items are allowed than asked for.

B requests, W beginnings, M children, V codes of a level, Q levels, n samples, k items.

Ref: De Cao et al., "Autoregressive entity retrieval", ICLR 2021, arXiv:2010.00904, section 3.2 (a tree of what may be
generated).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.types import Codebook, Jagged, Requests, Samples, Slates, Trie, UsageError, mix, to_numpy


class Steps(Protocol):
    """A system in the middle of writing."""

    def __call__(self, rows: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, W, V] of the next code of each beginning.

        The first call has no arguments and W = 1. Afterwards `rows` [B, W] says which beginnings of the call before
        go on, and `codes` [B, W] with which code.
        """


@dataclass(frozen=True, eq=False)
class Tree:
    """A `Trie` on a device; see there."""

    order: Tensor
    tokens: Tensor
    starts: Tensor
    first: Tensor
    last: Tensor
    sizes: tuple[int, ...]  # nodes of each level
    widest: tuple[int, ...]
    share: int  # most items of one tuple

    @classmethod
    def of(cls, trie: Trie, device: Any = "cpu") -> Tree:
        parts = trie.order, trie.tokens, trie.starts, trie.first, trie.last
        order, tokens, starts, first, last = (torch.from_numpy(a).to(device) for a in parts)
        leaves = slice(int(trie.levels[-2]), None)
        share = int((trie.last[leaves] - trie.first[leaves]).max(initial=1))
        sizes = tuple(np.diff(trie.levels).tolist())
        return cls(order, tokens, starts, first, last, sizes, trie.widest, share)

    @property
    def depth(self) -> int:
        return len(self.widest)

    def edges(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Edges [.., M] from nodes [..] of a level, the codes they stand for, and where there is one; e leads to node
        1 + e."""
        steps = torch.arange(self.widest[level], device=nodes.device)
        edges = _pick(self.starts, nodes).unsqueeze(-1) + steps
        there = edges < _pick(self.starts, nodes + 1).unsqueeze(-1)
        edges = edges.clamp_(max=len(self.tokens) - 1)
        return edges, _pick(self.tokens, edges), there


@dataclass(frozen=True, eq=False)
class Limits:
    """Which items each request may be answered with, by their places in the tree's order.

    Shapes:
        totals: [F, I + 1] int64, how many of the first items a filter's row allows; None: there is no filter
        which: [B] int64, the row that holds
        outside, inside: [B, E] int64, rising: places that are excluded (of those the filter allows), and the only
            ones allowed; I stands for none; None: no exclusion, no candidates
    """

    totals: Tensor | None = None
    which: Tensor | None = None
    outside: Tensor | None = None
    inside: Tensor | None = None

    @classmethod
    def of(cls, requests: Requests, trie: Trie, device: Any = "cpu") -> Limits | None:
        """From candidates, exclusions and filter; None where there are none."""
        n = len(trie.order)
        rules = requests.filter
        if rules is None and requests.exclude is None and requests.candidates is None:
            return None
        place = np.empty(n, dtype=np.int64)
        place[trie.order] = np.arange(n)
        excluded, kept = (_keys(rows, place) for rows in (requests.exclude, requests.candidates))
        totals = which = None
        if rules is not None:
            if rules.allowed.shape[1] < n:
                raise UsageError(f"a filter must say of all {n} items whether they are allowed")
            allowed = np.concatenate([np.ones((1, n), dtype=np.bool_), rules.allowed[:, trie.order]])
            rule = rules.which.astype(np.int64) + 1
            excluded, kept = (
                None if k is None else k[allowed[rule[k // (n + 1)], k % (n + 1)]] for k in (excluded, kept)
            )
            if kept is None:
                totals = np.zeros((len(allowed), n + 1), dtype=np.int64)
                np.cumsum(allowed, axis=1, out=totals[:, 1:])
                which = rule
        if kept is not None and excluded is not None:
            kept, excluded = kept[~np.isin(kept, excluded)], None
        lists = (None if keys is None else _lists(keys, requests.n, n) for keys in (excluded, kept))
        return cls(*(None if a is None else torch.from_numpy(a).to(device) for a in (totals, which, *lists)))

    def allow(self, first: Tensor, last: Tensor) -> Tensor:
        """Whether one of the items at the places first to last - 1 is allowed: [B, ..] from [B, ..]."""
        shape = first.shape
        first, last = first.flatten(1), last.flatten(1)
        if self.inside is not None:
            found = torch.searchsorted(self.inside, last) - torch.searchsorted(self.inside, first)
        elif self.totals is not None and self.which is not None:
            rows = self.which.unsqueeze(1)
            found = self.totals[rows, last] - self.totals[rows, first]
        else:
            found = last - first
        if self.outside is not None:
            found = found - (torch.searchsorted(self.outside, last) - torch.searchsorted(self.outside, first))
        return (found > 0).view(shape)


class Found(NamedTuple):
    """The likeliest items [B, k], -1 after the last; their log-probabilities [B, k]; their codes [B, k, Q]."""

    items: Tensor
    scores: Tensor
    codes: Tensor


class Drawn(NamedTuple):
    """Items [B, n] drawn, -1 where none is allowed; the log-probability [B, n, Q] of each code among those that were
    allowed; the codes [B, n, Q]."""

    items: Tensor
    logp: Tensor
    codes: Tensor


@torch.no_grad()
def search(steps: Steps, tree: Tree, k: int, width: int, limits: Limits | None = None) -> Found:
    """The k likeliest items that a search finds which keeps `width` beginnings a level, at least k.

    Log-probabilities are the system's own, over all codes of a level: what is forbidden loses its place in the list,
    and the others keep their scores. With `width` no less than the number of items the lists are exact. Items that
    share a tuple share its score, in the order of a fixed hash.
    """
    width = max(width, k)
    rows = codes = None
    nodes = scores = None
    path: list[Tensor] = []
    for level in range(tree.depth):
        logp = steps(rows, codes)
        if nodes is None or scores is None:
            nodes = torch.zeros(logp.shape[:2], dtype=torch.int64, device=logp.device)
            scores = logp.new_zeros(logp.shape[:2])
        edges, tokens, there = _open(tree, level, nodes, limits)
        values = logp.gather(2, tokens).add_(scores.unsqueeze(-1)).masked_fill_(~there, -torch.inf).flatten(1)
        scores, place = values.topk(min(width, values.shape[1], tree.sizes[level + 1]), dim=1)
        rows = place // edges.shape[-1]
        nodes, codes = edges.flatten(1).gather(1, place) + 1, tokens.flatten(1).gather(1, place)
        path = [*(codes_before.gather(1, rows) for codes_before in path), codes]
    assert nodes is not None and scores is not None
    return _items(tree, nodes, scores, torch.stack(path, dim=-1), k, limits)


@torch.no_grad()
def free_search(steps: Steps, depth: int, width: int) -> tuple[Tensor, Tensor]:
    """The likeliest tuples [B, W, Q] and their log-probabilities [B, W] if every code may follow every other."""
    rows = codes = scores = None
    path: list[Tensor] = []
    for _ in range(depth):
        logp = steps(rows, codes)
        values = (logp if scores is None else scores.unsqueeze(-1) + logp).flatten(1)
        scores, place = values.topk(min(width, values.shape[1]), dim=1)
        rows, codes = place // logp.shape[-1], place % logp.shape[-1]
        path = [*(codes_before.gather(1, rows) for codes_before in path), codes]
    assert scores is not None
    return torch.stack(path, dim=-1), scores


@torch.no_grad()
def sample(
    steps: Steps, tree: Tree, uniforms: Tensor, *, temperature: float = 1.0, limits: Limits | None = None
) -> Drawn:
    """n items a request, each code drawn among those that lead to an allowed item, in proportion to its probability
    to the power 1 / temperature.

    Shapes: uniforms [B, n, Q] float64 in [0, 1), see `uniforms_of`: the same numbers, the same items.
    """
    if not temperature > 0:
        raise UsageError(f"a temperature is above 0, got {temperature}", hint="Greedy() takes the likeliest code")
    n = uniforms.shape[1]
    rows = codes = None
    nodes = torch.zeros(uniforms.shape[:2], dtype=torch.int64, device=uniforms.device)
    path, told = [], []
    for level in range(tree.depth):
        logp = steps(rows, codes)
        if level == 0:
            logp = logp.expand(-1, n, -1)
        edges, tokens, there = _open(tree, level, nodes, limits)
        values = (logp.gather(2, tokens).double() / temperature).masked_fill_(~there, -torch.inf)
        shares = torch.log_softmax(values, dim=-1).nan_to_num_(nan=-torch.inf)  # nothing is allowed: nothing is likely
        totals = shares.exp().cumsum(dim=-1)
        wanted = uniforms[:, :, level, None] * totals[..., -1:]
        last = there.shape[-1] - 1 - there.flip(-1).int().argmax(dim=-1)
        place = (totals <= wanted).sum(dim=-1).minimum(last).unsqueeze(-1)
        told.append(shares.gather(2, place).squeeze(-1))
        nodes, codes = edges.gather(2, place).squeeze(-1) + 1, tokens.gather(2, place).squeeze(-1)
        rows = torch.arange(n, device=nodes.device).expand_as(nodes) if level else torch.zeros_like(nodes)
        path.append(codes)
    drawn = torch.stack(path, dim=-1)
    flat = nodes.view(-1, 1)
    owners = None if limits is None else _spread(limits, n)
    found = _items(
        tree, flat, flat.new_zeros(flat.shape, dtype=torch.float32), drawn.view(-1, 1, tree.depth), 1, owners
    )
    return Drawn(found.items.view(nodes.shape), torch.stack(told, dim=-1).float(), drawn)


def told_logp(logp: Sequence[Tensor], codes: Tensor, tree: Tree, limits: Limits | None = None) -> tuple[Tensor, Tensor]:
    """Log-probability [B, n, Q] of each code of tuples [B, n, Q] among those that lead to an allowed item, and whether
    a tuple leads to one [B, n]; where not, its numbers mean nothing.

    It is what `sample` draws by at temperature 1, and differentiable.

    Shapes: logp: for each level [B, n, V], log-probabilities of the next code after the codes before it.
    """
    nodes = torch.zeros_like(codes[..., 0])
    told = []
    whole = torch.ones_like(nodes, dtype=torch.bool)
    for level in range(tree.depth):
        edges, tokens, there = _open(tree, level, nodes, limits)
        values = logp[level].gather(2, tokens).masked_fill(~there, -torch.inf)
        hit = (tokens == codes[..., level, None]) & there
        place = hit.int().argmax(dim=-1, keepdim=True)
        whole = whole & hit.any(dim=-1)
        told.append(values.gather(2, place).squeeze(-1) - values.logsumexp(dim=-1))
        nodes = edges.gather(2, place).squeeze(-1) + 1
    return torch.stack(told, dim=-1), whole


def uniforms_of(seeds: NDArray[np.uint64], n: int, depth: int) -> NDArray[np.float64]:
    """Numbers [B, n, Q] in [0, 1) that depend on the request's seed, the sample's number and the level alone."""
    counters = np.arange(n * depth, dtype=np.uint64)
    bits = mix(mix(seeds, 1)[:, None] + counters[None, :], 2) >> np.uint64(11)
    return (bits.astype(np.float64) * 2.0**-53).reshape(len(seeds), n, depth)


def as_samples(items: Tensor, scores: Tensor, codes: Tensor, logp: Tensor, book: Codebook) -> Samples:
    """n items a request as samples: tokens of a codebook's one vocabulary, each answer a list of one item.

    Shapes: items, scores [B, n], an item of -1 has no tokens; codes, logp [B, n, Q]
    """
    depth, n = book.depth, items.shape[1]
    there = to_numpy(items).ravel() >= 0
    offsets = np.concatenate([[0], np.cumsum(there * depth)])
    tokens = to_numpy(codes).reshape(-1, depth)[there] + book.shifts
    each = to_numpy(logp).reshape(-1, depth)
    whole, value = np.where(there, [each.sum(axis=1), to_numpy(scores).ravel()], -np.inf)
    slates = Slates(to_numpy(items).reshape(-1, 1), value[:, None], whole[:, None])
    return Samples(
        n, Jagged(tokens.ravel(), offsets), Jagged(each[there].ravel(), offsets), slates=slates, book=book.version
    )


def codes_of(samples: Samples, b: int, book: Codebook) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Codes [B, n, Q] of samples, and which of them there are [B, n]: what `as_samples` was given.

    Raises:
        UsageError: they are not n rows a request, each of one tuple or empty, or were made with other codes.
    """
    if samples.book is not None and samples.book != book.version:
        raise UsageError(f"samples are of version {samples.book} of a codebook that stands at {book.version}")
    depth, shape = book.depth, (b, samples.n)
    rows = Jagged.empty(0, np.int64) if samples.tokens is None else samples.tokens
    if len(rows) != b * samples.n or not np.isin(rows.lengths, (0, depth)).all():
        raise UsageError(f"samples of {b} requests are {b * samples.n} rows of {depth} codes or none")
    there = rows.lengths > 0
    codes = np.zeros((len(rows), depth), dtype=np.int64)
    codes[there] = rows.values.reshape(-1, depth) - book.shifts
    if not ((codes >= 0) & (codes < book.sizes)).all():
        raise UsageError("a sample holds codes that lead to no item: they are not of their level")
    return codes.reshape(*shape, depth), there.reshape(shape)


def _open(tree: Tree, level: int, nodes: Tensor, limits: Limits | None) -> tuple[Tensor, Tensor, Tensor]:
    """Edges, their codes, and which of them may be gone along: [B, W, M] each."""
    edges, tokens, there = tree.edges(level, nodes)
    if limits is not None:
        there = there & limits.allow(_pick(tree.first, edges + 1), _pick(tree.last, edges + 1))
    return edges, tokens, there


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """values[places], a good deal faster."""
    return values.index_select(0, places.flatten()).view(places.shape)


def _items(tree: Tree, leaves: Tensor, scores: Tensor, codes: Tensor, k: int, limits: Limits | None) -> Found:
    """The items at leaves [B, W], best leaf first; those of one leaf beside each other."""
    places = tree.first[leaves].unsqueeze(-1) + torch.arange(tree.share, device=leaves.device)
    there = (places < tree.last[leaves].unsqueeze(-1)) & (scores > -torch.inf).unsqueeze(-1)
    places = places.clamp_(max=len(tree.order) - 1)
    if limits is not None:
        there = there & limits.allow(places, places + 1)
    there = there.flatten(1)
    rank = torch.sort(~there, dim=1, stable=True).indices[:, :k]  # what is not there goes to the end
    rows = rank // tree.share
    kept = there.gather(1, rank)
    items = tree.order[places.flatten(1).gather(1, rank)].masked_fill(~kept, -1)
    best = scores.gather(1, rows).masked_fill(~kept, -torch.inf)
    return Found(items, best, codes.gather(1, rows.unsqueeze(-1).expand(-1, -1, codes.shape[-1])))


def _spread(limits: Limits, n: int) -> Limits:
    """The limits of each request n times."""

    def more(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else rows.repeat_interleave(n, dim=0)

    return Limits(limits.totals, more(limits.which), more(limits.outside), more(limits.inside))


def _keys(rows: Jagged[NDArray[np.int32]] | None, place: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Row and place of the listed items as one number each, rising, each once; what is no item is left out."""
    if rows is None:
        return None
    known = (rows.values >= 0) & (rows.values < len(place))
    keys: NDArray[np.int64] = np.unique(rows.rows[known] * (len(place) + 1) + place[rows.values[known]])
    return keys


def _lists(keys: NDArray[np.int64], n_rows: int, n: int) -> NDArray[np.int64]:
    """Places [B, E] of each row, filled up with n."""
    return Jagged.from_rows(keys // (n + 1), keys % (n + 1), n_rows).padded(fill=n)
