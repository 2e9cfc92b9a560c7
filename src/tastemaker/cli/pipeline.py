"""Commands on pipelines: check one, draw it, fit it, ask it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.common import Data, Json, Seed, as_json, note, open_data, open_split, show, table

if TYPE_CHECKING:
    from tastemaker.compose import Pipeline, PipelineSpec
    from tastemaker.train import Bundle

app = typer.Typer(help="Several systems as one: retrieve, blend, filter, score, rerank, explain.", no_args_is_help=True)
Spec = Annotated[Path, typer.Argument(help="A pipeline as a JSON file, or a folder written by fit.", metavar="SPEC")]
Bundles = Annotated[
    list[str] | None,
    typer.Option("--bundle", "-b", help="A bundle of one of its systems, as KEY=FOLDER; repeat for more."),
]


@app.command()
def check(spec: Spec, bundle: Bundles = None, json: Json = False) -> None:
    """Say everything that is wrong with a pipeline: its JSON and, with bundles, names, columns, rules, capabilities."""
    from tastemaker.compose import PipelineBundle, PipelineError, compile  # noqa: A004

    try:
        if spec.is_dir():
            PipelineBundle.load(spec)
        else:
            read = _spec(spec)
            if bundle:
                compile(read, _shelf(bundle))
    except PipelineError as error:
        if json:
            as_json([{"where": f.where, "what": f.what, "hint": f.hint} for f in error.faults])
        else:
            show(table([{"where": f.where or "all", "what": f.what, "hint": f.hint or ""} for f in error.faults]))
        raise typer.Exit(2) from error
    if json:
        as_json([])
    else:
        seen = "its JSON is in order; name bundles to check the rest" if not bundle and spec.is_file() else "in order"
        show(f"{spec}: {seen}")


@app.command("show")
def show_(
    spec: Annotated[
        Path | None, typer.Argument(help="A JSON file, or a folder written by fit.", metavar="SPEC")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the diagram as Mermaid text.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the diagram as an SVG file.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of pipelines instead.")] = False,
    json: Json = False,
) -> None:
    """Show the stages of a pipeline: as a table, as a diagram, or as its whole JSON."""
    from tastemaker.compose import PipelineSpec, diagram
    from tastemaker.compose import svg as drawn
    from tastemaker.compose.diagram import rows
    from tastemaker.types import UsageError, replace_file

    if schema:
        as_json(PipelineSpec.json_schema())
        return
    if spec is None:
        raise UsageError("name a pipeline, or ask for --schema")
    read = _spec(spec)
    if svg is not None:
        with replace_file(svg) as fresh:
            fresh.write_text(drawn(read), encoding="utf-8")
        note(f"wrote {svg}")
    if json:
        as_json(read.model_dump(mode="json"))
    elif mermaid:
        typer.echo(diagram(read), nl=False)
    elif svg is None:
        stages = [
            {"stage": node.kind, "what": node.title, "how": "; ".join(node.details)}
            for row in rows(read)
            for node in row
        ]
        show(table(stages[1:-1], title=read.title or read.name))


@app.command()
def fit(
    spec: Annotated[Path, typer.Argument(help="A pipeline as a JSON file.", metavar="SPEC")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the fitted pipeline.")],
    split: Annotated[str | None, typer.Option("--split", help="Learn from the training part of this split.")] = None,
    seed: Seed = 0,
    run: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints: a run that was stopped goes on there.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json: Json = False,
) -> None:
    """Fit every system of a pipeline and, where its blend is learned, the ranker."""
    from tastemaker.compose import fit_pipeline
    from tastemaker.train import Hardware

    read = _spec(spec)
    opened: Any = open_data(data)
    if split is not None:
        opened = open_split(opened, split, folder=data, seed=seed)
    fitted = fit_pipeline(read, opened, seed, run=run, hardware=Hardware(device))
    fitted.save(out)
    if json:
        as_json({"pipeline": str(out), "name": fitted.name, **fitted.about})
        return
    cost = fitted.about["fit"]
    show(f"{fitted.name}: {', '.join(fitted.shelf)} fitted in {cost['seconds']:.2f} s; {out}")
    show(f"next: [bold]tastemaker pipeline run {out} --user ID[/]")


@app.command()
def run(
    pipeline: Annotated[
        Path, typer.Argument(help="A folder written by fit; or a JSON file, with its bundles.", metavar="PIPELINE")
    ],
    user: Annotated[list[str] | None, typer.Option("--user", "-u", help="A user by id; repeat for more.")] = None,
    history: Annotated[
        str | None, typer.Option(help="Item ids a new user liked, oldest first, separated by commas.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.", min=1, max=2000)] = 10,
    filter: Annotated[str | None, typer.Option(help='Only items for which this holds: "year > 1990".')] = None,  # noqa: A002
    exclude: Annotated[str | None, typer.Option(help="Item ids never to show, separated by commas.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Items of the history may come again.")] = False,
    columns: Annotated[str | None, typer.Option(help="Catalogue columns to show, separated by commas.")] = None,
    inspect: Annotated[bool, typer.Option("--inspect", help="Show each retriever's place and score instead.")] = False,
    bundle: Bundles = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Print what a pipeline recommends, with its reasons where it gives any."""
    import polars as pl

    opened = _opened(pipeline, bundle)
    past = None if history is None else [_names(history) or []]
    users = user or None
    if inspect:
        from tastemaker.train.answer import ask

        asked = ask(opened, users, history=past, seed=seed)  # type: ignore[arg-type]
        if not seen and asked.history is not None:
            asked = asked.with_(exclude=asked.items())
        answer = opened.inspect(asked, k)
    else:
        answer = opened.recommend(
            users,
            history=past,
            k=k,
            filter=filter,
            exclude=_names(exclude) or [],
            seen=seen,
            columns=_names(columns),
            seed=seed,
        )
        if opened.explainer is not None:
            answer = answer.with_columns(pl.Series("reason", _reasons(opened, answer, users, past), dtype=pl.String))
    if json:
        as_json(answer.to_dicts())
    else:
        shown = answer.drop("request") if answer["request"].n_unique() <= 1 or "user" in answer.columns else answer
        show(table([{name: "" if v is None else v for name, v in row.items()} for row in shown.to_dicts()]))


