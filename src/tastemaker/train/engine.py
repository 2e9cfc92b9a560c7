"""The engine: builds a system, runs the stages of its program, and leaves a bundle."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import singledispatch
from pathlib import Path
from typing import Any

from tastemaker.contracts import Fit, Precompute, Program, SystemInfo, Tells, find, info_of
from tastemaker.train.bundle import Bundle, histories_of
from tastemaker.train.codec import content_key, recall, store
from tastemaker.types import (
    CapabilityError,
    Dataset,
    UsageError,
    config_to_json,
    generator,
    make_config,
    progress,
    replace_file,
)
from tastemaker.types.meter import metered
from tastemaker.types.progress import Advance


class Run:
    """One training run: where its artefacts lie, and the streams its stages draw from."""

    def __init__(self, seed: int, folder: Path | None, cache: Path | None) -> None:
        self.seed, self.folder, self.cache = seed, folder, cache
        self.stage = 0

    def kept(self, make: Callable[[], Any]) -> Any:
        """The value of this stage: as stored by an earlier run, else made now and stored."""
        if self.folder is None:
            return make()
        file = self.folder / "stages" / f"{self.stage:04d}.safetensors"
        if file.is_file():
            return recall(file)
        value = make()
        store(value, file)
        return value


@singledispatch
def run_stage(stage: Any, run: Run) -> Any:
    """Carry out one stage and return what the program is sent. One function a kind of stage."""
    raise UsageError(f"a program yields stages, got {type(stage).__name__}")


@run_stage.register
def _(stage: Fit, run: Run) -> Any:
    streams = {} if stage.rng is None else {"rng": generator(run.seed, stage.rng, run.stage)}
    return run.kept(lambda: stage.function(*stage.args, **stage.kwargs, **streams))


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


def default_cache() -> Path:
    """Where precomputed artefacts are kept: `TASTEMAKER_CACHE`, or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TASTEMAKER_CACHE") or f"{home}/tastemaker").expanduser() / "artefacts"


def fit(
    system: str | type,
    data: Dataset,
    config: Mapping[str, Any] | Any = None,
    *,
    seed: int = 0,
    run: str | Path | None = None,
    cache: str | Path | None = None,
    histories: bool = True,
) -> Bundle:
    """Train a system on `data` and return it as a bundle, ready to answer, be evaluated and be saved.

    Args:
        system: a name (see `tastemaker systems`) or a class declared with `@system`.
        data: what it learns from, all of it: pass `split.train` where something is held out.
        config: settings by name; what is not given keeps its default.
        seed: every random stream of the run derives from it.
        run: a folder for stages that are done; a run stopped half-way goes on there.
        cache: where precomputed artefacts are kept; default: the user's cache folder.
        histories: keep the users' histories in the bundle, so that it answers for them by id.

    Raises:
        CapabilityError: the data lacks what the system learns from.
        ConfigError: a setting is unknown or out of range.
    """
    info = find(system) if isinstance(system, str) else info_of(system)
    if missing := info.missing_from(data):
        raise CapabilityError(
            f"{info.name} learns from {', '.join(sorted(missing))}, which {data.name} does not carry",
            hint="`tastemaker systems --for DATA` lists the systems a dataset can train",
        )
    settings = make_config(info.config, config, of=info.name)
    folder = None if run is None else _open_run(Path(run), info, settings, seed, data)
    running = Run(seed, folder, default_cache() if cache is None else Path(cache))
    built = info.cls(settings, data.schema)
    with metered() as cost:
        _drive(built.program(data), running, info.name)
    return Bundle(
        system=built,
        info=info,
        config=settings,
        schema=data.schema,
        users=data.user_ids,
        catalogue=data.items,
        histories=histories_of(data) if histories else None,
        about={
            "data": {"name": data.name, "fingerprint": data.fingerprint, "events": data.n_events},
            "seed": seed,
            "facts": dict(built.facts()) if isinstance(built, Tells) else {},
            "fit": {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb},
        },
    )


def _drive(program: Program, run: Run, name: str) -> None:
    """Run a program to its end. Steps that share a label share a progress bar; other stages draw their own."""
    sent: Any = None
    drawn: str | None = None
    with ExitStack() as bar:
        advance: Advance = _nothing
        while True:
            try:
                stage = program.send(sent)
            except StopIteration:
                return
            label = getattr(stage, "label", None)
            if label != drawn:
                bar.close()
                drawn = label
                opened = None if label is None else progress(f"{name}: {label}", getattr(stage, "of", None))
                advance = _nothing if opened is None else bar.enter_context(opened)
            sent = run_stage(stage, run)
            run.stage += 1
            advance(1)


def _nothing(amount: float) -> None:
    """Where there is no bar."""


def _open_run(folder: Path, info: SystemInfo, config: Any, seed: int, data: Dataset) -> Path:
    """A run folder belongs to one system, config, seed and dataset; another one's is refused."""
    identity = content_key(info.name, info.version, config_to_json(config), seed, data)
    file = folder / "run.key"
    if file.is_file() and file.read_text() != identity:
        raise UsageError(
            f"{folder} holds a run with another system, setting, seed or dataset",
            hint="choose another folder, or remove this one",
        )
    if not file.is_file():
        with replace_file(file) as fresh:
            fresh.write_text(identity)
    return folder
