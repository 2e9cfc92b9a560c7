"""iALS: matrix factorisation of implicit feedback by exact alternating least squares.

Over users u, items i and the set S of chosen pairs the objective is

    sum_S w (1 - x_u.y_i)^2 + unobserved * sum_all (x_u.y_i)^2 + sum_u r_u |x_u|^2 + sum_i r_i |y_i|^2

with r_u = reg * (|S_u| + unobserved * n_items)^nu, and r_i likewise. With `chosen="replaces"` a chosen pair is
left out of the second sum, which is the objective of Hu, Koren and Volinsky (there unobserved is 1).

Ref: Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, equation 3;
Rendle, Krichene, Zhang, Koren, "Revisiting the performance of iALS on item recommendation benchmarks",
arXiv:2110.14037, equations 4 and 6 (the weight of unobserved pairs and the scaled regularisation).

What is ours is how a row is solved. The objective does not change when both factors are rotated, so before each
half-sweep they are turned onto the principal axes of the fixed side, where its Gram matrix is diagonal. A row
of n choices is then a system of size min(n, dim): for most rows far smaller than dim, and exact, where
conjugate gradients stop early. No user factors are stored: a request's history is folded in by the same solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.index.threads import share
from tastemaker.types import BundleError, DataError, Dataset, Requests, Schema, State, setting

Floats = NDArray[np.float32]
LANES = 32  # factors are padded to a multiple of this inside the solver, so that no loop has a scalar tail
STEP = 8
CHUNK = 256  # choices of a long row that are gathered at a time
SPAN = 2e7  # multiplications of a task, a few milliseconds


@dataclass(frozen=True)
class Penalty:
    """The parts of the objective that a half-sweep needs; see the module's docstring."""

    reg: float
    nu: float = 1.0
    unobserved: float = 0.1
    alpha: float = 1.0
    replaces: bool = False

    def quadratic(self, matrix: sp.csr_array) -> Floats:
        """Weights of (x.y)^2 at the entries of `matrix`, beside what all pairs have."""
        above = np.float32(self.alpha) * matrix.data - np.float32(self.unobserved if self.replaces else 0.0)
        return np.maximum(above, np.float32(0))  # type: ignore[no-any-return]

    def linear(self, matrix: sp.csr_array) -> Floats:
        """Half the weights of x.y at the entries of `matrix`."""
        return np.float32(self.alpha) * matrix.data  # type: ignore[no-any-return]

    def rows(self, matrix: sp.csr_array) -> Floats:
        """Regularisation of each row's factors."""
        counts = np.diff(matrix.indptr) + self.unobserved * matrix.shape[1]
        return (self.reg * counts**self.nu).astype(np.float32)  # type: ignore[no-any-return]


@system(
    "ials",
    family="classical",
    title="iALS: implicit matrix factorisation by alternating least squares",
    paper="arXiv:2110.14037",
    needs={"history"},
)
class IALS:
    """Users and items as vectors, fitted to all pairs, chosen or not; new users are folded in exactly."""

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(128, "Width of the factors.", low=1, search=(32, 512), log=True)
        sweeps: int = setting(12, "Times that users and items are each solved for.", low=1, search=(4, 32))
        reg: float = setting(0.003, "Regularisation of the factors.", low=1e-9, log=True, search=(1e-4, 0.1))
        nu: float = setting(
            1.0, "How regularisation grows with a row's weight: 0 not at all, 1 in proportion.", low=0.0, high=2.0
        )
        unobserved: float = setting(
            0.1, "Weight of every pair nobody chose, a chosen one's being 1.", low=1e-9, log=True, search=(0.003, 1.0)
        )
        alpha: float = setting(1.0, "Weight of a chosen pair, times its entry in the matrix.", low=1e-9)
        chosen: Literal["added", "replaces"] = setting(
            "added",
            "Whether a chosen pair's weight comes on top of the unobserved one (Rendle) or replaces it (Hu).",
            choices=("added", "replaces"),
        )
        weight: Weight = setting(
            "binary",
            "What an entry of the matrix is: 1, how often the item was chosen, or the events' value.",
            choices=("binary", "count", "value"),
        )
        init: float = setting(0.1, "Standard deviation of an item's first factors, times 1/sqrt(dim).", low=1e-6)

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        c = config
        self.penalty = Penalty(c.reg, c.nu, c.unobserved, c.alpha, c.chosen == "replaces")
        self.factors: Floats = np.zeros((0, config.dim), dtype=np.float32)  # [I, D], on their principal axes
        self.spectrum: Floats = np.zeros(config.dim, dtype=np.float32)  # [D] of their Gram matrix

    def program(self, data: Dataset) -> Program:
        by_user = interaction_matrix(data, weight=self.config.weight)
        lowest = self.config.unobserved if self.penalty.replaces else 0.0
        if by_user.nnz and self.config.alpha * by_user.data.min() < lowest:
            raise DataError(
                f"chosen pairs weigh at least {lowest} here, the least weight is {by_user.data.min()}",
                hint="raise alpha, lower unobserved, or weigh by 'binary' or 'count'",
            )
        by_item = by_user.T.tocsr()
        sweeps = self.config.sweeps
        items = yield Fit(first_factors, data.n_items, self.config.dim, self.config.init, rng="factors")
        for _ in range(sweeps):
            items = yield Fit(sweep, by_user, by_item, items, self.penalty, label="sweep", of=sweeps)
        self.factors, self.spectrum = yield Fit(on_principal_axes, items)

    def queries(self, requests: Requests) -> Floats:
        """The factors that fit each history best [B, D], the items' factors held fixed."""
        histories = history_matrix(requests, self.schema.n_items, weight=self.config.weight)
        return solve(histories, self.factors, self.spectrum, self.penalty)

    def items(self, numbers: NDArray[np.integer[Any]] | None = None) -> Floats:
        return self.factors if numbers is None else self.factors[numbers]

    def export(self) -> State:
        return {"factors": self.factors, "spectrum": self.spectrum}

    def restore(self, state: State) -> None:
        wanted = {"factors": (self.schema.n_items, self.config.dim), "spectrum": (self.config.dim,)}
        for name, shape in wanted.items():
            array = state.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise BundleError(f"iALS keeps finite float32 {name} {list(shape)}; the bundle has none such")
        if (state["spectrum"] < 0).any():
            raise BundleError("a spectrum of iALS is never negative")
        self.factors, self.spectrum = state["factors"], state["spectrum"]


