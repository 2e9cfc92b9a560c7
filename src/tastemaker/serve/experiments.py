"""Experiments on live traffic: what is compared, on whom, and which arm a request belongs to.

Assignment is a function, not a table: a keyed hash of the unit's id decides, so every process answers alike, nothing is
stored, and a unit stays where it is. Two numbers are taken of it. One says whether the unit takes part, by `traffic`;
the other which arm it gets. So traffic can grow, and whoever was in stays in, in the same arm. The key is the
experiment's salt: another salt deals the units anew, independently of all other experiments.

A surface is what requests ask for: the name that the control arm serves. At most one experiment at a time is in force
on a surface. A second one would change what the first one's control is; with one a surface there is nothing to rank,
and no unit is in two places. Experiments on different surfaces run side by side, and do not see each other.

While it runs, only `traffic` of an experiment may change. Shares may not: lists of before and after would be mixed in
other proportions in each arm, and a good day would look like a good system (Simpson's paradox).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tastemaker.types import ConfigError, NotFound, UsageError, nearest, replace_file

Kind = Literal["ab", "interleave", "shadow"]
Unit = Literal["user", "session", "request"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Bytes = NDArray[np.uint8]

MIXED = "mixed"
"""What the log calls the arm of an interleaved list; no arm may bear this name."""
MOST_ARMS = 5
DAY = 86_400.0


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(_Strict):
    """What is measured: feedback of one kind, per list or per user.

    of: "count" different items that got it; "any": whether one did; "value": the sum of the events' values; "trace": a
        number of this name that the list's trace carries, as "latency_ms"
    direction: which way is better
    detect: the relative change that one would not want to miss, in interleaving the distance of the share of wins from
        one half; intervals are at their best when half as wide

    Per list: the outcome of all lists over their number. Per user: all feedback of this kind that a user gives within
    the experiment's horizon, whether or not it names a list, averaged over users.
    """

    event: str = Field(default="click", min_length=1, max_length=64, description="Kind of feedback.")
    per: Literal["list", "user"] = "list"
    of: Literal["count", "any", "value", "trace"] = "count"
    direction: Literal["up", "down"] = "up"
    detect: float = Field(default=0.05, gt=0, le=10, description="Relative change not to be missed.")

    @model_validator(mode="after")
    def _has_its_source(self) -> Self:
        if self.of == "trace" and (self.per == "user" or not re.fullmatch(r"[A-Za-z0-9_]+", self.event)):
            raise ValueError(
                f"a metric of the trace is per list and named in letters, digits and _, got {self.event!r}"
            )
        return self

    @property
    def name(self) -> str:
        """As it is shown: "clicks per list" is click/list."""
        return f"{self.event}{'' if self.of == 'count' else '.' + self.of}/{self.per}"


class Guardrail(Metric):
    """A metric that must not get worse by more than a tolerated share."""

    tolerate: float = Field(default=0.02, ge=0, lt=1, description="Relative loss that is tolerated.")


class Arm(_Strict):
    """One side: the name of a bundle or pipeline, and its share of the units (A/B only)."""

    serve: str = Field(min_length=1, max_length=200)
    share: float | None = Field(default=None, gt=0, lt=1)


class Experiment(_Strict):
    """A comparison on live traffic.

    kind: "ab": a unit gets one arm; "interleave": every list is dealt from all arms; "shadow": the control is shown,
        the other arms answer unseen
    unit: what is dealt, and counts as one independent observation
    window: seconds after a list in which its feedback counts; a list counts when they are over
    horizon: for metrics per user, seconds from the user's first list in which everything counts
    most_lists: of one unit that count; beyond it is a robot
    started, stopped: microseconds since 1970
    """

    name: Name
    kind: Kind = "ab"
    arms: dict[Name, Arm]
    control: str
    unit: Unit = "user"
    salt: str = Field(default="", max_length=200, description="Key of the assignment; default: the name.")
    traffic: float = Field(default=1.0, ge=0, le=1, description="Share of units that take part.")
    primary: Metric = Metric()
    guardrails: tuple[Guardrail, ...] = ()
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    window: float = Field(default=3600.0, gt=0)
    horizon: float = Field(default=7 * DAY, gt=0)
    most_lists: int = Field(default=200, ge=1)
    state: Literal["draft", "running", "stopped"] = "draft"
    started: int | None = None
    stopped: int | None = None

    @field_validator("arms", mode="after")
    @classmethod
    def _in_order(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        """By name: the assignment must not depend on the order in which a file lists them."""
        return dict(sorted(arms.items()))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not 2 <= len(self.arms) <= MOST_ARMS:
            raise ValueError(f"an experiment has 2 to {MOST_ARMS} arms, got {len(self.arms)}")
        if self.control not in self.arms:
            raise ValueError(f"the control {self.control!r} is not among the arms {', '.join(self.arms)}")
        if MIXED in self.arms:
            raise ValueError(f"{MIXED!r} is what an interleaved list is called; name the arm otherwise")
        shares = [arm.share for arm in self.arms.values()]
        if self.kind != "ab" and any(share is not None for share in shares):
            raise ValueError(f"shares are for kind 'ab'; in kind {self.kind!r} every arm answers every request")
        if self.kind == "ab" and None in shares and any(share is not None for share in shares):
            raise ValueError("give every arm a share, or none for equal shares")
        if (total := sum(share or 0.0 for share in shares)) and abs(total - 1) > 1e-9:
            raise ValueError(f"the arms' shares add up to 1, got {total:.6g}")
        if self.kind != "ab" and self.guardrails:
            raise ValueError("guardrails need kind 'ab': where arms share a list, no outcome belongs to one of them")
        if self.kind == "interleave" and (self.primary.per == "user" or self.primary.of in ("any", "trace")):
            raise ValueError("interleaving credits feedback on items: its metric is a count or value per list")
        if self.kind == "interleave" and self.primary.detect >= 0.5:
            raise ValueError(f"a share of wins is at most 0.5 from one half, got detect = {self.primary.detect}")
        if self.unit != "user" and any(m.per == "user" for m in (self.primary, *self.guardrails)):
            raise ValueError(f"a metric per user needs the unit 'user', got {self.unit!r}")
        names = [m.name for m in (self.primary, *self.guardrails)]
        if len(set(names)) < len(names):
            raise ValueError(f"each metric is named once, got {', '.join(names)}")
        times = {"draft": (False, False), "running": (True, False), "stopped": (True, True)}[self.state]
        if (self.started is not None, self.stopped is not None) != times:
            raise ValueError(f"a {self.state} experiment has started={self.started} and stopped={self.stopped}")
        if self.started is not None and self.stopped is not None and self.stopped < self.started:
            raise ValueError("an experiment cannot stop before it starts")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms, sorted: arm numbers count along them, the control's too."""
        return tuple(self.arms)

    @property
    def others(self) -> tuple[str, ...]:
        """All arms but the control."""
        return tuple(name for name in self.arms if name != self.control)

    @property
    def surface(self) -> str:
        """What requests ask for that this experiment answers."""
        return self.arms[self.control].serve

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of the units, for each arm; equal where none are given."""
        return np.array([arm.share or 1 / len(self.arms) for arm in self.arms.values()])

    @property
    def key(self) -> int:
        """64 bits of the salt: another key deals the units anew."""
        return _key(self.salt or self.name)

    def start(self, now: int) -> Experiment:
        """The experiment in force from `now`, microseconds since 1970."""
        if self.state != "draft":
            raise UsageError(
                f"experiment {self.name} is {self.state}; only a draft can be started",
                hint="copy it under another name: units that saw an arm before would bias a second run",
            )
        return self._changed(state="running", started=now)

    def stop(self, now: int) -> Experiment:
        """The experiment ended; its results stay."""
        if self.state != "running":
            raise UsageError(f"experiment {self.name} is {self.state}; only a running one can be stopped")
        return self._changed(state="stopped", stopped=now)

    def with_traffic(self, traffic: float) -> Experiment:
        """The same with another share of units; whoever was in stays in as it grows."""
        return self._changed(traffic=traffic)

    def _changed(self, **changes: Any) -> Experiment:
        return read_experiment({**self.model_dump(), **changes})


@lru_cache(maxsize=1024)
def _key(salt: str) -> int:
    return int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little")


def read_experiment(given: Mapping[str, Any]) -> Experiment:
    """An experiment from plain values, as JSON gives them.

    Raises:
        ConfigError: it does not fit together; the message names the field.
    """
    try:
        return Experiment.model_validate(dict(given))
    except ValidationError as error:
        first = min(
            error.errors(), key=lambda one: one["type"] != "extra_forbidden"
        )  # a misspelt name explains the rest
        place = ".".join(str(part) for part in first["loc"])
        name = given.get("name")
        who = f"experiment {name}" if isinstance(name, str) and name else "experiment"
        what = first["msg"].removeprefix("Value error, ")
        hint = nearest(str(first["loc"][-1]), Experiment.model_fields) if first["type"] == "extra_forbidden" else None
        raise ConfigError(f"{who}{', ' + place if place else ''}: {what}", hint=hint) from error


# -- assignment


def assign(units: str | int | Sequence[Any] | NDArray[Any] | pl.Series, experiment: Experiment) -> NDArray[np.int8]:
    """The arm of each unit [B], a number along `experiment.names`; -1: takes no part, as an absent unit (None).

    The number 17 and the text "17" are the same unit.
    """
    takes_part, place = uniforms(units, experiment.key)
    edges = experiment.shares.cumsum()[:-1]
    arms: NDArray[np.int8] = edges.searchsorted(place, side="right").astype(np.int8)
    arms[takes_part >= experiment.traffic] = -1
    return arms


def uniforms(units: str | int | Sequence[Any] | NDArray[Any] | pl.Series, key: int) -> NDArray[np.float64]:
    """Two independent numbers in [0, 1) for each unit [2, B], the same in every process; 1.0 for an absent unit."""
    data, offsets, there = _utf8(units)
    drawn = np.empty((2, len(offsets) - 1))
    _draw(data, offsets, np.uint64(key), drawn)
    drawn[:, ~there] = 1.0
    return drawn


def _utf8(units: Any) -> tuple[Bytes, NDArray[np.int64], NDArray[np.bool_]]:
    """Text end to end, where each unit starts, and which are there."""
    if isinstance(units, str | int | np.integer):
        text = str(units).encode()
        return np.frombuffer(text, dtype=np.uint8), np.array([0, len(text)], dtype=np.int64), np.ones(1, np.bool_)
    try:
        series = units if isinstance(units, pl.Series) else pl.Series(units, dtype=None if len(units) else pl.String)
        if not (series.dtype == pl.String or series.dtype.is_integer() or series.dtype == pl.Null):
            raise UsageError(f"units are texts or whole numbers, got {series.dtype}")
        text_series = series.cast(pl.String)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"units are texts or whole numbers, all of one kind: {error}") from error
    there = text_series.is_not_null().to_numpy()
    lengths = text_series.str.len_bytes().fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    data = text_series.str.join("").item().encode() if len(text_series) else b""
    return np.frombuffer(data, dtype=np.uint8), offsets, there


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scramble(z: np.uint64) -> np.uint64:
    """The finaliser of splitmix64, as in `types.mix`."""
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(data: Bytes, offsets: NDArray[np.int64], key: np.uint64, out: NDArray[np.float64]) -> None:
    """A keyed 64-bit hash of each text, eight bytes at a time, and of it two numbers.

    The length goes in first, so that zeros at the end tell. Not a secret code: who knows the salt can choose an id.
    """
    for b in range(len(offsets) - 1):
        start, stop = offsets[b], offsets[b + 1]
        state = _scramble(key ^ np.uint64(stop - start))
        for first in range(start, stop, 8):
            word = np.uint64(0)
            for place in range(min(8, stop - first)):
                word |= np.uint64(data[first + place]) << np.uint64(8 * place)
            state = _scramble(state ^ word)
        for which in range(2):
            out[which, b] = (_scramble(state ^ np.uint64(which + 1)) >> np.uint64(11)) * 2.0**-53


# -- those in force


@dataclass(frozen=True)
class Assignment:
    """What an experiment makes of a request.

    arm: what the log is to call the list that is shown: an arm's name, or `MIXED`
    shown: arm -> what answers, whose lists make up the one that is shown: one arm, or in interleaving all, in the order
        in which team numbers count
    unseen: arm -> what answers beside it, for the log alone
    """

    experiment: str
    kind: Kind
    unit: str
    arm: str
    shown: Mapping[str, str]
    unseen: Mapping[str, str] = field(default_factory=dict)


class Experiments(Mapping[str, Experiment]):
    """Experiments by name, immutable: a change makes a new registry, which a server swaps in as a whole.

    Raises:
        ConfigError: a name is there twice, or two that run are on one surface.
    """

    def __init__(self, experiments: Iterable[Experiment] = ()) -> None:
        self._all: dict[str, Experiment] = {}
        surfaces: dict[str, Experiment] = {}
        for one in experiments:
            if one.name in self._all:
                raise ConfigError(f"there are two experiments of the name {one.name!r}")
            self._all[one.name] = one
            if one.state != "running":
                continue
            if (other := surfaces.get(one.surface)) is not None:
                raise ConfigError(
                    f"experiments {other.name} and {one.name} both run on {one.surface!r}; one at a time can",
                    hint=f"stop {other.name} first, or make one experiment of all arms",
                )
            surfaces[one.surface] = one
        self._surfaces = MappingProxyType(surfaces)

    def __getitem__(self, name: str) -> Experiment:
        try:
            return self._all[name]
        except KeyError:
            raise NotFound(f"no experiment is named {name!r}", hint=nearest(name, self._all)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @classmethod
    def read(cls, path: Path) -> Experiments:
        """From a JSON file, a list of experiments; none where there is no file."""
        if not path.is_file():
            return cls()
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise ConfigError(f"{path} holds a list of experiments, got {type(given).__name__}")
        return cls(map(read_experiment, given))

    def write(self, path: Path) -> None:
        """To a JSON file, whole or not at all."""
        text = json.dumps([one.model_dump(mode="json", exclude_none=True) for one in self.values()], indent=1) + "\n"
        with replace_file(path) as fresh:
            fresh.write_text(text, encoding="utf-8")

    @property
    def running(self) -> tuple[Experiment, ...]:
        return tuple(self._surfaces.values())

    @cached_property
    def serves(self) -> frozenset[str]:
        """Names of bundles and pipelines that those in force need."""
        return frozenset(arm.serve for one in self.running for arm in one.arms.values())

    def on(self, surface: str) -> Experiment | None:
        """The experiment in force on what a request asks for."""
        return self._surfaces.get(surface)

    def add(self, experiment: Experiment) -> Experiments:
        """With one more."""
        return Experiments([*self.values(), experiment])

    def replace(self, experiment: Experiment) -> Experiments:
        """With a new version of one that is there.

        Raises:
            UsageError: it runs or ran, and more would change than its traffic and state.
        """
        old = self[experiment.name]
        if old.state != "draft":
            free = {"traffic", "state", "started", "stopped"}
            before, after = old.model_dump(exclude=free), experiment.model_dump(exclude=free)
            changed = [name for name in before if before[name] != after[name]]
            if changed:
                raise UsageError(
                    f"experiment {old.name} is {old.state}: {', '.join(changed)} can no longer change",
                    hint="stop it, and start another one under another name",
                )
            back = experiment.state == "draft" or experiment.started != old.started
            if back or (old.state == "stopped" and experiment != old):
                raise UsageError(f"experiment {old.name} is {old.state} and cannot become {experiment.state} anew")
        return Experiments(experiment if name == old.name else one for name, one in self.items())

    def without(self, name: str) -> Experiments:
        """Without one that does not run."""
        if self[name].state == "running":
            raise UsageError(f"experiment {name} is running", hint="stop it first")
        return Experiments(one for one in self.values() if one.name != name)

    def decide(
        self, surface: str, *, user: str | int | None = None, session: str | None = None, request: str | None = None
    ) -> Assignment | None:
        """What answers a request for `surface`; None: no experiment has a say, serve what was asked for.

        None too where the request has no unit of the experiment's kind (an anonymous visitor, a user experiment).
        request: an id of the request, new each time.
        """
        one = self.on(surface)
        if one is None:
            return None
        unit = {"user": user, "session": session, "request": request}[one.unit]
        if unit is None or (number := int(assign(unit, one)[0])) < 0:
            return None
        return assignment(one, number, str(unit))


def assignment(experiment: Experiment, number: int, unit: str) -> Assignment:
    """What an experiment makes of a request of a unit that was dealt arm `number` by `assign`."""
    serve = {name: arm.serve for name, arm in experiment.arms.items()}
    unseen: dict[str, str] = {}
    if experiment.kind == "interleave":
        arm, shown = MIXED, serve
    elif experiment.kind == "shadow":
        arm, shown = experiment.control, {experiment.control: serve[experiment.control]}
        unseen = {name: serve[name] for name in experiment.others}
    else:
        arm = experiment.names[number]
        shown = {arm: serve[arm]}
    return Assignment(experiment.name, experiment.kind, unit, arm, shown, unseen)
