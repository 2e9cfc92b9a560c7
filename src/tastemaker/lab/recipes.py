"""Recipes: published experiments as TOML files, run by name, their results written beside what was published."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import tastemaker
from tastemaker.contracts import ChatModel, Resources, find
from tastemaker.data import filters, split
from tastemaker.data.sources import get
from tastemaker.evaluate import evaluate, pointwise
from tastemaker.evaluate.interactive import INTERACTIVE, interact
from tastemaker.lab.worlds import ENVIRONMENTS, Asked, Talking
from tastemaker.language.accounts import Cached, Counted, Record
from tastemaker.train import fit
from tastemaker.types import (
    ConfigError,
    Dataset,
    NotFound,
    Part,
    Split,
    UsageError,
    config_to_json,
    make_config,
    nearest,
    progress,
    replace_file,
)
from tastemaker.types.meter import machine, metered

Tier = Literal["ci", "cpu", "full"]
TIERS: dict[Tier, str] = {"ci": "up to 60 s", "cpu": "up to 90 minutes on 2 cores", "full": "published size"}


class Entry(BaseModel):
    """One system of a recipe: its settings, and the figures that were published for it.

    refit: where the split has no valid part and training is stopped by events held back, train again on all of them
    chat: where a language model takes part in the recipe, whether it is lent to this system
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    label: str | None = None
    tier: Tier = "cpu"
    config: dict[str, Any] = {}
    transforms: dict[str, dict[str, Any]] = {}
    refit: bool = True
    chat: bool = True
    seeds: list[int] = [0]
    published: dict[str, float] = {}
    source: str | None = None
    note: str | None = None

    @property
    def key(self) -> str:
        """What the entry is called among the recipe's systems."""
        return self.label or self.name


class Recipe(BaseModel):
    """One experiment: dataset, filters, split, metrics, systems.

    protocol: lists over the catalogue ("ranking"), predictions of labelled rows ("pointwise"), or sessions with people
        who want one item ("interactive"): one of the part's choices each
    world: how these tell of it: they answer questions about "attributes", or it "talks" (`tastemaker.lab.worlds`)
    environment: settings of that world
    endpoint: a language model takes part, which whoever runs the recipe names
    turns, sessions: how long a session may be, and how many there are; every system meets the same
    k: length of the lists of a session
    unmasked: also judge lists in which items seen before may stand; those figures are called "ndcg@10 unmasked"
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = ""
    title: str
    dataset: str
    filters: list[dict[str, Any]] = []
    split: str
    seed: int = 0
    part: Part = "test"
    protocol: Literal["ranking", "pointwise", "interactive"] = "ranking"
    world: Literal["attributes", "talks"] = "attributes"
    environment: dict[str, Any] = {}
    endpoint: bool = False
    turns: int = 15
    sessions: int = 2000
    k: int = 10
    ks: list[int] = [10, 20]
    metrics: list[str] = ["recall", "ndcg"]
    unmasked: bool = False
    source: str = ""
    note: str = ""
    systems: list[Entry] = Field(min_length=1)


def folder() -> Path:
    """Where recipes are: `recipes/` here, else those that came with the package."""
    here = Path("recipes")
    if here.is_dir():
        return here
    packaged = Path(str(files(tastemaker))) / "_recipes"
    return packaged if packaged.is_dir() else Path(str(files(tastemaker))).parents[1] / "recipes"


def recipes(where: Path | None = None) -> list[Recipe]:
    """All recipes, by name."""
    return [read(path) for path in sorted((where or folder()).glob("*.toml"))]


def read(path: Path) -> Recipe:
    """One recipe; what it says of systems and settings is checked against the systems."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe.model_validate({**raw, "name": path.stem})
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{path} is not a recipe: {error}") from error
    keys = [entry.key for entry in recipe.systems]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{path} lists a system twice", hint="give one of them a label")
    if recipe.protocol == "interactive":
        people(recipe)
        if wrong := sorted(set(recipe.metrics) - set(INTERACTIVE)):
            raise ConfigError(f"sessions have no figure {wrong[0]!r}", hint=nearest(wrong[0], INTERACTIVE))
    for entry in recipe.systems:
        make_config(find(entry.name).config, entry.config, of=f"{entry.name} in {path.name}")
    return recipe


def named(name: str, where: Path | None = None) -> Recipe:
    """The recipe of this name."""
    path = (where or folder()) / f"{name}.toml"
    if not path.is_file():
        known = [p.stem for p in (where or folder()).glob("*.toml")]
        raise NotFound(f"there is no recipe {name!r}", hint=nearest(name, known))
    return read(path)


