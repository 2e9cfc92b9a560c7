"""INFNet: fields, histories and tasks as three kinds of token that tell each other what they know through few proxies.

Aggregate: proxies of the fields C~ (m of them, from a layer over all fields), of the history S~ (one for each kind of
behaviour, the mean of a layer over its events), of the tasks T~ (learnt, shared), and the task tokens T themselves ask
the tokens of the other kinds by cross-attention CA(query; keys). Broadcast: each kind is multiplied by a gate, constant
over its tokens, that a layer makes of its proxies.

    C~' = CA(C~; S) + CA(C~; T)     C <- C * g(C~')
    S~' = CA(S~; C) + CA(S~; T)     S <- S * g(S~')
    T~' = CA(T~; C) + CA(T~; S)     T <- T^ * g(T~'),    T^ = CA(T; C) + CA(T; S)

Only proxies and task tokens ask, so a block costs no more than proxies times tokens. A task's output is a tower on its
token, so the last block has nothing to ask for fields and history. `cross`, `gates` and `task_tokens` switch the parts
off that the paper takes away in its ablation: what asks gets the plain mean of the others; nothing is gated; a tower
reads the means of the fields and of the proxies of the history.

Kept from the paper: the above. Changed, or left open there: a residual and a norm around what was asked (without them
stacked gates, all below 1, let tokens vanish; `residual` switches both off); gates begin near 0.9; proxies of the
history are means, since sums grow with its length; each kind of behaviour is read off the values that the tasks name,
an event belonging to all that it reaches; a learnt token stands before each history, so that an empty one can be asked.

Ref: "INFNet: a task-aware information flow network for large-scale recommendation systems", arXiv:2508.11565, sections
3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Reader, Rows
from tastemaker.nn.features import STD, Features, Layers, Outputs, load_weights
from tastemaker.nn.ragged import Layout
from tastemaker.types import Dataset, Requests, Schema, State, setting

OPEN = 2.0  # where the gates' bias begins: sigmoid(2) = 0.88
SPREAD = 0.3  # of the first vectors: attention begins with means over many tokens, which would be near 0


class Read(NamedTuple):
    """Tokens of the rows [B, M, D], and of the events of their histories [N, Fi, D]."""

    tokens: Tensor
    events: Tensor


class Flow(NamedTuple):
    """Tokens of fields [B, M, D], of histories [B, 1 + L, D] (`filled`: which are there) and of tasks [B, T, D], and
    proxies of each kind [B, .., D]."""

    fields: Tensor
    history: Tensor
    filled: Tensor
    tasks: Tensor
    field_proxies: Tensor
    history_proxies: Tensor
    task_proxies: Tensor


@system(
    "infnet",
    family="ranking",
    title="INFNet: fields, history and tasks exchange through proxies",
    paper="arXiv:2508.11565",
    needs={"users", "history"},
)
class INFNet(nn.Module):
    """Lets fields, history and tasks tell each other what they know, through proxies."""

    rows: ClassVar = {"features.users.weight": (1, "users"), "features.items.weight": (1, "items")}
    small: ClassVar = {
        "dim": 16,
        "n_layers": 1,
        "residual": False,
        "epochs": 6,
        "every": 6,
        "negatives": 1,
        "batch_size": 96,
        "max_len": 5,
        "lr": 0.02,
    }

    @dataclass(frozen=True)
    class Config:
        tasks: tuple[str, ...] = setting(("choice",), "What is predicted, as 'choice', 'value>=4', 'kind=buy'.")
        utility: tuple[float, ...] = setting((), "Weight of each task in the score; empty: all alike.")
        columns: tuple[str, ...] | None = setting(
            None, "Columns that are read beside user and item, as 'items.genre'; none named: all that can be."
        )
        negatives: int = setting(
            4, "Items drawn beside each choice that was made outside a shown list.", low=0, search=(1, 8)
        )
        dim: int = setting(16, "Width of the vectors.", low=1, log=True, search=(8, 64))
        n_layers: int = setting(2, "Blocks.", low=1, search=(1, 3))
        n_heads: int = setting(2, "Heads of attention; `dim` is a multiple of it.", low=1, search=(1, 2, 4))
        proxies: int = setting(4, "Proxies of the fields.", low=1, search=(2, 8))
        shared: int = setting(2, "Proxies of the tasks.", low=1, search=(1, 3))
        max_len: int = setting(20, "Choices of a history that are read, the latest.", low=1, log=True, search=(10, 100))
        hidden: tuple[int, ...] = setting((64,), "Widths of the layers of a task's tower.")
        dropout: float = setting(
            0.0, "Share of inner values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5)
        )
        cross: bool = setting(True, "Ask by attention; off: the plain mean of the tokens of the other kinds.")
        gates: bool = setting(True, "Whether proxies gate their kind.")
        task_tokens: bool = setting(True, "Whether tasks have tokens of their own.")
        residual: bool = setting(True, "A residual and a norm around what was asked.")
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(
            0.0, "Weight of the squared vectors of a row's fields.", low=0.0, log=True, search=(1e-6, 0.01)
        )
        batch_size: int = setting(1024, "Rows a step, those drawn not counted.", low=1)
        epochs: int = setting(10, "Most epochs.", low=1)
        patience: int = setting(2, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(1, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.reader = Reader(schema, config.columns, config.tasks, max_len=config.max_len)
        self.features = Features.of(self.reader.fields, config.dim, std=SPREAD)
        self.outputs = Outputs(self.reader.binary, config.utility)
        f, dim, n_tasks = self.reader.fields, config.dim, len(config.tasks)
        self.event = nn.Linear(len(f.item_places) * dim, dim)
        self.kind = nn.Parameter(torch.randn(1 + len(f.behaviours), dim) * STD)
        self.begin = nn.Parameter(torch.randn(dim) * STD)
        kinds = 1 + len(f.behaviours)
        self.blocks = nn.ModuleList(
            Block(config, kinds, last=layer == config.n_layers - 1) for layer in range(config.n_layers)
        )
        asks_fields = any(block.ask_fields is not None for block in self.blocks)
        asks_history = any(block.ask_history is not None for block in self.blocks)
        self.of_fields = Layers(f.n_tokens * dim, (2 * dim,), config.proxies * dim) if asks_fields else None
        self.of_history = Layers(dim, (dim,), dim) if asks_history else None
        self.task = nn.Parameter(torch.randn(n_tasks, dim) * STD) if config.task_tokens else None
        gated = config.task_tokens and config.gates
        self.task_proxy = nn.Parameter(torch.randn(config.shared, dim) * STD) if gated else None
        width = dim if config.task_tokens else 2 * dim
        self.towers = nn.ModuleList(Layers(width, config.hidden, 1, dropout=config.dropout) for _ in range(n_tasks))

    def program(self, data: Dataset) -> Program:
        c = self.config
        self.outputs.scale(self.reader.take((yield Fit(self.reader.learn, data))))
        yield Train(
            self.reader.feed(data, c.batch_size, negatives=c.negatives),
            self.gather,
            self.objective,
            until=Plateau("auc", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Rows) -> Read:
        return Read(*self.features.with_events(batch))

    def forward(self, read: Read, batch: Rows) -> Tensor:
        """Outputs [B, T]."""
        state = self.begun(read, batch)
        for block in self.blocks:
            state = block(state)
        if self.task is None:
            means = torch.cat([state.fields.mean(dim=1), state.history_proxies.mean(dim=1)], dim=1)
            return torch.cat([tower(means) for tower in self.towers], dim=1)
        return torch.cat([tower(state.tasks[:, n]) for n, tower in enumerate(self.towers)], dim=1)

    def begun(self, read: Read, batch: Rows) -> Flow:
        """Tokens and proxies before the first block."""
        n, dim = len(read.tokens), self.config.dim
        events = self.event(read.events.flatten(1)) + batch.marks @ self.kind  # [N, D]
        layout = Layout.of(batch.offsets, batch.longest, len(events))
        history = torch.cat([self.begin.expand(n, 1, dim), layout.pad(events)], dim=1)
        filled = F.pad(layout.filled(), (1, 0), value=True)
        none = read.tokens.new_zeros(n, 0, dim)
        fields = none if self.of_fields is None else self.of_fields(read.tokens.flatten(1)).unflatten(1, (-1, dim))
        tasks = none if self.task is None else self.task.expand(n, -1, -1)
        shared = none if self.task_proxy is None else self.task_proxy.expand(n, -1, -1)
        return Flow(read.tokens, history, filled, tasks, fields, self.told(events, batch, none), shared)

    def told(self, events: Tensor, batch: Rows, none: Tensor) -> Tensor:
        """Proxies of the history [B, K, D]: means over the events of each kind of behaviour; 0 where there is none."""
        if self.of_history is None:
            return none
        rows = torch.repeat_interleave(batch.offsets[1:] - batch.offsets[:-1], output_size=len(events))
        told = batch.marks.unsqueeze(-1) * self.of_history(events).unsqueeze(1)  # [N, K, D]
        sums = told.new_zeros(len(none), *told.shape[1:]).index_add(0, rows, told)
        counts = told.new_zeros(len(none), told.shape[1]).index_add(0, rows, batch.marks)
        means: Tensor = sums / counts.clamp(min=1.0).unsqueeze(-1)
        return means

    def objective(self, read: Read, batch: Rows) -> Tensor:
        """The loss of each row [B]."""
        loss: Tensor = self.outputs.loss(self(read, batch), batch.labels)
        return loss if self.config.reg == 0 else loss + read.tokens.square().sum(dim=(1, 2)) * self.config.reg

    @property
    def tasks(self) -> Sequence[str]:
        return self.reader.names

    @torch.no_grad()
    def predict(self, requests: Requests, items: Any = None) -> Tensor:
        """Probabilities, or numbers, of each task [B, C, T]."""
        return self.outputs.units(self.reader.ask(self, requests, items))

    @torch.no_grad()
    def score(self, requests: Requests, items: Any = None) -> Tensor:
        """Utilities [B, C]: the weighed sum of what the tasks say."""
        return self.outputs.utility(self.reader.ask(self, requests, items))

    def adopt(self, old: Any, users: Any, items: Any) -> None:
        self.reader.adopt(old.reader)

    def export(self) -> State:
        return {**self.state_dict(), **self.reader.export()}

    def restore(self, state: State) -> None:
        load_weights(self, self.reader.restore(state))


class Ask(nn.Module):
    """What queries learn from tokens of other kinds, the sum over these; perhaps with a residual and a norm."""

    def __init__(self, config: INFNet.Config, *many: bool) -> None:
        """many: of each other kind, whether it has several tokens; of one alone there is nothing to choose among."""
        super().__init__()
        self.asks = nn.ModuleList(CrossAttention(config.dim, config.n_heads, config.cross and one) for one in many)
        self.drop = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.dim) if config.residual else None

    def forward(self, queries: Tensor, *others: tuple[Tensor, Tensor | None]) -> Tensor:
        """[B, Q, D] to [B, Q, D]; `others` are tokens [B, L, D] and which of them are there [B, L] (None: all)."""
        parts = [ask(queries, *one) for ask, one in zip(self.asks, others, strict=True)]
        learnt: Tensor = self.drop(torch.stack(parts).sum(dim=0))
        if self.norm is None:
            return learnt
        normed: Tensor = self.norm(queries + learnt)
        return normed


class CrossAttention(nn.Module):
    """Multi-head attention of queries to tokens of another kind; without `by_likeness`, the mean of the tokens.

    Queries are few and tokens many, so keys and values are never made: what maps a token to a key is applied to the
    queries, and what maps it to a value to the mixture, whose weights sum to 1.
    """

    def __init__(self, dim: int, n_heads: int, by_likeness: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(dim, dim) if by_likeness else None
        self.key = nn.Linear(dim, dim, bias=False) if by_likeness else None
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor, filled: Tensor | None) -> Tensor:
        """[B, Q, D] from queries [B, Q, D], tokens [B, L, D] and which of them are there [B, L]."""
        if self.query is None or self.key is None:
            there = tokens.new_ones(tokens.shape[:2]) if filled is None else filled.to(tokens.dtype)
            mean = (there.unsqueeze(1) @ tokens) / there.sum(dim=1)[:, None, None]
            plain: Tensor = self.out(self.value(mean)).expand(-1, queries.shape[1], -1)
            return plain
        n, n_queries, dim = queries.shape
        asked = self.query(queries).unflatten(-1, (self.n_heads, -1))  # [B, Q, H, D / H]
        heads = self.n_heads, dim // self.n_heads, dim
        turned = torch.einsum("bqhd,hde->bhqe", asked, self.key.weight.view(heads)).reshape(n, -1, dim)
        likeness = turned @ tokens.transpose(1, 2) * heads[1] ** -0.5  # [B, H Q, L]
        if filled is not None:
            likeness = likeness.masked_fill(~filled.unsqueeze(1), -torch.inf)
        mixed = (torch.softmax(likeness, dim=-1) @ tokens).view(n, self.n_heads, n_queries, dim)
        told = torch.einsum("bhqe,hde->bqhd", mixed, self.value.weight.view(heads)).flatten(2) + self.value.bias
        answer: Tensor = self.out(told)
        return answer


class Gate(nn.Module):
    """A gate [B, 1, D] in (0, 1), the same for all tokens of a kind, from its proxies [B, P, D] (the paper's PGU)."""

    def __init__(self, dim: int, n: int) -> None:
        super().__init__()
        self.layers = Layers(n * dim, (dim,), dim)
        last = self.layers.steps[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, OPEN)

    def forward(self, proxies: Tensor) -> Tensor:
        gate: Tensor = torch.sigmoid(self.layers(proxies.flatten(1))).unsqueeze(1)
        return gate


class Block(nn.Module):
    """Proxies and task tokens ask the other kinds; then each kind is gated by its proxies.

    What nothing reads is not made: behind the last block stand the towers, which read the task tokens, or without them
    the fields and the proxies of the history.
    """

    def __init__(self, config: INFNet.Config, kinds: int, *, last: bool) -> None:
        super().__init__()
        tasks, dim = config.task_tokens, config.dim
        others = (True, len(config.tasks) > 1) if tasks else (True,)
        of_fields = config.gates and not (last and tasks)
        of_history = config.gates and not last
        self.ask_fields = Ask(config, *others) if of_fields else None
        self.ask_history = Ask(config, *others) if of_history or not tasks else None
        self.ask_shared = Ask(config, True, True) if tasks and config.gates else None
        self.ask_tasks = Ask(config, True, True) if tasks else None
        self.gate_fields = Gate(dim, config.proxies) if of_fields else None
        self.gate_history = Gate(dim, kinds) if of_history else None
        self.gate_tasks = Gate(dim, config.shared) if tasks and config.gates else None

    def forward(self, flow: Flow) -> Flow:
        fields, history = (flow.fields, None), (flow.history, flow.filled)
        more = [(flow.tasks, None)] if self.ask_tasks is not None else []
        found: dict[str, Tensor] = {}
        if self.ask_fields is not None:
            found["field_proxies"] = self.ask_fields(flow.field_proxies, history, *more)
        if self.ask_history is not None:
            found["history_proxies"] = self.ask_history(flow.history_proxies, fields, *more)
        if self.ask_shared is not None:
            found["task_proxies"] = self.ask_shared(flow.task_proxies, fields, history)
        if self.ask_tasks is not None:
            found["tasks"] = self.ask_tasks(flow.tasks, fields, history)
        flow = flow._replace(**found)
        if self.gate_fields is not None:
            flow = flow._replace(fields=flow.fields * self.gate_fields(flow.field_proxies))
        if self.gate_history is not None:
            flow = flow._replace(history=flow.history * self.gate_history(flow.history_proxies))
        if self.gate_tasks is not None:
            flow = flow._replace(tasks=flow.tasks * self.gate_tasks(flow.task_proxies))
        return flow
