"""Systems that nobody has built yet fit the contracts: playlists, codes that change, lists rewarded rank by rank, soft
tokens, search beside recommendation, a world that speaks, draws of lists, a defence, an agent that reads pages.

Each is a file in `skeletons`, of signatures and of the whole training procedure; that these fit is for the type checker
to say, which reads the folder with the package. Here their programs are driven: nothing is fitted.
"""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.contracts import TRANSFORMS, Alternate, Fit, Precompute, Program, Resources, Stage, Train, find, names
from tastemaker.data import build
from tastemaker.train import fit
from tastemaker.train.codec import content_key
from tastemaker.types import CapabilityError, Dataset, SystemRef, make_config
from tastemaker.types.discovery import DECLARED

HERE = Path(__file__).parent
FOLDER = HERE / "skeletons"
N_USERS, N_ITEMS = 12, 30

# What each system must be able to do, and the stages of its program in their order.
FIT, KEPT, STEPS, LIVE, TURNS, OTHER = "fit", "precompute", "train", "train live", "alternate", "fit another system"
RECALL = [OTHER, FIT, FIT, KEPT]
WANTED: dict[str, tuple[set[str], list[str]]] = {
    "playlists": ({"retrieves"}, [*RECALL, FIT, FIT, FIT, *RECALL]),
    "ttds": ({"retrieves", "generates"}, [KEPT, KEPT, STEPS, STEPS, FIT, STEPS]),
    "rank_grpo": ({"retrieves", "generates"}, [KEPT, STEPS, LIVE]),
    "a_llmrec": ({"scores", "reranks", "generates", "extends"}, [OTHER, FIT, FIT, KEPT, STEPS, STEPS]),
    "uditsr": ({"scores"}, [KEPT, KEPT, STEPS]),
    "recoworld": ({"acts"}, [OTHER, FIT, FIT, LIVE]),
    "slate_gru": ({"scores", "predicts", "retrieves"}, [FIT, FIT, STEPS]),
    "taser": ({"extends", "writes"}, [KEPT] * 11),
}
SETTINGS: dict[str, dict[str, Any]] = {"playlists": {"rounds": 2}, "taser": {"rounds": 3}}


@cache
def skeleton(name: str) -> ModuleType:
    place = f"skeletons.{name}"
    spec = importlib.util.spec_from_file_location(place, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[place] = module  # dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


def declared(name: str) -> Any:
    """What the file declares."""
    module = skeleton(name)
    [found] = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
               and DECLARED in getattr(value, "__dict__", {})]  # fmt: skip
    return getattr(found, DECLARED)


