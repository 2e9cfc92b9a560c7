"""Truncated singular value decomposition of a sparse matrix."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import eigh

from tastemaker.nn.product import history_product
from tastemaker.types import progress

Floats = NDArray[np.float32]
SMALL = 512  # up to so many columns, or eight times the rank, the Gram matrix is taken apart whole
LEAST = 512  # width to which the basis may grow at least


def truncated_svd(
    matrix: sp.csr_array, rank: int, rng: np.random.Generator, *, tolerance: float = 3e-2
) -> tuple[Floats, Floats]:
    """The `rank` largest singular values, falling, and their right singular vectors.

    A block Lanczos method on A'A with full reorthogonalisation. It stops when every wanted pair (v, s^2) has
    |A'A v - s^2 v| <= tolerance * s^2, or when the basis is six times `rank`, at least 512, wide. The largest
    entry of a vector is positive, so that equal input gives equal output. A value below 3e-4 of the largest
    cannot be told from 0 in float32: it is 0, and its vector too.

    Shapes: matrix [n, m]; returns [rank] and [m, rank], where rank is at most m.

    Ref: Golub, Luk, Overton, "A block Lanczos method for computing the singular values and corresponding
    singular vectors of a matrix", ACM Transactions on Mathematical Software 7(2), 1981.
    """
    m = matrix.shape[1]
    rank = min(rank, m)
    if m <= max(SMALL, 8 * rank):
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        squares, vectors = eigh(gram, subset_by_index=[m - rank, m - 1], overwrite_a=True, driver="evr")
    else:
        squares, vectors = _lanczos(matrix, rank, rng, tolerance)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    real = squares > squares.max(initial=0.0) * np.finfo(np.float32).eps
    values = np.sqrt(np.where(real, squares, 0.0))
    signs = np.where(largest < 0, -1, 1) * real
    return values.astype(np.float32), (vectors * signs).astype(np.float32)


def _lanczos(
    matrix: sp.csr_array, rank: int, rng: np.random.Generator, tolerance: float
) -> tuple[NDArray[np.float64], Floats]:
    """The largest Ritz values of A'A, rising, and their vectors, from a Krylov basis that grows block by block."""
    m = matrix.shape[1]
    width = max(16, rank // 8)
    most = min(max(6 * rank, LEAST), m) // width * width
    transposed = matrix.T.tocsr()
    basis = np.empty((m, most), dtype=np.float32, order="F")
    small = np.zeros((most, most))  # A'A in the basis
    look = 2.0 * rank  # how wide the basis is when its Ritz pairs are looked at next
    block = _orthonormal(rng.standard_normal((m, width), dtype=np.float32), basis[:, :0], 0.0)
    with progress("singular vectors", most) as advance:
        for size in range(width, most + 1, width):
            basis[:, size - width : size] = block
            known = basis[:, :size]
            image = history_product(transposed, history_product(matrix, block))
            overlap = known.T @ image
            image -= known @ overlap
            small[:size, size - width : size] = overlap
            small[size - width : size, :size] = overlap.T
            block = _orthonormal(image, known, 1e-5 * np.abs(overlap).max())
            advance(width)
            if size >= min(look, most):
                look = 1.2 * size
                squares, mixes = eigh(small[:size, :size], subset_by_index=[size - rank, size - 1], driver="evr")
                left = np.linalg.norm((block.T @ image) @ mixes[-width:], axis=0)
                if size == most or (left <= tolerance * np.maximum(squares, 1e-6 * squares[-1])).all():
                    break
    return squares, known @ mixes.astype(np.float32)


def _orthonormal(block: Floats, known: Floats, least: float) -> Floats:
    """An orthonormal basis of the block's columns, at right angles to `known`; zeros where it has fewer dimensions.

    Directions of length `least` or below are taken for rounding errors. The second round mends what rounding
    left of the first.

    Ref: Stathopoulos and Wu, "A block orthogonalization procedure with constant synchronization requirements",
    SIAM Journal on Scientific Computing 23(6), 2002, algorithm SVQB.
    """
    for floor in (least, 0.5):
        squares, axes = np.linalg.eigh((block.T @ block).astype(np.float64))
        real = squares > floor**2
        turn = axes * np.where(real, 1 / np.sqrt(np.where(real, squares, 1.0)), 0.0)
        block = block @ turn.astype(np.float32)
        block -= known @ (known.T @ block)
    return np.ascontiguousarray(block)
