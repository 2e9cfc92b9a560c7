"""The candidate bus, and the six tools that a plan runs on it.

A plan's tools never hand items to one another, nor to the language model: they read the candidates from the bus and
write back those that are left, and what they say aloud is a line in its trace. So a list may be as long as the
catalogue without a word of it being read to a model, and what is shown in the end are numbers of the catalogue and
nothing else.

    bus = Bus.begin(allowed)                       # most chosen first
    bus = run(arranged(plan, 5), bus, tools, person)
    bus.shown                                      # item numbers

store        the items that were named                     hard filter   those for which a typed filter holds
look-up      facts of items, for the answer alone          soft filter   those most like some items
ranking      in order                                      map           the first k are shown

Ref: section 4 of Huang, Lian, Lei, Yao, Lian, Xie, "Recommender AI Agent: Integrating Large Language Models for
Interactive Recommendations", TOIS 2025, arXiv:2308.16505. Changed: candidates begin in the order of popularity, so
where a cap cuts, it keeps those (the paper draws at random), and a plan without a ranking shows no order of numbers;
items a soft filter is asked for by are not among what it finds, and where it would leave none it keeps all; what is
unwanted goes altogether instead of to the end; a hard filter that cannot be applied leaves nothing, since anything it
left might break it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.language.planner.lexicon import Lexicon
from tastemaker.language.planner.spelling import words
from tastemaker.language.tasks import HardFilter, LookUp, Named, Plan, Ranking, Show, SoftFilter, Step, StepDone
from tastemaker.types import TastemakerError, UsageError, mix

Numbers = NDArray[np.int32]
Floats = NDArray[np.float32]
PRIORITY = ("store", "look-up", "hard filter", "soft filter", "ranking", "map")
CAP, TOP = 1000, 100  # candidates after the first filter, and after a ranking
MOST_STEPS, MOST_NAMES = 24, 100  # of a plan, and of a step: work that a model may ask for is bounded
FACTS = 2048  # characters of what a look-up reads aloud, about 512 tokens
ALIKE = 0.55  # likeness from which a title, or a value, is taken to be meant
LONGEST_TITLE = 200
CELL = 120  # characters of a title, or of a fact beside an item


@dataclass(frozen=True, eq=False)
class Bus:
    """Candidates in their order, and what was done to them.

    Shapes:
        items: [n] item numbers, each once
        likeness: [n] to what a soft filter asked for, or None
        scores: [n] of the last ranking, or None
        shown: [k] the items that are shown, in their order
        start: [m] all items that may be shown at all
    """

    items: Numbers
    start: Numbers
    likeness: Floats | None = None
    scores: Floats | None = None
    shown: Numbers | None = None
    trace: tuple[StepDone, ...] = ()

    @classmethod
    def begin(cls, items: Numbers) -> Bus:
        return cls(items, items)

    def keep(self, places: NDArray[Any]) -> Bus:
        """The candidates at these places, in this order."""
        likeness = None if self.likeness is None else self.likeness[places]
        scores = None if self.scores is None else self.scores[places]
        return replace(self, items=self.items[places], likeness=likeness, scores=scores)

    def capped(self, cap: int) -> Bus:
        return self if len(self.items) <= cap else self.keep(np.arange(cap))

    def told(self, tool: str, given: str, said: str, *, failed: bool = False) -> Bus:
        done = StepDone(tool=tool, input=given[:300], output=said[: FACTS + 100], failed=failed)
        return replace(self, trace=(*self.trace, done))

    def left(self, tool: str, given: str, *notes: str, failed: bool = False) -> Bus:
        """Say how many candidates there are after a tool."""
        return self.told(tool, given, "; ".join([*notes, f"{len(self.items):,} left"]), failed=failed)


@dataclass(frozen=True)
class Person:
    """Whom the list is for, in item numbers; `seed` draws where a ranking is to be diverse."""

    history: tuple[int, ...] = ()
    liked: tuple[int, ...] = ()
    user: int = -1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Tools:
    """What tools work with: one catalogue, and what is known of its items.

    Shapes:
        table: I rows
        lexicon: its titles and values, to find them as people write them
        popularity: [I] how often each item was chosen
        filtered: (where, items [n]) -> places in items that are kept, in their order, and notes
        alike: seeds [s] -> likeness [I] of every item to them, of which few may be above 0
        suited: (person, prefer [p], items [n]) -> the best of the items, in order, and their scores
    """

    table: pl.DataFrame
    lexicon: Lexicon
    popularity: Floats
    filtered: Callable[[str, Numbers], tuple[NDArray[Any], list[str]]]
    alike: Callable[[Numbers], Floats]
    suited: Callable[[Person, Numbers, Numbers], tuple[Numbers, Floats]]
    cap: int = CAP
    top: int = TOP
    diverse: bool = False

    def item(self, name: str) -> int | None:
        """The item of this title, or of the one most like it; of several with one title, the most chosen."""
        typed = words(name[:LONGEST_TITLE])
        titles, owners = self.lexicon.titles, self.lexicon.title_of
        rows = [owners[place] for place in titles.exact(typed)]
        rows = rows or [owners[place] for place, _ in titles.near(typed, ALIKE, 1)]
        return max(rows, key=lambda row: (self.popularity[row], -row), default=None)

    def numbers(self, names: Sequence[str]) -> tuple[Numbers, list[str]]:
        """Items that were named, each once, and the names that no item has."""
        found = {name: self.item(name) for name in names[:MOST_NAMES]}
        numbers = dict.fromkeys(number for number in found.values() if number is not None)
        return np.array(list(numbers), dtype=np.int32), [name for name, number in found.items() if number is None]

    def value(self, column: str, value: str) -> str | None:
        """The value of a column that is most like this one; None: there is none, or its values are not listed."""
        facet = self.lexicon.by_name.get(column)
        if facet is None or facet.kind not in ("value", "list"):
            return None
        if value in facet.values:
            return value
        typed, index = words(value[:LONGEST_TITLE]), self.lexicon.values
        for place in [*index.exact(typed), *(place for place, _ in index.near(typed, ALIKE, 20))]:
            of, number = self.lexicon.value_of[place]
            if self.lexicon.facets[of] is facet:
                return facet.values[number]
        return None

    def facts(self, items: Numbers, columns: Sequence[str], width: int = CELL) -> list[dict[str, str]]:
        """What the catalogue says of each item, in words; what it does not say is left out."""
        known = [name for name in columns if name == self.lexicon.title or name in self.lexicon.by_name]
        if not known:
            return [{} for _ in items]
        rows = self.table[items].select(known).rows(named=True)
        return [{name: _cell(value, width) for name, value in row.items() if value not in (None, "")} for row in rows]


def arranged(plan: Plan, k: int) -> tuple[list[Step], list[str]]:
    """A plan's steps in the order of their tools, one showing at the end, and what had to be changed for it."""
    steps = sorted(plan.steps[:MOST_STEPS], key=lambda step: PRIORITY.index(step.tool))
    changed = [f"only the first {MOST_STEPS} steps are taken"] if len(plan.steps) > MOST_STEPS else []
    if steps != list(plan.steps[:MOST_STEPS]):
        changed.append("steps were put in the order of their tools")
    shows = [step for step in steps if isinstance(step, Show)]
    if len(shows) > 1:
        changed.append("one list is shown, the first that was asked for")
    if not shows and all(isinstance(step, LookUp) for step in steps):
        return steps, changed  # a question about facts, which no list answers
    if not shows:
        changed.append(f"the first {k} are shown, as no step said how many")
    return [*(step for step in steps if not isinstance(step, Show)), shows[0] if shows else Show(k=k)], changed


