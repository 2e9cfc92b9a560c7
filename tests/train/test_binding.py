"""Resources reach a system that leans on them: from the engine, from the loader of bundles, within another system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.contracts import Binds, Fit, Program, Resources, system
from tastemaker.contracts import registry as declared
from tastemaker.data import synthetic
from tastemaker.language.accounts import Scripted
from tastemaker.train import Bundle, fit
from tastemaker.types import CapabilityError, Dataset, Requests, Schema, State, SystemRef, UsageError, setting


@system("leaning", family="agentic", title="Leans", paper="none", learns_from=(), uses={"chat", "catalogue", "system"})
class Leaning:
    """Writes down what was bound to it, and when."""

    @dataclass(frozen=True)
    class Config:
        strict: bool = setting(False, "Refuse to be without a language model.")
        other: SystemRef | None = setting(None, "A system within.")

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.bound: list[tuple[Resources, bool]] = []
        self.fitted = False
        self.other: Any = None

    def bind(self, resources: Resources) -> None:
        if self.config.strict and resources.chat is None:
            raise CapabilityError("it converses by a language model alone", hint="Resources(chat=...)")
        self.bound.append((resources, self.fitted))

    def program(self, data: Dataset) -> Program:
        if self.config.other is not None:
            self.other = yield Fit(self.config.other, data)
        yield Fit(int)
        self.fitted = True

    def score(self, requests: Requests, items: Any = None) -> Any:
        shape = (requests.n, self.schema.n_items) if items is None else np.shape(items)
        return np.zeros(shape, dtype=np.float32)

    def export(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        self.fitted = True


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {**declared.SYSTEMS.places, "leaning": f"{__name__}:Leaning"}
    monkeypatch.setitem(declared.SYSTEMS.__dict__, "places", places)
    find = declared.SYSTEMS.find
    info = getattr(Leaning, "__tastemaker__")  # noqa: B009
    monkeypatch.setattr(declared.SYSTEMS, "find", lambda name: info if name == "leaning" else find(name))
    for module in ("tastemaker.train.engine", "tastemaker.train.bundle"):
        monkeypatch.setattr(f"{module}.find", declared.SYSTEMS.find)


def data() -> Dataset:
    return synthetic(40, n_items=30, seed=1)


def test_the_engine_binds_before_the_program_runs_and_the_catalogue_is_the_datas_own() -> None:
    chat = Scripted()
    made = fit(Leaning, data(), resources=Resources(chat=chat)).system
    assert isinstance(made, Binds)
    [(resources, fitted)] = made.bound
    assert resources.chat is chat and not fitted
    assert resources.catalogue is not None and resources.catalogue.equals(data().items)


def test_a_run_goes_on_with_the_same_resources_alone(tmp_path: Path) -> None:
    first, other = Scripted(), fit("popularity", data()).system
    fit(Leaning, data(), run=tmp_path, resources=Resources(chat=first, systems={"beside": other}))
    fit(Leaning, data(), run=tmp_path, resources=Resources(chat=first, systems={"beside": other}))
    taught = fit("popularity", synthetic(40, n_items=30, seed=2)).system
    for changed in (
        Resources(chat=Scripted(identity="two"), systems={"beside": other}),
        Resources(chat=first, systems={"beside": taught}),
    ):
        with pytest.raises(UsageError, match="another system"):
            fit(Leaning, data(), run=tmp_path, resources=changed)


def test_a_system_within_another_is_bound_too() -> None:
    chat = Scripted()
    made = fit(Leaning, data(), {"other": "leaning"}, resources=Resources(chat=chat)).system
    assert made.other.bound[0][0].chat is chat


def test_the_loader_binds_and_says_what_to_pass(tmp_path: Path) -> None:
    fit(Leaning, data(), {"strict": True}, resources=Resources(chat=Scripted())).save(tmp_path / "it")
    with pytest.raises(CapabilityError, match="language model") as error:
        Bundle.load(tmp_path / "it")
    assert "Resources(chat=...)" in str(error.value)
    chat, beside = Scripted(), object()
    opened = Bundle.load(tmp_path / "it", Resources(chat=chat, systems={"beside": beside}))
    [(resources, fitted)] = opened.system.bound
    assert fitted and resources.chat is chat and resources.systems == {"beside": beside}
    assert resources.catalogue is not None and resources.catalogue.equals(opened.catalogue)


def test_systems_that_lean_on_nothing_are_left_alone(tmp_path: Path) -> None:
    bundle = fit("popularity", data(), resources=Resources(chat=Scripted()))
    bundle.save(tmp_path / "plain")
    assert not isinstance(Bundle.load(tmp_path / "plain", Resources()).system, Binds)
