"""Dialogues of people about what to watch, read or hear, with what they mention: OpenDialKG and ReDial, from folders.

    talk = read_talk("opendialkg", folder)        # Talk: a catalogue, and dialogues with the names they mention

Ref: Moon, Shah, Kumar, Subba, "OpenDialKG: Explainable conversational reasoning with attention-based walks over
knowledge graphs", ACL 2019; Li, Kahou, Schulz, Michalski, Charlin, Pal, "Towards deep conversational recommendations",
NeurIPS 2018, arXiv:1812.07617. Both in the edition of iEvaLM: Wang et al., EMNLP 2023, arXiv:2305.13112.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tastemaker.types import NotFound, nearest


@dataclass(frozen=True)
class Talk:
    """A catalogue and dialogues about it.

    catalogue: a row an item: "title" and what is known of it
    dialogues: "split", "dialogue", "texts" (list of messages), "names" (list: what these messages mention, linked by
        the people who made the data; with titles and attributes alike), "recommended" (titles, after the last message)
    """

    name: str
    catalogue: pl.DataFrame
    dialogues: pl.DataFrame


def read_talk(name: str, folder: str | Path) -> Talk:
    """The dialogues of a set by name, from the folder it lies in."""
    if name not in SETS:
        raise NotFound(f"there are no dialogues {name!r}", hint=nearest(name, SETS))
    folder = Path(folder)
    if not (folder / "rec_turns.parquet").is_file():
        raise NotFound(f"{folder} holds no dialogues of {name} (there is no rec_turns.parquet)")
    return Talk(name, SETS[name](folder), _longest(pl.read_parquet(folder / "rec_turns.parquet")))


def _longest(turns: pl.DataFrame) -> pl.DataFrame:
    """Each dialogue once, up to its last recommendation: the names of a turn are those of all messages before it."""
    last = turns.sort("turn_id", maintain_order=True).group_by("split", "dialog_id", maintain_order=True).last()
    texts = pl.col("context").list.eval(pl.element().filter(pl.element().str.strip_chars() != ""))
    return last.select(
        "split", dialogue="dialog_id", texts=texts, names=pl.col("entities").list.unique(), recommended="recommended"
    ).sort("split", "dialogue")


def _opendialkg(folder: Path) -> pl.DataFrame:
    lists = {"actor", "director", "genre", "language", "writer"}
    return pl.read_parquet(folder / "items.parquet").select(
        pl.col("name").alias("title"),
        *(pl.col(name).list.unique(maintain_order=True) for name in sorted(lists)),
        pl.col("year").list.first().cast(pl.Int32, strict=False),
    )


def _redial(folder: Path) -> pl.DataFrame:
    movies = pl.read_parquet(folder / "movies.parquet")
    year = pl.col("name").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    return movies.select(pl.col("name").alias("title"), "genre", "director", "writer", "star", "plot", year=year)


SETS: Mapping[str, Callable[[Path], pl.DataFrame]] = {"opendialkg": _opendialkg, "redial": _redial}
"""Sets of dialogues, and how their catalogue is read."""
