"""HSTU: gated attention without a softmax over a history and its times, for retrieval and for ranking.

A layer makes four parts of every event, a gate, a query, a key and a value. What a query sees of a key is the SiLU of
their product and a bias for how far and how long ago the event lies, divided by a constant and not by the sum of all;
so the strength of a taste is kept. What was seen is normed, gated, and added to the event. There is no second network
after it. The cosine of what is known after an event and of an item tells the next item.

The same layers rank. A candidate is one more event after the history, with a vector in the place of what is not known
yet; it sees the history and itself, and no other candidate. Keys and values of the history are made once, and
candidates come in micro-batches (M-FALCON): a score is the one that the candidate would have alone.

Kept from the paper: the layer, its bias for positions and for the logarithm of times, the division by the longest
history, unit vectors and a temperature, uniform negatives that a batch shares, the mask of candidates. Changed:
- Everything is ragged, and no pair of events is held beyond a block (`tastemaker.nn.jagged_attention`).
- A learned start is read before the first event. It answers an empty history and lets the first event be learnt.
- The ranker adds to what it finds the cosine that retrieves. It learns from the same windows: at every sixteenth event
  from the one that followed against those that followed elsewhere in the batch, by noise-contrastive estimation. So its
  score is the log-probability that an item is next.
- Data whose times are only an order has no bias for time.
- Heads share the width: a query, a key and a value are dim / n_heads wide, as in all published settings.
- What came of an event (a rating) is not read. Lengths are not drawn at random; histories end at `max_len`.

A time difference is taken to the moment that is asked about, the next event's own, as in the authors' code (`clock`
"asked"); a system that does not know that moment is at a disadvantage beside. "event" takes it to the last event.

Ref: Zhai et al., "Actions speak louder than words: trillion-parameter sequential transducers for generative
recommendations", ICML 2024, arXiv:2402.17152; Gutmann, Hyvaerinen, "Noise-contrastive estimation", AISTATS 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Sequences, interaction_matrix, log_frequency, next_items, recent, shared, tensors, windows
from tastemaker.feeds.sequences import Which
from tastemaker.nn import losses
from tastemaker.nn.catalogue import catalogue_softmax
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.jagged_attention import N_STEPS, Sight, attend
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.types import CapabilityError, Dataset, Requests, Schema, setting

SECOND = 1_000_000  # microseconds
EPSILON = 1e-6  # of norms


class Ranked(NamedTuple):
    """G places of a batch's events [G], and C candidates for what came next at each: the first one did.

    Shapes: numbers [G, C], vectors [G, C, D]
    """

    places: Tensor
    numbers: Tensor
    vectors: Tensor


class Read(NamedTuple):
    """Vectors of what a batch reads [N, D], of targets [N, D] and negatives [n, D] where items are sampled, and what
    is ranked."""

    items: Tensor
    targets: Tensor | None = None
    negatives: Tensor | None = None
    ranked: Ranked | None = None


class Heard(NamedTuple):
    """What candidates look at: the histories' keys and values [N, H, D / H] of each layer, and what came of them.

    Shapes: states [N, D]; offsets [B + 1]; told, asked [N], seconds, or None
    """

    states: Tensor
    offsets: Tensor
    told: Tensor | None
    asked: Tensor | None
    layers: list[tuple[Tensor, Tensor]]


class Layer(nn.Module):
    """Pointwise projection, aggregation, and gating.

    Ref: arXiv:2402.17152, equations 1 to 3.
    """

    def __init__(self, dim: int, n_heads: int, max_len: int, dropout: float, *, near: bool, timed: bool) -> None:
        super().__init__()
        self.n_heads, self.scale = n_heads, 1 / (max_len + 1)
        self.inward, self.outward = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(dim, dim)
        self.drop = Dropout(dropout)
        nn.init.normal_(self.inward.weight, std=0.02)
        nn.init.xavier_uniform_(self.outward.weight)
        self.positions = nn.Parameter(torch.randn(max_len + 2) * 0.02) if near else None
        self.times = nn.Parameter(torch.randn(N_STEPS) * 0.02) if timed else None

    def forward(self, x: Tensor, sight: Sight, heard: tuple[Tensor, Tensor] | None = None) -> tuple[Any, ...]:
        """[N, D] to [N, D], and the keys and values of these events; with `heard`, they see its keys and themselves."""
        gate, *parts = F.silu(self.inward(_normed(x))).chunk(4, dim=-1)
        shape = len(x), self.n_heads, x.shape[-1] // self.n_heads
        values, queries, keys = (part.view(shape) for part in parts)  # [N, H, D / H]
        positions = x.new_zeros(1) if self.positions is None else self.positions
        times = x.new_zeros(N_STEPS) if self.times is None else self.times
        if heard is None:
            mixed = attend(queries, keys, values, positions, times, sight, self.scale)
        else:
            mixed = attend(queries, *heard, positions, times, sight, self.scale)
            bias = positions[0] + (0.0 if sight.asked is None else times[0])
            own = F.silu((queries * keys).sum(dim=-1, keepdim=True) + bias) * self.scale
            mixed = mixed + own * values
        out = x + self.outward(self.drop(gate * _normed(mixed.flatten(1))))
        return out, (keys, values)


@system(
    "hstu",
    family="sequential",
    title="HSTU: gated attention to events and their times",
    paper="arXiv:2402.17152",
    learns_from={"events", "events.time"},
    needs={"history"},
)
class HSTU(nn.Module):
    """Tells the next item from a history and its times, and ranks candidates that look at it."""

    rows: ClassVar = {"table.weight": ("items", 1), "log_q": ("items",)}  # one more: the start
    tasks: ClassVar = ("choice",)
    log_q: Tensor  # [I], of how often an item is chosen
    longest: Tensor

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, log=True, search=(32, 256))
        n_layers: int = setting(2, "Layers.", low=1, search=(1, 8))
        n_heads: int = setting(2, "Heads of attention; `dim` is a multiple of it.", low=1, search=(1, 2, 4))
        max_len: int = setting(50, "Events of a history that are looked at, the latest.", low=1, log=True)
        dropout: float = setting(0.2, "Share of values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5))
        bias: Literal["time", "position", "none"] = setting(
            "time",
            "What attention knows besides the events: how far and how long ago, how far alone, or nothing.",
            choices=("time", "position", "none"),
        )
        clock: Literal["asked", "event"] = setting(
            "asked",
            "Time differences are taken to the moment that is asked about, or to the last event before it.",
            choices=("asked", "event"),
        )
        loss: Literal["sampled", "softmax"] = setting(
            "sampled",
            "Against what a next item is held: a sample that the batch shares, or the whole catalogue.",
            choices=("sampled", "softmax"),
        )
        negatives: int = setting(128, "Sampled loss: items of a sample, drawn all alike.", low=1, log=True)
        temperature: float = setting(0.05, "What cosines are divided by.", low=1e-3, log=True, search=(0.02, 0.2))
        rank_weight: float = setting(0.3, "Weight of the ranker's loss; 0: ranking is not learnt.", low=0.0)
        rank_every: int = setting(16, "Of so many events one teaches the ranker.", low=1)
        rank_negatives: int = setting(7, "Candidates beside the right one.", low=1)
        micro_batch: int = setting(64, "Candidates that are ranked at once.", low=1)
        windows: Which = setting(
            "all",
            "Learn from the last `max_len` events of a history, or from all of it.",
            choices=("last", "all"),
            search=("last", "all"),
        )
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        batch_size: int = setting(128, "Windows a step.", low=1)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        c = self.config = config
        self.n_items, self.timed = schema.n_items, c.bias == "time" and schema.time_unit == "us"
        self.table = Table(schema.n_items + 1, c.dim, std=0.02, sparse=c.loss == "sampled")
        self.positions = Table(c.max_len + (2 if c.rank_weight else 1), c.dim, std=0.02)
        self.drop = Dropout(c.dropout)
        self.layers = nn.ModuleList(
            Layer(c.dim, c.n_heads, c.max_len, c.dropout, near=c.bias != "none", timed=self.timed)
            for _ in range(c.n_layers)
        )
        self.register_buffer("log_q", torch.zeros(schema.n_items))
        self.register_buffer("longest", torch.tensor(1 << 62))  # seconds between two events of one history
        if c.rank_weight:
            self.open = nn.Parameter(torch.randn(c.dim) * 0.02)  # [D], marks what is not known to have been chosen
            self.trust = nn.Parameter(torch.ones(()))  # in what retrieval says
            self.own = nn.Linear(c.dim, c.dim)
            self.head = nn.Sequential(nn.Linear(c.dim, c.dim), nn.SiLU(), Dropout(c.dropout), nn.Linear(c.dim, 1))

    @property
    def start(self) -> int:
        """The number of the start: the table's last row."""
        return self.n_items

    def program(self, data: Dataset) -> Program:
        c = self.config
        matrix = interaction_matrix(data)
        self.log_q.copy_(torch.from_numpy(log_frequency(matrix)))
        sampler = shared(matrix, c.negatives) if c.loss == "sampled" else None
        if self.timed:
            ends = data.interactions().group_by("user").agg(first=pl.col("time").min(), last=pl.col("time").max())
            self.longest.fill_(int((ends["last"] - ends["first"]).to_numpy().max(initial=0)) // SECOND)
        seen = windows(data, c.max_len + 1, which=c.windows, times=self.timed)
        yield Train(
            next_items(seen, c.batch_size, start=self.start, negatives=sampler),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr, betas=(0.9, 0.98)),
        )

    def gather(self, batch: Sequences) -> Read:
        rows = self.table(batch.items)
        ranked = self._to_rank(batch) if self.config.rank_weight else None
        if batch.negatives is None:
            return Read(rows, ranked=ranked)
        return Read(rows, self.table(batch.targets), self.table(batch.negatives), ranked)

    def _to_rank(self, batch: Sequences) -> Ranked | None:
        """Some events, with what followed and what followed others: items come as often as they are chosen."""
        layout, every = Layout.of(batch.offsets, batch.longest, len(batch.items)), self.config.rank_every
        shift = torch.randint(every, (), device=layout.ages.device)
        places = torch.nonzero((layout.ages + shift) % every == 0).squeeze(-1)
        if not len(places):
            return None
        drawn = torch.randint(len(batch.targets), (len(places), self.config.rank_negatives), device=places.device)
        numbers = torch.cat([batch.targets[places].unsqueeze(-1), batch.targets[drawn]], dim=-1)
        return Ranked(places, numbers, self.table(numbers))

    def objective(self, read: Read, batch: Sequences) -> Tensor:
        """The loss of each event [N]: to find the next item, and where it is ranked, to tell it from others."""
        heard = self.read(read.items, batch)
        told = F.normalize(heard.states, dim=-1) / self.config.temperature
        if read.targets is None or read.negatives is None:
            rows = catalogue_softmax(told, F.normalize(self.table.weight[: self.n_items], dim=-1), batch.targets)
        else:
            positive = (told * F.normalize(read.targets, dim=-1)).sum(dim=-1)
            negative = told @ F.normalize(read.negatives, dim=-1).T
            hit = batch.negatives == batch.targets.unsqueeze(-1)
            rows = losses.sampled_softmax(positive, negative.masked_fill(hit, -torch.inf))
        if read.ranked is None:
            return rows
        places, vectors = read.ranked.places, read.ranked.vectors
        row = torch.searchsorted(batch.offsets, places, right=True) - 1
        asked = None if heard.asked is None else heard.asked[places]
        odds = self.beside(vectors, row, places - batch.offsets[row] + 1, asked, heard)
        odds = odds - torch.log(odds.new_tensor(self.config.rank_negatives))
        ranked = losses.bce(
            odds[:, 0], odds[:, 1:]
        )  # what followed may be drawn as well: or it could not be too likely
        return rows.index_add(0, places, ranked * (self.config.rank_weight * self.config.rank_every))

    def read(self, rows: Tensor, batch: Sequences) -> Heard:
        """What is known after each event, from the vectors of the events [N, D], and what candidates see."""
        layout = Layout.of(batch.offsets, batch.longest, len(rows))
        told = asked = None
        if self.timed:
            told = torch.div(batch.times, SECOND, rounding_mode="floor")
            asked = told
            if self.config.clock == "asked":  # of absences longer than any that was learnt from nothing is known
                asked = torch.minimum(torch.div(batch.asked, SECOND, rounding_mode="floor"), told + self.longest)
        sight = Sight.causal(batch.offsets, layout.columns, asked, told)
        x, kept = self.drop(rows * self.config.dim**0.5 + self.positions(layout.columns)), []
        for layer in self.layers:
            x, memory = layer(x, sight)
            kept.append(memory)
        return Heard(x, batch.offsets, told, asked, kept)

    def beside(self, vectors: Tensor, row: Tensor, places: Tensor, asked: Tensor | None, heard: Heard) -> Tensor:
        """Log-odds of candidates against items that are drawn by popularity [G, C].

        Shapes: vectors [G, C, D]; row [G], rising: whose history is seen; places [G]: how much of it; asked [G].
        Ref: arXiv:2402.17152, section 3.4 (M-FALCON).
        """
        groups, size, dim = vectors.shape
        each = torch.arange(groups, device=row.device).repeat_interleave(size)
        counts = torch.bincount(row, minlength=len(heard.offsets) - 1) * size
        offsets = F.pad(counts.cumsum(0), (1, 0))
        moments = None if asked is None else asked[each]
        sight = Sight.of(offsets, heard.offsets, places[each], places[each], moments, heard.told)
        x = self.candidates(vectors.reshape(-1, dim), places[each])
        for layer, memory in zip(self.layers, heard.layers, strict=True):
            x, _ = layer(x, sight, memory)
        return self.odds(x.view_as(vectors), vectors, heard.states[heard.offsets[row] + places - 1])

    def candidates(self, vectors: Tensor, places: Tensor) -> Tensor:
        """What the first layer reads of candidates [N, D] at the places that follow their histories [N]."""
        read: Tensor = self.drop(vectors * self.config.dim**0.5 + self.positions(places) + self.open)
        return read

    def odds(self, states: Tensor, vectors: Tensor, known: Tensor) -> Tensor:
        """Log-odds [G, C], from what the last layer leaves of candidates and from their own vectors [G, C, D], and
        from what was known after the history [G, D], which alone would retrieve."""
        alike = F.normalize(vectors, dim=-1) @ F.normalize(known, dim=-1).unsqueeze(-1)
        pairs = self.head(_normed(states) * self.own(_normed(vectors)))
        odds: Tensor = (pairs + self.trust * alike / self.config.temperature).squeeze(-1)
        return odds

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """What is known after the last event of each history, of length 1 [B, D]; after an empty one, of the start."""
        batch = self._asked(requests)
        return F.normalize(self.read(self.table(batch.items), batch).states[batch.offsets[1:] - 1], dim=-1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, of length 1 [n, D]."""
        return F.normalize(self.table.weight[: self.n_items] if numbers is None else self.table(numbers), dim=-1)

    @torch.no_grad()
    def score(self, requests: Requests, items: Any = None) -> Tensor:
        """The ranker's estimate of the log-probability that an item is chosen next [B, C], or [B, I]."""
        if not self.config.rank_weight:
            raise CapabilityError("this system has not learnt to rank", hint="fit it with rank_weight above 0")
        batch, device = self._asked(requests), self.table.weight.device
        heard = self.read(self.table(batch.items), batch)
        every = torch.arange(self.n_items, device=device).expand(requests.n, -1)
        numbers = every if items is None else torch.as_tensor(items, dtype=torch.int64, device=device).clamp(min=0)
        row = torch.arange(requests.n, device=device)
        asked = None if heard.asked is None else heard.asked[batch.offsets[1:] - 1]
        parts = [
            self.beside(self.table(part), row, batch.offsets.diff(), asked, heard) + self.log_q[part]
            for part in torch.split(numbers, self.config.micro_batch, dim=1)
        ]
        return torch.cat(parts, dim=1)

    def predict(self, requests: Requests, items: Any = None) -> Tensor:
        """The probability that an item is chosen next [B, C, 1], or [B, I, 1]."""
        return self.score(requests, items).clamp(max=0).exp().unsqueeze(-1)

    def _asked(self, requests: Requests) -> Sequences:
        asked = recent(requests, self.n_items, self.config.max_len, start=self.start, times=self.timed)
        batch: Sequences = tensors(asked, self.table.weight.device)
        return batch


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)
