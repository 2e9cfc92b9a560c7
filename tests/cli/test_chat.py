"""The command `chat`: a conversation through a pipe, a message or a command a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("fastapi")
from tests.serve.talking import Talker, entry

from tastemaker.cli.app import app
from tastemaker.cli.chat import plain


@pytest.fixture(scope="module")
def bundle() -> Any:
    from tastemaker.data import synthetic
    from tastemaker.train import fit

    return fit("popularity", synthetic(120, seed=1))


@pytest.fixture
def say(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """say(lines, *options) -> what the command answers; any folder opens as the double."""
    from tastemaker.serve import entry as module

    def opened(folder: str | Path, name: str | None = None, resources: Any = None) -> Any:
        return entry(bundle, name or Path(folder).name)

    monkeypatch.setattr(module, "opened", opened)

    def run(*lines: str, options: tuple[str, ...] = ()) -> Result:
        return CliRunner().invoke(app, ["chat", "somewhere/talker", *options], input="\n".join(lines) + "\n")

    return run


def test_a_conversation_through_a_pipe(say: Any, bundle: Any) -> None:
    done = say("a film with a dog", "comedy", ":like 1", "another", ":profile")
    assert done.exit_code == 0, done.output
    text = done.stdout
    comedies = bundle.catalogue.filter(bundle.catalogue["genres"].list.contains("comedy"))["title"].to_list()
    assert "Which genre?" in text and "? genres: comedy, drama" in text
    assert f"1. {comedies[0]}" in text, "a value of the question is its answer, and no text"
    assert "Some comedy, since you said: a film with a dog" in text
    second = text[text.index("since you said: another") :]
    assert f"1. {comedies[1]}" in second, "what was liked is known to the next turn"
    assert f"liked: {comedies[0]}" in second and "wishes: a film with a dog; another" in second
    assert "look-up" not in text, "steps are shown where they are asked for"


def test_steps_corrections_and_a_new_beginning(say: Any) -> None:
    text = say(
        "one", "no", ":profile wishes with cats; old", ":forget", ":profile", ":anew", "two", ":profile",
        options=("--steps",),
    ).stdout  # fmt: skip
    assert "look-up: one -> " in text and "unwanted: comedy; drama" in text, "no: none of the values"
    assert "wishes: with cats; old" in text
    after = text[text.index("wishes: with cats; old") :]
    assert "wishes: -" in after and after.rstrip().endswith("wishes: two"), "a new session knows nothing of the other"


def test_json_has_an_event_a_line(say: Any) -> None:
    lines = [json.loads(line) for line in say("one", options=("--json",)).stdout.splitlines()]
    assert [line["event"] for line in lines] == ["step", "step", "step", "words", "ask", "profile"]
    assert lines[4]["values"] == ["comedy", "drama"] and lines[5]["profile"]["wishes"] == ["one"]


def test_what_is_wrong_is_said_and_ends_a_pipe(say: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for lines, says in [((":profil",), ":profil"), (("one", ":like 3"), "which item"), (("fail",), "out of order")]:
        done = say(*lines, "never reached")
        assert done.exit_code != 0 and says in str(done.exception) and "never reached" not in done.stdout
    assert "no bundle named" in str(say("one", options=("--system", "other")).exception)
    from tastemaker.serve import entry as module
    from tastemaker.serve.entry import Entry

    monkeypatch.setattr(module, "opened", lambda folder, name=None, resources=None: Entry("p", bundle, snapshot="s"))
    assert "holds sessions" in str(say("one").exception)


def test_a_terminal_takes_no_orders_from_texts(bundle: Any) -> None:
    from tastemaker.serve.turns import Talk

    assert plain("a\x1b[31mred\x07\u202e\nb") == "a[31mred\nb"
    talk = Talk(entry(bundle, kind=Talker))
    assert talk.profile() == {}
    talk.correct({"wishes": ["x"]})  # nothing to correct yet
    heard = dict(talk.say("one"))
    assert heard["words"]["text"] == "Which genre?"
    state = talk.state
    telling = talk.say("two")
    next(telling)
    telling.close()
    assert talk.state is state, "a turn that is left changes nothing"
