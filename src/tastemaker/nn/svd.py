"""Truncated singular value decomposition of a sparse matrix."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.nn.product import history_product
from tastemaker.types import progress

Floats = NDArray[np.float32]
SMALL = 512  # up to so many columns the Gram matrix is taken apart whole


def truncated_svd(
    matrix: sp.csr_array, rank: int, rng: np.random.Generator, *, tolerance: float = 1e-3
) -> tuple[Floats, Floats]:
    """The `rank` largest singular values, falling, and their right singular vectors.

    A block Lanczos method on A'A with full reorthogonalisation. It stops when every wanted pair (v, s^2) has
    |A'A v - s^2 v| <= tolerance * s^2, or when the basis is six times `rank` wide. The largest entry of a
    vector is positive, so that equal input gives equal output. Values beyond the matrix' rank are 0.

    Shapes: matrix [n, m]; returns [rank] and [m, rank], where rank is at most m.

    Ref: Golub, Luk, Overton, "A block Lanczos method for computing the singular values and corresponding
    singular vectors of a matrix", ACM Transactions on Mathematical Software 7(2), 1981.
    """
    m = matrix.shape[1]
    rank = min(rank, m)
    if m <= max(SMALL, 3 * rank):
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        squares, vectors = np.linalg.eigh(gram)
    else:
        squares, vectors = _lanczos(matrix, rank, rng, tolerance)
    top = np.argsort(-squares, kind="stable")[:rank]
    vectors = vectors[:, top]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    values = np.sqrt(np.maximum(squares[top], 0.0))
    return values.astype(np.float32), (vectors * np.where(largest < 0, -1, 1)).astype(np.float32)


def _lanczos(
    matrix: sp.csr_array, rank: int, rng: np.random.Generator, tolerance: float
) -> tuple[NDArray[np.float64], Floats]:
    """Ritz values and vectors of A'A from a Krylov basis that grows block by block."""
    m = matrix.shape[1]
    width = max(16, rank // 4)
    most = min(6 * rank + 4 * width, m) // width * width
    transposed = matrix.T.tocsr()
    basis = np.empty((m, most), dtype=np.float32, order="F")
    small = np.zeros((most, most))
    block = np.linalg.qr(rng.standard_normal((m, width), dtype=np.float32))[0]
    with progress("singular vectors", most) as advance:
        for size in range(width, most + 1, width):
            basis[:, size - width : size] = block
            known = basis[:, :size]
            image = history_product(transposed, history_product(matrix, np.ascontiguousarray(block)))
            overlap = known.T @ image
            image -= known @ overlap
            again = known.T @ image  # once more: the first pass leaves what rounding left
            image -= known @ again
            small[:size, size - width : size] = overlap + again
            small[size - width : size, :size] = small[:size, size - width : size].T
            advance(width)
            block, leap = np.linalg.qr(image)
            if size >= min(2 * rank, most):
                squares, mixes = np.linalg.eigh(small[:size, :size])
                left = np.linalg.norm(leap @ mixes[-width:, -rank:], axis=0)
                if size == most or (left <= tolerance * np.maximum(squares[-rank:], squares[-1] * 1e-6)).all():
                    break
            for _ in range(2):  # where the image vanished, QR made up directions: keep them off the basis
                block = np.linalg.qr(block - known @ (known.T @ block))[0]
    return squares[-rank:], known @ mixes[:, -rank:].astype(np.float32)
