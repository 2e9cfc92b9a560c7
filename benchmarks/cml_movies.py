"""CML movies on films it has never seen: does the learnt distance know who will come better than the texts alone?

python benchmarks/cml_movies.py            writes benchmarks/results/cml_movies.json

MovieLens latest-small, the films that TMDB has a plot for, in the order of their release. What is learnt comes from
the older films' ratings; the newest 15% are held out, the 15% before them decided the defaults. A user is known by
the ratings of older films. "AUC over films": how often, for a user, a held-out film the user rated is nearer than one
not rated; the mean over users. "AUC over users": the same for a film, among users who rated about as many films
(a third of all), so that being active does not help; the mean over films. Chance is 0.5. With "plots shuffled" each
film gets another's plot.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import data_folder, page_table, write

HELD, FEWEST = 0.15, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--part", choices=["valid", "test"], default="test")
    given = parser.parse_args()
    world = World(given.part)
    sides: dict[str, dict[str, float]] = {"texts alone": world.judged(world.by_text())}
    for name, settings, shuffled in (
        ("learnt, rivals of any year", {"window": 0.0}, False),
        ("learnt, rivals of the same months", {}, False),
        ("learnt, no covariance penalty", {"window": 0.0, "covariance": 0.0}, False),
        ("learnt, the nearest rival alone", {"window": 0.0, "hardest": True}, False),
        ("learnt, plots shuffled", {"window": 0.0}, True),
    ):
        runs = [world.judged(world.by_distance(settings, seed, shuffled)) for seed in given.seeds]
        sides[name] = {key: round(float(np.mean([run[key] for run in runs])), 4) for key in runs[0]}
        print(name, sides[name], flush=True)
    found = {"part": given.part, **world.size(), "sides": sides}
    write("cml_movies", found, tables(found))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [{"distance": name, **figures} for name, figures in found["sides"].items()]
    return [page_table(f"CML movies, {found['held']} films that came out after all it learnt from", rows)]


class World:
    """Users, films in the order of release with their plots, and who rated what."""

    def __init__(self, part: str) -> None:
        import polars as pl

        plots, ratings_of = data_folder("tmdb-5000"), data_folder("ml-latest-small")
        if plots is None or ratings_of is None:
            raise SystemExit("tmdb-5000 and ml-latest-small are not there: set TASTEMAKER_DATA to the folder of data")
        told = pl.read_parquet(plots / "movies.parquet").select(
            "tmdb_id", "overview", "release_date", pl.col("genres").list.join(" ").alias("kinds")
        )
        films = pl.read_parquet(ratings_of / "movies.parquet").join(told, on="tmdb_id")
        films = films.filter(pl.col("overview").is_not_null() & (pl.col("release_date").str.len_chars() == 10))
        ratings = pl.read_parquet(ratings_of / "ratings.parquet")
        films = films.unique("item_id").join(ratings, on="item_id", how="semi").sort("release_date", "item_id")
        place = pl.DataFrame({"item_id": films["item_id"], "film": range(len(films))})
        ratings = ratings.join(place, on="item_id").sort("timestamp", "user_id", "film")
        self.users = np.unique(ratings["user_id"], return_inverse=True)[1]
        self.films, self.times = ratings["film"].to_numpy(), ratings["timestamp"].cast(pl.Int64).to_numpy()
        self.texts = films.select(pl.concat_str("overview", "kinds", separator=" ")).to_series().to_list()
        n = len(films)
        ends = {"valid": n - int(HELD * n), "test": n}
        self.last = ends[part]
        self.first = self.last - int(HELD * n)
        self.n_users = int(self.users.max()) + 1

    def size(self) -> dict[str, int]:
        return {"users": self.n_users, "films": self.first, "held": self.last - self.first, "ratings": len(self.users)}

    def known(self) -> Any:
        return self.films < self.first

    def by_text(self) -> Any:
        """Cosines [U, held] of mean text vectors of what users rated and the new films' vectors."""
        from tastemaker.language.text import TfidfSvd, fit_text

        vectors = TfidfSvd.of(fit_text(self.texts[: self.first], 200)).encode(self.texts)
        profiles, known = np.zeros((self.n_users, 200), dtype=np.float32), self.known()
        np.add.at(profiles, self.users[known], vectors[self.films[known]])
        profiles /= np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-9)
        return profiles @ vectors[self.first : self.last].T

    def by_distance(self, settings: dict[str, Any], seed: int, shuffled: bool) -> Any:
        """Learnt closeness [U, held], the new films placed by `extend`."""
        import polars as pl

        from tastemaker.data import build
        from tastemaker.train import fit
        from tastemaker.types import Requests, quiet

        order = np.random.default_rng(seed).permutation(len(self.texts)) if shuffled else np.arange(len(self.texts))
        table = pl.DataFrame({"item": range(len(order)), "title": [self.texts[n] for n in order]})
        known = self.known()
        events = pl.DataFrame({"user": self.users[known], "item": self.films[known], "time": self.times[known] * 10**6})
        people = pl.DataFrame({"user": range(self.n_users)})
        data = build("films", events, people, table[: self.first], time_unit="us")
        with quiet():
            system = fit("cml-movies", data, settings, seed=seed).system
        larger = system.extend(items=table[self.first : self.last])
        requests = Requests(data.n_users, history=data.histories(("item", "time")))
        fresh = np.arange(data.n_items, data.n_items + self.last - self.first)
        found = np.empty((self.n_users, len(fresh)), dtype=np.float32)
        found[data.users["user"].to_numpy()] = larger.closeness(requests, fresh).numpy()
        return found

    def judged(self, scores: Any) -> dict[str, float]:
        there = np.zeros(scores.shape, dtype=bool)
        new = (self.films >= self.first) & (self.films < self.last)
        there[self.users[new], self.films[new] - self.first] = True
        active = np.bincount(self.users[self.known()], minlength=self.n_users)
        tier = np.digitize(active, np.quantile(active, [1 / 3, 2 / 3]))
        of_users = [auc(scores[u], there[u]) for u in range(self.n_users) if active[u]]
        of_films = [
            auc(scores[tier == t, f], there[tier == t, f])
            for f in range(scores.shape[1])
            for t in range(tier.max() + 1)
        ]
        return {
            "AUC over films": round(float(np.nanmean(of_users)), 4),
            "AUC over users": round(float(np.nanmean(of_films)), 4),
        }


def auc(scores: Any, right: Any) -> float:
    """How often a right one has the higher score; NaN where either kind is too rare."""
    from scipy.stats import rankdata

    n, m = int(right.sum()), int((~right).sum())
    if n < FEWEST or m < FEWEST:
        return float("nan")
    return float((rankdata(scores)[right].sum() - n * (n + 1) / 2) / (n * m))


if __name__ == "__main__":
    main()
