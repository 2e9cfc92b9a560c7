"""iALS: matrix factorisation of implicit feedback by alternating least squares.

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
conjugate gradients stop early. In training alone a row of more choices takes a few steps of conjugate gradients
(Takács, Pilászy, Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative
filtering", RecSys 2011), from where the last sweep left it: both sides turn together. Preconditioned by what all
rows share, which is diagonal on these axes, they come so close that a sweep lowers the objective nearly as far,
in a fraction of the time. No user factors are stored: a request's history is folded in exactly.
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
from tastemaker.index.threads import one_blas_thread, share
from tastemaker.types import BundleError, DataError, Dataset, Requests, Schema, State, setting

Floats = NDArray[np.float32]
LANES = 32  # long sums are padded with zeros to a multiple of this, so that none has a scalar tail
REORDER = {"reassoc", "contract", "nsz"}  # sums may be vectorised: the order depends on their length alone
CHUNK = 256  # choices of a long row that are gathered at a time; a multiple of LANES
PARTS = 16  # that the products of all rows with the axes are cut into
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
        """Weights of (x.y)^2 at the entries of `matrix`, beside what all pairs have; above 0, since divided by."""
        above = np.float32(self.alpha) * matrix.data - np.float32(self.unobserved if self.replaces else 0.0)
        return np.maximum(above, np.float32(1e-10))  # type: ignore[no-any-return]

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
        steps: int = setting(
            3,
            "Steps of conjugate gradients that a sweep takes for rows too long to be solved as fast; 0: solve all.",
            low=0,
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
        users = np.zeros((data.n_users, self.config.dim), dtype=np.float32)
        items = yield Fit(first_factors, data.n_items, self.config.dim, self.config.init, rng="factors")
        for _ in range(sweeps):
            sides = by_user, by_item, users, items
            users, items = yield Fit(sweep, *sides, self.penalty, self.config.steps, label="sweep", of=sweeps)
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


def sweep(
    by_user: sp.csr_array, by_item: sp.csr_array, users: Floats, items: Floats, penalty: Penalty, steps: int = 0
) -> tuple[Floats, Floats]:
    """Solve for all users, then for all items; neither step can raise the objective.

    With `steps` the factors given are where conjugate gradients start; without, those of users do not matter.

    Shapes: by_user [U, I], by_item [I, U], users [U, D], items [I, D]; returns [U, D] and [I, D].
    """
    axes, spectrum = principal_axes(items)
    items, users = turned(items, axes), turned(users, axes)
    users = solve(by_user, items, spectrum, penalty, users, steps)
    axes, spectrum = principal_axes(users)
    users, items = turned(users, axes), turned(items, axes)
    return users, solve(by_item, users, spectrum, penalty, items, steps)


def on_principal_axes(factors: Floats) -> tuple[Floats, Floats]:
    """`factors` turned onto their principal axes, and the diagonal that their Gram matrix is then, rising.

    Shapes: factors [n, D]; returns [n, D] and [D].
    """
    axes, spectrum = principal_axes(factors)
    return turned(factors, axes), spectrum


def principal_axes(factors: Floats) -> tuple[Floats, Floats]:
    """The rotation that makes the Gram matrix of `factors` diagonal, and that diagonal, rising.

    Shapes: factors [n, D]; returns [D, D] and [D].
    """
    parts = np.array_split(factors, PARTS)
    grams = np.zeros((PARTS, factors.shape[1], factors.shape[1]))

    def products(tasks: Any) -> None:
        for task in tasks:
            for start in range(0, len(parts[task]), 4096):  # sums of many float32 squares need float64
                few = parts[task][start : start + 4096]
                grams[task] += few.T @ few

    share(range(PARTS), products)
    with one_blas_thread():  # several spend longer on waiting for each other than a small matrix takes
        spectrum, axes = np.linalg.eigh(grams.sum(axis=0))
    return axes.astype(np.float32), np.maximum(spectrum, 0.0).astype(np.float32)


def turned(factors: Floats, axes: Floats) -> Floats:
    """`factors @ axes`, on all cores."""
    out = np.empty_like(factors)
    pairs = list(zip(np.array_split(factors, PARTS), np.array_split(out, PARTS), strict=True))

    def products(tasks: Any) -> None:
        for part, place in tasks:
            np.matmul(part, axes, out=place)

    share(pairs, products)
    return out


def solve(
    matrix: sp.csr_array,
    factors: Floats,
    spectrum: Floats,
    penalty: Penalty,
    start: Floats | None = None,
    steps: int = 0,
) -> Floats:
    """The best factors of every row of `matrix`, those of its columns held fixed. A row depends on no other.

    With `steps`, rows so long that it is cheaper are taken that many steps of conjugate gradients on from `start`.

    Shapes: matrix [n, m], factors [m, D] on their principal axes, spectrum [D], start [n, D]; returns [n, D].
    """
    dim = factors.shape[1]
    lengths = np.diff(matrix.indptr).astype(np.float64)
    size = np.minimum(lengths, dim)
    iterated = (size > 4 * (steps + 1)) & (steps > 0)  # a step takes about as long as four choices more
    once = np.where(iterated, 2.5 * (steps + 1), (size + 4) / 2 + size**3 / (6 * np.maximum(lengths, 1) * dim))
    work = np.cumsum(lengths * dim * once + dim)
    n_spans = int(np.clip(work[-1] / SPAN, 1, len(work))) if len(work) else 0
    bounds = np.searchsorted(work, np.linspace(0, work[-1], n_spans, endpoint=False)).tolist() if n_spans else []
    spans = list(pairwise([*bounds, len(work)]))
    out = np.zeros((matrix.shape[0], dim), dtype=np.float32)
    if start is not None:
        out[iterated] = start[iterated]
    reg = penalty.rows(matrix)
    common = np.float32(penalty.unobserved) * spectrum
    sides = matrix.indptr, matrix.indices, penalty.quadratic(matrix), penalty.linear(matrix)

    def rows(parts: Any) -> None:
        for first, last in parts:
            _solve(first, last, *sides, factors, common, reg, iterated, steps, out)

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
    iterated: Any,
    steps: int,
    out: Any,
) -> None:
    """Rows of (diag(d) + Z'AZ)^-1 Z't with d = common + reg, a = quadratic, t = linear, Z the chosen factors.

    With V = sqrt(a) Z / sqrt(d) the row is (I + V'V)^-1 (Z't / sqrt(d)) / sqrt(d), a system of size D; or, where
    fewer than D are chosen, V'(I + VV')^-1 (t / sqrt(a)) / sqrt(d), a system of their number.
    """
    dim = len(common)
    size = (dim + 3) // 4 * 4
    system = np.zeros((size + 2, size), dtype=np.float32)
    across = np.zeros((size, (dim + LANES - 1) // LANES * LANES), dtype=np.float32)  # a row a choice
    down = np.zeros((size + 2, CHUNK + 16), dtype=np.float32)  # a row a factor; 16: not all in one cache set
    root = np.empty(dim, dtype=np.float32)
    room = np.empty((4, dim), dtype=np.float32)
    for row in range(first_row, last_row):
        start, n = indptr[row], indptr[row + 1] - indptr[row]
        if n == 0:
            continue
        if iterated[row]:
            chosen = indices[start : start + n], quadratic[start : start + n], linear[start : start + n]
            _conjugate_gradients(*chosen, factors, common, reg[row], steps, out[row], room)
            continue
        for f in range(dim):
            root[f] = 1 / np.sqrt(common[f] + reg[row])
        if n < dim:
            m = (n + 3) // 4 * 4
            right = system[m]
            across[n:m] = 0
            right[n:m] = 0
            for i in range(n):
                weight = np.sqrt(quadratic[start + i])
                right[i] = linear[start + i] / weight
                z, line = factors[indices[start + i]], across[i]
                for f in range(dim):
                    line[f] = weight * root[f] * z[f]
            system[:m, :m] = 0
            _add_gram(across, m, m, across.shape[1], system)
            for i in range(m):
                system[i, i] += 1
            _cholesky_solve(system, right, m)
            for i in range(n):
                for f in range(dim):
                    out[row, f] += across[i, f] * right[i]
        else:
            system[:] = 0
            for first in range(start, start + n, CHUNK):
                length = min(CHUNK, start + n - first)
                padded = (length + LANES - 1) // LANES * LANES
                down[:, length:padded] = 0
                for i in range(length):
                    weight = np.sqrt(quadratic[first + i])
                    down[size, i] = linear[first + i] / weight
                    z = factors[indices[first + i]]
                    for f in range(dim):
                        down[f, i] = weight * z[f]
                _add_gram(down, size + 2, size, padded, system)
            for i in range(dim):
                for j in range(i + 1):
                    system[i, j] *= root[i] * root[j]
            for i in range(size):
                system[i, i] += 1
            right = system[size]
            for f in range(dim):
                right[f] *= root[f]
            _cholesky_solve(system, right, size)
            out[row] = right[:dim]
        for f in range(dim):
            out[row, f] *= root[f]


@njit(cache=True, nogil=True, fastmath=REORDER)
def _conjugate_gradients(
    chosen: Any, quadratic: Any, linear: Any, factors: Any, common: Any, reg: Any, steps: int, x: Any, room: Any
) -> None:
    """Move `x` that many steps towards (diag(d) + Z'AZ)^-1 Z't, preconditioned by d = common + reg."""
    d, left, way, image = room[0], room[1], room[2], room[3]
    d[:] = common + reg
    _apply(chosen, quadratic, linear, factors, d, x, left)  # of which the image of `way` is taken away
    size = np.float32(0)
    for f in range(len(x)):
        way[f] = left[f] / -d[f]
        size -= left[f] * way[f]
    for _ in range(steps):
        _apply(chosen, quadratic, None, factors, d, way, image)
        bend = np.float32(0)
        for f in range(len(x)):
            bend += way[f] * image[f]
        if not (size > 0 and bend > 0):  # it is there
            return
        length = size / bend
        before, size = size, np.float32(0)
        for f in range(len(x)):
            x[f] += length * way[f]
            left[f] += length * image[f]
            size += left[f] * left[f] / d[f]
        for f in range(len(x)):
            way[f] = size / before * way[f] - left[f] / d[f]


@njit(cache=True, nogil=True, fastmath=REORDER)
def _apply(chosen: Any, quadratic: Any, linear: Any, factors: Any, d: Any, x: Any, out: Any) -> None:
    """(diag(d) + Z'AZ) x, less Z't where t = `linear` is given, into `out`; eight choices at a time share loads."""
    dim, n = len(x), len(chosen)
    for f in range(dim):
        out[f] = d[f] * x[f]
    whole = n // 8 * 8
    for i in range(0, whole, 8):
        c, a = chosen[i : i + 8], quadratic[i : i + 8]
        z0, z1, z2, z3 = factors[c[0]], factors[c[1]], factors[c[2]], factors[c[3]]
        z4, z5, z6, z7 = factors[c[4]], factors[c[5]], factors[c[6]], factors[c[7]]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
        for f in range(dim):
            s0 += z0[f] * x[f]
            s1 += z1[f] * x[f]
            s2 += z2[f] * x[f]
            s3 += z3[f] * x[f]
            s4 += z4[f] * x[f]
            s5 += z5[f] * x[f]
            s6 += z6[f] * x[f]
            s7 += z7[f] * x[f]
        s0, s1, s2, s3 = s0 * a[0], s1 * a[1], s2 * a[2], s3 * a[3]
        s4, s5, s6, s7 = s4 * a[4], s5 * a[5], s6 * a[6], s7 * a[7]
        if linear is not None:
            t = linear[i : i + 8]
            s0, s1, s2, s3 = s0 - t[0], s1 - t[1], s2 - t[2], s3 - t[3]
            s4, s5, s6, s7 = s4 - t[4], s5 - t[5], s6 - t[6], s7 - t[7]
        for f in range(dim):
            half = s0 * z0[f] + s1 * z1[f] + s2 * z2[f] + s3 * z3[f]
            out[f] += half + s4 * z4[f] + s5 * z5[f] + s6 * z6[f] + s7 * z7[f]
    for i in range(whole, n):
        z, s = factors[chosen[i]], np.float32(0)
        for f in range(dim):
            s += z[f] * x[f]
        s *= quadratic[i]
        if linear is not None:
            s -= linear[i]
        for f in range(dim):
            out[f] += s * z[f]


@njit(cache=True, nogil=True, fastmath=REORDER)
def _add_gram(rows: Any, n_rows: int, n_columns: int, length: int, out: Any) -> None:
    """Add the inner products of `rows`, of which there are an even number, to the lower triangle of `out`.

    Eight at a time share their loads: twice as fast as a BLAS product, which would fill both triangles.
    """
    for i in range(0, n_rows, 2):
        a0, a1 = rows[i], rows[i + 1]
        for j in range(0, min(i + 1, n_columns), 4):
            b0, b1, b2, b3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0)
            for f in range(length):
                x0, x1 = a0[f], a1[f]
                s00 += x0 * b0[f]
                s01 += x0 * b1[f]
                s02 += x0 * b2[f]
                s03 += x0 * b3[f]
                s10 += x1 * b0[f]
                s11 += x1 * b1[f]
                s12 += x1 * b2[f]
                s13 += x1 * b3[f]
            out[i, j] += s00
            out[i, j + 1] += s01
            out[i, j + 2] += s02
            out[i, j + 3] += s03
            out[i + 1, j] += s10
            out[i + 1, j + 1] += s11
            out[i + 1, j + 2] += s12
            out[i + 1, j + 3] += s13


@njit(cache=True, nogil=True, fastmath=REORDER)
def _cholesky_solve(system: Any, right: Any, n: int) -> None:
    """Solve the n x n system given by its lower triangle, in place; n is a multiple of 4, `right` becomes the solution.

    Rows are factorised four at a time, by squares of 4 x 4. The diagonal of the factor holds its inverse.
    """
    for i in range(0, n, 4):
        r0, r1, r2, r3 = system[i], system[i + 1], system[i + 2], system[i + 3]
        for j in range(0, i, 4):
            l0, l1, l2, l3 = system[j], system[j + 1], system[j + 2], system[j + 3]
            for r in range(4):
                line = system[i + r]
                s0, s1, s2, s3 = line[j], line[j + 1], line[j + 2], line[j + 3]
                for f in range(j):
                    s0 -= line[f] * l0[f]
                    s1 -= line[f] * l1[f]
                    s2 -= line[f] * l2[f]
                    s3 -= line[f] * l3[f]
                s0 *= l0[j]
                s1 = (s1 - s0 * l1[j]) * l1[j + 1]
                s2 = (s2 - s0 * l2[j] - s1 * l2[j + 1]) * l2[j + 2]
                s3 = (s3 - s0 * l3[j] - s1 * l3[j + 1] - s2 * l3[j + 2]) * l3[j + 3]
                line[j], line[j + 1], line[j + 2], line[j + 3] = s0, s1, s2, s3
        s00, s11, s22, s33 = r0[i], r1[i + 1], r2[i + 2], r3[i + 3]
        s10, s20, s30, s21, s31, s32 = r1[i], r2[i], r3[i], r2[i + 1], r3[i + 1], r3[i + 2]
        for f in range(i):
            x0, x1, x2, x3 = r0[f], r1[f], r2[f], r3[f]
            s00 -= x0 * x0
            s10 -= x1 * x0
            s11 -= x1 * x1
            s20 -= x2 * x0
            s21 -= x2 * x1
            s22 -= x2 * x2
            s30 -= x3 * x0
            s31 -= x3 * x1
            s32 -= x3 * x2
            s33 -= x3 * x3
        r0[i] = 1 / np.sqrt(s00)
        r1[i] = s10 * r0[i]
        r1[i + 1] = 1 / np.sqrt(s11 - r1[i] * r1[i])
        r2[i] = s20 * r0[i]
        r2[i + 1] = (s21 - r2[i] * r1[i]) * r1[i + 1]
        r2[i + 2] = 1 / np.sqrt(s22 - r2[i] * r2[i] - r2[i + 1] * r2[i + 1])
        r3[i] = s30 * r0[i]
        r3[i + 1] = (s31 - r3[i] * r1[i]) * r1[i + 1]
        r3[i + 2] = (s32 - r3[i] * r2[i] - r3[i + 1] * r2[i + 1]) * r2[i + 2]
        r3[i + 3] = 1 / np.sqrt(s33 - r3[i] * r3[i] - r3[i + 1] * r3[i + 1] - r3[i + 2] * r3[i + 2])
    for j in range(n):
        line, total = system[j], right[j]
        for f in range(j):
            total -= right[f] * line[f]
        right[j] = total * line[j]
    for j in range(n - 1, -1, -1):
        line = system[j]
        right[j] *= line[j]
        for f in range(j):
            right[f] -= right[j] * line[f]
