"""Attention by SiLU in the place of a softmax, over ragged rows, with a learned bias for distance and for time.

A query sees the first `reach` keys of its row. What it makes of them is

    y = scale * sum over j of silu(q . k_j + positions[place - j] + times[b(|asked - told_j|)]) v_j

where b counts the steps of a logarithm of whole seconds. No weight is divided by the sum of the others, so y also says
how much of something there was. `reference` writes this down over a rectangle; `attend` goes through blocks of rows of
like length and of few queries, on the way back too, and holds no more of the pairs at once than one block.

N queries and M keys in B rows, H heads, D width of a head, V width of a head's values, S queries and K keys a block.

Ref: Zhai et al., "Actions speak louder than words", arXiv:2402.17152, section 3.1 (equation 2) and 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.nn.compiling import LeftAlone

STEP = 0.301  # of the natural logarithm of a time difference
N_STEPS = 129
FIRST = np.maximum(1, np.ceil(np.exp(STEP * np.arange(N_STEPS)))).astype(np.int64)
"""The smallest difference of each step: whole numbers, so that no rounding of a logarithm decides."""

PAIRS = 1 << 17  # of queries and keys in a block, for each head
QUERIES = 64  # of a row in a block: later queries see more keys, so smaller ones waste less
CLASSES = 6  # of lengths, from a length to its double
WASTE = 1 << 15  # pairs that may be made for nothing to save a block
HIDDEN = -1e30  # silu of it is 0, and so is its slope


@dataclass(frozen=True)
class Strip:
    """Some queries of each row of a block, and the keys that the furthest-seeing of them sees.

    Shapes:
        queries: [B, S] int64, numbers of queries; 0 fills up, with a reach of 0
        reach, places: [B, S] int64; asked: [B, S] int64 or None
    """

    queries: Tensor
    reach: Tensor
    places: Tensor
    asked: Tensor | None
    n_keys: int


@dataclass(frozen=True)
class Block:
    """Rows of like length.

    Shapes:
        keys: [B, K] int64, numbers of keys; 0 fills up, where no query reaches
        told: [B, K] int64 or None
    """

    keys: Tensor
    told: Tensor | None
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Sight:
    """Which keys each query sees, how far they lie apart, and when.

    n_queries, n_keys: N, M
    blocks: the rows in blocks; together they hold every pair once

    Shapes:
        query_offsets, key_offsets: [B + 1] int64
        reach: [N] int64, how many keys of its row a query sees, from the first on
        places: [N] int64, the place of a query in its row of keys, at least reach - 1
        asked: [N] int64, seconds, the time that a query looks back from, or None
        told: [M] int64, seconds, the time of a key, or None
    """

    query_offsets: Tensor
    key_offsets: Tensor
    reach: Tensor
    places: Tensor
    asked: Tensor | None
    told: Tensor | None
    blocks: tuple[Block, ...]

    @property
    def n_queries(self) -> int:
        return len(self.reach)

    @classmethod
    def of(
        cls,
        query_offsets: Tensor,
        key_offsets: Tensor,
        reach: Tensor,
        places: Tensor,
        asked: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Sight:
        """Lay the rows out in blocks. Lengths are looked at once a batch, for all layers."""
        host = [part.cpu().numpy() for part in (query_offsets, key_offsets, reach)]
        blocks = tuple(_block(place, host, places, reach, asked, told) for place in _rows_of_blocks(host[0], host[1]))
        return cls(query_offsets, key_offsets, reach, places, asked, told, blocks)

    @classmethod
    def causal(cls, offsets: Tensor, columns: Tensor, asked: Tensor | None = None, told: Tensor | None = None) -> Sight:
        """Every value of a row sees itself and those before it.

        Shapes: offsets [B + 1], columns [N]: the place of each value in its row.
        """
        return cls.of(offsets, offsets, columns + 1, columns, asked, told)


def _rows_of_blocks(query_offsets: NDArray[np.int64], key_offsets: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Numbers of the rows of each block."""
    n_queries, n_keys = np.diff(query_offsets), np.diff(key_offsets)
    some = np.flatnonzero((n_queries > 0) & (n_keys > 0))
    classes = np.ceil(CLASSES * np.log2(np.maximum(n_keys[some], 1)))
    order = np.argsort(classes, kind="stable")

    def cost(rows: NDArray[np.int64]) -> int:
        return len(rows) * _widest(rows, n_queries, n_keys)

    alike: list[NDArray[np.int64]] = []
    for rows in np.split(some[order], np.flatnonzero(np.diff(classes[order])) + 1):
        joined = np.concatenate([alike[-1], rows]) if alike else rows
        if alike and cost(joined) - cost(alike[-1]) - cost(rows) <= WASTE:
            alike[-1] = joined
        elif len(rows):
            alike.append(rows)
    for rows in alike:
        size = max(1, PAIRS // _widest(rows, n_queries, n_keys))
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _widest(rows: NDArray[np.int64], n_queries: NDArray[np.int64], n_keys: NDArray[np.int64]) -> int:
    """Pairs of a row in a strip, where all rows are as long as the longest."""
    return int(n_keys[rows].max(initial=0)) * min(QUERIES, int(n_queries[rows].max(initial=0)))


def _block(
    rows: NDArray[np.int64],
    host: list[NDArray[np.int64]],
    places: Tensor,
    reach: Tensor,
    asked: Tensor | None,
    told: Tensor | None,
) -> Block:
    query_offsets, key_offsets, host_reach = host

    def numbers(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
        columns = np.arange(int(lengths.max()))
        there = columns < lengths[:, None]
        return np.where(there, starts[:, None] + columns, 0), there

    device = reach.device
    keys = torch.from_numpy(numbers(key_offsets)[0]).to(device)
    queries, there = numbers(query_offsets)
    strips = []
    for start in range(0, queries.shape[1], QUERIES):
        part = slice(start, start + QUERIES)
        furthest = int(np.where(there[:, part], host_reach[queries[:, part]], 0).max())
        if furthest:
            which, real = (torch.from_numpy(np.ascontiguousarray(a[:, part])).to(device) for a in (queries, there))
            seen = torch.where(real, reach[which], 0)
            strips.append(Strip(which, seen, places[which], None if asked is None else asked[which], furthest))
    return Block(keys, None if told is None else told[keys], tuple(strips))


def steps_of_time(differences: Tensor) -> Tensor:
    """floor(ln(max(|d|, 1)) / 0.301), at most 128, of whole seconds."""
    first = torch.from_numpy(FIRST).to(differences.device)
    return torch.bucketize(differences.abs().clamp(min=1), first, right=True) - 1


def reference(
    queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor, times: Tensor, sight: Sight, scale: float
) -> Tensor:
    """What `attend` gives, over a rectangle of all queries and keys at once."""
    row_of_query, row_of_key = (
        torch.repeat_interleave(offsets.diff()) for offsets in (sight.query_offsets, sight.key_offsets)
    )
    columns = torch.arange(len(keys), device=keys.device) - sight.key_offsets[row_of_key]
    seen = (row_of_query[:, None] == row_of_key) & (columns < sight.reach[:, None])
    bias = positions[(sight.places[:, None] - columns).clamp(0, len(positions) - 1)]
    if sight.asked is not None and sight.told is not None:
        bias = bias + times[steps_of_time(sight.asked[:, None] - sight.told)]
    scores = torch.einsum("nhd,mhd->hnm", queries, keys) + bias
    return torch.einsum("hnm,mhv->nhv", F.silu(scores) * seen * scale, values)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor, times: Tensor, sight: Sight, scale: float
) -> Tensor:
    """What each query makes of the keys it sees.

    Shapes: queries [N, H, D], keys [M, H, D], values [M, H, V], positions [P] (distances from P - 1 on share the last
        entry), times [129] (read where `sight` has times); returns [N, H, V].
    """
    mixed: Tensor = _by_blocks(queries, keys, values, positions, times, sight, scale)
    return mixed


class _Pointwise(torch.autograd.Function):
    """Scores of a block are made twice, on the way forward and on the way back, and never kept."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        times: Tensor,
        sight: Sight,
        scale: float,
    ) -> Tensor:
        ctx.sight, ctx.scale = sight, scale
        ctx.save_for_backward(queries, keys, values, positions, times)
        n, heads, width = len(queries), queries.shape[1], values.shape[2]
        out = values.new_zeros(n, heads, width)
        for block in sight.blocks:
            k, v = (_picked(part, block.keys) for part in (keys, values))  # [B, H, K, D], [B, H, K, V]
            for strip in block.strips:
                weights = F.silu(_scores(queries, k, positions, times, block, strip), inplace=True)
                mixed = (weights @ v[:, :, : strip.n_keys]).transpose(1, 2)  # [B, S, H, V]
                out.index_add_(0, strip.queries.flatten(), mixed.reshape(-1, heads, width))
        return out.mul_(scale)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:  # type: ignore[override]
        queries, keys, values, positions, times = ctx.saved_tensors
        upstream = (upstream * ctx.scale).to(values.dtype)
        of_queries, of_keys, of_values = (torch.zeros_like(part) for part in (queries, keys, values))
        of_positions, of_times = (torch.zeros(len(t), dtype=torch.float64, device=t.device) for t in (positions, times))
        for block in ctx.sight.blocks:
            k, v = (_picked(part, block.keys) for part in (keys, values))
            to_k, to_v = torch.zeros_like(k), torch.zeros_like(v)
            for strip in block.strips:
                seen = slice(strip.n_keys)
                flat = strip.queries.flatten()
                scores = _scores(queries, k, positions, times, block, strip)
                q, g = (_picked(part, strip.queries) for part in (queries, upstream))  # [B, H, S, D], [B, H, S, V]
                to_scores = torch.ops.aten.silu_backward(g @ v[:, :, seen].transpose(2, 3), scores)
                to_v[:, :, seen] += F.silu(scores, inplace=True).transpose(2, 3) @ g
                to_k[:, :, seen] += to_scores.transpose(2, 3) @ q
                to_q = (to_scores @ k[:, :, seen]).transpose(1, 2)
                of_queries.index_add_(0, flat, to_q.reshape(len(flat), *queries.shape[1:]))
                _add_to_tables(to_scores.sum(dim=1), block, strip, of_positions, of_times)
            flat = block.keys.flatten()
            of_keys.index_add_(0, flat, to_k.transpose(1, 2).reshape(len(flat), *keys.shape[1:]))
            of_values.index_add_(0, flat, to_v.transpose(1, 2).reshape(len(flat), *values.shape[1:]))
        tables = of_positions.to(positions.dtype), of_times.to(times.dtype)
        return of_queries, of_keys, of_values, *tables, None, None


_by_blocks = LeftAlone(_Pointwise.apply)


def _picked(rows: Tensor, numbers: Tensor) -> Tensor:
    """[N, H, D] by numbers [B, K], the heads before the places: [B, H, K, D]."""
    return rows.index_select(0, numbers.flatten()).view(*numbers.shape, *rows.shape[1:]).transpose(1, 2)


def _scores(queries: Tensor, k: Tensor, positions: Tensor, times: Tensor, block: Block, strip: Strip) -> Tensor:
    """Scores of a strip [B, H, S, K], `HIDDEN` where a query does not see a key."""
    scores = _picked(queries, strip.queries) @ k[:, :, : strip.n_keys].transpose(2, 3)
    return scores.add_(_bias(positions.to(scores.dtype), times.to(scores.dtype), block, strip).unsqueeze(1))


def _bias(positions: Tensor, times: Tensor, block: Block, strip: Strip) -> Tensor:
    """What is added to the scores of all heads alike [B, S, K]."""
    if not _compiled_for(positions):
        columns = torch.arange(strip.n_keys, device=positions.device)
        bias = positions[(strip.places.unsqueeze(-1) - columns).clamp(0, len(positions) - 1)]
        if strip.asked is not None and block.told is not None:
            bias = bias + times[steps_of_time(strip.asked.unsqueeze(-1) - block.told[:, None, : strip.n_keys])]
        return bias.masked_fill(columns >= strip.reach.unsqueeze(-1), HIDDEN)
    out = torch.empty(*strip.reach.shape, strip.n_keys, dtype=positions.dtype)
    reach, places, asked, told, timed = _described(block, strip)
    tables = positions.detach().numpy(), times.detach().numpy()
    _fill(out.numpy(), reach, places, asked, told, timed, tables[0], tables[1], FIRST, HIDDEN)
    return out


def _add_to_tables(slopes: Tensor, block: Block, strip: Strip, of_positions: Tensor, of_times: Tensor) -> None:
    """Add the slopes of a strip's scores [B, S, K] to those of the entries that its scores were made with."""
    if not _compiled_for(slopes):
        slopes = slopes.to(of_positions.dtype)
        columns = torch.arange(strip.n_keys, device=slopes.device)
        distances = (strip.places.unsqueeze(-1) - columns).clamp(0, len(of_positions) - 1)
        of_positions.index_add_(0, distances.flatten(), slopes.flatten())
        if strip.asked is not None and block.told is not None:
            steps = steps_of_time(strip.asked.unsqueeze(-1) - block.told[:, None, : strip.n_keys])
            of_times.index_add_(0, steps.flatten(), slopes.flatten())
        return
    reach, places, asked, told, timed = _described(block, strip)
    sums = of_positions.numpy(), of_times.numpy()
    _gather(slopes.numpy(), reach, places, asked, told, timed, sums[0], sums[1], FIRST)


def _compiled_for(tensor: Tensor) -> bool:
    """Whether the loops below can read it."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def _described(block: Block, strip: Strip) -> Any:
    """What the loops below read of a strip."""
    timed = strip.asked is not None and block.told is not None
    asked, told = (strip.asked, block.told) if timed else (strip.reach, block.keys)
    assert asked is not None and told is not None
    return strip.reach.numpy(), strip.places.numpy(), asked.numpy(), told.numpy(), timed


# From key to key backwards, time differences of a query seldom fall, so its step is found by going on from the last.


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _step(difference: Any, step: Any, first: Any) -> Any:
    """The step of a time difference, looked for from another step on."""
    difference = max(abs(difference), 1)
    while step + 1 < len(first) and difference >= first[step + 1]:
        step += 1
    while step > 0 and difference < first[step]:
        step -= 1
    return step


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    out: Any,
    reach: Any,
    places: Any,
    asked: Any,
    told: Any,
    timed: Any,
    positions: Any,
    times: Any,
    first: Any,
    no: Any,
) -> None:
    last = len(positions) - 1
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            step = 0
            for j in range(reach[b, i] - 1, -1, -1):
                out[b, i, j] = positions[min(places[b, i] - j, last)]
                if timed:
                    step = _step(asked[b, i] - told[b, j], step, first)
                    out[b, i, j] += times[step]
            out[b, i, reach[b, i] :] = no


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _gather(
    slopes: Any,
    reach: Any,
    places: Any,
    asked: Any,
    told: Any,
    timed: Any,
    of_positions: Any,
    of_times: Any,
    first: Any,
) -> None:
    last = len(of_positions) - 1
    for b in range(slopes.shape[0]):
        for i in range(slopes.shape[1]):
            step = 0
            for j in range(reach[b, i] - 1, -1, -1):
                of_positions[min(places[b, i] - j, last)] += slopes[b, i, j]
                if timed:
                    step = _step(asked[b, i] - told[b, j], step, first)
                    of_times[step] += slopes[b, i, j]
