"""The race, on a clock of its own: who stays, what everybody gets, and that nothing is done twice."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tastemaker.contracts import Program, info_of, system
from tastemaker.lab.attempt import Outcome
from tastemaker.lab.halving import Contender, Race, Round
from tastemaker.lab.journal import Journal
from tastemaker.lab.space import Space, Values, key_of
from tastemaker.types import Dataset, UsageError, setting


@system("runner", family="classical", title="Runs nothing", paper="none")
class Runner:
    @dataclass(frozen=True)
    class Config:
        x: float = setting(0.5, "A place.", low=0.0, high=1.0, search=(0.0, 1.0))

    def __init__(self, config: Any, schema: Any) -> None: ...

    def program(self, data: Dataset) -> Program:
        yield from ()


Behaviour = Callable[[Values, float, float], Outcome]
"""What comes of a setting that was trained for so long before and gets so many seconds now."""


def closed(value: Callable[[float], float], seconds: float) -> Behaviour:
    """A closed form: always as long, and as good as its place says."""
    return lambda settings, before, given: Outcome("done", value(settings["x"]), seconds=seconds, fit_seconds=seconds)


def growing(rate: float, most: float, needs: float) -> Behaviour:
    """A network: better with every second, until it has had what it needs."""

    def play(settings: Values, before: float, given: float) -> Outcome:
        took = min(given, needs - before)
        total = before + took
        course = [(t, min(most, rate * (before + t))) for t in (took / 3, 2 * took / 3, took)]
        done = total >= needs - 1e-9
        return Outcome(
            "done" if done else "unfinished", min(most, rate * total), seconds=took, course=course, rising=not done
        )

    return play


def late(needs: float, value: float) -> Behaviour:
    """A closed form that gives nothing before its time."""
    return lambda settings, before, given: (
        Outcome("done", value, seconds=needs) if given >= needs else Outcome("late", reason="too slow", seconds=given)
    )


@dataclass
class Track:
    """A race with a clock that only trials move."""

    runners: Mapping[str, Behaviour]
    budget: float
    journal: Journal
    stop_after: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    overhead: float = 0.0
    now: float = 0.0
    played: list[tuple[int, str, str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        space = Space.of(info_of(Runner))
        self.race = Race(
            {name: Contender(name, space) for name in self.runners},
            self.play,
            lambda: self.budget - self.now,
            self.journal,
            lambda: self.now,
            n_users=1000,
            n_events=50_000,
            **self.options,
        )
        self.now = self.journal.records[-1].get("elapsed", 0.0)
        self.race.replay()

    def play(self, contender: Contender, settings: Values, seconds: float, current: Round) -> Outcome:
        if self.stop_after is not None and len(self.played) >= self.stop_after:
            raise KeyboardInterrupt
        outcome = self.runners[contender.name](settings, contender.trained(settings, current.users), seconds)
        self.now += outcome.seconds + self.overhead
        self.played.append((current.number, contender.name, key_of(settings), outcome.seconds))
        return outcome

    def run(self) -> Track:
        self.race.run()
        return self

    def order(self) -> list[str]:
        return [c.name for c in self.race.ranked(None) if c.trials]


def memory() -> Journal:
    return Journal(None, "key", {})


def field_of(n: int) -> dict[str, Behaviour]:
    """Closed forms of rising quality."""
    return {f"closed{i}": closed(lambda x, i=i: 0.1 + 0.01 * i + 0.005 * x, 0.5) for i in range(n)}


def test_every_system_in_a_round_gets_the_same_and_the_budget_holds() -> None:
    track = Track({**field_of(7), "net": growing(0.001, 0.5, 500)}, 100.0, memory()).run()
    assert track.now <= 100.0
    for one in track.race.rounds:
        spent: dict[str, float] = defaultdict(float)
        for number, name, _, seconds in track.played:
            if number == one.number:
                spent[name] += seconds
        assert set(spent) == set(one.systems)
        assert max(spent.values()) <= one.seconds + 0.5, "a system took more than its share"
    sizes = [len(one.systems) for one in track.race.rounds]
    assert sizes[0] == 8 and sizes == sorted(sizes, reverse=True)
    allowed = [one.seconds for one in track.race.rounds]
    assert all(later > earlier for earlier, later in pairwise(allowed))


def test_the_best_closed_form_wins_with_its_best_setting() -> None:
    track = Track(field_of(6), 200.0, memory()).run()
    best = track.race.ranked(None)[0]
    assert best.name == "closed5"
    assert best.best(None).settings["x"] > 0.97, "the space was not searched"


def test_the_defaults_are_tried_first() -> None:
    track = Track(field_of(3), 60.0, memory()).run()
    first = {}
    for _, name, settings, _ in track.played:
        first.setdefault(name, json.loads(settings))
    assert all(settings == {"x": 0.5} for settings in first.values())


def test_a_slow_starter_is_not_dropped_for_being_slow() -> None:
    """After a fair share of round 1 it is the last of all; in the end it is by far the best."""
    runners = {**field_of(7), "net": growing(0.007, 0.9, 60)}
    track = Track(runners, 300.0, memory()).run()
    after: dict[str, float] = defaultdict(float)
    for contender in track.race.contenders.values():
        for trial in contender.trials[:8]:
            if trial.round == 0:
                after[contender.name] = max(after[contender.name], trial.outcome.value or 0.0)
    assert min(after, key=after.__getitem__) == "net"
    assert track.order()[0] == "net"


def test_a_hopeless_one_that_has_stopped_rising_is_dropped() -> None:
    flat: Behaviour = lambda settings, before, given: Outcome("unfinished", 0.01, seconds=given, rising=False)  # noqa: E731
    track = Track({**field_of(5), "flat": flat}, 100.0, memory()).run()
    assert [one.number for one in track.race.rounds if "flat" in one.systems] == [0]
    assert "place 6 of 6" in (track.race.contenders["flat"].out or "")


def test_a_late_closed_form_gets_a_second_try_with_more_time() -> None:
    track = Track({**field_of(7), "heavy": late(14.0, 0.9)}, 300.0, memory()).run()
    assert track.race.rounds[0].seconds < 14 < track.race.rounds[1].seconds * 2
    assert track.order()[0] == "heavy"
    hopeless = Track({**field_of(7), "never": late(1e9, 0.9)}, 300.0, memory()).run()
    assert hopeless.race.contenders["never"].out == "too slow"
    assert len(hopeless.race.contenders["never"].trials) == 2


def test_a_cut_training_goes_on_and_does_not_begin_again() -> None:
    track = Track({"net": growing(0.01, 0.9, 50), **field_of(5)}, 240.0, memory()).run()
    default = [t for t in track.race.contenders["net"].trials if t.settings == {"x": 0.5}]
    assert len(default) > 1 and default[-1].outcome.state == "done"
    assert sum(trial.outcome.seconds for trial in default) == pytest.approx(50)


def test_what_lies_between_trials_counts_against_a_systems_share() -> None:
    """Thousands of quick trials leave those that come after them as much as they had."""
    quick = {f"quick{i}": closed(lambda x: 0.1, 0.001) for i in range(6)}
    last = {"slow": closed(lambda x: 0.5, 5.0)}
    track = Track({**quick, **last}, 70.0, memory(), overhead=0.05, options={"most_rounds": 1, "most_settings": None})
    track.run()
    assert [name for _, name, _, _ in track.played].count("slow") == 2, "its share is that of two of its trials"
    kinds = [record for record in track.race.journal.records if record["kind"] == "trial"]
    assert sum(record["taken"] >= 0.05 for record in kinds) >= len(kinds) - 7  # all but the first of each system
    assert track.race.contenders["slow"].out is None


def test_of_two_cut_settings_the_one_ahead_at_the_same_second_goes_on() -> None:
    contender = Contender("net", Space.of(info_of(Runner)))
    from tastemaker.lab.halving import Trial

    def trial(x: float, seconds: float, course: list[tuple[float, float]]) -> Trial:
        outcome = Outcome("unfinished", course[-1][1], seconds=seconds, course=course, rising=True)
        return Trial(0, "net", {"x": x}, None, seconds, outcome)

    contender.trials = [
        trial(0.5, 40, [(10, 0.1), (20, 0.2), (40, 0.4)]),
        trial(0.9, 10, [(5, 0.1), (10, 0.3)]),
    ]
    going_on = contender.promising(None)
    assert going_on is not None and going_on.settings == {"x": 0.9}


def test_what_is_dropped_says_why_and_failures_do_not_end_the_race() -> None:
    broken: Behaviour = lambda settings, before, given: Outcome("failed", reason="no such thing", seconds=0.1)  # noqa: E731
    track = Track({**field_of(3), "broken": broken}, 60.0, memory()).run()
    assert track.race.contenders["broken"].out == "no such thing"
    assert len(track.race.contenders["broken"].trials) == 3
    assert track.order()[0] == "closed2"


def test_large_data_is_shown_in_parts_first_and_whole_in_the_end() -> None:
    track = Track(field_of(8), 80.0, memory())
    track.race.n_events = 10_000_000
    track.run()
    seen = [one.users for one in track.race.rounds]
    assert seen[0] is not None and seen[-1] is None
    parts = [users for users in seen if users is not None]
    assert parts == sorted(parts)
    last = track.race.rounds[-1]
    for name in last.systems:
        again = [t for t in track.race.contenders[name].trials if t.round == last.number]
        before = [t for t in track.race.contenders[name].trials if t.round == last.number - 1]
        best = max(before, key=lambda t: t.outcome.value or 0.0)
        assert again[0].key == best.key, "the best of the part was not tried on the whole"


@pytest.mark.parametrize("after", [1, 7, 20, 45])
def test_a_race_that_was_killed_goes_on_and_repeats_nothing(tmp_path: Path, after: int) -> None:
    runners = {**field_of(5), "net": growing(0.004, 0.5, 80)}
    whole = Track(runners, 120.0, memory()).run()
    assert len(whole.played) > 45
    journal = Journal(tmp_path / "journal.jsonl", "key", {})
    stopped = Track(runners, 120.0, journal, stop_after=after)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    journal.close()
    with (tmp_path / "journal.jsonl").open("a") as torn:
        torn.write('{"kind": "trial", "round"')  # what a kill in the middle of a line leaves
    journal = Journal(tmp_path / "journal.jsonl", "key", {})
    rest = Track(runners, 120.0, journal).run()
    journal.close()
    played = [(number, name, settings) for number, name, settings, _ in stopped.played + rest.played]
    assert played == [(number, name, settings) for number, name, settings, _ in whole.played]
    assert rest.order() == whole.order()
    finished = Counter((name, settings) for name, settings in [(n, s) for _, n, s, _ in whole.played if n != "net"])
    assert max(finished.values()) == 1, "a finished setting was tried again"


def test_a_journal_belongs_to_one_search_and_one_process(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.jsonl", "one", {})
    with pytest.raises(UsageError, match="another process"):
        Journal(tmp_path / "journal.jsonl", "one", {})
    first.close()
    with pytest.raises(UsageError, match="another search"):
        Journal(tmp_path / "journal.jsonl", "two", {})
