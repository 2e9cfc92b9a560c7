"""Around a chat model: doubles, records that play back, caches by content, accounts; and the data block of a prompt."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.contracts import ChatModel
from tastemaker.language.accounts import Cached, Counted, Record, Replay, Scripted
from tastemaker.language.prompts import CLOSE, LONGEST, OPEN, TASKS, content_key, render
from tastemaker.language.tasks import Judged, Plan, PlanAsked, Reply, ReplyAsked, Show, Turn, Verdict
from tastemaker.types import DataError, NotFound, UsageError

ONE, TWO = Plan(steps=(Show(k=1),)), Plan(steps=(Show(k=2),))


def test_a_script_answers_in_turn_or_by_a_function_and_no_further() -> None:
    chat: ChatModel = Scripted(
        plan=[ONE, {"steps": [{"tool": "map", "k": 2}]}], reply=lambda asked: Reply(text=asked.text)
    )
    assert chat.run("plan", PlanAsked(text="x"), Plan) == ONE
    assert chat.run("plan", PlanAsked(text="x"), Plan) == TWO
    assert chat.run("reply", ReplyAsked(text="said"), Reply) == Reply(text="said")
    with pytest.raises(UsageError, match="no further answer to the task 'plan'"):
        chat.run("plan", PlanAsked(text="x"), Plan)
    with pytest.raises(NotFound, match="critic"):
        chat.run("critic", Judged(text="x"), Verdict)
    with pytest.raises(UsageError, match="out of order"):
        Scripted(plan=[UsageError("out of order")]).run("plan", PlanAsked(text="x"), Plan)


def test_a_record_plays_back_by_content(tmp_path: Path) -> None:
    file = tmp_path / "talk" / "a.jsonl"
    inner = Scripted(plan=[ONE, TWO, ONE], reply=lambda _: Reply(text="é\u2028\n"))
    recorded = Record(inner, file)
    first, second = PlanAsked(text="a"), PlanAsked(text="b", dialogue=(Turn(who="person", text="x"),))
    answers = [recorded.run("plan", asked, Plan) for asked in (first, first, second)]
    recorded.run("reply", ReplyAsked(text="a"), Reply)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "what people wrote is its owner's alone"
    played = Replay(file)
    assert played.identity == inner.identity
    assert [played.run("plan", asked, Plan) for asked in (second, first, first)] == [ONE, *answers[:2]]
    assert played.run("plan", first, Plan) == TWO, "the last answer stays"
    assert played.run("reply", ReplyAsked(text="a"), Reply).text == "é\u2028\n"
    with pytest.raises(NotFound, match="has no answer to this question"):
        played.run("plan", PlanAsked(text="c"), Plan)
    file.write_text(file.read_text() + "{not json\n")
    with pytest.raises(DataError, match=r"a\.jsonl:5"):
        Replay(file)
    with pytest.raises(NotFound, match="no recording"):
        Replay(tmp_path / "none.jsonl")


def test_a_cache_knows_the_model_the_task_what_is_given_and_what_is_wanted(tmp_path: Path) -> None:
    inner = Scripted(plan=[ONE, TWO])
    chat = Cached(inner, tmp_path)
    asked = PlanAsked(text="x")
    assert chat.run("plan", asked, Plan) == chat.run("plan", asked, Plan) == ONE
    assert len(inner.asked) == 1 and chat.account()["plan"].cached == 1
    (file,) = tmp_path.rglob("*.json")
    assert "x" not in json.loads(file.read_text()), "the answer is kept, not the question"
    file.write_text("{broken")
    assert chat.run("plan", asked, Plan) == TWO, "a damaged answer is asked for anew"
    keys = {
        content_key("m", "plan", asked, Plan),
        content_key("n", "plan", asked, Plan),
        content_key("m", "critic", asked, Plan),
        content_key("m", "plan", PlanAsked(text="y"), Plan),
        content_key("m", "plan", asked, Verdict),
    }
    assert len(keys) == 5


def test_accounts_add_up_over_failures() -> None:
    chat = Counted(Scripted(plan=[ONE, UsageError("no"), TWO]))
    for _ in range(3):
        try:
            chat.run("plan", PlanAsked(text="x"), Plan)
        except UsageError:
            continue
    spent = chat.account()["plan"]
    assert (spent.calls, spent.failures) == (3, 1) and 0 < spent.seconds < 1
    assert chat.total().calls == 3 and Counted(Scripted()).total().calls == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4), st.text(max_size=200))
def test_no_text_leaves_the_block_of_data(shown: list[str], text: str) -> None:
    prompt = render("plan", PlanAsked(text=text, shown=tuple(shown)))
    assert prompt.instructions == render("plan", PlanAsked(text="")).instructions
    first, block, last = prompt.message.split("\n")
    assert (first, last) == (OPEN, CLOSE)
    assert block.isprintable() and "<" not in block
    told = json.loads(block)
    assert [told["text"], *told["shown"]] == [text, *shown], "and the model reads what was written"


def test_long_texts_are_cut_and_every_task_has_words() -> None:
    block = json.loads(render("plan", PlanAsked(text="x" * 1_000_000)).message.split("\n")[1])
    assert len(block["text"]) == LONGEST
    assert {"plan", "reply", "critic", "profile"} <= set(TASKS)
