"""CML for films that are not out yet: customers and plots as points whose distance says who will come.

A film is the point f(v) of its text vector v. A customer is the point g(x) of the mean x of the text vectors of what
they attended, the recent weighing more; both lie in the unit ball. Training pulls a purchase together and pushes
skipped films j away, weighed by the rank that those which come too near suggest,

    log(1 + rank) mean over j of max(0, margin + d(u, m) - d(u, j)),   d(u, m) = |g(x_u) - f(v_m)|^2,

and spreads the points by a penalty on the covariance of their dimensions. The skipped films came out about when the
film did, else the distance would learn what was in cinemas. A logistic regression then makes a probability of the
distance, of how much the customer attends and of how long ago; it is fitted on films newer than those the distance
has seen by then, since on its own films the distance promises too much. A film nobody has seen needs its text alone
(`extend`), a new customer a few purchases.

With `hardest` a purchase is held against the nearest skipped film only, as CML's code does for points of their own.
Points that texts make learn far less under it (`benchmarks/cml_movies.py`): the nearest rival is the one whose text is
most alike, so what pushes it away pushes the purchase away too.

Kept from the papers: the metric, its loss with the WARP weight, the covariance penalty, points of films that text
predicts (`item_points`), text and past purchases as the only inputs. The application paper gives no settings and no
figures for public data; those here are ours. Changed: the text encoder is TF-IDF on its main axes, learnt from the
catalogue; both branches begin alike, so that the distance starts as one between texts.

Ref: Campo, Espinoza, Rieger, Taliyan, "Collaborative metric learning recommendation system: application to
theatrical movie releases", arXiv:1803.00202; Hsieh et al., "Collaborative metric learning", WWW 2017,
doi:10.1145/3038912.3052639.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from tastemaker.contracts import Epochs, Fit, Optimiser, Precompute, Program, Train, system
from tastemaker.feeds import Past, PurchaseLog, RowFeed, distinct
from tastemaker.feeds.feed import Rows
from tastemaker.feeds.purchases import ALWAYS
from tastemaker.language.text import TfidfSvd, fit_text, item_texts
from tastemaker.nn.table import Table
from tastemaker.types import Array, BundleError, Dataset, Requests, Schema, State, setting, to_numpy

DAY = {"us": 86_400_000_000, "step": 1}


@dataclass(frozen=True, eq=False)
class Purchases:
    """B purchases, each with the customer's past before it, and films skipped.

    Shapes:
        profiles: [B, P] float32, mean text vectors of the past
        items: [B] int64, what was attended, as places in `pool`
        skipped: [B, n] int64, as places in `pool`
        pool: [M] int64, the distinct films
    """

    profiles: Any
    items: Any
    skipped: Any
    pool: Any

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: slice) -> Purchases:
        return Purchases(self.profiles[rows], self.items[rows], self.skipped[rows], self.pool)


class Points(NamedTuple):
    """What a batch reads: points of customers [B, D], of films [M, D], and what text says of them [M, D]."""

    users: Tensor
    films: Tensor
    told: Tensor


@system(
    "cml-movies",
    family="classical",
    title="CML movies: who will come to a film, from its text",
    paper="arXiv:1803.00202",
    learns_from={"events", "events.time", "items.title"},
    needs={"history"},
)
class CMLMovies(nn.Module):
    """Customers and films as points; what nobody has seen yet is placed by its text."""

    vectors: Tensor
    points: Tensor
    head: Tensor
    rows: ClassVar = {"vectors": ("items",), "points": ("items",), "own.weight": ("items",)}
    small: ClassVar = {"epochs": 6, "batch_size": 512, "text_dim": 32}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(50, "Width of the space of points.", low=1, search=(16, 128), log=True)
        text_dim: int = setting(200, "Width of the text vectors.", low=1, search=(50, 400), log=True)
        columns: str = setting("", "Columns read as text, separated by commas; none named: all of words.")
        profile: Literal["event", "release"] = setting(
            "event",
            "What a customer is known by: all before the purchase, or all before the film came out.",
            choices=("event", "release"),
        )
        half_life: float = setting(180.0, "Days in which a purchase loses half its weight in a profile.", low=1e-3)
        max_len: int = setting(200, "Latest purchases that make a profile.", low=1)
        margin: float = setting(0.5, "By how much a skipped film is to be farther.", low=0.0, search=(0.1, 1.0))
        skipped: int = setting(20, "Skipped films a purchase is held against.", low=1, search=(5, 50), log=True)
        hardest: bool = setting(False, "Hold a purchase against the nearest of the skipped films only, not their mean.")
        window: float = setting(
            90.0, "Days before and after a film's release in which skipped ones came out; 0: any film.", low=0.0
        )
        covariance: float = setting(1.0, "Weight of the covariance penalty.", low=0.0, search=(0.0, 10.0))
        item_points: bool = setting(False, "Give films with purchases points of their own, drawn to those of text.")
        feature: float = setting(1.0, "Weight of the pull between the two.", low=0.0, search=(0.1, 10.0), log=True)
        dropout: float = setting(0.2, "Dropout of text vectors and profiles.", low=0.0, high=0.9, search=(0.0, 0.5))
        held: float = setting(
            0.2,
            "Share of newest films that the probability is fitted on before the distance sees them.",
            low=0.0,
            high=0.9,
        )
        lr: float = setting(1e-3, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        batch_size: int = setting(4096, "Purchases a step.", low=1)
        epochs: int = setting(10, "Epochs; half as many follow with the newest films.", low=1, search=(5, 40))

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        p, d = config.text_dim, config.dim
        self.film = nn.Sequential(nn.Linear(p, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, d))
        self.customer = deepcopy(self.film)
        self.own = Table(schema.n_items, d, std=0.01) if config.item_points else None
        self.register_buffer("vectors", torch.zeros(schema.n_items, p))
        self.register_buffer("points", torch.zeros(schema.n_items, d))
        self.register_buffer("head", torch.tensor([0.0, 1.0, 0.0, 0.0]))  # constant, closeness, frequency, recency
        self.day = DAY[schema.time_unit or "step"]
        self.encoder: TfidfSvd | None = None
        self.familiar = np.zeros(schema.n_items, dtype=np.bool_)  # films that an older fit has learnt from

    # -- training

    def program(self, data: Dataset) -> Program:
        c = self.config
        texts = self._texts(data.items)
        if self.encoder is None:
            self.encoder = TfidfSvd.of((yield Precompute(fit_text, texts, c.text_dim)))
        self.vectors = torch.from_numpy(self.encoder.encode(texts)).to(self.head.device)
        log = PurchaseLog.of(data, Past.of(data, self.vectors.numpy(), *self._memory()))
        newest = log.newest(c.held) & ~self.familiar
        if newest.any():
            yield self._trained(log, log.sold & ~newest, c.epochs)
            self.head.copy_(torch.as_tensor((yield Fit(self.fit_head, log, newest, rng="pairs"))))
            yield self._trained(log, log.sold, max(1, c.epochs // 2))
        elif self.familiar.any():  # no film is unseen, so the older fit's probability stays
            yield self._trained(log, log.sold, c.epochs)
        else:
            yield self._trained(log, log.sold, c.epochs)
            self.head.copy_(torch.as_tensor((yield Fit(self.fit_head, log, log.sold, rng="pairs"))))
        with torch.no_grad():
            self.points.copy_(self.placed(self.vectors))
            if self.own is not None:
                sold = torch.from_numpy(log.sold)
                self.points[sold] = self.own.weight[sold]

    def adopt(self, old: CMLMovies, users: NDArray[np.integer[Any]], items: NDArray[np.integer[Any]]) -> None:
        """Take an older fit's text encoder, along whose axes its layers read, and note which films it knew."""
        self.encoder, self.familiar = old.encoder, items >= 0

    def _trained(self, log: PurchaseLog, films: NDArray[np.bool_], epochs: int) -> Train:
        """Training on the purchases of some films, against others of them."""
        c = self.config
        rows_of = np.flatnonzero(films[log.items])
        offered = log.offered(films, c.window * self.day)

        def make(rows: Rows, rng: np.random.Generator) -> Purchases:
            bought = rows_of[rows]
            users, items = log.users[bought], log.items[bought]
            profiles, _ = log.past.before(users, log.cut(bought, c.profile))
            skipped = offered.draw(users, items, c.skipped, rng)
            pool, places = distinct(np.concatenate([items, skipped.ravel()]), len(films))
            return Purchases(profiles, places[: len(items)], places[len(items) :].reshape(skipped.shape), pool)

        return Train(
            RowFeed(len(rows_of), c.batch_size, make),
            self.gather,
            self.objective,
            until=Epochs(epochs),
            optimiser=Optimiser(lr=c.lr),
            after_step=self.project,
        )

    def gather(self, batch: Purchases) -> Points:
        told = self.placed(self.vectors[batch.pool])
        return Points(self.known_by(batch.profiles), told if self.own is None else self.own(batch.pool), told)

    def objective(self, points: Points, batch: Purchases) -> Tensor:
        """The weighed hinge of each purchase, the covariance penalty added to each [B] (CML, equations 1 to 6)."""
        c, (users, films, told) = self.config, points
        near = (users - F.embedding(batch.items, films)).square().sum(dim=-1)
        far = (users.unsqueeze(1) - F.embedding(batch.skipped, films)).square().sum(dim=-1)  # quicker back than films[]
        nearer = (far < near.unsqueeze(1) + c.margin).float().mean(dim=1)
        weights = torch.log1p(nearer * len(self.vectors))
        hinges = F.relu(c.margin + near.unsqueeze(1) - far)
        losses = weights * (hinges.max(dim=1).values if c.hardest else hinges.mean(dim=1))
        if self.own is not None:
            losses = losses + c.feature * (films - told)[batch.items].square().sum(dim=-1)
        return losses + c.covariance * covariance(torch.cat([users, films]))

    @torch.no_grad()
    def project(self, step: int) -> None:
        """Bring films' own points back into the unit ball."""
        if self.own is not None:
            self.own.weight.copy_(into_ball(self.own.weight))

    def placed(self, vectors: Tensor) -> Tensor:
        """Points of films [n, D] from their text vectors [n, P]."""
        return into_ball(self.film(self._dropped(vectors)))

    def known_by(self, profiles: Tensor) -> Tensor:
        """Points of customers [B, D] from the mean text vectors of their past [B, P]."""
        return into_ball(self.customer(self._dropped(profiles)))

    def _dropped(self, texts: Tensor) -> Tensor:
        return F.dropout(texts * texts.shape[1] ** 0.5, self.config.dropout, self.training)

    @torch.no_grad()
    def fit_head(self, log: PurchaseLog, films: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
        """Weights [4] of the probability: purchases of some films against customers who were there and did not come."""
        users, items, until, labels, weights = log.pairs(films, self.config.profile, rng)
        profiles, habits = log.past.before(users, until)
        points = self.known_by(torch.from_numpy(profiles)) - self.placed(self.vectors)[items]
        closeness = -points.square().sum(dim=1).numpy()
        return logistic(np.column_stack([closeness, habits]), labels, weights)

    # -- answers

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """Customers [B, D + 2], whose inner product with a film is the log-odds that they come."""
        users, habits = self.customers(requests)
        constant, closeness, *of_habits = self.head
        odds = constant + habits @ torch.stack(of_habits) - closeness * users.square().sum(dim=1)
        return torch.cat([2 * closeness * users, -closeness.expand(len(users), 1), odds.unsqueeze(1)], dim=1)

    @torch.no_grad()
    def customers(self, requests: Requests) -> tuple[Tensor, Tensor]:
        """Points [B, D] of customers by their histories, and habits [B, 2]; with no time to go by, all was lately."""
        assert requests.history is not None
        items = requests.history.values["item"]
        known = requests.history.where((items >= 0) & (items < len(self.vectors)))
        items, dated = known.values["item"].astype(np.int64), "time" in known.values
        times = known.values["time"].astype(np.int64) if dated else np.zeros(len(items), dtype=np.int64)
        past = Past(items, times, known.offsets, to_numpy(self.vectors), *self._memory())
        ever = np.full(requests.n, ALWAYS)
        now = requests.now if dated and requests.now is not None else ever
        profiles, habits = past.before(np.arange(requests.n), ever, now)
        found = self.known_by(torch.from_numpy(profiles).to(self.head.device))
        return found, torch.from_numpy(habits).to(found.device)

    @torch.no_grad()
    def closeness(self, requests: Requests, items: Array) -> Tensor:
        """The distance turned round, -|g(x) - f(v)|^2 [B, n] for films [n]: taste alone, without the head."""
        points = self.points[torch.as_tensor(items).long()]
        return -torch.cdist(self.customers(requests)[0], points).square()

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """Films [n, D + 2]: their points, squared lengths and a 1."""
        points = self.points if numbers is None else self.points[torch.as_tensor(numbers).long()]
        return torch.cat([points, points.square().sum(dim=1, keepdim=True), points.new_ones(len(points), 1)], dim=1)

    def probabilities(self, requests: Requests, items: Array) -> Tensor:
        """Probabilities [B, n] that customers come to films [n]; summed over customers, the audience to be expected."""
        return torch.sigmoid(self.queries(requests) @ self.items(items).T)

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> CMLMovies:
        """With further films, placed by the texts of a table like the catalogue; customers need no rows."""
        assert self.encoder is not None
        fresh = [] if items is None else self._texts(items)
        vectors = torch.from_numpy(self.encoder.encode(fresh))
        with torch.no_grad():
            points = self.placed(vectors)
        n_users = self.schema.n_users + (0 if users is None else len(users))
        schema = replace(self.schema, n_items=self.schema.n_items + len(fresh), n_users=n_users)
        larger = type(self)(self.config, schema)
        state = {
            **self.export(),
            "vectors": torch.cat([self.vectors, vectors]),
            "points": torch.cat([self.points, points]),
        }
        larger.restore({name: to_numpy(array) for name, array in state.items()})
        return larger

    def export(self) -> dict[str, Any]:
        """Branches, head, text vectors and points of films, and the text encoder; no films' points to be trained."""
        assert self.encoder is not None
        weights = {name: array for name, array in self.state_dict().items() if not name.startswith("own.")}
        return {**weights, **{f"text.{name}": array for name, array in self.encoder.state().items()}}

    def restore(self, state: State) -> None:
        self.encoder = TfidfSvd.of({n.removeprefix("text."): a for n, a in state.items() if n.startswith("text.")})
        weights = {n: torch.as_tensor(a) for n, a in state.items() if not n.startswith("text.")}
        if bad := [name for name, w in weights.items() if not torch.isfinite(w).all()]:
            raise BundleError(f"the weights {bad[0]} hold values that are no numbers")
        if self.own is not None:
            weights["own.weight"] = weights["points"]  # where a later training goes on from
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f"the weights do not fit the system: {error}") from error
        if self.encoder.dim != self.config.text_dim:
            raise BundleError(
                f"the text encoder gives {self.encoder.dim} numbers, the system reads {self.config.text_dim}"
            )
        self.eval()

    def _texts(self, items: pl.DataFrame) -> list[str]:
        return item_texts(items, [name.strip() for name in self.config.columns.split(",") if name.strip()])

    def _memory(self) -> tuple[float, int]:
        return self.config.half_life * self.day, self.config.max_len


