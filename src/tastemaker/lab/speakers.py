"""Who speaks for the people of a world that talks: rules, or a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import polars as pl

from tastemaker.contracts import ChatModel
from tastemaker.data.dialogues import Person
from tastemaker.language.tasks import PersonAsked, PersonSays, Turn
from tastemaker.types import NotFound, nearest

KNOWN = 10  # titles of a history that a person may speak of
LONG = 300  # characters of a fact that are told
DRAWS = 5  # how often a model may try to say something without the title
NAMED = 0.6  # a text names a title with so large a part of it in one piece


@dataclass(frozen=True)
class Rules:
    """People of `tastemaker.data.dialogues`: a fact or two a turn, in phrasings the planner was not made with."""

    catalogue: pl.DataFrame = field(repr=False)
    title: str = "title"
    noun: str = "film"

    @property
    def identity(self) -> str:
        return f"rules, {self.noun}, {self.title}"

    def opens(self, target: int, history: Sequence[int], seed: int) -> tuple[str, Person]:
        person = Person.of(
            self.catalogue, target, liked=history[-5:], seed=seed, phrasing="held out", noun=self.noun,
            title=self.title,
        )  # fmt: skip
        said, person = person.opens()
        return said.text, person

    def hears(self, mind: Person, shown: Sequence[int], text: str) -> tuple[str, Person]:
        titles = self.catalogue[self.title].cast(pl.String)
        said, person = mind.hears([titles[item] or "" for item in shown])
        return said.text, person


@dataclass(frozen=True)
class Played:
    """People that a language model plays, told the facts of what they want and what they chose before.

    A message that names the title is asked for anew, `DRAWS` times at most; then the title is taken out of it.
    """

    chat: ChatModel
    catalogue: pl.DataFrame = field(repr=False)
    title: str = "title"

    @property
    def identity(self) -> str:
        return f"played by {self.chat.identity}"

    def opens(self, target: int, history: Sequence[int], seed: int) -> tuple[str, PersonAsked]:
        row = self.catalogue.row(target, named=True)
        facts = {name: text for name, value in row.items() if (text := self._told(name, value))}
        titles = self.catalogue[self.title].cast(pl.String)
        known = tuple(titles[item] or "" for item in history[:KNOWN])
        return self._says(PersonAsked(title=str(row[self.title] or ""), facts=facts, history=known))

    def hears(self, mind: PersonAsked, shown: Sequence[int], text: str) -> tuple[str, PersonAsked]:
        titles = self.catalogue[self.title].cast(pl.String)
        listed = tuple(titles[item] or "" for item in shown)
        words = Turn(who="system", text=text or "How about these?")
        return self._says(mind.model_copy(update={"dialogue": (*mind.dialogue, words), "shown": listed}))

    def _says(self, asked: PersonAsked) -> tuple[str, PersonAsked]:
        text = ""
        for again in range(DRAWS):
            text = self.chat.run("person", asked.model_copy(update={"again": again}), PersonSays).text
            if not names(text, asked.title):
                break
        else:
            text = without(text, asked.title)
        return text, asked.model_copy(
            update={"dialogue": (*asked.dialogue, Turn(who="person", text=text)), "shown": ()}
        )

    def _told(self, name: str, value: Any) -> str:
        """A fact in words; "" for what is not told."""
        if name in (self.title, "item", "available") or value is None or self.catalogue.schema[name] == pl.Datetime:
            return ""
        if isinstance(value, list | pl.Series):
            parts = list(value)
            return "" if any(isinstance(one, float) for one in parts) else ", ".join(map(str, parts))[:LONG]
        return str(value)[:LONG]


def names(text: str, title: str) -> bool:
    """Whether a text holds most of a title in one piece, letters' size and punctuation aside."""
    text, title = _bare(text), _bare(title)
    if not title:
        return False
    match = SequenceMatcher(None, text, title, autojunk=False).find_longest_match()
    return match.size >= NAMED * len(title) and (len(title) > 3 or f" {title} " in f" {text} ")


def without(text: str, title: str) -> str:
    """The text with every word of the title, where it names that, replaced: nothing gives it away."""
    words = set(_bare(title).split())
    return " ".join("something" if _bare(word) in words else word for word in text.split())


def _bare(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def speaker(
    catalogue: pl.DataFrame, *, chat: ChatModel | None, title: str = "title", noun: str = "film"
) -> Rules | Played:
    """A language model's people where there is one, else those of the rules.

    Raises:
        NotFound: the catalogue has no such column of titles.
    """
    if title not in catalogue.columns:
        raise NotFound(f"the catalogue has no column {title!r}", hint=nearest(title, catalogue.columns))
    return Rules(catalogue, title, noun) if chat is None else Played(chat, catalogue, title)