def first_factors(n_items: int, dim: int, init: float, rng: np.random.Generator) -> Floats:
    return rng.standard_normal((n_items, dim), dtype=np.float32) * np.float32(init / np.sqrt(dim))


def sweep(by_user: sp.csr_array, by_item: sp.csr_array, items: Floats, penalty: Penalty) -> Floats:
    """Solve for all users, then for all items; both steps are exact, so the objective never rises.

    Shapes: by_user [U, I], by_item [I, U], items [I, D]; returns [I, D], on the users' principal axes.
    """
    users = solve(by_user, *on_principal_axes(items), penalty)
    return solve(by_item, *on_principal_axes(users), penalty)


def on_principal_axes(factors: Floats) -> tuple[Floats, Floats]:
    """`factors` rotated so that their Gram matrix is diagonal, and that diagonal, rising.

    Shapes: factors [n, D]; returns [n, D] and [D].
    """
    gram = np.zeros((factors.shape[1],) * 2)
    for start in range(0, len(factors), 4096):  # sums of many float32 squares need float64
        part = factors[start : start + 4096]
        gram += part.T @ part
    spectrum, axes = np.linalg.eigh(gram)
    return factors @ axes.astype(np.float32), np.maximum(spectrum, 0.0).astype(np.float32)


def solve(matrix: sp.csr_array, factors: Floats, spectrum: Floats, penalty: Penalty) -> Floats:
    """The best factors of every row of `matrix`, those of its columns held fixed. A row depends on no other.

    Shapes: matrix [n, m], factors [m, D] on their principal axes, spectrum [D]; returns [n, D].
    """
    dim = factors.shape[1]
    lengths = np.diff(matrix.indptr).astype(np.float64)
    size = np.minimum(lengths, dim)
    work = np.cumsum(lengths * dim * (size + 4) / 2 + size**3 / 6 + dim)
    n_spans = int(np.clip(work[-1] / SPAN, 1, len(work))) if len(work) else 0
    bounds = np.searchsorted(work, np.linspace(0, work[-1], n_spans, endpoint=False)).tolist() if n_spans else []
    spans = list(pairwise([*bounds, len(work)]))
    out = np.zeros((matrix.shape[0], dim), dtype=np.float32)
    reg = penalty.rows(matrix)
    common = np.float32(penalty.unobserved) * spectrum
    sides = matrix.indptr, matrix.indices, penalty.quadratic(matrix), penalty.linear(matrix)

    def rows(parts: Any) -> None:
        for start, stop in parts:
            _solve(start, stop, *sides, factors, common, reg, out)

    share(spans, rows)
    return out


def objective(matrix: sp.csr_array, users: Floats, items: Floats, penalty: Penalty) -> float:
    """The value of the objective, in float64.

    Shapes: matrix [U, I], users [U, D], items [I, D].
    """
    x, y = users.astype(np.float64), items.astype(np.float64)
    scores = np.empty(matrix.nnz)
    _scores(matrix.indptr, matrix.indices, x, y, scores)
    linear = penalty.linear(matrix).astype(np.float64)
    chosen = penalty.quadratic(matrix) @ scores**2 - 2 * linear @ scores + linear.sum()
    everywhere = penalty.unobserved * np.sum((x.T @ x) * (y.T @ y))
    users_reg, items_reg = penalty.rows(matrix), penalty.rows(matrix.T.tocsr())
    return float(chosen + everywhere + users_reg @ (x**2).sum(axis=1) + items_reg @ (y**2).sum(axis=1))


@njit(cache=True, parallel=True, nogil=True)
def _scores(indptr: Any, indices: Any, users: Any, items: Any, out: Any) -> None:
    for u in prange(len(users)):
        for p in range(indptr[u], indptr[u + 1]):
            out[p] = np.sum(users[u] * items[indices[p]])


