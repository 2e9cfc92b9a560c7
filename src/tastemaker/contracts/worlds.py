"""What a system may lean on (resources) and what it may act in (environments)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import Actions, Feedback, Requests

S = TypeVar("S")


class TextEncoder(Protocol):
    """Texts to vectors."""

    @property
    def identity(self) -> str: ...  # name and version: part of the key of everything computed with it

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class ImageEncoder(Protocol):
    """Image files to vectors."""

    @property
    def identity(self) -> str: ...

    def encode(self, paths: Sequence[str]) -> NDArray[np.float32]: ...


class ChatModel(Protocol):
    """A language model, or the embedded planner that stands in for one."""

    @property
    def identity(self) -> str: ...

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        """Answer a typed task: pydantic in, pydantic out."""
        ...


@dataclass(frozen=True)
class Resources:
    """What the engine and the bundle loader bind to a system that declares `uses`."""

    chat: ChatModel | None = None
    text_encoder: TextEncoder | None = None
    image_encoder: ImageEncoder | None = None
    catalogue: pl.DataFrame | None = None
    systems: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol[S]):
    """A world of users. A `Requests` holds only those who ask now; state goes in and comes out."""

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, S]: ...

    def step(self, state: S, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], S]: ...
