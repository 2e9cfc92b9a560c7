"""The engine: builds a system, runs the stages of its program, and leaves a bundle."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Any

from tastemaker.contracts import (
    TRANSFORMS,
    Alternate,
    Fit,
    Logger,
    Precompute,
    Program,
    Resources,
    SystemInfo,
    Tells,
    Train,
    find,
    info_of,
)
from tastemaker.data import holdout
from tastemaker.train.bundle import Bundle, bind, export_state, histories_of, restore_weights
from tastemaker.train.codec import content_key, recall, store
from tastemaker.train.loggers import JsonLines
from tastemaker.train.run import Hardware, Judge, NeedsJudge, Run, Validation, is_first_process
from tastemaker.train.warm import carry_over, check_same, held_back
from tastemaker.types import (
    CapabilityError,
    Dataset,
    Schema,
    Split,
    SystemRef,
    UsageError,
    config_to_json,
    generator,
    make_config,
    progress,
    quiet,
    replace_file,
)
from tastemaker.types.meter import metered
from tastemaker.types.progress import Advance


@singledispatch
def run_stage(stage: Any, run: Run) -> Any:
    """Carry out one stage and return what the program is sent. One function a kind of stage."""
    raise UsageError(f"a program yields stages, got {type(stage).__name__}")


@run_stage.register
def _(stage: Fit, run: Run) -> Any:
    function = stage.function
    if isinstance(function, SystemRef):
        return _fitted(run, function, *stage.args)
    streams = {} if stage.rng is None else {"rng": generator(run.seed, stage.rng, run.stage)}
    return run.kept(lambda: function(*stage.args, **stage.kwargs, **streams))


@run_stage.register
def _(stage: Precompute, run: Run) -> Any:
    source = textwrap.dedent(inspect.getsource(stage.function))
    name = f"{stage.function.__module__}.{stage.function.__qualname__}"
    if run.cache is None:
        return stage.function(*stage.args, **stage.kwargs)
    file = run.cache / f"{content_key(name, source, stage.version, list(stage.args), dict(stage.kwargs))}.safetensors"
    if not file.is_file():
        store(stage.function(*stage.args, **stage.kwargs), file)
    return recall(file)


@run_stage.register
def _(stage: Train, run: Run) -> Any:
    return _trained([stage], run)


@run_stage.register
def _(stage: Alternate, run: Run) -> Any:
    return _trained(stage.trains, run)


def _fitted(run: Run, of: SystemRef, data: Dataset) -> Any:
    """Another system, fitted on `data` with this run's seed, hardware and time; its own run folder lies in this one."""
    name = f"{run.stage:04d}-{of.name}-{data.fingerprint[:12]}"
    left = None if run.deadline is None else max(run.deadline - time.monotonic(), 0.0)
    bundle = fit(
        of.name,
        data,
        of.config,
        seed=run.seed,
        run=None if run.folder is None else run.folder / "systems" / name,
        cache=run.cache,
        histories=False,
        hardware=run.hardware,
        seconds=left,
        checkpoint_seconds=run.checkpoint_seconds,
        loggers=run.loggers,
        resources=run.resources,
    )
    return bundle.system


def _trained(stages: Sequence[Train], run: Run) -> dict[str, Any]:
    """Train, or take up the weights of an earlier run's finished stage; the program is sent what was found."""
    from tastemaker.train.neural import train

    if run.file is not None and run.file.is_file():
        kept = recall(run.file)
        restore_weights(run.system, kept["weights"])
        found: dict[str, Any] = kept["found"]
    else:
        found = train(stages, run)
        if found["stopped"] == "out of time":
            run.folder = None  # it goes on from its checkpoint when there is more time: what follows is not kept
        elif run.file is not None:
            store({"found": found, "weights": dict(run.system.state_dict())}, run.file)
            run.file.with_suffix(".checkpoint").unlink(missing_ok=True)
    run.told.append({"stage": run.stage, **found})
    return found


