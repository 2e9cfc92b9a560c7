"""InteRecAgent with the embedded planner, in talks with invented people who have one film in mind.

python benchmarks/agent.py                      writes benchmarks/results/agent.json
python benchmarks/agent.py --worlds 1 --people 40 --turns 100
python benchmarks/agent.py --url http://127.0.0.1:8000/v1 --model NAME      a language model too: agent-endpoint.json

A world is 1,500 users and 2,000 films, a draw for each seed. Systems are fitted on the training part; a person's film
in mind is the first one they chose in the test part, and five they chose before are what they may say they like. People
speak in phrasings the planner's rules were not made with (`data/dialogues.py`), one or two facts a turn, never the
title; they refuse, and say more, until the film is among the five that are shown, or five turns are over. All systems
talk with the same people and may show nothing that the person chose before. "Popularity" and "text search" show the
next five of their order every turn; the search is by words weighed by rarity over all texts of a film, asked with the
first message alone ("one shot") or with all that was said so far. Intervals are over people, bootstrap; differences are
paired. Long talks are of 20 turns with people who are never content; they are for what is shown and how long it takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from common import page_table, write
from numpy.typing import NDArray

from tastemaker.contracts import Resources
from tastemaker.data import split
from tastemaker.data.dialogues import Person
from tastemaker.data.synthetic import World
from tastemaker.evaluate import bootstrap
from tastemaker.language.accounts import Counted
from tastemaker.language.chat import open_chat
from tastemaker.language.text import TfidfSvd, fit_text, item_texts
from tastemaker.train import fit
from tastemaker.types import Feedback, Jagged, Requests, progress

TURNS, K = 5, 5
Lists = Callable[[list[str]], list[int]]


class Talk:
    """One system with one person: `says` what it heard, gives a list."""

    def __init__(self, system: Any, request: Requests) -> None:
        self.system, self.request, self.session = system, request, None

    def __call__(self, said: list[str]) -> list[int]:
        text = np.array([said[-1]], dtype=object)
        if self.session is None:
            [self.session] = self.system.begin(self.request.with_(text=text))
        else:
            [self.session] = self.system.observe([self.session], Feedback(self.request, text=text))
        actions, [self.session] = self.system.act([self.session])
        row = actions.slates.items[0]
        return row[row >= 0].tolist()


class InOrder:
    """The next K of an order every turn, what may not be shown left out; the order may follow from what was said."""

    def __init__(self, order: Callable[[list[str]], NDArray[Any]], barred: NDArray[Any]) -> None:
        self.order, self.barred, self.shown = order, set(barred.tolist()), list[int]()

    def __call__(self, said: list[str]) -> list[int]:
        row = [n for n in self.order(said).tolist() if n not in self.barred and n not in self.shown][:K]
        self.shown += row
        return row


def world(seed: int, sessions: int, advance: Any, chat: Any = None) -> dict[str, dict[str, list[Any]]]:
    """Every system's talks: turn of the hit (0: none), milliseconds of each turn, items outside what may be shown."""
    data = World(n_users=1500, n_items=2000, seed=seed).dataset()
    parts = split(data, "ratio:0.8,0,0.2", seed=seed)
    cases = parts.cases("test")
    names = {
        "agent": {},
        "agent, ranking by popularity": {"ranker": "popularity"},
    }
    agents = {label: fit("interecagent", parts.train, config, seed=seed).system for label, config in names.items()}
    if chat is not None:  # the same agent, its plans and words by a language model
        resources = Resources(chat=chat)
        agents["agent, by a language model"] = fit("interecagent", parts.train, seed=seed, resources=resources).system
    popular = agents["agent"].agent.most_chosen
    texts = item_texts(data.items)
    encoder = TfidfSvd.of(fit_text(texts, 200))
    vectors = encoder.encode(texts)
    titles = data.items["title"].to_list()
    rng = np.random.default_rng(seed)

    def search(said: list[str]) -> NDArray[Any]:
        return np.argsort(-(vectors @ encoder.encode([" ".join(said)])[0]), kind="stable")

    found: dict[str, dict[str, list[Any]]] = {}
    rows = rng.permutation(len(cases))[:sessions]
    for row in rows.tolist():
        one = cases.take(slice(row, row + 1))
        target = int(one.targets.values[0])
        request = one.requests
        barred = request.exclude.values if request.exclude is not None else np.zeros(0, dtype=np.int32)
        liked = request.items().values[-5:].tolist()
        chance = rng.permutation(data.n_items)
        systems: dict[str, Lists] = {
            **{label: Talk(system, request) for label, system in agents.items()},
            "popularity": InOrder(lambda _: popular, barred),
            "text search, one shot": InOrder(lambda said: search(said[:1]), barred),
            "text search, all that was said": InOrder(search, barred),
            "random": InOrder(lambda _, chance=chance: chance, barred),
        }
        for label, shows in systems.items():
            kept = found.setdefault(label, {"hit": [], "ms": [], "outside": [], "shown": []})
            person = Person.of(data.items, target, liked=liked, seed=seed * 100_003 + row, phrasing="held out")
            said: list[str] = []
            hit = 0
            answer, person = person.opens()
            for turn in range(1, TURNS + 1):
                said.append(answer.text)
                start = time.perf_counter()
                listed = shows(said)
                kept["ms"].append(1000 * (time.perf_counter() - start))
                kept["shown"].append(len(listed))
                wrong = [n for n in listed if not 0 <= n < data.n_items or n in set(barred.tolist())]
                kept["outside"].append(len(wrong) + len(listed) - len(set(listed)))
                if target in listed:
                    hit = turn
                    break
                answer, person = person.hears([titles[n] for n in listed])
            kept["hit"].append(hit)
        advance(1)
    return found