def _reasons(pipeline: Pipeline, answer: Any, users: list[str] | None, history: Any) -> list[str | None]:
    """Why each row of the answer is there."""
    import numpy as np

    from tastemaker.train.answer import ask
    from tastemaker.types import Slates

    asked = ask(pipeline, users, history=history)  # type: ignore[arg-type]
    if not answer.height:
        return []
    row, rank = answer["request"].to_numpy(), answer["rank"].to_numpy() - 1
    items = np.full((asked.n, int(rank.max()) + 1), -1, dtype=np.int32)
    items[row, rank] = pipeline.items.numbers(answer["item"])
    reasons = pipeline.explain(asked, Slates(items, np.where(items >= 0, 0.0, -np.inf)))
    return [None if (why := reasons[r][p]) is None else why.text for r, p in zip(row, rank, strict=True)]


def _opened(path: Path, bundles: list[str] | None) -> Pipeline:
    """A fitted pipeline by its folder, or a spec put together with bundles."""
    from tastemaker.compose import PipelineBundle, compile  # noqa: A004

    return PipelineBundle.load(path).pipeline if path.is_dir() else compile(_spec(path), _shelf(bundles))


def _spec(path: Path) -> PipelineSpec:
    """A spec from a JSON file, or from a folder that holds a fitted pipeline."""
    import json

    from tastemaker.compose import PIPELINE, PipelineSpec
    from tastemaker.types import NotFound

    file = path / PIPELINE if path.is_dir() else path
    if not file.is_file():
        raise NotFound(f"there is no pipeline at {path}", hint="a JSON file; docs/pipelines.md shows one")
    if path.is_dir():
        return PipelineSpec.from_json(json.loads(file.read_text(encoding="utf-8")).get("spec", {}))
    return PipelineSpec.from_json(file.read_bytes())


def _shelf(bundles: list[str] | None) -> dict[str, Bundle]:
    from tastemaker.train import Bundle
    from tastemaker.types import UsageError

    shelf = {}
    for given in bundles or ():
        key, equals, folder = given.partition("=")
        if not equals or not key:
            raise UsageError(f"a bundle is named KEY=FOLDER, got {given!r}")
        shelf[key] = Bundle.load(folder)
    return shelf


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
