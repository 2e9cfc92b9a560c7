"""All commands in one place: their names, their help, and where each one lives."""

from __future__ import annotations

import typer

from tastemaker.cli import EXIT_CODES
from tastemaker.cli.audit import audit
from tastemaker.cli.chat import chat
from tastemaker.cli.choose import choose
from tastemaker.cli.data import app as data_app
from tastemaker.cli.demo import demo
from tastemaker.cli.doctor import doctor
from tastemaker.cli.pipeline import app as pipeline_app
from tastemaker.cli.play import interact, off_policy
from tastemaker.cli.recipe import app as recipe_app
from tastemaker.cli.refresh import refresh
from tastemaker.cli.serve import keys_app, loadtest, serve
from tastemaker.cli.store import erase, export_log
from tastemaker.cli.tune import tune
from tastemaker.cli.work import compare, evaluate, fit, recommend, systems, transforms

app = typer.Typer(
    name="tastemaker",
    help="Data in, systems compared honestly, the winner served.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from tastemaker import __version__

        typer.echo(__version__)
        raise typer.Exit


app.command()(demo)
data_app.command("export-log")(export_log)
app.add_typer(data_app, name="data")
app.command()(choose)
app.command()(systems)
app.command()(transforms)
app.command()(fit)
app.command()(tune)
app.command()(evaluate)
app.command()(compare)
app.command()(interact)
app.command("off-policy")(off_policy)
app.command()(audit)
app.command()(recommend)
app.add_typer(pipeline_app, name="pipeline")
app.command()(serve)
app.command()(chat)
app.command()(refresh)
app.command()(erase)
app.command()(loadtest)
app.add_typer(keys_app, name="keys")
app.add_typer(recipe_app, name="recipe")
app.command()(doctor)
