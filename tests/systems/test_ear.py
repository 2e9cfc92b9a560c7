"""EAR on a planted world: tags tell something of an item, taste the rest, and both are needed to find it in time."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.contracts import Acts, Embeds, find
from tastemaker.data import split, synthetic
from tastemaker.data.build import build
from tastemaker.evaluate import Report
from tastemaker.evaluate.interactive import interact
from tastemaker.feeds import Confirmed, confirmed, interaction_matrix
from tastemaker.serve.states import decoded, encoded
from tastemaker.simulate import AttributeUsers
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    Attributes,
    Columns,
    ConfigError,
    Feedback,
    Requests,
    Split,
    UsageError,
    make_config,
    request_seeds,
)

TURNS = 9
SMALL = {
    "dim": 16,
    "init": 0.05,
    "dropout": 0.2,
    "lr": 0.02,
    "attribute_lr": 0.02,
    "batch_size": 1024,
    "turns": TURNS,
    "epochs": 12,
    "every": 12,
    "patience": 1,
    "policy_lr": 0.01,
    "pretrain_epochs": 15,
    "policy_epochs": 15,
    "episodes": 64,
    "gamma": 0.95,
    "players": (0.0, 0.5),
}


@cache
def world(n_users: int = 240, n_items: int = 1300, n_tags: int = 16, chosen: int = 24) -> Split:
    """Items have the two to five tags that point their way; users of twelve groups choose what does."""
    rng = np.random.default_rng(0)
    tags, items = rng.standard_normal((n_tags, 6)), rng.standard_normal((n_items, 6))
    order = np.argsort(-(items @ tags.T + 1.5 * rng.standard_normal((n_items, n_tags))), axis=1)
    lists = [[f"t{t:02d}" for t in row[:n]] for row, n in zip(order, rng.integers(2, 6, n_items), strict=True)]
    taste = rng.standard_normal((12, 6))[rng.integers(0, 12, n_users)] + 0.4 * rng.standard_normal((n_users, 6))
    worth = 0.8 * taste @ items.T + 1.5 * rng.gumbel(size=(n_users, n_items))
    picked = rng.permuted(np.argsort(-worth, axis=1)[:, :chosen], axis=1)
    events = pl.DataFrame({"user": np.repeat(np.arange(n_users), chosen), "item": picked.ravel()})
    table = pl.DataFrame({"item": np.arange(n_items), "tags": lists})
    return split(build("tagged", events, pl.DataFrame({"user": np.arange(n_users)}), table), "ratio:0.8,0,0.2", seed=1)


@cache
def fitted(**more: Any) -> Bundle:
    return fit("ear", world().train, {**SMALL, **more}, seed=1, refit=False)


def ruled(policy: str) -> Any:
    """The same machine, whoever decides."""
    system = copy(fitted().system)
    system.config = replace(system.config, policy=policy)
    return system


def played(system: Any) -> Report:
    return interact(system, AttributeUsers.of(world()), turns=TURNS, sessions=600, at=(5, TURNS), seeds=(0,))


@cache
def states() -> Confirmed:
    """Test choices in the middle of a conversation, held against what was chosen in neither part."""
    whole, parts = interaction_matrix(world().data), world()
    tested = interaction_matrix(parts.data.with_events(parts.events("test"))).toarray() > 0
    system = fitted().system
    rules = system.questions
    feed = confirmed(whole, rules.attributes, 10**6, turns=TURNS, facet=rules.facet, n_facets=rules.n_facets)
    batch = feed.batch(0, 0)
    kept = np.flatnonzero(tested[batch.users, batch.items])
    return batch.take(kept)


def areas(**more: Any) -> dict[str, float]:
    """How often what was chosen lies above what never was, above such with the same tags; a tag of it above another."""
    t, batch = fitted(**more).system.tables(), states()
    query = t.users[batch.users] + batch.known @ t.attributes

    def above(vectors: Any, good: Any, bad: Any) -> float:
        there = (good >= 0) & (bad >= 0)
        gap = ((vectors[good[there]] - vectors[bad[there]]) * query[there]).sum(axis=1)
        return float((gap > 0).mean())

    return {
        "any": above(t.items, batch.items, batch.others),
        "near": above(t.items, batch.items, batch.near),
        "tags": above(t.attributes, batch.wanted, batch.unwanted),
    }


def test_it_acts_and_embeds() -> None:
    system = fitted().system
    assert isinstance(system, Acts) and isinstance(system, Embeds)


def test_attribute_aware_negatives_rank_within_what_is_left_and_the_attribute_task_ranks_attributes() -> None:
    plain, near = (areas(near=one, attribute_task=False, policy="greedy") for one in (False, True))
    whole = areas()
    assert near["near"] > plain["near"] + 0.015, (plain, near)
    assert whole["tags"] > near["tags"] + 0.02 and whole["near"] > near["near"] - 0.02, (near, whole)


def test_the_network_beats_the_max_entropy_rule_and_that_lists_alone() -> None:
    found = {policy: played(ruled(policy)) for policy in ("learnt", "max-entropy", "greedy")}
    rate = {policy: report[f"success@{TURNS}"] for policy, report in found.items()}
    assert rate["learnt"] > rate["max-entropy"] + 0.02 and rate["max-entropy"] > rate["greedy"] + 0.02, rate
    assert found["learnt"]["turns"] < found["max-entropy"]["turns"]


def test_acting_alone_and_in_company_is_the_same_and_a_stored_session_goes_on() -> None:
    system, people = ruled("max-entropy"), AttributeUsers.of(world())
    requests, state = people.reset(request_seeds(12, 5))
    sessions, alone = system.begin(requests), system.begin(requests.take(slice(4, 5)))
    for _ in range(4):
        actions, sessions = system.act([decoded(encoded(one), system.State) for one in sessions])
        own, alone = system.act(alone)
        assert (
            own.ask["attribute"][0] == actions.ask["attribute"][4] and own.ask["values"][0] == actions.ask["values"][4]
        )
        assert np.array_equal(own.slates.items[0], actions.slates.items[4])
        feedback, _, done, state = people.step(state, actions)
        if done.any():
            break
        sessions = system.observe(sessions, feedback)
        answers = feedback.answers.take(slice(4, 5))
        events = None if feedback.events is None else feedback.events.take(slice(4, 5))
        alone = system.observe(alone, Feedback(requests.take(slice(4, 5)), events=events, answers=answers))


def two_interests() -> tuple[Any, AttributeUsers]:
    """Users who like two kinds of items, one more than the other, and want a good one of either."""
    rng = np.random.default_rng(4)
    n_users, n_items = 80, 400
    kind = np.arange(n_items) % 2
    items = np.column_stack([np.eye(2)[kind], 0.6 * rng.standard_normal((n_items, 2))])
    users = np.column_stack(
        [rng.permuted(np.tile([2.5, 1.0], (n_users, 1)), axis=1), rng.standard_normal((n_users, 2))]
    )
    order = np.argsort(-users @ items.T, axis=1)
    best = np.stack([[row[kind[row] == k][:12] for k in (0, 1)] for row in order])  # of either kind [U, 2, 12]
    wanted, past = best[:, :, rng.integers(6)], best[:, :, 7:].reshape(n_users, -1)
    picked = np.concatenate([past, wanted], axis=1)
    part = np.array(["train"] * past.shape[1] + ["test"] * 2)
    events = pl.DataFrame(
        {"user": np.repeat(np.arange(n_users), len(part)), "item": picked.ravel(), "part": np.tile(part, n_users)}
    )
    tags = pl.Series([["thing"]] * n_items)
    data = build(
        "two",
        events,
        pl.DataFrame({"user": np.arange(n_users)}),
        pl.DataFrame({"item": np.arange(n_items), "tags": tags}),
    )
    parts = split(data, "column:part")
    info = find("ear")
    config = make_config(info.config, {"columns": ("tags",), "dim": 4, "policy": "greedy", "reflect_lr": 0.02})
    system = info.cls(config, parts.train.schema)
    system.attributes = Attributes.of(data.items, ("tags",))
    with torch.no_grad():
        system.user_table.weight.copy_(torch.from_numpy(users))
        system.item_table.weight.copy_(torch.from_numpy(items))
        system.attribute_table.weight.zero_()
    return system, AttributeUsers.of(parts, columns=("tags",))


def test_who_reflects_on_refusals_turns_to_the_other_interest_and_shared_weights_stay() -> None:
    system, people = two_interests()
    before = {name: weights.clone() for name, weights in system.state_dict().items()}
    found = {}
    for how in ("paper", "code", "off"):
        system.config = replace(system.config, reflection=how)
        found[how] = interact(system, people, turns=4, sessions=300, at=(1, 4), seeds=(0,))
    rate = {how: report["success@4"] for how, report in found.items()}
    assert rate["paper"] > rate["off"] + 0.1 and rate["code"] > rate["off"] + 0.05, rate
    assert found["paper"]["success@1"] == found["off"]["success@1"], "nothing was refused before the first list"
    assert all(torch.equal(weights, before[name]) for name, weights in system.state_dict().items())


def test_a_question_about_a_column_is_answered_with_all_its_values() -> None:
    data = synthetic(60, n_items=80, seed=2)
    config = {
        "columns": ("genres", "moods"),
        "asks": "columns",
        "policy": "max-entropy",
        "epochs": 1,
        "every": 1,
        "dim": 8,
        "k": 2,
    }
    system = fit("ear", data, {**config, "attribute_task": False}, refit=False).system
    people = AttributeUsers.of(split(data, "ratio:0.8,0,0.2"), columns=("genres", "moods"))
    requests, state = people.reset(request_seeds(40, 1))
    sessions, targets = system.begin(requests), people.targets[state.pairs]
    actions, sessions = system.act(sessions)
    asks = np.flatnonzero(actions.ask["attribute"] != "")
    assert len(asks) > 5 and set(actions.ask["attribute"][asks]) <= {"genres", "moods"}
    assert all(len(values) > 5 for values in actions.ask["values"][asks])
    feedback, *_ = people.step(state, actions)
    has, column = people.attributes.of_items(targets), people.attributes.column
    for row, session in enumerate(system.observe(sessions, feedback)):
        known = set(np.flatnonzero(session.known).tolist())
        first = int(people.first(state)[row])
        whole = set(np.flatnonzero(has[row] & (column != column[first])).tolist()) if row in asks else set()
        assert known == {first} | whole


def test_the_network_sees_what_its_config_says() -> None:
    schema, info = world().train.schema, find("ear")

    def width(**config: Any) -> int:
        return int(info.cls(make_config(info.config, config), schema).network.steps[0].in_features)

    assert width() == 16 + 16 + 15 + 8 and width(sees=("known",)) == 16, "EAR's and CRM's"
    assert width(asks="columns", turns=5) == 1 + 1 + 5 + 8
    with pytest.raises(ConfigError, match="some of entropy"):
        make_config(info.config, {"sees": ("colour",)})
    with pytest.raises(ConfigError, match="no categories"):
        width(columns=("colour",))


def test_wanted_attributes_in_the_context_move_the_query() -> None:
    system = fitted().system
    told = Columns(attribute=np.array(["tags", ""], dtype=object), value=np.array(["t03", ""], dtype=object))
    plain, asked = system.queries(Requests.of_users([1, 2])), system.queries(Requests.of_users([1, 2], context=told))
    number = system.attributes.number["tags", "t03"]
    assert torch.allclose(asked[0], plain[0] + system.attribute_table.weight[number]) and torch.equal(
        asked[1], plain[1]
    )


def test_a_bundle_of_other_attributes_is_no_start() -> None:
    other = world().train
    renamed = other.items.with_columns(pl.col("tags").list.eval(pl.concat_str(pl.lit("x"), pl.element())))
    with pytest.raises(UsageError, match="other attributes"):
        fit("ear", replace(other, items=renamed), warm=fitted(), epochs={0: 1, 1: 1})
