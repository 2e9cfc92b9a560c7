"""From a spec and a shelf of bundles to a pipeline: every name, column, predicate and capability is looked at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.compose import spec as specs
from tastemaker.compose.blend import Blender, ByRanker, make_blender
from tastemaker.compose.columns import Likeness, Shelves
from tastemaker.compose.explain import BecauseOf, ByBundle, Explainer, titles_of
from tastemaker.compose.faults import Fault, Faults, PipelineError
from tastemaker.compose.features import Features, FeatureSchema, Trained
from tastemaker.compose.pipeline import Channel, Pipeline, Scorer
from tastemaker.compose.rerank import AtPlace, Step, make_step
from tastemaker.compose.spec import PipelineSpec
from tastemaker.compose.translate import Translation
from tastemaker.contracts import Embeds, Explains, capabilities
from tastemaker.data import allowed_by
from tastemaker.types import CapabilityError, DataError, UsageError, Vocabulary, nearest


def compile(  # noqa: A001 - the word for it
    spec: PipelineSpec | Mapping[str, Any] | str,
    shelf: Mapping[str, Any],
    *,
    ranker: Trained | None = None,
    catalogue: pl.DataFrame | None = None,
    about: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Put a pipeline together, ready to answer.

    Args:
        spec: a spec, or its JSON.
        shelf: bundles by the keys the spec names them with. They may know different users and items.
        ranker: the trained ranker of a learned blend, as a `PipelineBundle` keeps it.
        catalogue: columns that are newer than those the first retriever's bundle stores, such as stock and prices: a
            column "item" with ids, and others. What it does not list stays as it was.
        about: what is known of how it was made, for `Pipeline.about`.

    Raises:
        PipelineError: it does not fit together; `faults` lists every place and what is wrong there.
    """
    whole = spec if isinstance(spec, PipelineSpec) else PipelineSpec.from_json(spec)
    assembly = Assembly(whole, shelf, ranker, catalogue, dict(about or {}))
    made = assembly.pipeline()
    if made is None or assembly.faults.found:
        raise PipelineError(assembly.faults.found, whole.name)
    return made


def check(
    spec: PipelineSpec | Mapping[str, Any] | str,
    shelf: Mapping[str, Any],
    *,
    ranker: Trained | None = None,
    catalogue: pl.DataFrame | None = None,
) -> tuple[Fault, ...]:
    """Everything that is wrong with a pipeline; none where `compile` would put it together."""
    try:
        compile(spec, shelf, ranker=ranker, catalogue=catalogue)
    except PipelineError as error:
        return error.faults
    return ()


