"""What a pipeline is, as data: JSON in, JSON out, checked against limits, every field with a sentence.

    retrieve (several systems) -> blend -> filter -> score -> rerank (any number of steps) -> explain

A spec names systems by keys and knows nothing of them; `tastemaker.compose.compile` looks the keys up on a shelf of
bundles and checks columns, predicates and capabilities there. Everything that has variants is a union told apart by
`kind`, so an editor can draw its forms from the JSON schema alone, and unknown fields are refused: a spec may come
from a stranger, and a misspelt rule that is silently ignored is worse than an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from tastemaker.compose.faults import Fault, PipelineError
from tastemaker.types import nearest

MOST_RETRIEVERS, MOST_FILTERS, MOST_RERANKERS, MOST_ITEMS = 8, 16, 16, 2000
LARGEST_SPEC = 256 * 2**10  # bytes of JSON

KEY = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
Key = Annotated[str, StringConstraints(pattern=KEY)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Predicate = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
ItemId = Annotated[str, StringConstraints(max_length=500)] | StrictInt
Places = Annotated[int, Field(ge=1, le=MOST_ITEMS)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Model(BaseModel):
    """Frozen; unknown fields and values that are no numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# -- retrieving and blending


class Retrieve(_Model):
    """One source of candidates."""

    system: Key = Field(description="Key of the system that nominates items.")
    k: Places = Field(default=200, description="How many items it nominates.")
    weight: float = Field(default=1.0, ge=0.0, le=1000.0, description="How much it counts when lists are blended.")
    where: Predicate | None = Field(
        default=None,
        description="It nominates only items for which this holds: an SQL expression over the catalogue's columns.",
    )


class RRF(_Model):
    """Reciprocal rank fusion: the sum over retrievers of weight / (constant + rank).

    Ref: Cormack, Clarke, Buettcher, SIGIR 2009.
    """

    kind: Literal["rrf"] = Field(default="rrf", description="Reciprocal rank fusion.")
    constant: float = Field(
        default=60.0, ge=0.0, le=10_000.0, description="The larger, the less the first places stand out."
    )


class ScaledScores(_Model):
    """The weighted sum of scores, put on one scale list by list; what a retriever did not find is its worst.

    Ref: Fox, Shaw, TREC-2 1994 (CombSUM); Montague, Aslam, CIKM 2001 (scales).
    """

    kind: Literal["scores"] = Field(default="scores", description="Weighted sum of scaled scores.")
    scale: Literal["rank", "z", "minmax"] = Field(
        default="minmax",
        description="rank: by place alone; z: deviations from the list's mean; minmax: worst 0, best 1.",
    )


class Interleave(_Model):
    """Retrievers take turns, each adding its best item that is not there yet; weights say how often."""

    kind: Literal["interleave"] = Field(default="interleave", description="Retrievers take turns.")


class Learned(_Model):
    """A ranker trained on held-back events, from each retriever's scores and ranks and from item columns."""

    kind: Literal["learned"] = Field(
        default="learned", description="A trained ranker; made by `tastemaker pipeline fit`."
    )
    columns: tuple[ColumnName, ...] = Field(
        default=(),
        max_length=64,
        description="Number and flag columns of items that the ranker sees; 'popularity' is counted.",
    )
    hidden: int = Field(default=32, ge=0, le=512, description="Width of the hidden layer; 0: a linear ranker.")
    epochs: int = Field(
        default=100, ge=1, le=10_000, description="Most epochs; it stops before when it improves no more."
    )
    negatives: int = Field(default=100, ge=1, le=MOST_ITEMS, description="Items that a right answer is held against.")
    held: int = Field(
        default=1, ge=1, le=100, description="Latest choices of each user that are held back to learn from."
    )
    requests: int = Field(default=10_000, ge=10, le=1_000_000, description="Most held-back requests it learns from.")


Blend = Annotated[RRF | ScaledScores | Interleave | Learned, Field(discriminator="kind")]


# -- filtering and scoring


class Where(_Model):
    """Only items for which a predicate holds."""

    kind: Literal["where"] = Field(default="where", description="A rule over item columns.")
    where: Predicate = Field(description="An SQL expression over the catalogue's columns, as: year > 1990.")


class Seen(_Model):
    """No item of the request's history."""

    kind: Literal["seen"] = Field(default="seen", description="Leaves out what the user has chosen before.")


class Stock(_Model):
    """Only items whose column is true, or a number above 0."""

    kind: Literal["stock"] = Field(default="stock", description="Leaves out what is not in stock.")
    column: ColumnName = Field(description="A column of flags, or of amounts of which more than 0 must be left.")


Filter = Annotated[Where | Seen | Stock, Field(discriminator="kind")]


class Score(_Model):
    """A system scores the candidates anew."""

    system: Key = Field(description="Key of the system that scores.")
    weight: Share = Field(
        default=1.0, description="Its share beside the blended score, both scaled from 0 to 1 list by list."
    )


# -- reranking


class _Reranks(_Model):
    first: Places = Field(
        default=100, description="Places that are decided by this step; the rest keeps its order below."
    )


