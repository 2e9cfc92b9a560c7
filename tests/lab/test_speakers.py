"""People who talk: what they want decides when they are content, nothing gives it away, and nothing is shown twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.data import split, synthetic
from tastemaker.evaluate import interact
from tastemaker.lab import recipes as lab
from tastemaker.lab.speakers import Played, names, without
from tastemaker.lab.worlds import world
from tastemaker.language.accounts import Scripted
from tastemaker.language.tasks import PersonAsked, PersonSays, Plan
from tastemaker.simulate import TalkingUsers
from tastemaker.train import fit
from tastemaker.types import Actions, Dataset, Slates, UsageError, request_seeds


def data() -> Dataset:
    return synthetic(120, n_items=80, seed=3)


def talking() -> TalkingUsers:
    environment = world("talks", data=data(), turns=4).environment
    assert isinstance(environment, TalkingUsers)
    return environment


def shown(rows: list[list[int]]) -> Actions:
    items = np.array(rows, dtype=np.int32)
    return Actions(len(rows), slates=Slates(items, np.zeros(items.shape, dtype=np.float32)))


def test_a_session_ends_with_the_target_and_what_was_refused_is_barred() -> None:
    place = talking()
    requests, state = place.reset(request_seeds(8, 0))
    targets = place.targets[state.pairs]
    assert requests.text is not None and all(requests.text)
    before = requests.exclude
    assert before is not None
    other = [next(n for n in range(80) if n != target) for target in targets]
    lists = [[int(targets[0]), 79], *[[item, -1] for item in other[1:]]]
    feedback, after, done, state = place.step(state, shown(lists))
    assert feedback.reward is not None and feedback.reward.tolist() == [1.0, *[0.0] * 7]
    assert done.tolist() == [True, *[False] * 7] and after.n == 7
    assert feedback.text is not None and feedback.text[0] == "" and all(feedback.text[1:])
    assert after.text is not None and after.text.tolist() == feedback.text[1:].tolist()
    assert after.exclude is not None
    for row in range(7):
        assert after.exclude[row].tolist() == [*before[row + 1].tolist(), other[row + 1]]
    for turn in range(3):
        _, after, done, state = place.step(state, shown([[item] for item in other[1:]]))
        assert done.all() == (turn == 2)


def test_the_same_seeds_meet_the_same_people() -> None:
    place = talking()
    whole, _ = place.reset(request_seeds(6, 1))
    part, _ = place.reset(request_seeds(6, 1)[2:4])
    assert whole.text is not None and part.text is not None
    assert whole.text[2:4].tolist() == part.text.tolist()
    assert place.identity == talking().identity != world("talks", data=data(), turns=5).environment.identity


def test_nobody_says_the_title() -> None:
    place = talking()
    titles = data().items["title"].to_list()
    requests, state = place.reset(request_seeds(40, 2))
    for _ in range(3):
        assert requests.text is not None
        for text, target in zip(requests.text, place.targets[state.pairs], strict=True):
            assert titles[target].casefold() not in text.casefold()
        nothing = shown([[-1]] * requests.n)
        _, requests, _, state = place.step(state, nothing)


def test_an_agent_that_listens_finds_more_than_one_that_does_not() -> None:
    parts = split(data(), "leave-one-out")
    place = world("talks", data=data(), turns=5).environment
    how: dict[str, Any] = {"turns": 5, "sessions": 60, "seeds": (0,), "k": 5, "at": (5,)}
    listens = interact(fit("interecagent", parts, {"ranker": "popularity"}), place, **how)
    deaf = interact(fit("popularity", parts), place, **how)
    assert listens.value("success@5") > deaf.value("success@5") + 0.15


def test_played_people_are_asked_again_until_the_title_is_kept_back() -> None:
    table = data().items
    title = str(table["title"][5])
    said: list[PersonAsked] = []

    def answer(given: PersonAsked) -> PersonSays:
        said.append(given)
        return PersonSays(text=f"I want {title.upper()}!" if given.again < 2 else "Something calm.")

    person = Played(Scripted(person=answer), table)
    text, mind = person.opens(5, [1, 2], 0)
    assert text == "Something calm." and [one.again for one in said] == [0, 1, 2]
    assert said[0].history == (table["title"][1], table["title"][2]) and said[0].title == title
    assert "title" not in said[0].facts and "item" not in said[0].facts and said[0].facts
    text, mind = person.hears(mind, [7], "How about this?")
    assert said[3].shown == (table["title"][7],) and [turn.text for turn in said[3].dialogue][-1] == "How about this?"
    stubborn = Played(Scripted(person=lambda given: PersonSays(text=f"It is {title}, give me {title}.")), table)
    text, _ = stubborn.opens(5, [], 0)
    assert not names(text, title) and text.startswith("It is something")


@pytest.mark.parametrize(
    ("text", "title", "found"),
    [
        ("have you got the quiet orchard?", "The Quiet Orchard", True),
        ("an orchard, quietly", "The Quiet Orchard", False),
        ("Twelve MONKEYS please", "Twelve Monkeys (1995)", True),
        ("it came out", "It", True),
        ("the writer sits", "It", False),
        ("anything", "", False),
    ],
)
def test_what_names_a_title(text: str, title: str, found: bool) -> None:
    assert names(text, title) == found
    if found:
        assert not names(without(text, title), title)


def test_a_recipe_with_a_model_says_what_is_missing_and_tells_what_it_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "get", lambda name, folder=None: data())
    (tmp_path / "talks.toml").write_text(
        'title = "x"\ndataset = "synthetic"\nsplit = "leave-one-out"\nprotocol = "interactive"\nworld = "talks"\n'
        'environment = { played = true }\nendpoint = true\nturns = 2\nsessions = 3\nk = 7\nks = [1, 2]\n'
        'metrics = ["success", "turns"]\n[[systems]]\nname = "popularity"\n'
        '[[systems]]\nname = "interecagent"\nconfig = { ranker = "popularity", profile_every = 0 }\n'
        '[[systems]]\nname = "interecagent"\nlabel = "rules"\nconfig = { ranker = "popularity" }\nchat = false\n'
    )  # fmt: skip
    recipe = lab.named("talks", tmp_path)
    with pytest.raises(UsageError, match="a language model takes part"):
        lab.run(recipe, results=tmp_path)
    chat = Scripted(
        person=lambda given: PersonSays(text="Something calm, please."), plan=lambda given: Plan(answer="What else?")
    )
    told = lab.run(recipe, results=tmp_path, runs=tmp_path / "runs", chat=chat)
    asked = {name: one["runs"][0]["asked"] for name, one in told["systems"].items()}
    assert asked["interecagent"]["plan"]["calls"] == 6 and "plan" not in asked["rules"]
    assert asked["popularity"]["person"]["calls"] == asked["rules"]["person"]["calls"] >= 3
    assert told["systems"]["interecagent"]["metrics"]["turns"] == 2
    again = lab.run(recipe, results=tmp_path, runs=tmp_path / "runs", chat=Scripted())
    for name, one in again["systems"].items():
        assert one["metrics"] == told["systems"][name]["metrics"], "every answer is there still"
        assert all(spent["cached"] == spent["calls"] for spent in one["runs"][0]["asked"].values())
    assert "lists of 7" in told["protocol"] and (tmp_path / "runs/talks/interecagent/0/talks.jsonl").is_file()


def test_played_people_need_a_model() -> None:
    with pytest.raises(UsageError, match="none is given"):
        world("talks", {"played": True}, data=data())
    chat = Scripted(person=lambda given: PersonSays(text="Hello."))
    place = world("talks", {"played": True}, data=data(), chat=chat).environment
    requests, _ = place.reset(request_seeds(2, 0))
    assert requests.text is not None and requests.text.tolist() == ["Hello.", "Hello."]
