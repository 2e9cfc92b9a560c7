"""Invented dialogues: what is said is true of the target, never its title; the sets of phrasings share nothing."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.dialogues import PHRASINGS, Fact, Person, dialogues, with_dialogues
from tastemaker.data.sources.dialogues import SETS, read_talk
from tastemaker.data.synthetic import World
from tastemaker.types import Dataset, NotFound, UsageError


@pytest.fixture(scope="module")
def data() -> Dataset:
    return World(n_users=60, n_items=300, seed=2).dataset()


def holds(fact: Fact, row: dict[str, Any], act: str = "") -> bool:
    value = row[fact.column]
    if isinstance(fact.value, str):
        return fact.value in value if isinstance(value, list) else value == fact.value
    if fact.sign == "=":
        return bool(fact.value <= value <= fact.value + 9)  # a decade
    return bool(value <= fact.value if fact.sign == "<=" else value >= fact.value)


def test_the_sets_of_phrasings_share_none_and_say_the_same_things() -> None:
    known, held = PHRASINGS["known"], PHRASINGS["held out"]
    assert known.keys() == held.keys()
    fields = lambda form: {name for _, name, _, _ in string.Formatter().parse(form) if name}  # noqa: E731
    for act in known:
        assert not {form.lower() for form in known[act]} & {form.lower() for form in held[act]}
        needed = {name for form in known[act] for name in fields(form)} - {"noun", "title", "unit", "column"}
        assert all(needed <= fields(form) for form in (*known[act], *held[act])), act


@pytest.mark.parametrize("phrasing", ["known", "held out"])
def test_a_person_says_what_is_true_and_never_the_title(data: Dataset, phrasing: Any) -> None:
    refused = accepted = told = 0
    for target in range(0, 300, 10):
        row = data.items.row(target, named=True)
        person = Person.of(data.items, target, liked=[1, 2, target], seed=target, phrasing=phrasing)
        assert row["title"] not in person.liked
        said, person = person.opens()
        for turn in range(5):
            assert row["title"] not in said.text and said.text.strip()
            assert all(holds(fact, row) for fact in said.facts), (said, row)
            assert not any(holds(fact, row) for fact in said.unwanted)
            told += len(said.facts)
            shown = [str(data.items["title"][(target + 7 * turn + n) % 300]) for n in range(1, 4)]
            said, person = person.hears(shown)
            refused += any(role in ("refuse", "seen") and title in shown for title, role in said.titles)
        said, person = person.hears([*shown, row["title"]])
        accepted += said.accepts
    assert accepted == 30 and told > 100 and refused > 5


def test_a_person_answers_what_is_asked_and_depends_on_the_seed_alone(data: Dataset) -> None:
    person = Person.of(data.items, 5, seed=1)
    said, later = person.answers("year")
    assert [fact.column for fact in said.facts] == ["year"]
    again, _ = later.answers("year")
    assert not again.facts and "mind" in again.text
    assert person.opens() == Person.of(data.items, 5, seed=1).opens() != Person.of(data.items, 5, seed=2).opens()
    with pytest.raises(NotFound, match="numbered from 0 to 299"):
        Person.of(data.items, 300)
    with pytest.raises(NotFound, match="no column 'name'"):
        Person.of(data.items, 0, title="name")
    with pytest.raises(UsageError, match="known, held out"):
        Person.of(data.items, 0, phrasing="unheard")  # type: ignore[arg-type]


def test_dialogues_join_the_dataset(data: Dataset, tmp_path: Any) -> None:
    joined = with_dialogues(data, 25, seed=3)
    table = joined.dialogues
    assert table is not None and "dialogues" in joined.carries() and joined.fingerprint != data.fingerprint
    assert table["dialogue"].n_unique() == 25 and set(table["speaker"]) == {"person", "system"}
    assert table.equals(dialogues(data, 25, seed=3)) and not table.equals(dialogues(data, 25, seed=4))
    last = table.filter(pl.col("speaker") == "system").group_by("dialogue", maintain_order=True).last()
    assert last.select(pl.col("items").list.contains(pl.col("target")).all()).item(), "the target is shown at last"
    assert table.group_by("dialogue").agg(pl.col("accepts").sum())["accepts"].to_list() == [1] * 25
    history = data.histories()
    for user, target in table.select("user", "target").unique().iter_rows():
        chosen = history.values["item"][history.offsets[user] : history.offsets[user + 1]]
        assert chosen[-1] == target
    again = Dataset.load(joined.save(tmp_path / "d"))
    assert again.dialogues is not None and again.dialogues.equals(table)
    alone = data.with_events(data.events.unique("user", keep="first"))
    with pytest.raises(UsageError, match="nobody"):
        dialogues(alone, 5)


@pytest.mark.parametrize("name", list(SETS))
def test_dialogues_of_people_are_read_with_their_links(name: str, shared_data: Any) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"{name} is not at {shared_data}")
    talk = read_talk(name, shared_data / name)
    assert talk.dialogues["dialogue"].n_unique() > 1_000 and talk.catalogue["title"].n_unique() > 2_000
    assert {"test", "valid"} <= set(talk.dialogues["split"])
    assert not talk.dialogues.select(pl.struct("split", "dialogue").is_duplicated().any()).item()
    titles = set(talk.catalogue["title"])
    linked = talk.dialogues["names"].explode().drop_nulls().to_list()
    assert np.mean([one in titles for one in linked]) > 0.3
    with pytest.raises(NotFound, match="holds no dialogues"):
        read_talk(name, shared_data)
    with pytest.raises(NotFound, match="opendialkg"):
        read_talk("opendialog", shared_data)
