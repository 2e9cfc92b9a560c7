"""A report: what a protocol measured, with the value of every request, intervals, slices and provenance.

On disk it is one Parquet file (everything), one JSON file (everything but the values by request), or one
HTML page; a folder gets all three.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.statistics import bootstrap
from tastemaker.types import DataError, NotFound, UsageError, nearest, replace_file, replace_folder

if TYPE_CHECKING:
    from rich.console import Group

FORMAT = 1
STORED_AS = "tastemaker.report"  # key of the JSON in the Parquet file's metadata
SUFFIXES = (".html", ".json", ".parquet")
SLICE_COLUMNS = {
    "slice": pl.String,
    "value": pl.String,
    "n": pl.Int64,
    "metric": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


@dataclass(frozen=True)
class Figure:
    """A mean over `n` requests and the ends of its interval; a value of the whole has no interval."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Statistics:
    """How intervals are made."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Report:
    """One system on one set of cases.

    system: name, label, version, config, seed, tuning
    split: name, part, spec, fingerprints, data
    protocol: kind, requests, facts (what a title must say), and what the protocol records: switches, counts, policies
    requests: [B rows] request, user, targets, history
    rows: name -> [B] float32, NaN where a metric is undefined for a request
    totals: name -> value of all lists together
    slices: rows of slice, value, n, metric, mean, low, high
    """

    system: Mapping[str, Any]
    split: Mapping[str, Any]
    protocol: Mapping[str, Any]
    requests: pl.DataFrame
    rows: Mapping[str, NDArray[np.float32]]
    totals: Mapping[str, float]
    glossary: Mapping[str, Metric]
    slices: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SLICE_COLUMNS))
    cost: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    created: str = ""
    statistics: Statistics = field(default_factory=Statistics)

    # -- figures

    @property
    def label(self) -> str:
        return str(self.system["label"])

    @property
    def where(self) -> str:
        """Dataset and split, for a title."""
        data = self.split.get("data")
        return ", ".join(str(one) for one in (data["name"] if data else None, self.split["name"]) if one)

    @property
    def n(self) -> int:
        """Number of requests that were judged."""
        return int(self.protocol["requests"])

    @property
    def metrics(self) -> list[str]:
        """Names as name@K, accuracy first."""
        return list(self.figures)

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Mean and interval of every metric; the bootstrap runs when this is first asked for."""
        names = list(self.rows)
        found: dict[str, Figure] = {}
        if names:
            table = np.stack([self.rows[name] for name in names], axis=1).astype(np.float64)
            how = self.statistics
            low, high = bootstrap(table, level=how.level, resamples=how.resamples, seed=how.seed)
            n = (~np.isnan(table)).sum(axis=0)
            for j, name in enumerate(names):
                found[name] = Figure(self.value(name), *_known(low[j], high[j]), int(n[j]))
        found |= {name: Figure(value) for name, value in self.totals.items()}
        place = {name: i for i, name in enumerate(self.glossary)}
        return dict(sorted(found.items(), key=lambda one: place.get(base(one[0]), len(place))))

    def value(self, name: str) -> float:
        """The mean of a metric over the requests for which it is defined."""
        if name in self.totals:
            return self.totals[name]
        if name in self.rows:
            values = self.rows[name]
            there = values[~np.isnan(values)].astype(np.float64)
            return float(there.mean()) if len(there) else math.nan
        if "figures" in self.__dict__ and name in self.figures:
            return self.figures[name].mean
        raise NotFound(f"the report has no metric {name!r}", hint=nearest(name, [*self.rows, *self.totals]))

    def __getitem__(self, name: str) -> float:
        return self.value(name)

    def values(self) -> dict[str, float]:
        """Mean of every metric by name@K."""
        if "figures" in self.__dict__:
            return {name: figure.mean for name, figure in self.figures.items()}
        return {name: self.value(name) for name in (*self.rows, *self.totals)}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Ends of the interval of every metric that has one."""
        return {
            name: (figure.low, figure.high)
            for name, figure in self.figures.items()
            if figure.low is not None and figure.high is not None
        }

    def by_request(self) -> pl.DataFrame:
        """One row a request: who asked, how many targets, and every metric."""
        return self.requests.hstack([pl.Series(name, values) for name, values in self.rows.items()])

    def summary(self) -> pl.DataFrame:
        """One row a metric: mean, low, high, n."""
        rows = [{"metric": name, **asdict(figure)} for name, figure in self.figures.items()]
        schema = {"metric": pl.String, "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64}
        return pl.DataFrame(rows, schema=schema)

    def __repr__(self) -> str:
        return f"Report({self.label}: {self.n:,} requests, {len(self.rows) + len(self.totals)} figures)"

    # -- on the terminal

    def table(self) -> Group:
        """What the terminal shows."""
        from tastemaker.evaluate.terminal import report_table

        return report_table(self)

    def __rich__(self) -> Group:
        return self.table()

    # -- on disk

    def to_json(self) -> dict[str, Any]:
        """Everything but the values by request, as plain JSON values; missing numbers are null."""
        import tastemaker

        return {
            "format": FORMAT,
            "tastemaker": tastemaker.__version__,
            "created": self.created,
            "system": plain(self.system),
            "split": plain(self.split),
            "protocol": plain(self.protocol),
            "figures": plain({name: asdict(figure) for name, figure in self.figures.items()}),
            "slices": plain(self.slices.to_dicts()),
            "glossary": {name: asdict(metric) for name, metric in self.glossary.items()},
            "cost": plain(self.cost),
            "machine": plain(self.machine),
            "statistics": asdict(self.statistics),
            "warnings": list(self.warnings),
        }

    def save(self, path: str | Path) -> Path:
        """Write a .parquet, .json or .html file, or a folder with all three; what was there is replaced at once."""
        path = Path(path)
        if path.suffix == "":
            with replace_folder(path, marker="report.json") as fresh:
                for suffix in SUFFIXES:
                    self._write(fresh / f"report{suffix}", suffix)
            return path
        if path.suffix not in SUFFIXES:
            raise UsageError(f"a report is saved as {', '.join(SUFFIXES)} or a folder, not as {path.suffix!r}")
        with replace_file(path) as fresh:
            self._write(fresh, path.suffix)
        return path

    def _write(self, path: Path, suffix: str) -> None:
        if suffix == ".parquet":
            if not self.rows:
                raise UsageError("this report has no values by request, so it is saved as .json or .html")
            about = json.dumps(self.to_json(), ensure_ascii=False)
            self.by_request().write_parquet(path, metadata={STORED_AS: about})
        elif suffix == ".json":
            path.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        else:
            from tastemaker.evaluate.compare import compare
            from tastemaker.evaluate.page import page

            path.write_text(page(compare([self])), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report from its .parquet or .json file, or from its folder. Nothing in it is executed.

        A report from JSON has figures but no values by request, so it cannot be tested against another.

        Raises:
            NotFound: there is no report at `path`.
            DataError: the file is not a report, or of a format this version does not read.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "report.parquet" if (path / "report.parquet").is_file() else path / "report.json"
        if not path.is_file():
            raise NotFound(f"there is no report at {path}", hint="evaluate(...).save(path) writes one")
        try:
            if path.suffix == ".parquet":
                raw, frame = pl.read_parquet_metadata(path).get(STORED_AS, "null"), pl.read_parquet(path)
            else:
                raw, frame = path.read_text(encoding="utf-8"), pl.DataFrame()
            content = json.loads(raw)
            if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
                raise DataError(
                    f"{path} is a report of format {content['format']!r}, this version reads format {FORMAT}",
                    hint="open it with the version of tastemaker that wrote it: " + str(content.get("tastemaker")),
                )
            return _from_stored(Stored.model_validate(content), frame)
        except (ValidationError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path} is not a report: {error}", hint="Report.save(...) writes one") from error


class StoredFigure(BaseModel):
    """A figure in the JSON file."""

    model_config = ConfigDict(extra="forbid")
    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class StoredSlice(BaseModel):
    """A row of the slices in the JSON file."""

    model_config = ConfigDict(extra="forbid")
    slice: str
    value: str
    n: int
    metric: str
    mean: float | None
    low: float | None
    high: float | None


class StoredSystem(BaseModel):
    """What is always known of a system; more may be stored."""

    model_config = ConfigDict(extra="allow")
    label: str


class StoredSplit(BaseModel):
    """What is always known of a split; more may be stored."""

    model_config = ConfigDict(extra="allow")
    name: str
    cases: str


class StoredProtocol(BaseModel):
    """What is always known of a protocol; more may be stored."""

    model_config = ConfigDict(extra="allow")
    kind: str
    requests: int
    facts: list[str]


class Stored(BaseModel):
    """The JSON file; `Stored.model_json_schema()` is its schema."""

    model_config = ConfigDict(extra="forbid")
    format: int
    tastemaker: str
    created: str
    system: StoredSystem
    split: StoredSplit
    protocol: StoredProtocol
    figures: dict[str, StoredFigure]
    slices: list[StoredSlice]
    glossary: dict[str, Metric]
    cost: dict[str, float | None]
    machine: dict[str, Any]
    statistics: Statistics
    warnings: list[str]


def _from_stored(stored: Stored, frame: pl.DataFrame) -> Report:
    figures = {
        name: Figure(math.nan if f.mean is None else f.mean, f.low, f.high, f.n) for name, f in stored.figures.items()
    }
    names = [name for name in stored.figures if name in frame.columns]
    report = Report(
        system=stored.system.model_dump(),
        split=stored.split.model_dump(),
        protocol=stored.protocol.model_dump(),
        requests=frame.drop(names),
        rows={name: frame[name].cast(pl.Float32).to_numpy() for name in names},
        totals={name: figure.mean for name, figure in figures.items() if figure.n is None},
        glossary=stored.glossary,
        slices=pl.DataFrame([row.model_dump() for row in stored.slices], schema=SLICE_COLUMNS),
        cost={name: value for name, value in stored.cost.items() if value is not None},
        machine=stored.machine,
        warnings=tuple(stored.warnings),
        created=stored.created,
        statistics=stored.statistics,
    )
    report.__dict__["figures"] = figures
    return report


def base(name: str) -> str:
    """The metric of name@K."""
    return name.partition("@")[0]


def title(name: str, glossary: Mapping[str, Metric]) -> str:
    """name@K as people write it."""
    known = glossary.get(base(name))
    return (known.title if known else base(name)) + name[len(base(name)) :]


def plain(value: Any) -> Any:
    """Plain JSON values: numbers that are none become null, arrays lists, anything else its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return str(value)


def _known(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if math.isnan(low) or math.isnan(high) else (float(low), float(high))