def default_cache() -> Path:
    """Where precomputed artefacts are kept: `TASTEMAKER_CACHE`, or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TASTEMAKER_CACHE") or f"{home}/tastemaker").expanduser() / "artefacts"


def fit(
    system: str | type,
    data: Dataset | Split,
    config: Mapping[str, Any] | Any = None,
    *,
    seed: int = 0,
    transforms: Mapping[str, Mapping[str, Any]] | Sequence[str] = (),
    warm: Bundle | None = None,
    judge: Judge | None = None,
    refit: bool = True,
    epochs: Mapping[int, int] | None = None,
    run: str | Path | None = None,
    cache: str | Path | None = None,
    histories: bool = True,
    resources: Resources | None = None,
    hardware: Hardware | None = None,
    seconds: float | None = None,
    checkpoint_seconds: float = 60.0,
    loggers: Sequence[Logger] = (),
) -> Bundle:
    """Train a system and return it as a bundle, ready to answer, be evaluated and be saved.

    A system whose training is stopped by a validation figure is judged on the valid part of the split it is given.
    Given a dataset, or a split without such a part, it holds some of the training events back and is judged on them.

    Args:
        system: a name (see `tastemaker systems`) or a class declared with `@system`.
        data: a split, of which it learns from the training part alone; or a dataset, of which it learns from all.
        config: settings by name; what is not given keeps its default, or with `warm` and no settings, the bundle's.
        seed: every random stream of the run derives from it.
        transforms: names of transforms of training, in the order they are applied, perhaps with settings.
        warm: an older fit of the same system, with whose weights a system of gradient steps begins: see
            `tastemaker.train.warm`. It is judged before the first epoch too, so it ends no worse than it began; where
            events are held back, only such as the old fit has not seen. A closed form is fitted anew.
        judge: decides in the place of the evaluation protocols how good the system is in the course of training.
        refit: where events were held back, train again on all of them for as many epochs as were found best; left
            out where `seconds` would not suffice for it.
        epochs: for how long to train, by the number of the stage, where that is known already: nothing is judged.
        run: a folder for finished stages and checkpoints; a run stopped half-way, or by `seconds`, goes on there.
        cache: where precomputed artefacts are kept; default: the user's cache folder.
        histories: keep the users' histories in the bundle, so that it answers for them by id.
        resources: what is bound to a system that leans on some; the catalogue is that of the data.
        hardware: device, precision, compilation; default: the accelerator, where there is one.
        seconds: training by gradients stops when so many have passed, with the best weights so far.
        checkpoint_seconds: how often a training under way is saved in `run`.
        loggers: are told what happens in training.

    Raises:
        CapabilityError: the data lacks what the system learns from.
        UsageError: a warm start from another system or with other settings, or a parameter that cannot be matched.
        ConfigError: a setting is unknown or out of range.
        Diverged: a loss was no number, or grew without bound.
    """
    info = find(system) if isinstance(system, str) else info_of(system)
    learnt = data.train if isinstance(data, Split) else data
    if missing := info.missing_from(learnt):
        raise CapabilityError(
            f"{info.name} learns from {', '.join(sorted(missing))}, which {learnt.name} does not carry",
            hint="`tastemaker systems --for DATA` lists the systems a dataset can train",
        )
    given = config_to_json(warm.config) if config is None and warm is not None and warm.info == info else config
    settings = make_config(info.config, given, of=info.name)
    changes = _transforms(transforms, learnt)
    asked = {name: config_to_json(change.config) for name, change in changes.items()}
    if warm is not None:
        check_same(warm, info, settings, asked)
    folder = None if run is None else Path(run)
    if folder is not None:
        start = [] if warm is None else [dict(export_state(warm.system))]
        _claim(
            folder, info, settings, seed, data, asked, refit, sorted((epochs or {}).items()), *start, *_lent(resources)
        )
        loggers = [JsonLines(folder / "log.jsonl"), *loggers]
    running = Run(
        seed,
        name=info.name,
        folder=folder,
        cache=default_cache() if cache is None else Path(cache),
        judge=judge or _judge_of(data, seed),
        warm=warm,
        fixed=dict(epochs or {}),
        hardware=hardware or Hardware(),
        deadline=None if seconds is None else time.monotonic() + seconds,
        checkpoint_seconds=checkpoint_seconds,
        loggers=loggers,
        resources=resources,
    )
    judged_on = "valid part" if running.judge is not None else None
    started = time.monotonic()
    with metered() as cost, nullcontext() if is_first_process() else quiet():
        try:
            taught = _learn(info, settings, learnt, changes, running)
        except NeedsJudge:
            judged_on = "events held back from training"
            inner = holdout(learnt, seed=seed) if warm is None else held_back(learnt, warm, seed)
            apart = None if folder is None else folder / "judged"  # apart from what stages gave of all events
            running = replace(running, judge=Validation(inner, seed), folder=apart, stage=0, told=[])
            taught = _learn(info, settings, inner.train, changes, running, schema=learnt.schema)
            took = time.monotonic() - started
            if refit and (running.deadline is None or time.monotonic() + took <= running.deadline):
                fixed = {told["stage"]: told["best_epoch"] for told in running.told}
                again = None if folder is None else folder / "refit"
                running = replace(running, folder=again, fixed=fixed, stage=0, told=[*running.told])
                taught = _learn(info, settings, learnt, changes, running)
    trained = sum(told["seconds"] for told in running.told)  # earlier processes included, where a run was taken up
    return Bundle(
        system=taught,
        info=info,
        config=settings,
        schema=learnt.schema,
        users=learnt.user_ids,
        catalogue=learnt.items,
        histories=histories_of(learnt) if histories else None,
        about={
            "data": {
                "name": learnt.name,
                "fingerprint": learnt.fingerprint,
                "events": learnt.n_events,
                "until": learnt.events["time"].max() if learnt.has_time else None,
            },
            "seed": seed,
            "facts": dict(taught.facts()) if isinstance(taught, Tells) else {},
            "fit": {"seconds": max(cost.seconds, trained), "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb},
            **({"transforms": asked} if changes else {}),
            **({"warm": running.carried} if warm is not None else {}),
            **({"training": running.told, "judged_on": judged_on} if running.told else {}),
        },
    )


def _learn(
    info: SystemInfo,
    settings: Any,
    data: Dataset,
    changes: Mapping[str, Any],
    run: Run,
    schema: Schema | None = None,
) -> Any:
    """A new system, taught by its program, which transforms may have changed."""
    schema = schema or data.schema
    system = run.system = built(info, settings, schema, run.seed)
    bind(system, data.items, run.resources)
    if run.warm is not None:
        run.carried = carry_over(run.warm, system, info, settings, schema, data.user_ids, data.item_ids)
    program = system.program(data)
    for change in changes.values():
        program = change(system, program, data)
    _drive(program, run)
    return system


def built(info: SystemInfo, settings: Any, schema: Schema, seed: int) -> Any:
    """A new system; what its constructor draws comes from the seed, and leaves the global streams alone."""
    if "torch" not in sys.modules:
        return info.cls(settings, schema)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "parameters").integers(2**63)))
        return info.cls(settings, schema)


def _drive(program: Program, run: Run) -> None:
    """Run a program to its end. Steps that share a label share a progress bar; other stages draw their own."""
    sent: Any = None
    drawn: str | None = None
    with ExitStack() as bar:
        advance: Advance | None = None
        while True:
            try:
                stage = program.send(sent)
            except StopIteration:
                return
            label = getattr(stage, "label", None)
            if label != drawn:
                bar.close()
                drawn = label
                opened = None if label is None else progress(f"{run.name}: {label}", getattr(stage, "of", None))
                advance = None if opened is None else bar.enter_context(opened)
            sent = run_stage(stage, run)
            run.stage += 1
            if advance is not None:
                advance(1)


def _judge_of(data: Dataset | Split, seed: int) -> Judge | None:
    """The valid part of a split, as a judge."""
    return Validation(data, seed) if isinstance(data, Split) and data.sizes["valid"] else None


def _transforms(wanted: Mapping[str, Mapping[str, Any]] | Sequence[str], data: Dataset) -> dict[str, Any]:
    """Transforms by name, built from their settings."""
    given = wanted if isinstance(wanted, Mapping) else {name: {} for name in wanted}
    found = {name: TRANSFORMS.find(name) for name in given}
    for name, info in found.items():
        if missing := info.missing_from(data):
            raise CapabilityError(f"{name} learns from {', '.join(sorted(missing))}, which {data.name} does not carry")
    return {name: info.cls(make_config(info.config, given[name], of=name)) for name, info in found.items()}


def _lent(resources: Resources | None) -> list[Any]:
    """Which resources a run leans on: models by what they call themselves, systems by what they learnt."""
    if resources is None:
        return []
    models = resources.chat, resources.text_encoder, resources.image_encoder
    learnt = {name: dict(export_state(one)) for name, one in resources.systems.items() if hasattr(one, "export")}
    return [[None if one is None else one.identity for one in models], sorted(resources.systems), learnt]


def _claim(folder: Path, info: SystemInfo, config: Any, seed: int, data: Dataset | Split, *more: Any) -> None:
    """A run folder belongs to one system, config, seed and dataset; another one's is refused."""
    parts = [data.part, data.data] if isinstance(data, Split) else [data]
    identity = content_key(info.name, info.version, config_to_json(config), seed, parts, *more)
    file = folder / "run.key"
    if file.is_file() and file.read_text() != identity:
        raise UsageError(
            f"{folder} holds a run with another system, setting, seed, dataset or resource",
            hint="choose another folder, or remove this one",
        )
    if not file.is_file():
        with replace_file(file) as fresh:
            fresh.write_text(identity)
