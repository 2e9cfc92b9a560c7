"""Systems and transforms by name: one file is one of them, and the file's name is its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from tastemaker.contracts.capabilities import capabilities
from tastemaker.types import REQUEST_FIELDS, Dataset, UsageError, nearest
from tastemaker.types.discovery import DECLARED, Registry, subpackages

T = TypeVar("T", bound=type)
RESOURCES = ("chat", "text_encoder", "image_encoder", "catalogue", "system")
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


class _Declared:
    """What the declarations of systems and of transforms have in common."""

    cls: Any
    learns_from: frozenset[str]

    @property
    def config(self) -> type[Any]:
        return self.cls.Config  # type: ignore[no-any-return]

    def missing_from(self, data: Dataset) -> frozenset[str]:
        """What is learnt from and the dataset does not carry."""
        carried = data.carries()
        return frozenset(one.replace("|", " or ") for one in self.learns_from if not carried & set(one.split("|")))


@dataclass(frozen=True)
class SystemInfo(_Declared):
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
    def capabilities(self) -> tuple[str, ...]:
        return capabilities(self.cls)


@dataclass(frozen=True)
class TransformInfo(_Declared):
    """What a transform declares of itself; its class is built from its Config and called as `Transform`."""

    name: str
    title: str
    paper: str
    cls: Any
    learns_from: frozenset[str] = frozenset()


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
        learns_from: tables and columns training needs, as `Dataset.carries` names them; "a|b": either will do.
        needs: request fields that must be present to answer.
        uses: resources, of `RESOURCES`; a system that uses any has `bind`.
        version: raised when stored weights of older versions no longer mean the same.
    """
    sets = frozenset(learns_from), frozenset(needs), frozenset(uses)
    if family not in FAMILIES:
        raise UsageError(f"no family {family!r}", hint=nearest(family, FAMILIES))
    for said, there in ((sets[1], REQUEST_FIELDS), (sets[2], RESOURCES)):
        if unknown := said - set(there):
            raise UsageError(f"{name} asks for unknown {sorted(unknown)}; there are {there}")

    def declare(cls: T) -> T:
        if bool(sets[2]) != hasattr(cls, "bind"):
            raise UsageError(f"{name} says what it uses and has `bind`, or neither")
        setattr(cls, DECLARED, SystemInfo(name, family, title, paper, cls, *sets, version))
        return cls

    return declare


def transform(name: str, *, title: str, paper: str, learns_from: Iterable[str] = ()) -> Callable[[T], T]:
    """Declare a class to be the transform `name`, which reads `learns_from` beside what the system learns from."""

    def declare(cls: T) -> T:
        setattr(cls, DECLARED, TransformInfo(name, title, paper, cls, frozenset(learns_from)))
        return cls

    return declare


SYSTEMS = Registry(SystemInfo, lambda: subpackages("tastemaker.systems"), "tastemaker.systems")
TRANSFORMS = Registry(
    TransformInfo, lambda: ("tastemaker.train.transforms", "tastemaker.audit.transforms"), "tastemaker.transforms"
)
names, find, info_of = SYSTEMS.names, SYSTEMS.find, SYSTEMS.of
