"""Mult-VAE: a variational autoencoder of a user's choices with a multinomial likelihood.

The choices of a user, as a row x of unit length with a share of its entries dropped, are read by an encoder into a
Gaussian over K dimensions; a decoder turns a draw of it into one distribution over all items, and the loss is what
the choices cost under it,

    -sum over i of x_i log softmax(f(z))_i  +  beta KL(q(z | x) || N(0, 1)),

beta rising from 0 to a cap below 1 in the course of training. Answers use the mean of the Gaussian.

Kept from the paper: the likelihood, layers I-600-200-600-I with tanh, unit-length input with dropout of one half,
the annealing and its cap of 0.2, Adam at 0.001, batches of 500 users. Changed: the first layer adds up the rows of
the items chosen, and nothing of the size of users by items is made; since the last layer is linear it is kept as
vectors of items, so that lists come from a search by inner product. The same autoencoder without the Gaussian is
the paper's Mult-DAE.

Ref: Liang, Krishnan, Hoffman, Jebara, "Variational autoencoders for collaborative filtering", WWW 2018,
arXiv:1802.05814; github.com/dawenl/vae_cf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Bags, bags, history_matrix, interaction_matrix
from tastemaker.feeds.feed import tensors
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, setting


@system(
    "multvae",
    family="classical",
    title="Mult-VAE: a variational autoencoder with multinomial likelihood",
    paper="arXiv:1802.05814",
    needs={"history"},
)
class MultVAE(nn.Module):
    """Reads a history into a small Gaussian, and writes a distribution over all items from it."""

    beta: Tensor
    rows: ClassVar = {"read.weight": ("items",), "write.weight": ("items",), "write.bias": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(200, "Width of the Gaussian.", low=1, search=(50, 400), log=True)
        hidden: int = setting(600, "Width of the layers around it.", low=1, search=(100, 1000), log=True)
        dropout: float = setting(
            0.5, "Share of a user's choices that are kept from the encoder.", low=0.0, high=0.99, search=(0.2, 0.8)
        )
        cap: float = setting(0.2, "Weight of the KL term at the end.", low=0.0, high=1.0, search=(0.05, 0.5))
        anneal: int = setting(
            20_000, "Steps in which the weight would rise to 1 if it were not capped.", low=1, search=(1000, 100_000)
        )
        lr: float = setting(1e-3, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        weight_decay: float = setting(0.0, "Weight decay of all weights.", low=0.0, search=(0.0, 0.01))
        batch_size: int = setting(500, "Users a step.", low=1, search=(100, 500), log=True)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_items = config, schema.n_items
        self.read = Table(schema.n_items, config.hidden, std=None)
        self.read_bias = nn.Parameter(torch.empty(config.hidden))
        self.encode = nn.Linear(config.hidden, 2 * config.dim)
        self.decode = nn.Linear(config.dim, config.hidden)
        self.write = nn.Linear(config.hidden, schema.n_items)
        self.register_buffer("beta", torch.zeros(()))
        for name, weights in self.named_parameters():
            if name.endswith("bias"):
                nn.init.trunc_normal_(weights, std=0.001, a=-0.002, b=0.002)
            else:
                nn.init.xavier_normal_(weights)

    def program(self, data: Dataset) -> Program:
        c = self.config
        yield Train(
            bags(interaction_matrix(data), c.batch_size),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser("adamw" if c.weight_decay else "adam", lr=c.lr, weight_decay=c.weight_decay),
            after_step=self.anneal,
        )

    def anneal(self, step: int) -> None:
        """The weight of the KL term in the coming step."""
        self.beta.fill_(min(self.config.cap, (step + 1) / self.config.anneal))

    def gather(self, batch: Bags) -> Tensor:
        """The first layer's sums over the choices, each row of unit length before dropout [B, H]."""
        lengths = torch.diff(batch.offsets)
        weights = torch.repeat_interleave(lengths.clamp_min(1).rsqrt(), lengths)
        weights = F.dropout(weights, self.config.dropout, self.training)
        return F.embedding_bag(
            batch.items, self.read.weight, batch.offsets[:-1], mode="sum", per_sample_weights=weights
        )

    def gaussian(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of each row [B, K]."""
        mean, log_variance = self.encode(torch.tanh(sums + self.read_bias)).chunk(2, dim=-1)
        return mean, log_variance

    def objective(self, sums: Tensor, batch: Bags) -> Tensor:
        """The cost of a user's choices, and beta times the KL divergence [B] (paper, section 2.2.2)."""
        mean, log_variance = self.gaussian(sums)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        logits = self.write(torch.tanh(self.decode(drawn)))
        lengths = torch.diff(batch.offsets)
        rows = torch.repeat_interleave(torch.arange(len(batch), device=sums.device), lengths)
        chosen = logits.new_zeros(len(batch)).index_add(0, rows, logits[rows, batch.items])
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1)
        costs: Tensor = lengths * torch.logsumexp(logits, dim=-1) - chosen + self.beta * divergence
        return costs

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The decoder's last hidden layer, and a 1 for the items' bias to meet [B, H + 1]."""
        batch = tensors(Bags.of(history_matrix(requests, self.n_items)), self.beta.device)
        mean, _ = self.gaussian(self.gather(batch))
        hidden = torch.tanh(self.decode(mean))
        return torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The last layer's weights of the items, their bias the last dimension [n, H + 1]."""
        vectors = torch.cat([self.write.weight, self.write.bias.unsqueeze(1)], dim=1)
        return vectors if numbers is None else vectors[torch.as_tensor(numbers, device=vectors.device).long()]
