"""Tables in text files: separator and header found, every broken line located, nothing guessed about values."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import DataError, Kind, Problem

HEAD = 1 << 16  # bytes in which separator and header are looked for
SHOWN = 10  # problems shown; all are counted
SEPARATORS = ("::", "\t", ",", ";", "|")  # a space is tried when none of these fits
STAND_IN = "\x1f"  # one byte for a separator of several
PACKED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
BLANK, BAD_QUOTE, OPEN_QUOTE = 0, -1, -2  # what `_scan` says in place of a number of fields


@dataclass(frozen=True)
class Raw:
    """A table as its source gave it.

    frame: columns under the source's names
    file: how messages call the source; None for a frame in memory
    typed: False where every value is text whose type is still to be found
    named: False where the columns' names are made up, since the source has none
    place: the file and the 1-based line (or record) of a row of `frame`
    faults: rows that do not have the form of the others, and what is wrong with each
    kinds: kinds of columns that the source declares
    """

    frame: pl.DataFrame
    file: str | None = None
    typed: bool = True
    named: bool = True
    place: Callable[[int], tuple[str | None, int]] | None = None
    faults: tuple[NDArray[np.int64], list[str]] = (np.empty(0, np.int64), [])
    kinds: dict[str, Kind] = field(default_factory=dict)

    def where(self, row: int) -> tuple[str | None, int]:
        """File and 1-based line of a row."""
        return self.place(row) if self.place else (self.file, row + 1)


@dataclass(frozen=True)
class Dialect:
    """How a text table is written; what is None is found out."""

    separator: str | None = None
    header: bool | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"


@dataclass(frozen=True)
class _Form:
    """What was found out of a file: its dialect in full, and its columns as the file and as we call them."""

    separator: str
    quote: str | None
    eol: str
    named: bool
    keys: list[str]
    names: list[str]


def read_text(path: Path, dialect: Dialect, known: Callable[[str], bool]) -> Raw:
    """Read a table with one record a line, every value as text. `known` says whether a word is a column's name."""
    content = content_of(path, dialect.encoding)
    form = _form(path, content, dialect, known)
    source: Any = path if isinstance(content, mmap.mmap) else content  # the file itself, where it can be read as it is
    if len(form.separator) > 1:
        content = source = _replaced(path, content, form.separator)
        form = replace(form, separator=STAND_IN)
    if not form.named and content[:1] in (b"\n", b"\r"):
        source = bytes(content).lstrip(b"\r\n")
    options: dict[str, Any] = {
        "has_header": form.named,
        "schema": dict.fromkeys(form.keys, pl.String),
        "separator": form.separator,
        "quote_char": form.quote,
        "eol_char": form.eol,
        "glob": False,
    }
    scanned: _Scan | None = None
    try:
        frame = pl.read_csv(source, **options)
    except pl.exceptions.PolarsError as error:
        scanned = _Scan.of(content, form)
        _explain(path, content, scanned, len(form.names), str(error))
        try:
            frame = pl.read_csv(source, truncate_ragged_lines=True, **options)
        except pl.exceptions.PolarsError as again:
            raise _unreadable(path, str(again)) from error
    frame.columns = form.names
    if frame.height == 0:
        raise DataError(f"{path} holds a header and no rows" if form.named else f"{path} holds no rows")
    if scanned is None and frame.width > 1 and frame[:, -1].null_count():  # what a line too short leaves behind
        scanned = _Scan.of(content, form)
    return _raw(path, frame, scanned, content, form)


