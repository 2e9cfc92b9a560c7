"""One small reader a format; each gives a `Raw` table under the source's own column names."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa

from tastemaker.data.columns import known
from tastemaker.data.text import SHOWN, Dialect, Raw, content_of, read_text
from tastemaker.types import DataError, NotFound, Problem, UsageError, nearest, optional

SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt", ".dat", ".data", ".tab", ".base", ".test"),
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "recbole": (".inter",),
}
FORMATS = ("csv", "parquet", "jsonl", "arrow", "pandas", "polars", "sql", "recbole", "adjacency", "folder")
BATCH = 100_000  # rows fetched from a database at a time


@dataclass(frozen=True)
class Tables:
    """What a source holds: events, and beside them users, items and edges where it has them."""

    events: Raw
    users: Raw | None = None
    items: Raw | None = None
    edges: Mapping[str, Raw] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def format_of(source: Any, url: str | None = None) -> str:
    """The format of a source by its type, its name, or what its folder holds."""
    if url is not None:
        return "sql"
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return "polars"
    if isinstance(source, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return "arrow"
    if type(source).__module__.split(".")[0] == "pandas":
        return "pandas"
    if not isinstance(source, str | Path):
        raise UsageError(f"a source is a path, a frame, an Arrow table or a query, got {type(source).__name__}")
    path = Path(source)
    try:
        is_folder = path.is_dir()
    except OSError:  # no name of a file: too long, say
        raise UsageError(f"this is no path: {str(source)[:80]!r}", hint="a query needs url=...") from None
    if is_folder:
        if any(path.glob("*.inter")):
            return "recbole"
        return "adjacency" if (path / "train.txt").is_file() else "folder"
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".bz2", ".xz")]
    for name, endings in SUFFIXES.items():
        if suffixes and suffixes[-1].lower() in endings:
            return name
    if not path.exists():
        raise _absent(path)
    raise UsageError(f"the format of {path} cannot be told from its name", hint=f"say format=, one of {list(FORMATS)}")


def read_table(
    source: Any,
    form: str | None = None,
    dialect: Dialect = Dialect(),  # noqa: B008 - frozen
    *,
    url: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Raw:
    """Read one table; raises DataError where its form is broken, before any value is looked at."""
    form = form or format_of(source, url)
    if form == "sql":
        return _sql(source, url, parameters)
    if form in ("polars", "pandas") or not isinstance(source, str | Path):
        return _frame(source, form)
    path = Path(source)
    if not path.is_file():
        raise _absent(path)
    if form == "csv":
        return read_text(path, dialect, known)
    if form == "jsonl":
        return _jsonl(path)
    if form not in ("parquet", "arrow"):
        raise UsageError(f"{path} is read as one table, which {form!r} is not", hint=f"formats: {', '.join(FORMATS)}")
    try:
        frame = pl.read_parquet(path, glob=False) if form == "parquet" else _ipc(path)
    except (pl.exceptions.PolarsError, OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is no {form} file, or is damaged: {str(error).splitlines()[0]}") from error
    return _filled(Raw(_plain(frame), str(path)))


def _filled(raw: Raw) -> Raw:
    if raw.frame.height == 0:
        raise DataError(f"{raw.file or 'the table'} holds no rows")
    return raw


def _absent(path: Path) -> NotFound:
    folder = path.parent
    there = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return NotFound(f"there is no file {path}", hint=nearest(path.name, there))


def _frame(source: Any, form: str) -> Raw:
    """A frame that is in memory already."""
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    elif isinstance(source, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        if isinstance(source, pa.RecordBatchReader):
            source = source.read_all()
        source = pl.from_arrow(source)
    elif type(source).__module__.split(".")[0] == "pandas":
        source = _pandas(source)
    if not isinstance(source, pl.DataFrame):
        raise UsageError(f"format {form!r} takes a frame of that library, got {type(source).__name__}")
    return _filled(Raw(_plain(source)))


def _pandas(source: Any) -> pl.DataFrame:
    """Column by column, since pandas keeps values of several types in one column; the index is left out."""
    columns = []
    for name in source.columns:
        values = source[name]
        try:
            columns.append(cast(pl.Series, pl.from_pandas(values, nan_to_null=True)).alias(str(name)))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pl.exceptions.PolarsError, TypeError, ValueError):
            missing = values.isna()
            columns.append(column(str(name), [None if gone else v for v, gone in zip(values, missing, strict=True)]))
    return pl.DataFrame(columns)


def _ipc(path: Path) -> pl.DataFrame:
    """Arrow IPC as a file or as a stream."""
    try:
        return pl.read_ipc(path)
    except pl.exceptions.PolarsError:
        with pa.memory_map(str(path)) as mapped:
            return cast(pl.DataFrame, pl.from_arrow(pa.ipc.open_stream(mapped).read_all()))


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Types that a dataset stores: decimals and very wide integers as floats, nested objects as JSON text."""
    changed: list[pl.Expr | pl.Series] = []
    for name, dtype in frame.schema.items():
        if dtype.is_decimal() or (dtype == pl.Int128 and not known(name)):
            changed.append(pl.col(name).cast(pl.Float64))
        elif dtype == pl.Object:
            changed.append(column(name, frame[name].to_list()))
        elif isinstance(dtype, pl.Struct):
            changed.append(pl.when(pl.col(name).is_not_null()).then(pl.col(name).struct.json_encode()).alias(name))
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            changed.append(pl.col(name).list.eval(pl.element().struct.json_encode()))
    return frame.with_columns(changed)