def talked_on(turns: int, length: int = 20) -> dict[str, Any]:
    """Turns with people who are never shown what they have in mind, however long they talk."""
    data = World(n_users=1500, n_items=2000, seed=1_000).dataset()
    system = fit("interecagent", data).system
    titles = data.items["title"].to_list()
    rng = np.random.default_rng(0)
    took, outside, listed, empty = [], 0, 0, 0
    with progress("turns", turns) as advance:
        while len(took) < turns:
            target, liked = int(rng.integers(data.n_items)), rng.integers(0, data.n_items, 5).tolist()
            barred = rng.choice(data.n_items, 50, replace=False).astype(np.int32)
            person = Person.of(data.items, target, liked=liked, seed=len(took), phrasing="held out")
            talk = Talk(system, Requests.of_items([liked], exclude=Jagged.from_lists([barred], dtype=np.int32)))
            answer, person = person.opens()
            for _ in range(length):
                start = time.perf_counter()
                row = talk([answer.text])
                took.append(1000 * (time.perf_counter() - start))
                wrong = not set(row) <= set(range(data.n_items)) - set(barred.tolist()) or len(set(row)) < len(row)
                outside, listed, empty = outside + wrong, listed + len(row), empty + (not row)
                answer, person = person.hears([titles[n] for n in row if n != target])
            advance(length)
    p50, p99 = np.quantile(took[20:], [0.5, 0.99])
    return {
        "turns": len(took),
        "items shown": listed,
        "lists with an item outside": outside,
        "empty lists": empty / len(took),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


def measured(worlds: int, sessions: int, chat: Any = None) -> list[dict[str, Any]]:
    total: dict[str, dict[str, list[Any]]] = {}
    with progress("people", worlds * sessions) as advance:
        for seed in range(worlds):
            for label, kept in world(seed, sessions, advance, chat).items():
                for name, values in kept.items():
                    total.setdefault(label, {}).setdefault(name, []).extend(values)
    hits = {label: np.array(kept["hit"]) for label, kept in total.items()}
    rows = []
    for label, kept in total.items():
        hit = hits[label]
        success = (hit > 0).astype(np.float64)
        difference = success - (hits["popularity"] > 0)
        beyond = success - (hits["text search, one shot"] > 0)
        ends = {name: [float(end[0]) for end in bootstrap(v)] for name, v in
                (("sr", success), ("popularity", difference), ("search", beyond))}  # fmt: skip
        rows.append(
            {
                "system": label,
                "people": len(hit),
                "turns": len(kept["ms"]),
                "success@1": float((hit == 1).mean()),
                "success@5": float(success.mean()),
                "success@5 from": ends["sr"][0],
                "success@5 to": ends["sr"][1],
                "average turn": float(np.where(hit > 0, hit, TURNS + 1).mean()),
                "beyond popularity": [float(difference.mean()), *ends["popularity"]],
                "beyond one-shot search": [float(beyond.mean()), *ends["search"]],
                "items outside": int(np.sum(kept["outside"])),
                "median ms": float(np.median(kept["ms"])),
                "p99 ms": float(np.quantile(kept["ms"], 0.99)),
                "empty lists": float(np.mean(np.array(kept["shown"]) == 0)),
            }
        )
    return rows


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "system": one["system"],
            "found at once": f"{one['success@1']:.3f}",
            "within 5 turns": f"{one['success@5']:.3f} ({one['success@5 from']:.3f} to {one['success@5 to']:.3f})",
            "mean turn, 6: never": f"{one['average turn']:.2f}",
            "beyond popularity": "{:+.3f} ({:+.3f} to {:+.3f})".format(*one["beyond popularity"]),
            "beyond one-shot search": "{:+.3f} ({:+.3f} to {:+.3f})".format(*one["beyond one-shot search"]),
            "median ms a turn": f"{one['median ms']:.1f}",
        }
        for one in found["systems"]
    ]
    long = found["long talks"]
    people = found["systems"][0]["people"]
    note = (
        f"{people:,} people. In {long['turns']:,} turns of long talks {long['items shown']:,} items were shown; "
        f"{long['lists with an item outside']} lists held one outside the catalogue or of what may not be shown. "
        f"A turn's median is {long['p50_ms']:.0f} ms, its p99 {long['p99_ms']:.0f} ms, one core."
    )
    return [page_table("InteRecAgent with the embedded planner, invented people", rows, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--people", type=int, default=150, help="people a world")
    parser.add_argument("--turns", type=int, default=10_000, help="turns of long talks")
    parser.add_argument("--url", help="an OpenAI-compatible endpoint, up to /v1")
    parser.add_argument("--model", help="the model to ask for there")
    parser.add_argument("--key-variable", default="", help="environment variable that holds the key")
    given = parser.parse_args()
    endpoint = open_chat(given.url, given.model, given.key_variable)
    chat = None if endpoint is None else Counted(endpoint)
    found = {"systems": measured(given.worlds, given.people, chat), "long talks": talked_on(given.turns)}
    if chat is not None:
        found |= {"model": given.model, "spent": {task: asdict(spent) for task, spent in chat.account().items()}}
    print(write("agent" if chat is None else "agent-endpoint", found, tables(found)))


if __name__ == "__main__":
    main()
