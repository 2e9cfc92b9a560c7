"""The invented viewers: each follows from the seed and the viewer's own number, whoever else there is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from tastemaker.data.synthetic import words
from tastemaker.data.synthetic.catalogue import DIM, START_US, Catalogue, Floats, Ints
from tastemaker.data.synthetic.words import N_GENRES, N_MOODS
from tastemaker.types import generator, mix

N_AGES, N_COUNTRIES = len(words.AGES), len(words.COUNTRIES)
SHARE_EARLY = 0.4  # of the viewers, there in the first days of the log
LAST_TO_JOIN = 0.85  # of the log: nobody joins later
MEAN_TENURE = SHARE_EARLY * 0.975 + (1 - SHARE_EARLY) * (1 - (0.05 + LAST_TO_JOIN) / 2)

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)


@njit(cache=True, nogil=True)
def uniform(state):  # type: ignore[no-untyped-def]
    """The next draw from (0, 1) of a stream; draw k of the stream that starts at `key` hashes mix(key, k)."""
    state[0] += GOLDEN
    z = state[0]
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    z = z ^ (z >> S31)
    return (float(z >> S11) + 0.5) * 1.1102230246251565e-16


@njit(cache=True, nogil=True)
def normal(state):  # type: ignore[no-untyped-def]
    """The next standard normal draw (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))


@njit(cache=True, nogil=True)
def pick(cumulative, start, stop, u):  # type: ignore[no-untyped-def]
    """The first place in [start, stop) whose running total exceeds `u` of the whole."""
    goal = u * cumulative[stop - 1]
    low, high = start, stop - 1
    while low < high:
        middle = (low + high) >> 1
        if cumulative[middle] > goal:
            high = middle
        else:
            low = middle + 1
    return low


def keys(users: NDArray[np.int64], seed: int, purpose: str) -> NDArray[np.uint64]:
    """Where each user's stream for a purpose starts [B]."""
    return mix(users, int(generator(seed, "synthetic", purpose).integers(2**62)))


class Society(NamedTuple):
    """What viewers have in common: [A, C, G] running shares of genres by age and country, and the genres' vectors."""

    shares: Floats
    genres: Floats
    moods: Floats
    drift: float
    price: float


@dataclass(frozen=True, eq=False)
class People:
    """B viewers. All but `joined`, `age`, `country`, `stated` and `mood` is known to the truth alone.

    Shapes:
        users: [B] int64, the viewers' own numbers (not those of a dataset)
        joined: [B] int64 microseconds
        age, country: [B] int32
        likes: [B, 3] int32, the genres taste begins with; stated: [B, 2] int32, what they say; mood: [B] int32
        early, late: [B, D] float64 of length 1, at right angles: taste turns from one towards the other
        drift: [B] float64 in [0, 1], the share of a right angle that taste turns while the log lasts
        price: [B] float64, how much a high price puts them off; seeking: [B], how much they follow the crowd
        activity: [B], how often they watch, 1 on average; tone: [B], how kindly they rate
    """

    users: NDArray[np.int64]
    joined: NDArray[np.int64]
    age: Ints
    country: Ints
    likes: Ints
    stated: Ints
    mood: Ints
    early: Floats
    late: Floats
    drift: Floats
    price: Floats
    seeking: Floats
    activity: Floats
    tone: Floats

    def tastes(self, time: NDArray[np.int64] | int, span_us: int) -> Floats:
        """Taste at a time [B, D], of length 1."""
        share = np.clip((np.broadcast_to(time, self.users.shape) - START_US) / span_us, 0.0, 1.0)
        angle = (self.drift * share * (math.pi / 2))[:, None]
        return np.asarray(np.cos(angle) * self.early + np.sin(angle) * self.late)

    def table(self, ids: pl.Series) -> pl.DataFrame:
        """What anybody may know of them: users of the dataset, in the given order."""
        many = pl.Series([g.many for g in words.GENRES])
        moods = pl.Series(list(words.MOODS))
        patience = np.digitize(self.price, (0.25, 1.0))
        frame = pl.DataFrame(
            {
                "who": pl.Series(words.AGE_PHRASES).gather(self.age),
                "country": pl.Series(words.COUNTRIES).gather(self.country),
                "first": many.gather(self.stated[:, 0]),
                "second": many.gather(self.stated[:, 1]),
                "mood": moods.gather(self.mood),
                "price": pl.Series(
                    ["never asks what a film costs", "keeps an eye on the price", "waits until a film is cheap"]
                ).gather(patience),
                "crowd": pl.Series(["digs for what nobody has seen", "watches what everybody talks about"]).gather(
                    (self.seeking > 0.6).astype(np.int32)
                ),
            }
        )
        sentence = pl.format("{}, from {}: likes {} {} and {}, {}, {}.", "who", "country", "mood", "first", "second",
                             "price", "crowd")  # fmt: skip
        return pl.DataFrame(
            {
                "user": ids,
                "available": self.joined,
                "age": pl.Series(words.AGES).gather(self.age),
                "country": frame["country"],
                "favourite": pl.Series([g.name for g in words.GENRES]).gather(self.stated[:, 0]),
                "persona": frame.select(sentence).to_series(),
            }
        )


