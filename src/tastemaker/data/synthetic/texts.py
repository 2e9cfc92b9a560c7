"""Words for films: names of people, titles and descriptions that follow from a film's attributes."""

from __future__ import annotations

import string

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.synthetic import words
from tastemaker.data.synthetic.words import N_GENRES, N_MOODS

N_QUERIES = 5

Ints = NDArray[np.int32]


def people_names(rng: np.random.Generator, n: int) -> pl.Series:
    """n different invented people."""
    n_last = len(words.LAST_START) * len(words.LAST_END)
    codes = rng.permutation(len(words.FIRST_NAMES) * n_last)[:n]
    first = np.array(words.FIRST_NAMES)[codes // n_last]
    last = np.array([a + b for a in words.LAST_START for b in words.LAST_END])[codes % n_last]
    return pl.Series("name", np.char.add(np.char.add(first, " "), last).tolist())


_NOUNS = pl.Series([noun for genre in words.GENRES for noun in genre.nouns])
_ROLES = pl.Series([role for genre in words.GENRES for role in genre.roles])
_PLOTS = pl.Series([plot for genre in words.GENRES for plot in genre.plots])
_MOOD_WORDS = pl.Series([word for spoken, _ in words.MOODS.values() for word in spoken])
_MOOD_TITLES = pl.Series([word for _, titles in words.MOODS.values() for word in titles])
_PLACES = pl.Series([f"{first} {last}" for first in words.PLACE_FIRST for last in words.PLACE_LAST])


def _owner(role: str) -> str:
    return " ".join(word[0].upper() + word[1:] for word in role.split()) + "'s"


_TITLE_FORMS = (
    "The {adjective} {noun}", "{adjective} {noun}", "The {noun} of {place}", "{noun} at {place}",
    "The {owner} {noun}", "{noun} and {other}", "{A_noun} in {place}", "Beyond {place}, a {noun}",
)  # fmt: skip
_LONG_FORMS = ("The {adjective} {noun} of {place}", "{adjective} {noun} at {place}", "The {owner} {noun} at {place}")


def make_titles(rng: np.random.Generator, genre: Ints, mood: Ints, lead: NDArray[np.int64], part: Ints) -> pl.Series:
    """Titles [n], no two the same: the adjective tells the mood, the noun the genre."""
    heads = np.flatnonzero(part <= 1)
    titles = _compose(rng, genre[heads], mood[heads], _TITLE_FORMS)
    while (twice := np.flatnonzero(~titles.is_first_distinct().to_numpy())).size:
        titles = titles.scatter(twice, _compose(rng, genre[heads[twice]], mood[heads[twice]], _LONG_FORMS))
    place = np.zeros(len(part), dtype=np.int64)
    place[heads] = np.arange(len(heads))
    return (titles.gather(place[lead]) + named(pl.Series(list(words.NUMERALS)), np.maximum(part - 1, 0))).alias("title")


def _compose(rng: np.random.Generator, genre: Ints, mood: Ints, forms: tuple[str, ...]) -> pl.Series:
    n = len(genre)
    n_nouns, n_roles, n_adjectives = (len(_NOUNS) // N_GENRES, len(_ROLES) // N_GENRES, len(_MOOD_TITLES) // N_MOODS)
    noun = rng.integers(0, n_nouns, n)
    other = (noun + rng.integers(1, n_nouns, n)) % n_nouns
    nouns = _NOUNS.gather(genre[:, 0] * n_nouns + noun)
    role = genre[:, 0] * n_roles + rng.integers(0, n_roles, n)
    parts = {
        "adjective": _MOOD_TITLES.gather(mood[:, 0] * n_adjectives + rng.integers(0, n_adjectives, n)),
        "noun": nouns,
        "A_noun": _article(nouns, upper=True),
        "other": _NOUNS.gather(genre[:, 0] * n_nouns + other),
        "owner": pl.Series([_owner(role) for role in _ROLES]).gather(role),
        "place": _PLACES.gather(rng.integers(0, len(_PLACES), n)),
    }
    return _fill(rng.integers(0, len(forms), n), forms, parts)


_STORY_FORMS = (
    "{A_mood} {kind} in which {a_role} {plot}. {maker} keeps it {mood2}, with {lead} opposite {support}.",
    "In {place}, {a_role} {plot}. {A_mood} {kind}, {mood2} at heart, made by {maker} and carried by {lead}.",
    "{lead} plays {a_role} who {plot}. Set in {place}, this {kind} by {maker} is {mood} and {mood2}.",
    "{A_role} {plot}, and {place} is never the same again. {maker} directs {lead} in {a_mood}, {mood2} {kind}.",
)


def make_descriptions(
    rng: np.random.Generator, genre: Ints, mood: Ints, maker: pl.Series, actors: pl.Series, cast: Ints
) -> pl.Series:
    """Two sentences a film [n]; genres, moods, maker and cast decide their words."""
    n = len(genre)
    n_plots, n_roles, n_words = len(_PLOTS) // N_GENRES, len(_ROLES) // N_GENRES, len(_MOOD_WORDS) // N_MOODS
    has_second = genre[:, 1] >= 0
    role_genre = np.where(has_second & (rng.random(n) < 0.5), genre[:, 1], genre[:, 0])
    role = _ROLES.gather(role_genre * n_roles + rng.integers(0, n_roles, n))
    mood1, mood2 = (_MOOD_WORDS.gather(mood[:, j] * n_words + rng.integers(0, n_words, n)) for j in (0, 1))
    names = [g.name for g in words.GENRES]
    kinds = [f"{g.one} with a touch of {other}" for g in words.GENRES for other in names]
    kinds += [g.one for g in words.GENRES]
    kind = np.where(has_second, genre[:, 0] * N_GENRES + genre[:, 1], N_GENRES**2 + genre[:, 0])
    parts = {
        "mood": mood1,
        "mood2": mood2,
        "A_mood": _article(mood1, upper=True),
        "a_mood": _article(mood1),
        "a_role": _article(role),
        "A_role": _article(role, upper=True),
        "kind": pl.Series(kinds).gather(kind),
        "plot": _PLOTS.gather(genre[:, 0] * n_plots + rng.integers(0, n_plots, n)),
        "place": _PLACES.gather(rng.integers(0, len(_PLACES), n)),
        "maker": maker,
        "lead": actors.gather(cast[:, 0]),
        "support": actors.gather(cast[:, 1]),
    }
    return _fill(rng.integers(0, len(_STORY_FORMS), n), _STORY_FORMS, parts).alias("description")


def make_queries(
    titles: pl.Series, maker: pl.Series, lead: pl.Series, genre: Ints, mood: Ints, price: NDArray[np.float32]
) -> pl.Series:
    """What people type to find each film [n * 5]: its title, maker, lead, mood and genre, genre and price."""
    one, many = (pl.Series([getattr(g, form) for g in words.GENRES]).gather(genre[:, 0]) for form in ("one", "many"))
    frame = pl.DataFrame(
        {
            "title": titles.str.to_lowercase(),
            "maker": maker.str.to_lowercase(),
            "lead": lead.str.to_lowercase(),
            "mood": named(pl.Series(list(words.MOODS)), mood[:, 0]) + " " + one,
            "price": many + " under " + pl.Series(np.ceil(price).astype(np.int32)).cast(pl.String),
        }
    )
    return frame.select(pl.concat_list(pl.all())).to_series().explode(empty_as_null=False, keep_nulls=False)


def _fill(form: NDArray[np.int64], forms: tuple[str, ...], parts: dict[str, pl.Series]) -> pl.Series:
    """Row by row the chosen form, its {names} replaced by that row's parts."""
    frame = pl.DataFrame(parts).with_columns(pl.Series("_form", form))
    filled: pl.Expr = pl.lit(None, dtype=pl.String)
    for number, text in enumerate(forms):
        pieces: list[pl.Expr] = []
        for literal, name, _, _ in string.Formatter().parse(text):
            pieces.append(pl.lit(literal))
            pieces += [pl.col(name)] if name else []
        filled = pl.when(pl.col("_form") == number).then(pl.concat_str(pieces)).otherwise(filled)
    return frame.select(filled.alias("text")).to_series()


def _article(word: pl.Series, *, upper: bool = False) -> pl.Series:
    """The words with "a" or "an" before them."""
    vowel = word.str.contains("(?i)^[aeiou]")
    article = pl.Series(["A ", "An "] if upper else ["a ", "an "]).gather(vowel.cast(pl.UInt32))
    return article + word


def named(names: pl.Series, numbers: NDArray[np.integer]) -> pl.Series:
    """Names of numbers; missing where a number is -1."""
    index = pl.Series(np.asarray(numbers, dtype=np.int64))
    return names.gather(index.set(index < 0, None))


def named_lists(numbers: Ints, names: list[str]) -> pl.Series:
    """Lists of names of numbers [n, m]; -1 is left out."""
    frame = pl.DataFrame({str(j): named(pl.Series(names), numbers[:, j]) for j in range(numbers.shape[1])})
    return frame.select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()
