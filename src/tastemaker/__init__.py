"""Tastemaker: a recommender workbench and server.

Everything here is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "tastemaker.types",
    "Requests": "tastemaker.types",
    "Slates": "tastemaker.types",
    "Jagged": "tastemaker.types",
    "TastemakerError": "tastemaker.types",
    "system": "tastemaker.contracts",
}

if TYPE_CHECKING:
    from tastemaker.contracts import system
    from tastemaker.types import Dataset, Jagged, Requests, Slates, TastemakerError

__all__ = ["Dataset", "Jagged", "Requests", "Slates", "TastemakerError", "__version__", "system"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tastemaker' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
