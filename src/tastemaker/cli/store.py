"""Commands on what a server has written: the log as a dataset, and erasing a person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker.cli.common import Json, as_json, note, open_data, show, table


def export_log(
    log: Annotated[str, typer.Argument(help="The server's log: a file, or a database as SQLAlchemy names it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the dataset.")],
    base: Annotated[str | None, typer.Option(help="A dataset that the log's events are put behind.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle: its users and items come first, its catalogue tells of items.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="A kind of event to keep; repeat for more. Default: all that are choices.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="A name in the events' context that becomes a column; repeat for more.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only what happened since: a date, as 2026-01-31T12:00.")] = None,
    json: Json = False,
) -> None:
    """Write what the server has logged as a dataset, alone or behind the one its systems were fitted on."""
    from tastemaker.serve.export import dataset_of
    from tastemaker.serve.log import open_log
    from tastemaker.train import Bundle

    opened = None if bundle is None else Bundle.load(bundle)
    data = None if base is None else open_data(base)
    with open_log(log, create=False) as events:
        made = dataset_of(
            events,
            kinds=kind or None,
            catalogue=None if opened is None else opened.catalogue,
            users=None if opened is None or data is not None else opened.users,
            since=None if since is None else _microseconds(since),
            base=data,
            context=context or (),
            name=out.name,
        )
    made.save(out)
    if json:
        counts = {"users": made.n_users, "items": made.n_items, "events": made.n_events}
        as_json({"dataset": str(out), **counts, "notes": dict(made.notes)})
        return
    show(f"{made!r} in {out}")
    note(f"log: {made.notes['log']}")


def erase(
    user: Annotated[str, typer.Argument(help="The id of the user, as the outside world has it.")],
    log: Annotated[str | None, typer.Option(help="The server's log.")] = None,
    sessions: Annotated[
        str | None, typer.Option(help="Where sessions are kept; default: in the database of the log.")
    ] = None,
    bundle: Annotated[list[Path] | None, typer.Option(help="A bundle; repeat for more.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="A dataset's folder; repeat for more.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take a person out of the log, the sessions, bundles and datasets: no file holds the id any more."""
    from contextlib import ExitStack, closing

    from tastemaker.serve.erase import Erased, Unfinished
    from tastemaker.serve.erase import erase as take_out
    from tastemaker.serve.log import open_log
    from tastemaker.serve.sessions import open_sessions
    from tastemaker.types import UsageError

    places = [place for place in (log, sessions, *(bundle or ()), *(data or ())) if place is not None]
    if not places:
        raise UsageError("say where to erase from: --log, --sessions, --bundle or --data")
    if not yes:
        _confirm(f"Erase {user!r} from {len(places)} places? This cannot be undone.")

    def tell(done: Erased) -> None:
        if json:
            as_json(done.to_json())
            return
        rows: list[dict[str, Any]] = [{"where": p.where, "what": p.what, "erased": p.count} for p in done.places]
        show(table(rows))
        for sentence in done.remains:
            note(f"remains: {sentence}")

    with ExitStack() as stack:
        events = None if log is None else stack.enter_context(open_log(log, create=False))
        where = sessions or log
        kept = None if where is None else stack.enter_context(closing(open_sessions(where, create=False)))
        try:
            tell(take_out(user, log=events, sessions=kept, bundles=bundle or (), datasets=data or ()))
        except Unfinished as error:
            tell(error.erased)
            raise


def _confirm(question: str) -> None:
    from tastemaker.types import UsageError

    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise UsageError("nothing was erased, since nobody agreed", hint="answer y, or give --yes")


def _microseconds(text: str) -> int:
    """A date, of the world's clock where it names no zone, as microseconds since 1970."""
    from datetime import UTC, datetime

    from tastemaker.types import UsageError

    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no date", hint="write it as 2026-01-31 or 2026-01-31T12:00") from error
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6)
