"""Bandits of linear arms: contexts, an arm an item, and what feedback adds to them.

    self.bandit = yield from bandit(self.config, data, interaction_matrix(data))

A `Bandit` is one snapshot, and never changes: `learnt` and `extended` give others.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Stage
from tastemaker.nn.arms import Arms, ArmSums
from tastemaker.nn.clusters import Clusters, spherical_kmeans
from tastemaker.nn.contexts import Contexts, Of
from tastemaker.nn.outcomes import Counted, as_served, summed, trials
from tastemaker.nn.space import Space, space
from tastemaker.types import BundleError, ConfigError, Dataset, Feedback, Requests, Schema, State, SystemRef

Floats = NDArray[np.float64]
S = TypeVar("S", bound="HasBandit")


class Settings(Protocol):
    """Settings that bandits of linear arms share."""

    @property
    def context(self) -> Of: ...
    @property
    def columns(self) -> str: ...
    @property
    def vectors(self) -> SystemRef | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_clusters(self) -> int: ...
    @property
    def nearest(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def reg(self) -> float: ...
    @property
    def prior(self) -> float: ...
    @property
    def whole(self) -> float: ...
    @property
    def counted(self) -> Counted: ...
    @property
    def past(self) -> bool: ...


class HasBandit(Protocol):
    """A system that answers and learns by a bandit."""

    bandit: Bandit
    config: Any
    schema: Schema

    def __init__(self, config: Any, schema: Schema) -> None: ...


@dataclass(frozen=True, eq=False)
class Bandit:
    """Contexts and arms, as they stand."""

    settings: Settings
    contexts: Contexts
    arms: Arms

    @property
    def n_items(self) -> int:
        return len(self.arms.rewards)

    def rows(self, requests: Requests) -> Floats:
        """Contexts of the requests [B, D]."""
        return self.contexts.rows(requests)

    def update(self, feedback: Feedback) -> ArmSums:
        """What feedback adds to the arms; a list's context is that of its trace, as served, where it has one."""
        own = self.settings
        seen = trials(feedback, self.n_items, whole=own.whole, counted=own.counted)
        served = as_served(feedback, "context")
        rows = self.rows(feedback.requests) if served is None else np.asarray(served[0], dtype=np.float64)
        return ArmSums.of(seen.items, rows[seen.rows], seen.rewards, seen.counts)

    def merge(self, left: ArmSums, right: ArmSums) -> ArmSums:
        return left.merged(right)

    def learnt(self, sums: ArmSums) -> Bandit:
        """With these sums added."""
        return replace(self, arms=self.arms.learnt(sums))

    def extended(self, users: Any, items: Any) -> Bandit:
        """With newcomers: users and items stand where their column "vector" says; arms of items have seen nothing."""
        grown = self.contexts.extended(users, items)
        n, width = self.n_items + (0 if items is None else len(items)), self.arms.rewards.shape[1]
        fresh = Arms.fresh(_prior(self.settings, grown, n, width)[self.n_items :], self.settings.reg)
        return replace(self, contexts=grown, arms=self.arms.joined(fresh))

    def export(self) -> State:
        return {**self.contexts.export(), **self.arms.export()}


def bandit(own: Settings, data: Dataset, matrix: sp.csr_array) -> Generator[Stage, Any, Bandit]:
    """The part of a program that makes a bandit: one that has seen nothing yet, or with `past` what the data tells.

    matrix: who chose what, from which vectors come where no system gives them
    """
    fresh = yield from _fresh(own, data, matrix)
    if not own.past:
        return fresh
    return fresh.learnt(ArmSums(*(yield Fit(summed, fresh, data, fresh.contexts.columns))))


def with_bandit(system: S, learnt: Bandit, schema: Schema | None = None) -> S:
    """A system beside this one that is the same but for its bandit, and perhaps knows more users and items."""
    other = type(system)(system.config, schema or system.schema)
    other.bandit = learnt
    return other


def _fresh(own: Settings, data: Dataset, matrix: sp.csr_array) -> Generator[Stage, Any, Bandit]:
    """A bandit that has seen nothing."""
    columns = named(own.columns)
    if own.context == "columns":
        width = sum(data.schema.column("events", name).width for name in columns)
        if not width:
            raise ConfigError("contexts by columns need their names: columns")
        return Bandit(own, Contexts(columns), Arms.fresh(np.zeros((data.n_items, width)), own.reg))
    known = Contexts(space=(yield from space(own.vectors, own.dim, data, matrix)))
    if own.context == "clusters":
        assert known.space is not None
        centres = yield Fit(spherical_kmeans, known.space.users, own.n_clusters, rng="clusters")
        known = replace(known, clusters=Clusters(centres, own.nearest, own.temperature))
    return Bandit(own, known, Arms.fresh(own.prior * known.similarity(), own.reg))


def restored(own: Settings, schema: Schema, state: State) -> Bandit:
    """The bandit that `Bandit.export` gave. Raises BundleError where it does not fit."""
    arms = Arms.of(state, schema.n_items)
    width = arms.rewards.shape[1]
    if own.context == "columns":
        return Bandit(own, Contexts(named(own.columns)), arms)
    where = Space.of(state, schema.n_users, schema.n_items)
    clusters = None
    expected = where.items.shape[1] + 1
    if own.context == "clusters":
        clusters = Clusters.of(state, where.items.shape[1], own.nearest, own.temperature)
        expected = len(clusters.centres)
    if width != expected:
        raise BundleError(f"arms read contexts of {expected} numbers, the bundle's read {width}")
    return Bandit(own, Contexts((), where, clusters), arms)


def named(columns: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in columns.split(",") if name.strip())


def _prior(own: Settings, known: Contexts, n_items: int, width: int) -> Floats:
    """What arms expect at first [I, D]."""
    return np.zeros((n_items, width)) if known.space is None else own.prior * known.similarity()
