"""How a pipeline learns: its systems, and the ranker of a learned blend.

A ranker must see what retrievers say of events they have not learnt from, or it comes to trust the one that remembers
best. So part of the training events is held back, the retrievers are fitted on the rest, and the ranker learns to find
what was held back among what they name. Then every system is fitted again on all the training events. `collect` refuses
retrievers that did not learn from exactly the inner part, whoever calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.compose import spec as specs
from tastemaker.compose.assemble import compile, feature_schema  # noqa: A004 - the word for it
from tastemaker.compose.bundle import PipelineBundle
from tastemaker.compose.columns import Shelves
from tastemaker.compose.features import Features, Trained
from tastemaker.compose.pipeline import Pipeline, among
from tastemaker.compose.spec import PipelineSpec
from tastemaker.contracts import Fit, Logger, Program, info_of
from tastemaker.data import holdout
from tastemaker.train import Bundle, Hardware, fit
from tastemaker.train.engine import built, run_stage
from tastemaker.train.run import Run
from tastemaker.types import DataError, Dataset, Split, UsageError, generator, make_config, mix
from tastemaker.types.meter import metered

if TYPE_CHECKING:
    from tastemaker.compose.ranker import Lists

JUDGED = 5  # every so many-th list says when the ranker has learnt enough
FEWEST = 20  # lists with a right answer, below which there is nothing to learn from


def fit_pipeline(
    spec: PipelineSpec | Mapping[str, Any] | str,
    data: Dataset | Split,
    seed: int = 0,
    *,
    systems: Mapping[str, type] | None = None,
    run: str | Path | None = None,
    hardware: Hardware | None = None,
    loggers: Sequence[Logger] = (),
) -> PipelineBundle:
    """Fit the systems of a pipeline and, for a learned blend, its ranker.

    Args:
        spec: a spec, or its JSON; its section "systems" says which system a key stands for, and with what settings.
        data: a split, of which it learns from the training part alone; or a dataset, of which it learns from all.
        systems: classes that are not installed, by the name the spec calls them.
        run: a folder for checkpoints of the systems; a run that was stopped goes on there.
        hardware, loggers: as of `tastemaker.train.fit`.

    Raises:
        PipelineError: the pipeline does not fit together.
        DataError: too few held-back events are found by any retriever for a ranker to learn from.
    """
    whole = spec if isinstance(spec, PipelineSpec) else PipelineSpec.from_json(spec)
    lesson = Lesson(whole, seed, dict(systems or {}), None if run is None else Path(run), hardware, loggers)
    with metered() as cost:
        program, sent = lesson.program(data), None
        while True:
            try:
                stage = program.send(sent)
            except StopIteration:
                break
            sent = run_stage(stage, lesson.run)
            lesson.run.stage += 1
    learnt = data.train if isinstance(data, Split) else data
    about = {
        "data": {"name": learnt.name, "fingerprint": learnt.fingerprint, "events": learnt.n_events},
        "seed": seed,
        "fit": {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb},
        **({"ranker": {**lesson.told, "training": lesson.run.told}} if lesson.told else {}),
    }
    made = PipelineBundle(whole, lesson.shelf, lesson.trained, about)
    _ = made.pipeline  # says what does not fit together
    return made


class Lesson:
    """A pipeline's training: `program` is all of it, in order."""

    def __init__(
        self,
        spec: PipelineSpec,
        seed: int,
        systems: Mapping[str, type],
        folder: Path | None,
        hardware: Hardware | None,
        loggers: Sequence[Logger],
    ) -> None:
        self.spec, self.seed, self.systems, self.folder = spec, seed, systems, folder
        self.hardware, self.loggers = hardware, loggers
        self.shelf: dict[str, Bundle] = {}
        self.trained: Trained | None = None
        self.told: dict[str, Any] = {}
        self.run = Run(seed, name=f"{spec.name}: ranker", hardware=Hardware("cpu"), loggers=loggers)

    def program(self, data: Dataset | Split) -> Program:
        """Retrievers on the inner part, candidates of what was held back, the ranker; then every system on all."""
        learnt = data.train if isinstance(data, Split) else data
        if isinstance(self.spec.blend, specs.Learned):
            inner = held_back(learnt, self.spec.blend, self.seed)
            early: dict[str, Bundle] = {}
            for one in self.spec.retrieve:
                early[one.system] = yield Fit(self.fitted, one.system, inner.train, "inner")
            lists = yield Fit(collect, self.spec, early, inner, self.seed)
            yield from self._rank(self.spec.blend, lists)
        for key in self.spec.systems_used():
            self.shelf[key] = yield Fit(self.fitted, key, data, "whole")

    def _rank(self, blend: specs.Learned, lists: Lists) -> Program:
        from tastemaker.compose.ranker import ListJudge, Ranker

        judged = np.arange(len(lists)) % JUDGED == 0
        settings = make_config(Ranker.Config, {"hidden": blend.hidden, "epochs": blend.epochs}, of="a ranker")
        schema = feature_schema(self.spec)
        ranker = built(info_of(Ranker), settings, schema, self.seed)  # type: ignore[arg-type]
        self.run.system, self.run.judge = ranker, ListJudge(lists.take(np.flatnonzero(judged)))
        yield from ranker.program(lists.take(np.flatnonzero(~judged)))
        self.trained = Trained(schema, ranker.network())
        self.told = {"lists": len(lists), "candidates": len(lists.labels), "features": schema.names}

    def fitted(self, key: str, data: Dataset | Split, part: str) -> Bundle:
        """The system that a key stands for, fitted; only the first retriever keeps the users' histories."""
        how = self.spec.systems.get(key) or specs.SystemSpec(system=key)
        return fit(
            self.systems.get(how.system, how.system),
            data,
            how.settings,
            seed=self.seed,
            transforms=how.transforms,
            run=None if self.folder is None else self.folder / part / key,
            histories=key == self.spec.retrieve[0].system,
            hardware=self.hardware,
            loggers=self.loggers,
        )