def user_ids(users: NDArray[np.int64]) -> pl.Series:
    """Outside ids of viewers; their alphabetical order is the order of the numbers."""
    return ("u" + pl.Series(users).cast(pl.String).str.zfill(8)).alias("user")


def make_society(catalogue: Catalogue, *, seed: int, drift: float, price: float) -> Society:
    """Habits of ages and countries."""
    rng = generator(seed, "synthetic", "society")
    logits = (
        rng.normal(0.0, 0.4, N_GENRES)
        + rng.normal(0.0, 0.5, (N_AGES, 1, N_GENRES))
        + rng.normal(0.0, 0.4, (1, N_COUNTRIES, N_GENRES))
    )
    shares = np.exp(logits).cumsum(axis=2)
    return Society(shares / shares[:, :, -1:], catalogue.genre_vectors, catalogue.mood_vectors, drift, price)


def joined(users: NDArray[np.int64], *, seed: int, span_us: int) -> NDArray[np.int64]:
    """When viewers joined [B], in microseconds since 1970."""
    u = (mix(keys(users, seed, "joined")) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    late = 0.05 + (u - SHARE_EARLY) * ((LAST_TO_JOIN - 0.05) / (1 - SHARE_EARLY))
    return START_US + (np.where(u < SHARE_EARLY, u * (0.05 / SHARE_EARLY), late) * span_us).astype(np.int64)


def make_people(users: NDArray[np.int64], society: Society, *, seed: int, span_us: int) -> People:
    """The viewers with these numbers."""
    n = len(users)
    whole = np.empty((n, 8), dtype=np.int32)
    vectors = np.empty((2, n, DIM))
    traits = np.empty((n, 5))
    _people(keys(users, seed, "people"), society, whole, vectors, traits)
    return People(
        users, joined(users, seed=seed, span_us=span_us), whole[:, 0], whole[:, 1], whole[:, 2:5], whole[:, 5:7],
        whole[:, 7], vectors[0], vectors[1], *(np.ascontiguousarray(t) for t in traits.T),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _home(state, society):  # type: ignore[no-untyped-def]
    """Age, country and first genre: the first three draws of a viewer."""
    age = min(int(uniform(state) * N_AGES), N_AGES - 1)
    country = min(int(uniform(state) ** 1.4 * N_COUNTRIES), N_COUNTRIES - 1)
    return age, country, pick(society.shares[age, country], 0, N_GENRES, uniform(state))


@njit(cache=True, nogil=True)
def _people(keys, society, whole, vectors, traits):  # type: ignore[no-untyped-def]
    state = np.empty(1, np.uint64)
    for b in range(len(keys)):
        state[0] = keys[b]
        age, country, first = _home(state, society)
        shares = society.shares[age, country]
        whole[b, 0], whole[b, 1], whole[b, 2] = age, country, first
        for j in range(3, 5):
            whole[b, j] = pick(shares, 0, N_GENRES, uniform(state))
        for side in range(2):  # what taste is made of: genres, moods, and something of one's own
            vector = vectors[side, b]
            for d in range(DIM):
                vector[d] = 0.18 * normal(state)
            for j in range(3):
                liked = whole[b, 2 + j] if side == 0 else pick(shares, 0, N_GENRES, uniform(state))
                for d in range(DIM):
                    vector[d] += (1.0 - 0.25 * j) * society.genres[liked, d]
            for j in range(2):
                mood = min(int(uniform(state) * N_MOODS), N_MOODS - 1)
                if side == 0 and j == 0:
                    whole[b, 7] = mood
                for d in range(DIM):
                    vector[d] += 0.45 * society.moods[mood, d]
        early, late = vectors[0, b], vectors[1, b]
        _unit(early)
        overlap = 0.0
        for d in range(DIM):
            overlap += early[d] * late[d]
        for d in range(DIM):
            late[d] -= overlap * early[d]
        _unit(late)
        whole[b, 5] = first if uniform(state) < 0.85 else min(int(uniform(state) * N_GENRES), N_GENRES - 1)
        whole[b, 6] = whole[b, 3] if whole[b, 3] != whole[b, 5] else (whole[b, 5] + 1) % N_GENRES
        traits[b, 0] = min(1.0, society.drift * uniform(state) ** 0.7)
        traits[b, 1] = 0.0 if uniform(state) < 0.35 else society.price * (0.3 - 0.6 * math.log(uniform(state)))
        traits[b, 2] = 0.2 + 0.75 * uniform(state)
        traits[b, 3] = math.exp(0.55 * normal(state) - 0.15125)
        traits[b, 4] = 0.3 * normal(state)


@njit(cache=True, nogil=True)
def _unit(vector):  # type: ignore[no-untyped-def]
    total = 0.0
    for d in range(len(vector)):
        total += vector[d] * vector[d]
    for d in range(len(vector)):
        vector[d] /= math.sqrt(total)


def communities(users: NDArray[np.int64], society: Society, *, seed: int) -> NDArray[np.int16]:
    """The community of each viewer [B]: country and first genre."""
    out = np.empty(len(users), dtype=np.int16)
    _communities(keys(users, seed, "people"), society, out)
    return out


@njit(cache=True, nogil=True)
def _communities(keys, society, out):  # type: ignore[no-untyped-def]
    state = np.empty(1, np.uint64)
    for b in range(len(keys)):
        state[0] = keys[b]
        _, country, first = _home(state, society)
        out[b] = country * N_GENRES + first


def follows(
    users: NDArray[np.int64], community: NDArray[np.int16], *, seed: int, looked_at: int = 64
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whom viewers follow: heads and tails [E], as the viewers' own numbers.

    A viewer looks at `looked_at` viewers of smaller number and follows those of the same community
    and a few of the others, so friends are alike and the first users' friends stay when more users come.
    """
    heads = np.empty(len(users) * looked_at, dtype=np.int64)
    tails = np.empty_like(heads)
    n = _follows(users, keys(users, seed, "follows"), community, looked_at, heads, tails)
    return heads[:n], tails[:n]


@njit(cache=True, nogil=True)
def _follows(users, keys, community, looked_at, heads, tails):  # type: ignore[no-untyped-def]
    state = np.empty(1, np.uint64)
    n = 0
    for b in range(len(users)):
        state[0] = keys[b]
        first = n
        for _ in range(looked_at):
            other = int(uniform(state) * users[b])
            own, theirs = community[users[b]], community[other] if users[b] > 0 else -1
            alike = (own // N_GENRES == theirs // N_GENRES) + (own % N_GENRES == theirs % N_GENRES)
            wanted = uniform(state) < (0.04 if alike == 0 else 0.2 if alike == 1 else 0.9)
            for e in range(first, n):
                wanted = wanted and tails[e] != other
            if users[b] > 0 and wanted:
                heads[n], tails[n] = users[b], other
                n += 1
    return n
