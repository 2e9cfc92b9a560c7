"""BPR-MF: matrix factorisation trained to rank what a user chose above what the user did not.

The score is p_u . q_i + b_i. Each choice of an epoch is held against items drawn at random, and the loss is the
logistic loss of the difference of their scores, with squared lengths of the vectors it touches as the penalty.

Kept from the paper: the criterion and the bootstrap sampling of negatives. Changed: Adam in the place of plain
stochastic descent, whose rate needs tuning for each dataset; updates touch only the rows of a batch. With `pool` above
1 a negative is the one, of so many drawn, which the system scores highest as it stands (Zhang et al.): most items
drawn blindly lie far below the choice already and teach nothing.

Ref: Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian personalized ranking from implicit feedback",
UAI 2009, arXiv:1205.2618; Zhang, Chen, Wang, Yu, "Optimizing top-N collaborative filtering via dynamic negative item
sampling", SIGIR 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Triplets, hardest, interaction_matrix, popular, triplets
from tastemaker.nn.pairwise import penalised_bpr, scores_of
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, setting


class Rows(NamedTuple):
    """What a batch reads: users [B, D]; the chosen item, then what it is held against [B, 1 + n, D + 1].

    The last dimension of an item is its bias.
    """

    users: Tensor
    items: Tensor


@system(
    "bpr-mf",
    family="classical",
    title="BPR-MF: factorisation trained by pairwise ranking",
    paper="arXiv:1205.2618",
    needs={"users"},
)
class BPRMF(nn.Module):
    """Users and items as vectors whose inner product ranks; learnt from pairs."""

    rows: ClassVar = {"user_table.weight": ("users",), "item_table.weight": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 256), log=True)
        lr: float = setting(0.003, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.03))
        reg: float = setting(0.01, "Weight of the squared vectors of a batch.", low=0.0, log=True, search=(1e-5, 0.1))
        negatives: int = setting(1, "Items a choice is held against.", low=1, search=(1, 16), log=True)
        pool: int = setting(1, "Items drawn for a negative, which is the hardest.", low=1, search=(1, 32), log=True)
        power: float = setting(
            0.0, "Negatives are drawn in proportion to popularity to this power; 0: all alike.", low=0.0, high=1.0
        )
        batch_size: int = setting(2048, "Choices a step.", low=1)
        epochs: int = setting(300, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)
        init: float = setting(0.1, "Standard deviation of the first vectors.", low=1e-6)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.user_table = Table(schema.n_users, config.dim, std=config.init, sparse=True)
        self.item_table = Table(schema.n_items, config.dim + 1, std=config.init, sparse=True)

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        negatives = popular(matrix, c.negatives * c.pool, c.power)
        if c.pool > 1:
            negatives = hardest(negatives, self.scores, c.negatives)
        yield Train(
            triplets(matrix, c.batch_size, negatives),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    @torch.no_grad()
    def scores(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Tensor:
        """Scores of users [B] for items [B, m] of their own."""
        return scores_of(self.user_table.weight, self.item_table.weight, users, items)

    def gather(self, batch: Triplets) -> Rows:
        numbers = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1)
        return Rows(self.user_table(batch.users), self.item_table(numbers))

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each choice, and half the squared length of what it touches [B]."""
        return penalised_bpr(rows.users, rows.items, self.config.reg)

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The users' vectors, and a 1 for the items' bias to meet [B, D + 1]; a stranger's is the mean of all."""
        rows = self.user_table.known(requests.users)
        return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, their bias the last dimension [n, D + 1]."""
        return self.item_table.weight if numbers is None else self.item_table(numbers)
