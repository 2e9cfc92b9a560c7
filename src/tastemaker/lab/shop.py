"""Where the jobs of a search are done: one job in, one outcome out, in this process or in another.

A job is plain JSON, and so is its outcome, so that the process that decides and the process that trains share nothing
but a folder. That folder holds the training and valid parts alone: what does the training could not read the test part
if it tried.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from tastemaker.contracts import SystemInfo, find, info_of
from tastemaker.data import holdout
from tastemaker.lab.attempt import Goal, Outcome, attempt
from tastemaker.train import Bundle, Hardware, Ranking, fit
from tastemaker.types import Dataset, Split, TastemakerError, generator
from tastemaker.types.meter import metered

WARM_USERS, WARM_SECONDS = 24, 0.05  # of the first call of a system, which compiles what it needs


@dataclass(frozen=True)
class Job:
    """One thing to do.

    kind: "trial" fits and judges; "warm" does so on next to nothing, so that what is to be compiled is compiled;
        "final" fits on the whole training part and judges nothing
    system: its name, or module:Class
    seconds: what training by gradients may take; None: no limit
    users: of how many users it may see the events; None: of all
    run: a folder in which a training cut by time goes on
    keep: where the bundle goes, if its value is above `beats`
    epochs: of a final fit, how long each stage trains, as found before
    """

    kind: Literal["trial", "warm", "final"]
    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    users: int | None = None
    run: str | None = None
    keep: str | None = None
    beats: float | None = None
    epochs: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Workplace(Protocol):
    """Does jobs, one at a time."""

    def do(self, job: Job, most: float) -> Outcome:
        """Do a job; give up after `most` seconds, where that is possible."""
        ...

    def has(self, place: Path) -> bool:
        """Whether a bundle was kept at `place`."""
        ...

    def bundle(self, place: Path) -> Bundle: ...

    def move(self, old: Path, new: Path) -> None:
        """Put a kept bundle in the place of another."""
        ...

    def beside(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        """While the block runs, jobs that nobody waits for are done beside it, where that is possible."""
        ...

    @property
    def grace(self) -> float:
        """Seconds by which it is cheaper to wait for a late job than to give it up."""
        ...

    def close(self) -> None: ...


class Shop:
    """A training part, those who judge, and everything that can be done with them."""

    def __init__(
        self,
        split: Split,
        goal: Goal,
        *,
        seed: int = 0,
        hardware: Hardware | None = None,
        known: Mapping[str, SystemInfo] | None = None,
    ) -> None:
        self.split, self.goal, self.seed, self.hardware = split, goal, seed, hardware
        self.known = dict(known or {})
        self.inner = split if split.sizes["valid"] else holdout(split, seed=seed)
        self.stock = lru_cache(maxsize=2)(self._stock)  # the data of a round, and of the next

    def do(self, job: Job) -> tuple[Bundle | None, Outcome]:
        """Do a job; errors become an outcome."""
        info = self.known.get(job.system) or resolve(job.system)
        if job.kind == "final":
            return self._final(info, job)
        warm = job.kind == "warm"
        bundle, outcome = attempt(
            info,
            self.stock(WARM_USERS if warm else job.users),
            job.settings,
            self.goal,
            seed=self.seed,
            seconds=WARM_SECONDS if warm else job.seconds,
            run=None if job.run is None or warm else Path(job.run),
            hardware=self.hardware,
            histories=job.keep is not None,
        )
        if job.run is not None and not outcome.unfinished:
            shutil.rmtree(job.run, ignore_errors=True)
        return bundle, outcome

    def _final(self, info: SystemInfo, job: Job) -> tuple[Bundle | None, Outcome]:
        bundle: Bundle | None = None
        with metered() as cost:
            try:
                epochs = {int(stage): n for stage, n in (job.epochs or {}).items()}
                how: dict[str, Any] = {"seed": self.seed, "seconds": job.seconds, "hardware": self.hardware}
                if not self.split.sizes["valid"]:  # nobody judges here: as many epochs as were found best
                    how["epochs"] = epochs
                data = self.split if self.split.sizes["valid"] else self.split.train
                bundle = fit(info.cls, data, job.settings, **how)
                found: dict[str, Any] = {"state": "done", "fit_seconds": bundle.about["fit"]["seconds"]}
            except TastemakerError as error:
                found = {"state": "failed", "reason": error.message}
            except Exception as error:  # a fault of one system must not end a search over many
                found = {"state": "failed", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        return bundle, Outcome(**found, seconds=cost.seconds, peak_mb=cost.peak_mb)

    def _stock(self, users: int | None) -> Ranking:
        """What may be learnt from and who judges, for the events of so many users."""
        judge = Ranking.of(self.inner, self.seed)
        data = judge.train
        if users is None or users >= data.n_users:
            return judge
        picked = sample(data, users, self.seed)
        learnt = data.with_events(data.events.filter(pl.Series(picked[data.events["user"].to_numpy()])))
        asker = judge.cases.requests.users
        if asker is None:
            return Ranking(judge.cases, learnt)
        mine = np.flatnonzero((asker < 0) | picked[np.maximum(asker, 0)])
        return Ranking(judge.cases.take(mine if len(mine) else np.arange(min(len(asker), 1))), learnt)


def sample(data: Dataset, users: int, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which users are among the first `users` of a random order: more of them never leaves one out. [U] bool."""
    there = np.zeros(data.n_users, dtype=np.bool_)
    there[generator(seed, "users of a round").permutation(data.n_users)[:users]] = True
    return there


