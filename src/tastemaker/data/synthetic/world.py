"""A world from settings and a seed: its dataset in memory or streamed to disk, its truth, its posters."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.synthetic.catalogue import DAY_US, Catalogue, make_catalogue
from tastemaker.data.synthetic.choice import Habits, Shelves, make_shelves
from tastemaker.data.synthetic.events import PER_USER, session_rate, simulate
from tastemaker.data.synthetic.people import (
    People,
    Society,
    communities,
    follows,
    joined,
    make_people,
    make_society,
    user_ids,
)
from tastemaker.data.synthetic.posters import draw_poster
from tastemaker.data.synthetic.truth import Truth
from tastemaker.types import (
    DATASET_FILE,
    Dataset,
    NotFound,
    UsageError,
    config_to_json,
    make_config,
    progress,
    replace_folder,
    setting,
    to_toml,
)
from tastemaker.types.storage import write_header

TRUTH_FILE = "truth.toml"
ROWS_A_BLOCK = 1 << 19
TASTE, FAME, THRIFT = 6.5, 1.3, 0.6  # what the settings 1.0 of taste, popularity and price stand for

KINDS: dict[Any, Any] = {
    "users": {"age": "category", "country": "category", "favourite": "category", "persona": "text"},
    "items": {
        "title": "text", "genres": "categories", "moods": "categories", "maker": "category", "cast": "categories",
        "series": "category", "part": "number", "year": "number", "minutes": "number", "price": "number",
        "description": "text",
    },
}  # fmt: skip


@dataclass(frozen=True)
class WorldConfig:
    """Settings of an invented world; the effects can be turned off one by one."""

    n_users: int = setting(1_000, "Viewers.", low=1, high=99_999_999)
    n_items: int | None = setting(None, "Films; None: 20 times the square root of the viewers.", low=20, high=999_999)
    events_per_user: float = setting(40.0, "Films a viewer watches, on average, roughly.", low=4, high=1_000)
    days: int = setting(730, "How long the log is.", low=7, high=10_000)
    taste: float = setting(1.0, "How much taste decides; 0: not at all.", low=0, high=5)
    popularity: float = setting(1.0, "How unequal the films' fame is; 0: all alike.", low=0, high=3)
    drift: float = setting(1.0, "How far tastes turn during the log; 0: they stay.", low=0, high=3)
    price: float = setting(1.0, "How much thrifty viewers mind a price; 0: nobody does.", low=0, high=5)
    intent: float = setting(0.6, "Share of sessions that mostly keep to one genre.", low=0, high=1)
    sequels: float = setting(0.5, "Chance that a film's sequel is what follows it.", low=0, high=1)
    searches: float = setting(0.1, "Share of films that are found by a search.", low=0, high=1)
    impressions: float = setting(
        0.2, "Share of sessions that open with a shown list; 0: none is logged.", low=0, high=1
    )
    slate_size: int = setting(10, "Films in a shown list.", low=1, high=50)
    position_bias: float = setting(0.7, "Place p is looked at with chance (p + 1) ** -position_bias.", low=0, high=3)


class World:
    """An invented world. Making it costs nothing; the catalogue and the people follow when asked for.

    Args:
        config: a `WorldConfig`, or settings of one by name.
        seed: decides everything that the settings leave open.
        name: of the dataset.
        settings: settings by name, over those of `config`: `World(n_users=5_000, drift=0.0)`.
    """

    def __init__(
        self,
        config: WorldConfig | Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        name: str = "synthetic",
        **settings: Any,
    ) -> None:
        given = config_to_json(config) if isinstance(config, WorldConfig) else dict(config or {})
        self.config = make_config(WorldConfig, {**given, **settings}, of="an invented world")
        self.seed = seed
        self.name = name

    def __repr__(self) -> str:
        return f"World({self.name!r}: {self.n_users:,} users, {self.n_items:,} items, seed {self.seed})"

    @property
    def n_users(self) -> int:
        return self.config.n_users

    @property
    def n_items(self) -> int:
        given = self.config.n_items
        return max(200, round(20 * self.n_users**0.5)) if given is None else given

    @property
    def _span(self) -> int:
        return self.config.days * DAY_US

    @cached_property
    def catalogue(self) -> Catalogue:
        """The films, hidden facts and all."""
        return make_catalogue(
            self.n_items, seed=self.seed, span_us=self._span, popularity=FAME * self.config.popularity
        )

    @cached_property
    def _shelves(self) -> Shelves:
        return make_shelves(self.catalogue)

    @cached_property
    def _society(self) -> Society:
        return make_society(self.catalogue, seed=self.seed, drift=self.config.drift, price=THRIFT * self.config.price)

    @cached_property
    def _habits(self) -> Habits:
        c = self.config
        rate = session_rate(c.events_per_user, c.impressions)
        most = max(3, min(self.n_items // 5, PER_USER - 1))  # nobody watches most of the catalogue
        return Habits(
            TASTE * c.taste, c.intent, c.sequels, c.searches, c.impressions, c.slate_size, c.position_bias,
            rate, most, self._span,
        )  # fmt: skip

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The viewers' own numbers [U] in the order of the dataset: by when they joined."""
        users = np.arange(self.n_users)
        return np.argsort(joined(users, seed=self.seed, span_us=self._span), kind="stable")

    def truth(self) -> Truth:
        """What no dataset tells."""
        return Truth(self.order, self.catalogue, self._society, self._shelves, self._habits, self.seed)

    # -- the dataset

    def dataset(self, *, posters: str | Path | None = None) -> Dataset:
        """The world's dataset in memory: users, items, events, the edges "kg" and "social".

        With `posters`, every film's poster is drawn into that folder and the items have the column "poster".
        """
        blocks = [(users, events, social) for _, users, events, social in self._blocks()]
        users, events, social = (pl.concat(frames, rechunk=True) for frames in zip(*blocks, strict=True))
        items, kinds = self.catalogue.table(), KINDS
        if posters is not None:
            paths = pl.Series("poster", [str(path) for path in self.draw_posters(posters)])
            items, kinds = items.with_columns(paths), {**KINDS, "items": {**KINDS["items"], "poster": "image"}}
        edges = {"kg": self.catalogue.knowledge(), "social": social}
        return Dataset(self.name, users, items, events, edges=edges, kinds=kinds, time_unit="us", notes=self._notes())

    def save(self, folder: str | Path, *, truth: str | Path | None = None) -> Path:
        """Write the dataset to a folder, and the truth to another, in memory that does not grow with the users.

        `Dataset.load(folder)` equals `dataset()`; `World.open(truth)` is this world again.
        """
        folder = Path(folder)
        if truth is not None and folder.resolve() in (Path(truth).resolve(), *Path(truth).resolve().parents):
            raise UsageError(f"the truth must not lie in the dataset's folder {folder}", hint="name a folder beside it")
        with ExitStack() as stack:
            fresh = stack.enter_context(replace_folder(folder, marker=DATASET_FILE))
            (fresh / "edges").mkdir()
            files = [fresh / "users.parquet", fresh / "events.parquet", fresh / "edges" / "social.parquet"]
            if truth is not None:
                hidden = stack.enter_context(replace_folder(Path(truth), marker=TRUTH_FILE))
                files.append(hidden / "users.parquet")
                self._save_hidden(hidden)
            n_events = 0
            with ExitStack() as open_files:
                tables = [open_files.enter_context(_Rows(path)) for path in files]
                for people, users, events, social in self._blocks():
                    frames = [users, events, social, *([_hidden_users(people, users["user"])] if truth else [])]
                    for table, frame in zip(tables, frames, strict=True):
                        table.write(frame)
                    n_events += events.height
            self.catalogue.table().write_parquet(fresh / "items.parquet", compression="zstd", compression_level=1)
            self.catalogue.knowledge().write_parquet(fresh / "edges" / "kg.parquet")
            counts = {"users": self.n_users, "items": self.n_items, "events": n_events}
            write_header(fresh, self.name, counts=counts, kinds=KINDS, time_unit="us", notes=self._notes())
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> World:
        """The world whose truth `save` wrote to a folder."""
        file = Path(folder) / TRUTH_FILE
        if not file.is_file():
            raise NotFound(f"{folder} holds no truth (there is no {TRUTH_FILE})", hint="World.save(..., truth=folder)")
        about = tomllib.loads(file.read_text(encoding="utf-8"))
        return cls(about["config"], seed=about["seed"], name=about["name"])

    def _blocks(self) -> Iterator[tuple[People, pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
        """Block by block in the order of the dataset: people, and their rows of users, events, social edges."""
        rows_a_user = self.config.events_per_user * (1.2 + self.config.impressions * self.config.slate_size / 2)
        size = max(1, int(ROWS_A_BLOCK / rows_a_user))
        community = communities(np.arange(self.n_users), self._society, seed=self.seed)
        queries = self.catalogue.queries
        with progress(f"inventing {self.n_users:,} users", self.n_users) as advance:
            for start in range(0, self.n_users, size):
                own = self.order[start : start + size]
                people = make_people(own, self._society, seed=self.seed, span_us=self._span)
                numbers = np.arange(start, start + len(own), dtype=np.int32)
                events = simulate(people, numbers, self._shelves, self._habits, queries, seed=self.seed)
                heads, tails = follows(own, community, seed=self.seed)
                social = pl.DataFrame([user_ids(heads).alias("head"), user_ids(tails).alias("tail")])
                social = social.select("head", pl.lit("follows").alias("relation"), "tail")
                yield people, people.table(user_ids(own)), events, social
                advance(len(own))

    def _notes(self) -> dict[str, str]:
        return {"source": f"invented by tastemaker: {self.n_users:,} viewers of {self.n_items:,} films"}

    def _save_hidden(self, folder: Path) -> None:
        config = {name: value for name, value in config_to_json(self.config).items() if value is not None}
        about = {"name": self.name, "seed": self.seed, "config": config}
        about["position_bias"] = self.truth().position_bias().tolist()
        (folder / TRUTH_FILE).write_text(to_toml(about), encoding="utf-8")
        films = self.catalogue
        hidden = {"item": films.ids, "quality": films.quality, "weight": films.weight}
        vectors = pl.Series("vector", films.vectors, dtype=pl.Array(pl.Float64, films.vectors.shape[1]))
        pl.DataFrame(hidden).with_columns(vectors).write_parquet(folder / "items.parquet")

    # -- posters

    def poster(self, item: int | str) -> bytes:
        """The poster of a film, by number or outside id, as a PNG."""
        if isinstance(item, str):
            found = self.catalogue.ids.index_of(item)
            if found is None:
                raise NotFound(f"no film has the id {item!r}", hint=f"ids run from f000000 to {self.catalogue.ids[-1]}")
            item = found
        if not 0 <= item < self.n_items:
            raise NotFound(f"films are numbered from 0 to {self.n_items - 1}, got {item}")
        return draw_poster(self.catalogue, item, seed=self.seed)

    def draw_posters(self, folder: str | Path, items: Iterable[int] | None = None) -> list[Path]:
        """Draw posters into a folder, one file a film (`f000012.png`), and return their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        films = list(range(self.n_items) if items is None else items)
        paths = [folder / f"{self.catalogue.ids[film]}.png" for film in films]
        with progress("drawing posters", len(films)) as advance:
            for film, path in zip(films, paths, strict=True):
                path.write_bytes(self.poster(film))
                advance(1)
        return paths


def synthetic(
    n_users: int = 1_000,
    n_items: int | None = None,
    *,
    seed: int = 0,
    events_per_user: float = 40.0,
    impressions: float = 0.2,
    name: str = "synthetic",
) -> Dataset:
    """An invented dataset; `World` offers all settings and the truth behind it."""
    return World(
        n_users=n_users, n_items=n_items, events_per_user=events_per_user, impressions=impressions, seed=seed, name=name
    ).dataset()


class _Rows:
    """A Parquet file that grows by frames of one schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def __enter__(self) -> _Rows:
        return self

    def write(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd", compression_level=1)
        self._writer.write_table(table)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _hidden_users(people: People, ids: pl.Series) -> pl.DataFrame:
    """What is true of users, as a table."""
    width = people.early.shape[1]
    vectors = [pl.Series(side, getattr(people, side), dtype=pl.Array(pl.Float64, width)) for side in ("early", "late")]
    traits = {name: getattr(people, name) for name in ("drift", "price", "seeking", "activity", "tone")}
    return pl.DataFrame([ids, *vectors]).with_columns(pl.Series(name, values) for name, values in traits.items())