def _jsonl(path: Path) -> Raw:
    """One JSON object a line, or one JSON array of objects."""
    content = content_of(path, "utf-8")
    head = bytes(content[:4096]).strip()
    if not head:
        raise DataError(f"{path} is empty", hint="give a file with one JSON object a line")
    if head.startswith(b"["):
        try:
            return _filled(Raw(_from_rows(json.loads(bytes(content))), str(path)))
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{path} is no JSON array of objects: {error}") from error

    def place(row: int) -> tuple[str, int]:
        written = (number for number, line in _lines(content) if line.strip())
        return str(path), next(islice(written, row, None), row + 1)

    try:
        frame = pl.read_ndjson(content if isinstance(content, bytes) else path, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        frame = _from_rows(_objects(path, content))  # says which lines are broken; columns may mix types
    return _filled(Raw(_plain(frame), str(path), place=place))


def _lines(content: bytes | mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1."""
    at = 0
    for number in count(1):
        if at >= len(content):
            return
        end = content.find(b"\n", at)
        end = len(content) if end < 0 else end + 1
        yield number, bytes(content[at:end])
        at = end


def _objects(path: Path, content: bytes | mmap.mmap) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    total = 0
    for number, line in _lines(content):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
            what = None if isinstance(row, dict) else f"is no JSON object but {type(row).__name__}"
        except UnicodeDecodeError as error:
            row, what = None, f"is no UTF-8: {error.reason}"
        except ValueError as error:
            row, what = None, f"is no JSON: {error}"
        if what is None:
            rows.append(row)
            continue
        total += 1
        if len(problems) < SHOWN:
            problems.append(Problem(what, str(path), number, value=line[:60].decode("utf-8", "replace").strip()))
    if total:
        raise DataError(f"{path}: {total:,} lines cannot be read", problems, total=total)
    return rows


def _from_rows(rows: list[dict[str, Any]]) -> pl.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([column(name, [row.get(name) for row in rows]) for name in names])


def column(name: str, values: Iterable[Any]) -> pl.Series:
    """Python values as a series; values of several types become text, so that the odd ones can be shown."""
    values = list(values)
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        text = [v if v is None or isinstance(v, str) else json.dumps(v, default=str).strip('"') for v in values]
        return pl.Series(name, text, dtype=pl.String)


def _sql(query: Any, url: str | None, parameters: Mapping[str, Any] | None) -> Raw:
    """Rows of a query, fetched in batches; the address with its password appears nowhere."""
    if url is None:
        raise UsageError("a query needs the database's address: url='sqlite:///file.db', 'postgresql+psycopg://...'")
    alchemy = optional("sqlalchemy", extra="stores", why="Reading from a database")
    try:
        address = alchemy.make_url(url)
        engine = alchemy.create_engine(address)
    except alchemy.exc.ArgumentError as error:
        raise UsageError("the database's address is not of the form dialect+driver://user@host/name") from error
    except ImportError as error:
        raise UsageError(f"no driver for {address.drivername!r} is installed: {error}") from error
    file = address.database if address.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not Path(file).is_file():  # SQLite itself would make an empty one
        raise _absent(Path(file))
    batches: list[list[pl.Series]] = []
    try:
        with engine.connect().execution_options(stream_results=True, yield_per=BATCH) as connection:
            result = connection.execute(alchemy.text(str(query)), dict(parameters or {}))
            names = list(result.keys())
            for rows in result.partitions(BATCH):
                batches.append([column(n, values) for n, values in zip(names, zip(*rows, strict=True), strict=True)])
    except alchemy.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise DataError(f"{address.render_as_string(hide_password=True)}: the query failed: {said}") from error
    finally:
        engine.dispose()
    if len(set(names)) < len(names):
        raise DataError(f"the query gives two columns of one name: {names}", hint="rename them with AS")
    columns = [_joined([batch[i] for batch in batches]) for i in range(len(names))] if batches else []
    return _filled(Raw(_plain(pl.DataFrame(columns)), f"query on {address.database or address.drivername}"))


def _joined(parts: list[pl.Series]) -> pl.Series:
    """Batches of one column; where their types differ, the narrowest type that holds them all."""
    typed = {part.dtype for part in parts} - {pl.Null()}
    if len(typed) > 1 and pl.String() in typed:
        parts = [part.cast(pl.String) for part in parts]
    return pl.concat([part.to_frame() for part in parts], how="vertical_relaxed").to_series()
