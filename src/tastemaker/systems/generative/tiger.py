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

from collections.abc import Iterator, Mapping
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
from tastemaker.language.features import CONTENT, Source, encoded, item_vectors, sources
from tastemaker.nn.code_writer import CodeWriter, Memory, View, Writing
from tastemaker.nn.content import restore_layers
from tastemaker.nn.decoding import Found, Limits, Tree, as_samples, codes_of, sample, search, told_logp, uniforms_of
from tastemaker.nn.item_codes import CodeConfig, Codes, Collisions, ItemCoder
from tastemaker.nn.ragged import Layout
from tastemaker.types import (
    Array,
    Codebook,
    Dataset,
    Decoding,
    Greedy,
    Requests,
    Sample,
    Samples,
    Schema,
    Slates,
    State,
    UsageError,
    setting,
    to_numpy,
)

BEGINNINGS = 1 << 13  # beginnings that are written on with at once
COLUMNS = 256  # items whose log-probabilities are computed at once


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
        self.sources = _content(schema, c.columns, c.text_dim)
        self.coder = ItemCoder(coding, sum(source.width for source in self.sources))
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
        self.book = Codebook(np.empty((0, len(coding.sizes)), dtype=np.int64), coding.sizes)
        self.kept: list[State] = []  # what encoders of texts know
        self.given: NDArray[np.int64] | None = None  # codes of an older fit's items, -1 in the rows of others
        self._tree: tuple[Codebook, Any, Tree] | None = None

    # -- learning

    def program(self, data: Dataset) -> Program:
        c = self.config
        if self.given is None:
            vectors, self.kept = yield from item_vectors(self.sources, data.items)
            codes = yield from self.coder.learn(np.concatenate(vectors, axis=1), RowFeed)
        else:
            codes = self._renewed(data.items)
        self.book = self.book.changed(codes)
        full = c.attention == "full"
        seen = prefixes(data, c.max_len) if full else windows(data, c.max_len + 1, which="all")
        yield Train(
            next_codes(seen, self.book, c.batch_size, groups=c.groups, anonymous=c.anonymous, last=full),
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
        states = self.writer.written(memory, batch.targets, View.of(layout, batch.sees, batch.longest))
        losses = torch.zeros(len(states), device=states.device)
        for level in range(self.writer.depth):
            logits = self.writer.logits(states[:, level], level)
            losses = losses + F.cross_entropy(logits, batch.targets[:, level], reduction="none")
        return losses

    def facts(self) -> Mapping[str, float]:
        """How the codes are used, before items of one tuple were told apart."""
        return self.coder.figures

    # -- codes of items that come later

    def adopt(self, old: TIGER, users: NDArray[np.integer[Any]], items: NDArray[np.integer[Any]]) -> None:
        """Take an older fit's codes and what made them: its network means nothing without them."""
        self.kept, self.book = old.kept, old.book
        self.coder.adopt(old.coder)
        self.given = np.where(items[:, None] >= 0, old.book.codes[np.maximum(items, 0)], -1)

    def _renewed(self, items: pl.DataFrame) -> NDArray[np.int64]:
        """The codes of an older fit, and by what made them those of items it has not known."""
        assert self.given is not None
        codes, fresh = self.given.copy(), np.flatnonzero(self.given[:, 0] < 0)
        if len(fresh):
            vectors = np.concatenate(encoded(self.sources, items[fresh], self.kept), axis=1)
            codes[fresh] = self.coder.further(vectors, np.delete(codes, fresh, axis=0))
        return codes

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> TIGER:
        """With further items, written by codes made of their texts; users need no rows."""
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.schema.n_users + n_users, n_items=self.schema.n_items + n_items)
        book = self.book
        if items is not None and n_items:
            vectors = np.concatenate(encoded(self.sources, items, self.kept), axis=1)
            book = book.extended(self.coder.further(vectors, book.codes))
        larger = type(self)(self.config, schema)
        larger.restore({**self.export(), **book.export()})
        return larger

    # -- answering

    @torch.no_grad()
    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k likeliest items that a beam search finds."""
        items, scores = np.full((requests.n, k), -1, dtype=np.int32), np.full((requests.n, k), -np.inf, np.float32)
        most = min(k, self.book.n_items)
        for part in _blocks(requests.n, max(1, BEGINNINGS // max(self.config.beams, most))):
            found = self._search(requests.take(part), most, self.config.beams)
            n = found.items.shape[1]
            items[part, :n], scores[part, :n] = to_numpy(found.items), to_numpy(found.scores)
        return Slates(items, scores)

    @torch.no_grad()
    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n items a request as their codes, each a list of one item.

        `logp` is that of each code among those that lead to an allowed item, which is how samples are drawn. Scores
        are the network's own log-probabilities, over all codes, where a search found them.
        """
        if isinstance(decoding, Sample):
            if requests.seeds is None:
                raise UsageError("samples are drawn from the streams of the requests' seeds, and these have none")
            memory = self._read(requests)
            uniforms = torch.from_numpy(uniforms_of(requests.seeds, n, self.book.depth)).to(memory.lengths.device)
            writing, limits = Writing(self.writer, memory), self._limits(requests)
            items, logp, codes = sample(writing, self.tree(), uniforms, temperature=decoding.temperature, limits=limits)
            scores = logp.sum(dim=-1)
        else:
            if isinstance(decoding, Greedy) and n != 1:
                raise UsageError(f"Greedy() gives one answer a request, {n} were asked for", hint="Beam() or Sample()")
            width = 1 if isinstance(decoding, Greedy) else decoding.width or self.config.beams
            found = self._search(requests, n, width)
            items, scores, codes = _filled(found, n)
            logp, _ = self._told(requests, codes)
        return as_samples(items, scores, codes, logp, self.book)

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        """Log-probability of each code of samples among those that lead to an allowed item [N], differentiable."""
        codes, there = (torch.from_numpy(a) for a in codes_of(samples, requests.n, self.book))
        told, whole = self._told(requests, codes.to(self.writer.tokens.weight.device))
        there = there.to(whole.device)
        if not bool(whole[there].all()):
            raise UsageError("a sample holds codes that lead to no item which its request allows")
        kept: Tensor = told[there].flatten()
        return kept

    @torch.no_grad()
    def score(self, requests: Requests, items: Array | None = None) -> Tensor:
        """Log-probabilities of items [B, C], exact; of all of them that takes far longer than a search for the best."""
        every = np.broadcast_to(np.arange(self.book.n_items), (requests.n, self.book.n_items))
        listed = np.maximum(every if items is None else to_numpy(items), 0)
        wide = np.pad(listed, ((0, 0), (0, -listed.shape[1] % COLUMNS)))  # equal shapes, so equal sums to the bit
        out = torch.zeros(wide.shape)
        for part in _blocks(requests.n, BEGINNINGS // COLUMNS):
            memory = self._read(requests.take(part))
            for columns in _blocks(wide.shape[1], COLUMNS):
                codes = torch.from_numpy(self.book.codes[wide[part, columns]]).to(memory.lengths.device)
                told = self._logp(memory, codes)
                picked = [one.gather(-1, codes[..., q, None]).squeeze(-1) for q, one in enumerate(told)]
                out[part, columns] = torch.stack(picked).sum(dim=0).cpu()
        return out[:, : listed.shape[1]]

    def tree(self) -> Tree:
        """The tree of all tuples where the weights lie; made anew when codes change."""
        device = self.writer.tokens.weight.device
        if self._tree is None or self._tree[0] is not self.book or self._tree[1] != device:
            self._tree = self.book, device, Tree.of(self.book.trie, device)
        return self._tree[2]

    def _read(self, requests: Requests) -> Memory:
        asked = asked_codes(requests, self.book, self.config.max_len, groups=self.config.groups)
        batch = tensors(asked, self.writer.tokens.weight.device)
        return self.gather(batch)

    def _limits(self, requests: Requests) -> Limits | None:
        return Limits.of(requests, self.book.trie, self.writer.tokens.weight.device)

    def _search(self, requests: Requests, k: int, width: int) -> Found:
        writing = Writing(self.writer, self._read(requests))
        return search(writing, self.tree(), k, width, self._limits(requests))

    def _logp(self, memory: Memory, codes: Tensor) -> list[Tensor]:
        """For each level the log-probabilities [B, n, V] of its codes after those of tuples [B, n, Q] before."""
        b, n, depth = codes.shape
        states = self.writer.written(memory, codes.view(b * n, depth), View.whole(memory, n)).view(b, n, depth, -1)
        return [self.writer.logp(states[:, :, level], level) for level in range(depth)]

    def _told(self, requests: Requests, codes: Tensor) -> tuple[Tensor, Tensor]:
        """`told_logp` of tuples [B, n, Q]."""
        return told_logp(self._logp(self._read(requests), codes), codes, self.tree(), self._limits(requests))

    # -- bundles

    def export(self) -> dict[str, Any]:
        told = {f"writer.{name}": to_numpy(array) for name, array in self.writer.state_dict().items()}
        told |= {f"coder.{name}": array for name, array in self.coder.export().items()}
        for n, kept in enumerate(self.kept):
            told |= {f"encoder.{n}.{name}": array for name, array in kept.items()}
        return {**told, **self.book.export()}

    def restore(self, state: State) -> None:
        self.book = Codebook.of(state, self.schema.n_items, self.config.coding.sizes)
        restore_layers(self.writer, state, "writer.")
        self.coder.restore(_under(state, "coder."))
        self.kept = [_under(state, f"encoder.{n}.") for n in range(len(self.sources))]
        self.eval()


def _content(schema: Schema, columns: str, text_dim: int) -> tuple[Source, ...]:
    """What codes are made of: the named columns; else all texts, or where there are none, all else there is."""
    found = sources(schema.items, columns, text_dim=text_dim)
    texts = tuple(source for source in found if source.kind == "text")
    return found if columns else texts or found


def _under(state: State, prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _filled(found: Found, n: int) -> Found:
    """With n items a request, -1 after the last."""
    short = n - found.items.shape[1]
    items, scores = F.pad(found.items, (0, short), value=-1), F.pad(found.scores, (0, short), value=-torch.inf)
    return Found(items, scores, F.pad(found.codes, (0, 0, 0, short)))


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
