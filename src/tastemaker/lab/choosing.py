"""Choosing: every system that can learn from the data races within a budget of time and memory, and one is chosen.

Validation data chooses, the test part judges: it is read once, after the race, to say how good the choice is, what
cannot be told from it, and what cheaper choices give up. `tastemaker.lab.halving` is the race; `elsewhere` says why it
trains in a process of its own; `finale` is the end.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tastemaker.contracts import SystemInfo
from tastemaker.data import split as make_split
from tastemaker.evaluate import compare
from tastemaker.lab.amounts import megabytes
from tastemaker.lab.amounts import seconds as as_seconds
from tastemaker.lab.attempt import Goal, Outcome
from tastemaker.lab.choice import BUNDLES, Choice, Finalist
from tastemaker.lab.elsewhere import Elsewhere
from tastemaker.lab.entrants import entrants, facts
from tastemaker.lab.finale import Finale
from tastemaker.lab.halving import SETTINGS, Contender, Race, Round
from tastemaker.lab.journal import Journal
from tastemaker.lab.shop import Here, Job, Shop, Workplace, importable, spelled, untested
from tastemaker.lab.space import Space, Values
from tastemaker.lab.tuning import judge_of
from tastemaker.train import Hardware
from tastemaker.train.codec import content_key
from tastemaker.types import Dataset, Split, UsageError, progress
from tastemaker.types.meter import available_memory_mb

JOURNAL, WORK = "journal.jsonl", "work"
SHARE_OF_MEMORY = 0.9  # of what is free, where nothing is said
WARM_SHARE, WARM_MOST = 0.4, 90.0  # of the budget, and seconds, after which first calls end, if much is to compile
TIMING_SHARE = 0.005  # of the budget, for each of the two ways in which a finalist's answers are timed
LONG = 5.0  # seconds of first calls after which a second process helps


def choose(
    data: Dataset | Split,
    *,
    budget: float | str = "30m",
    memory: float | str | None = None,
    metric: str = "ndcg@10",
    split: str = "leave-one-out",
    systems: Sequence[str | type] | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    hardware: Hardware | None = None,
    rounds: int | None = None,
    settings: int | None = SETTINGS,
    separate: bool | None = None,
    source: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Choice:
    """Race all systems that can learn from `data` and choose one.

    Args:
        data: a dataset, which is split by `split`; or a split.
        budget: of time, for everything: "30m", "2h", or seconds.
        memory: what training may take, "4g" or megabytes; default: nine tenths of what is free.
        metric: what is chosen by.
        systems: names, perhaps with *, or classes declared with `@system`; default: all.
        out: a folder for the answer, the finalists' bundles and the journal. The same call goes on there.
        rounds, settings: of the race; default: as many rounds as the number of systems calls for, and eight new
            settings a system in the first, doubling. `settings=None` sets no limit but time.
        separate: train in a process of its own, which can be stopped when time or memory is out; default: yes, but
            for classes that only this process knows.
        source: what the data is called on the command line, for the commands that the answer names.
        tell: is told what happens, in lines.

    Raises:
        UsageError: no system fits, or `out` belongs to another search.
    """
    began = time.monotonic()
    goal, seconds = Goal.of(metric), as_seconds(budget)
    free = SHARE_OF_MEMORY * available_memory_mb()
    parts = data if isinstance(data, Split) else make_split(data, split, seed=seed)
    if not parts.sizes["test"]:
        raise UsageError(f"{parts.name} has no test part, so nothing can be said of a choice", hint="time:0.8,0.1,0.1")
    judge, judged_on = judge_of(parts, seed)
    infos, left_out = entrants(systems, parts.train, judge.cases)
    asked = [goal.metric, seconds, memory, rounds, settings, seed]
    who = [[spelled(info), info.version] for info in infos]
    key = content_key(parts.name, parts.train, judge.cases.targets, asked, who)
    with _folder(out) as folder, _journal(folder, key, {"metric": goal.metric, "budget": seconds}) as journal:
        choosing = Choosing(
            parts,
            goal,
            {info.name: info for info in infos},
            folder,
            journal,
            seconds=seconds,
            memory_mb=free if memory is None else megabytes(memory),
            separate=all(map(importable, infos)) if separate is None else separate,
            seed=seed,
            hardware=hardware,
            began=began - journal.records[-1].get("elapsed", 0.0),
            tell=tell,
        )
        finalists, notes = choosing.run(rounds, settings)
        comparison = compare([one.report for one in finalists], primary=goal.metric, tested=[goal.metric], seed=seed)
        choice = Choice(
            goal=goal,
            finalists=tuple(finalists if out is not None else [replace(one, place=None) for one in finalists]),
            comparison=comparison,
            contenders=choosing.race.contenders,
            rounds=tuple(choosing.race.rounds),
            left_out=left_out,
            facts=facts(parts),
            judged_on=judged_on,
            budget=seconds,
            memory_mb=choosing.memory_mb,
            seconds=choosing.elapsed(),
            source=source or parts.data.name,
            notes=tuple(notes),
            kept=None if out is not None else choosing.finale.first,
        )
        if out is not None:
            choice.save(folder)
            shutil.rmtree(folder / WORK, ignore_errors=True)
    return choice


@dataclass(eq=False)
class Choosing:
    """A choice under way: the clock, the place where work is done, the race and the end.

    began: on the clock of `time.monotonic`, so that what earlier processes took is counted
    """

    split: Split
    goal: Goal
    infos: dict[str, SystemInfo]
    folder: Path
    journal: Journal
    seconds: float
    memory_mb: float
    separate: bool
    seed: int
    hardware: Hardware | None
    began: float
    tell: Callable[[str], None]

    def run(self, rounds: int | None, settings: int | None) -> tuple[list[Finalist], list[str]]:
        """Race, then judge; returns the finalists, and what must be said of them."""
        self.drawn = 0.0
        self.race = Race(
            {name: Contender(name, Space.of(info)) for name, info in self.infos.items()},
            self._play,
            lambda: self._left() - self.finale.reserve(self.seconds),
            self.journal,
            self.elapsed,
            n_users=self.split.train.n_users,
            n_events=self.split.train.n_events,
            seed=self.seed,
            most_rounds=rounds,
            most_settings=settings,
            tell=self.tell,
        )
        self.finale = Finale(
            self.split,
            self.goal,
            self.race,
            self.infos,
            self.folder,
            kept=self._kept,
            left=self._left,
            write=self._write,
            timing=min(1.0, TIMING_SHARE * self.seconds),
            seed=self.seed,
        )
        self.race.replay()
        if not (done := self.journal.of("done")):
            with progress("choose", self.seconds) as self.bar, self._workplace() as self.place:
                if not self.journal.of("raced"):
                    self._warm()
                    self.race.run()
                    self._write("raced")
                judged = [record["system"] for record in self.journal.of("final")]
                notes = self.finale.play(self.place, judged, self._say) if self.finale.candidates() else []
                finalists = self.finale.read(self.journal.of("final"))
                self._write("done", notes=notes)
            return finalists, notes
        return self.finale.read(self.journal.of("final")), list(done[-1]["notes"])

    def elapsed(self) -> float:
        """Seconds since the choice began, in whatever process."""
        return time.monotonic() - self.began

    def _left(self) -> float:
        return self.seconds - self.elapsed()

    def _write(self, kind: str, **told: Any) -> None:
        self.journal.add({"kind": kind, **told, "elapsed": round(self.elapsed(), 3)})

    def _say(self, said: str) -> None:
        """Move the bar to where the clock is."""
        now = min(self.elapsed(), self.seconds)
        self.bar(now - self.drawn, said)
        self.drawn = now

    @contextmanager
    def _workplace(self) -> Iterator[Workplace]:
        shown = untested(self.split)
        if self.separate:
            work = self.folder / WORK
            shutil.rmtree(work / "data", ignore_errors=True)
            work.mkdir(exist_ok=True)
            place: Workplace = Elsewhere(
                work,
                shown,
                self.goal,
                seed=self.seed,
                memory_mb=self.memory_mb,
                systems=[spelled(info) for info in self.infos.values()],
                hardware=self.hardware,
            )
        else:
            known = {spelled(info): info for info in self.infos.values()}
            place = Here(Shop(shown, self.goal, seed=self.seed, hardware=self.hardware, known=known))
        try:
            yield place
        finally:
            place.close()

    def _warm(self) -> None:
        """Call every system once on next to nothing, so that nobody's time goes into compiling.

        What one process has compiled the other finds: where it takes long, a second one goes through the systems from
        the other end. Those that were done soonest race first: if time is short, it is the slow ones that miss out.
        """
        began = self.elapsed()
        end = max(min(WARM_MOST, WARM_SHARE * self.seconds), began)  # starting the process is part of it
        tried = {record["system"] for record in self.journal.of("trial")}
        names = [name for name in self.infos if name not in tried]
        jobs = [Job("warm", spelled(self.infos[name])) for name in names]
        took = dict.fromkeys(names, math.inf)
        with ExitStack() as help_:
            helped = False
            for name, job in zip(names, jobs, strict=True):
                if (now := self.elapsed()) >= end:
                    break
                if now - began > LONG and not helped:
                    help_.enter_context(self.place.beside(jobs[::-1]))
                    helped = True
                self._say(f"first call of {name}")
                took[name] = self.place.do(job, max(1.0, end - now)).seconds
        if not self.race.rounds:
            order = sorted(self.race.contenders, key=lambda name: took.get(name, 0.0))
            self.race.contenders = {name: self.race.contenders[name] for name in order}

    def _play(self, contender: Contender, settings: Values, seconds: float, current: Round) -> Outcome:
        """Fit and judge one setting."""
        name, users = contender.name, current.users
        left = self._left() - self.finale.reserve(self.seconds)
        limit = max(0.05, min(seconds, left))
        leader = self.race.ranked(users)[0].value(users)
        said = f"; best so far {self.goal.worth(leader):.4f}" if leader > -math.inf else ""
        self._say(f"round {current.number + 1} of {self.race.total}: {name}{said}")
        stand = contender.stand()
        judging = 0.0 if stand is None else stand.outcome.judge_seconds
        keeps = users is None and self.split.sizes["valid"] > 0  # else the best are fitted again at the end
        fresh, best = self._kept(f"{name}.new"), contender.value(None)
        shutil.rmtree(fresh, ignore_errors=True)
        job = Job(
            "trial",
            spelled(self.infos[name]),
            contender.space.whole(settings),
            seconds=max(0.5 * limit, limit - judging),
            users=users,
            run=str(self.folder / WORK / "runs" / f"{name}-{content_key(settings, users or 0)[:16]}"),
            keep=str(fresh) if keeps else None,
            beats=best if keeps and best > -math.inf else None,
        )
        outcome = self.place.do(job, max(limit, min(left, limit + max(0.25 * limit, self.place.grace))))
        if self.place.has(fresh):
            self.place.move(fresh, self._kept(name))
        return outcome

    def _kept(self, name: str) -> Path:
        """Where the bundle of a system's best settings lies."""
        return self.folder / WORK / BUNDLES / name


@contextmanager
def _journal(folder: Path, key: str, about: dict[str, Any]) -> Iterator[Journal]:
    journal = Journal(folder / JOURNAL, key, about)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Where the work is done: the folder that was named, or one that goes afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="tastemaker-") as made:
            yield Path(made)
        return
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / JOURNAL).is_file())):
        raise UsageError(f"{folder} is there and holds no choice: it is left alone", hint="name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