def run(steps: Sequence[Step], bus: Bus, tools: Tools, person: Person) -> Bus:
    """The bus after a plan."""
    for step in steps:
        bus = run_step(step, bus, tools, person)
    return bus


def run_step(step: Step, bus: Bus, tools: Tools, person: Person) -> Bus:
    """The bus after a step; where none are left, only facts can be looked up."""
    if not len(bus.items) and not isinstance(step, LookUp | Named):
        shown = np.zeros(0, dtype=np.int32) if isinstance(step, Show) else bus.shown
        return replace(bus, shown=shown).told(step.tool, said(step), "no candidates are left", failed=True)
    try:
        return apply(step, bus, tools, person)
    except TastemakerError as error:
        left = bus.keep(np.zeros(0, dtype=np.int64)) if isinstance(step, HardFilter) else bus
        return left.left(step.tool, said(step), error.message.splitlines()[0], failed=True)


@singledispatch
def apply(step: Any, bus: Bus, tools: Tools, person: Person) -> Bus:
    """The bus after one tool."""
    raise UsageError(f"a plan holds steps, got {type(step).__name__}")


@apply.register
def _(step: Named, bus: Bus, tools: Tools, person: Person) -> Bus:
    found, unknown = tools.numbers(step.names)
    place = _places(bus.start, len(tools.popularity))
    items = found[place[found] >= 0]
    notes = [f"not in the catalogue: {', '.join(name[:CELL] for name in unknown)}"] if unknown else []
    if len(items) < len(found):
        notes.append(f"{len(found) - len(items)} may not be shown")
    taken = replace(bus, items=items, likeness=None, scores=None).capped(tools.cap)
    return taken.left(step.tool, said(step), *notes, failed=not len(items))