def into_ball(points: Tensor) -> Tensor:
    """Points of more than unit length brought back to it [n, D]."""
    inside: Tensor = points / points.norm(dim=1, keepdim=True).clamp_min(1.0)
    return inside


def covariance(points: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions over the points [n, D] (CML, equation 6)."""
    centred = points - points.mean(dim=0)
    matrix = centred.T @ centred / len(points)
    off_diagonal: Tensor = matrix.square().sum() - matrix.diagonal().square().sum()
    return off_diagonal


def logistic(features: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Constant and weights of a logistic regression; the first feature's is kept above 0.

    Shapes: features [K, F], labels, weights [K]; returns [1 + F].
    """
    wide = np.column_stack([np.ones(len(labels)), features]).astype(np.float64)
    start: NDArray[np.float64] = np.eye(wide.shape[1])[1]
    if not (weights[labels > 0].sum() > 0 and weights[labels == 0].sum() > 0):
        return start

    def cost(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = wide @ coefficients
        slopes = weights * (1 / (1 + np.exp(-np.clip(odds, -500, 500))) - labels)
        value = (weights * (np.logaddexp(0, odds) - labels * odds)).sum() + 0.5 * np.square(coefficients).sum()
        return float(value), wide.T @ slopes + coefficients

    bounds = [(None, None), (1e-3, None), *[(None, None)] * (wide.shape[1] - 2)]
    found: NDArray[np.float64] = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
