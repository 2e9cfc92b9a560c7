"""Sources of several files: RecBole's atomic files, LightGCN's adjacency text, folders with a file for each table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.columns import EVENT_ROLES, edge_columns, recognise
from tastemaker.data.formats import SUFFIXES, Tables, read_table
from tastemaker.data.text import Dialect, Raw, read_text
from tastemaker.types import DataError, Kind, NotFound, Problem

PART_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "test": "test"}
ATOMIC_KINDS: dict[str, Kind] = {
    "token": "category",
    "token_seq": "categories",
    "float": "number",
    "float_seq": "vector",
}
# Usual names of files without their ending, the likeliest first.
FILES = {
    "events": "events interactions ratings reviews history usage purchases transactions orders views clicks plays "
    "listens checkins logs actions behaviors user_artists playlist_tracks user_item",
    "users": "users user customers members user_features",
    "items": "items item movies products books articles artists tracks songs games apps news videos recipes businesses "
    "catalog catalogue item_features metadata meta",
    "edges": "kg knowledge_graph triples friends user_friends trust social relationships",
}


def read_recbole(source: Path) -> Tables:
    """RecBole's .inter, .user, .item, .kg, .link and .net files, whose headers state the type of each column.

    Parts NAME.train.inter, NAME.valid.inter and NAME.test.inter become the event column "split"; the entity of
    an item (.link) becomes the item column "entity_id".
    """
    folder = source if source.is_dir() else source.parent
    inter = sorted(folder.glob("*.inter")) if source.is_dir() else [source]
    if not inter or not inter[0].is_file():
        raise NotFound(f"{source} holds no .inter file")
    stems = {path.name.split(".")[0] for path in inter}
    if len(stems) > 1:
        raise DataError(
            f"{folder} holds several data sets: {', '.join(sorted(stems))}", hint="name one: FOLDER/NAME.inter"
        )
    stem = stems.pop()
    events = _with_parts([(_part_of(path), _atomic(path)) for path in inter])

    def table(ending: str) -> Raw | None:
        path = folder / f"{stem}.{ending}"
        return _atomic(path) if path.is_file() else None

    items, link = table("item"), table("link")
    if link is not None:
        key, entity = link.frame.columns[:2]
        if items is None:
            items = link
        elif key in items.frame.columns:
            joined = items.frame.join(
                link.frame.select(key, entity).unique(key), on=key, how="left", maintain_order="left"
            )
            items = Raw(joined, items.file, typed=False, place=items.place, kinds={**items.kinds, entity: "category"})
    edges = {name: found for name, ending in (("kg", "kg"), ("social", "net")) if (found := table(ending)) is not None}
    return Tables(events, table("user"), items, edges)


def _atomic(path: Path) -> Raw:
    raw = read_text(path, Dialect(separator="\t", header=True, quote=None), lambda name: True)
    columns, kinds = [], dict[str, Kind]()
    for header in raw.frame.columns:
        name, colon, kind = header.rpartition(":")
        if not colon or kind not in ATOMIC_KINDS:
            raise DataError(
                f"{path}: the column {header!r} states no type",
                hint=f"a header is NAME:TYPE, the type one of {', '.join(ATOMIC_KINDS)}",
            )
        values = raw.frame[header].alias(name)
        if kind.endswith("_seq"):
            values = values.str.strip_chars().str.split(" ")
            values = values.cast(pl.List(pl.Float32), strict=False) if kind == "float_seq" else values
        columns.append(values)
        kinds[name] = ATOMIC_KINDS[kind]
    return Raw(pl.DataFrame(columns), raw.file, typed=False, place=raw.place, faults=raw.faults, kinds=kinds)


def read_adjacency(source: Path) -> Tables:
    """LightGCN's text: a line is a user and the items of that user, separated by spaces.

    A folder's train.txt, valid.txt and test.txt become one table whose column "split" names the part. Users
    without items keep their row in the table of users.
    """
    paths = [source]
    if source.is_dir():
        paths = [path for path in sorted(source.glob("*.txt")) if path.stem in PART_NAMES]
    if not paths or not paths[0].is_file():
        raise NotFound(f"{source} holds no train.txt")
    read = [(_part_of(path), *_adjacency(path)) for path in paths]
    events = _with_parts([(part, raw) for part, raw, _ in read])
    users = pl.concat([lines for _, _, lines in read]).unique(maintain_order=True).to_frame()
    return Tables(events, Raw(users, events.file, typed=False))


def _adjacency(path: Path) -> tuple[Raw, pl.Series]:
    """The pairs of one file, and the user of each of its lines."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    lines = pl.DataFrame({"text": text.splitlines()}).with_row_index("line")
    lines = lines.with_columns(pl.col("text").str.extract_all(r"\S+")).filter(pl.col("text").list.len() > 0)
    odd = lines.filter(pl.col("text").list.eval(~pl.element().str.contains(r"^\d+$")).list.any())
    if odd.height:
        shown = [Problem("is no list of whole numbers", str(path), line + 1) for line in odd["line"].head(10)]
        raise DataError(f"{path} is no adjacency text: a user and the items on each line", shown, total=odd.height)
    pairs = lines.select("line", user=pl.col("text").list.first(), item=pl.col("text").list.slice(1))
    pairs = pairs.filter(pl.col("item").list.len() > 0).explode("item")
    origin = pairs["line"].to_numpy()
    raw = Raw(pairs.drop("line"), str(path), typed=False, place=lambda row: (str(path), int(origin[row]) + 1))
    return raw, lines["text"].list.first().alias("user")