@cache
def world() -> Dataset:
    """A dataset with a bit of everything the nine learn from."""
    rng = np.random.default_rng(0)
    n = N_USERS * 12
    users = np.repeat(np.arange(N_USERS), 12)
    events = pl.DataFrame(
        {
            "user": users,
            "item": np.concatenate([rng.permutation(N_ITEMS)[:12] for _ in range(N_USERS)]),
            "time": np.tile(np.arange(12), N_USERS),
            "kind": np.where(rng.random(n) < 0.5, "click", "impression"),
            "query": pl.Series(["red shoes", None] * (n // 2)),
            "slate": np.arange(n) // 4,
            "position": np.arange(n) % 4,
        },
        schema_overrides={"slate": pl.Int64, "position": pl.Int32},
    )
    items = pl.DataFrame(
        {
            "item": np.arange(N_ITEMS),
            "title": [f"a story of number {k}" for k in range(N_ITEMS)],
            "text": [f"page {k} with a table on it" for k in range(N_ITEMS)],
            **{name: [f"{name} {k % 3}" for k in range(N_ITEMS)] for name in ("artist", "album", "document")},
            "page": np.arange(N_ITEMS) // 3,
        }
    )
    data = build("everything", events, pl.DataFrame({"user": np.arange(N_USERS), "title": "songs"}), items,
                 time_unit="step")  # fmt: skip
    turns = pl.DataFrame({"dialogue": [0, 0, 1], "turn": [0, 1, 0], "speaker": "person", "text": "hello"})
    return replace(data, dialogues=turns)


class Told:
    """What a stage is said to have found: something to hand on, and no more."""


def driven(program: Program, answers: Mapping[str, Iterator[Any]] | None = None) -> list[Stage]:
    """The stages of a program, each sent the next of the answers to its function, or a `Told`; none is carried out."""
    stages: list[Stage] = []
    sent: Any = None
    while True:
        try:
            stages.append(stage := program.send(sent))
        except StopIteration:
            return stages
        function = stage.function if isinstance(stage, Fit | Precompute) else None
        sent = next((answers or {}).get(getattr(function, "__name__", ""), iter([Told()])))


def kind_of(stage: Stage) -> str:
    if isinstance(stage, Fit):
        return OTHER if isinstance(stage.function, SystemRef) else FIT
    if isinstance(stage, Train):
        return LIVE if stage.feed.live else STEPS
    return TURNS if isinstance(stage, Alternate) else KEPT


def answers_of(name: str) -> dict[str, Iterator[Any]]:
    """What the programs look at of what they are sent."""
    codes = [np.zeros((N_USERS, 4), np.int64), np.zeros((N_ITEMS, 4), np.int64)]
    rows = iter([([], [1, 2, 3]), (["a"], [2, 3]), (["b"], [3]), (["c"], [3])])
    schemas = iter(['{"film": {}}', '{"film": {}, "book": {}}', '{"film": {}, "book": {}, "disc": {}}'])
    trees = iter([{}] * 9)
    known: dict[str, dict[str, Iterator[Any]]] = {
        "playlists": {"one_more_tree": trees},
        "ttds": {"codes_apart": iter([codes])},
        "recoworld": {"tastes_of": iter([{"attributes": np.ones((N_ITEMS, 3)), "tastes": np.ones((N_USERS, 3))}])},
        "taser": {"records_of": rows, "settled": schemas},
    }
    return known.get(name, {})


def made(name: str) -> Any:
    info = declared(name)
    system = info.cls(make_config(info.config, SETTINGS.get(name)), world().schema)
    if info.uses:
        system.bind(Resources(chat=Silent("a"), catalogue=world().items))
    return system


class Silent:
    """A language model that nobody asks."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def run(self, task: str, given: Any, wanted: type[Any]) -> Any:
        raise AssertionError("nothing is to be carried out")


@pytest.mark.parametrize("name", WANTED)
def test_a_skeleton_can_what_its_sheet_asks(name: str) -> None:
    info = declared(name)
    assert set(info.capabilities) == WANTED[name][0]
    assert info.missing_from(world()) == frozenset(), "it learns from columns as datasets name them"
    shown = [get_args(one)[0] for one in get_args(get_type_hints(skeleton(name))["CAN"])]
    checked = {base.__name__.lower() for protocol in shown for base in (get_origin(protocol) or protocol).__mro__}
    assert set(info.capabilities) <= checked, "all it can is held against its protocol by the type checker"


@pytest.mark.parametrize("name", WANTED)
def test_a_program_yields_its_stages(name: str) -> None:
    found = driven(made(name).program(world()), answers_of(name))
    assert [kind_of(stage) for stage in found] == WANTED[name][1]
    for stage in found:
        if isinstance(stage, Train):
            assert len(stage.feed) > 0
        if isinstance(stage, Precompute):  # kept by content, language models and all
            assert content_key(*stage.args[:1], stage.version)


def test_all_skeletons_are_here_and_none_is_registered() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*WANTED, "lorec"}
    assert not {name.replace("_", "-") for name in WANTED} & set(names())


def test_the_type_checker_reads_the_skeletons() -> None:
    settings = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert settings["strict"] and FOLDER.relative_to(HERE.parents[1]).as_posix() in settings["files"]


def test_what_is_frozen_stays_behind() -> None:
    """What learns of A-LLMRec are two small networks in turn, of TTDS all at once and then the model alone."""
    system = made("a_llmrec")
    first, second = driven(system.program(world()))[-2:]
    assert isinstance(first, Train) and isinstance(second, Train)
    learnt = [{id(p) for p in stage.parameters or ()} for stage in (first, second)]
    assert learnt[0] == {id(p) for p in system.joint.parameters()} and not learnt[0] & learnt[1]
    policy = made("rank_grpo")
    lived = driven(policy.program(world()))[-1]
    assert isinstance(lived, Train) and lived.parameters is not None
    assert not {id(p) for p in lived.parameters} & {id(p) for p in policy.reference.parameters()}


def test_a_transform_learns_in_turn_with_any_system_and_weighs_its_users() -> None:
    info = declared("lorec")
    assert info.missing_from(world()) == frozenset() and info.missing_from(replace(world(), items=world().items[:, :1]))
    base = find("bpr-mf")
    system = base.cls(make_config(base.config), world().schema)
    own = {id(p) for p in system.parameters()}
    found, seen = info.cls(make_config(info.config))(system, system.program(world()), world()), []
    sent: Any = None
    try:
        while True:
            seen.append(found.send(sent))
            if isinstance(seen[-1], Alternate):
                weighed, learnt = seen[-1].trains
                assert {id(p) for p in weighed.parameters} == own and not {id(p) for p in learnt.parameters} & own
                batch = weighed.feed.batch(0, 0)
                batch = replace(batch, **{n: torch.from_numpy(v) for n, v in vars(batch).items() if v is not None})
                plain = weighed.objective(weighed.gather(batch), batch)
                system.lorec.weights.fill_(0.25)
                assert torch.allclose(weighed.objective(weighed.gather(batch), batch), plain / 4)
                assert len(learnt.feed) == -(-2 * N_USERS // 512)
            sent = Told()
    except StopIteration:
        pass
    assert [kind_of(stage) for stage in seen] == [KEPT, TURNS]
    assert not hasattr(system, "lorec") and {id(p) for p in system.parameters()} == own


def test_a_transform_is_refused_where_the_data_lack_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSFORMS.places, "lorec", f"{skeleton('lorec').__name__}:LoRec")  # type: ignore[index]
    wordless = replace(world(), items=world().items.select("item"))
    with pytest.raises(CapabilityError, match="lorec learns from items:text, which everything does not carry"):
        fit("bpr-mf", wordless, transforms=["lorec"])


def test_a_schema_that_gains_nothing_is_given_up() -> None:
    reader = made("taser")
    driven(reader.program(world()), answers_of("taser"))
    assert reader.types == '{"film": {}, "book": {}}' and reader.records == ["a", "b"]


def test_what_a_model_gave_is_kept_under_its_identity() -> None:
    assert content_key(Silent("a"), ["text"]) == content_key(Silent("a"), ["text"])
    assert content_key(Silent("a"), ["text"]) != content_key(Silent("b"), ["text"])
