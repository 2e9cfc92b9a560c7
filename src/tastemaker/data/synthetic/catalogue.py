"""The invented films: facts anybody may know, texts that follow from them, and what only the truth knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.synthetic import words
from tastemaker.data.synthetic.texts import (
    make_descriptions,
    make_queries,
    make_titles,
    named,
    named_lists,
    people_names,
)
from tastemaker.data.synthetic.words import N_GENRES, N_MOODS
from tastemaker.types import generator

DAY_US = 86_400_000_000
START_US = 1_672_531_200_000_000  # 1 January 2023
DIM = 16

PRICES = np.array([1.99, 2.99, 3.99, 4.99, 6.99, 8.99, 11.99, 14.99], dtype=np.float32)
SHARE_AT_START = 0.75  # of the films, in the catalogue when the log begins
SHARE_IN_SERIES = 0.22
MIX = (1.0, 0.6, 0.5, 0.35, 0.4, 0.3, 0.55)  # of a film's vector: genres, moods, maker, cast, something of its own

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """I films in the order of their release; the position of a film is its number.

    Shapes:
        genre, mood: [I, 2] int32, the second genre -1 where there is none
        maker: [I] int32; cast: [I, 3] int32
        series: [I] int32, -1 outside any series; part: [I] int32, 1 for the first of a series, 0 outside
        previous, following: [I] int32, the neighbours in the series, -1 where there is none
        release: [I] int64 microseconds; year, minutes: [I] int32; price: [I] float32
        quality: [I] float64, how good a film is for everybody
        weight: [I] float64, how much is heard of it, taste and quality apart: the long tail
        vectors: [I, D] float64 of length 1; genre_vectors: [G, D], mood_vectors: [M, D]
    """

    genre: Ints
    mood: Ints
    maker: Ints
    cast: Ints
    series: Ints
    part: Ints
    previous: Ints
    following: Ints
    release: NDArray[np.int64]
    year: Ints
    minutes: Ints
    price: NDArray[np.float32]
    quality: Floats
    weight: Floats
    vectors: Floats
    genre_vectors: Floats
    mood_vectors: Floats
    makers: pl.Series
    actors: pl.Series
    titles: pl.Series
    descriptions: pl.Series

    @property
    def n_items(self) -> int:
        return len(self.release)

    @cached_property
    def ids(self) -> pl.Series:
        """Outside ids [I], whose alphabetical order is the order of the numbers."""
        numbers = pl.int_range(self.n_items, eager=True).cast(pl.String).str.zfill(6)
        return ("f" + numbers).alias("item")

    @cached_property
    def genre_names(self) -> pl.Series:
        return named_lists(self.genre, [g.name for g in words.GENRES])

    @cached_property
    def series_names(self) -> pl.Series:
        """Name of each film's series [I], the title of its first part; missing outside series."""
        first = np.full(int(self.series.max(initial=-1)) + 1, -1, dtype=np.int64)
        opens = np.flatnonzero(self.part == 1)
        first[self.series[opens]] = opens
        numbers = np.where(self.series >= 0, first[self.series], -1) if len(first) else np.full(self.n_items, -1)
        return named(self.titles, numbers)

    def table(self) -> pl.DataFrame:
        """What anybody may know of the films: the items of the dataset."""
        return pl.DataFrame(
            {
                "item": self.ids,
                "available": self.release,
                "title": self.titles,
                "genres": self.genre_names,
                "moods": named_lists(self.mood, list(words.MOODS)),
                "maker": named(self.makers, self.maker),
                "cast": named_lists(self.cast, self.actors.to_list()),
                "series": self.series_names,
                "part": pl.Series(self.part).set(pl.Series(self.part == 0), None),
                "year": self.year,
                "minutes": self.minutes,
                "price": self.price,
                "description": self.descriptions,
            }
        )

    def knowledge(self) -> pl.DataFrame:
        """The films' knowledge graph: head (film id), relation, tail (a name, or a film id for sequels)."""
        table = self.table().select("item", "genres", "moods", "maker", "cast", "series")
        sequels = np.flatnonzero(self.previous >= 0)
        relations = [
            ("has_genre", table.select("item", "genres").explode("genres")),
            ("has_mood", table.select("item", "moods").explode("moods")),
            ("made_by", table.select("item", "maker")),
            ("stars", table.select("item", "cast").explode("cast")),
            ("part_of", table.select("item", "series").drop_nulls()),
            ("sequel_of", pl.DataFrame([self.ids.gather(sequels), self.ids.gather(self.previous[sequels]).alias("t")])),
        ]
        named = [
            frame.select(pl.col("item").alias("head"), pl.lit(name).alias("relation"), pl.nth(1).alias("tail"))
            for name, frame in relations
        ]
        return pl.concat(named)

    @cached_property
    def queries(self) -> pl.Series:
        """What people type to find each film [I * 5], see `texts.make_queries`."""
        maker, lead = named(self.makers, self.maker), named(self.actors, self.cast[:, 0])
        return make_queries(self.titles, maker, lead, self.genre, self.mood, self.price)


