"""What is evaluated: a bundle, a system, or ready-made lists; how it is asked, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import SystemInfo
from tastemaker.evaluate.report import plain
from tastemaker.index import retriever
from tastemaker.types import Cases, Requests, Slates, UsageError, config_to_json


@dataclass(frozen=True, eq=False)
class Subject:
    """Whatever gives the lists.

    about: what the report says of it
    n_users, n_items: how many it knows, where it says so
    learnt: fingerprint of the events it was fitted on, where it says so
    """

    about: Mapping[str, Any]
    system: Any = None
    retriever: Any = None
    slates: Slates | None = None
    n_users: int | None = None
    n_items: int | None = None
    learnt: str | None = None

    @classmethod
    def of(
        cls, system: Any, n_cases: int, *, name: str | None, tuning: Mapping[str, Any] | None, budget_mb: float
    ) -> Subject:
        """From a bundle, a system, or Slates of one list a case."""
        if isinstance(system, Slates):
            if len(system) != n_cases:
                raise UsageError(f"{n_cases} cases need {n_cases} lists, got {len(system)}")
            return cls(about(system, name=name, tuning=tuning), slates=system)
        bundle, inner = unpacked(system)
        schema = getattr(inner if bundle is None else bundle, "schema", None)
        stored = {} if bundle is None else bundle.about
        return cls(
            about(system, name=name, tuning=tuning),
            system=inner,
            retriever=retriever(inner, budget_mb=budget_mb) if bundle is None else bundle.retriever,
            n_users=getattr(schema, "n_users", None),
            n_items=getattr(schema, "n_items", None),
            learnt=stored.get("data", {}).get("fingerprint"),
        )

    @property
    def label(self) -> str:
        return str(self.about["label"])

    def take(self, rows: NDArray[np.int64]) -> Subject:
        """For some of the cases only: ready-made lists are picked, a system stays as it is."""
        return self if self.slates is None else replace(self, slates=self.slates.take(rows))

    def catalogue(self, cases: Cases) -> int:
        """Number of items, where no training part says it."""
        if self.n_items is not None:
            return self.n_items
        shown = [cases.targets.values] if self.slates is None else [cases.targets.values, self.slates.items]
        return 1 + max(int(items.max(initial=-1)) for items in shown)

    def answer(self, requests: Requests, k: int, start: int) -> Slates:
        """Lists for the block of requests that begins at case `start`."""
        if self.slates is not None:
            return self.slates.take(slice(start, start + requests.n))
        slates: Slates = self.retriever.retrieve(requests, k)
        if len(slates) != requests.n:
            raise UsageError(f"{requests.n} requests got {len(slates)} lists from {self.label}")
        return slates

    def known(self, requests: Requests, n_items: int) -> Requests:
        """The requests as the system may be asked them: a user or item it has never seen has no number there."""
        changes: dict[str, Any] = {}
        users = requests.users
        if users is not None and self.n_users is not None and users.max(initial=-1) >= self.n_users:
            changes["users"] = np.where(users < self.n_users, users, -1)
        if requests.history is not None:
            items = requests.history.values["item"]
            if items.max(initial=-1) >= n_items:
                changes["history"] = requests.history.where(items < n_items)
        if requests.exclude is not None and requests.exclude.values.max(initial=-1) >= n_items:
            changes["exclude"] = requests.exclude.where(requests.exclude.values < n_items)
        return requests.with_(**changes) if changes else requests


def unpacked(system: Any) -> tuple[Any, Any]:
    """The bundle, where it is one, and the system inside."""
    bundle = system if hasattr(system, "info") and hasattr(system, "retriever") else None
    return bundle, system if bundle is None else bundle.system


def about(system: Any, *, name: str | None, tuning: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a report says of whatever was judged."""
    if isinstance(system, Slates):
        return {"label": name or "lists", "name": None, "config": {}, "tuning": plain(tuning)}
    bundle, inner = unpacked(system)
    info = getattr(inner, "__tastemaker__", None) if bundle is None else bundle.info
    known = info if isinstance(info, SystemInfo) else None
    config = getattr(inner if bundle is None else bundle, "config", None)
    stored = {} if bundle is None else bundle.about
    called = known.name if known else type(inner).__name__
    return {
        "label": name or called,
        "name": called,
        "version": known.version if known else None,
        "config": plain(config_to_json(config)) if hasattr(config, "__dataclass_fields__") else {},
        "seed": stored.get("seed"),
        "fit": plain(stored.get("fit")),
        "tuning": plain(stored.get("tuning") if tuning is None else tuning),
    }
