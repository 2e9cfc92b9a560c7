"""How a film is chosen, shared by the simulation and the truth.

In two steps, so that any size of catalogue costs the same and the chance of each film is known: it comes to
mind with a chance that follows genre and fame (`Shelves`), and is then taken with the chance `relevance` that
the viewer wants it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.data.synthetic.catalogue import DIM, Catalogue, Floats, Ints
from tastemaker.data.synthetic.words import N_GENRES

GENRE_FOCUS = 4.0  # how sharply the genres that come to mind follow taste
BASE = 2.2  # how far a film of ordinary worth is from being wanted, in logits
UNSEEN_PART = 0.05  # of the usual chance, for a sequel whose earlier part was not seen
STAY = 0.8  # how often a session with an intent keeps to its genre
FRESH = (0.4, 40.0)  # an old film's chance against a new one's, and days to get old


class Shelves(NamedTuple):
    """What comes to mind, and what the logging policy shows, as running totals in the order of release.

    Shapes:
        starts: [G + 1], films: [M]: the films of each genre
        famous, obscure: [M] running totals inside each genre, by fame and by dampened fame
        shown: [G, I] running totals of the logging policy for viewers who name a genre
        release: [I]; day, quality, price (standardised), minutes: of each film
        vectors: [I, D]; genres: [G, D]
        previous, following: [I]
    """

    starts: NDArray[np.int64]
    films: Ints
    famous: Floats
    obscure: Floats
    shown: Floats
    release: NDArray[np.int64]
    quality: Floats
    price: Floats
    minutes: Ints
    vectors: Floats
    genres: Floats
    previous: Ints
    following: Ints


class Habits(NamedTuple):
    """Settings of the simulation, see `WorldConfig`."""

    taste: float
    intent: float
    sequels: float
    searches: float
    impressions: float
    slate_size: int
    bias: float
    rate: float  # sessions a whole log, on average
    most: int  # sessions at most
    span: int


def make_shelves(catalogue: Catalogue) -> Shelves:
    """The catalogue as the simulation reads it."""
    rows = [(np.flatnonzero((catalogue.genre == g).any(axis=1))).astype(np.int32) for g in range(N_GENRES)]
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    totals = {}
    for name, power in (("famous", 1.0), ("obscure", 0.35)):
        mass = [
            catalogue.weight[r] ** power * np.where(catalogue.genre[r, 0] == g, 1.0, 0.4) for g, r in enumerate(rows)
        ]
        totals[name] = np.concatenate([np.cumsum(m) for m in mass])
    shown = np.empty((N_GENRES, catalogue.n_items))
    for g in range(N_GENRES):
        shown[g] = np.cumsum(catalogue.weight**0.6 * np.where((catalogue.genre == g).any(axis=1), 5.0, 1.0))
    price = np.log(catalogue.price.astype(np.float64))
    return Shelves(
        starts, np.concatenate(rows), totals["famous"], totals["obscure"], shown, catalogue.release, catalogue.quality,
        (price - price.mean()) / max(price.std(), 1e-9), catalogue.minutes, catalogue.vectors,
        catalogue.genre_vectors, catalogue.previous, catalogue.following,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def utility(taste, price, film, habits_taste, shelves):  # type: ignore[no-untyped-def]
    """How much a viewer of this taste and thrift wants a film, in logits; `relevance` is its logistic."""
    fit = 0.0
    for d in range(DIM):
        fit += taste[d] * shelves.vectors[film, d]
    return habits_taste * fit + 0.5 * shelves.quality[film] - price * shelves.price[film] - BASE


@njit(cache=True, nogil=True)
def relevance(logit):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + math.exp(-logit))


@njit(cache=True, nogil=True)
def freshness(age_us):  # type: ignore[no-untyped-def]
    return FRESH[0] + (1.0 - FRESH[0]) * math.exp(-age_us / (FRESH[1] * 86_400e6))


@njit(cache=True, nogil=True)
def genre_shares(taste, genres, out):  # type: ignore[no-untyped-def]
    """Running totals [G] of how readily the films of each genre come to mind."""
    total = 0.0
    for g in range(N_GENRES):
        fit = 0.0
        for d in range(DIM):
            fit += taste[d] * genres[g, d]
        total += math.exp(GENRE_FOCUS * fit)
        out[g] = total
