"""An entry answers in a batch what it answers alone, as the library answers, whatever stands beside a question."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tastemaker.serve.entry import Entry
from tastemaker.serve.questions import Answer, Past, Question
from tastemaker.types import CapabilityError, NotFound, UsageError

NAMES = ("ials", "ease", "popularity")


@pytest.fixture(params=NAMES)
def entry(request: pytest.FixtureRequest, bundles: dict[str, Any]) -> Entry:
    return Entry(request.param, bundles[request.param], snapshot="first")


def questions(entry: Entry) -> list[Question]:
    users, items = entry.bundle.users.series.to_list(), entry.ids
    return [
        Question(user=users[0]),
        Question(user=users[1], k=3, where="price < 10"),
        Question(user="nobody", history=(items[5], items[6]), k=5),
        Question(),
        Question(user=users[2], candidates=tuple(items[:40]), k=7),
        Question(user=users[0], recent=(Past(items[9], 10**15),), hidden=(items[3],), k=4),
        Question(user=users[3], exclude=(items[0], "unheard of"), seen=True, k=20, explain=True),
        Question(history=("unheard of",), k=2, skip=2),
    ]


def answer(entry: Entry, question: Question) -> Answer:
    [found] = entry.answer([question])
    assert isinstance(found, Answer), found
    return found


def test_a_batch_answers_what_each_question_gets_alone(entry: Entry) -> None:
    asked = questions(entry)
    together = entry.answer(asked)
    for question, found in zip(asked, together, strict=True):
        assert isinstance(found, Answer)
        alone = answer(entry, question)
        assert (found.items, found.scores, found.more) == (alone.items, alone.scores, alone.more)
        assert found.reasons == alone.reasons
        assert len(set(found.items)) == len(found.items) <= question.k


def test_lists_are_those_of_the_library(entry: Entry) -> None:
    user = entry.bundle.users.series[0]
    rows = entry.bundle.recommend([user], k=10)
    assert answer(entry, Question(user=user)).items == rows["item"].to_list()
    filtered = entry.bundle.recommend([user], k=10, filter="price < 8", exclude=[rows["item"][0]])
    asked = Question(user=user, where="price < 8", exclude=(rows["item"][0],))
    assert answer(entry, asked).items == filtered["item"].to_list()


def test_what_a_user_chose_or_hid_since_does_not_come_again(entry: Entry) -> None:
    user = entry.bundle.users.series[0]
    first = answer(entry, Question(user=user)).items
    after = answer(entry, Question(user=user, recent=(Past(first[0], 1),), hidden=(first[1],))).items
    assert first[0] not in after and first[1] not in after
    again = answer(entry, Question(user=user, recent=(Past(first[0], 1),), hidden=(first[1],), seen=True)).items
    assert first[1] not in again, "hidden stays hidden, even where seen items may come"


def test_a_choice_moves_the_list_of_a_system_that_reads_histories(bundles: dict[str, Any]) -> None:
    entry = Entry("ease", bundles["ease"], snapshot="first")
    items = entry.ids
    one, other = (answer(entry, Question(history=(item,))).items for item in (items[0], items[50]))
    assert one != other


def test_a_system_is_told_when_it_is_asked(bundles: dict[str, Any]) -> None:
    entry = Entry("ease", bundles["ease"], snapshot="first")
    before = time.time_ns() // 1000
    now = entry.requests([Question(), Question(user=entry.bundle.users.series[0])]).now
    if bundles["ease"].schema.time_unit == "us":
        assert now is not None and (now >= before).all() and (now <= time.time_ns() // 1000).all()
    else:
        assert now is None, "where the data has no clock, the moment of asking has no number"


def test_pages_join_to_the_whole_list(entry: Entry) -> None:
    user = entry.bundle.users.series[4]
    whole = answer(entry, Question(user=user, k=12))
    pages = [answer(entry, Question(user=user, k=4, skip=skip)) for skip in (0, 4, 8)]
    assert [item for page in pages for item in page.items] == whole.items
    allowed = answer(entry, Question(user=user, k=500))
    assert not allowed.more and whole.more


def test_a_question_that_cannot_be_answered_harms_no_neighbour(entry: Entry) -> None:
    good = Question(user=entry.bundle.users.series[0], candidates=tuple(entry.ids[:10]))
    found = entry.answer([good, replace(good, candidates=("unheard of",)), good, Question(where="no_column > 1")])
    assert isinstance(found[0], Answer) and isinstance(found[2], Answer)
    assert isinstance(found[1], NotFound) and "unheard of" in found[1].message
    assert isinstance(found[3], NotFound) and "no_column" in found[3].message


def test_scores_order_as_lists_do(bundles: dict[str, Any]) -> None:
    entry = Entry("ials", bundles["ials"], snapshot="first")
    user = entry.bundle.users.series[0]
    listed = answer(entry, Question(user=user, k=5))
    assert entry.score(Question(user=user), listed.items) == pytest.approx(listed.scores, abs=1e-5)
    turned = entry.rerank(Question(user=user), listed.items[::-1])
    assert [item for item, _ in turned] == listed.items
    with pytest.raises(UsageError, match="once"):
        entry.rerank(Question(user=user), [listed.items[0]] * 2)


def test_an_item_is_not_similar_to_itself_and_the_predicate_holds(entry: Entry) -> None:
    item = entry.ids[7]
    found = entry.similar(item, 8, "year > 1995")
    years = dict(zip(entry.ids, entry.catalogue["year"].to_list(), strict=True))
    assert found and item not in dict(found)
    assert all(years[near] > 1995 for near, _ in found)
    with pytest.raises(NotFound, match="unheard of"):
        entry.similar("unheard of", 3)


def test_reasons_rest_on_the_history(bundles: dict[str, Any]) -> None:
    entry = Entry("ials", bundles["ials"], snapshot="first")
    user = entry.bundle.users.series[0]
    past = set(entry.history(user))
    reasons = answer(entry, Question(user=user, explain=True)).reasons
    assert reasons is not None and any(reasons)
    assert all(reason.because_of[0] in past for reason in reasons if reason is not None)
    nobody = answer(entry, Question(explain=True)).reasons
    assert nobody is not None and not any(nobody), "nothing is invented for somebody without a history"


def test_a_popularity_list_gives_no_reasons(bundles: dict[str, Any]) -> None:
    entry = Entry("popularity", bundles["popularity"], snapshot="first")
    assert "explain" not in entry.capabilities
    with pytest.raises(CapabilityError, match="no reasons"):
        entry.explain(Question(), entry.ids[:2])
