"""Attention over bags: each row looks at its own few of many vectors.

Rows share the vectors, so a bag is a list of places among them, and nothing of the size of all bags together is made.
On a CPU a kernel reads the vectors where they lie; elsewhere they are gathered, which is the reference here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend(queries: Tensor, keys: Tensor, values: Tensor, places: Tensor, offsets: Tensor) -> Tensor:
    """Sums of values weighed by the softmax of the query's products with the keys of its bag; 0 for an empty bag.

    Shapes: queries [B, D], keys [M, D], values [M, E], places [N] int64 in 0..M, offsets [B + 1] int64, bag b is
    places[offsets[b]:offsets[b + 1]]; returns [B, E].
    """
    tensors = queries, keys, values
    on_host = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if on_host and not torch.compiler.is_compiling():
        pooled: Tensor = _Attend.apply(*tensors, places, offsets)  # type: ignore[no-untyped-call]
        return pooled
    return plain_attend(*tensors, places, offsets)


def plain_attend(queries: Tensor, keys: Tensor, values: Tensor, places: Tensor, offsets: Tensor) -> Tensor:
    """The same, operation by operation."""
    n = len(queries)
    rows = torch.repeat_interleave(torch.arange(n, device=queries.device), torch.diff(offsets))
    logits = (queries[rows] * keys[places]).sum(dim=-1)
    highest = logits.new_full((n,), -torch.inf).scatter_reduce(0, rows, logits.detach(), "amax")
    grown = (logits - highest[rows]).exp()
    weights = grown / grown.new_zeros(n).index_add(0, rows, grown)[rows]
    return values.new_zeros(n, values.shape[1]).index_add(0, rows, weights.unsqueeze(-1) * values[places])


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, places: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        read = tuple(t.detach().contiguous() for t in (queries, keys, values, places, offsets))
        weights = np.empty(len(places), dtype=np.float32)
        pooled = torch.zeros(len(queries), values.shape[1])
        q, k, v, p, o = (t.numpy() for t in read)
        _pool(q, k, v, p, o, weights, pooled.numpy())
        ctx.save_for_backward(*read)
        ctx.weights = weights
        return pooled

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, given: Tensor) -> Any:  # type: ignore[override]
        read = ctx.saved_tensors
        found = tuple(torch.zeros_like(t) for t in read[:3])
        q, k, v, p, o = (t.numpy() for t in read)
        of_q, of_k, of_v = (t.numpy() for t in found)
        _unpool(q, k, v, p, o, ctx.weights, given.contiguous().numpy(), of_q, of_k, of_v)
        return (*found, None, None)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})  # type: ignore[untyped-decorator]
def _dot(left: Any, right: Any) -> Any:
    total = np.float32(0.0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def _pool(queries: Any, keys: Any, values: Any, places: Any, offsets: Any, weights: Any, out: Any) -> None:
    for b in range(len(queries)):
        start, stop, query, row = offsets[b], offsets[b + 1], queries[b], out[b]
        highest = np.float32(-np.inf)
        for n in range(start, stop):
            weights[n] = _dot(query, keys[places[n]])
            highest = max(highest, weights[n])
        total = np.float32(0.0)
        for n in range(start, stop):
            weights[n] = np.exp(weights[n] - highest)
            total += weights[n]
        for n in range(start, stop):
            weights[n] /= total
            weight, value = weights[n], values[places[n]]
            for d in range(len(row)):
                row[d] += weight * value[d]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def _unpool(
    queries: Any,
    keys: Any,
    values: Any,
    places: Any,
    offsets: Any,
    weights: Any,
    given: Any,
    of_queries: Any,
    of_keys: Any,
    of_values: Any,
) -> None:
    slopes = np.empty(len(places), dtype=np.float32)
    for b in range(len(queries)):
        start, stop, query, of_query, grown = offsets[b], offsets[b + 1], queries[b], of_queries[b], given[b]
        mean = np.float32(0.0)
        for n in range(start, stop):
            slopes[n] = _dot(grown, values[places[n]])
            mean += weights[n] * slopes[n]
        for n in range(start, stop):
            weight, slope = weights[n], weights[n] * (slopes[n] - mean)
            key, of_key, of_value = keys[places[n]], of_keys[places[n]], of_values[places[n]]
            for d in range(len(grown)):
                of_value[d] += weight * grown[d]
            for d in range(len(query)):
                of_query[d] += slope * key[d]
                of_key[d] += slope * query[d]