@apply.register
def _(step: LookUp, bus: Bus, tools: Tools, person: Person) -> Bus:
    notes: list[str] = []
    items, unknown = tools.numbers(step.names) if step.names else (most_chosen(tools.popularity), [])
    if unknown:
        notes.append(f"not in the catalogue: {', '.join(name[:CELL] for name in unknown)}")
    if step.where:
        places, more = tools.filtered(step.where, items)
        items, notes = items[places], [*notes, *more]
    every = [tools.lexicon.title, *tools.lexicon.by_name]
    columns = list(dict.fromkeys([every[0], *(name for name in step.columns if name in every)]))
    columns = columns if len(columns) > 1 else every[:8]
    rows = items[: max(1, FACTS // (40 * len(columns)))]
    width = max(8, FACTS // max(len(rows) * (len(columns) + 1), 1) - 12)
    told = [" | ".join(f"{n}: {v}" for n, v in row.items()) for row in tools.facts(rows, columns, width)]
    head = f"{len(items):,} found" + (f", the {len(rows)} most chosen" if len(rows) < len(items) else "")
    return bus.told(step.tool, said(step), "\n".join([*notes, head, *told]), failed=not len(items))


@apply.register
def _(step: HardFilter, bus: Bus, tools: Tools, person: Person) -> Bus:
    places, notes = tools.filtered(step.where, bus.items)
    return bus.keep(places).capped(tools.cap).left(step.tool, said(step), *notes)


@apply.register
def _(step: SoftFilter, bus: Bus, tools: Tools, person: Person) -> Bus:
    seeds, unknown = tools.numbers(step.like)
    notes = [f"not in the catalogue: {', '.join(name[:CELL] for name in unknown)}"] if unknown else []
    if not len(seeds):
        return bus.left(step.tool, said(step), *notes, failed=True)
    scores = tools.alike(seeds)
    rank = min(max(1, int(step.share * len(scores))), len(scores) - 1)
    bar = np.partition(scores, len(scores) - 1 - rank)[
        len(scores) - 1 - rank
    ]  # `rank` items of the catalogue lie above
    here = scores[bus.items]
    others = ~np.isin(bus.items, seeds)
    places = np.flatnonzero((here > bar) & others)
    if not len(places):
        places = np.flatnonzero(others)
        notes.append("none is that much alike, so all stay")
    return replace(bus, likeness=here).keep(places).capped(tools.cap).left(step.tool, said(step), *notes)


@apply.register
def _(step: Ranking, bus: Bus, tools: Tools, person: Person) -> Bus:
    prefer, unknown = tools.numbers(step.prefer)
    unwanted, strange = tools.numbers(step.unwanted)
    notes = [f"not in the catalogue: {', '.join(n[:CELL] for n in [*unknown, *strange])}"] if unknown or strange else []
    by = "preference" if len(prefer) else step.by
    known = np.unique([*person.history, *person.liked, *prefer.tolist()]).astype(np.int32)
    if by == "preference" and not len(known):
        by = "popularity"
        notes.append("by popularity, as nobody knows what is liked")
    if by == "similarity" and bus.likeness is None:
        by = "popularity"
        notes.append("by popularity, as nothing was asked to be alike")
    bus = bus.keep(np.flatnonzero(~np.isin(bus.items, unwanted)))
    if by == "preference":
        items, scores = tools.suited(person, _in_order(person, prefer), bus.items)
        place = _places(bus.items, len(tools.popularity))[items]
        scores = _between(scores)
        scores[np.isin(items, known)] = 0.0  # what is known already comes last
        order = np.argsort(-scores, kind="stable")
        ranked = replace(bus.keep(place[order]), scores=scores[order])
    else:
        scores = np.log1p(tools.popularity[bus.items]) if bus.likeness is None or by == "popularity" else bus.likeness
        order = np.argsort(-scores, kind="stable")
        ranked = replace(bus.keep(order), scores=scores[order])
    if tools.diverse:
        ranked = _drawn(ranked, tools.top, person.seed)
        notes.append("drawn by score, for diversity")
    return ranked.capped(tools.top).left(step.tool, said(step), f"by {by}", *notes)


@apply.register
def _(step: Show, bus: Bus, tools: Tools, person: Person) -> Bus:
    shown = bus.items[: step.k]
    return replace(bus, shown=shown).told(step.tool, said(step), f"{len(shown)} shown")


def _cell(value: Any, width: int) -> str:
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value), width)


def most_chosen(popularity: Floats) -> Numbers:
    """All items [I], those most chosen first; among equals none comes first for its number's sake."""
    return np.lexsort((mix(np.arange(len(popularity))), -popularity)).astype(np.int32)


def said(step: Step) -> str:
    """What a step was given, in words."""
    given = step.model_dump(exclude={"tool"})
    words = {
        n: "; ".join(map(str, v)) if isinstance(v, tuple) else str(v) for n, v in given.items() if v not in ("", ())
    }
    return one_line(", ".join(f"{name}: {value}" for name, value in words.items()), 300)


def one_line(text: str, width: int) -> str:
    """Text on one line, without signs that steer a terminal or a page, cut to a width."""
    plain = text[: 4 * width]
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else " " for c in plain)
    plain = " ".join(plain.split())
    return plain if len(plain) <= width else plain[: max(width - 1, 0)] + "…"