def _form(path: Path, content: mmap.mmap | bytes, dialect: Dialect, known: Callable[[str], bool]) -> _Form:
    head = bytes(content[: max(HEAD, content.find(b"\n") + 1)])
    text = head.decode("utf-8", errors="replace").removeprefix("\ufeff")
    eol = "\n" if "\n" in text or "\r" not in text else "\r"
    lines = [line for line in text.split(eol) if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty", hint="give a file with one event a line")
    if len(head) < len(content) and len(lines) > 1:
        lines.pop()  # perhaps not whole
    separator = dialect.separator or _separator(path, lines[:100], dialect.quote)
    quote = None if len(separator) > 1 else dialect.quote
    rows = _split(lines[:100], separator, quote)
    named = _has_header(path, rows, known) if dialect.header is None else dialect.header
    names = [(cell.strip() if named else "") or f"column_{i + 1}" for i, cell in enumerate(rows[0])]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: the header gives one name to two columns: {twice}, of {names}")
    again = [rows[0][:i].count(cell) for i, cell in enumerate(rows[0])]  # several columns may have no name at all
    keys = [f"{cell}_duplicated_{n - 1}" if n else cell for cell, n in zip(rows[0], again, strict=True)]
    return _Form(separator, quote, eol, named, keys if named else names, names)


def _replaced(path: Path, content: mmap.mmap | bytes, separator: str) -> bytes:
    """The same text with a separator of one byte."""
    whole = bytes(content)
    if STAND_IN.encode() in whole:
        raise DataError(f"{path} has control characters (\\x1f), so {separator!r} cannot separate its columns")
    return whole.replace(separator.encode(), STAND_IN.encode())


def _raw(path: Path, frame: pl.DataFrame, scanned: _Scan | None, content: mmap.mmap | bytes, form: _Form) -> Raw:
    rows: NDArray[np.int64] | None = None  # rows of the file that `frame` keeps; None: all
    faults: tuple[NDArray[np.int64], list[str]] = (np.empty(0, np.int64), [])
    if scanned is not None and scanned.n == frame.height:
        fields = scanned.fields
        if (fields == BLANK).any():
            rows = np.flatnonzero(fields != BLANK)
            frame, fields = frame[rows], fields[rows]
        odd = np.flatnonzero(fields != frame.width)
        faults = odd, [f"{fields[row]} fields where there should be {frame.width}" for row in odd]

    def place(row: int) -> tuple[str | None, int]:
        nonlocal scanned
        if scanned is None:
            scanned = _Scan.of(content, form)
        at = row if rows is None else int(rows[row])
        return str(path), int(scanned.lines[at]) if at < scanned.n else at + 1 + form.named

    return Raw(frame, str(path), typed=False, named=form.named, place=place, faults=faults)


def content_of(path: Path, encoding: str) -> mmap.mmap | bytes:
    """The bytes of a file as UTF-8, unpacked and decoded where needed."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", hint="give a file with one event a line")
    content: mmap.mmap | bytes
    if path.suffix in PACKED:
        try:
            with PACKED[path.suffix](path) as packed:
                content = packed.read()
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from error
    else:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    marked = next((name for mark, name in MARKS.items() if content[: len(mark)] == mark), None)
    if marked == "utf-8-sig":
        return bytes(content[3:]) if len(content) > 3 else b"\n"
    if marked or codecs.lookup(encoding).name != "utf-8":
        try:
            return bytes(content).decode(marked or encoding).encode()
        except UnicodeDecodeError as error:
            line = bytes(content[: error.start]).count(b"\n") + 1
            problem = Problem(f"is no {marked or encoding}: {error.reason}", str(path), line)
            raise DataError(f"{path} cannot be decoded", [problem]) from error
    return content


def _split(lines: list[str], separator: str, quote: str | None) -> list[list[str]]:
    lines = [line.rstrip("\r").replace("\r", " ") for line in lines]  # the library ends a line at a stray one
    if len(separator) > 1 or quote is None:
        return [line.split(separator) for line in lines]
    return list(csv.reader((line + "\n" for line in lines), delimiter=separator, quotechar=quote))


def _separator(path: Path, lines: list[str], quote: str | None) -> str:
    """The separator that cuts most lines into the same number of fields; among equals, into more fields."""
    best, best_score = "", (0.0, 0)
    for separator in (*SEPARATORS, " "):
        widths = [len(row) for row in _split(lines, separator, quote) if row]
        usual = max(set(widths), key=widths.count)
        score = (round(widths.count(usual) / len(widths), 1), usual)
        if usual > 1 and score > best_score and not (separator == " " and best):
            best, best_score = separator, score
        if separator == "::" and best:
            break
    if not best:
        raise DataError(
            f"{path}: no separator found; its first line is {lines[0][:80]!r}",
            hint="name it with separator='...', or give a table with at least two columns: user and item",
        )
    return best


def _has_header(path: Path, rows: list[list[str]], known: Callable[[str], bool]) -> bool:
    """Whether the first record names the columns."""
    first, rest = rows[0], rows[1:]
    if any(known(cell) for cell in first):
        return True
    if any(_is_number(cell) or not cell.strip() for cell in first):
        return False
    if any(rest and all(len(row) > i and _is_number(row[i]) for row in rest) for i in range(len(first))):
        return True
    raise DataError(
        f"{path}: its first line may be a header or an event: {first}",
        hint="say header=True or header=False, and with header=True name the columns: user=..., item=...",
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Scan:
    """Where each record of a file begins and how many fields it has (or `BLANK`, `BAD_QUOTE`, `OPEN_QUOTE`)."""

    lines: NDArray[np.int64]
    fields: NDArray[np.int32]

    @property
    def n(self) -> int:
        return len(self.lines)

    @classmethod
    def of(cls, content: mmap.mmap | bytes, form: _Form) -> _Scan:
        codes, eol = np.frombuffer(content, np.uint8), ord(form.eol)
        blocks = (codes[at : at + (1 << 24)] for at in range(0, len(codes), 1 << 24))
        most = 1 + sum(int(np.count_nonzero(block == eol)) for block in blocks)
        lines, fields = np.empty(most, np.int64), np.empty(most, np.int32)
        n = _scan(codes, ord(form.separator), ord(form.quote) if form.quote else 256, eol, lines, fields)
        start = int(np.argmax(fields[:n] != BLANK)) if n else 0  # blank lines before the first record do not count
        start += form.named
        return cls(lines[start:n], fields[start:n])


@njit(cache=True, nogil=True)
def _scan(content, separator, quote, eol, lines, fields):  # type: ignore[no-untyped-def]
    n, line, begun = 0, 1, 1  # records, the current line, the line where the current record began
    count, fault = 1, 0
    inside, closed, at_start, blank = False, False, True, True
    size = len(content)
    i = 0
    while i < size:
        byte = content[i]
        if inside:
            if byte == quote:
                if i + 1 < size and content[i + 1] == quote:
                    i += 1
                else:
                    inside, closed = False, True
            elif byte == eol:
                line += 1
        elif byte == eol:
            lines[n] = begun
            fields[n] = fault if fault < 0 else (0 if blank else count)
            n += 1
            line += 1
            begun, count, fault = line, 1, 0
            closed, at_start, blank = False, True, True
        elif byte == separator:
            count += 1
            closed, at_start, blank = False, True, False
        elif byte == quote and at_start:
            inside, at_start, blank = True, False, False
        else:
            if byte != 13 and byte != 32:
                blank = False
            if closed and byte != 13:
                fault = -1
            at_start = False
        i += 1
    if inside:
        fault = -2
    if not blank or inside:
        lines[n] = begun
        fields[n] = fault if fault < 0 else count
        n += 1
    return n


def _explain(path: Path, content: mmap.mmap | bytes, scanned: _Scan, width: int, said: str) -> None:
    """Raise what makes a file unreadable: its encoding, its quotes, or else what the reader said."""
    problems, total = _undecodable(path, content)
    if total:
        raise DataError(
            f"{path} is no UTF-8 text",
            problems,
            total=total,
            hint="name its encoding, as encoding='latin-1' or encoding='windows-1252'",
        )
    words = {BAD_QUOTE: "text after a closing quote", OPEN_QUOTE: "a quote that is never closed"}
    broken = np.flatnonzero(scanned.fields < 0)
    if len(broken):
        shown = [Problem(words[int(scanned.fields[row])], str(path), int(scanned.lines[row])) for row in broken[:SHOWN]]
        raise DataError(
            f"{path}: quotes do not match",
            shown,
            total=len(broken),
            hint="repair these lines, or say quote=None where quotes are part of the text",
        )
    if not (scanned.fields > width).any():
        raise _unreadable(path, said)


def _unreadable(path: Path, said: str) -> DataError:
    return DataError(f"{path} cannot be read as a table: {said.splitlines()[0]}")


def _undecodable(path: Path, content: mmap.mmap | bytes) -> tuple[list[Problem], int]:
    """Lines that are no UTF-8: the first few, and how many there are."""
    problems: list[Problem] = []
    total = line = 0
    for start, stop in _line_blocks(content, 1 << 22):
        block = bytes(content[start:stop])
        try:
            block.decode()
        except UnicodeDecodeError:
            for i, text in enumerate(block.split(b"\n")):
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    total += 1
                    if len(problems) < SHOWN:
                        found = text[max(0, error.start - 10) : error.start + 10].decode("latin-1")
                        problems.append(Problem("is no UTF-8", str(path), line + i + 1, value=found))
        line += block.count(b"\n")
    return problems, total


def _line_blocks(content: mmap.mmap | bytes, size: int) -> list[tuple[int, int]]:
    """Cuts of about `size` bytes at ends of lines."""
    cuts = [0]
    while cuts[-1] < len(content):
        end = content.find(b"\n", min(cuts[-1] + size, len(content)))
        cuts.append(len(content) if end < 0 else end + 1)
    return list(pairwise(cuts))
