"""Warm starts: a system that learns by gradient steps begins with the weights of an older fit of itself.

Whose row is whose is told by outside ids alone: a table's rows are matched through the vocabularies of the old bundle
and of the new data, so it does not matter whether numbers have moved. A system says which entries of its `state_dict`
have rows of users or items, and in which order; a whole number stands for rows of its own:

    rows = {"table.weight": ("users", "items")}                      LightGCN: users first, then items
    rows = {"table.weight": ("items", 1), "bias": ("items",)}        GRU4Rec: items, then the start

Rows of new users and items stay as the constructor drew them. Every other entry is copied whole. An entry whose shape
changes with the number of users or items and that is not declared is refused by name, also where the numbers happen to
be equal: building the system for another size, on a device without memory, shows which entries these are. What a system
keeps beside its `state_dict`, as an encoder of texts, it takes in an optional method `adopt(old, users, items)`, called
before the weights are copied, with the old number of each new user [U] and item [I], -1 where there is none.

Moments of the optimiser are not carried over: they belong to the gradients of the old data. (For what a warm start can
cost, and when: Ash, Adams, "On warm-starting neural network training", arXiv:1910.08475; hence the comparison in
`tastemaker.lab.refresh`.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import SystemInfo
from tastemaker.data import holdout
from tastemaker.train.bundle import Bundle
from tastemaker.types import PARTS, Dataset, Schema, Split, UsageError, Vocabulary, config_to_json

Rows = Sequence[str | int]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
CLOSED = "it learns in closed form and was fitted anew"


def check_same(warm: Bundle, info: SystemInfo, settings: Any, transforms: Mapping[str, Any]) -> None:
    """A warm start is from the same system, version, settings and transforms, else UsageError names the difference."""
    if warm.info.name != info.name or warm.info.version != info.version:
        theirs, ours = (f"{one.name} version {one.version}" for one in (warm.info, info))
        raise UsageError(f"a warm start of {ours} needs a bundle of the same, got one of {theirs}")
    pairs = [(config_to_json(warm.config), config_to_json(settings), "setting")]
    pairs.append((warm.about.get("transforms", {}), dict(transforms), "transform"))
    for before, now, what in pairs:
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise UsageError(
                    f"a warm start needs the same {what}s: {name} is {_shown(now, name)}, in the old bundle of "
                    f"{info.name} {_shown(before, name)}",
                    hint="leave the settings out, so that the bundle's own are taken; or fit without a warm start",
                )


def carry_over(
    warm: Bundle, system: Any, info: SystemInfo, settings: Any, schema: Schema, users: Vocabulary, items: Vocabulary
) -> dict[str, Any]:
    """Give a new system the weights of a fitted one. Returns what was matched, as a bundle's `about` keeps it.

    Raises:
        UsageError: a parameter cannot be matched.
    """
    told: dict[str, Any] = {"data": dict(warm.about.get("data", {}))}
    if not _is_neural(system):
        return {**told, "weights": CLOSED}
    import torch

    matched = {"users": _matched(warm.users, users), "items": _matched(warm.items, items)}
    if hasattr(system, "adopt"):
        system.adopt(warm.system, _olds(matched["users"], len(users)), _olds(matched["items"], len(items)))
    sizes = {"users": (len(warm.users), len(users)), "items": (len(warm.items), len(items))}
    declared: Mapping[str, Rows] = getattr(type(system), "rows", {})
    sized = _sized(info, settings, schema, system)
    before, now = warm.system.state_dict(), system.state_dict()
    with torch.no_grad():
        for name, weights in now.items():
            if name not in before:
                raise UsageError(f"the old bundle of {info.name} has no parameter {name} to start from")
            old = before[name].to(weights.device)
            if old.is_floating_point() and not torch.isfinite(old).all():
                raise UsageError(
                    f"the old bundle of {info.name} does not keep the weights {name} that training begins with",
                    hint="fit once without a warm start; what that writes can be started from",
                )
            if name in declared:
                of = old.shape[1:], weights.shape[1:]
                takes, gives = _places(name, declared[name], matched, sizes, (len(old), len(weights)))
                if of[0] != of[1]:
                    raise UsageError(f"rows of {name} had the shape {list(of[0])}, and now have {list(of[1])}")
                weights[torch.from_numpy(takes)] = old[torch.from_numpy(gives)].to(weights.dtype)
                continue
            if name in sized or old.shape != weights.shape:
                raise UsageError(
                    f"the parameter {name} of {info.name}, of shape {list(weights.shape)}, depends on how many users "
                    f"or items there are (it was {list(old.shape)}), and nothing says whose its rows are",
                    hint=f'declare it in the class: rows = {{"{name}": ("items",)}}; see tastemaker.train.warm',
                )
            weights.copy_(old)
    return {**told, "weights": "carried over", **{side: _told(matched[side], sizes[side]) for side in matched}}


def held_back(learnt: Dataset, warm: Bundle, seed: int) -> Split:
    """Training events held back to judge a warm start by: of choices none that the old bundle has learnt from.

    What is no choice, as a search, is held back with the new choices of its user.

    Raises:
        UsageError: there are none, or nobody knows what it has learnt from.
    """
    inner = holdout(learnt, seed=seed)
    valid, chosen = inner.part == PARTS["valid"], learnt.choices()
    asked = np.flatnonzero(valid if chosen is None else valid & chosen)
    fresh = asked[~_seen(learnt, asked, warm)]
    if not len(fresh):
        raise UsageError(
            f"the old bundle has learnt from all {len(asked):,} choices of {learnt.name} that would be held back to "
            "judge a warm start by, so it would judge itself",
            hint="give a split with a valid part it has not seen, data with newer events, or epochs={0: N}",
        )
    users = learnt.events["user"].to_numpy()
    judges = np.zeros(learnt.n_users, dtype=np.bool_)
    judges[users[fresh]] = True
    kept = valid & judges[users]
    kept[asked] = False
    kept[fresh] = True
    part = np.where(valid & ~kept, PARTS["train"], inner.part).astype(np.int8)
    return replace(inner, part=part)


def _seen(learnt: Dataset, rows: NDArray[np.int64], warm: Bundle) -> NDArray[np.bool_]:
    """Which of these events [n] the old bundle has learnt from: by its histories, or by the time they reach to."""
    events = learnt.events[rows]
    if warm.histories is not None:
        n = learnt.n_items
        owners = learnt.user_ids.numbers(warm.users.series)[warm.histories.rows].astype(np.int64)
        items = warm.histories.values["item"]
        chosen = learnt.item_ids.numbers(warm.catalogue["item"])[items].astype(np.int64)
        known = (owners >= 0) & (chosen >= 0) & (items >= 0)
        return np.isin(_keys(events["user"], events["item"], n), owners[known] * n + chosen[known])
    until = warm.about.get("data", {}).get("until")
    if until is None or not learnt.has_time:
        raise UsageError(
            "the old bundle keeps no histories, so nobody knows which events it has learnt from",
            hint="give a split with a valid part it has not seen, or fit with histories=True",
        )
    return np.asarray(events["time"].to_numpy() <= until)


def _keys(users: Any, items: Any, n_items: int) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = users.to_numpy().astype(np.int64) * n_items + items.to_numpy()
    return keys


def _is_neural(system: Any) -> bool:
    if "torch" not in sys.modules:
        return False
    import torch

    return isinstance(system, torch.nn.Module)


def _matched(old: Vocabulary, new: Vocabulary) -> Pairs:
    """Numbers of the ids that both know: in the new vocabulary, and in the old one."""
    if old == new:
        every = np.arange(len(new), dtype=np.int64)
        return every, every
    numbers = old.numbers(new.series)
    takes = np.flatnonzero(numbers >= 0)
    return takes, numbers[takes].astype(np.int64)


def _olds(pairs: Pairs, n: int) -> NDArray[np.int64]:
    """The old number of each new one [n]; -1: there is none."""
    numbers = np.full(n, -1, dtype=np.int64)
    numbers[pairs[0]] = pairs[1]
    return numbers


def _places(
    name: str, parts: Rows, matched: Mapping[str, Pairs], sizes: Mapping[str, tuple[int, int]], lengths: tuple[int, int]
) -> Pairs:
    """Which rows of an entry are taken from which rows of the old one."""
    takes, gives, ends = [], [], [0, 0]
    for part in parts:
        own = np.arange(part, dtype=np.int64) if isinstance(part, int) else None
        of = (own, own) if own is not None else matched[str(part)]
        size = (len(own), len(own)) if own is not None else sizes[str(part)]
        gives.append(of[1] + ends[0])
        takes.append(of[0] + ends[1])
        ends = [ends[0] + size[0], ends[1] + size[1]]
    if tuple(ends) != lengths:
        raise UsageError(
            f"{name} is declared to have rows of {', '.join(map(str, parts))}: {ends[0]:,} before and {ends[1]:,} now, "
            f"but has {lengths[0]:,} and {lengths[1]:,}"
        )
    return np.concatenate(takes), np.concatenate(gives)


def _sized(info: SystemInfo, settings: Any, schema: Schema, system: Any) -> frozenset[str]:
    """Entries of the state whose shape changes with the number of users or of items."""
    import torch

    other = replace(schema, n_users=schema.n_users + 1, n_items=schema.n_items + 2)
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                larger = info.cls(settings, other)
        except (RuntimeError, NotImplementedError):  # a constructor that looks at what it drew
            larger = info.cls(settings, other)
    shapes = {name: weights.shape for name, weights in larger.state_dict().items()}
    return frozenset(name for name, w in system.state_dict().items() if shapes.get(name, w.shape) != w.shape)


def _told(pairs: Pairs, sizes: tuple[int, int]) -> dict[str, int]:
    kept = len(pairs[0])
    return {"kept": kept, "new": sizes[1] - kept, "gone": sizes[0] - kept}


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not there"
