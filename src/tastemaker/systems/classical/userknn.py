"""UserKNN: what users with a history like this one chose.

The score of item i is the sum over the k users v most similar to the history of s_v x_vi. The history is compared
with every training user who shares an item with it, when the request comes; so new users are answered from
their history alone. Changed from the papers: ties between neighbours are broken by a hash instead of user order,
and the mean rating of users plays no part, since choices and not ratings are predicted.

A request that names a training user leaves that user's own row out of the neighbours: it would be its own most
similar neighbour. The same history without the name is answered with that row among the k.

Ref: Herlocker et al., SIGIR 1999 (neighbourhoods of users); Aiolli, RecSys 2013 (implicit choices, alpha);
Breese et al., UAI 1998 (amplification).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.nn.product import history_product
from tastemaker.nn.similarity import Measure, Neighbours, Similarity, TermWeights, Weighting
from tastemaker.types import (
    Array,
    BundleError,
    Dataset,
    Requests,
    Schema,
    State,
    pack_csr,
    setting,
    to_numpy,
    unpack_csr,
)


@system(
    "userknn",
    family="classical",
    title="User nearest neighbours",
    paper="doi:10.1145/312624.312682",
    needs={"history"},
)
class UserKNN:
    """Scores an item by the similarity of the users who chose it to the history."""

    @dataclass(frozen=True)
    class Config:
        neighbours: int = setting(100, "Most similar users that count.", low=1, log=True, search=(10, 1000))
        weighting: Weighting = setting(
            "bm25",
            "Weight of an item in a similarity: what everybody chose tells less.",
            choices=("none", "tfidf", "bm25"),
            search=("none", "tfidf", "bm25"),
        )
        similarity: Similarity = setting(
            "cosine",
            "How a history and a user are compared.",
            choices=("cosine", "jaccard", "dot"),
            search=("cosine", "jaccard"),
        )
        alpha: float = setting(
            0.5,
            "Cosine only: share of the denominator that is the history; 0: how much of the other user it covers.",
            low=0,
            high=1,
            search=(0.3, 0.7),
        )
        shrinkage: float = setting(
            0.0, "Added to the denominator, against chance similarities of short histories.", low=0, search=(0.0, 50.0)
        )
        amplification: float = setting(
            1.0, "Power to which similarities are raised.", low=0.1, high=10, search=(0.5, 3.0)
        )
        weight: Weight = setting("binary", "What an entry of the matrix is.", choices=("binary", "count", "value"))
        k1: float = setting(1.2, "BM25 only: how slowly repeated choices saturate.", low=0)
        b: float = setting(0.75, "BM25 only: how much a long history is discounted.", low=0, high=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.chosen = sp.csr_array((schema.n_users, schema.n_items), dtype=np.float32)
        self.terms: TermWeights | None = None
        self.searched: Neighbours | None = None

    def program(self, data: Dataset) -> Program:
        self._index((yield Fit(interaction_matrix, data, weight=self.config.weight)))

    def _index(self, chosen: sp.csr_array) -> None:
        """Take in who chose what [U, I], and what follows from it."""
        c = self.config
        self.chosen = chosen
        self.terms = TermWeights.of(chosen, c.weighting, k1=c.k1, b=c.b)
        self.searched = Neighbours(self.terms.apply(chosen), Measure(c.similarity, c.alpha, c.shrinkage))

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        assert self.terms is not None and self.searched is not None, "fit or restore first"
        histories = history_matrix(requests, self.schema.n_items, weight=self.config.weight)
        near = self.searched.nearest(self.terms.apply(histories), self.config.neighbours, leave_out=requests.users)
        if self.config.amplification != 1:
            near.data **= np.float32(self.config.amplification)
        return history_product(near, self.chosen, None if items is None else to_numpy(items))

    def export(self) -> State:
        return pack_csr("chosen", self.chosen)

    def restore(self, state: State) -> None:
        chosen = unpack_csr("chosen", state)
        shape = (self.schema.n_users, self.schema.n_items)
        if chosen.shape != shape or not np.isfinite(chosen.data).all():
            raise BundleError(f"UserKNN keeps the finite choices of {shape[0]:,} users by {shape[1]:,} items")
        self._index(chosen.astype(np.float32, copy=False))
