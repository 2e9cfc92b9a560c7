"""Invented dialogues with known targets: a person who has one item of a catalogue in mind, and says so bit by bit.

    data = with_dialogues(synthetic(1_000), n=200)          # a Dataset whose `dialogues` is a table, a row a turn
    person = Person.of(catalogue, target=17, seed=0)        # the same person, to talk to
    said = person.opens()                                   # Said(text="...", facts=(...), ...)
    said = person.hears(["The Quiet Orchard", ...])         # answers a list: accepts, refuses, says more

The person knows the facts of the target and never says its title. What each sentence means is kept beside it, so that
whoever reads it can be judged. There are two sets of phrasings, "known" and "held out", which share none: what was
made with one is judged by the other. The words fit films as well as anything else that has columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from tastemaker.types import Dataset, NotFound, UsageError, generator, infer_kind, nearest

Phrasing = Literal["known", "held out"]
Role = Literal["like", "seen", "refuse"]
FEW = 60  # values of a column up to which they describe ("a tense film"); more are names ("by Ilva Torren")
MONEY = ("price", "cost", "fee")
TIMES = ("year", "released", "published")
LENGTHS = ("minutes", "hours", "pages")

PHRASINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "known": {
        "greeting": ("Hello!", "Hi there."),
        "describe": (
            "I am looking for a {value} {noun}.",
            "Show me some {value} {noun}s, please.",
            "Can you recommend a {value} {noun}?",
            "I want something {value}.",
            "Do you have any {value} {noun}s?",
        ),
        "name": ("Something by {value}.", "A {noun} with {value}, please.", "Do you have anything from {value}?"),
        "money": ("It should cost less than {n} dollars.", "Under ${n}, please.", "No more than {n} dollars."),
        "length": ("It should be shorter than {n} {unit}.", "Under {n} {unit}, please.", "At most {n} {unit}."),
        "decade": ("Something from the {decade}s.", "It should be made in the {decade}s."),
        "since": ("It should be newer than {n}.", "Something made after {n}, please."),
        "until": ("It should be older than {n}.", "Something made before {n}, please."),
        "number": ("With a {column} below {n}.", "The {column} should be under {n}."),
        "not": ("No {value}, please.", "I don't like {value} {noun}s.", "Anything but {value}."),
        "like": ("I loved {title}.", "Something like {title}, please.", "I want a {noun} similar to {title}."),
        "seen": ("I have seen {title}.", "I already watched {title}."),
        "refuse": ("Not {title}.", "I don't want {title}."),
        "accept": ("Yes, that is it, thank you!", "Great, I will take {title}."),
    },
    "held out": {
        "greeting": ("Good evening to you.", "Hey!"),
        "describe": (
            "Got a {value} {noun} for me?",
            "In the mood for {value} stuff.",
            "Let's go with {value} this evening.",
            "My cousin wants a {value} {noun}; ideas?",
            "What would you suggest if I fancy something {value}?",
            "Please dig out a decent {value} {noun}.",
        ),
        "name": (
            "Is there a {noun} featuring {value}?",
            "{value} should be part of it.",
            "I am a big admirer of {value}, what do you have?",
            "How about one involving {value}?",
        ),
        "money": ("I can spend {n} dollars tops.", "Keep it below ${n}.", "My budget is {n} dollars."),
        "length": (
            "I have {n} {unit} and not one more.",
            "It mustn't run beyond {n} {unit}.",
            "{n} {unit} is all I have.",
        ),
        "decade": ("One out of the {decade}s would be lovely.", "Think {decade}s."),
        "since": ("Nothing that came out before {n}.", "{n} or later, please."),
        "until": ("It has to predate {n}.", "Only things up to {n}."),
        "number": ("Its {column} mustn't exceed {n}.", "Give me a {column} of {n} or less."),
        "not": ("Spare me the {value}.", "I can't bear {value} {noun}s.", "Leave out everything {value}."),
        "like": (
            "{title} was right up my street.",
            "More in the direction of {title}, if you can.",
            "Big fan of {title} over here.",
        ),
        "seen": ("Been there, {title} is old news to me.", "I know {title} by heart already."),
        "refuse": ("{title} does nothing for me.", "Scratch {title}."),
        "accept": ("Perfect, sold.", "{title} it is, cheers."),
    },
}
"""How each thing is said. {noun}: what an item is called; {title}: of an item that is not the target."""


@dataclass(frozen=True)
class Fact:
    """What is wanted of a column: a value it has, or a bound of its numbers."""

    column: str
    value: str | float
    sign: Literal["=", "<=", ">=", "<", ">"] = "="

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.value}"


@dataclass(frozen=True)
class Said:
    """A sentence and what it means: facts wanted, facts unwanted, titles in their roles, whether it accepts."""

    text: str
    facts: tuple[Fact, ...] = ()
    unwanted: tuple[Fact, ...] = ()
    titles: tuple[tuple[str, Role], ...] = ()
    accepts: bool = False


@dataclass(frozen=True)
class Person:
    """Somebody with a target in mind. Each call returns what is said and the person afterwards: nothing is hidden.

    liked: titles known and liked; facts: what may still be said of the target, in the order it will be;
    foreign: values that the target does not have, to be refused; turn: how often the person spoke.
    """

    target: str
    facts: tuple[tuple[str, Fact], ...]
    foreign: tuple[Fact, ...]
    liked: tuple[str, ...]
    phrasing: Phrasing
    noun: str
    seed: int
    turn: int = 0
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        catalogue: pl.DataFrame,
        target: int,
        *,
        liked: Sequence[int] = (),
        seed: int = 0,
        phrasing: Phrasing = "known",
        noun: str = "film",
        title: str = "title",
    ) -> Person:
        """A person who wants one row of a catalogue, and knows and likes others.

        Raises:
            NotFound: there is no such row, or no column of titles.
        """
        if title not in catalogue.columns:
            raise NotFound(f"the catalogue has no column {title!r}", hint=nearest(title, catalogue.columns))
        if not 0 <= target < catalogue.height:
            raise NotFound(f"items are numbered from 0 to {catalogue.height - 1}, got {target}")
        if phrasing not in PHRASINGS:
            raise UsageError(f"there are the phrasings {', '.join(PHRASINGS)}, got {phrasing!r}")
        rng = generator(seed, "person", target)
        facts, foreign = _facts(catalogue, target, rng, title)
        titles = catalogue[title].cast(pl.String)
        known = tuple(titles[int(row)] for row in liked if int(row) != target and titles[int(row)])
        return cls(titles[target] or "", tuple(facts), tuple(foreign), known, phrasing, noun, seed)

    def opens(self) -> tuple[Said, Person]:
        """The first wish: one fact, sometimes two, sometimes a title that is liked."""
        rng = self._rng()
        count = 2 if rng.random() < 0.4 else 1
        said, person = self._tells(count, rng)
        if self.liked and rng.random() < 0.4:
            title = self.liked[int(rng.integers(len(self.liked)))]
            said = _joined(said, Said(self._words("like", rng, title=title), titles=((title, "like"),)))
        return said, person._spoke()

    def hears(self, titles: Sequence[str]) -> tuple[Said, Person]:
        """Answers a list: takes the target if it is there; else says more, or refuses what does not fit."""
        rng = self._rng()
        if self.target in titles:
            return Said(self._words("accept", rng, title=self.target), accepts=True), self._spoke()
        said, person = self._tells(1, rng)
        draw = rng.random()
        if titles and draw < 0.35:
            role: Role = "seen" if draw < 0.15 else "refuse"
            title = titles[int(rng.integers(len(titles)))]
            said = _joined(Said(self._words(role, rng, title=title), titles=((title, role),)), said)
        elif self.foreign and draw < 0.6:
            fact = person.foreign[0]
            person = replace(person, foreign=person.foreign[1:])
            said = _joined(said, Said(self._words("not", rng, value=fact.value), unwanted=(fact,)))
        return said, person._spoke()

    def answers(self, column: str) -> tuple[Said, Person]:
        """Answers what is asked of a column, or says that it does not matter."""
        rng = self._rng()
        for place, (act, fact) in enumerate(self.facts):
            if fact.column == column:
                said = Said(self._words(act, rng, **_spoken(fact)), facts=(fact,))
                return said, replace(self, facts=self.facts[:place] + self.facts[place + 1 :])._spoke()
        return Said("I don't mind."), self._spoke()

    # -- within

    def _rng(self) -> np.random.Generator:
        return generator(self.seed, "says", self.turn)

    def _spoke(self) -> Person:
        return replace(self, turn=self.turn + 1)

    def _tells(self, count: int, rng: np.random.Generator) -> tuple[Said, Person]:
        said = Said("")
        for act, fact in self.facts[:count]:
            said = _joined(said, Said(self._words(act, rng, **_spoken(fact)), facts=(fact,)))
        if not said.text:
            said = Said("Something else, please.")
        return said, replace(self, facts=self.facts[count:])

    def _words(self, act: str, rng: np.random.Generator, **parts: Any) -> str:
        forms = PHRASINGS[self.phrasing][act]
        return forms[int(rng.integers(len(forms)))].format(noun=self.noun, **parts)


def with_dialogues(
    data: Dataset, n: int = 200, *, seed: int = 0, phrasing: Phrasing = "known", noun: str = "film", turns: int = 4
) -> Dataset:
    """The dataset with a table of `n` invented dialogues about its items; see `dialogues`."""
    return replace(data, dialogues=dialogues(data, n, seed=seed, phrasing=phrasing, noun=noun, turns=turns))


def dialogues(
    data: Dataset, n: int = 200, *, seed: int = 0, phrasing: Phrasing = "known", noun: str = "film", turns: int = 4
) -> pl.DataFrame:
    """Dialogues of people of the dataset, whose target is their last choice and who like what they chose before.

    A row a turn: dialogue, turn, speaker ("person" or "system"), text, items (numbers shown), user, target, and what
    the text means: facts, unwanted (as "column = value"), titles (as "role: title"). The system shows lists of random
    items, and the target at last: the table is for reading sentences, not for judging lists.
    """
    history = data.histories()
    chose = np.flatnonzero(history.lengths > 1)
    if not len(chose):
        raise UsageError(f"nobody of {data.name} chose two items, so nobody has a target and something liked before")
    rng = generator(seed, "dialogues")
    users = chose[rng.integers(0, len(chose), n)]
    titles = data.items["title"] if "title" in data.items.columns else data.items["item"]
    rows: list[dict[str, Any]] = []
    for number, user in enumerate(users.tolist()):
        chosen = history.values["item"][history.offsets[user] : history.offsets[user + 1]]
        target, before = int(chosen[-1]), [int(row) for row in chosen[-6:-1]]
        key = {"dialogue": number, "user": user, "target": target}
        person = Person.of(
            data.items, target, liked=before, seed=seed * 1_000_003 + number, phrasing=phrasing, noun=noun,
            title=titles.name,
        )  # fmt: skip
        said, person = person.opens()
        rows.append({**key, **_row(said, 0)})
        for turn in range(1, turns):
            shown = rng.integers(0, data.n_items, 5)
            shown = shown[shown != target] if turn < turns - 1 else np.append(shown[:4], target)
            names = [str(title) for title in titles.gather(shown)]
            text = "How about these? " + "; ".join(names)
            rows.append({**key, **_row(Said(text), 2 * turn - 1), "speaker": "system", "items": shown.tolist()})
            said, person = person.hears(names)
            rows.append({**key, **_row(said, 2 * turn)})
    wanted: dict[str, Any] = {
        "dialogue": pl.Int32, "turn": pl.Int32, "speaker": pl.String, "text": pl.String, "items": pl.List(pl.Int32),
        "user": pl.Int32, "target": pl.Int32, "facts": pl.List(pl.String), "unwanted": pl.List(pl.String),
        "titles": pl.List(pl.String), "accepts": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=wanted)


def _row(said: Said, turn: int) -> dict[str, Any]:
    return {
        "turn": turn,
        "speaker": "person",
        "text": said.text,
        "items": [],
        "facts": [str(fact) for fact in said.facts],
        "unwanted": [str(fact) for fact in said.unwanted],
        "titles": [f"{role}: {title}" for title, role in said.titles],
        "accepts": said.accepts,
    }


def _joined(first: Said, second: Said) -> Said:
    return Said(
        " ".join(part for part in (first.text, second.text) if part),
        first.facts + second.facts,
        first.unwanted + second.unwanted,
        first.titles + second.titles,
        first.accepts or second.accepts,
    )


def _spoken(fact: Fact) -> dict[str, Any]:
    """What the phrasings of a fact are filled with."""
    if isinstance(fact.value, str):
        return {"value": fact.value}
    shown = f"{fact.value:g}" if abs(fact.value) < 1e6 else f"{fact.value:.0f}"
    return {"n": shown, "decade": shown, "column": fact.column.replace("_", " "), "unit": fact.column}


def _facts(
    catalogue: pl.DataFrame, target: int, rng: np.random.Generator, title: str
) -> tuple[list[tuple[str, Fact]], list[Fact]]:
    """Facts of the target with how they are said, shuffled; and values of other items that it does not have."""
    facts: list[tuple[str, Fact]] = []
    foreign: list[Fact] = []
    said = str(catalogue[title][target] or "").lower()  # a series named as its first part would give the title away
    for name in catalogue.columns:
        values = catalogue[name]
        if name in ("item", "available", title) or values[target] is None:
            continue
        kind = infer_kind(values)
        if kind == "number" and values.dtype.is_numeric():
            facts.append(_bound(name, float(values[target]), rng))
        elif kind in ("category", "categories"):
            listed = values.explode() if kind == "categories" else values
            known = listed.drop_nulls().cast(pl.String)
            mine = [str(v) for v in (values[target] if kind == "categories" else [values[target]]) if v is not None]
            mine = [value for value in mine if value.lower() not in said and said not in value.lower()]
            few = known.n_unique() <= FEW
            if mine:
                facts.append(("describe" if few else "name", Fact(name, mine[int(rng.integers(len(mine)))])))
            other = str(known[int(rng.integers(len(known)))])
            if few and other not in mine:
                foreign.append(Fact(name, other))
    order = rng.permutation(len(facts))
    return [facts[place] for place in order], foreign


def _bound(name: str, value: float, rng: np.random.Generator) -> tuple[str, Fact]:
    """A bound that the value keeps, as people would say it."""
    if name in TIMES and 1000 <= value <= 2200:
        draw = rng.random()
        if draw < 0.4:
            return "decade", Fact(name, value // 10 * 10)
        away = float(rng.integers(1, 12))
        return ("since", Fact(name, value - away, ">=")) if draw < 0.7 else ("until", Fact(name, value + away, "<="))
    room = value + max(1.0, abs(value) * float(rng.uniform(0.05, 0.4)))
    limit = float(np.ceil(room))
    act = "money" if name in MONEY else "length" if name in LENGTHS else "number"
    return act, Fact(name, limit, "<=")
