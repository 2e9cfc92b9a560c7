"""EAR: a factorisation machine estimates, a small network acts (asks, or shows a list), and refusals are reflected on.

Estimation. With u the user, v an item and P what the user has confirmed, vectors all of them, items are ranked by
u.v + sum_p v.p, and attributes by u.p' + sum_p p'.p; what no item changes is left out. Each choice is held against an
item the user never chose, and against one that has all of P too (`near`); then steps of that take turns with steps of
the attributes alone (`attribute_task`), which rank an attribute of the item above one it has not.

Action. The network sees what each answer would tell of the items that are left (entropy), how near each attribute is to
u and P, what the turns so far brought, and how many items are left. It first learns to do what the max-entropy rule
does, then from its own conversations by REINFORCE, over choices that the machine has not learnt from.

Reflection. A list that is turned down moves u, P and the items, in that session alone: its state holds the moved rows.

Kept from the paper: all of this, the rewards, the rule that a "no" rules no item out, states that the max-entropy rule
leads to as training of the machine. Changed:
- Adam in the place of plain descent, the mean over a batch in the place of its sum; a pair of attributes a choice.
- The similarity is the mean of cosines, not their sum over |P|; logits are not cut off at 0 (`relu` does).
- Conversations that train the network are about choices held back from the training part, not about validation and
  test choices; what is drawn as unchosen may be what the user chooses later. (The authors' code draws it from what is
  in neither part, so that held-out items are the only ones never pushed away.)
- A turn later is worth 0.95 in the place of 0.7, with which the network gives up asking where its machine is good.
- Items of the history that are reflected on are the latest 32.

`policy="max-entropy"` and `policy="greedy"` (lists alone) are the paper's baselines over the same machine. CRM (Sun and
Zhang) is `sees=("known",)` with `near=False, attribute_task=False`. `asks="columns"`: a question is about a column, and
its answer all values that the item has there, as in the paper's second dataset.

Ref: Lei et al., "Estimation-Action-Reflection: towards deep interaction between conversational and recommender
systems", WSDM 2020, arXiv:2002.09102; Sun, Zhang, "Conversational recommender system", SIGIR 2018, arXiv:1806.03277.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Alternate, Epochs, Optimiser, Plateau, Program, Train, system
from tastemaker.data import holdout
from tastemaker.feeds import Confirmed, confirmed, interaction_matrix, rollout
from tastemaker.index.select import select
from tastemaker.nn.draws import uniforms
from tastemaker.nn.features import Layers, load_weights
from tastemaker.nn.policy_gradient import reinforce, returns_to_go
from tastemaker.nn.questions import Questions, Talk, Talks, size_bins
from tastemaker.nn.reflection import Tables, reflected
from tastemaker.nn.table import Table
from tastemaker.simulate import AttributeUsers
from tastemaker.types import (
    Actions,
    Attributes,
    ConfigError,
    Dataset,
    Feedback,
    Requests,
    Schema,
    UsageError,
    askable,
    setting,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
How = Literal["learnt", "max-entropy", "greedy"]
SEES = ("entropy", "similarity", "heard", "size", "known")
SHARP, BEST = 5.0, 3  # what cosines are multiplied by; values of a column that count
CELLS = 1 << 24  # sessions times items that are looked at at once


class Read(NamedTuple):
    """Vectors of a batch: users [B, D]; the item, then what it is held against [B, 3, D]; the sum of P [B, D]."""

    users: Tensor
    items: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Played:
    """N turns. Shapes: seen [N, S]; open [N, F + 1] bool, what could be done; done [N]; returns [N]."""

    seen: Any
    open: Any
    done: Any
    returns: Any

    def __len__(self) -> int:
        return len(self.done)

    def take(self, rows: slice) -> Played:
        return Played(self.seen[rows], self.open[rows], self.done[rows], self.returns[rows])


class Decided(NamedTuple):
    """What B sessions do: facets, or F for a list [B]; the lists [B, K], their scores; what was seen [B, S]."""

    actions: Ints
    items: NDArray[np.int32]
    scores: Floats
    seen: Floats


@system(
    "ear",
    family="conversational",
    title="EAR: asks about attributes, recommends, and learns from refusals",
    paper="arXiv:2002.09102",
    learns_from={"events", "items:categories|items:category"},
    needs={"users"},
)
class EAR(nn.Module):
    """Asks which attributes a wanted item has until a list is worth a turn."""

    State = Talk
    rows: ClassVar = {"user_table.weight": ("users",), "item_table.weight": ("items",)}
    small: ClassVar = {
        "columns": ("genres",),
        "batch_size": 512,
        "lr": 0.02,
        "epochs": 4,
        "every": 4,
        "policy_epochs": 2,
        "pretrain_epochs": 2,
        "policy_lr": 0.02,
        "episodes": 128,
    }

    @dataclass(frozen=True)
    class Config:
        columns: tuple[str, ...] = setting((), "Columns of items that are asked about; none: all categories.")
        asks: Literal["values", "columns"] = setting(
            "values", "What a question is about: one value, or all of a column.", choices=("values", "columns")
        )
        policy: How = setting(
            "learnt", "Who decides: the network, or a rule.", choices=("learnt", "max-entropy", "greedy")
        )
        sees: tuple[str, ...] = setting(
            SEES[:4], "What the network sees, of entropy, similarity, heard, size, and known (what is confirmed)."
        )
        near: bool = setting(True, "Hold a choice against an item with the same confirmed attributes too.")
        attribute_task: bool = setting(True, "Learn to rank attributes as well.")
        reflection: Literal["paper", "code", "off"] = setting(
            "paper",
            "What is learnt from a refusal: the paper's pairs, those of its code (with items drawn), or nothing.",
            choices=("paper", "code", "off"),
        )
        reflect_lr: float = setting(1e-3, "Learning rate of reflection.", low=0.0, high=10.0, log=True)
        reflect_reg: float = setting(1e-3, "Weight of the squared rows that reflection moves.", low=0.0)
        passes: int = setting(4, "Steps of reflection for each refused list.", low=1)
        turns: int = setting(15, "Turns of a session.", low=1, high=127)
        k: int = setting(10, "Length of a list.", low=1)
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 128), log=True)
        init: float = setting(0.01, "Standard deviation of the first vectors.", low=1e-6)
        dropout: float = setting(0.5, "Share of a product's entries that training leaves out.", low=0.0, high=0.9)
        reg: float = setting(0.002, "Weight of the squared vectors of a batch.", low=0.0, log=True, search=(1e-5, 0.1))
        lr: float = setting(0.003, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.03))
        attribute_lr: float = setting(0.001, "Learning rate of the attribute task.", low=1e-6, high=1.0, log=True)
        batch_size: int = setting(1024, "Choices a step.", low=1)
        epochs: int = setting(250, "Most epochs, of each of the machine's two stages.", low=1)
        patience: int = setting(5, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(5, "Epochs between evaluations.", low=1)
        hidden: int = setting(64, "Width of the network's layer.", low=1)
        policy_dropout: float = setting(0.2, "Share of the layer that the network's training leaves out.", low=0.0)
        relu: bool = setting(False, "Cut the network's logits off at 0, as the authors' code does.")
        players: tuple[float, float] = setting(
            (0.0, 1.0), "Whose choices the network is trained on, a stretch of [0, 1) in which a hash of the user lies."
        )
        pretrain_epochs: int = setting(10, "Epochs of learning from the max-entropy rule.", low=1)
        policy_epochs: int = setting(20, "Epochs of REINFORCE.", low=1)
        policy_lr: float = setting(0.01, "Learning rate of the network.", low=1e-6, high=1.0, log=True)
        episodes: int = setting(64, "Conversations a step.", low=1)
        gamma: float = setting(0.95, "What a turn later is worth.", low=0.0, high=1.0, search=(0.5, 1.0))
        reward_turn: float = setting(-0.01, "Reward of every turn.")
        reward_yes: float = setting(0.1, "Reward of an attribute that is confirmed.")
        reward_found: float = setting(1.0, "Reward of a list with the item.")
        reward_end: float = setting(-0.3, "Reward when turns are over.")

        def __post_init__(self) -> None:
            if not self.sees or set(self.sees) - set(SEES):
                raise ValueError(f"what the network sees is some of {', '.join(SEES)}, got {self.sees}")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.columns = config.columns or askable(schema)
        sizes = [schema.items[name].size or 1 for name in self.columns if name in schema.items]
        capacity = sum(sizes)
        if len(sizes) < len(self.columns) or not capacity:
            raise ConfigError(f"items have no categories to ask about in the columns {', '.join(self.columns) or '()'}")
        self.capacity = capacity
        facets = len(self.columns) if config.asks == "columns" else capacity
        widths = {"entropy": facets, "similarity": facets, "heard": config.turns, "size": 8, "known": capacity}
        self.user_table = Table(schema.n_users, config.dim, std=config.init, sparse=True)
        self.item_table = Table(schema.n_items, config.dim, std=config.init, sparse=True)
        self.attribute_table = Table(capacity, config.dim, std=config.init)
        width = sum(widths[name] for name in config.sees)
        self.network = Layers(width, (config.hidden,), facets + 1, dropout=config.policy_dropout)
        self.attributes: Attributes | None = None
        self.adopted: Attributes | None = None

    # -- learning

    def program(self, data: Dataset) -> Program:
        c = self.config
        self.attributes = Attributes.of(data.items, self.columns)
        if self.adopted is not None and self.adopted.names != self.attributes.names:
            raise UsageError("items have other attributes than those of the bundle to start from", hint="fit it anew")
        inner = holdout(data)
        rules = self.questions
        feed = confirmed(
            interaction_matrix(inner.train),
            self.attributes,
            c.batch_size,
            turns=c.turns,
            facet=rules.facet,
            n_facets=rules.n_facets,
        )
        until = Plateau("auc", c.patience, c.every, c.epochs)
        machine = [self.user_table.weight, self.item_table.weight, self.attribute_table.weight]
        of_items = Train(feed, self.gather, self.objective, until, Optimiser(lr=c.lr), parameters=machine)
        yield of_items
        if c.attribute_task:
            how = Optimiser(lr=c.attribute_lr)
            yield Alternate(
                [of_items, Train(feed, self.gather, self.of_attributes, until, how, parameters=machine[2:])]
            )
        if c.policy != "learnt":
            return
        world = AttributeUsers.of(inner, "valid", attributes=self.attributes, horizon=c.turns, people=c.players)
        network = list(self.network.parameters())
        how = Optimiser(lr=c.policy_lr)
        taught, own = (
            rollout(self, partial(self.play, world, who), episodes=len(world), batch_size=c.episodes)
            for who in ("max-entropy", "learnt")
        )
        yield Train(taught, self.logits, self.as_taught, Epochs(c.pretrain_epochs), how, parameters=network)
        yield Train(own, self.logits, self.rewarded, Epochs(c.policy_epochs), how, parameters=network)

    def gather(self, batch: Confirmed) -> Read:
        numbers = torch.stack([batch.items, batch.others, batch.near.clamp(min=0)], dim=1)
        known = batch.known @ self.attribute_table.weight
        return Read(self.user_table(batch.users), self.item_table(numbers), known)

    def objective(self, read: Read, batch: Confirmed) -> Tensor:
        """The losses of a choice against an item never chosen, and against one like it (paper, equation 5) [B]."""
        c = self.config
        query = (read.users + read.known).unsqueeze(1)
        scores = F.dropout(query * read.items, c.dropout, self.training).sum(dim=-1)  # [B, 3]
        losses = F.softplus(scores[:, 1:] - scores[:, :1])
        there = torch.stack([torch.ones_like(batch.near), (batch.near >= 0) * int(c.near)], dim=1)
        squares = read.users.square().sum(dim=1) + read.items[:, :2].square().sum(dim=(1, 2))
        total: Tensor = (losses * there).sum(dim=1) + c.reg * squares
        return total

    def of_attributes(self, read: Read, batch: Confirmed) -> Tensor:
        """The loss of an attribute of the item against one that it has not (paper, equation 8) [B]."""
        query = read.users.detach() + read.known
        pair = self.attribute_table(torch.stack([batch.wanted, batch.unwanted], dim=1).clamp(min=0))
        scores = (query.unsqueeze(1) * pair).sum(dim=-1)
        there = (batch.wanted >= 0) & (batch.unwanted >= 0)
        losses: Tensor = F.softplus(scores[:, 1] - scores[:, 0]) * there
        return losses

    def logits(self, batch: Played) -> Tensor:
        """Of each action [N, F + 1], -inf where it is not open."""
        out: Tensor = self.network(batch.seen)
        return (F.relu(out) if self.config.relu else out).masked_fill(~batch.open, -torch.inf)

    def as_taught(self, logits: Tensor, batch: Played) -> Tensor:
        """-log of the probability of what the rule did [N]."""
        return F.cross_entropy(logits, batch.done, reduction="none")

    def rewarded(self, logits: Tensor, batch: Played) -> Tensor:
        """The loss of what the network did, by what came of it [N]."""
        logp = torch.log_softmax(logits, dim=1).gather(1, batch.done.unsqueeze(1)).squeeze(1)
        return reinforce(logp, batch.returns)

    def play(self, world: AttributeUsers, how: How, pairs: Ints, seeds: NDArray[np.uint64]) -> Played:
        """Conversations about these pairs of `world`, a row a turn. The network draws what it does."""
        c, rules = self.config, self.questions
        requests, state = world.start(pairs, seeds)
        talks, there = rules.begin(requests, c.dim), np.arange(len(pairs))
        rewards = np.zeros((len(pairs), c.turns), dtype=np.float32)
        seen, opened, done, places = [], [], [], []
        for turn in range(c.turns):
            found = self.decide(talks, how, draws=how == "learnt", watched=True)
            actions, acted = rules.acted(talks, found.actions, found.items, found.scores)
            seen.append(found.seen)
            opened.append(np.pad(~talks.asked, ((0, 0), (0, 1)), constant_values=True))
            done.append(found.actions)
            places.append(np.stack([there, np.full(len(there), turn)], axis=1))
            feedback, _, over, state = world.step(state, actions)
            assert feedback.answers is not None and feedback.reward is not None
            told = c.reward_turn + c.reward_yes * (feedback.answers["reply"] == 1) + c.reward_found * feedback.reward
            rewards[there, turn] = told
            left = ~over
            talks, there = rules.heard(acted, feedback)[0].take(left), there[left]
            if turn + 1 == c.turns:
                rewards[places[-1][feedback.reward == 0, 0], turn] += c.gamma * c.reward_end
            if not len(there):
                break
        place = np.concatenate(places)
        returns = returns_to_go(torch.from_numpy(rewards), c.gamma).numpy()[place[:, 0], place[:, 1]]
        return Played(np.concatenate(seen), np.concatenate(opened), np.concatenate(done), returns)

    # -- deciding

    @cached_property
    def questions(self) -> Questions:
        """The rules of sessions over the catalogue."""
        if self.attributes is None:
            raise UsageError("this system was not fitted, so it knows no attributes")
        c = self.config
        return Questions(self.attributes, c.turns, c.k, c.asks == "columns", self.capacity)

    def tables(self) -> Tables:
        """The vectors as they stand."""
        users, items, attributes = (
            table.weight.detach().cpu().numpy() for table in (self.user_table, self.item_table, self.attribute_table)
        )
        return Tables(users, users.mean(axis=0), items, attributes)

    def decide(self, talks: Talks, how: How, *, draws: bool = False, watched: bool = False) -> Decided:
        """What is to be done in each session; `draws`: as likely as the network holds it to be, else the likeliest."""
        tables, size = self.tables(), max(1, CELLS // max(1, self.schema.n_items))
        parts = [
            self._decide(tables, talks.take(slice(at, at + size)), how, draws, watched)
            for at in range(0, len(talks), size)
        ]
        return Decided(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _decide(self, tables: Tables, talks: Talks, how: How, draws: bool, watched: bool) -> Decided:
        c, rules = self.config, self.questions
        free = rules.free(talks)
        entropies, sizes = rules.entropies(talks, free)
        luck = uniforms(talks.seed, talks.turn[:, None], 21)[:, 0]
        seen = np.zeros((len(talks), 0), dtype=np.float32)
        if watched or how == "learnt":
            seen = self.sight(tables, talks, entropies, sizes)
        if how == "learnt":
            actions = self._chosen(seen, talks.asked, luck if draws else None)
        else:
            shows = (luck * sizes < c.k) | talks.asked.all(axis=1) | (how == "greedy")
            best = np.where(talks.asked, -1.0, entropies).argmax(axis=1)
            actions = np.where(shows, rules.n_facets, best)
        items = np.full((len(talks), c.k), -1, dtype=np.int32)
        scores = np.full((len(talks), c.k), -np.inf, dtype=np.float32)
        if len(lists := np.flatnonzero(actions == rules.n_facets)):
            told = np.where(free[lists] > 0, tables.scores(talks.take(lists)), -np.inf).astype(np.float32)
            items[lists], scores[lists] = select(told, c.k)
        return Decided(actions, items, scores, seen)

    @torch.no_grad()
    def _chosen(self, seen: Floats, asked: NDArray[np.bool_], luck: NDArray[np.float64] | None) -> Ints:
        """The likeliest action of each session, or with `luck` [B] one drawn."""
        device = self.item_table.weight.device
        opened = torch.from_numpy(np.pad(~asked, ((0, 0), (0, 1)), constant_values=True)).to(device)
        batch = Played(torch.from_numpy(seen).to(device), opened, None, None)
        logits = self.logits(batch).double()
        if luck is None:
            return logits.argmax(dim=1).cpu().numpy()
        reach = torch.softmax(logits, dim=1).cumsum(dim=1).cpu().numpy()
        drawn: Ints = (reach <= (luck * reach[:, -1])[:, None]).sum(axis=1)
        return drawn

    def sight(self, tables: Tables, talks: Talks, entropies: Floats, sizes: Ints) -> Floats:
        """What the network sees [B, S]."""
        near = self._similarities(tables, talks) if "similarity" in self.config.sees else None
        heard, known = talks.heard.astype(np.float32), talks.known.astype(np.float32)
        parts = {"entropy": entropies, "similarity": near, "heard": heard, "size": size_bins(sizes), "known": known}
        return np.concatenate([np.asarray(parts[name]) for name in self.config.sees], axis=1)

    def _similarities(self, tables: Tables, talks: Talks) -> Floats:
        """Mean cosine of each facet with the user and what is confirmed, times 5; -1 once asked [B, F].

        Of a column with several values, those of the best 3 summed.
        """
        owners, _, rows = tables.members(talks)
        total = np.zeros((len(talks), rows.shape[1]), dtype=np.float32)
        np.add.at(total, owners, _unit(rows))
        near = total @ _unit(tables.attributes).T / np.bincount(owners)[:, None]
        rules = self.questions
        if rules.wholes:
            of = rules.facet[: len(rules.attributes)]
            each = [-np.sort(-near[:, : len(of)][:, of == facet], axis=1)[:, :BEST] for facet in range(rules.n_facets)]
            near = np.stack([one.sum(axis=1) for one in each], axis=1)
        return np.where(talks.asked, -1.0, (1.0 if rules.wholes else SHARP) * near).astype(np.float32)

    # -- answering

    def begin(self, requests: Requests) -> list[Talk]:
        """Sessions; what context columns "attribute" and "value" say is taken as confirmed."""
        return self.questions.begin(requests, self.config.dim).apart() if requests.n else []

    def act(self, sessions: list[Talk]) -> tuple[Actions, list[Talk]]:
        if not sessions:
            return Actions(0), []
        talks = Talks.of(sessions)
        found = self.decide(talks, self.config.policy)
        actions, after = self.questions.acted(talks, found.actions, found.items, found.scores)
        return actions, after.apart()

    def observe(self, sessions: list[Talk], feedback: Feedback) -> list[Talk]:
        if not sessions:
            return []
        c = self.config
        talks, refused = self.questions.heard(Talks.of(sessions), feedback)
        if c.reflection != "off" and refused.any():
            how: dict[str, Any] = {"lr": c.reflect_lr, "reg": c.reflect_reg, "passes": c.passes}
            talks = reflected(self.tables(), talks, refused, spread=c.reflection == "code", **how)
        return talks.apart()

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The users' vectors, with those of attributes that the context says are wanted added [B, D]."""
        found: Tensor = self.user_table.known(requests.users)
        told = requests.context
        if told is None or "attribute" not in told or "value" not in told:
            return found
        known = self.questions.begin(requests, self.config.dim).known.astype(np.float32)
        return found + torch.from_numpy(known).to(found.device) @ self.attribute_table.weight

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors [n, D]."""
        return self.item_table.weight if numbers is None else self.item_table(numbers)

    # -- bundles

    def adopt(self, old: Any, users: Any, items: Any) -> None:
        self.adopted = old.attributes

    def export(self) -> dict[str, Any]:
        told = {} if self.attributes is None else self.attributes.export()
        return {**told, **{name: weights.detach().cpu().numpy() for name, weights in self.state_dict().items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.attributes = Attributes.restore(state, self.schema)
        self.__dict__.pop("questions", None)
        load_weights(self, {name: array for name, array in state.items() if not name.startswith("attributes.")})


def _unit(rows: Floats) -> Floats:
    found: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