def held_back(data: Dataset, blend: specs.Learned, seed: int = 0) -> Split:
    """The training data without what a ranker learns from: each user's latest choices, or without times a tenth."""
    return holdout(data, f"leave-k:{blend.held}" if data.has_time else None, seed=seed)


def collect(spec: PipelineSpec, shelf: Mapping[str, Any], split: Split, seed: int = 0) -> Lists:
    """What the retrievers of a learned blend say of the events that a split holds back as "valid".

    Raises:
        UsageError: a retriever did not learn from the split's training part, so it may have seen what is held back.
        DataError: hardly any of the held-back events is found by a retriever.
    """
    from tastemaker.compose.ranker import Lists

    blend = spec.blend
    if not isinstance(blend, specs.Learned):
        raise UsageError("only a learned blend is trained", hint='"blend": {"kind": "learned"}')
    for one in spec.retrieve:
        learnt = shelf[one.system].about.get("data", {}).get("fingerprint")
        if learnt != split.train.fingerprint:
            raise UsageError(
                f"{one.system!r} did not learn from the split's training part: it may have seen the held-back events",
                hint="fit it on split.train",
            )
    plain = spec.model_copy(update={"blend": specs.RRF(), "score": None, "rerank": (), "explain": None})
    pipeline = compile(plain, shelf)
    features = features_of(spec, pipeline)
    cases = split.cases("valid")
    picked = np.arange(len(cases))
    if len(cases) > blend.requests:
        picked = np.sort(generator(seed, "lists").choice(len(cases), blend.requests, replace=False))
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]] = []
    for rows in np.array_split(picked, max(1, len(picked) // 512)):
        part = cases.take(rows)
        asked = part.requests.with_(seeds=mix(rows, seed))
        pool = pipeline.pool(asked)
        right = among(pool.items, part.targets, pipeline.catalogue.height)
        keep = _sampled(pool.items, right, blend.negatives, rows, seed)
        row, place = np.nonzero(keep)
        lengths = np.bincount(row, minlength=len(rows))
        parts.append((features.of(pool, asked, row, place), right[row, place].astype(np.float32), lengths[lengths > 0]))
    made = Lists.of(*(np.concatenate([part[n] for part in parts]) for n in range(3)))  # type: ignore[arg-type]
    if len(made) < FEWEST:
        raise DataError(
            f"of {len(picked):,} held-back requests only {len(made)} have a right answer among what retrievers name; "
            f"a ranker learns from at least {FEWEST}",
            hint="let retrievers name more items, or blend by rrf",
        )
    return made


def features_of(spec: PipelineSpec, pipeline: Pipeline) -> Features:
    """What makes the features of a learned blend, over the bundles of this pipeline."""
    schema = feature_schema(spec)
    shelves = Shelves(pipeline.catalogue, pipeline.schema.items, pipeline.histories)
    columns = [shelves.numbers(name) for name in schema.columns]
    table = np.stack(columns, axis=1) if columns else np.zeros((pipeline.catalogue.height, 0), dtype=np.float32)
    return Features(schema, table)


def _sampled(
    items: NDArray[np.int32], right: NDArray[np.bool_], negatives: int, rows: NDArray[np.int64], seed: int
) -> NDArray[np.bool_]:
    """Which candidates [B, S] are learnt from: the right ones and so many others, drawn uniformly.

    Rows that lack either teach nothing, and none of theirs is taken.
    """
    wrong = (items >= 0) & ~right
    numbers = rows[:, None] * items.shape[1] + np.arange(items.shape[1])
    lot = mix(numbers, seed) >> np.uint64(1)  # half of the range, so that what must not be drawn comes last
    lot = np.where(wrong, lot, np.uint64(2**64 - 1))
    order = np.argsort(lot, axis=1, kind="stable")
    drawn = np.zeros_like(wrong)
    np.put_along_axis(drawn, order[:, :negatives], True, axis=1)
    keep = right | (drawn & wrong)
    return keep & right.any(axis=1, keepdims=True) & wrong.any(axis=1, keepdims=True)
