"""Users with latent tastes: what each item is worth to each user is known, so regret can be told exactly.

A user x and an item v are vectors; the mean reward of showing v is

    linear     (1 + <x, v>) / 2, with normal noise            x, v of length 1, so means lie in [0, 1]
    logistic   sigmoid(slope <x, v> + level), a draw of 0 or 1

and slot j of a list is looked at with probability patience^j. Tastes drift: after t turns x has turned by `drift` * t
towards a direction of its own at right angles. Items come: item i can be shown from turn `arrivals[i]` on. What an
item brings in a session and turn is fixed by the session's seed, whatever else is shown: policies that are compared
with the same seeds meet the same luck.

Ref: the linear model: Li, Chu, Langford, Schapire, arXiv:1003.0146; the logistic one: Filippi, Cappe, Garivier,
Szepesvari, NeurIPS 2010; examination by slot: Craswell, Zoeter, Taylor, Ramsey, WSDM 2008 (their baseline).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from tastemaker.types import (
    IMPRESSION,
    Actions,
    Columns,
    Dataset,
    Feedback,
    ItemFilter,
    Jagged,
    Requests,
    Slates,
    UsageError,
    generator,
    mix,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LatentState:
    """Where sessions stand.

    Shapes: seeds [B] uint64; users [B] int32, who asks now; turn: how many turns have passed
    """

    seeds: NDArray[np.uint64]
    users: NDArray[np.int32]
    turn: int


@dataclass(frozen=True, eq=False)
class LatentUsers:
    """An environment of latent-factor users.

    Shapes:
        tastes: [U, D] of length 1; towards: [U, D] of length 1, at right angles to tastes: where they drift
        items: [I, D] of length 1
        arrivals: [I] turn from which an item can be shown, None: all from the first
        histories: U rows of event columns that come with each request, None: none

    horizon: turns of a session; stay: one user a session, else another one every turn
    tells: whether requests carry the taste as the context column "taste" [B, D + 1], 1 being its last entry
    """

    tastes: Floats
    items: Floats
    towards: Floats | None = None
    reward: Literal["linear", "logistic"] = "logistic"
    noise: float = 0.1
    slope: float = 4.0
    level: float = -2.0
    patience: float = 1.0
    drift: float = 0.0
    arrivals: NDArray[np.int64] | None = None
    horizon: int = 100
    stay: bool = False
    tells: bool = False
    histories: Jagged[Columns] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tastes.ndim != 2 or self.items.ndim != 2 or self.tastes.shape[1] != self.items.shape[1]:
            raise UsageError(f"tastes and items share a width, got {self.tastes.shape} and {self.items.shape}")
        if self.drift and (self.towards is None or self.towards.shape != self.tastes.shape):
            raise UsageError("tastes that drift need a direction each: towards, shaped as tastes")
        if self.arrivals is not None and (len(self.arrivals) != self.n_items or not (self.arrivals <= 0).any()):
            raise UsageError("each item has a turn of arrival, and one is there from the first")
        if self.horizon < 1 or not 0 < self.patience <= 1:
            raise UsageError("a session has at least one turn, and patience lies above 0 and at most at 1")

    @classmethod
    def drawn(cls, n_users: int, n_items: int, dim: int = 8, *, seed: int = 0, fresh: float = 0.0, **more: Any) -> Any:
        """Tastes and items in directions drawn at random; a share of `fresh` items arrives in the first half."""
        rng = generator(seed, "latent users")
        tastes, items = _unit(rng.standard_normal((n_users, dim))), _unit(rng.standard_normal((n_items, dim)))
        aside = rng.standard_normal((n_users, dim))
        towards = _unit(aside - (aside * tastes).sum(axis=1, keepdims=True) * tastes)
        if fresh > 0:
            late = rng.permutation(n_items)[: round(fresh * n_items)]
            turns = np.zeros(n_items, dtype=np.int64)
            turns[late] = rng.integers(1, max(2, more.get("horizon", cls.horizon) // 2), len(late))
            more["arrivals"] = turns
        return cls(tastes, items, towards, **more)

    @property
    def n_users(self) -> int:
        return len(self.tastes)

    @property
    def n_items(self) -> int:
        return len(self.items)

    @cached_property
    def identity(self) -> str:
        """A hash of all that makes this world what it is."""
        total = hashlib.blake2b(digest_size=16)
        for name in ("tastes", "items", "towards", "arrivals"):
            if (array := getattr(self, name)) is not None:
                total.update(np.ascontiguousarray(array).tobytes())
        if self.histories is not None:
            total.update(np.ascontiguousarray(self.histories.values["item"]).tobytes())
        numbers = (self.reward, self.noise, self.slope, self.level, self.patience, self.drift, self.horizon, self.stay)
        total.update(repr((*numbers, self.tells)).encode())
        return f"latent users {total.hexdigest()}"

    # -- the environment

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, LatentState]:
        seeds = np.asarray(seeds, dtype=np.uint64)
        state = LatentState(seeds, self._who(seeds, 0), 0)
        return self._requests(state), state

    def step(self, state: LatentState, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], LatentState]:
        """Each item shown is an event: "rating" with its reward, or "click" with 1 and "impression" with 0."""
        slates = self._checked(state, actions)
        rewards = self._draw(state, slates.items)
        shown = slates.items >= 0
        rows, slots = np.nonzero(shown)
        values = rewards[shown]
        kinds = np.full(len(values), "rating", dtype=object)
        if self.reward == "logistic":
            kinds[:] = np.where(values > 0, "click", IMPRESSION)
        columns = Columns(
            item=slates.items[shown],
            position=slots.astype(np.int32),
            kind=kinds,
            value=values.astype(np.float32),
            time=np.full(len(values), state.turn, dtype=np.int64),
        )
        n, last = len(state.seeds), state.turn + 1 >= self.horizon
        done = np.full(n, last)
        feedback = Feedback(
            self._requests(state),
            events=Jagged.from_rows(rows, columns, n),
            reward=rewards.sum(axis=1).astype(np.float32),
            done=done,
            slates=slates,
        )
        seeds = state.seeds[:0] if last else state.seeds
        users = state.users[: len(seeds)] if self.stay else self._who(seeds, state.turn + 1)
        after = LatentState(seeds, users, state.turn + 1)
        return feedback, self._requests(after), done, after

    # -- the truth

    def means(self, state: LatentState) -> Floats:
        """Mean reward of every item for those who ask now [B, I]; -inf where it has not arrived."""
        found = self._mean(self._tastes(state.users, state.turn) @ self.items.T)
        return np.where(self._arrived(state.turn), found, -np.inf)

    def expected(self, state: LatentState, slates: Slates) -> Floats:
        """Mean reward of lists [B]."""
        tastes = self._tastes(state.users, state.turn)
        means = self._mean(np.einsum("bd,bkd->bk", tastes, self.items[np.maximum(slates.items, 0)]))
        found: Floats = (means * self._looked(slates.k) * (slates.items >= 0)).sum(axis=1)
        return found

    def best(self, state: LatentState, k: int) -> Floats:
        """Mean reward of the best lists of at most k items [B]."""
        means = np.maximum(self.means(state), 0.0)
        k = min(k, self.n_items)
        top = -np.sort(-np.partition(means, self.n_items - k, axis=1)[:, self.n_items - k :], axis=1)
        found: Floats = (top * self._looked(k)).sum(axis=1)
        return found

    def log(self, n: int, *, seed: int = 0, name: str = "latent users") -> Dataset:
        """n trials with items drawn uniformly from those of the first turn: impressions with propensities, and clicks.

        What users are shown here they are shown at the first turn, before tastes drift. Users and items have the same
        numbers as in this world.
        """
        rng = generator(seed, "log of latent users")
        users = np.sort(rng.integers(0, self.n_users, n)).astype(np.int32)
        there = np.flatnonzero(self._arrived(0))
        items = there[rng.integers(0, len(there), n)].astype(np.int32)
        state = LatentState(rng.integers(0, 2**63, n).astype(np.uint64), users, 0)
        values = self._draw(state, items[:, None])[:, 0]
        known = values != 0
        columns: dict[str, Any] = {"user": users, "item": items, "kind": np.full(n, IMPRESSION), "slate": np.arange(n)}
        shown = pl.DataFrame(columns).with_columns(
            value=pl.lit(None, pl.Float32), propensity=pl.lit(1 / len(there), pl.Float32)
        )
        said = pl.DataFrame({key: column[known] for key, column in columns.items()}).with_columns(
            kind=pl.lit("click" if self.reward == "logistic" else "rating"),
            value=pl.Series(values[known].astype(np.float32)),
            propensity=pl.lit(None, pl.Float32),
        )
        events = pl.concat([shown, said])
        if self.tells:
            tastes = self._context(users, 0)[np.concatenate([np.arange(n), np.flatnonzero(known)])]
            events = events.with_columns(taste=pl.Series(tastes.tolist(), dtype=pl.List(pl.Float64)))
        people, things = (
            pl.DataFrame({key: np.arange(n)}) for key, n in (("user", self.n_users), ("item", self.n_items))
        )
        kinds: Any = {"events": {"taste": "vector"}} if self.tells else {}
        return Dataset(name, people, things, events, kinds=kinds)

    def after(self, data: Dataset) -> LatentUsers:
        """This world, whose users come with what they chose in `data`."""
        return replace(self, histories=data.histories())

    # -- parts

    def _who(self, seeds: NDArray[np.uint64], turn: int) -> NDArray[np.int32]:
        return (mix(seeds ^ mix(turn), 1) % np.uint64(self.n_users)).astype(np.int32)

    def _tastes(self, users: NDArray[np.int32], turn: int) -> Floats:
        if not self.drift:
            return self.tastes[users]
        assert self.towards is not None
        angle = self.drift * turn
        turned: Floats = np.cos(angle) * self.tastes[users] + np.sin(angle) * self.towards[users]
        return turned

    def _context(self, users: NDArray[np.int32], turn: int) -> Floats:
        """Tastes with a 1, at length 1: the linear reward is a product of this with (v, 1) / sqrt(2)."""
        tastes = self._tastes(users, turn)
        found: Floats = np.column_stack([tastes, np.ones(len(tastes))]) / np.sqrt(2)
        return found

    def _mean(self, products: Floats) -> Floats:
        if self.reward == "linear":
            return (1 + products) / 2
        found: Floats = special.expit(self.slope * products + self.level)
        return found

    def _arrived(self, turn: int) -> NDArray[np.bool_]:
        return np.ones(self.n_items, dtype=np.bool_) if self.arrivals is None else self.arrivals <= turn

    def _looked(self, k: int) -> Floats:
        return self.patience ** np.arange(k, dtype=np.float64)

    def _draw(self, state: LatentState, items: NDArray[np.int32]) -> Floats:
        """Rewards [B, K] of items [B, K]; 0 where there is none."""
        products = np.einsum("bd,bkd->bk", self._tastes(state.users, state.turn), self.items[np.maximum(items, 0)])
        luck = mix(mix(state.seeds ^ mix(state.turn), 2)[:, None] ^ mix(items), 3)
        chance = (luck.astype(np.float64) + 0.5) * 2.0**-64
        looked = np.broadcast_to(self._looked(items.shape[1]), items.shape)
        if self.reward == "logistic":
            return ((chance < self._mean(products) * looked) & (items >= 0)).astype(np.float64)
        seen = (mix(luck, 4).astype(np.float64) + 0.5) * 2.0**-64 < looked
        noisy = self._mean(products) + self.noise * special.ndtri(np.clip(chance, 1e-12, 1 - 1e-12))
        return np.where(seen & (items >= 0), noisy, 0.0)

    def _checked(self, state: LatentState, actions: Actions) -> Slates:
        slates = actions.slates
        if slates is None or len(slates) != len(state.seeds):
            raise UsageError(f"{len(state.seeds)} users ask, and want a list each")
        shown = slates.items[slates.items >= 0]
        if len(shown) and (shown.max() >= self.n_items or not self._arrived(state.turn)[shown].all()):
            raise UsageError("a list holds an item that this world does not have yet")
        return slates

    def _requests(self, state: LatentState) -> Requests:
        n = len(state.seeds)
        arrived = self._arrived(state.turn)
        return Requests(
            n,
            users=state.users,
            history=None if self.histories is None else self.histories.take(state.users),
            context=Columns(taste=self._context(state.users, state.turn)) if self.tells else None,
            filter=None if arrived.all() else ItemFilter(arrived[None], np.zeros(n, dtype=np.int32)),
            now=np.full(n, state.turn, dtype=np.int64),
            seeds=mix(state.seeds ^ mix(state.turn), 5),
        )


def _unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
