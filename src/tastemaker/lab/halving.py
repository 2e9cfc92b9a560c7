"""Successive halving over systems: every system gets the same time, the better half goes on with twice as much.

The resource is seconds of fitting and judging. In a round each system still in it may spend the same number of seconds
and try the same number of settings, its defaults first. A closed form that is done in a tenth of a second tries
many; a network that needs epochs spends them on few, and a training that was cut goes on, in a later round, from where
it was cut. After a round the better half stays. So that a slow starter is not dropped for being slow, half of those
that would be dropped while their training still got better, or that had no value yet when their time was out, stay too:
they have a list of their own. What a system leaves of its time goes to the rounds that follow.

Within a system a new setting gets as long as one got in the first round, or half as long again as the longest that came
to its end; of those that were cut, the one that was ahead at the same second goes on: successive halving once more.

On large data the first rounds see the events of a part of the users, the last one always of all. Values are compared
within one such part alone; when it grows, the two best settings of a system are tried again before new ones are.

Ref: Jamieson, Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", arXiv:1502.07943
(successive halving); Li et al., "Hyperband", arXiv:1603.06560, section 3 (that what converges slowly needs a hedge; the
list for slow starters is ours, in the place of brackets).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from tastemaker.lab.amounts import spoken
from tastemaker.lab.attempt import Outcome
from tastemaker.lab.journal import Journal
from tastemaker.lab.space import Space, Values, key_of
from tastemaker.types import generator

LAST = 3  # systems, about, that the last round is planned for
LEAST_SECONDS = 1.0  # for a system in the first round; with less for each there are fewer rounds
SETTINGS = 8  # new settings a system may try in the first round; twice as many in each that follows
SCATTERED = 6  # settings of a system scattered over its space before any is drawn near its best
TRIES = 100  # draws of a setting before the space is taken to hold nothing new
AGAIN = 2  # settings that are tried again when a round sees more of the data
LONGER = 1.5  # times the longest finished fit that a new setting may take
PATIENCE = 2  # rounds that a system may end without a value before it is dropped
FAILURES = 3  # settings of a system that may fail before the first value
EVENTS_PER_SECOND, FEWEST_EVENTS = 50_000, 100_000  # what a round shows of large data
NEARLY_ALL = 0.7  # a part of the data as large as this is rounded up to all of it


@dataclass(frozen=True)
class Trial:
    """One setting of one system, fitted and judged in a round.

    allowed: seconds that training might take
    taken: seconds of the system's share that it used up: from one trial's end to the next, drawing it and all between
        included; of the first in a round those of training alone, since what it waits for besides serves others too
    """

    round: int
    system: str
    settings: Values
    users: int | None
    allowed: float
    outcome: Outcome
    taken: float = 0.0

    @cached_property
    def key(self) -> str:
        """Equal for equal settings."""
        return key_of(self.settings)


@dataclass(frozen=True)
class Round:
    """What every system in a round was given: seconds, new settings, and the events of so many users (None: all)."""

    number: int
    systems: tuple[str, ...]
    seconds: float
    settings: int | None
    users: int | None


@dataclass
class Contender:
    """A system in the race.

    out: why it is no longer in it; None: it is
    """

    name: str
    space: Space
    trials: list[Trial] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    out: str | None = None

    @property
    def allowed(self) -> float:
        """Seconds it was allowed in all rounds together."""
        return sum(one.seconds for one in self.rounds)

    @property
    def seconds(self) -> float:
        return sum(trial.outcome.seconds for trial in self.trials)

    @property
    def settings(self) -> int:
        """How many different settings were tried."""
        return len({trial.key for trial in self.trials})

    def at(self, users: int | None) -> list[Trial]:
        """Trials that saw so much of the data, the last one of each setting."""
        return list({t.key: t for t in self.trials if t.users == users}.values())

    def best(self, users: int | None) -> Trial | None:
        """The best of those."""
        there = [trial for trial in self.at(users) if trial.outcome.value is not None]
        return max(there, key=lambda trial: trial.outcome.value or 0.0, default=None)

    def value(self, users: int | None) -> float:
        best = self.best(users)
        return -math.inf if best is None or best.outcome.value is None else best.outcome.value

    def trained(self, settings: Mapping[str, Any], users: int | None) -> float:
        """Seconds a setting was trained for so far."""
        key = key_of(settings)
        return sum(t.outcome.seconds for t in self.trials if t.users == users and t.key == key)

    def stand(self) -> Trial | None:
        """The best trial on as much of the data as was seen last and gave a value."""
        for trial in reversed(self.trials):
            if trial.outcome.value is not None:
                return self.best(trial.users)
        return None

    def slow(self, users: int | None) -> bool:
        """Whether more time might show it to be better than it seems."""
        best = self.best(users)
        if best is not None:
            return best.outcome.state == "unfinished" and best.outcome.rising
        late = {trial.round for trial in self.trials if trial.outcome.state == "late"}
        return 0 < len(late) < PATIENCE

    def promising(self, users: int | None) -> Trial | None:
        """The cut training that was best at the second that all of them have reached; it is to go on."""
        cut = [trial for trial in self.at(users) if trial.outcome.unfinished]
        valued = [trial for trial in cut if trial.outcome.value is not None]
        if not valued:
            return cut[0] if cut else None
        reached = min(self.trained(trial.settings, users) for trial in valued)

        def by_then(trial: Trial) -> tuple[float, float]:
            points = [value for at, value in self.course(trial.settings, users) if at <= reached]
            return max(points, default=-math.inf), trial.outcome.value or 0.0

        return max(valued, key=by_then)

    def course(self, settings: Mapping[str, Any], users: int | None) -> list[tuple[float, float]]:
        """Seconds of training and best validation figure by then, over all rounds of a setting."""
        key, gone, points = key_of(settings), 0.0, []
        for trial in self.trials:
            if trial.users == users and trial.key == key:
                points += [(gone + at, value) for at, value in trial.outcome.course]
                gone += trial.outcome.seconds
        return points


Play = Callable[[Contender, Values, float, Round], Outcome]
"""Fits and judges a setting, given at most so many seconds."""


@dataclass(eq=False)
class Race:
    """The search over all systems, resumable at any record of its journal.

    play: makes a trial
    left: seconds that the search still has
    total: rounds that are planned; 0: not known yet
    most_rounds, most_settings: None: as many as the number of systems calls for, and `SETTINGS` doubling
    """

    contenders: Mapping[str, Contender]
    play: Play
    left: Callable[[], float]
    journal: Journal
    clock: Callable[[], float]
    n_users: int
    n_events: int
    seed: int = 0
    most_rounds: int | None = None
    most_settings: int | None = SETTINGS
    tell: Callable[[str], None] = lambda text: None
    rounds: list[Round] = field(default_factory=list)
    total: int = 0

    def run(self) -> None:
        """All rounds, or those that an earlier process left."""
        total = self.total = self.total or self._n_rounds()
        going = list(self.contenders)
        for number in range(total):
            going = [name for name in going if self.contenders[name].out is None]
            if not going:
                return
            if number < len(self.rounds):
                current = self.rounds[number]
            else:
                if self.left() <= 0:
                    return
                current = self._plan(number, going, total)
            if not self._ended(current):
                for name in current.systems:
                    self._play(self.contenders[name], current)
            going = self._kept(current, last=number == total - 1)

    def _n_rounds(self) -> int:
        """How many rounds: what it takes to halve the systems down to about `LAST`, or as many as there is time for."""
        if self.most_rounds is not None:
            return self.most_rounds
        n = max(1, len(self.contenders))
        wanted = math.ceil(math.log2(n / LAST)) + 1
        return max(1, min(wanted, int(self.left() / (n * LEAST_SECONDS))))

    def ranked(self, users: int | None, names: Sequence[str] | None = None) -> list[Contender]:
        """Contenders by their best value, those without one last."""
        chosen = [self.contenders[name] for name in (self.contenders if names is None else names)]
        return sorted(chosen, key=lambda c: -c.value(users))

    # -- a round

    def _plan(self, number: int, going: Sequence[str], total: int) -> Round:
        seconds = self.left() / ((total - number) * len(going))
        allowance = max(FEWEST_EVENTS, EVENTS_PER_SECOND * seconds)
        users: int | None = None
        if number < total - 1 and allowance < NEARLY_ALL * self.n_events:
            users = max(1, int(self.n_users * allowance / self.n_events))
            before = self.rounds[-1].users if self.rounds else 0
            users = None if before is None else max(users, before)
        settings = None if self.most_settings is None else self.most_settings << number
        planned = Round(number, tuple(going), seconds, settings, users)
        self._begin(planned)
        shown = "" if users is None else f", the events of {users:,} of {self.n_users:,} users"
        self.tell(f"round {number + 1} of {total}: {len(going)} systems, {spoken(seconds)} each{shown}")
        facts = {"number": number, "of": total, "systems": list(going), "seconds": seconds}
        self._write("round", **facts, settings=settings, users=users)
        return planned

    def _begin(self, planned: Round) -> None:
        self.rounds.append(planned)
        for name in planned.systems:
            self.contenders[name].rounds.append(planned)

    def _play(self, contender: Contender, current: Round) -> None:
        """A system's share of a round."""
        began: float | None = None
        while contender.out is None and (step := self._next(contender, current)) is not None:
            settings, seconds = step
            outcome = Outcome.from_json(
                self.play(contender, settings, seconds, current).to_json()
            )  # as it is read again
            now = self.clock()
            taken = round(outcome.seconds if began is None else max(outcome.seconds, now - began), 3)
            began = now
            trial = Trial(current.number, contender.name, settings, current.users, seconds, outcome, taken)
            self._note(trial)
            self._write(
                "trial",
                round=trial.round,
                system=trial.system,
                settings=settings,
                users=trial.users,
                allowed=round(seconds, 3),
                taken=taken,
                outcome=outcome.to_json(),
            )

    def _note(self, trial: Trial) -> None:
        contender = self.contenders[trial.system]
        contender.trials.append(trial)
        failed = [t.outcome.reason for t in contender.trials if t.outcome.state == "failed"]
        valueless = all(t.outcome.value is None for t in contender.trials)
        if valueless and (len(failed) >= FAILURES or (failed and not contender.space.dimensions)):
            contender.out = failed[0]

    def _next(self, contender: Contender, current: Round) -> tuple[Values, float] | None:
        """The next setting of a system in a round and the seconds it gets; None when its share is used up."""
        mine = [trial for trial in contender.trials if trial.round == current.number]
        left = current.seconds - sum(trial.taken for trial in mine)
        if self.left() <= 0 or (mine and left <= 0):
            return None
        done = {trial.key for trial in mine}
        for settings, share in self._carried(contender, current):
            if key_of(settings) not in done:
                return settings, max(left, 0.0) * share
        before = {t.key for t in contender.trials if t.round < current.number}
        fresh = len(done - before)
        if current.settings is not None and fresh >= current.settings:
            return None
        if not contender.trials:
            return contender.space.default, left
        needed, most = self._usual(contender, current, left)
        if left < needed:
            return None
        drawn = self._drawn(contender, current)
        return None if drawn is None else (drawn, most)

    def _carried(self, contender: Contender, current: Round) -> list[tuple[Values, float]]:
        """Settings of earlier rounds that this one takes up, each with its share of what is left of the time."""
        if not contender.trials or contender.trials[0].round == current.number:
            return []
        before = [trial for trial in contender.trials if trial.round < current.number]
        earlier = Contender(contender.name, contender.space, before)
        seen = before[-1].users
        if seen != current.users:
            valued = [trial for trial in earlier.at(seen) if trial.outcome.value is not None]
            valued.sort(key=lambda trial: -(trial.outcome.value or 0.0))
            again = valued[:AGAIN] or earlier.at(seen)[:1]
            return [(trial.settings, 1.0 if n else 0.75) for n, trial in enumerate(again)]
        going_on, best = earlier.promising(current.users), earlier.best(current.users)
        if going_on is None:
            return []
        if best is not None and best.outcome.state == "done":  # is the cut one ahead of where that was by then?
            gone = earlier.trained(going_on.settings, current.users)
            ours = going_on.outcome.value
            theirs = [value for at, value in earlier.course(best.settings, current.users) if at <= gone]
            if ours is None or ours <= max(theirs, default=-math.inf) or not theirs:
                return []
        alone = going_on.outcome.value is None or not contender.space.dimensions
        return [(going_on.settings, 1.0 if alone else 0.5)]

    def _usual(self, contender: Contender, current: Round, left: float) -> tuple[float, float]:
        """Seconds that a new setting needs to be worth a start, and the most it gets."""
        there = contender.at(current.users)
        finished = [trial.outcome.seconds for trial in there if trial.outcome.state == "done"]
        cut = [trial for trial in there if trial.outcome.unfinished]
        first = self.rounds[0].seconds
        if not cut:
            return (median(finished) if finished else 0.0), left
        longest = max(finished, default=0.0) * LONGER
        taste = max(first, longest)
        return min(taste, first) * 0.5, min(left, taste)

    def _drawn(self, contender: Contender, current: Round) -> Values | None:
        """A setting that was not tried: from anywhere, or near the best; None where there is none."""
        space, known = contender.space, {trial.key for trial in contender.trials}
        if len(known) >= space.size:
            return None
        best = contender.best(current.users)
        if best is None or len(known) <= SCATTERED or (current.number == 0 and len(known) % 2):
            settings = space.scattered(len(known), self.seed)
            if key_of(settings) not in known and space.fits(settings):
                return settings
        rng = generator(self.seed, "settings", contender.name, len(known))
        for attempt in range(TRIES):
            near = best is not None and attempt < TRIES / 2
            settings = space.near(best.settings, rng) if near and best is not None else space.draw(rng)
            if key_of(settings) not in known:
                return settings
        return None

    # -- between rounds

    def _kept(self, current: Round, *, last: bool) -> list[str]:
        """The systems that go on: the better half, and half of the slow starters among the others."""
        if written := self._ended(current):
            for name, why in written[0]["dropped"].items():
                self.contenders[name].out = self.contenders[name].out or why
            return list(written[0]["kept"])
        still = [name for name in current.systems if self.contenders[name].out is None]
        ranked = self.ranked(current.users, still)
        n = len(ranked) if last else math.ceil(len(ranked) / 2)
        kept = [c for c in ranked[:n] if c.value(current.users) > -math.inf]
        slow = [c for c in ranked if c not in kept and c.slow(current.users)]
        spared = slow if last else slow[: math.ceil(len(slow) / 2)]
        names = [contender.name for contender in [*kept, *spared]]
        dropped = {}
        for contender in ranked:
            if contender.name not in names:
                contender.out = self._why(contender, current, ranked)
                dropped[contender.name] = contender.out
        self.tell(f"  in the race: {', '.join(names) or 'none'}")
        self._write("kept", number=current.number, kept=names, spared=[c.name for c in spared], dropped=dropped)
        return names

    def _ended(self, current: Round) -> list[dict[str, Any]]:
        """What the journal says of the end of a round; empty where it is not over."""
        return [record for record in self.journal.of("kept") if record["number"] == current.number]

    def _why(self, contender: Contender, current: Round, ranked: Sequence[Contender]) -> str:
        """In words, why a system is dropped after a round."""
        if not contender.trials:
            return "there was no time left to try it"
        if contender.best(current.users) is None:
            return next((t.outcome.reason for t in contender.trials if t.outcome.reason), "it gave no value")
        place = 1 + [c.name for c in ranked].index(contender.name)
        return f"place {place} of {len(ranked)} in round {current.number + 1}"

    # -- the journal

    def _write(self, kind: str, **facts: Any) -> None:
        self.journal.add({"kind": kind, **facts, "elapsed": round(self.clock(), 3)})

    def replay(self) -> None:
        """Take up what an earlier process wrote."""
        for record in self.journal.records:
            if record["kind"] == "round":
                keys = ("number", "systems", "seconds", "settings", "users")
                number, systems, seconds, settings, users = (record[key] for key in keys)
                self.total = record["of"]
                self._begin(Round(number, tuple(systems), seconds, settings, users))
            elif record["kind"] == "trial":
                self._note(
                    Trial(
                        record["round"],
                        record["system"],
                        record["settings"],
                        record["users"],
                        record["allowed"],
                        Outcome.from_json(record["outcome"]),
                        record["taken"],
                    )
                )