class _Likeness(_Model):
    column: ColumnName | None = Field(
        default=None, description="Items are alike by the categories they share in this column (Jaccard)."
    )
    vectors: Key | None = Field(
        default=None, description="Items are alike by the cosine of this system's item vectors."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> _Likeness:
        if (self.column is None) == (self.vectors is None):
            raise ValueError("say by what items are alike: a column, or the vectors of a system, and not both")
        return self


class MMR(_Likeness, _Reranks):
    """Maximal marginal relevance: each place goes to what is relevant and unlike the items above it.

    Ref: Carbonell, Goldstein, SIGIR 1998.
    """

    kind: Literal["mmr"] = Field(default="mmr", description="Variety: unlike items above one another.")
    weight: Share = Field(default=0.3, description="Weight of variety; 0: relevance alone, 1: variety alone.")


class Calibrated(_Reranks):
    """The list's mix of categories comes close to that of the user's history.

    Ref: Steck, RecSys 2018.
    """

    kind: Literal["calibrated"] = Field(
        default="calibrated", description="The mix of categories that the user's history has."
    )
    column: ColumnName = Field(description="Column of categories.")
    weight: Share = Field(default=0.5, description="Weight of the mix; 0: relevance alone, 1: the mix alone.")
    smoothing: float = Field(
        default=0.01, gt=0.0, le=0.5, description="Share of the user's own mix that is added to the list's."
    )
    last: int = Field(default=500, ge=1, le=100_000, description="Events of the history that count, the latest.")


class Fair(_Reranks):
    """Groups of items get at least their share of every prefix of the list, rounded down."""

    kind: Literal["fair"] = Field(default="fair", description="Least shares of exposure for groups of items.")
    column: ColumnName = Field(
        description="Column whose values are the groups; 'popularity': 'head' and 'tail', by the stored histories."
    )
    shares: dict[str, Share] = Field(
        min_length=1,
        max_length=64,
        description="Least share of each group, by the value of the column; at most 1 in all.",
    )

    @field_validator("shares")
    @classmethod
    def _at_most_all(cls, shares: dict[str, float]) -> dict[str, float]:
        if sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"shares sum to {sum(shares.values()):.3g}, a list has no more than 1 to give")
        return shares


class Boost(_Model):
    """Items for which a predicate holds count for more, or for less."""

    kind: Literal["boost"] = Field(default="boost", description="Lifts or lowers some items.")
    where: Predicate = Field(description="Which items: an SQL expression over the catalogue's columns.")
    factor: float = Field(
        default=1.5,
        ge=0.0,
        le=100.0,
        description="What their relevance, scaled from 0 to 1, is multiplied by; below 1 lowers.",
    )