def make_catalogue(n_items: int, *, seed: int, span_us: int, popularity: float) -> Catalogue:
    """The catalogue of a seed and a size. `popularity` scales the spread of what is heard of a film."""
    rng = generator(seed, "synthetic", "catalogue")
    genre_vectors, mood_vectors = _directions(rng, N_GENRES), _directions(rng, N_MOODS)
    n_makers, n_actors = min(8_000, max(8, n_items // 10)), min(20_000, max(30, n_items // 4))
    names = people_names(generator(seed, "synthetic", "names"), n_makers + n_actors)

    # Series share their attributes, so everything is drawn once a film and then copied from the first part.
    series, part, previous, following = _series(rng, n_items)
    lead = np.arange(n_items)
    for _ in range(len(words.NUMERALS) - 1):
        lead = np.where(previous[lead] >= 0, previous[lead], lead)
    genre = _genres(rng, n_items, genre_vectors)[lead]
    mood = _moods(rng, genre, genre_vectors, mood_vectors)[lead]
    maker = (n_makers * rng.random(n_items) ** 1.5).astype(np.int32)[lead]
    cast = _distinct(rng, n_items, n_actors)[lead]
    own = _directions(rng, n_items)
    own = np.where(part[:, None] > 1, 0.9 * own[lead] + 0.45 * own, own)

    maker_vectors, actor_vectors = _directions(rng, n_makers), _directions(rng, n_actors)
    parts = (
        genre_vectors[genre[:, 0]],
        np.where(genre[:, 1:] >= 0, genre_vectors[genre[:, 1]], 0.0),
        mood_vectors[mood[:, 0]],
        mood_vectors[mood[:, 1]],
        maker_vectors[maker],
        actor_vectors[cast].mean(axis=1),
        own,
    )
    vectors = np.zeros((n_items, DIM))
    for share, vector in zip(MIX, parts, strict=True):
        vectors += share * vector
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    release = np.full(n_items, START_US - DAY_US, dtype=np.int64)
    n_later = n_items - int(SHARE_AT_START * n_items)
    release[n_items - n_later :] = START_US + np.sort((rng.uniform(0.02, 0.95, n_later) * span_us).astype(np.int64))
    year = np.maximum(1960, 2022 - rng.exponential(12.0, n_items).astype(np.int32))
    year = _in_order(year, series)
    premiere = 1970 + release.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int32)
    year = np.where(release > START_US, premiere, year).astype(np.int32)

    quality = rng.standard_normal(n_items)
    weight = np.exp(popularity * rng.standard_normal(n_items) + 0.3 * quality) * 0.6 ** np.maximum(part - 1, 0)
    price = PRICES[rng.integers(0, len(PRICES), n_items)]
    minutes = np.clip(rng.normal(108, 17, n_items), 62, 190).astype(np.int32)
    titles = make_titles(generator(seed, "synthetic", "titles"), genre, mood, lead, part)
    makers, actors = names.head(n_makers), names.slice(n_makers)
    descriptions = make_descriptions(
        generator(seed, "synthetic", "descriptions"), genre, mood, named(makers, maker), actors, cast
    )
    return Catalogue(
        genre, mood, maker, cast, series, part, previous, following, release, year, minutes, price,
        quality, weight, vectors, genre_vectors, mood_vectors, makers, actors, titles, descriptions,
    )  # fmt: skip


# -- facts


def _directions(rng: np.random.Generator, n: int) -> Floats:
    """Random vectors of length 1 [n, D]."""
    drawn = rng.standard_normal((n, DIM))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def _draw_rows(rng: np.random.Generator, logits: Floats) -> Ints:
    """One column a row, drawn with probability softmax(logits) (the Gumbel maximum)."""
    return np.asarray(np.argmax(logits + rng.gumbel(size=logits.shape), axis=1), dtype=np.int32)


def _genres(rng: np.random.Generator, n: int, vectors: Floats) -> Ints:
    """Two genres a film [n, 2]; the second is related to the first, or missing (-1)."""
    common = rng.normal(0.0, 0.5, N_GENRES)
    first = _draw_rows(rng, np.broadcast_to(common, (n, N_GENRES)))
    related = common + 3.0 * vectors[first] @ vectors.T
    related[np.arange(n), first] = -np.inf
    second = _draw_rows(rng, related)
    return np.stack([first, np.where(rng.random(n) < 0.55, second, -1)], axis=1).astype(np.int32)


def _moods(rng: np.random.Generator, genre: Ints, genre_vectors: Floats, mood_vectors: Floats) -> Ints:
    """Two moods a film [n, 2], in keeping with its first genre."""
    logits = 3.0 * genre_vectors[genre[:, 0]] @ mood_vectors.T
    first = _draw_rows(rng, logits)
    logits[np.arange(len(genre)), first] = -np.inf
    return np.stack([first, _draw_rows(rng, logits)], axis=1)


def _distinct(rng: np.random.Generator, n: int, size: int) -> Ints:
    """Three different actors a film [n, 3]; some actors are cast far more often than others."""
    first = (size * rng.random(n) ** 1.7).astype(np.int64)
    steps = rng.integers(1, size // 2, (n, 2)).cumsum(axis=1)  # two steps of less than half round never meet
    return np.column_stack([first, (first[:, None] + steps) % size]).astype(np.int32)


def _series(rng: np.random.Generator, n: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Series of two to four films, numbered in the order of release: series, part, previous, following [n]."""
    series, part = np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.int32)
    previous, following = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    lengths = rng.integers(2, len(words.NUMERALS) + 1, max(1, int(SHARE_IN_SERIES * n / 3)))
    lengths = lengths[np.cumsum(lengths) <= SHARE_IN_SERIES * n]
    members = rng.permutation(n)[: lengths.sum()]
    of = np.repeat(np.arange(len(lengths)), lengths)
    members = members[np.lexsort((members, of))]
    series[members] = of
    part[members] = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    same = np.flatnonzero(of[1:] == of[:-1])
    previous[members[same + 1]] = members[same]
    following[members[same]] = members[same + 1]
    return series, part, previous, following


def _in_order(year: Ints, series: Ints) -> Ints:
    """Years sorted inside each series, so that a sequel is never older than what it follows."""
    inside = np.flatnonzero(series >= 0)
    places = inside[np.lexsort((inside, series[inside]))]
    out = year.copy()
    out[places] = year[inside[np.lexsort((year[inside], series[inside]))]]
    return out
