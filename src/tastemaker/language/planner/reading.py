"""A sentence read by rules: which titles, values, bounds and comparisons of a catalogue it names, and to what end.

    reader = Reader(Lexicon(catalogue))
    reading = reader.read("something like Heat, but newer and no horror")
    reading.titles, reading.values, reading.bounds, reading.relatives

Names are looked for first, the longest first: to the letter, then nearly, where quotation marks, capitals or a cue say
that there is one. Then cues are walked through from left to right, which say in what role each name stands. A text is
read once and by itself: nothing depends on who said it, or when.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from tastemaker.language.planner.lexicon import Lexicon
from tastemaker.language.planner.measures import Bound, Relative, quantities, relatives
from tastemaker.language.planner.mentions import Finder, Span, cues_of
from tastemaker.language.planner.phrases import (
    ACCEPT,
    AFRESH,
    AFTER_ORDINAL,
    BAD,
    BAD_PHRASES,
    BYES,
    COUNT,
    ELSE,
    GOOD,
    GREETINGS,
    HELP,
    IDENTITY,
    NUMBERS,
    ORDINALS,
    ORDINARY,
    POPULAR,
    RESET,
    SEEN_PHRASES,
    SENTENCE,
    THANKS,
    roots,
)
from tastemaker.language.planner.spelling import Token, tokens

LONGEST = 2_000  # characters of a text that are read
KEPT = 4_096  # texts whose reading is remembered
Role = Literal["like", "seen", "refuse", "named", "than", "plain"]
Intent = Literal["wish", "greeting", "thanks", "bye", "help", "identity", "accept"]


@dataclass(frozen=True)
class Title:
    """Items named: their rows, in what role, and which words say so."""

    rows: tuple[int, ...]
    role: Role
    start: int
    end: int


@dataclass(frozen=True)
class Value:
    """A value named: (column, value) by number, several where several columns have it; whether it is wanted."""

    options: tuple[tuple[int, int], ...]
    wanted: bool
    start: int
    end: int
    either: bool = False  # "or" stands between it and the value before


@dataclass(frozen=True)
class Flag:
    facet: str
    wanted: bool


@dataclass(frozen=True)
class Ref:
    """Items of the last list: their places, or all of them; in what role."""

    places: tuple[int, ...]
    role: Role
    at: int = 0


@dataclass(frozen=True)
class Word:
    """A word that texts of the catalogue have."""

    text: str
    wanted: bool


@dataclass(frozen=True)
class Reading:
    """All that was understood of a text."""

    text: str
    intent: Intent = "wish"
    titles: tuple[Title, ...] = ()
    values: tuple[Value, ...] = ()
    flags: tuple[Flag, ...] = ()
    bounds: tuple[Bound, ...] = ()
    relatives: tuple[Relative, ...] = ()
    refs: tuple[Ref, ...] = ()
    words: tuple[Word, ...] = ()
    k: int | None = None
    count: bool = False  # it asks how many
    anew: bool = False  # it takes back what was said before
    other: bool = False  # it asks for others than were shown
    popular: bool = False
    tokens: tuple[Token, ...] = field(default=(), repr=False)

    @property
    def empty(self) -> bool:
        """Whether nothing of the catalogue was named."""
        return not (
            self.titles or self.values or self.flags or self.bounds or self.relatives or self.refs or self.words
        )


class Reader:
    """Reads texts against a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.finder = Finder(lexicon)
        self.read = lru_cache(maxsize=KEPT)(self._read)

    def _read(self, text: str) -> Reading:
        clean = "".join(" " if unicodedata.category(c)[0] == "C" and c != "\n" else c for c in text[:LONGEST])
        words = tokens(unicodedata.normalize("NFC", clean))
        if not words:
            return Reading(text)
        cues = cues_of(words)
        spans = self.finder.spans(words, cues)
        taken = [False] * len(words)
        for span in spans:
            taken[span.start : span.end] = [True] * (span.end - span.start)
        bounds = quantities(words, taken, self.lexicon.facets)
        compared = relatives(words, taken, self.lexicon.facets)
        spans = self.finder.by_root(words, taken, spans)
        reading = self._in_roles(Reading(text, tokens=tuple(words)), words, cues, spans, taken)
        reading = replace(reading, bounds=tuple(bounds), relatives=tuple(compared))
        return self._intent(reading, words, taken)

    # -- roles

    def _in_roles(
        self, reading: Reading, words: Sequence[Token], cues: Sequence[str], spans: Sequence[Span], taken: list[bool]
    ) -> Reading:
        """Walk through the text from left to right: what a cue says holds until the next, or the end of a sentence."""
        titles: list[Title] = []
        values: list[Value] = []
        flags: list[Flag] = []
        refs: list[Ref] = []
        said: list[Word] = []
        by_start = {span.start: span for span in spans}
        flagged = {facet.words: facet.name for facet in self.lexicon.facets if facet.kind == "flag"}
        attitude, wanted, clause = "wish", True, 0
        at = 0
        while at < len(words):
            word = words[at]
            span = by_start.get(at)
            if span is not None:
                role = _role(attitude, wanted)
                if role == "plain" and at and words[at - 1].text in ("watch", "see", "play", "read", "buy"):
                    role = "named"
                if span.rows:
                    titles.append(Title(span.rows, role, span.start, span.end))
                else:
                    options = self._meant(span.options, words, span.start)
                    before = values[-1] if values else None
                    either = before is not None and _either(words, before.end, span.start)
                    values.append(Value(options, wanted and attitude != "dislike", span.start, span.end, either))
                at = span.end
                continue
            if word.text in SENTENCE or cues[at] == "wish":
                if word.text in SENTENCE:
                    self._close(words, clause, at, titles, values, refs)
                    clause = at + 1
                attitude, wanted = "wish", True
            elif cues[at] == "not":
                wanted = attitude in ("wish", "like", "about", "named") and not (attitude == "wish" and not wanted)
                wanted, attitude = (False, attitude) if wanted else (wanted, attitude)
                if attitude == "like":
                    attitude = "wish"
            elif cues[at] == "like":
                attitude = "like"
            elif cues[at] == "seen":
                attitude, wanted = ("named", True) if not wanted or _asked_of_us(words, at) else ("seen", True)
            elif cues[at] == "dislike":
                attitude, wanted = "dislike", True
            elif cues[at]:
                attitude = cues[at]
                wanted = wanted if cues[at] == "about" else True
            elif word.text in (",", "and", "with") and at + 1 < len(words) and words[at + 1].text in AFRESH:
                wanted, attitude = True, "wish" if attitude != "like" else attitude
            elif (place := self._ordinal(words, at)) is not None:
                refs.append(Ref(place, _role(attitude, wanted), at))
            elif not taken[at]:
                flag = next((n for w, n in flagged.items() if _matches(words, at, w)), None)
                if flag is not None:
                    flags.append(Flag(flag, wanted))
                elif attitude == "about" and word.text.isalpha() and word.text not in ORDINARY and len(word.text) > 2:
                    said += [Word(word.text, wanted)] if len(self.lexicon.with_word(word.text)) else []
            at += 1
        self._close(words, clause, len(words), titles, values, refs)
        return replace(
            reading,
            titles=tuple(titles),
            values=tuple(values),
            flags=tuple(flags),
            refs=tuple(refs),
            words=tuple(said),
        )

    def _close(
        self,
        words: Sequence[Token],
        start: int,
        end: int,
        titles: list[Title],
        values: list[Value],
        refs: list[Ref],
    ) -> None:
        """What a clause says after its names: "X is not my thing", "X was great"."""
        for place, title in enumerate(titles):
            if start <= title.start < end and title.role == "plain":
                role = _judged([word.text for word in words[title.end : end]])
                if role:
                    titles[place] = replace(title, role=role)
        for place, ref in enumerate(refs):
            if start <= ref.at < end and ref.role == "plain":
                role = _judged([word.text for word in words[ref.at + 1 : end]])
                refs[place] = replace(ref, role=role) if role else ref
        for place, value in enumerate(values):
            after = [word.text for word in words[value.end : end]] if start <= value.start < end else []
            if value.wanted and _judged(after, of_values=True) == "refuse":
                values[place] = replace(value, wanted=False)

    def _meant(
        self, options: tuple[tuple[int, int], ...], words: Sequence[Token], start: int
    ) -> tuple[tuple[int, int], ...]:
        """Of several columns with a value those that the words before it name, as in "directed by"."""
        if len(options) == 1:
            return options
        before = [root for word in words[max(0, start - 3) : start] for root in roots(word.text, 3)]
        named = [
            one
            for one in options
            if any(root in before for part in self.lexicon.facets[one[0]].words for root in roots(part, 3))
        ]
        return tuple(named) or options

    def _ordinal(self, words: Sequence[Token], at: int) -> tuple[int, ...] | None:
        """Places in the last list that a word means: "the second one", "the first two", "both"; None: none."""
        text = words[at].text
        after = words[at + 1].text if at + 1 < len(words) else "."
        if text in ORDINALS:
            the = at > 0 and words[at - 1].text in ("the", "than", "your", "that", "and", "not", "or")
            if not the:
                return None
            if after in NUMBERS and 1 < NUMBERS[after] < 11:
                n = NUMBERS[after]
                return tuple(range(n)) if text == "first" else tuple(range(-n, 0))
            ends = not after[:1].isalnum() or after in AFTER_ORDINAL or words[at - 1].text == "than"
            return (ORDINALS[text],) if ends else None
        if text == "#" and after.isdigit() and 0 < int(after) < 101:
            return (int(after) - 1,)
        if text == "number" and (after.isdigit() or after in NUMBERS):
            n = int(after) if after.isdigit() else NUMBERS[after]
            return (n - 1,) if 0 < n < 101 else None
        if text in ("both", "these", "those", "them") or (text == "all" and after in ("of", "the")):
            return ()
        return None

    # -- what for

    def _intent(self, reading: Reading, words: Sequence[Token], taken: Sequence[bool]) -> Reading:
        plain = " ".join(word.text for word in words if word.is_word)
        padded = f" {plain} "
        only = [word.text for word in words if word.is_word]
        intent: Intent = "wish"
        bare = not (reading.titles or reading.values or reading.bounds or reading.words or reading.flags)

        def says(phrases: Sequence[str]) -> bool:
            return any(f" {phrase} " in padded for phrase in phrases)

        if bare and says(IDENTITY):
            intent = "identity"
        elif bare and len(only) <= 8 and says(HELP) and "help me find" not in plain:
            intent = "help"
        elif not (reading.values or reading.bounds) and (
            says(ACCEPT[:9]) or (bare and len(only) <= 8 and says(ACCEPT))
        ):
            intent = "accept"
        elif bare and not reading.relatives and not reading.refs:
            if len(only) <= 6 and set(only) & THANKS and not set(only) & {"no"}:
                intent = "thanks"
            elif len(only) <= 4 and set(only) & BYES:
                intent = "bye"
            elif len(only) <= 6 and set(only) & GREETINGS and set(only) <= ORDINARY | GREETINGS:
                intent = "greeting"
        return replace(
            reading,
            intent=intent,
            k=_asked_for(words, taken),
            count=says(COUNT),
            anew=says(RESET),
            other=says(ELSE),
            popular=bool(set(only) & POPULAR),
        )