def _part_of(path: Path) -> str:
    """The part that a file's name tells: train, valid or test; else its own name."""
    words = path.name.lower().split(".")
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), words[0])


def _with_parts(parts: Sequence[tuple[str, Raw]]) -> Raw:
    """Several tables of events as one; where there are several, the column "split" says whence a row came."""
    if len(parts) == 1 and parts[0][0] not in PART_NAMES.values():
        return parts[0][1]
    frames = [raw.frame.with_columns(split=pl.lit(part)) for part, raw in parts]
    if len({tuple(frame.columns) for frame in frames}) > 1:
        raise DataError(f"the parts differ in their columns: {[frame.columns for frame in frames]}")
    starts = np.cumsum([0, *(frame.height for frame in frames)])

    def place(row: int) -> tuple[str | None, int]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part][1].where(row - int(starts[part]))

    faults = _shifted([raw.faults for _, raw in parts], starts)
    file = str(Path(parts[0][1].file or "").parent)
    return Raw(pl.concat(frames), file, typed=False, place=place, faults=faults, kinds=parts[0][1].kinds)


def _shifted(
    faults: Sequence[tuple[NDArray[np.int64], list[str]]], starts: NDArray[Any]
) -> tuple[NDArray[np.int64], list[str]]:
    rows = [found + start for (found, _), start in zip(faults, starts, strict=False)]
    return np.concatenate(rows), [word for _, words in faults for word in words]


def read_folder(folder: Path, dialect: Dialect) -> Tables:
    """A folder with a file for each table, told apart by their usual names (events, ratings; users; items, movies)."""
    endings = {ending for name, group in SUFFIXES.items() if name != "recbole" for ending in group}
    files = {}
    for path in sorted(folder.iterdir()):
        suffixes = [s.lower() for s in path.suffixes if s not in (".gz", ".bz2", ".xz")]
        if (
            path.is_file()
            and suffixes
            and suffixes[-1] in endings
            and not path.stem.lower().startswith(("readme", "."))
        ):
            files[path.name.split(".")[0].lower()] = path
    if not files:
        raise NotFound(f"{folder} holds no table", hint=f"files end in {', '.join(sorted(endings))}")

    def read(path: Path) -> Raw:
        return read_table(path, None, dialect)

    found = _named(files, "events") or _only_events(folder, files, read)
    users, items = _named(files, "users"), _named(files, "items")
    edges: dict[str, Raw] = {}
    for stem in FILES["edges"].split():
        if stem in files:
            raw = read(files[stem])
            try:
                edge_columns(raw.frame, named=raw.named, file=raw.file)
            except DataError:
                continue  # found by its name alone, so it may be left out where its columns say nothing
            edges["kg" if stem in ("knowledge_graph", "triples") else stem] = raw
    taken = {found, users, items, *(Path(raw.file) for raw in edges.values() if raw.file)}
    ignored = tuple(path.name for path in files.values() if path not in taken)
    return Tables(read(found), users and read(users), items and read(items), edges, ignored)  # type: ignore[arg-type]


def _named(files: dict[str, Path], table: str) -> Path | None:
    return next((files[stem] for stem in FILES[table].split() if stem in files), None)


def _only_events(folder: Path, files: dict[str, Path], read: Callable[[Path], Raw]) -> Path:
    """The one file whose columns are those of events."""
    fitting = []
    for path in files.values():
        raw = read(path)
        try:
            recognise(raw.frame, {}, named=raw.named, file=raw.file, roles=EVENT_ROLES)
        except DataError:
            continue
        fitting.append(path)
    if len(fitting) != 1:
        seen = ", ".join(path.name for path in fitting or files.values())
        raise DataError(
            f"{folder}: {'several files' if fitting else 'no file'} can be recognised as the events: {seen}",
            hint="give the file itself, and users=FILE, items=FILE beside it",
        )
    return fitting[0]
