"""What comes out of a system: small protocols. A system has a capability when it has the methods.

B requests, C candidates, I items, T tasks, D width, K cut-off, n samples, S session state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from tastemaker.types import Actions, Array, Decoding, Feedback, Reason, Requests, Samples, Slates, State

S = TypeVar("S")
D = TypeVar("D")


@runtime_checkable
class Scores(Protocol):
    """Says how much an item suits a request."""

    def score(self, requests: Requests, items: Array | None = None) -> Array:
        """Utilities of items for requests, higher is better, finite.

        Shapes: items [B, C] item numbers (-1 fills a shorter row, its score is arbitrary), or None for the
        whole catalogue; returns [B, C], or [B, I].
        """


@runtime_checkable
class Predicts(Scores, Protocol):
    """Predicts several declared tasks (click, like, minutes); `score` combines them into one utility."""

    @property
    def tasks(self) -> Sequence[str]: ...

    def predict(self, requests: Requests, items: Array | None = None) -> Array:
        """Predictions [B, C, T] (or [B, I, T]), in the units of each task."""


@runtime_checkable
class Embeds(Protocol):
    """Puts requests and items in one space; utility is always the inner product."""

    def queries(self, requests: Requests) -> Array:
        """Vectors of requests [B, D]; biases and distances are folded into further dimensions."""

    def items(self, numbers: Array | None = None) -> Array:
        """Vectors of the items [n, D], of all items where no numbers are given."""


@runtime_checkable
class Retrieves(Protocol):
    """Answers with lists directly; candidates, exclude and filter are the system's own to respect."""

    def retrieve(self, requests: Requests, k: int) -> Slates: ...


@runtime_checkable
class Generates(Protocol):
    """Writes answers token by token, and can say how likely an answer is."""

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples: ...

    def logp(self, requests: Requests, samples: Samples) -> Array:
        """Log-probability of each token, differentiable, in the order of `samples.tokens.values`."""


@runtime_checkable
class Reranks(Protocol):
    """Reorders, or shortens, given lists."""

    def rerank(self, requests: Requests, slates: Slates) -> Slates: ...


@runtime_checkable
class Acts(Protocol[S]):
    """Holds sessions of several turns. State, a frozen dataclass of plain values and arrays (perhaps with a `VERSION`),
    goes in and comes out; the system itself remembers nothing."""

    State: type[S]

    def begin(self, requests: Requests) -> list[S]: ...

    def act(self, sessions: list[S]) -> tuple[Actions, list[S]]: ...

    def observe(self, sessions: list[S], feedback: Feedback) -> list[S]: ...


@runtime_checkable
class Updates(Protocol[D]):
    """Learns while it serves; deltas merge in any order, and `apply` gives a new snapshot beside this one."""

    def update(self, feedback: Feedback) -> D: ...

    def merge(self, left: D, right: D) -> D: ...

    def apply(self, delta: D) -> Updates[D]: ...


@runtime_checkable
class Extends(Protocol):
    """Takes in new users and items without training; scores of old items do not move."""

    def extend(self, users: Any = None, items: Any = None) -> Extends:
        """A new snapshot that also knows these rows (Polars tables), numbered on from the old end."""


@runtime_checkable
class Explains(Protocol):
    """Says why an item is in a list."""

    def explain(self, requests: Requests, slates: Slates) -> list[list[Reason | None]]:
        """One reason a slot [B][K]; None where there is nothing to say."""


@runtime_checkable
class Writes(Protocol):
    """Writes text about items: reviews, titles, descriptions."""

    def write(self, task: str, requests: Requests, items: Array) -> list[str]: ...


@runtime_checkable
class Keeps(Protocol):
    """What a bundle stores of a fitted system, and how the system comes back from it on a CPU."""

    def export(self) -> State: ...

    def restore(self, state: State) -> None:
        """Take the arrays `export` gave. Raise BundleError where they do not fit config and schema."""


@runtime_checkable
class Tells(Protocol):
    """Has figures of its own to record in the bundle's manifest, as what an approximation lost."""

    def facts(self) -> Mapping[str, float | str]: ...


_ALL = (Scores, Predicts, Embeds, Retrieves, Generates, Reranks, Acts, Updates, Extends, Explains, Writes)
CAPABILITIES: Mapping[str, type] = {protocol.__name__.lower(): protocol for protocol in _ALL}


def capabilities(system: object) -> tuple[str, ...]:
    """Names of what a system, or a system class, can do."""
    return tuple(name for name, wanted in CAPABILITIES.items() if all(hasattr(system, m) for m in _members(wanted)))


def _members(protocol: type) -> set[str]:
    """What a protocol declares (`__protocol_attrs__` came with Python 3.12)."""
    declared = {name for base in protocol.__mro__ for name in [*vars(base), *vars(base).get("__annotations__", {})]}
    return {name for name in declared if not name.startswith("_")}
