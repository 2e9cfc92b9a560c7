"""Things found by name: one file declares one thing, the file's name is its name, and other packages add theirs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from tastemaker.types.errors import NotFound, UsageError, nearest

T = TypeVar("T")
DECLARED = "__tastemaker__"
"""Attribute of a class that holds what it was declared to be."""


def subpackages(root: str) -> list[str]:
    """Names of the packages directly inside a package."""
    found = importlib.import_module(root)
    return [module.name for module in pkgutil.iter_modules(found.__path__, root + ".") if module.ispkg]


class Registry(Generic[T]):
    """Declarations of one kind by name. Nothing is imported before it is asked for.

    packages: gives the packages whose files declare; a file whose name begins with an underscore declares nothing
    group: entry points under which other packages register theirs
    """

    def __init__(self, kind: type[T], packages: Callable[[], Iterable[str]], group: str) -> None:
        self.kind, self.packages, self.group = kind, packages, group
        self.what = kind.__name__.removesuffix("Info").lower()

    @cached_property
    def places(self) -> Mapping[str, str]:
        """Name -> module, or value of an entry point."""
        found: dict[str, str] = {}
        for name in self.packages():
            package = importlib.import_module(name)
            for module in pkgutil.iter_modules(package.__path__, name + "."):
                stem = module.name.rpartition(".")[2]
                if not module.ispkg and not stem.startswith("_"):
                    found[stem.replace("_", "-")] = module.name
        for entry in entry_points(group=self.group):
            found.setdefault(entry.name, entry.value)
        return found

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a wildcard, sorted; no file is imported."""
        return sorted(name for name in self.places if fnmatch(name, pattern))

    def find(self, name: str) -> T:
        """What the file of `name` declares; it is imported now."""
        if name not in self.places:
            raise NotFound(f"there is no {self.what} {name!r}", hint=nearest(name, self.places))
        module, _, attribute = self.places[name].partition(":")
        loaded = importlib.import_module(module)
        if attribute:
            return replace(self.of(getattr(loaded, attribute)), name=name)  # type: ignore[type-var]
        for value in vars(loaded).values():
            found = getattr(value, DECLARED, None)
            if isinstance(found, self.kind) and found.name == name and value.__module__ == module:  # type: ignore[attr-defined]
                return found
        raise NotFound(f"{module} declares no {self.what} named {name!r}", hint=f"a file's name is its {self.what}'s")

    def of(self, value: Any) -> T:
        """The declaration of an object or a class."""
        found = getattr(value, DECLARED, None)
        if not isinstance(found, self.kind):
            raise UsageError(
                f"{value!r} is not declared as a {self.what}", hint=f"decorate its class: @{self.what}(...)"
            )
        return found
