"""Numbers in a sentence: bounds ("under 20 dollars", "from the nineties"), and comparisons ("cheaper", "too long").

Which column a number is of follows from its unit, a column named beside it, or a word that belongs to a measure; what
no column of the catalogue says is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tastemaker.language.planner.lexicon import Facet
from tastemaker.language.planner.phrases import (
    ABOUT,
    AFTER_LESS,
    AFTER_MORE,
    DECADES,
    INCLUSIVE,
    LESS,
    MEASURES,
    MORE,
    NUMBERS,
    PLAIN,
    SENTENCE,
    SUPERLATIVES,
)
from tastemaker.language.planner.spelling import Token, singular

Sign = Literal["<", "<=", ">", ">=", "="]
_DECADE = re.compile(r"(\d{2}|\d{3}0)s$")
TURNED: dict[Sign, Sign] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "="}
NOT = frozenset({"no", "not", "nothing", "never", "dont", "doesnt", "isnt", "shouldnt", "mustnt", "cant", "cannot"})
NOT |= {"wont", "without", "nor", "hardly"}
LARGEST = 1e12  # numbers beyond say nothing of an item
AROUND = 0.12  # "about 90" is 90 give or take this share


@dataclass(frozen=True)
class Bound:
    """What a column's number must keep."""

    facet: str
    sign: Sign
    number: float


@dataclass(frozen=True)
class Relative:
    """More or less of a column than something: words from `start` on say than what; far: the most or least of all."""

    facet: str
    more: bool
    start: int
    end: int
    far: bool = False
    comparative: bool = True


def measure_of(facet: Facet) -> str | None:
    """Which measure a column of numbers is, going by its name."""
    if facet.kind == "date":
        return "time"
    if facet.kind != "number":
        return None
    for name, measure in MEASURES.items():
        if set(facet.words) & measure.hints:
            return name
    return None


def quantities(words: Sequence[Token], taken: list[bool], facets: Sequence[Facet]) -> list[Bound]:
    """Bounds that the text states; the words that state them are marked as taken."""
    numeric = [facet for facet in facets if facet.kind in ("number", "date")]
    found: list[Bound] = []
    if not numeric:
        return found
    years = [facet for facet in numeric if facet.is_year]
    at = 0
    while at < len(words):
        word = words[at]
        decade = _decade(word.text) if years and not taken[at] else None
        if decade is not None:
            found += _of_decade(words, at, decade, years[0])
            taken[at] = True
        elif not taken[at] and (number := _number(word)) is not None:
            used, bounds = _of_number(words, at, number, numeric, years)
            if bounds:
                found += bounds
                taken[at : at + used] = [True] * used
                told = MEASURES.get(measure_of(next(f for f in numeric if f.name == bounds[0].facet)) or "")
                for place in range(max(0, at - 5), min(len(words), at + used + 4)):  # "shorter" of "shorter than 90"
                    if told and words[place].text in told.more | told.less:
                        taken[place] = True
            at += used
            continue
        at += 1
    return found


def relatives(words: Sequence[Token], taken: list[bool], facets: Sequence[Facet]) -> list[Relative]:
    """Comparisons without a number of their own."""
    by_measure: dict[str, Facet] = {}
    for facet in facets:
        name = measure_of(facet)
        if name and name not in by_measure:
            by_measure[name] = facet
    found: list[Relative] = []
    for at, word in enumerate(words):
        if taken[at]:
            continue
        for name, facet in by_measure.items():
            measure = MEASURES[name]
            if word.text not in measure.more and word.text not in measure.less:
                continue
            before = [one.text for one in words[max(0, at - 2) : at]]
            after = [one.text for one in words[at + 1 : at + 3]]
            if after[:1] == ["than"] and len(after) > 1 and after[1][0].isdigit():
                continue  # "older than 1990" is a bound
            if word.text in PLAIN and not ({"a", "an", "some", "any", "too", "so", "as", "very"} & set(before)):
                continue
            more = word.text in measure.more
            if "less" in before[-1:] or "too" in before or (set(before) & NOT and not word.text.endswith("er")):
                more = not more
            far = word.text in SUPERLATIVES
            comparative = word.text.endswith("er") or "more" in before or "less" in before or "too" in before
            found.append(Relative(facet.name, more, at, at + 1, far, comparative or name == "rating"))
            taken[at] = True
            break
    return found


def column_of(
    words: Sequence[Token], at: int, end: int, numeric: Sequence[Facet], years: Sequence[Facet], number: float
) -> tuple[Facet | None, float]:
    """The column that a number is of, and the number in its unit."""
    near = _before(words, at, 5) + _after(words, end, 3)
    unit = singular(words[end].text) if end < len(words) else ""
    sign = words[at - 1].text if at else ""
    close = [singular(word) for word in near]
    for facet in numeric:  # a column named outright
        named = any(part in near or singular(part) in close for part in facet.words if len(part) > 2)
        if named and (not facet.is_year or 1000 <= number <= 2200):
            return facet, number
    for facet in numeric:
        name = measure_of(facet)
        if name is None:
            continue
        measure = MEASURES[name]
        if unit in measure.units or sign in measure.units:
            hours = unit in ("hour", "hr") and facet.bounds[1] > 30
            return facet, number * 60 if hours else number
    for facet in numeric:
        name = measure_of(facet)
        if name and name != "time" and set(near) & (MEASURES[name].more | MEASURES[name].less | MEASURES[name].asks):
            return facet, number
        if name == "money" and {"budget", "spend", "afford", "pay"} & set(near):
            return facet, number
    if years and number == int(number) and 1000 <= number <= 2200:
        return years[0], number
    return None, number


