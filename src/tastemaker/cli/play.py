"""Commands that judge policies: play in an environment, and what a log says of a policy that did not write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.common import (
    ChatKey,
    ChatName,
    ChatUrl,
    Json,
    Seed,
    Settings,
    as_json,
    note,
    open_data,
    parse_settings,
    show,
    split_settings,
)

if TYPE_CHECKING:
    from tastemaker.contracts import ChatModel
    from tastemaker.evaluate import Comparison, Report
    from tastemaker.simulate import Logged
    from tastemaker.types import Dataset, Split

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the report: a .html or .json file.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="What the environment is made of: a folder, a file, or the name of a public dataset."),
]


def interact(
    policies: Annotated[
        list[str],
        typer.Argument(metavar="SYSTEM...", help="Bundles, or names of systems, which are fitted on the world's past."),
    ],
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="latent, replay, attributes or talks; see --about.")
    ] = "latent",
    data: DataOption = None,
    world: Annotated[
        list[str] | None, typer.Option("--world", help="A setting of the environment, as NAME=VALUE; repeat for more.")
    ] = None,
    set_: Settings = None,
    turns: Annotated[int, typer.Option(help="Turns of a session, at most.", min=1)] = 100,
    sessions: Annotated[int, typer.Option(help="Sessions at once, for each seed.", min=1)] = 64,
    seeds: Annotated[int, typer.Option(help="How often all is played, with streams of its own.", min=1)] = 5,
    seed: Seed = 0,
    k: Annotated[int, typer.Option("-k", help="Length of the lists.", min=1)] = 1,
    learn: Annotated[bool, typer.Option(help="Whether systems that learn while they serve do so.")] = True,
    push: Annotated[int, typer.Option(help="Turns between two snapshots of one that learns.", min=1)] = 1,
    at: Annotated[str, typer.Option(help="Turns of the success rates, separated by commas.")] = "1,5,10,15",
    success: Annotated[float, typer.Option(help="A turn is a success where its reward is above this.")] = 0.0,
    chat_url: ChatUrl = None,
    chat_model: ChatName = None,
    chat_key_variable: ChatKey = None,
    about: Annotated[bool, typer.Option("--about", help="Say what the environment can be set to, and stop.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Let systems act in an environment, turn by turn: regret, reward, success by turn. Several are compared by seed.

    A setting goes to all systems, or to one, as --set linucb.alpha=0.5.
    """
    from tastemaker.evaluate import interact as play
    from tastemaker.lab.worlds import world as made
    from tastemaker.language.chat import open_chat

    if about:
        _tell(environment)
        return
    chat = open_chat(chat_url, chat_model, chat_key_variable)
    given = None if data is None else open_data(data)
    place = made(environment, parse_settings(world), data=given, turns=turns, seed=seed, chat=chat)
    plays = _opened(policies, parse_settings(set_), place.past, seed, chat)
    _told(
        [
            play(
                system,
                place.environment,
                turns=turns,
                sessions=sessions,
                seeds=range(seed, seed + seeds),
                k=k,
                learn=learn,
                push=push,
                at=_turns(at),
                success=success,
                by="seed" if len(plays) > 1 else None,
                name=label,
            )
            for label, system in plays.items()
        ],
        out,
        json,
    )


