"""Tastemaker: a recommender workbench and server.

Everything here is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "tastemaker.train",
    "Dataset": "tastemaker.types",
    "Jagged": "tastemaker.types",
    "Requests": "tastemaker.types",
    "Slates": "tastemaker.types",
    "Split": "tastemaker.types",
    "TastemakerError": "tastemaker.types",
    "choose": "tastemaker.lab",
    "compare": "tastemaker.evaluate",
    "describe": "tastemaker.data",
    "evaluate": "tastemaker.evaluate",
    "fit": "tastemaker.train",
    "retriever": "tastemaker.index",
    "split": "tastemaker.data",
    "synthetic": "tastemaker.data",
    "system": "tastemaker.contracts",
    "tune": "tastemaker.lab",
}

if TYPE_CHECKING:
    from tastemaker.contracts import system
    from tastemaker.data import describe, split, synthetic
    from tastemaker.evaluate.compare import compare
    from tastemaker.evaluate.ranking import evaluate
    from tastemaker.index import retriever
    from tastemaker.lab import choose, tune
    from tastemaker.train import Bundle, fit
    from tastemaker.types import Dataset, Jagged, Requests, Slates, Split, TastemakerError

__all__ = [
    "Bundle",
    "Dataset",
    "Jagged",
    "Requests",
    "Slates",
    "Split",
    "TastemakerError",
    "__version__",
    "choose",
    "compare",
    "describe",
    "evaluate",
    "fit",
    "retriever",
    "split",
    "synthetic",
    "system",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tastemaker' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if home.__name__ == f"tastemaker.{name}" else getattr(home, name)  # `evaluate` is itself callable


def __dir__() -> list[str]:
    return sorted(__all__)