def untested(split: Split) -> Split:
    """The split without the events of its test part, which nobody can read there."""
    kept = split.part != 2
    return replace(
        split,
        data=split.data.with_events(split.data.events.filter(pl.Series(kept))),
        part=split.part[kept],
        case=None if split.case is None else split.case[kept],
        asked=None if split.asked is None else split.asked[kept],
    )


def spelled(info: SystemInfo) -> str:
    """How a job names a system: as it is registered, or where its class stands."""
    try:
        if find(info.name).cls is info.cls:
            return info.name
    except TastemakerError:
        pass  # declared by whoever calls, and registered nowhere
    return f"{info.cls.__module__}:{info.cls.__qualname__}"


def resolve(name: str) -> SystemInfo:
    """The system that `spelled` named."""
    module, _, path = name.partition(":")
    if not path:
        return find(name)
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return info_of(value)


def importable(info: SystemInfo) -> bool:
    """Whether another process can find the system."""
    name = spelled(info)
    module, _, path = name.partition(":")
    if not path:
        return True
    return module != "__main__" and "<locals>" not in path and importlib.util.find_spec(module) is not None


class Here:
    """Jobs done in this process: nothing can be given up half-way, and memory has no limit."""

    grace = 0.0

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.kept: dict[Path, Bundle] = {}

    def do(self, job: Job, most: float) -> Outcome:
        seconds = job.seconds if job.seconds is None else min(job.seconds, most)
        bundle, outcome = self.shop.do(replace(job, seconds=seconds))
        if worth_keeping(job, bundle, outcome):
            assert job.keep is not None and bundle is not None
            self.kept[Path(job.keep)] = bundle
        return outcome

    def has(self, place: Path) -> bool:
        return place in self.kept

    def bundle(self, place: Path) -> Bundle:
        return self.kept[place]

    def move(self, old: Path, new: Path) -> None:
        self.kept[new] = self.kept.pop(old)

    def beside(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        self.kept.clear()


def worth_keeping(job: Job, bundle: Bundle | None, outcome: Outcome) -> bool:
    """Whether the bundle of a job is to be kept."""
    if job.keep is None or bundle is None or outcome.state == "failed":
        return False
    return job.kind == "final" or job.beats is None or (outcome.value is not None and outcome.value > job.beats)