class Pin(_Model):
    """Named items stand at a fixed place."""

    kind: Literal["pin"] = Field(default="pin", description="Puts named items at a fixed place.")
    items: tuple[ItemId, ...] = Field(min_length=1, max_length=20, description="Ids of items, in their order.")
    place: Places = Field(default=1, description="Place of the first of them, from 1.")
    always: bool = Field(
        default=False,
        description="Also where no retriever found them; filters, exclusions and candidates hold all the same.",
    )

    @field_validator("items")
    @classmethod
    def _distinct(cls, items: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(set(map(str, items))) < len(items):
            raise ValueError("an item is named twice")
        return items


class Cap(_Model):
    """No value of a column fills more than so many of the first places."""

    kind: Literal["cap"] = Field(default="cap", description="At most so many items of one kind.")
    column: ColumnName = Field(description="Column whose values are counted; of a list of values each one counts.")
    most: Places = Field(default=2, description="Most items of one value.")
    first: Places = Field(default=10, description="Among so many first places.")
    surplus: Literal["below", "drop"] = Field(
        default="below",
        description="What becomes of the items over it: moved below those places, or dropped. Where nothing else is "
        "left to fill the places, 'below' lets them back in and 'drop' shortens the list.",
    )


Rerank = Annotated[MMR | Calibrated | Fair | Boost | Pin | Cap, Field(discriminator="kind")]


# -- explaining, and where systems come from


class Because(_Likeness):
    """Names the item of the user's history that is most like the one shown; silent where none is like it."""

    kind: Literal["because"] = Field(default="because", description="Names an item of the history that is like it.")
    least: Share = Field(default=0.2, description="Likeness below which nothing is said.")
    last: int = Field(default=100, ge=1, le=10_000, description="Events of the history that are looked at, the latest.")
    text: str = Field(
        default="Because you chose {item}",
        min_length=1,
        max_length=300,
        description="The sentence; {item} is the title of the history's item, {shared} the categories shared with it.",
    )


class BySystem(_Model):
    """A system that explains says why."""

    kind: Literal["system"] = Field(default="system", description="A system's own explanations.")
    system: Key = Field(description="Key of the system, which must be able to explain.")


Explain = Annotated[Because | BySystem, Field(discriminator="kind")]


class SystemSpec(_Model):
    """How to fit a system; without an entry, a key is the name of a system that is fitted as it comes."""

    system: str = Field(min_length=1, max_length=200, description="Name of the system, from `tastemaker systems`.")
    settings: dict[str, JsonValue] = Field(default={}, max_length=64, description="Its settings, by name.")
    transforms: dict[str, dict[str, JsonValue]] = Field(
        default={}, max_length=8, description="Transforms of its training, by name, with their settings."
    )


class PipelineSpec(_Model):
    """A pipeline as data; see the module's docstring."""

    name: Key = Field(description="Name of the pipeline: small letters, digits, '-', '_', '.'.")
    title: str = Field(default="", max_length=200, description="What it is for, in a few words.")
    retrieve: tuple[Retrieve, ...] = Field(
        min_length=1,
        max_length=MOST_RETRIEVERS,
        description="Where candidates come from; the first's catalogue is used.",
    )
    blend: Blend = Field(default=RRF(), description="How the retrievers' lists become one.")
    pool: Places = Field(default=500, description="How many of the blended items go on to be scored and reranked.")
    filter: tuple[Filter, ...] = Field(
        default=(),
        max_length=MOST_FILTERS,
        description="What may be shown at all; applied while retrieving, so no list runs dry.",
    )
    score: Score | None = Field(default=None, description="A system that scores the candidates anew, or none.")
    rerank: tuple[Rerank, ...] = Field(
        default=(), max_length=MOST_RERANKERS, description="Steps that reorder the list, one after the other."
    )
    explain: Explain | None = Field(default=None, description="Where the reasons come from, or none.")
    systems: dict[Key, SystemSpec] = Field(
        default={}, max_length=32, description="How to fit the systems, by key; only `fit` reads it."
    )

    @model_validator(mode="after")
    def _whole(self) -> PipelineSpec:
        keys = [one.system for one in self.retrieve]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]!r} retrieves twice")
        if all(one.weight == 0 for one in self.retrieve):
            raise ValueError("at least one retriever needs a weight above 0")
        return self

    def systems_used(self) -> dict[str, str]:
        """Keys of the systems that the stages lean on, each with where it is first named; the first one leads."""
        named = [(one.system, f"retrieve.{n}.system") for n, one in enumerate(self.retrieve)]
        if self.score is not None:
            named.append((self.score.system, "score.system"))
        named += [
            (step.vectors, f"rerank.{n}.vectors")
            for n, step in enumerate(self.rerank)
            if isinstance(step, MMR) and step.vectors is not None
        ]
        if isinstance(self.explain, BySystem):
            named.append((self.explain.system, "explain.system"))
        if isinstance(self.explain, Because) and self.explain.vectors is not None:
            named.append((self.explain.vectors, "explain.vectors"))
        found: dict[str, str] = {}
        for key, where in named:
            found.setdefault(key, where)
        return found

    @property
    def fingerprint(self) -> str:
        """A hash of the contents: the same spec gives the same text everywhere."""
        whole = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    def to_json(self) -> str:
        """The spec as JSON text; `from_json` is the inverse."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> PipelineSpec:
        """A spec from JSON text or from what a JSON parser gave.

        Raises:
            PipelineError: it is no spec; `faults` names every place and what is wrong there.
        """
        try:
            if isinstance(text, Mapping):
                return cls.model_validate(dict(text))
            if len(text) > LARGEST_SPEC:
                raise PipelineError([Fault("", f"a pipeline is at most {LARGEST_SPEC // 1024} KB of JSON")])
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PipelineError(list(_faults(error))) from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema (draft 2020-12) of a spec."""
        return cls.model_json_schema()


_KINDS: dict[str, type[BaseModel]] = {
    model.model_fields["kind"].default: model
    for model in (
        *(RRF, ScaledScores, Interleave, Learned),
        *(Where, Seen, Stock),
        *(MMR, Calibrated, Fair, Boost, Pin, Cap),
        *(Because, BySystem),
    )
}
_PARTS: dict[str, type[BaseModel]] = {"retrieve": Retrieve, "score": Score, "systems": SystemSpec}


def _faults(error: ValidationError) -> Iterator[Fault]:
    """What pydantic found, each fault with its place as the JSON has it and, for a misspelt field, the nearest."""
    for found in error.errors(include_url=False, include_input=False):
        place = list(found["loc"])
        kinds = [part for at, part in enumerate(place) if _is_tag(place, at)]
        plain = [str(part) for at, part in enumerate(place) if not _is_tag(place, at)]
        hint = None
        if found["type"] == "extra_forbidden":
            owner = _KINDS[str(kinds[-1])] if kinds else _PARTS.get(str(place[0]), PipelineSpec)
            hint = nearest(str(place[-1]), owner.model_fields)
            message = "there is no such field"
        elif found["type"] == "union_tag_not_found":
            message = "its 'kind' is missing"
        else:
            message = found["msg"].removeprefix("Value error, ")
        yield Fault(".".join(plain), message, hint)


def _is_tag(place: list[int | str], at: int) -> bool:
    """Whether this part of a place is no field but the kind of a variant, which pydantic puts in between."""
    if at == 0 or place[at] not in _KINDS:
        return False
    return place[at - 1] in ("blend", "explain") or (place[0] in ("filter", "rerank") and at == 2)
