"""Systems by name: one file under `systems/` is one system, and the file's name is the system's name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tastemaker.contracts.capabilities import capabilities
from tastemaker.types import REQUEST_FIELDS, Dataset, NotFound, UsageError, nearest

T = TypeVar("T", bound=type)
ENTRY_POINT = "tastemaker.systems"
FAMILIES = {
    "classical": "neighbours, linear models, factorisation",
    "graph": "propagation over the user-item graph",
    "multimodal": "images and text beside ids",
    "sequential": "the order of a history",
    "generative": "items written as codes",
    "language": "language models and text vectors",
    "ranking": "features, several tasks, search",
    "conversational": "systems that ask",
    "agentic": "systems that use tools",
    "online": "learning while serving",
    "creative": "content made for one person",
}


@dataclass(frozen=True)
class SystemInfo:
    """What a system declares of itself."""

    name: str
    family: str
    title: str
    paper: str
    cls: Any
    learns_from: frozenset[str]
    needs: frozenset[str]
    uses: frozenset[str] = frozenset()
    version: int = 1

    @property
    def config(self) -> type[Any]:
        return self.cls.Config  # type: ignore[no-any-return]

    @property
    def capabilities(self) -> tuple[str, ...]:
        return capabilities(self.cls)

    def missing_from(self, data: Dataset) -> frozenset[str]:
        """What the system learns from and the dataset does not carry."""
        return self.learns_from - data.carries()


def system(
    name: str,
    *,
    family: str,
    title: str,
    paper: str,
    learns_from: Iterable[str] = ("events",),
    needs: Iterable[str] = (),
    uses: Iterable[str] = (),
    version: int = 1,
) -> Callable[[T], T]:
    """Declare a class to be the system `name`.

    Args:
        learns_from: tables and columns training needs, as `Dataset.carries` names them.
        needs: request fields that must be present to answer.
        uses: resources ("chat", "text_encoder", "image_encoder", "catalogue", "system").
        version: raised when stored weights of older versions no longer mean the same.
    """
    if family not in FAMILIES:
        raise UsageError(f"no family {family!r}", hint=nearest(family, FAMILIES))
    if unknown := set(needs) - set(REQUEST_FIELDS):
        raise UsageError(f"{name} needs unknown request fields {sorted(unknown)}; there are {REQUEST_FIELDS}")

    def declare(cls: T) -> T:
        info = SystemInfo(
            name, family, title, paper, cls, frozenset(learns_from), frozenset(needs), frozenset(uses), version
        )
        cls.__tastemaker__ = info  # type: ignore[attr-defined]
        return cls

    return declare


def info_of(system: Any) -> SystemInfo:
    """The declaration of a system or a system class."""
    found = getattr(system, "__tastemaker__", None)
    if not isinstance(found, SystemInfo):
        raise UsageError(f"{system!r} is not declared as a system", hint="decorate its class with @system(...)")
    return found


@cache
def _places() -> Mapping[str, str]:
    """Name -> module (ours) or entry point value (others'); nothing is imported but the empty packages."""
    places: dict[str, str] = {}
    root = importlib.import_module("tastemaker.systems")
    for family in pkgutil.iter_modules(root.__path__, "tastemaker.systems."):
        package = importlib.import_module(family.name)
        for module in pkgutil.iter_modules(package.__path__, family.name + "."):
            stem = module.name.rpartition(".")[2]
            if not stem.startswith("_"):
                places[stem.replace("_", "-")] = module.name
    for entry in entry_points(group=ENTRY_POINT):
        places.setdefault(entry.name, entry.value)
    return places


def names(pattern: str = "*") -> list[str]:
    """Names of systems that match a wildcard, sorted; no system is imported."""
    return sorted(name for name in _places() if fnmatch(name, pattern))


def find(name: str) -> SystemInfo:
    """The declaration of the system `name`, whose file is imported now."""
    places = _places()
    if name not in places:
        raise NotFound(f"there is no system {name!r}", hint=nearest(name, places))
    module, _, attribute = places[name].partition(":")
    loaded = importlib.import_module(module)
    if attribute:
        return replace(info_of(getattr(loaded, attribute)), name=name)
    for value in vars(loaded).values():
        declared = getattr(value, "__tastemaker__", None)
        if isinstance(declared, SystemInfo) and declared.name == name and value.__module__ == module:
            return declared
    raise NotFound(f"{module} declares no system named {name!r}", hint="a file's name is its system's name")
