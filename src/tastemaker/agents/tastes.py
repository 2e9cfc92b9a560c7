"""What is known of a person over a longer time: three sets, of items by number and of wishes in words.

Only what a person said, or did with an item, comes into them. A language model reads the turns and says what they add;
an entry that stands neither in the person's own words nor in a list they speak of is left out, whatever a title or a
description told the model.

Ref: section 4.1 of Huang et al., arXiv:2308.16505, the user profile and how it is renewed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tastemaker.language.planner.spelling import words

Entry: TypeAlias = int | str
MOST = 200  # entries of a set, the latest
WIDTH = 80  # characters of a wish
FILLING = frozenset({"a", "an", "and", "any", "as", "at", "be", "but", "by", "for", "from", "i", "in", "is", "it"})
FILLING |= {"like", "me", "my", "no", "not", "of", "on", "or", "some", "that", "the", "to"}
POINTING = frozenset({"first", "second", "third", "fourth", "fifth", "last", "it", "one", "ones", "that", "this"})
POINTING |= {"these", "those", "them", "both", "all", "none", "neither", "1", "2", "3", "4", "5"}


@dataclass(frozen=True)
class Tastes:
    """Items by number, wishes in words; each once, in the order in which they came."""

    history: tuple[Entry, ...] = ()
    liked: tuple[Entry, ...] = ()
    unwanted: tuple[Entry, ...] = ()

    def merged(self, new: Tastes) -> Tastes:
        """With what is new, which overrules what was known before; what is both liked and unwanted is unwanted."""
        liked = [one for one in new.liked if one not in new.unwanted]
        return Tastes(
            _union(self.history, new.history),
            _union([one for one in self.liked if one not in new.unwanted], liked),
            _union([one for one in self.unwanted if one not in liked], new.unwanted),
        )

    def told(self, title: Callable[[int], str]) -> dict[str, list[str]]:
        """The sets as a person reads them."""
        sets = {"history": self.history, "liked": self.liked, "unwanted": self.unwanted}
        return {
            name: [title(one) if isinstance(one, int) else one for one in entries] for name, entries in sets.items()
        }

    def corrected(
        self, told: Mapping[str, Sequence[str]], title: Callable[[int], str], find: Callable[[str], int | None]
    ) -> Tastes:
        """The sets that a person wants in their place; an item that was there stays the very item."""
        before: dict[str, list[Entry]] = {}
        for one in (*self.history, *self.liked, *self.unwanted):
            before.setdefault(title(one) if isinstance(one, int) else one, []).append(one)
        sets: dict[str, tuple[Entry, ...]] = {}
        for name in ("history", "liked", "unwanted"):
            entries: list[Entry] = []
            for text in told.get(name, ()):
                entries.extend(before.get(text) or read([text], find))
            sets[name] = _union((), entries)
        return Tastes(**sets)


def read(names: Sequence[str], find: Callable[[str], int | None]) -> list[Entry]:
    """Names as entries: an item where a title is meant, else the words."""
    entries: list[Entry] = []
    for name in names:
        number = find(name)
        plain = " ".join(name[: 2 * WIDTH].split())[:WIDTH]
        if number is not None or plain:
            entries.append(plain if number is None else number)
    return entries


def supported(entry: Entry, title: Callable[[int], str], said: Collection[str], shown: Collection[int]) -> bool:
    """Whether an entry rests on what a person said: its own words, or a word that points at a list that was shown.

    said: the words the person used; shown: items that the person was shown
    """
    if isinstance(entry, int) and entry in shown and not POINTING.isdisjoint(said):
        return True
    own = [word for word in words(title(entry) if isinstance(entry, int) else entry) if word not in FILLING]
    heard = sum(any(_same(word, other) for other in said) for word in own)
    return bool(own) and 2 * heard >= len(own) + (len(own) > 2)


def _same(word: str, other: str) -> bool:
    """One word, but for its ending or a slip."""
    if word == other:
        return True
    most = min(len(word), len(other))
    return most >= 4 and word[: most - 1] == other[: most - 1] and abs(len(word) - len(other)) <= 2


def _union(old: Sequence[Entry], new: Sequence[Entry]) -> tuple[Entry, ...]:
    """Both, each entry at its latest place, the latest `MOST`."""
    last = dict.fromkeys(reversed([*old, *new]))
    return tuple(reversed(last))[-MOST:]
