"""TIGER: items are tuples of codes made of what is said about them; a network writes the next item's, code by code.

Texts (or vectors) of items become vectors, vectors become tuples of codes, similar items sharing their first ones, and
an encoder-decoder learns to write the tuple of the next item after a history. So no item has a vector of its own: one
that nobody has chosen yet gets its tuple from its text (`extend`), and shares what is known of its neighbours.

Kept from the paper: an RQ-VAE begun by k-means, with straight-through gradients (`codes="rqvae"`); three levels, and a
digit that tells apart the items of one tuple; tokens of each level apart, a sign for the user by hash, the last 20
items; codes by random planes and by chance as controls. Changed:
- Codes come from residual k-means by default, which needs no training and is found to be as good (Ju et al.).
- Attention of the encoder looks back only, so that one reading of a history teaches all of its prefixes;
  `attention="full"` reads each prefix apart, as the paper does, at several times the cost.
- A code is chosen among those of its level, not among all tokens; and only such tuples are written as stand for an
  item that the request allows (the paper drops the others afterwards).
- A code has one vector for reading and writing, positions are learnt and norms come first, as in this package's other
  sequence models; AdamW at a constant rate; TF-IDF vectors on their main axes in the place of Sentence-T5.
- A tenth of the rows have the sign of an unknown user, so that strangers are answered.

Codes are made of the texts of the whole catalogue, items without a choice included; no event enters them.

Ref: Rajput et al., "Recommender systems with generative retrieval", NeurIPS 2023, arXiv:2305.05065; Ju et al.,
"Generative recommendation with semantic IDs", arXiv:2507.22224; Zheng et al. (LC-Rec), arXiv:2311.09049, for
`collisions="sinkhorn"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import RowFeed, Tokens, asked_codes, next_codes, prefixes, tensors, windows
from tastemaker.language.features import CONTENT, ItemVectors
from tastemaker.nn.code_answers import CodeAnswers
from tastemaker.nn.code_writer import CodeWriter, Memory, Reading, View
from tastemaker.nn.coded_items import CodedItems
from tastemaker.nn.content import restore_layers
from tastemaker.nn.item_codes import CodeConfig, Codes, Collisions
from tastemaker.nn.ragged import Layout
from tastemaker.types import (
    Array,
    Dataset,
    Decoding,
    Requests,
    Samples,
    Schema,
    Slates,
    State,
    setting,
    to_numpy,
)


@system(
    "tiger",
    family="generative",
    title="TIGER: the next item's codes, written one by one",
    paper="arXiv:2305.05065",
    learns_from={"events", "events.time", CONTENT},
    needs={"history"},
)
class TIGER(nn.Module):
    """Writes the codes of the next item after a history."""

    rows: ClassVar[Mapping[str, Any]] = {}  # nothing has a row for each user or item
    small: ClassVar = {"epochs": 4, "every": 4, "batch_size": 32, "max_len": 5, "beams": 20, "levels": 2} | {
        "digits": 32, "n_layers": 1, "n_heads": 2, "inner": 1,
    }  # fmt: skip

    @dataclass(frozen=True)
    class Config:
        columns: str = setting("", "Item columns that codes are made of, separated by commas; none named: all texts.")
        text_dim: int = setting(128, "Width of the text vectors.", low=1, log=True, search=(64, 256))
        codes: Codes = setting(
            "kmeans",
            "What makes codes: residual k-means, plain or with clusters of one size; an RQ-VAE; planes; chance.",
            choices=("kmeans", "balanced", "rqvae", "lsh", "random"),
        )
        levels: int = setting(3, "Levels of codes.", low=1, high=8, search=(2, 4))
        size: int = setting(
            256, "Codes a level; but for rqvae one for 8 items, where that is fewer.", low=2, high=65_536, log=True
        )
        collisions: Collisions = setting(
            "digit",
            "Items of one tuple: a further digit, or other last codes as far as there are any.",
            choices=("digit", "sinkhorn"),
        )
        digits: int = setting(256, "How many items of one tuple the further digit tells apart.", low=1, high=65_536)
        latent: int = setting(32, "rqvae only: width of its codes' vectors.", low=1)
        code_epochs: int = setting(500, "rqvae only: epochs of its training.", low=1)
        code_lr: float = setting(1e-3, "rqvae only: learning rate.", low=1e-6, high=1.0, log=True)
        dim: int = setting(128, "Width of the network.", low=1, log=True, search=(64, 256))
        n_layers: int = setting(2, "Blocks of the encoder, and of the decoder.", low=1, search=(1, 4))
        n_heads: int = setting(4, "Heads of attention; `dim` is a multiple of it.", low=1)
        inner: int = setting(4, "Inner layers are so many times as wide as the network.", low=1)
        dropout: float = setting(0.1, "Share of values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.4))
        max_len: int = setting(20, "Events of a history that are looked at, the latest.", low=1, log=True)
        attention: Literal["causal", "full"] = setting(
            "causal",
            "What a token of a history sees: those before it, so that all prefixes are learnt at once; or all of it.",
            choices=("causal", "full"),
        )
        groups: int = setting(2000, "Groups that users are hashed into, each with a sign; 0: users have none.", low=0)
        anonymous: float = setting(
            0.1, "Share of rows that are learnt from without the user's sign.", low=0.0, high=1.0
        )
        beams: int = setting(50, "Beginnings that a search keeps; lists of more keep as many.", low=1, log=True)
        lr: float = setting(1e-3, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        weight_decay: float = setting(0.01, "Decay of weights.", low=0.0, search=(0.0, 0.1))
        batch_size: int = setting(128, "Rows a step.", low=1)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(6, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(4, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")
            assert self.coding

        @property
        def coding(self) -> CodeConfig:
            """What makes codes; checked when it is built."""
            policy = self.collisions, self.digits
            return CodeConfig(self.codes, self.levels, self.size, *policy, self.latent, self.code_epochs, self.code_lr)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        c, coding = config, config.coding
        self.coded = CodedItems(ItemVectors(schema.items, c.columns, text_dim=c.text_dim), coding)
        self.writer = CodeWriter(
            coding.sizes,
            c.dim,
            n_signs=c.groups + 1,
            longest=1 + c.max_len * len(coding.sizes),
            n_encoder=c.n_layers,
            n_decoder=c.n_layers,
            n_heads=c.n_heads,
            hidden=c.inner * c.dim,
            dropout=c.dropout,
            causal=c.attention == "causal",
        )

    # -- learning

    def program(self, data: Dataset) -> Program:
        c = self.config
        yield from self.coded.learn(data.items, RowFeed)
        full = c.attention == "full"
        seen = prefixes(data, c.max_len) if full else windows(data, c.max_len + 1, which="all")
        yield Train(
            next_codes(seen, self.coded.book, c.batch_size, groups=c.groups, anonymous=c.anonymous, last=full),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser("adamw", lr=c.lr, weight_decay=c.weight_decay),
            parameters=list(self.writer.parameters()),
        )

    def gather(self, batch: Tokens) -> Memory:
        return self.writer.read(batch.tokens, batch.offsets, batch.longest)

    def objective(self, memory: Memory, batch: Tokens) -> Tensor:
        """-log of the probability of each item's tuple [M]."""
        layout = Layout.of(batch.told, batch.most, len(batch.targets))
        states = self.writer.written(memory, batch.targets, View(layout, batch.sees))
        losses = torch.zeros(len(states), device=states.device)
        for level in range(self.writer.depth):
            logits = self.writer.logits(states[:, level], level)
            losses = losses + F.cross_entropy(logits, batch.targets[:, level], reduction="none")
        return losses

    def facts(self) -> Mapping[str, float]:
        """How the codes are used, before items of one tuple were told apart."""
        return self.coded.coder.figures

    # -- codes of items that come later

    def adopt(self, old: TIGER, users: NDArray[np.integer[Any]], items: NDArray[np.integer[Any]]) -> None:
        """Take an older fit's codes and what made them: its network means nothing without them."""
        self.coded.adopt(old.coded, items)

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> TIGER:
        """With further items, written by codes made of their texts; users need no rows."""
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.schema.n_users + n_users, n_items=self.schema.n_items + n_items)
        larger = type(self)(self.config, schema)
        larger.restore({**self.export(), **self.coded.with_items(items)})
        return larger

    # -- answering

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k likeliest items that a beam search finds."""
        return self._answers().retrieve(requests, k)

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n items a request as their codes, each a list of one item."""
        return self._answers().generate(requests, n, decoding)

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        """Log-probability of each code of samples among those that lead to an allowed item [N], differentiable."""
        return self._answers().logp(requests, samples)

    def score(self, requests: Requests, items: Array | None = None) -> Tensor:
        """Log-probabilities of items [B, C], exact; of all of them that takes far longer than a search for the best."""
        return self._answers().score(requests, items)

    def _answers(self) -> CodeAnswers:
        return self.coded.answers(self._read, self.config.beams, self.writer.tokens.weight.device)

    def _read(self, requests: Requests) -> Reading:
        asked = asked_codes(requests, self.coded.book, self.config.max_len, groups=self.config.groups)
        return Reading(self.writer, self.gather(tensors(asked, self.writer.tokens.weight.device)))

    # -- bundles

    def export(self) -> dict[str, Any]:
        told = {f"writer.{name}": to_numpy(array) for name, array in self.writer.state_dict().items()}
        return {**told, **self.coded.export()}

    def restore(self, state: State) -> None:
        self.coded.restore(state, self.schema.n_items)
        restore_layers(self.writer, state, "writer.")
        self.eval()
