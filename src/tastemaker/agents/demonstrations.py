"""Requests and the plans that answer them: the few that are most like a request are shown to whoever plans.

Requests say {item} and {items}, in the place of which the word of the catalogue's domain comes ("film", "game"); items
are ITEM A, ITEM B, and a value of a column VALUE, so that nothing of one domain is taken for a fact of another.

    shown = Demonstrations(SEEDS, domain="film").nearest("something like Alien, but cheaper", 3)

More come from a file of JSON lines, each {"request": ..., "plan": {"steps": [{"tool": "map", "k": 5}]}}; they are
checked as any plan is, so a file from a stranger brings examples and nothing that runs.

Ref: dynamic demonstrations, section 4.4 of Huang et al., arXiv:2308.16505. The examples are our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tastemaker.agents.bus import PRIORITY
from tastemaker.contracts import TextEncoder
from tastemaker.language.tasks import (
    Demonstration,
    HardFilter,
    LookUp,
    Named,
    Plan,
    Ranking,
    Show,
    SoftFilter,
    Step,
)
from tastemaker.language.text import TfidfSvd, fit_text
from tastemaker.types import BundleError, DataError, Problem

AXES = 64
MOST = 10_000  # examples that are kept
LONGEST = 500  # characters of a request


def _shows(request: str, *steps: Step, k: int = 5) -> Demonstration:
    return Demonstration(request=request, plan=Plan(steps=(*steps, Show(k=k))))


def _answers(request: str, *steps: Step, answer: str = "") -> Demonstration:
    return Demonstration(request=request, plan=Plan(steps=steps, answer=answer))


SEEDS: tuple[Demonstration, ...] = (
    _shows("Which {items} do most people choose?", Ranking(by="popularity")),
    _shows("Show me ten {items} that everybody talks about", Ranking(by="popularity"), k=10),
    _shows("I am bored, recommend me something", Ranking(by="preference")),
    _shows("What else might I like?", Ranking(by="preference")),
    _shows("I want a VALUE {item}", HardFilter(where="column has 'VALUE'"), Ranking(by="preference")),
    _shows(
        "A {item} that is both VALUE and VALUE B, please",
        HardFilter(where="column has 'VALUE' AND column has 'VALUE B'"),
        Ranking(by="preference"),
    ),
    _shows("VALUE or VALUE B, either will do", HardFilter(where="column has 'VALUE' OR column has 'VALUE B'")),
    _shows(
        "Something VALUE, but by no means VALUE B",
        HardFilter(where="column has 'VALUE' AND NOT column has 'VALUE B'"),
        Ranking(by="preference"),
    ),
    _shows("Cheap {items}, under 10", HardFilter(where="price < 10"), Ranking(by="popularity")),
    _shows("It may cost between 5 and 20", HardFilter(where="price BETWEEN 5 AND 20"), Ranking(by="preference")),
    _shows("Only {items} that came out since 2010", HardFilter(where="year >= 2010"), Ranking(by="popularity")),
    _shows("An old {item}, from before 1980", HardFilter(where="year < 1980"), Ranking(by="popularity")),
    _shows("Something short, at most 90 minutes", HardFilter(where="minutes <= 90"), Ranking(by="preference")),
    _shows("More like ITEM A", SoftFilter(like=("ITEM A",)), Ranking(by="similarity")),
    _shows("I loved ITEM A and ITEM B. What is like them?", SoftFilter(like=("ITEM A", "ITEM B")), Ranking()),
    _shows(
        "Like ITEM A, but cheaper than 5",
        HardFilter(where="price < 5"),
        SoftFilter(like=("ITEM A",)),
        Ranking(by="similarity"),
    ),
    _shows(
        "VALUE {items} that are similar to ITEM A and that I may like, as I enjoyed ITEM B",
        HardFilter(where="column has 'VALUE'"),
        SoftFilter(like=("ITEM A",)),
        Ranking(by="preference", prefer=("ITEM B",)),
    ),
    _shows(
        "I have had ITEM A, ITEM B and ITEM C lately", Ranking(by="preference", prefer=("ITEM A", "ITEM B", "ITEM C"))
    ),
    _shows(
        "I enjoyed ITEM A but could not stand ITEM B",
        Ranking(by="preference", prefer=("ITEM A",), unwanted=("ITEM B",)),
    ),
    _shows("Not ITEM A again, please", Ranking(by="preference", unwanted=("ITEM A",))),
    _shows(
        "Which of ITEM A, ITEM B and ITEM C suits me best?",
        Named(names=("ITEM A", "ITEM B", "ITEM C")),
        Ranking(by="preference"),
        k=3,
    ),
    _shows(
        "Put ITEM A, ITEM B and ITEM C in the order of how well they are known",
        Named(names=("ITEM A", "ITEM B", "ITEM C")),
        Ranking(by="popularity"),
        k=3,
    ),
    _shows(
        "Of ITEM A, ITEM B and ITEM C, which are VALUE?",
        Named(names=("ITEM A", "ITEM B", "ITEM C")),
        HardFilter(where="column has 'VALUE'"),
        k=3,
    ),
    _answers("Who made ITEM A?", LookUp(names=("ITEM A",), columns=("maker",))),
    _answers("How much is ITEM A, and when did it come out?", LookUp(names=("ITEM A",), columns=("price", "year"))),
    _answers("Tell me about ITEM A", LookUp(names=("ITEM A",))),
    _answers("How many VALUE {items} are there?", LookUp(where="column has 'VALUE'", columns=("title",))),
    _answers("Hello!", answer="Hello! Which {items} do you like, or what are you looking for?"),
    _answers("Thanks, that is all", answer="You are welcome."),
)


class Demonstrations:
    """Examples, found by how like their requests are to another one.

    Args:
        domain: what the items are called, one of them.
        encoder: default: words weighed by rarity, learnt from the examples themselves.
    """

    def __init__(
        self, pairs: Sequence[Demonstration], *, domain: str = "item", encoder: TextEncoder | None = None
    ) -> None:
        self.pairs = [_named(pair, domain) for pair in pairs]
        self._given = encoder

    @cached_property
    def encoder(self) -> TextEncoder:
        requests = [pair.request for pair in self.pairs]
        return self._given or TfidfSvd.of(fit_text(requests, AXES, least=1, most=0.7))

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:
        return self.encoder.encode([pair.request for pair in self.pairs])

    def nearest(self, request: str, k: int) -> tuple[Demonstration, ...]:
        """The k examples whose requests are most like this one, the most like first."""
        if not k or not self.pairs:
            return ()
        likeness = self._vectors @ self.encoder.encode([request])[0]
        return tuple(self.pairs[place] for place in np.argsort(-likeness, kind="stable")[:k])


def from_lines(lines: Iterable[str], file: str = "demonstrations") -> tuple[Demonstration, ...]:
    """Examples from JSON lines.

    Raises:
        DataError: a line is no example, or its plan does not keep the order of the tools.
    """
    found: list[Demonstration] = []
    wrong: list[Problem] = []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            pair = Demonstration.model_validate_json(line)
        except ValidationError as error:
            wrong.append(Problem(error.errors()[0]["msg"], file, row, value=line[:60]))
            continue
        order = [PRIORITY.index(step.tool) for step in pair.plan.steps]
        if order != sorted(order) or len(pair.request) > LONGEST or len(found) >= MOST:
            wrong.append(Problem("the plan is out of order, or this is too long", file, row, value=pair.request[:60]))
            continue
        found.append(pair)
    if wrong:
        raise DataError("not all lines are examples", wrong[:5], total=len(wrong), hint="one JSON object a line")
    return tuple(found)


def read(path: str) -> NDArray[np.uint8]:
    """A file of examples as a bundle keeps it; "": none."""
    if not path:
        return np.zeros(0, dtype=np.uint8)
    text = Path(path).read_text(encoding="utf-8")
    pairs = from_lines(text.splitlines(), path)
    return np.frombuffer(json.dumps([pair.model_dump() for pair in pairs]).encode(), dtype=np.uint8)


def unread(kept: NDArray[np.uint8]) -> tuple[Demonstration, ...]:
    """The examples that `read` kept. Raises BundleError where they are none."""
    if not len(kept):
        return ()
    try:
        rows = json.loads(kept.tobytes())
        return from_lines(json.dumps(row) for row in rows)
    except (ValueError, TypeError, DataError) as error:
        raise BundleError(f"a bundle's demonstrations cannot be read: {error}") from error


def _named(pair: Demonstration, domain: str) -> Demonstration:
    """With the domain's word in the place of {item} and {items}."""

    def put(text: str) -> str:
        return text.replace("{items}", domain + "s").replace("{item}", domain)

    plan = pair.plan.model_copy(update={"answer": put(pair.plan.answer)})
    return Demonstration(request=put(pair.request), plan=plan)