class Assembly:
    """One attempt to put a pipeline together; faults are gathered on the way."""

    def __init__(
        self,
        spec: PipelineSpec,
        shelf: Mapping[str, Any],
        ranker: Trained | None,
        fresh: pl.DataFrame | None,
        told: Mapping[str, Any],
    ) -> None:
        self.spec, self.ranker, self.fresh, self.told = spec, ranker, fresh, told
        self.faults = Faults()
        self.shelf: dict[str, Any] = {}
        for key, where in spec.systems_used().items():
            if key in shelf:
                self.shelf[key] = shelf[key]
            else:
                self.faults.add(where, f"there is no system {key!r}", nearest(key, shelf))

    def pipeline(self) -> Pipeline | None:
        """The pipeline as far as it could be put together; None where not even its first retriever is there."""
        spec = self.spec
        if spec.retrieve[0].system not in self.shelf:
            return None
        lead = self.shelf[spec.retrieve[0].system]
        catalogue = lead.catalogue
        if self.fresh is not None:
            with self.faults.at(""):
                catalogue = renewed(catalogue, self.fresh, lead.items)
        self.users, self.items, self.catalogue = lead.users, lead.items, catalogue
        self.to = {
            key: Translation.between(self.users, self.items, bundle.users, bundle.items)
            for key, bundle in self.shelf.items()
        }
        stored = [bundle.histories for key, bundle in self.shelf.items() if self.to[key].same]
        self.histories = next((rows for rows in stored if rows is not None), None)
        self.shelves = Shelves(catalogue, lead.schema.items, self.histories)
        channels = self._channels()
        blender = self._blender()
        steps = self._steps()
        made: dict[str, Any] = {
            "scorer": self._scorer(),
            "explainer": self._explainer(),
            "allowed": self._allowed(),
            "pins": self._pins(steps),
        }
        if self.faults.found or blender is None:
            return None
        hides = any(isinstance(one, specs.Seen) for one in spec.filter)
        ranker = self.ranker if isinstance(spec.blend, specs.Learned) else None
        made |= {"hides_seen": hides, "ranker": ranker, "histories": self.histories, "told": self.told}
        return Pipeline(spec, self.shelf, catalogue, channels, blender, tuple(steps), **made)

    # -- stages, in their order

    def _channels(self) -> tuple[Channel, ...]:
        made = []
        for n, one in enumerate(self.spec.retrieve):
            if one.system not in self.shelf:
                continue
            bundle, to = self.shelf[one.system], self.to[one.system]
            allowed: NDArray[np.bool_] | None = None if to.back is None else to.back >= 0
            with self.faults.at(f"retrieve.{n}.where"):
                if one.where is not None:
                    allowed = _of_system(allowed_by(one.where, self.catalogue), to)
            with self.faults.at(f"retrieve.{n}.system"):
                _ = bundle.retriever  # raises where the system cannot give lists
                made.append(Channel(one.system, bundle, to, one.k, allowed))
        return tuple(made)

    def _blender(self) -> Blender | None:
        blend = self.spec.blend
        weights = [one.weight for one in self.spec.retrieve]
        if not isinstance(blend, specs.Learned):
            return make_blender(blend, weights)
        schema = feature_schema(self.spec)
        columns = [self._feature(name, n) for n, name in enumerate(blend.columns)]
        if self.ranker is None:
            self.faults.add("blend", "its ranker is not trained", "tastemaker pipeline fit")
            return None
        if self.ranker.schema != schema:
            self.faults.add(
                "blend",
                f"its ranker was trained on {_said(self.ranker.schema)}, not on {_said(schema)}",
                "fit the pipeline again",
            )
            return None
        table = np.stack(columns, axis=1) if columns else np.zeros((self.catalogue.height, 0), dtype=np.float32)
        return ByRanker(Features(schema, table), self.ranker.network)

    def _feature(self, name: str, n: int) -> NDArray[np.float32]:
        with self.faults.at(f"blend.columns.{n}"):
            return self.shelves.numbers(name)
        return np.zeros(self.catalogue.height, dtype=np.float32)

    def _allowed(self) -> NDArray[np.bool_] | None:
        """What the filters leave of the catalogue; None: all."""
        rules = []
        for n, one in enumerate(self.spec.filter):
            with self.faults.at(f"filter.{n}"):
                if isinstance(one, specs.Where):
                    rules.append(allowed_by(one.where, self.catalogue))
                elif isinstance(one, specs.Stock):
                    rules.append(self.shelves.in_stock(one.column))
        return np.logical_and.reduce(rules) if rules else None

    def _scorer(self) -> Scorer | None:
        score = self.spec.score
        if score is None or score.system not in self.shelf:
            return None
        with self.faults.at("score.system"):
            bundle = self.shelf[score.system]
            _ = bundle.retriever
            return Scorer(Channel(score.system, bundle, self.to[score.system], self.spec.pool), score.weight)
        return None

    def _steps(self) -> list[Step]:
        made = []
        for n, step in enumerate(self.spec.rerank):
            if isinstance(step, specs.MMR) and step.vectors is not None and step.vectors not in self.shelf:
                continue
            with self.faults.at(f"rerank.{n}"):
                made.append(make_step(step, self.shelves, self.items, self._likeness))
        return made

    def _pins(self, steps: list[Step]) -> NDArray[np.int32]:
        always = [isinstance(step, specs.Pin) and step.always for step in self.spec.rerank]
        pinned = [s.pinned for s, yes in zip(steps, always, strict=False) if yes and isinstance(s, AtPlace)]
        return np.unique(np.concatenate(pinned)).astype(np.int32) if pinned else np.empty(0, dtype=np.int32)

    def _explainer(self) -> Explainer | None:
        explain = self.spec.explain
        with self.faults.at("explain"):
            if isinstance(explain, specs.BySystem) and explain.system in self.shelf:
                system = self.shelf[explain.system].system
                if not isinstance(system, Explains):
                    can = ", ".join(capabilities(system)) or "nothing that is known"
                    raise CapabilityError(f"{explain.system!r} cannot explain: it can do {can}")
                return ByBundle(system, self.to[explain.system], explain.system)
            if isinstance(explain, specs.Because) and (explain.vectors is None or explain.vectors in self.shelf):
                if "{shared}" in explain.text and explain.column is None:
                    raise UsageError("only categories are shared: {shared} needs a column, not vectors")
                titles = titles_of(self.catalogue)
                return BecauseOf(self._likeness(explain), titles, explain.least, explain.last, explain.text)
        return None

    def _likeness(self, step: specs.MMR | specs.Because) -> Likeness:
        """By what the items of a step are alike."""
        if step.column is not None:
            return Likeness.by_sets(self.shelves.sets(step.column))
        assert step.vectors is not None
        bundle = self.shelf[step.vectors]
        if not isinstance(bundle.system, Embeds):
            can = ", ".join(capabilities(bundle.system)) or "nothing that is known"
            raise CapabilityError(f"{step.vectors!r} has no vectors of items: it can do {can}")
        likeness = Likeness.by_vectors(bundle.system.items())
        rows = self.to[step.vectors].rows(likeness.vectors, self.catalogue.height)
        return Likeness.by_vectors(rows) if rows is not likeness.vectors else likeness


