"""Products of a fixed sparse matrix with dense rows, differentiable, and the smoothing of graph models made of them.

Each operator has a twin named `..._reference` in plain torch, which says what it computes. On a CPU the fast one is a
kernel that gives every thread the same number of edges and asks for rows before it needs them; elsewhere it is torch's
own product of compressed rows. A row is summed in the order of its edges, so the number of threads changes no bit.

N, M rows and columns of the matrix, E its entries, D width, R rows that are asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numba import get_num_threads, njit, prange
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tastemaker.types import UsageError

SERIAL_WORK = 2_000_000  # fewer multiplications than this are done before a second thread has woken up
PARTS = 8  # pieces of work a thread: enough for a thread that was held up to be helped out
AHEAD = 16  # edges between the request for a row and its use
LINE = 16  # floats of a cache line


class Csr(NamedTuple):
    """Compressed rows: indptr [N + 1], indices [E], both int32, and values [E] float32, of a matrix [N, n_columns]."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    n_columns: int


class Graph(nn.Module):
    """A sparse matrix [N, M] of fixed numbers, kept by rows and by columns.

    It moves with the system whose part it is. Its arrays are no weights: `state_dict` has none of them. A matrix
    equal to its transpose is kept once.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    t_indptr: Tensor
    t_indices: Tensor
    t_values: Tensor
    order: Tensor

    def __init__(self, rows: Csr, columns: Csr, order: Tensor) -> None:
        """From both sides; `Graph.of` makes them. order: [E], where each entry of `columns` stands in `rows`."""
        super().__init__()
        self.shape = (len(rows.indptr) - 1, rows.n_columns)
        for prefix, side in (("", rows), ("t_", columns)):
            for name in ("indptr", "indices", "values"):
                self.register_buffer(prefix + name, getattr(side, name), persistent=False)
        self.register_buffer("order", order, persistent=False)

    @classmethod
    def of(cls, matrix: sp.csr_array) -> Graph:
        """From a matrix without double entries.

        Raises:
            UsageError: there are 2^31 entries or more.
        """
        if matrix.nnz >= 2**31:
            raise UsageError(f"a graph here has fewer than 2^31 edges, got {matrix.nnz:,}")
        matrix = sp.csr_array(matrix)
        matrix.sort_indices()
        places = sp.csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape).T.tocsr()
        rows = _csr(matrix.indptr, matrix.indices, matrix.data, matrix.shape[1])
        columns = _csr(places.indptr, places.indices, matrix.data[places.data], matrix.shape[0])
        same = matrix.shape[0] == matrix.shape[1] and all(
            torch.equal(a, b) for a, b in zip(rows[:3], columns[:3], strict=True)
        )
        return cls(rows, rows if same else columns, torch.from_numpy(places.data.astype(np.int32)))

    @property
    def rows(self) -> Csr:
        return Csr(self.indptr, self.indices, self.values, self.shape[1])

    @property
    def columns(self) -> Csr:
        """The transpose by rows."""
        return Csr(self.t_indptr, self.t_indices, self.t_values, self.shape[0])

    def degrees(self) -> Tensor:
        """Entries of each row [N]."""
        degrees: Tensor = torch.diff(self.indptr)
        return degrees

    def dropped(self, rate: float) -> Graph:
        """The graph without a random share of its entries, the others scaled up to the same sum in expectation."""
        kept = torch.rand(len(self.values), device=self.values.device) >= rate
        values = self.values * kept / (1 - rate)
        return Graph(self.rows._replace(values=values), self.columns._replace(values=values[self.order]), self.order)

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, {self.shape[1]}, {len(self.values)} edges"


def bipartite(matrix: sp.csr_array) -> sp.csr_array:
    """The graph of users and items, D^-1/2 [[0, R], [R', 0]] D^-1/2 with D the sums of rows; users come first.

    Shapes: matrix [U, I], no entry negative; returns [U + I, U + I] float32, its columns sorted within rows.
    Ref: Wang et al., "NGCF", arXiv:1905.08108, equation 8; as in LightGCN, arXiv:2002.02126, equation 8.
    """
    left, right = (np.asarray(matrix.sum(axis=axis, dtype=np.float64)) for axis in (1, 0))
    left, right = (np.divide(1, np.sqrt(d), out=np.zeros_like(d), where=d > 0) for d in (left, right))
    data = matrix.data * np.repeat(left, np.diff(matrix.indptr)) * right[matrix.indices]
    normal = sp.csr_array((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    whole = sp.csr_array(sp.block_array([[None, normal], [normal.T, None]], format="csr"))
    whole.sort_indices()
    return whole


# -- products


def spmm(graph: Graph, x: Tensor, start: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """`start + graph @ x`, or some rows of it; gradients reach x and start.

    Of rows that are not asked for, nothing is computed, forward or backward.

    Shapes: x [M, D], start [N, D] or None for zeros, rows [R], different numbers, or None for all; returns [N, D],
        or [R, D].
    """
    n, m = graph.shape
    if x.ndim != 2 or len(x) != m:
        raise UsageError(f"a graph [{n}, {m}] takes vectors [{m}, D], got {list(x.shape)}")
    if start is not None and start.shape != (n, x.shape[1]):
        raise UsageError(f"a product [{n}, {x.shape[1]}] starts from as many numbers, got {list(start.shape)}")
    if rows is not None and rows.device.type == "cpu" and len(rows) and not 0 <= rows.min() <= rows.max() < n:
        raise UsageError(f"rows run from 0 to {n - 1}, got {int(rows.min())} to {int(rows.max())}")
    product: Tensor = _Product.apply(graph, x, start, rows)  # type: ignore[no-untyped-call]
    return product


def spmm_reference(graph: Graph, x: Tensor, start: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """What `spmm` computes."""
    product: Tensor = torch.sparse.mm(_coo(graph, x.dtype), x)
    product = product if start is None else start + product
    return product if rows is None else product[rows]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, x: Tensor, start: Tensor | None, rows: Tensor | None) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(rows)
        return _product(graph.rows, x, start, rows)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        (rows,), columns = ctx.saved_tensors, ctx.graph.columns
        of_x = of_start = None
        if ctx.needs_input_grad[1]:
            of_x = _product(columns, gradient) if rows is None else _spread(columns, gradient, rows)
        if ctx.needs_input_grad[2]:
            of_start = gradient
            if rows is not None:
                of_start = gradient.new_zeros(ctx.graph.shape[0], gradient.shape[1])
                of_start[rows] = gradient
        return None, of_x, of_start, None


# -- smoothing


def propagated(graph: Graph, x: Tensor, n: int) -> Tensor:
    """P^n x, for a square graph P."""
    for _ in range(n):
        x = spmm(graph, x)
    return x


def power_sum(graph: Graph, x: Tensor, n: int) -> Tensor:
    """x + P x + ... + P^n x in n products, for a square graph P (Horner's scheme).

    Shapes: x [N, D]; returns [N, D].
    """
    total = x
    for _ in range(n):
        total = spmm(graph, total, x)
    return total


def smoothed(graph: Graph, x: Tensor, n_layers: int, nodes: Tensor, *, own: bool = True) -> Tensor:
    """The mean of the layers x, P x, ..., P^L x at some nodes, for a square graph P.

    Only what these nodes need is computed. By Horner's scheme the mean is (x + P (x + ... + P (x + P x))) / (L + 1):
    forward, only the nodes' rows of the last product are needed; backward, the first product starts from a gradient
    that is 0 outside them.

    Args:
        own: whether layer 0 counts in the mean.

    Shapes: x [N, D], nodes [R] (repeats allowed); returns [R, D].
    Ref: He et al., "LightGCN", arXiv:2002.02126, equations 3 and 4, with alpha = 1 / (L + 1).
    """
    if n_layers == 0:
        if not own:
            raise UsageError("without layer 0 there must be a layer 1 to take the mean of")
        return nn.functional.embedding(nodes, x)
    different, place = torch.unique(nodes, return_inverse=True)
    before = power_sum(graph, x, n_layers - 1)
    means = spmm(graph, before, x if own else None, different) / (n_layers + own)
    return nn.functional.embedding(place, means)


def smoothed_reference(graph: Graph, x: Tensor, n_layers: int, nodes: Tensor, *, own: bool = True) -> Tensor:
    """What `smoothed` computes."""
    layers = [x]
    for _ in range(n_layers):
        layers.append(spmm_reference(graph, layers[-1]))
    return torch.stack(layers[0 if own else 1 :]).mean(dim=0)[nodes]


# -- what carries them out


def _product(csr: Csr, x: Tensor, start: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """`start + csr @ x`, of these rows alone where some are given."""
    if x.device.type != "cpu":
        whole = _compressed(csr, x.dtype) @ x
        whole = whole if start is None else whole.add_(start)
        return whole if rows is None else whole[rows]
    if x.dtype not in (torch.float32, torch.float64):
        return _product(csr, x.float(), None if start is None else start.float(), rows).to(x.dtype)
    indptr, indices, values = _arrays(csr)
    if rows is None:
        picked, work = np.empty(0, dtype=np.int64), indptr
    else:
        picked = rows.numpy()
        work = np.concatenate([[0], np.cumsum(np.diff(indptr)[picked], dtype=np.int64)])
    out = x.new_empty(len(work) - 1, x.shape[1])
    base = x[:0] if start is None else start
    given = (picked, indptr, indices, values, _dense(x), _dense(base), out.numpy())
    if int(work[-1]) * x.shape[1] < SERIAL_WORK:
        _multiply_part(0, len(out), *given)
    else:
        _multiply(_cuts(work), *given)
    return out


def _spread(csr: Csr, x: Tensor, columns: Tensor) -> Tensor:
    """`csr[:, columns] @ x`, for columns that differ from one another.

    Shapes: x [R, D], columns [R]; returns [N, D].
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        whole = x.new_zeros(csr.n_columns, x.shape[1])
        return _product(csr, whole.index_copy_(0, columns, x))
    indptr, indices, values = _arrays(csr)
    slots = np.full(csr.n_columns, -1, dtype=np.int32)
    slots[columns.numpy()] = np.arange(len(columns), dtype=np.int32)
    out = x.new_empty(len(indptr) - 1, x.shape[1])
    given = (slots, indptr, indices, values, _dense(x), out.numpy())
    if len(indices) * x.shape[1] < SERIAL_WORK:
        _multiply_some_part(0, len(out), *given)
    else:
        _multiply_some(_cuts(indptr), *given)
    return out


def _csr(indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any], n_columns: int) -> Csr:
    starts, places = (torch.from_numpy(array.astype(np.int32)) for array in (indptr, indices))
    return Csr(starts, places, torch.from_numpy(values.astype(np.float32)), n_columns)


def _arrays(csr: Csr) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    return csr.indptr.numpy(), csr.indices.numpy(), csr.values.numpy()


def _dense(x: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = x.detach().contiguous().numpy()
    return array


def _compressed(csr: Csr, dtype: torch.dtype) -> Tensor:
    size = (len(csr.indptr) - 1, csr.n_columns)
    return torch.sparse_csr_tensor(csr.indptr, csr.indices, csr.values.to(dtype), size, check_invariants=False)


def _coo(graph: Graph, dtype: torch.dtype) -> Tensor:
    rows = torch.repeat_interleave(torch.arange(graph.shape[0], device=graph.indptr.device), graph.degrees())
    entries = torch.stack([rows, graph.indices.long()])
    return torch.sparse_coo_tensor(entries, graph.values.to(dtype), graph.shape, check_invariants=False)


def _cuts(work: NDArray[Any]) -> NDArray[np.int64]:
    """Where to cut rows into parts with the same number of edges, given the edges before each row [N + 1]."""
    parts = PARTS * get_num_threads()
    goals = int(work[-1]) * np.arange(1, parts) // parts
    return np.unique(np.concatenate([[0], np.searchsorted(work, goals), [len(work) - 1]]))


@intrinsic
def _fetch(typing: Any, array: Any) -> Any:
    """Ask for the cache line where the array begins; nothing waits for it."""
    from llvmlite import ir
    from numba.core import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(ask, [builder.bitcast(start, pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(array), generate


@njit(cache=True, nogil=True, fastmath={"contract"})
def _multiply_part(
    first: int, last: int, rows: Any, indptr: Any, indices: Any, values: Any, x: Any, start: Any, out: Any
) -> None:
    """Rows `first` to `last` of what is asked for: all rows, or those that `rows` names."""
    end = len(indices) - 1
    for s in range(first, last):
        r = rows[s] if len(rows) else s
        row = out[s]
        if len(start):
            row[:] = start[r]
        else:
            row[:] = 0
        for p in range(indptr[r], indptr[r + 1]):
            soon = x[indices[min(p + AHEAD, end)]]
            for c in range(0, len(soon), LINE):
                _fetch(soon[c:])  # type: ignore[call-arg]
            weight, other = values[p], x[indices[p]]
            for j in range(len(row)):
                row[j] += weight * other[j]


@njit(cache=True, nogil=True, parallel=True)
def _multiply(bounds: Any, *given: Any) -> None:
    for part in prange(len(bounds) - 1):
        _multiply_part(bounds[part], bounds[part + 1], *given)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _multiply_some_part(
    first: int, last: int, slots: Any, indptr: Any, indices: Any, values: Any, x: Any, out: Any
) -> None:
    """Of the columns, only those that have a slot; its number is their row of x."""
    for r in range(first, last):
        row = out[r]
        row[:] = 0
        for p in range(indptr[r], indptr[r + 1]):
            slot = slots[indices[p]]
            if slot >= 0:
                weight, other = values[p], x[slot]
                for j in range(len(row)):
                    row[j] += weight * other[j]


@njit(cache=True, nogil=True, parallel=True)
def _multiply_some(bounds: Any, *given: Any) -> None:
    for part in prange(len(bounds) - 1):
        _multiply_some_part(bounds[part], bounds[part + 1], *given)