@njit(cache=True, nogil=True)
def _solve(
    first_row: int,
    last_row: int,
    indptr: Any,
    indices: Any,
    quadratic: Any,
    linear: Any,
    factors: Any,
    common: Any,
    reg: Any,
    out: Any,
) -> None:
    """Rows of (diag(d) + Z'AZ)^-1 Z't with d = common + reg, a = quadratic, t = linear, Z the chosen factors.

    With V = sqrt(a) Z / sqrt(d) the row is (I + V'V)^-1 (Z't / sqrt(d)) / sqrt(d), a system of size D; or, where
    fewer than D are chosen, V'(I + VV')^-1 (t / sqrt(a)) / sqrt(d), a system of their number.
    """
    dim = len(common)
    width = (dim + LANES - 1) // LANES * LANES
    system = np.empty((width, width), dtype=np.float32)
    chosen = np.zeros((max(CHUNK, width), width), dtype=np.float32)
    root = np.zeros(width, dtype=np.float32)
    right = np.zeros(width, dtype=np.float32)
    for row in range(first_row, last_row):
        start, stop = indptr[row], indptr[row + 1]
        if start == stop:
            continue
        for f in range(dim):
            root[f] = 1 / np.sqrt(common[f] + reg[row])
        dual = stop - start < dim
        for p in range(start, stop):
            dual &= quadratic[p] > 0
        if dual:
            n = stop - start
            for i in range(n):
                _gather(factors[indices[start + i]], root, np.sqrt(quadratic[start + i]), chosen[i])
                right[i] = linear[start + i] / np.sqrt(quadratic[start + i])
            _outer(chosen, n, system)
            _cholesky_solve(system, right, n)
            for f in range(dim):
                out[row, f] = 0
            for i in range(n):
                for f in range(dim):
                    out[row, f] += chosen[i, f] * right[i]
        else:
            right[:] = 0
            system[:] = 0
            for f in range(width):
                system[f, f] = 1
            for first in range(start, stop, CHUNK):
                n = min(CHUNK, stop - first)
                for i in range(n):
                    p = first + i
                    z = factors[indices[p]]
                    for f in range(dim):
                        right[f] += linear[p] * root[f] * z[f]
                    _gather(z, root, np.sqrt(quadratic[p]), chosen[i])
                _add_inner(chosen, n, system)
            _cholesky_solve(system, right, width)
            out[row] = right[:dim]
        for f in range(dim):
            out[row, f] *= root[f]


@njit(cache=True, nogil=True, inline="always")
def _gather(factors: Any, root: Any, weight: float, out: Any) -> None:
    for f in range(len(factors)):
        out[f] = weight * factors[f] * root[f]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _outer(chosen: Any, n: int, system: Any) -> None:
    """The upper triangle of I + VV', for the first n rows of V."""
    width = chosen.shape[1]
    for i in range(n):
        a = chosen[i]
        j = i
        while j + 4 <= n:
            b0, b1, b2, b3 = chosen[j], chosen[j + 1], chosen[j + 2], chosen[j + 3]
            s0 = s1 = s2 = s3 = np.float32(0)
            for f in range(width):
                s0 += a[f] * b0[f]
                s1 += a[f] * b1[f]
                s2 += a[f] * b2[f]
                s3 += a[f] * b3[f]
            system[i, j], system[i, j + 1], system[i, j + 2], system[i, j + 3] = s0, s1, s2, s3
            j += 4
        while j < n:
            b0 = chosen[j]
            s0 = np.float32(0)
            for f in range(width):
                s0 += a[f] * b0[f]
            system[i, j] = s0
            j += 1
        system[i, i] += 1


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_inner(chosen: Any, n: int, system: Any) -> None:
    """Add V'V to the upper triangle of `system`, for the first n rows of V."""
    width = chosen.shape[1]
    for i in range(n, (n + 3) // 4 * 4):
        chosen[i] = 0
    for i in range(0, n, 4):
        b0, b1, b2, b3 = chosen[i], chosen[i + 1], chosen[i + 2], chosen[i + 3]
        for r in range(width):
            s0, s1, s2, s3 = b0[r], b1[r], b2[r], b3[r]
            line = system[r]
            for f in range(r // STEP * STEP, width):
                line[f] += s0 * b0[f] + s1 * b1[f] + s2 * b2[f] + s3 * b3[f]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _cholesky_solve(system: Any, right: Any, n: int) -> None:
    """Solve the n x n system given by its upper triangle, in place; `right` becomes the solution."""
    end = min((n + STEP - 1) // STEP * STEP, system.shape[1])
    for j in range(n):
        pivot = system[j]
        scale = 1 / np.sqrt(pivot[j])
        for f in range(j // STEP * STEP, end):
            pivot[f] *= scale
        right[j] *= scale
        for i in range(j + 1, n):
            x = pivot[i]
            line = system[i]
            for f in range(i // STEP * STEP, end):
                line[f] -= x * pivot[f]
            right[i] -= x * right[j]
    for j in range(n - 1, -1, -1):
        total = right[j]
        for f in range(j + 1, n):
            total -= system[j, f] * right[f]
        right[j] = total / system[j, j]
