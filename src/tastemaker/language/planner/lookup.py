"""Questions about items, as "when was X made" or "how long is the second one", and which columns answer them."""

from __future__ import annotations

from tastemaker.language.planner.lexicon import Facet, Lexicon
from tastemaker.language.planner.measures import measure_of
from tastemaker.language.planner.phrases import (
    IRREGULAR,
    KINDS,
    MEASURES,
    OPENINGS,
    ORDINARY,
    PLACES,
    PLOTS,
    QUESTIONS,
    WISHES,
    roots,
)
from tastemaker.language.planner.reading import Reading


def is_question(reading: Reading) -> bool:
    """Whether a message asks for facts rather than for items."""
    plain = " ".join(word.text for word in reading.tokens if word.is_word)
    changed = True
    while changed:
        changed = False
        for opening in OPENINGS:
            rest = plain.removeprefix(f"{opening} ")
            about = opening == "tell me" and rest.split(" ", 1)[0] in ("about", "more")
            if rest != plain and not about:
                plain, changed = rest, True
    first = plain.split(" ", 1)[0] if plain else ""
    wishes = any(plain.startswith(wish) for wish in WISHES)
    return first in QUESTIONS and not wishes and not reading.count and not reading.relatives


def asked_columns(reading: Reading, lexicon: Lexicon) -> tuple[str, ...]:
    """The columns that answer a question: those it names by a word of the same root, or else by what it begins with."""
    covered = {at for title in reading.titles for at in range(title.start, title.end)}
    words = [word.text for at, word in enumerate(reading.tokens) if word.is_word and at not in covered]
    told = set(words)
    meant = {root for word in words for root in roots(IRREGULAR.get(word, word), 3) if len(word) > 3}
    if told & {"when"} and (years := [facet.name for facet in lexicon.facets if facet.is_year]):
        return tuple(years)
    found = [facet for facet in lexicon.facets if _same_root(facet, meant) and not _only_ordinary(facet, told)]
    if not found and told & {"who", "whos", "whose"}:
        found = [facet for facet in lexicon.facets if _of_people(facet)]
    if not found:
        for name, measure in MEASURES.items():
            asks = measure.asks & told if name != "length" or "how" in told else measure.asks & told - {"long"}
            if asks and (name != "money" or told & {"much", "cost", "costs", "price", "expensive"}):
                found += [facet for facet in lexicon.facets if measure_of(facet) == name]
    if not found and "where" in told:
        found = [facet for facet in lexicon.facets if set(facet.words) & PLACES]
    if not found and told & KINDS:
        found = [facet for facet in lexicon.facets if facet.describes]
    if not found and told & PLOTS:
        found = [facet for facet in lexicon.facets if facet.kind == "text"] or list(lexicon.facets)
    return tuple(facet.name for facet in found[:6])


def _same_root(facet: Facet, meant: set[str]) -> bool:
    return any(root in meant for part in facet.words for root in roots(part, 3))


def _only_ordinary(facet: Facet, told: set[str]) -> bool:
    """A column called by an ordinary word ("name", "part") is asked for by that word alone."""
    return all(part in ORDINARY for part in facet.words) and not set(facet.words) & told


def _of_people(facet: Facet) -> bool:
    """Whether most values look like the names of people: two or three words in capitals."""
    if facet.kind not in ("value", "list"):
        return False
    sample = facet.values[:: max(1, len(facet.values) // 50)]
    like = [
        value
        for value in sample
        if 2 <= len(value.split()) <= 4 and value[:1].isupper() and value.split()[1][:1].isupper()
    ]
    return len(like) > 0.6 * len(sample)