def feature_schema(spec: PipelineSpec) -> FeatureSchema:
    """What the ranker of a learned blend sees."""
    columns = spec.blend.columns if isinstance(spec.blend, specs.Learned) else ()
    return FeatureSchema(tuple((one.system, one.k) for one in spec.retrieve), columns)


def renewed(catalogue: pl.DataFrame, fresh: pl.DataFrame, ids: Vocabulary) -> pl.DataFrame:
    """The catalogue with newer values of columns, and with columns it did not have; its rows and their order stay."""
    if "item" not in fresh.columns:
        raise UsageError(f"newer columns of a catalogue come with the column 'item', got {fresh.columns}")
    rows = ids.numbers(fresh["item"])
    known = rows >= 0
    if len(np.unique(rows[known])) < known.sum():
        raise DataError("newer columns of a catalogue name an item twice")
    place = np.full(catalogue.height, -1, dtype=np.int64)
    place[rows[known]] = np.flatnonzero(known)
    listed = pl.Series(place >= 0)
    changed = []
    for name in (column for column in fresh.columns if column != "item"):
        newer = fresh[name].gather(pl.Series(np.maximum(place, 0))) if fresh.height else fresh[name].clear(len(place))
        older = (
            catalogue[name] if name in catalogue.columns else pl.Series(name, [None] * len(place), dtype=newer.dtype)
        )
        try:
            changed.append(newer.cast(older.dtype).zip_with(listed, older).alias(name))
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"the newer column {name!r} holds {newer.dtype}, the catalogue {older.dtype}") from error
    return catalogue.with_columns(changed)


def _of_system(flags: NDArray[np.bool_], to: Translation) -> NDArray[np.bool_]:
    """Flags of the pipeline's items as flags of a system's; what the pipeline does not know is not allowed."""
    if to.back is None:
        return flags
    return flags[np.maximum(to.back, 0)] & (to.back >= 0)


def _said(schema: FeatureSchema) -> str:
    lists = ", ".join(f"{key} ({k})" for key, k in schema.lists)
    return lists + (f" and {', '.join(schema.columns)}" if schema.columns else "")
