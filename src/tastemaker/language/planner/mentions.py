"""Names in a sentence: titles and values of a catalogue that stand there, to the letter or nearly.

A span that could be several things is what it most likely is: a title in quotation marks, with its year behind it, in
capitals or after a cue; a value, where it is a word for a kind of item; and neither, where it is only ordinary words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tastemaker.language.planner.lexicon import Lexicon
from tastemaker.language.planner.phrases import (
    CUES,
    LINKING,
    LONGEST_CUE,
    MEASURING,
    NUMBERS,
    ORDINARY,
    SENTENCE,
    roots,
)
from tastemaker.language.planner.spelling import Token, one_slip

LONGEST_NAME = 14  # words and signs of a name
MOST_NEAR = 16  # names looked for that are not there to the letter
NEAR, NEAR_ONE, NEAR_SMALL = 0.7, 0.76, 0.78  # how alike a name must be: of several words, of one, without capitals
QUOTES = frozenset('"“”„«»')
STRONG = ("like", "seen", "dislike", "named", "than")


@dataclass(frozen=True)
class Span:
    """A name that may stand in a text: of items, or of values."""

    start: int
    end: int
    strength: float
    rows: tuple[int, ...] = ()
    options: tuple[tuple[int, int], ...] = ()


class Finder:
    """Finds names of a lexicon in texts."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._roots: dict[str, set[int]] = {}
        for number, (f, v) in enumerate(lexicon.value_of):
            facet = lexicon.facets[f]
            value = facet.values[v].lower()
            if facet.describes and value.isalpha():
                for root in roots(value):
                    self._roots.setdefault(root, set()).add(number)
        self._begun: dict[str, set[int]] = {}  # words for kinds of item by their first three letters
        for number, (f, v) in enumerate(lexicon.value_of):
            if lexicon.facets[f].describes and len(lexicon.facets[f].values[v]) > 4:
                self._begun.setdefault(lexicon.facets[f].values[v].lower()[:3], set()).add(number)
        self._short: dict[str, set[int]] = {}  # "sci fi" by the beginnings of the words it stands for
        for number, (f, v) in enumerate(lexicon.value_of):
            parts = lexicon.facets[f].values[v].lower().replace("-", " ").split()
            if lexicon.facets[f].describes and 2 <= len(parts) <= 3:
                self._short.setdefault(" ".join(part[:2] for part in parts), set()).add(number)

    def spans(self, words: Sequence[Token], cues: Sequence[str]) -> list[Span]:
        """Names that stand in the text, none within another: the surest first, then the longest."""
        spans = list(self._exact(words, cues))
        chosen = _apart(spans)
        taken = [False] * len(words)
        for span in chosen:
            taken[span.start : span.end] = [True] * (span.end - span.start)
        return sorted([*chosen, *self._near(words, cues, taken)], key=lambda span: span.start)

    def _exact(self, words: Sequence[Token], cues: Sequence[str]) -> Iterable[Span]:
        lexicon = self.lexicon
        longest = min(LONGEST_NAME, max(lexicon.titles.longest, lexicon.values.longest))
        quoted = _quoted(words)
        valued = self._valued(words)
        shouting = sum(word.capital for word in words) > 0.8 * sum(word.is_word for word in words)
        for start, first in enumerate(words):
            if not first.is_word:
                continue
            name: list[str] = []
            for end in range(start + 1, min(len(words), start + longest) + 1):
                if not words[end - 1].is_word:
                    if words[end - 1].raw in (":", ",", ".", "-", "–", "—", "&", "!", "/", "#") and end - start > 1:
                        continue  # a title may hold a sign
                    break
                name.append(words[end - 1].text)
                if not words[end - 1].is_word:
                    continue
                length = end - start
                if found := lexicon.values.exact(name):
                    options = tuple(lexicon.value_of[number] for number in found)
                    strength = self._value_strength(words, start, end, options)
                    if (
                        strength
                        and first.capital
                        and any(cues[max(0, start - 4) : start])
                        and lexicon.titles.exact(name)
                    ):
                        strength = 0.1  # a title after a cue is one, though a value is called so too
                    if strength:
                        yield Span(start, end, length + strength, options=options)
                if found := lexicon.titles.exact(name):
                    rows = tuple(dict.fromkeys(lexicon.title_of[number] for number in found))
                    rows, end_with_year, dated = self._of_year(words, end, rows)
                    strength = _title_strength(words, start, end, cues, quoted, shouting, valued) + 2 * dated
                    if strength > 0:
                        yield Span(start, end_with_year, length + strength, rows=rows)

    def _valued(self, words: Sequence[Token]) -> set[int]:
        """Places of words that describe items: a title made of them and of ordinary words is as likely none."""
        lexicon = self.lexicon
        found: set[int] = set()
        for at in range(len(words)):
            for end in (at + 1, at + 2):
                numbers = lexicon.values.exact([word.text for word in words[at:end]])
                if any(lexicon.facets[lexicon.value_of[number][0]].describes for number in numbers):
                    found |= set(range(at, min(end, len(words))))
        return found

    def _value_strength(
        self, words: Sequence[Token], start: int, end: int, options: Sequence[tuple[int, int]]
    ) -> float:
        """How sure it is that these words name a value; 0: not at all."""
        described = any(self.lexicon.facets[f].describes for f, _ in options)
        if all(_plain(word) or word.text[0].isdigit() for word in words[start:end]):
            capital = words[start].capital and start > 0 and end - start > 1
            return 0.5 if capital else 0.0
        if described:
            return 0.6
        if end - start > 1:
            return 0.5
        sure = words[start].capital and start > 0
        return 0.3 if sure or (start and words[start - 1].text in ("by", "from", "with", "of", "starring")) else 0.0

    def _of_year(self, words: Sequence[Token], end: int, rows: tuple[int, ...]) -> tuple[tuple[int, ...], int, bool]:
        """Of several items of a name those of the year that stands behind it, in brackets."""
        if (
            end + 2 < len(words)
            and words[end].raw == "("
            and words[end + 2].raw == ")"
            and words[end + 1].raw.isdigit()
        ):
            year = int(words[end + 1].raw)
            numbers = [f.numbers for f in self.lexicon.facets if f.is_year and f.numbers is not None]
            of = [
                row
                for row in rows
                if self.lexicon.years[row] == year or any(int(n[row]) == year for n in numbers if n[row] == n[row])
            ]
            if of or year > 1000:
                return tuple(of) or rows, end + 3, True
        return rows, end, False

    def _near(self, words: Sequence[Token], cues: Sequence[str], taken: Sequence[bool]) -> list[Span]:
        """Names that are nearly there, where the text says that there is a name."""
        found: list[Span] = []
        looked = 0
        for start, end, least in _candidates(words, cues, taken):
            if looked >= MOST_NEAR or any(span.start < end and start < span.end for span in found):
                continue
            looked += 1
            name = [word.text for word in words[start:end] if word.is_word]
            least = max(least, NEAR_ONE if len(name) == 1 else NEAR)
            title = self.lexicon.titles.near(name, least, 3)
            value = self.lexicon.values.near(name, max(least, 0.75), 3) if len(name) > 1 else []
            if title and (not value or title[0][1] >= value[0][1]):
                row = self.lexicon.title_of[title[0][0]]
                rows, last, _ = self._of_year(words, end, (row,))
                found.append(Span(start, last, title[0][1], rows=rows))
            elif value:
                best = [number for number, likeness in value if likeness == value[0][1]]
                found.append(Span(start, end, value[0][1], options=tuple(self.lexicon.value_of[n] for n in best)))
        return found

    def by_root(self, words: Sequence[Token], taken: list[bool], spans: list[Span]) -> list[Span]:
        """Values in another form ("romantic" of romance), cut short ("sci-fi"), or with a slip of the pen."""
        found = list(spans)
        looked = 0
        for at, word in enumerate(words):
            if taken[at] or not word.text.isalpha() or word.text in ORDINARY or word.text in CUES:
                continue
            numbers: set[int] = set()
            if at + 1 < len(words) and not taken[at + 1] and words[at + 1].text.isalpha() and len(word.text) < 5:
                pair = word.text, words[at + 1].text
                for number in self._short.get(f"{pair[0][:2]} {pair[1][:2]}", ()):
                    f, v = self.lexicon.value_of[number]
                    parts = self.lexicon.facets[f].values[v].lower().replace("-", " ").split()
                    if len(parts) == 2 and parts[0].startswith(pair[0]) and parts[1].startswith(pair[1]):
                        numbers.add(number)
                if numbers:
                    found.append(Span(at, at + 2, 0.5, options=self._options(numbers)))
                    taken[at : at + 2] = [True, True]
                    continue
                halves = [self._begun.get(half, set()) if len(half) == 3 else set() for half in pair]
                if len(halves[0]) == len(halves[1]) == 1:  # "rom com": of two values the beginnings
                    found += [Span(at + n, at + n + 1, 0.4, options=self._options(halves[n])) for n in (0, 1)]
                    taken[at : at + 2] = [True, True]
                    continue
            if len(word.text) >= 5:
                for root in roots(word.text):
                    numbers |= self._roots.get(root, set())
                if not numbers and looked < MOST_NEAR:
                    looked += 1
                    for number, _ in self.lexicon.values.near([word.text], 0.4, 8):
                        f, v = self.lexicon.value_of[number]
                        facet = self.lexicon.facets[f]
                        if facet.describes and one_slip(facet.values[v].lower(), word.text):
                            numbers.add(number)
            if numbers:
                found.append(Span(at, at + 1, 0.4, options=self._options(numbers)))
                taken[at] = True
        return sorted(found, key=lambda span: span.start)

    def _options(self, numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
        return tuple(self.lexicon.value_of[number] for number in sorted(numbers))


def _plain(word: Token) -> bool:
    return word.text in ORDINARY or word.text in NUMBERS or word.text in MEASURING


def cues_of(words: Sequence[Token]) -> list[str]:
    """What each word does as the end of a cue, "" where it is none; a longer cue hides those within it."""
    done = [""] * len(words)
    at = 0
    while at < len(words):
        for length in range(min(LONGEST_CUE, len(words) - at), 0, -1):
            phrase = " ".join(word.text for word in words[at : at + length])
            if phrase in CUES:
                done[at + length - 1] = CUES[phrase]
                at += length
                break
        else:
            at += 1
    return done


def _quoted(words: Sequence[Token]) -> set[tuple[int, int]]:
    """(start, end) of what stands in quotation marks."""
    marks = [at for at, word in enumerate(words) if word.raw in QUOTES]
    return {(a + 1, b) for a, b in zip(marks[::2], marks[1::2], strict=False) if 0 < b - a - 1 <= LONGEST_NAME}


def _title_strength(
    words: Sequence[Token],
    start: int,
    end: int,
    cues: Sequence[str],
    quoted: set[tuple[int, int]],
    shouting: bool,
    valued: set[int],
) -> float:
    """How sure it is that these words are a title; 0 or less: they are none."""
    name = [word for word in words[start:end] if word.is_word]
    if (start, end) in quoted:
        return 3.0
    cued = any(cues[at] in STRONG for at in range(max(0, start - 4), start)) and not any(
        word.text in SENTENCE for word in words[max(0, start - 4) : start]
    )
    close = start > 0 and (cues[start - 1] in STRONG or words[start - 1].text in ("directed", "watch", "see", "made"))
    told = [
        word
        for at, word in enumerate(words[start:end], start)
        if word.is_word and not _plain(word) and not word.text.isdigit() and at not in valued
    ]
    capitals = not shouting and all(word.capital or word.text in LINKING or word.text.isdigit() for word in name)
    inside = start > 0 and words[start - 1].text not in SENTENCE
    alone = len(name) == sum(word.is_word for word in words)
    if not told:
        sure = capitals and name[0].capital and inside and (len(name) > 1 or close)
        return 0.4 if sure or (close and len(name) > 1 and name[0].text not in ("that", "this", "it")) else 0.0
    if len(name) > 1:
        named = len(told) > 0.5 * len(name) or (name[0].text == "the" and len(name) == 2)
        return 0.55 if capitals or cued or len(told) > 1 or alone else 0.3 * named
    if capitals and name[0].capital and inside:
        return 0.7 if cued else 0.4
    return 0.65 if close and len(name[0].text) > 2 else 0.45 if (cued or alone) and len(name[0].text) > 3 else 0.0


def _candidates(words: Sequence[Token], cues: Sequence[str], taken: Sequence[bool]) -> Iterable[tuple[int, int, float]]:
    """(start, end, least likeness) where a name may stand that is not there to the letter."""
    free = [word.is_word and not gone for word, gone in zip(words, taken, strict=True)]
    for start, end in sorted(_quoted(words)):
        if all(free[start:end]):
            yield start, end, 0.6
    at = 0
    while at < len(words):  # runs in capitals
        if free[at] and words[at].capital and len(words[at].text) > 1:
            end = at + 1
            while (
                end < len(words)
                and free[end]
                and (words[end].capital or words[end].text.isdigit() or words[end].text in LINKING)
            ):
                end += 1
            stop = end
            while end > at and words[end - 1].text in LINKING:
                end -= 1
            start = at
            while (
                start < end and (words[start].text in ORDINARY and words[start].text != "the") and not cues[start - 1]
            ):
                start += 1
            letters = sum(len(word.text) for word in words[start:end])
            named = end - start > 1 or (start > 0 and cues[start - 1] in STRONG)
            if end > start and named and letters > 4 and end - start <= 12:
                yield start, end, NEAR
            at = stop
        at += 1
    for at, cue in enumerate(cues):  # what follows a cue, in small letters
        if cue in STRONG and at + 1 < len(words) and free[at + 1]:
            end = at + 1
            while end < len(words) and free[end] and end - at < 8 and (not cues[end] or cues[end] in ("about",)):
                end += 1
            for last in range(end, at + 1, -1):
                name = [word.text for word in words[at + 1 : last]]
                told = [word for word in name if word not in ORDINARY]
                if told and name[-1] not in LINKING and sum(map(len, name)) > 5:
                    yield at + 1, last, NEAR_SMALL


def _apart(spans: Sequence[Span]) -> list[Span]:
    """Spans of which none overlaps another, the strongest first."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda one: (-one.strength, one.start)):
        if all(span.end <= other.start or other.end <= span.start for other in chosen):
            chosen.append(span)
    return chosen
