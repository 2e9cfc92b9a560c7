"""Environments by name, and what a system that is to act in one learns from before.

latent      users whose tastes are known, so that regret can be told; systems learn from lists shown at random
replay      a log of randomised trials, played again; systems learn from its first part, the rest is played
attributes  users who have an item in mind and answer questions about it; systems learn from a training part
talks       users who have an item in mind and talk about it, by rules or played by a language model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from tastemaker.contracts import ChatModel, Environment
from tastemaker.data import split
from tastemaker.lab.speakers import speaker
from tastemaker.simulate import AttributeUsers, LatentUsers, Logged, LoggedReplay, TalkingUsers
from tastemaker.types import Dataset, NotFound, Split, UsageError, generator, make_config, nearest, setting


@dataclass(frozen=True, eq=False)
class World:
    """An environment, and what systems learn from before they act in it."""

    environment: Environment[Any]
    past: Dataset | Split


@dataclass(frozen=True)
class Latent:
    """Users with latent tastes."""

    n_users: int = setting(200, "Users.", low=1)
    n_items: int = setting(100, "Items.", low=2)
    dim: int = setting(8, "Numbers of a taste.", low=1)
    reward: Literal["linear", "logistic"] = setting(
        "logistic", "Clicks, or ratings with noise.", choices=("linear", "logistic")
    )
    slope: float = setting(4.0, "How much a click depends on taste.")
    level: float = setting(-2.0, "How likely a click is, taste aside; log-odds.")
    noise: float = setting(0.1, "Deviation of a rating.", low=0.0)
    patience: float = setting(1.0, "Chance that a slot is looked at, over that of the slot before.", low=0.0, high=1.0)
    drift: float = setting(0.0, "How far tastes turn in a turn.", low=0.0)
    fresh: float = setting(0.0, "Share of the items that arrive in the first half of the turns.", low=0.0, high=1.0)
    trials: int = setting(2000, "Lists of one item, drawn at random, that systems learn from before.", low=1)
    tells: bool = setting(False, "Whether requests carry the taste, as the context column 'taste'.")

    def made(self, data: Dataset | None, turns: int, seed: int, chat: ChatModel | None = None) -> World:
        shape = {"reward": self.reward, "slope": self.slope, "level": self.level, "noise": self.noise}
        shape |= {"patience": self.patience, "drift": self.drift, "tells": self.tells}
        users: LatentUsers = LatentUsers.drawn(
            self.n_users, self.n_items, self.dim, seed=seed, fresh=self.fresh, horizon=turns, **shape
        )
        past = users.log(self.trials, seed=seed)
        return World(users.after(past), past)


@dataclass(frozen=True)
class Replay:
    """Logged trials, played again."""

    first: float = setting(0.3, "Share of the trials, the first, that systems learn from before.", low=0.0, high=0.99)

    def made(self, data: Dataset | None, turns: int, seed: int, chat: ChatModel | None = None) -> World:
        past, log = parted(_given(data), self.first, seed)
        return World(LoggedReplay(log), past)


@dataclass(frozen=True)
class Asked:
    """Users who answer questions."""

    split: str = setting("leave-one-out", "How the data is split: systems learn from the training part.")
    part: Literal["valid", "test"] = setting("test", "Whose choices are in mind.", choices=("valid", "test"))
    columns: tuple[str, ...] = setting((), "Columns of the items that are asked about; none: all that can be.")
    unseen: bool = setting(True, "Whether what a user chose before cannot be the item in mind, nor be shown.")
    people: tuple[float, float] = setting(
        (0.0, 1.0), "Which users there are: a stretch of [0, 1) in which a hash of the user lies."
    )

    def made(self, data: Dataset | None, turns: int, seed: int, chat: ChatModel | None = None) -> World:
        parts = split(_given(data), self.split, seed=seed)
        return World(self.on(parts, turns), parts)

    def on(self, parts: Split, turns: int, chat: ChatModel | None = None) -> AttributeUsers:
        """Over a split that is made already."""
        how: dict[str, Any] = {"columns": self.columns, "unseen": self.unseen, "people": self.people}
        return AttributeUsers.of(parts, self.part, horizon=turns, **how)


@dataclass(frozen=True)
class Talking:
    """Users who talk."""

    split: str = setting("leave-one-out", "How the data is split: systems learn from the training part.")
    part: Literal["valid", "test"] = setting("test", "Whose choices are in mind.", choices=("valid", "test"))
    title: str = setting("title", "Column of the items' titles.")
    noun: str = setting("film", "What an item is called, where people speak by rules.")
    played: bool = setting(False, "Whether a language model plays the people; else they speak by rules.")
    unseen: bool = setting(True, "Whether what a user chose before cannot be shown.")

    def made(self, data: Dataset | None, turns: int, seed: int, chat: ChatModel | None = None) -> World:
        parts = split(_given(data), self.split, seed=seed)
        return World(self.on(parts, turns, chat), parts)

    def on(self, parts: Split, turns: int, chat: ChatModel | None = None) -> TalkingUsers:
        """Over a split that is made already."""
        if self.played and chat is None:
            raise UsageError(
                "a language model plays these people, and none is given",
                hint="--chat-url http://127.0.0.1:11434/v1 --chat-model NAME, or played=false",
            )
        voice = speaker(parts.data.items, chat=chat if self.played else None, title=self.title, noun=self.noun)
        return TalkingUsers.of(parts, voice, self.part, horizon=turns, unseen=self.unseen)


ENVIRONMENTS: Mapping[str, type[Any]] = {"latent": Latent, "replay": Replay, "attributes": Asked, "talks": Talking}


def world(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    data: Dataset | None = None,
    turns: int = 100,
    seed: int = 0,
    chat: ChatModel | None = None,
) -> World:
    """The environment of this name.

    Args:
        settings: those of `ENVIRONMENTS[name]`.
        data: what it is made of, where it is made of data.
        turns: how long a session may be.
        seed: of what is drawn.
        chat: the language model that plays people, where one does.

    Raises:
        NotFound: there is none of this name.
        UsageError: it needs data or a language model, and none is given.
    """
    if name not in ENVIRONMENTS:
        raise NotFound(f"there is no environment {name!r}", hint=nearest(name, ENVIRONMENTS))
    kind = make_config(ENVIRONMENTS[name], settings, of=f"the environment {name}")
    make: Callable[..., World] = kind.made
    return make(data, turns, seed, chat)


def parted(data: Dataset, first: float, seed: int = 0) -> tuple[Dataset, Logged]:
    """The first trials of a log with what came of them, for systems to learn from, and the other trials.

    first: share of the trials; by time, or where the data has no times, drawn at random. What came of a trial stays
        with it by its slate; where there are no slates, by its time.
    """
    events = data.events.with_row_index("_row")
    if "propensity" not in events.columns or not first:
        return data.with_events(data.events.head(0)), Logged.of(data)
    trials = events.filter(pl.col("propensity").is_not_null() & pl.col("item").is_not_null())
    if data.has_time:
        order = trials["time"].arg_sort().to_numpy()
    else:
        order = generator(seed, "first trials").permutation(trials.height)
    early = trials[order[: round(first * trials.height)]]
    before = pl.col("_row").is_in(early["_row"].implode())
    if "slate" in events.columns:
        before |= pl.col("slate").is_in(early["slate"].drop_nulls().implode())
    elif data.has_time and early.height:
        before |= pl.col("propensity").is_null() & (pl.col("time") <= early["time"].max())
    before = before.fill_null(False)
    parts = [events.filter(one).drop("_row") for one in (before, ~before)]
    return data.with_events(parts[0]), Logged.of(data.with_events(parts[1]))


def _given(data: Dataset | None) -> Dataset:
    if data is None:
        raise UsageError("this environment is made of data, and none is named", hint="--data DATA")
    return data
