"""What comes out of a system: small protocols. A system has a capability when it has the methods.

B requests, C candidates, I items, T tasks, D width, K cut-off, n samples, S session state.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import polars as pl

from tastemaker.types import Actions, Array, Decoding, Feedback, Reason, Requests, Samples, Slates, State

S = TypeVar("S")
D = TypeVar("D")


@runtime_checkable
class Scores(Protocol):
    """Says how much an item suits a request."""

    def score(self, requests: Requests, items: Array | None = None) -> Array:
        """Utilities of items, higher is better, finite; each as it would be without the other items asked about.

        Shapes: items [B, C] (-1 fills a shorter row, its score is arbitrary), or None: all; returns [B, C], or [B, I].
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

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """Lists [B, k] in the order of the answer, no item twice; -1 at the end where fewer may be shown."""


@runtime_checkable
class Generates(Protocol):
    """Writes answers token by token, and can say how likely an answer is."""

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n answers a request. `Sample` wants the requests' seeds, `Greedy` gives one; else UsageError."""

    def logp(self, requests: Requests, samples: Samples) -> Array:
        """Log-probability of each token, differentiable, in the order of `samples.tokens.values`."""


@runtime_checkable
class Reranks(Protocol):
    """Reorders, or shortens, given lists."""

    def rerank(self, requests: Requests, slates: Slates) -> Slates:
        """Items of the given lists alone, with scores that fit their new order."""


@runtime_checkable
class Acts(Protocol[S]):
    """Holds sessions of several turns, B at once. State, a frozen dataclass of plain values and arrays (perhaps with a
    `VERSION`), goes in and comes out; the system itself remembers nothing."""

    State: type[S]

    def begin(self, requests: Requests) -> list[S]: ...

    def act(self, sessions: list[S]) -> tuple[Actions, list[S]]: ...

    def observe(self, sessions: list[S], feedback: Feedback) -> list[S]:
        """The sessions after what came back, all of it in `feedback`: what was said, answered, chosen; any may lack."""


@runtime_checkable
class Narrates(Acts[S], Protocol[S]):
    """Acts step by step, and can be heard at it; whoever listens may stop between two steps."""

    def narrate(self, sessions: list[S]) -> Generator[tuple[int, Mapping[str, Any]], None, tuple[Actions, list[S]]]:
        """Yields (row, step: "tool", "input", "output", "failed") as each is done; returns what `act` returns."""


@runtime_checkable
class Profiles(Protocol[S]):
    """Keeps in a session what it knows of a person, who may read, correct and erase it."""

    def profile(self, session: S) -> Mapping[str, Sequence[str]]:
        """All its lists by name, the empty ones too."""

    def with_profile(self, session: S, profile: Mapping[str, Sequence[str]]) -> S:
        """The session with these lists; one not named is emptied, and so is what it would be made of again."""


@runtime_checkable
class Updates(Protocol[D]):
    """Learns while it serves: deltas, frozen dataclasses of arrays, merge in any order, and `apply` gives a new
    snapshot beside this one."""

    Delta: type[D]

    def update(self, feedback: Feedback) -> D:
        """What is learnt of feedback; actions are credited as they were served (`slates.trace`)."""

    def merge(self, left: D, right: D) -> D: ...

    def apply(self, delta: D) -> Updates[D]: ...


@runtime_checkable
class Extends(Protocol):
    """Takes in new users and items without training; scores of old items do not move."""

    def extend(self, users: pl.DataFrame | None = None, items: pl.DataFrame | None = None) -> Extends:
        """A new snapshot that also knows these rows, numbered on from the old end."""


@runtime_checkable
class Explains(Protocol):
    """Says why an item is in a list."""

    def explain(self, requests: Requests, slates: Slates) -> list[list[Reason | None]]:
        """One reason a slot [B][K]; None where there is nothing to say."""


@runtime_checkable
class Writes(Protocol):
    """Writes text about items: reviews, titles, descriptions."""

    def write(self, task: str, requests: Requests, items: Array) -> list[str]:
        """A text a request, about its item [B]; UsageError names the tasks where there is no such one."""


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


_LISTS = (Scores, Predicts, Embeds, Retrieves, Generates, Reranks)
_ALL = (*_LISTS, Acts, Narrates, Profiles, Updates, Extends, Explains, Writes)
CAPABILITIES: Mapping[str, type] = {protocol.__name__.lower(): protocol for protocol in _ALL}


def capabilities(system: object) -> tuple[str, ...]:
    """Names of what a system, or a system class, can do."""
    return tuple(name for name, wanted in CAPABILITIES.items() if all(hasattr(system, m) for m in _members(wanted)))


def _members(protocol: type) -> set[str]:
    """What a protocol declares (`__protocol_attrs__` came with Python 3.12)."""
    declared = {name for base in protocol.__mro__ for name in [*vars(base), *vars(base).get("__annotations__", {})]}
    return {name for name in declared if not name.startswith("_")}