def prepare(recipe: Recipe, data_folder: str | Path | None = None) -> Split:
    """The recipe's dataset, filtered and split."""
    data = get(recipe.dataset, folder=None if data_folder is None else Path(data_folder))
    for step in recipe.filters:
        data = _filtered(data, dict(step))
    return split(data, recipe.split, seed=recipe.seed)


def run(
    recipe: Recipe,
    *,
    only: Sequence[str] | None = None,
    tiers: Sequence[Tier] = ("ci", "cpu"),
    results: Path = Path("results"),
    data_folder: str | Path | None = None,
    runs: Path | None = None,
    chat: ChatModel | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the chosen systems of a recipe and write `results/<recipe>.json`; other systems' results stay.

    Every finished system is written at once, so a run that is stopped loses at most the one it was at; nor much of
    that one where `runs` names a folder for checkpoints.

    Args:
        chat: the language model of a recipe in which one takes part. What it was asked and answered is kept in `runs`,
            and not asked again.
    """
    if recipe.endpoint and chat is None:
        raise UsageError(
            f"a language model takes part in {recipe.name}, and none is given",
            hint="--chat-url http://127.0.0.1:11434/v1 --chat-model NAME",
        )
    keys = [entry.key for entry in recipe.systems]
    if only and (unknown := set(only) - set(keys)):
        missing = sorted(unknown)[0]
        raise NotFound(f"the recipe {recipe.name} has no system {missing!r}", hint=nearest(missing, keys))
    entries = [e for e in recipe.systems if (e.key in only if only else e.tier in tiers)]
    parts = prepare(recipe, data_folder)
    for warning in parts.warnings:
        tell(f"[yellow]warning:[/] {warning}")
    path = results / f"{recipe.name}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    about = _about(recipe, parts)
    same = stored.get("data") == about["data"] and stored.get("split") == about["split"]
    payload = {**about, "systems": stored.get("systems", {}) if same else {}}
    with progress(recipe.name, sum(len(e.seeds) for e in entries)) as advance:
        for entry in entries:
            done = []
            for seed in entry.seeds:
                kept = None if runs is None else run_folder(runs, recipe, entry, seed)
                done.append(_run_one(recipe, entry, parts, seed, kept, chat if recipe.endpoint else None))
                advance(1)
            payload["systems"][entry.key] = _result(entry, done)
            payload["systems"] = {key: payload["systems"][key] for key in keys if key in payload["systems"]}
            with replace_file(path) as fresh:
                fresh.write_text(json.dumps(payload, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            tell(_line(entry, payload["systems"][entry.key]))
    return payload


def _run_one(
    recipe: Recipe, entry: Entry, parts: Split, seed: int, run: Path | None, chat: ChatModel | None
) -> dict[str, Any]:
    kept = chat if chat is None or run is None else Cached(Record(chat, run / "talks.jsonl"), run / "answers")
    model = None if kept is None else Counted(kept)
    how: dict[str, Any] = {"seed": seed, "histories": False, "run": run}
    if model is not None and entry.chat:
        how["resources"] = Resources(chat=model)
    bundle = fit(entry.name, parts, entry.config, transforms=entry.transforms, refit=entry.refit, **how)
    judged: dict[str, Any] = {"part": recipe.part, "ks": tuple(recipe.ks), "metrics": list(recipe.metrics)}
    with metered() as cost:
        if recipe.protocol == "interactive":
            report = interact(bundle, people(recipe).on(parts, recipe.turns, model), **_sessions(recipe))
        elif recipe.protocol == "pointwise":
            report = pointwise(bundle, parts, part=recipe.part, metrics=list(recipe.metrics))
        else:
            report = evaluate(bundle, parts, **judged)
    reports = {"": report}
    if recipe.unmasked and recipe.protocol == "ranking":
        reports[" unmasked"] = evaluate(bundle, parts, exclude_seen=False, **judged)
    figures = {name + mark: value for mark, one in reports.items() for name, value in one.values().items()}
    if recipe.protocol == "interactive":
        figures = {name: value for name, value in figures.items() if name.partition("@")[0] in recipe.metrics}
    intervals = {name + mark: pair for mark, one in reports.items() for name, pair in one.intervals().items()}
    made = bundle.about["fit"]
    return {
        "seed": seed,
        "metrics": {name: round(value, 5) for name, value in figures.items() if isfinite(value)},
        "intervals": {n: [round(low, 5), round(high, 5)] for n, (low, high) in intervals.items() if n in figures},
        "cases": report.n,
        "fit_seconds": round(made["seconds"], 2),
        "fit_peak_mb": round(made["peak_mb"]),
        "evaluate_seconds": round(cost.seconds, 2),
        "evaluate_peak_mb": round(cost.peak_mb),
        "facts": bundle.about.get("facts", {}),
        **({} if model is None else {"model": model.identity, "asked": _spent(model)}),
        **({"training": list(map(_trained, trainings))} if (trainings := bundle.about.get("training")) else {}),
        **({"judged_on": where} if (where := bundle.about.get("judged_on")) else {}),
    }


def _spent(model: Counted) -> dict[str, dict[str, float]]:
    """What each task asked of a language model and cost."""
    return {task: {n: round(v, 2) for n, v in asdict(spent).items()} for task, spent in model.account().items()}


def people(recipe: Recipe) -> Asked | Talking:
    """Whom the systems of an interactive recipe meet."""
    told = {"part": recipe.part, **recipe.environment}
    asked: Asked | Talking = make_config(ENVIRONMENTS[recipe.world], told, of=f"the people of {recipe.name}")
    return asked


def _sessions(recipe: Recipe) -> dict[str, Any]:
    """How they meet them: every system in the same sessions."""
    how: dict[str, Any] = {"turns": recipe.turns, "sessions": recipe.sessions, "seeds": (recipe.seed,)}
    return {**how, "k": recipe.k, "at": tuple(recipe.ks)}


def _trained(told: dict[str, Any]) -> dict[str, Any]:
    """What a training stage found; of its course, a point here and there."""
    course = told["evaluations"]
    every = max(1, len(course) // 20)
    kept = [row for n, row in enumerate(course, 1) if n % every == 0 or row["epoch"] in (1, 2, 5, 10)]
    rounded = [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in kept]
    return {**{name: value for name, value in told.items() if name != "evaluations"}, "course": rounded}


def _result(entry: Entry, runs: list[dict[str, Any]]) -> dict[str, Any]:
    info = find(entry.name)
    names = list(runs[0]["metrics"])
    return {
        "system": entry.name,
        "version": info.version,
        "tier": entry.tier,
        "config": config_to_json(make_config(info.config, entry.config)),
        **({"transforms": entry.transforms} if entry.transforms else {}),
        "metrics": {name: round(sum(r["metrics"][name] for r in runs) / len(runs), 5) for name in names},
        "published": entry.published,
        "source": entry.source,
        "note": entry.note,
        "runs": runs,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _about(recipe: Recipe, parts: Split) -> dict[str, Any]:
    data = parts.data
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "note": recipe.note,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "users": data.n_users,
            "items": data.n_items,
            "events": data.n_events,
        },
        "split": {
            "spec": json.loads(json.dumps(dict(parts.spec), default=str)),
            **parts.sizes,
            "history": parts.history,
            "warnings": list(parts.warnings),
        },
        "part": recipe.part,
        "protocol": _protocol(recipe),
    }


def _protocol(recipe: Recipe) -> str:
    """In words, for the pages."""
    if recipe.protocol == "pointwise":
        return "labelled rows, each predicted in its context"
    if recipe.protocol == "interactive":
        unseen = ", items seen before left out" if people(recipe).unseen else ""
        met = f"{recipe.sessions:,} sessions of up to {recipe.turns} turns, the same for all"
        return f"{met}, lists of {recipe.k}{unseen}"
    unmasked = " (unmasked: not left out)" if recipe.unmasked else ""
    return "full catalogue, items seen in training and validation left out" + unmasked


def run_folder(runs: Path, recipe: Recipe, entry: Entry, seed: int) -> Path:
    """Where the stages of one run are kept."""
    return runs / recipe.name / "".join(letter if letter.isalnum() else "-" for letter in entry.key) / str(seed)


def _line(entry: Entry, result: dict[str, Any]) -> str:
    shown = []
    for name, value in result["metrics"].items():
        published = f" (published {entry.published[name]:.4f})" if name in entry.published else ""
        shown.append(f"{name} {value:.4f}{published}")
    return f"{entry.key}: " + ", ".join(shown) + f"; fit {result['runs'][0]['fit_seconds']:.1f} s"


def _filtered(data: Dataset, step: dict[str, Any]) -> Dataset:
    """One filter step: {filter = "k_core", k = 5}."""
    name = step.pop("filter", "")
    function = getattr(filters, str(name), None) if str(name) in filters.FILTERS else None
    if function is None:
        raise ConfigError(f"there is no filter {name!r}", hint=nearest(str(name), filters.FILTERS))
    try:
        result: Dataset = function(data, **step)
    except TypeError as error:
        raise ConfigError(f"the filter {name} does not take these settings: {error}") from error
    return result
