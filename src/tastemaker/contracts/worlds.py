"""What a system may lean on (resources) and what it may act in (environments)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import Actions, Feedback, Requests

S = TypeVar("S")


class TextEncoder(Protocol):
    """Texts to vectors [n, D] of length 1; a text without a word is 0."""

    @property
    def identity(self) -> str: ...  # name and version: part of the key of everything computed with it

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class ImageEncoder(Protocol):
    """Image files to vectors [n, D] of length 1; "" is 0."""

    @property
    def identity(self) -> str: ...

    def encode(self, paths: Sequence[str]) -> NDArray[np.float32]: ...


class ChatModel(Protocol):
    """A language model, or the embedded planner that stands in for one."""

    @property
    def identity(self) -> str: ...

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        """Answer a typed task: pydantic in, pydantic out. Raises TastemakerError where no such answer comes."""


@dataclass(frozen=True)
class Resources:
    """What is bound to a system that declares `uses`. Other systems come by name, in the numbers of the catalogue."""

    chat: ChatModel | None = None
    text_encoder: TextEncoder | None = None
    image_encoder: ImageEncoder | None = None
    catalogue: pl.DataFrame | None = None
    systems: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Binds(Protocol):
    """Leans on resources."""

    def bind(self, resources: Resources) -> None:
        """Take them in the place of those before; before the program runs, and whenever others are to be had.
        Raises CapabilityError, naming what to pass, where one is missing that the system cannot do without."""


class Environment(Protocol[S]):
    """A world of users. A `Requests` holds only those who ask now; state goes in and comes out."""

    @property
    def identity(self) -> str: ...  # which world it is: what reports call it, and tell it from others by

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, S]:
        """A session a seed; the same seeds meet the same people and the same luck."""

    def step(self, state: S, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], S]:
        """What came back to the B who asked, what those ask who go on, who is done [B], and the state after. What a
        person says is `Feedback.text`, and for systems that answer with lists `Requests.text` too."""
