"""One turn of a session, columnar over B sessions: what the system does, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tastemaker.types.errors import UsageError
from tastemaker.types.jagged import Columns, Jagged
from tastemaker.types.requests import Requests
from tastemaker.types.slates import Slates


def _check_rows(n: int, **parts: Any) -> None:
    for name, value in parts.items():
        rows = value.n_rows if isinstance(value, Columns) else None if value is None else len(value)
        if rows is not None and rows != n:
            raise UsageError(f"{n} sessions need {n} rows of {name}, got {rows}")


@dataclass(frozen=True, eq=False)
class Actions:
    """What a policy does in B sessions; one turn can say, ask and recommend.

    Shapes:
        n: B
        slates: Slates of B rows (an empty list: nothing recommended)
        ask: Columns of B rows ("attribute", "values"); attribute "" where nothing is asked
        text: [B] strings or None a row
        content: [B] what was created for it, or what is told of its turn ("trace", "profile"), or None a row
        logp: [B] float32, log-probability of the whole action
    """

    n: int
    slates: Slates | None = None
    ask: Columns | None = None
    text: NDArray[np.object_] | None = None
    content: NDArray[np.object_] | None = None
    logp: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _check_rows(self.n, slates=self.slates, ask=self.ask, text=self.text, content=self.content, logp=self.logp)

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True, eq=False)
class Feedback:
    """What came back.

    Shapes:
        requests: the B requests that were answered
        events: Jagged of B rows of Columns ("item", "position", "kind", "value", "time")
        answers: Columns of B rows ("attribute", "value", "reply": 1 yes, 0 no, -1 unknown)
        text: [B] strings or None a row
        reward: [B] float32, NaN where it is not known
        done: [B] bool
        slates: the lists as served, their trace included
    """

    requests: Requests
    events: Jagged[Columns] | None = None
    answers: Columns | None = None
    text: NDArray[np.object_] | None = None
    reward: NDArray[np.float32] | None = None
    done: NDArray[np.bool_] | None = None
    slates: Slates | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in ("events", "answers", "text", "reward", "done", "slates")}
        _check_rows(self.requests.n, **parts)

    def __len__(self) -> int:
        return self.requests.n


@dataclass(frozen=True, eq=False)
class Samples:
    """n generated answers for each of B requests.

    Shapes:
        n: answers a request
        tokens: Jagged of B * n rows, or None
        logp: Jagged of B * n rows, one value a token
        text: [B * n] strings or None
        slates: Slates of B * n rows
        book: version of the codebook that the tokens are of; None: of none
    """

    n: int
    tokens: Jagged[NDArray[np.int64]] | None = None
    logp: Jagged[NDArray[np.float32]] | None = None
    text: NDArray[np.object_] | None = None
    slates: Slates | None = None
    book: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"samples hold at least one answer a request, got {self.n}")
        sizes = {
            name: len(v) for name in ("tokens", "logp", "text", "slates") if (v := getattr(self, name)) is not None
        }
        if len(set(sizes.values())) > 1 or any(size % self.n for size in sizes.values()):
            raise UsageError(f"samples have B * {self.n} rows in every part, got {sizes}")
        both = self.tokens is not None and self.logp is not None
        if both and not np.array_equal(self.tokens.offsets, self.logp.offsets):  # type: ignore[union-attr]
            raise UsageError("every token has one log-probability: tokens and logp must share their offsets")


@dataclass(frozen=True)
class Beam:
    """The n likeliest answers, as found by a search that keeps `width` beginnings, or n where that is more."""

    width: int = 0


@dataclass(frozen=True)
class Sample:
    """n answers drawn one apart from the other, from the streams of the requests' seeds; at temperature 1 as likely
    as the system holds them to be, below it nearer to the likeliest."""

    temperature: float = 1.0


@dataclass(frozen=True)
class Greedy:
    """One answer, its likeliest token at each step."""


Decoding: TypeAlias = Beam | Sample | Greedy


@dataclass(frozen=True)
class Reason:
    """Why an item was shown: a sentence for the user, and the evidence it rests on (item numbers, names)."""

    text: str
    because_of: tuple[int, ...] = ()
    source: str = "system"