def off_policy(
    log: Annotated[str, typer.Argument(help="A dataset whose events carry propensities.", metavar="LOG")],
    policies: Annotated[
        list[str],
        typer.Option(
            "--policy",
            "-p",
            help="A bundle; a system by name, fitted on the first trials; uniform; a .csv or .parquet file with the "
            "columns item and probability; or where:CONDITION, what was shown in other trials, as "
            "\"where:policy = 'new'\". Repeat for more.",
        ),
    ],
    where: Annotated[
        str | None, typer.Option(help="Only trials for which this holds of the event: \"policy = 'random'\".")
    ] = None,
    first: Annotated[
        float, typer.Option(help="Share of the trials, the first, on which systems by name are fitted.", min=0, max=0.9)
    ] = 0.5,
    set_: Settings = None,
    estimators: Annotated[
        str | None, typer.Option(help="ips, snips, clipped_ips, dm, dr; default: all that suit.")
    ] = None,
    clip: Annotated[float, typer.Option(help="The largest weight of clipped_ips.", min=0)] = 10.0,
    seed: Seed = 0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Estimate what policies would have earned, from a log whose choices were drawn with known probabilities."""
    from tastemaker.evaluate import off_policy as estimate
    from tastemaker.lab.worlds import parted

    whole = open_data(log)
    data = whole if where is None else _only(whole, where)
    by_name = [one for one in policies if not _is_given(one)]
    past, logged = parted(data, first if by_name else 0.0, seed)
    fitted = _opened(by_name, parse_settings(set_), past, seed)
    reports = []
    for one in policies:
        target = fitted[one] if one in fitted else _target(one, whole, logged)
        wanted = None if estimators is None else [name.strip() for name in estimators.split(",") if name.strip()]
        reports.append(estimate(logged, target, estimators=wanted, clip=clip, name=one, seed=seed))
    _told(reports, out, json)


def _is_given(policy: str) -> bool:
    """Whether a policy needs no fit."""
    suffix = Path(policy).suffix in (".csv", ".parquet")
    return policy == "uniform" or policy.startswith("where:") or suffix or (Path(policy) / "manifest.json").is_file()


def _target(policy: str, whole: Dataset, logged: Logged) -> Any:
    """A bundle, or the probabilities of the items [A]."""
    import numpy as np
    import polars as pl

    from tastemaker.simulate import Logged
    from tastemaker.train import Bundle
    from tastemaker.types import DataError, UsageError

    n = logged.n_items
    if policy == "uniform":
        return np.full(n, 1 / n)
    if policy.startswith("where:"):
        other = Logged.of(_only(whole, policy.removeprefix("where:")))
        if other.k != 1:
            raise UsageError(f"trials of {other.k} slots are no policy over items")
        note(f"{policy}: {len(other):,} trials earned {other.rewards.mean():.5f} each")
        return np.bincount(other.items[:, 0], minlength=n) / len(other)
    if Path(policy).suffix not in (".csv", ".parquet"):
        return Bundle.load(Path(policy))
    file = Path(policy)
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    table = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
    if not {"item", "probability"} <= set(table.columns):
        raise DataError(f"{file} has no columns item and probability, but {', '.join(table.columns)}")
    numbers = whole.item_ids.numbers(table["item"].to_list())
    if (numbers < 0).any():
        raise DataError(f"{file} names items that the log does not know")
    chances = np.zeros(n)
    np.add.at(chances, numbers, table["probability"].cast(pl.Float64).to_numpy())
    return chances


def _only(data: Dataset, where: str) -> Dataset:
    """The events for which a condition holds."""
    from tastemaker.data import allowed_by
    from tastemaker.types import DataError

    kept = data.with_events(data.events.filter(allowed_by(where, data.events)))
    if not kept.n_events:
        raise DataError(f"no event of {data.name} is such that {where}")
    return kept


def _opened(
    policies: Sequence[str],
    settings: Mapping[str, Any],
    past: Dataset | Split,
    seed: int,
    chat: ChatModel | None = None,
) -> dict[str, Any]:
    """Bundles from their folders, and systems fitted by name, each with its own settings and everybody's."""
    from tastemaker.contracts import Resources
    from tastemaker.train import Bundle, fit

    lent = None if chat is None else Resources(chat=chat)
    shared, own = split_settings(settings, policies)
    opened: dict[str, Any] = {}
    for one in policies:
        if (Path(one) / "manifest.json").is_file():
            opened[one] = Bundle.load(Path(one), lent)
        else:
            opened[one] = fit(one, past, {**shared, **own[one]}, seed=seed, resources=lent)
    return opened


def _told(reports: Sequence[Report], out: Path | None, json: bool) -> None:
    """One report, or several beside each other."""
    from tastemaker.evaluate import compare

    found: Report | Comparison = reports[0] if len(reports) == 1 else compare(reports)
    if out is not None:
        found.save(out)
    if json:
        as_json(found.to_json())
        return
    show(found.table())
    if out is not None:
        show(f"report: {out}")


def _tell(environment: str) -> None:
    from tastemaker.cli.common import table
    from tastemaker.lab.worlds import ENVIRONMENTS
    from tastemaker.types import NotFound, nearest, settings

    if environment not in ENVIRONMENTS:
        raise NotFound(f"there is no environment {environment!r}", hint=nearest(environment, ENVIRONMENTS))
    known = settings(ENVIRONMENTS[environment])
    rows = [{"setting": n, "default": str(d), "what it is": s.doc} for n, (d, s) in known.items()]
    show(table(rows, title=environment))


def _turns(text: str) -> list[int]:
    from tastemaker.types import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"turns are whole numbers separated by commas, got {text!r}") from error
