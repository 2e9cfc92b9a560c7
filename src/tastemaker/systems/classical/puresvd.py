"""PureSVD: histories projected onto the leading right singular vectors of the interaction matrix.

A history x scores x V V', where V are the singular vectors of R with missing entries read as 0.

Ref: Cremonesi, Koren, Turrin, "Performance of recommender algorithms on top-N recommendation tasks", RecSys
2010, section 3.3. With `popularity` other than 1, V comes from R with each column divided by its norm to the
power 1 - popularity: Nikolakopoulos, Kalantzis, Gallopoulos, Garofalakis, "EigenRec: generalizing PureSVD for
effective and efficient top-N recommendations", Knowledge and Information Systems 58, 2019, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.nn.product import history_product
from tastemaker.nn.svd import truncated_svd
from tastemaker.types import BundleError, Dataset, Requests, Schema, State, setting

Floats = NDArray[np.float32]


@system(
    "puresvd",
    family="classical",
    title="PureSVD: projection onto leading singular vectors",
    paper="doi:10.1145/1864708.1864721",
    needs={"history"},
)
class PureSVD:
    """Items as right singular vectors, a request as the sum of its history's; also EigenRec."""

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "How many singular vectors are kept.", low=1, search=(16, 512), log=True)
        popularity: float = setting(
            1.0,
            "How much the norm of an item's column counts: 1 as it is (PureSVD), less dampens popular items.",
            low=0.0,
            high=2.0,
            search=(0.0, 1.2),
        )
        weight: Weight = setting(
            "binary",
            "What an entry of the matrix is: 1, how often the item was chosen, or the events' value.",
            choices=("binary", "count", "value"),
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.vectors: Floats = np.zeros((0, 0), dtype=np.float32)  # [I, D], orthonormal columns

    def program(self, data: Dataset) -> Program:
        matrix = interaction_matrix(data, weight=self.config.weight)
        self.vectors = yield Fit(fit_vectors, matrix, self.config.dim, self.config.popularity, rng="svd")

    def queries(self, requests: Requests) -> Floats:
        """Sums of the vectors of each history [B, D]."""
        histories = history_matrix(requests, self.schema.n_items, weight=self.config.weight)
        return history_product(histories, self.vectors)

    def items(self, numbers: NDArray[np.integer[Any]] | None = None) -> Floats:
        return self.vectors if numbers is None else self.vectors[numbers]

    def export(self) -> State:
        return {"vectors": self.vectors}

    def restore(self, state: State) -> None:
        shape = (self.schema.n_items, min(self.config.dim, self.schema.n_items))
        vectors = state.get("vectors")
        if vectors is None or vectors.shape != shape or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise BundleError(f"PureSVD keeps finite float32 vectors {list(shape)}; the bundle has none such")
        self.vectors = vectors


def fit_vectors(matrix: sp.csr_array, dim: int, popularity: float, rng: np.random.Generator) -> Floats:
    """Leading right singular vectors [I, D] of the matrix, its columns scaled; D is at most I."""
    scaled = matrix.copy()
    if popularity != 1.0:
        squares = np.zeros(matrix.shape[1])
        np.add.at(squares, matrix.indices, matrix.data.astype(np.float64) ** 2)
        scale = np.where(squares > 0, squares, 1.0) ** ((popularity - 1.0) / 2)
        scaled.data *= scale[matrix.indices].astype(np.float32)
    return truncated_svd(scaled, dim, rng)[1]
