"""What several commands share: options, opening things by name, and output for people or for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tastemaker.types import Dataset, Split

Data = Annotated[
    str, typer.Argument(help="A dataset: a folder, a file of events, or the name of a public one.", metavar="DATA")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]
Seed = Annotated[int, typer.Option(help="Where every random stream starts.")]
SplitName = Annotated[
    str,
    typer.Option(
        "--split", help="A saved split by name, or a new one by its kind: leave-one-out, ratio:0.8,0.1,0.1, ..."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the system, as NAME=VALUE; repeat for more.")
]
ChatUrl = Annotated[
    str | None,
    typer.Option(envvar="TASTEMAKER_CHAT_URL", help="A language model's OpenAI-compatible endpoint, up to /v1."),
]
ChatName = Annotated[
    str | None, typer.Option("--chat-model", envvar="TASTEMAKER_CHAT_MODEL", help="The model to ask for there.")
]
ChatKey = Annotated[
    str | None,
    typer.Option(envvar="TASTEMAKER_CHAT_KEY_VARIABLE", help="Environment variable that holds the endpoint's key."),
]


def open_data(name: str) -> Dataset:
    """A dataset by folder, by file, or by the name of a public source."""
    from tastemaker.data import read
    from tastemaker.data.sources import get, sources
    from tastemaker.types import DATASET_FILE, Dataset, NotFound, nearest

    path = Path(name)
    if (path / DATASET_FILE).is_file():
        return Dataset.load(path)
    if path.is_file():
        return read(path)
    known = [source.name for source in sources()]
    if name in known:
        return get(name)
    if path.is_dir():
        return read(path)
    raise NotFound(f"there is no dataset {name!r}: no such folder, file or public source", hint=nearest(name, known))


def open_split(data: Dataset, name: str, *, folder: str, seed: int = 0) -> Split:
    """A split saved beside the dataset, or made now from its kind; what it lets systems see is said."""
    from tastemaker.data import load_split, split

    saved = Path(folder) / "splits" / name
    made = load_split(Path(folder), name, data) if saved.is_dir() else split(data, name, seed=seed)
    for warning in made.warnings:
        note(f"[yellow]warning:[/] {warning}")
    return made


def parse_settings(pairs: Iterable[str] | None) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON where it can be, else text."""
    from tastemaker.types import UsageError

    given: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"a setting is written NAME=VALUE, got {pair!r}")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


def split_settings(
    given: Mapping[str, Any], transforms: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the system, and of each transform: those are written with its name before them, as apr.epsilon."""
    of_transforms: dict[str, dict[str, Any]] = {name: {} for name in transforms}
    of_system: dict[str, Any] = {}
    for name, value in given.items():
        owner, dot, inner = name.partition(".")
        if dot and owner in of_transforms:
            of_transforms[owner][inner] = value
        else:
            of_system[name] = value
    return of_system, of_transforms


def note(text: str) -> None:
    """A line for the person at the terminal, on the error stream, so that output stays clean."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text)


def show(renderable: Any) -> None:
    """Print a table or text."""
    from rich.console import Console

    Console(highlight=False).print(renderable)


def as_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print JSON."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Any:
    """Rows of equal keys as a table."""
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", header_style="bold")
    names = list(rows[0]) if rows else []
    for name in names:
        numeric = all(isinstance(row[name], int | float) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(f"{v:.4f}" if isinstance(v, float) else str(v)) for v in row.values()))
    return drawn
