"""A session with a system that asks, through the server: questions, answers, a list, a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient

from tastemaker.serve.app import create_app
from tastemaker.serve.entry import Entry
from tastemaker.train import fit
from tastemaker.types import Dataset

CONFIG = {"columns": ("genres",), "policy": "max-entropy", "epochs": 1, "dim": 8, "attribute_task": False, "k": 3}


def test_a_person_is_asked_until_a_list_is_worth_a_turn(data: Dataset, make: Callable[..., Any]) -> None:
    bundle = fit("ear", data, CONFIG, refit=False)
    runtime = make()
    runtime.put(Entry("ear", bundle, snapshot="first"))
    genres = dict(zip(data.items["item"], data.items["genres"].to_list(), strict=True))
    with TestClient(create_app(runtime)) as client:
        turn = client.post("/act", json={"system": "ear", "user": bundle.users.series[0]}).json()
        wanted, asked, shown = "f000007", [], []
        for _ in range(25):
            told: dict[str, Any] = {"session": turn["session"]}
            if turn["ask"] is not None:
                assert turn["ask"]["attribute"] == "genres" and not turn["items"]
                [value] = turn["ask"]["values"]
                assert value not in asked, "nothing is asked twice"
                asked.append(value)
                told["answer"] = {
                    "attribute": "genres",
                    "value": value,
                    "reply": ("no", "yes")[value in genres[wanted]],
                }
            else:
                items = [row["item"] for row in turn["items"]]
                assert not set(items) & set(shown), "what was refused does not come back"
                confirmed = set(asked) & set(genres[wanted])
                assert all(confirmed <= set(genres[item]) for item in items)
                shown += items
                told["events"] = [{"item": item, "kind": "hide", "slate": turn["slate"]} for item in items]
                if not items or len(shown) > 6:
                    break
            turn = client.post("/act", json=told).json()
        assert asked and shown
