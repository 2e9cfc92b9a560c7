"""Commands on recipes: list, run, table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker.cli.common import ChatKey, ChatName, ChatUrl, Json, as_json, note, show, table

app = typer.Typer(help="Published experiments: list them, run them, see ours beside theirs.", no_args_is_help=True)
Where = Annotated[Path | None, typer.Option("--recipes", help="Folder of recipes; default: ./recipes, else our own.")]


@app.command("list")
def list_(where: Where = None, json: Json = False) -> None:
    """What recipes there are."""
    from tastemaker.lab.recipes import recipes

    rows = [
        {
            "recipe": r.name,
            "what it is": r.title,
            "dataset": r.dataset,
            "split": r.split,
            "systems": ", ".join(e.key for e in r.systems),
            "tiers": ", ".join(sorted({e.tier for e in r.systems})),
        }
        for r in recipes(where)
    ]
    as_json(list(rows)) if json else show(table(list(rows)))


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="Recipes by name.")],
    system: Annotated[
        list[str] | None, typer.Option("--system", "-s", help="Only these systems; repeat for more.")
    ] = None,
    tier: Annotated[str, typer.Option(help="Run systems up to this tier: ci, cpu, full.")] = "cpu",
    results: Annotated[Path, typer.Option(help="Folder of results.")] = Path("results"),
    folder: Annotated[Path | None, typer.Option(help="Folder that holds the dataset's files.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints: a recipe that was stopped goes on there.")
    ] = None,
    where: Where = None,
    chat_url: ChatUrl = None,
    chat_model: ChatName = None,
    chat_key_variable: ChatKey = None,
    json: Json = False,
) -> None:
    """Run recipes and write what they gave beside what was published."""
    from tastemaker.lab import recipes as lab
    from tastemaker.lab.pages import results_table
    from tastemaker.language.chat import open_chat
    from tastemaker.types import UsageError, nearest

    if tier not in lab.TIERS:
        raise UsageError(f"there is no tier {tier!r}", hint=nearest(tier, lab.TIERS))
    upto = list(lab.TIERS)[: list(lab.TIERS).index(tier) + 1]
    how: dict[str, Any] = {"results": results, "data_folder": folder, "runs": runs, "tell": note}
    how["chat"] = open_chat(chat_url, chat_model, chat_key_variable)
    for name in names:
        payload = lab.run(lab.named(name, where), only=system, tiers=upto, **how)
        if json:
            as_json(payload)
        else:
            from rich.markdown import Markdown

            show(Markdown(results_table(payload)))


@app.command("table")
def table_(
    write: Annotated[bool, typer.Option("--write", help="Write the pages and tables again.")] = False,
    root: Annotated[Path, typer.Option(help="Folder of the project.")] = Path(),
) -> None:
    """Show all results, or write the documentation's generated pages."""
    from tastemaker.lab.pages import pages, results_table, stored_results
    from tastemaker.types import replace_file

    if not write:
        for result in stored_results(root / "results"):
            from rich.markdown import Markdown

            show(Markdown(results_table(result)))
        return
    for path, text in pages(root).items():
        with replace_file(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
        note(f"wrote {path}")