def _of_number(
    words: Sequence[Token], at: int, number: float, numeric: Sequence[Facet], years: Sequence[Facet]
) -> tuple[int, list[Bound]]:
    """How many words say it, and the bounds that a number and what stands around it are."""
    end = at + 1
    other: float | None = None
    start = at - 1 if at and words[at - 1].text in "$€£¥" else at
    if end + 1 < len(words) and words[end].text in ("to", "and", "-", "–", "—", "or"):
        place = end + 1 if words[end + 1].text not in "$€£¥" else end + 2
        ranged = any(word.text in ("between", "from") for word in words[max(0, start - 3) : start])
        if place < len(words) and (ranged or words[end].text not in ("and", "or")):
            other = _number(words[place])
            end = place + 1 if other is not None else end
    facet, worth = column_of(words, at, end, numeric, years, number)
    if facet is None:
        return 1, []
    used = end - at
    if other is not None:
        scale = worth / number if number else 1.0
        low, high = sorted((worth, other * scale))
        return used, [Bound(facet.name, ">=", low), Bound(facet.name, "<=", high)]
    before = _before(words, start, 5)
    behind = end
    if behind < len(words) and not facet.is_year and words[behind].text.isalpha():
        behind += 1  # a unit
    sign = _sign(before, _after(words, behind, 4), _after(words, end, 4), facet)
    if sign is None:
        if set(before[-1:]) & ABOUT or set(before[-2:-1]) & ABOUT:
            spread = 3.0 if facet.is_year else abs(worth) * AROUND
            return used, [Bound(facet.name, ">=", worth - spread), Bound(facet.name, "<=", worth + spread)]
        return used, [Bound(facet.name, "=", worth)] if facet.is_year or _exactly(before) else []
    return used, [Bound(facet.name, sign, worth)]


def _sign(before: Sequence[str], after: Sequence[str], at_once: Sequence[str], facet: Facet) -> Sign | None:
    """The comparison that words around a number make; None: there is none."""
    ends = (" ".join(after), " ".join(at_once))
    for phrases, sign in ((AFTER_LESS, "<="), (AFTER_MORE, ">=")):
        if any(end == p or end.startswith(p + " ") for p in phrases for end in ends):
            return "<=" if sign == "<=" else ">="
    measure = MEASURES.get(measure_of(facet) or "")
    text = f" {' '.join(before)} "
    best: tuple[int, Sign] | None = None
    for phrases, less in ((LESS, True), (MORE, False)):
        for phrase in phrases:
            place = text.rfind(f" {phrase} ")
            if place >= 0 and (best is None or place + len(phrase) > best[0]):
                inclusive = bool(set(phrase.split()) & INCLUSIVE)
                found: Sign = ("<=" if inclusive else "<") if less else (">=" if inclusive else ">")
                if phrase in ("at most", "no more than", "not more than", "no less than", "not less than"):
                    return found
                best = place + len(phrase), found
    if measure is not None and best is None and "than" in before[-2:]:
        for word in before:
            if word in measure.more or word in measure.less:
                place = text.rfind(f" {word} ")
                best = place, ">" if word in measure.more else "<"
    if best is None:
        return None
    refused = set(text[: best[0]].split()) & NOT
    return TURNED[best[1]] if refused else best[1]


def _before(words: Sequence[Token], at: int, n: int) -> list[str]:
    """Up to n words before a place, of the same sentence."""
    found: list[str] = []
    for word in reversed(words[max(0, at - n) : at]):
        if word.text in SENTENCE:
            break
        found.append(word.text)
    return found[::-1]


def _after(words: Sequence[Token], at: int, n: int) -> list[str]:
    """Up to n words from a place on, of the same sentence."""
    found: list[str] = []
    for word in words[at : at + n]:
        if word.text in SENTENCE:
            break
        found.append(word.text)
    return found


def _exactly(before: Sequence[str]) -> bool:
    return bool(set(before[-3:]) & {"exactly", "precisely", "is", "of", "has", "with", "have"})


def _decade(word: str) -> int | None:
    if word in DECADES:
        return DECADES[word]
    found = _DECADE.match(word)
    if found is None or not found[1].endswith("0"):
        return None
    n = int(found[1])
    return n if n > 99 else n + (2000 if n < 30 else 1900)


def _of_decade(words: Sequence[Token], at: int, decade: int, facet: Facet) -> list[Bound]:
    """The years of a decade, of its early or late part, or of what came before or after it."""
    before, after = _before(words, at, 4), set(_after(words, at + 1, 3))
    low, high = decade, decade + 9
    if "early" in before:
        high = decade + 4
    elif "late" in before:
        low = decade + 5
    elif "mid" in before:
        low, high = decade + 3, decade + 6
    refused = bool(set(before) & NOT)
    if {"before", "pre", "until"} & set(before) or "older" in before or "earlier" in after:
        return [Bound(facet.name, ">=", low) if refused else Bound(facet.name, "<", low)]
    if {"after", "post"} & set(before) or "newer" in before:
        return [Bound(facet.name, "<=", high) if refused else Bound(facet.name, ">", high)]
    if {"since"} & set(before) or {"later", "onward", "onwards", "newer"} & after:
        return [Bound(facet.name, ">=", low)]
    return [Bound(facet.name, ">=", low), Bound(facet.name, "<=", high)]


def _number(word: Token) -> float | None:
    """The number that a word is: "20", "1,000", "4.5", "twenty"; None: it is none."""
    text = word.text
    if text in NUMBERS:
        return float(NUMBERS[text]) if text != "one" else None
    plain = text.rstrip("k")
    if not plain or not plain[0].isdigit() or len(plain) > 15:
        return None
    plain = plain.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain) else plain.replace(",", ".")
    try:
        number = float(plain) * (1000 if text.endswith("k") else 1)
    except ValueError:
        return None
    return number if number <= LARGEST else None
