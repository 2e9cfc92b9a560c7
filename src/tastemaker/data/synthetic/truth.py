"""What is true of the invented world and told to no dataset: tastes, chances, the best ranking there is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.synthetic import choice as model
from tastemaker.data.synthetic.catalogue import START_US, Catalogue, Floats
from tastemaker.data.synthetic.choice import Habits, Shelves
from tastemaker.data.synthetic.people import People, Society, make_people
from tastemaker.data.synthetic.words import N_GENRES
from tastemaker.types import Array, Jagged, Requests, Slates, UsageError, to_numpy

BLOCK_BYTES = 1 << 26


class Truth:
    """The preferences behind a dataset. Users and items are named by their numbers in it.

    Everything is computed when asked for, block by block, so a world of a million users costs nothing to hold.
    """

    def __init__(
        self,
        order: NDArray[np.int64],
        catalogue: Catalogue,
        society: Society,
        shelves: Shelves,
        habits: Habits,
        seed: int,
    ) -> None:
        self.catalogue = catalogue
        self._order, self._society, self._shelves, self._habits, self._seed = order, society, shelves, habits, seed
        self._mass = {name: self._by_genre(getattr(shelves, name)) for name in ("famous", "obscure")}

    def _by_genre(self, totals: Floats) -> Floats:
        """Chance mass of each film on each genre's shelf [G, I]."""
        mass = np.zeros((N_GENRES, self.n_items))
        for g in range(N_GENRES):
            part = slice(self._shelves.starts[g], self._shelves.starts[g + 1])
            mass[g, self._shelves.films[part]] = np.diff(totals[part], prepend=0.0)
        return mass

    @property
    def n_users(self) -> int:
        return len(self._order)

    @property
    def n_items(self) -> int:
        return self.catalogue.n_items

    @property
    def end(self) -> int:
        """When the log ends, in microseconds since 1970."""
        return START_US + self._habits.span

    def people(self, users: Any) -> People:
        """All that is true of users."""
        users = np.atleast_1d(np.asarray(users, dtype=np.int64))
        return make_people(self._order[users], self._society, seed=self._seed, span_us=self._habits.span)

    def position_bias(self, k: int | None = None) -> Floats:
        """The chance that each place of a shown list is looked at [K]."""
        places = np.arange(self._habits.slate_size if k is None else k)
        return np.asarray((places + 1.0) ** -self._habits.bias)

    def relevance(self, users: Any, items: Any = None, time: Any = None) -> Floats:
        """The chance that a user who looks at a film wants it: [B, I], or [B, C] of items [C] or [B, C].

        `time` is one time or one a user [B], in microseconds; without it, the end of the log.
        """
        people = self.people(users)
        tastes = people.tastes(self._time(time, len(people.users)), self._habits.span)
        films = np.arange(self.n_items) if items is None else to_numpy(items)
        vectors = self._shelves.vectors[films]
        fit = tastes @ vectors.T if films.ndim == 1 else np.einsum("bd,bcd->bc", tastes, vectors)
        logits = self._habits.taste * fit + 0.5 * self._shelves.quality[films]
        logits -= people.price[:, None] * self._shelves.price[films]
        return np.asarray(1.0 / (1.0 + np.exp(model.BASE - logits)))

    def choice(self, users: Any, time: Any = None, history: Jagged[Any] | None = None) -> Floats:
        """The chance that each film is the next that a user takes unprompted [B, I]: the rows sum to 1.

        `history` has B rows of films watched, oldest first: they are not taken again, the last one's sequel is
        more likely, and other sequels are likely only where the part before was seen. Films not yet released
        have no chance. Choices prompted by a shown list are `position_bias` times `relevance` instead.
        """
        people = self.people(users)
        n = len(people.users)
        now = self._time(time, n)
        released = self._shelves.release <= now[:, None]
        chance = self.relevance(users, time=now) * released
        age_days = np.maximum(now[:, None] - self._shelves.release, 0) / 86_400e6
        chance *= model.FRESH[0] + (1 - model.FRESH[0]) * np.exp(-age_days / model.FRESH[1])
        seen = np.zeros((n, self.n_items), dtype=np.bool_)
        if history is not None:
            seen[history.rows, history.values] = True
        later = np.flatnonzero(self._shelves.previous >= 0)
        chance[:, later] *= np.where(seen[:, self._shelves.previous[later]], 1.0, model.UNSEEN_PART)
        chance[seen] = 0.0

        focus = np.exp(model.GENRE_FOCUS * people.tastes(now, self._habits.span) @ self._shelves.genres.T)
        shares = focus / focus.sum(axis=1, keepdims=True)  # [B, G]
        crowd = (1 - self._habits.searches) * people.seeking[:, None]
        out = crowd * self._browse("famous", chance, released, shares)
        out += (1 - crowd) * self._browse("obscure", chance, released, shares)
        if history is not None:
            self._carry_on(out, history, seen, released)
        return out

    def _browse(self, shelf: str, chance: Floats, released: NDArray[np.bool_], shares: Floats) -> Floats:
        """Chance of each film [B, I] where it comes to mind from one kind of shelf."""
        mass = self._mass[shelf]  # [G, I]
        stock = released @ mass.T  # [B, G]
        per_genre = np.divide(shares, stock, out=np.zeros_like(shares), where=stock > 0)
        general = (per_genre @ mass) * chance
        total = general.sum(axis=1, keepdims=True)
        free = general / np.maximum(total, 1e-300)
        # A session's intent mixes its own genre in; each intent is a distribution of its own, weighted by `shares`.
        inside = np.divide(chance @ mass.T, stock, out=np.zeros_like(shares), where=stock > 0)
        weight = shares / np.maximum(model.STAY * inside + (1 - model.STAY) * total, 1e-300)
        own = np.divide(weight, stock, out=np.zeros_like(weight), where=stock > 0)
        bent = model.STAY * (own @ mass) * chance + (1 - model.STAY) * weight.sum(axis=1, keepdims=True) * general
        return np.asarray((1 - self._habits.intent) * free + self._habits.intent * bent)

    def _carry_on(
        self, out: Floats, history: Jagged[Any], seen: NDArray[np.bool_], released: NDArray[np.bool_]
    ) -> None:
        """Move the chance of going straight on with a series to the sequel of the last film."""
        rows = np.flatnonzero(history.lengths)
        last = history.values[history.offsets[1:][rows] - 1]
        sequel = self._shelves.following[last]
        opens = (sequel >= 0) & released[rows, sequel] & ~seen[rows, sequel]
        rows, sequel = rows[opens], sequel[opens]
        out[rows] *= 1 - self._habits.sequels
        out[rows, sequel] += self._habits.sequels

    def policy(self, users: Any, time: Any = None, history: Jagged[Any] | None = None) -> Floats:
        """The chance that the logging policy shows each film in the first place of a list [B, I].

        Later places follow the same chances among the films not shown yet.
        """
        people = self.people(users)
        mass = np.diff(self._shelves.shown, axis=1, prepend=0.0)[people.stated[:, 0]]
        mass *= self._shelves.release <= self._time(time, len(people.users))[:, None]
        if history is not None:
            mass[history.rows, history.values] = 0.0
        return np.asarray(mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-300))

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        """Scores [B, C] or [B, I] by `choice`: an evaluation can put the truth beside systems."""
        if requests.users is None:
            raise UsageError("the truth is known of users, so requests need their numbers")
        history = None if requests.history is None else requests.items()
        out = np.empty((requests.n, self.n_items), dtype=np.float32)
        for rows in self._blocks(requests.n):
            now = None if requests.now is None else requests.now[rows]
            past = None if history is None else history.take(rows)
            out[rows] = self.choice(requests.users[rows], now, past)
        if items is None:
            return out
        films = to_numpy(items)
        return out[:, films] if films.ndim == 1 else np.take_along_axis(out, films, axis=1)

    def ideal(
        self, users: Any, k: int, time: Any = None, history: Jagged[Any] | None = None, *, by: str = "choice"
    ) -> Slates:
        """The best k films for each user, nothing in `history` among them.

        by: "choice", what will be watched next (fame counts), or "relevance", what is wanted once seen.
        """
        if by not in ("choice", "relevance"):
            raise UsageError(f"the best ranking is by 'choice' or by 'relevance', got {by!r}")
        users = np.atleast_1d(np.asarray(users, dtype=np.int64))
        now, k = self._time(time, len(users)), min(k, self.n_items)
        items = np.full((len(users), k), -1, dtype=np.int32)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        for rows in self._blocks(len(users)):
            past = None if history is None else history.take(rows)
            worth = (
                self.choice(users[rows], now[rows], past)
                if by == "choice"
                else self._wanted(users[rows], now[rows], past)
            )
            top = np.argsort(-worth, axis=1, kind="stable")[:, :k]
            found = np.take_along_axis(worth, top, axis=1)
            items[rows], scores[rows] = np.where(found > 0, top, -1), np.where(found > 0, found, -np.inf)
        return Slates(items, scores)

    def _wanted(self, users: NDArray[np.int64], now: NDArray[np.int64], history: Jagged[Any] | None) -> Floats:
        worth = self.relevance(users, time=now) * (self._shelves.release <= now[:, None])
        if history is not None:
            worth[history.rows, history.values] = 0.0
        return worth

    def _time(self, time: Any, n: int) -> NDArray[np.int64]:
        return np.broadcast_to(np.asarray(self.end if time is None else time, dtype=np.int64), (n,))

    def _blocks(self, n: int) -> list[slice]:
        size = max(1, BLOCK_BYTES // (8 * self.n_items))
        return [slice(start, min(n, start + size)) for start in range(0, n, size)]