def _in_order(person: Person, prefer: Numbers) -> Numbers:
    """What a person is known to like, each item at its latest mention."""
    mentioned = [*person.history, *person.liked, *prefer.tolist()]
    return np.array(list(dict.fromkeys(reversed(mentioned)))[::-1], dtype=np.int32)


def _places(items: Numbers, n: int) -> NDArray[np.int64]:
    """Where each item of the catalogue stands among these [n]; -1: nowhere."""
    place = np.full(n, -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    return place


def _between(scores: Floats) -> Floats:
    """Scores between 0 and 1, in the same order: their logistic function, about their middle and by their spread."""
    if not len(scores):
        return scores.astype(np.float32)
    spread = max(float(scores.std()), 1e-12)
    return np.asarray(1 / (1 + np.exp(-np.clip((scores - scores.mean()) / spread, -15, 15))), dtype=np.float32)


def _drawn(bus: Bus, k: int, seed: int) -> Bus:
    """k candidates drawn one after the other without return, each as likely as its share of the scores left.

    Ref: Efraimidis, Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    assert bus.scores is not None
    weights = np.maximum(bus.scores.astype(np.float64), 1e-9)
    keys = np.log(np.random.default_rng(seed).random(len(weights))) / weights
    drawn = bus.keep(np.argsort(-keys, kind="stable")[:k])
    return replace(drawn, scores=np.linspace(1.0, 0.0, len(drawn.items), dtype=np.float32))
