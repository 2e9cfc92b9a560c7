"""Specs: JSON in and out, limits, and errors that name the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.compose import PipelineError, PipelineSpec
from tastemaker.compose.spec import LARGEST_SPEC

WHOLE: dict[str, Any] = {
    "name": "home",
    "title": "Front page",
    "retrieve": [{"system": "ials", "k": 200}, {"system": "itemknn", "k": 100, "weight": 0.5, "where": "year > 1990"}],
    "blend": {"kind": "rrf", "constant": 60},
    "pool": 300,
    "filter": [{"kind": "where", "where": "year > 1990"}, {"kind": "seen"}, {"kind": "stock", "column": "in_stock"}],
    "score": {"system": "sasrec", "weight": 0.7},
    "rerank": [
        {"kind": "mmr", "weight": 0.3, "column": "genres"},
        {"kind": "mmr", "weight": 0.3, "vectors": "als"},
        {"kind": "calibrated", "column": "genres", "weight": 0.5},
        {"kind": "fair", "column": "popularity", "shares": {"tail": 0.3}},
        {"kind": "boost", "where": "price < 5", "factor": 1.2},
        {"kind": "pin", "items": ["a", 7], "place": 2},
        {"kind": "cap", "column": "maker", "most": 2, "first": 10},
    ],
    "explain": {"kind": "because", "column": "genres"},
    "systems": {"als": {"system": "ials", "settings": {"dim": 8}}},
}


def faults(spec: Any) -> dict[str, str]:
    """What is wrong, by place."""
    with pytest.raises(PipelineError) as caught:
        PipelineSpec.from_json(spec)
    return {fault.where: str(fault) for fault in caught.value.faults}


def without(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(WHOLE)), **changes}


def test_a_spec_survives_json() -> None:
    spec = PipelineSpec.from_json(WHOLE)
    again = PipelineSpec.from_json(spec.to_json())
    assert again == spec and again.fingerprint == spec.fingerprint
    assert PipelineSpec.from_json(spec.to_json().encode()) == spec
    assert spec.systems_used() == {
        "ials": "retrieve.0.system",
        "itemknn": "retrieve.1.system",
        "sasrec": "score.system",
        "als": "rerank.1.vectors",
    }
    assert spec.fingerprint != PipelineSpec.from_json(without(pool=299)).fingerprint


steps = st.one_of(
    st.builds(
        lambda w, f: {"kind": "mmr", "weight": w, "column": "g", "first": f}, st.floats(0, 1), st.integers(1, 2000)
    ),
    st.builds(lambda w: {"kind": "calibrated", "weight": w, "column": "g"}, st.floats(0, 1)),
    st.builds(lambda s: {"kind": "fair", "column": "b", "shares": {"x": s, "é'\"": 1 - s}}, st.floats(0, 1)),
    st.builds(lambda w, f: {"kind": "boost", "where": w, "factor": f}, st.text(min_size=1), st.floats(0, 100)),
    st.builds(
        lambda i: {"kind": "pin", "items": i},
        st.lists(st.one_of(st.text(max_size=9), st.integers(-(2**60), 2**60)), min_size=1, max_size=5, unique_by=str),
    ),
)


@given(st.lists(steps, max_size=16), st.text(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_spec_survives_json(rerank: list[dict[str, Any]], title: str) -> None:
    spec = PipelineSpec.from_json({"name": "x", "title": title, "retrieve": [{"system": "a"}], "rerank": rerank})
    assert PipelineSpec.from_json(spec.to_json()) == spec
    assert PipelineSpec.from_json(json.loads(spec.to_json())) == spec


def test_every_field_has_a_description_and_every_union_a_discriminator() -> None:
    schema = PipelineSpec.json_schema()
    models = [schema, *(model for model in schema["$defs"].values() if "properties" in model)]
    bare = [
        f"{model['title']}.{name}"
        for model in models
        for name, field in model["properties"].items()
        if not field.get("description")
    ]
    assert not bare
    assert all(model["additionalProperties"] is False for model in models)
    tagged = json.dumps(schema).count('"discriminator"')
    assert tagged == 4, "blend, filter, rerank and explain are told apart by kind"


@pytest.mark.parametrize(
    ("spec", "place", "said"),
    [
        (without(rerank=[{"kind": "mmr", "column": "g", "wieght": 1}]), "rerank.0.wieght", "did you mean 'weight'"),
        (without(retreive=[]), "retreive", "did you mean 'retrieve'"),
        (without(blend={"kind": "rrf", "constnat": 1}), "blend.constnat", "'constant'"),
        (without(retrieve=[{"system": "a", "kk": 1}]), "retrieve.0.kk", "there is no such field"),
        (without(rerank=[{"column": "g"}]), "rerank.0", "'kind' is missing"),
        (without(rerank=[{"kind": "sort"}]), "rerank.0", "mmr"),
        (without(rerank=[{"kind": "mmr"}]), "rerank.0", "a column, or the vectors"),
        (without(rerank=[{"kind": "mmr", "column": "g", "vectors": "a"}]), "rerank.0", "not both"),
        (without(rerank=[{"kind": "fair", "column": "b", "shares": {"x": 0.7, "y": 0.7}}]), "rerank.0.shares", "1.4"),
        (without(rerank=[{"kind": "pin", "items": ["a", "a"]}]), "rerank.0.items", "named twice"),
        (without(retrieve=[{"system": "a"}, {"system": "a"}]), "", "'a' retrieves twice"),
        (without(retrieve=[{"system": "a", "weight": 0}]), "", "weight above 0"),
        (without(retrieve=[{"system": "a"}] * 9), "retrieve", "at most 8"),
        (without(rerank=[{"kind": "cap", "column": "b"}] * 17), "rerank", "at most 16"),
        (without(retrieve=[{"system": "a", "k": 2001}]), "retrieve.0.k", "2000"),
        (without(retrieve=[{"system": "../a"}]), "retrieve.0.system", "pattern"),
        (without(name="Home Page"), "name", "pattern"),
        (without(filter=[{"kind": "where", "where": "x" * 2001}]), "filter.0.where", "2000"),
        (without(score={"system": "a", "weight": float("nan")}), "score.weight", "finite"),
        (b"{", "", "Invalid JSON"),
        (b"[]", "", "object"),
        (b" " * (LARGEST_SPEC + 1), "", "at most 256 KB"),
        (b"[" * 100_000, "", "recursion"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(spec: Any, place: str, said: str) -> None:
    found = faults(spec)
    assert place in found and said in found[place], found


def test_all_faults_are_found_at_once() -> None:
    found = faults(without(name="", pool=0, rerank=[{"kind": "cap", "most": 0}]))
    assert set(found) == {"name", "pool", "rerank.0.column", "rerank.0.most"}