# -- small questions about words


def _role(attitude: str, wanted: bool) -> Role:
    roles: dict[str, Role] = {"like": "like", "seen": "seen", "dislike": "refuse", "than": "than", "named": "named"}
    return "refuse" if not wanted else roles.get(attitude, "plain")


def _judged(after: Sequence[str], *, of_values: bool = False) -> Role | None:
    """What is said of a name behind it, within its clause."""
    text = f" {' '.join(after[:10])} "
    if any(f" {phrase} " in text for phrase in BAD_PHRASES) or set(after[:6]) & BAD:
        return "refuse"
    if not of_values:
        if any(f" {phrase} " in text for phrase in SEEN_PHRASES):
            return "seen"
        if set(after[:8]) & GOOD and "not" not in after[:8]:
            return "like"
    return None


def _either(words: Sequence[Token], start: int, end: int) -> bool:
    between = {word.text for word in words[start:end]}
    return "or" in between and end - start <= 6


def _asked_of_us(words: Sequence[Token], at: int) -> bool:
    """Whether "seen" is asked of the system: "have you seen X"."""
    return any(word.text == "you" for word in words[max(0, at - 2) : at])


def _matches(words: Sequence[Token], at: int, name: tuple[str, ...]) -> bool:
    told = [word for word in name if word not in ("is", "has", "in")] or list(name)
    return [word.text for word in words[at : at + len(told)]] == told


def _asked_for(words: Sequence[Token], taken: Sequence[bool]) -> int | None:
    """How many items are asked for: "show me three", "five films", "top 10"."""
    for at, word in enumerate(words):
        n = int(word.text) if word.text.isdigit() and len(word.text) < 4 else NUMBERS.get(word.text)
        if n is None or not 0 < n <= 100 or taken[at] or at == 0 or word.text in ("one", "first"):
            continue
        before = words[at - 1].text
        if before in ("me", "top", "best", "another", "show", "give", "recommend", "suggest", "name", "list", "find"):
            return n
    return None
