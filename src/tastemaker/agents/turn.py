"""How a turn of a conversation is taken: the profile renewed, a plan made and carried out, an answer worded and judged.

Here a language model, or the planner that stands in for one, meets the tools; what it says is typed, and nothing it
says is shown but words: a list is what the bus holds.

Ref: plan-first execution, dynamic demonstrations, reflection and the user profile, sections 4.1 to 4.5 of Huang et al.,
arXiv:2308.16505; a step at a time: Yao et al., "ReAct", arXiv:2210.03629.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tastemaker.agents.bus import PRIORITY, Bus, Person, Tools, arranged, one_line, run_step
from tastemaker.agents.demonstrations import Demonstrations
from tastemaker.agents.session import LONGEST, Session, cut, turns_of
from tastemaker.agents.tastes import Tastes, read, supported
from tastemaker.contracts import ChatModel
from tastemaker.language.planner.spelling import words
from tastemaker.language.tasks import (
    Judged,
    NextStep,
    Plan,
    PlanAsked,
    Profile,
    ProfileAsked,
    Ranking,
    Reply,
    ReplyAsked,
    Show,
    Shown,
    Step,
    StepAsked,
    StepDone,
    Turn,
    Verdict,
)
from tastemaker.types import Slates, TastemakerError, generator

FAILURES = (TastemakerError, ValidationError, TimeoutError, OSError)  # of a model: none ends a conversation
STEPS = 12  # steps that are taken one at a time, at most
SETS = ("history", "liked", "unwanted")
SORRY = "I cannot reach the language model just now. Here is what most people choose."
PUZZLED = "I did not understand what to look for. Here is what most people choose."
NOTHING = "Nothing in the catalogue fits all of that. What may I leave out?"
FAILED = (SORRY, PUZZLED)
FOUND = "Here is what fits best."
FIRST = "Here is what may suit you. What are you looking for?"


@dataclass(frozen=True, eq=False)
class Agent:
    """What turns are taken with.

    most_chosen: [I] item numbers by popularity, the order in which candidates begin
    titles: what each item is called
    shots: demonstrations that a model is shown
    """

    chat: ChatModel
    tools: Tools
    most_chosen: NDArray[np.int32]
    demonstrations: Demonstrations
    titles: Sequence[str]
    execution: Literal["plan", "step"] = "plan"
    shots: int = 5
    reflections: int = 0
    profile_every: int = 1
    memory: int = 512
    k: int = 5

    def turn(self, session: Session) -> Generator[StepDone, None, tuple[str, Bus, Session]]:
        """What is said, what is shown, and the session afterwards."""
        session = yield from self._renewed(session)
        bus, text, advice = self._begun(session), "", ""
        for attempt in range(self.reflections + 1):
            tried, worded, judged = yield from self._attempt(session, advice)
            if attempt and worded in FAILED:
                break  # a second plan that cannot be had leaves the first
            bus, text = tried, worded
            if not judged or attempt == self.reflections:
                break
            verdict = self._judged(session, bus, text)
            if verdict.good:
                break
            advice = verdict.advice
            yield StepDone(tool="critic", input=one_line(text, 300), output=one_line(advice, 300))
        text = "".join(c for c in text[:LONGEST] if c.isprintable() or c == "\n")
        dialogue = session.dialogue if not session.said else (*session.dialogue, ("person", session.said))
        shown = () if bus.shown is None else tuple(bus.shown.tolist())
        session = replace(
            session,
            said="",
            turns=session.turns + 1,
            dialogue=cut((*dialogue, ("system", " ".join([text, *self._listed(shown)]))), self.memory),
            shown=shown or session.shown,
        )
        return text, bus, session

    def _attempt(self, session: Session, advice: str) -> Generator[StepDone, None, tuple[Bus, str, bool]]:
        """Plan, carry out, word: the bus, the words, and whether there is something to judge."""
        bus = self._begun(session)
        if not session.said:
            steps: list[Step] = [Ranking(by="preference"), Show(k=self.k)]
            bus = yield from self._carried_out(steps, bus, session)
            return bus, FIRST, False
        try:
            if self.execution == "step":
                bus, answer = yield from self._stepwise(session, bus, advice)
            else:
                plan = self.chat.run("plan", self._asked(session, advice), Plan)
                answer = plan.answer
                if plan.steps:
                    answer = ""
                    steps, changed = arranged(plan, self.k)
                    if changed:
                        yield StepDone(tool="plan", input="", output="; ".join(changed))
                    bus = yield from self._carried_out(steps, bus, session)
        except FAILURES as error:
            yield StepDone(tool="plan", input="", output=_said(error), failed=True)
            return self._most_chosen(session), SORRY, False
        if answer:
            return bus, answer, False
        if not bus.trace:
            yield StepDone(tool="plan", input="", output="the plan is empty", failed=True)
            return self._most_chosen(session), PUZZLED, False
        items = self._shown(bus)
        try:
            given = ReplyAsked(text=session.said, dialogue=turns_of(session), trace=bus.trace, items=items)
            text = self.chat.run("reply", given, Reply).text.strip()
        except FAILURES as error:
            yield StepDone(tool="reply", input="", output=_said(error), failed=True)
            text = ""
        looked = bus.shown is None and "\n".join(step.output for step in bus.trace if step.tool == "look-up")
        return bus, text or looked or (FOUND if items else NOTHING), True

    def _carried_out(self, steps: Sequence[Step], bus: Bus, session: Session) -> Generator[StepDone, None, Bus]:
        person = self._person(session)
        for step in steps:
            bus = run_step(step, bus, self.tools, person)
            yield bus.trace[-1]
        return bus

    def _stepwise(self, session: Session, bus: Bus, advice: str) -> Generator[StepDone, None, tuple[Bus, str]]:
        """One question to the model a step, until it shows a list or has no more to do."""
        asked = dict(self._asked(session, advice))
        for _ in range(STEPS):
            following = self.chat.run("step", StepAsked(**asked, trace=bus.trace), NextStep)
            if following.step is None:
                if bus.trace and not all(step.tool == "look-up" for step in bus.trace):
                    bus = yield from self._carried_out([Show(k=self.k)], bus, session)
                return bus, "" if bus.trace else following.answer
            if (late := _late(following.step, bus)) is not None:
                bus = bus.told(following.step.tool, "", late, failed=True)
                yield bus.trace[-1]
                continue
            bus = yield from self._carried_out([following.step], bus, session)
            if isinstance(following.step, Show):
                return bus, ""
        return (yield from self._carried_out([Show(k=self.k)], bus, session)), ""

    def _asked(self, session: Session, advice: str) -> PlanAsked:
        told = session.tastes.told(self.title)
        return PlanAsked(
            text=session.said,
            dialogue=turns_of(session),
            profile=Profile(**{name: tuple(one_line(text, 120) for text in texts) for name, texts in told.items()}),
            columns=self.tools.lexicon.columns,
            shown=tuple(one_line(self.title(number), 120) for number in session.shown),
            demonstrations=self.demonstrations.nearest(session.said, self.shots),
            advice=advice,
        )

    def _judged(self, session: Session, bus: Bus, text: str) -> Verdict:
        """The critic's word; one that cannot be had, or read, counts as a yes."""
        items = self._shown(bus)
        given = Judged(text=session.said, dialogue=turns_of(session), trace=bus.trace, items=items, reply=text)
        try:
            return self.chat.run("critic", given, Verdict)
        except FAILURES:
            return Verdict(good=True)

    def _shown(self, bus: Bus) -> tuple[Shown, ...]:
        """The list as whoever words the answer is told of it."""
        if bus.shown is None:
            return ()
        columns = [facet.name for facet in self.tools.lexicon.facets if facet.kind != "text"][:6]
        facts = self.tools.facts(bus.shown, columns)
        return tuple(
            Shown(number=place, title=one_line(self.title(number), 120), facts=said)
            for place, (number, said) in enumerate(zip(bus.shown.tolist(), facts, strict=True), 1)
        )

    def _renewed(self, session: Session) -> Generator[StepDone, None, Session]:
        """The session, its profile renewed by what was said, where it is time for that."""
        every = self.profile_every
        if not every or len(session.unread) < every:
            return session
        turns: list[Turn] = []
        for text, shown in session.unread:
            turns += [Turn(who="system", text=listed) for listed in self._listed(shown)]
            turns.append(Turn(who="person", text=text))
        try:
            known = Profile(**{name: tuple(texts) for name, texts in self.profile(session).items()})
            found = self.chat.run("profile", ProfileAsked(turns=tuple(turns), profile=known), Profile)
        except FAILURES as error:
            yield StepDone(tool="profile", input="", output=_said(error), failed=True)
            return replace(session, unread=())
        heard = {word for text, _ in session.unread for word in words(text)}
        seen = {number for _, shown in session.unread for number in shown}
        new = {
            name: tuple(
                one for one in read(getattr(found, name), self.tools.item) if supported(one, self.title, heard, seen)
            )
            for name in SETS
        }
        return session.with_tastes(session.tastes.merged(Tastes(**new)), unread=())

    def profile(self, session: Session) -> dict[str, list[str]]:
        """What is known of the person: titles, and wishes in words."""
        return session.tastes.told(self.title)

    def with_profile(self, session: Session, profile: Mapping[str, Sequence[str]]) -> Session:
        """The session with these lists; where something was taken out, what was said before is forgotten too."""
        tastes = session.tastes.corrected(profile, self.title, self.tools.item)
        if any(set(getattr(session, name)) - set(getattr(tastes, name)) for name in SETS) or not any(profile.values()):
            session = replace(session, dialogue=(), unread=())
        return session.with_tastes(tastes)

    def _listed(self, shown: Sequence[int]) -> list[str]:
        """A list as the dialogue remembers it, in one text; none where nothing was shown."""
        titles = "; ".join(f"{place}. {one_line(self.title(number), 120)}" for place, number in enumerate(shown, 1))
        return [titles] if titles else []

    def title(self, number: int) -> str:
        return self.titles[number]

    def _person(self, session: Session) -> Person:
        history, liked = (
            tuple(one for one in entries if isinstance(one, int)) for entries in (session.history, session.liked)
        )
        drawn = int(generator(session.seed, "interecagent", session.turns).integers(2**62))
        return Person(history, liked, session.user, drawn)

    def _begun(self, session: Session) -> Bus:
        """All that may be shown, the most chosen first."""
        items = self.most_chosen
        if len(session.allowed):
            items = items[np.unpackbits(session.allowed, count=len(self.titles))[items].astype(bool)]
        return Bus.begin(items[~np.isin(items, [one for one in session.unwanted if isinstance(one, int)])])

    def _most_chosen(self, session: Session) -> Bus:
        bus = self._begun(session)
        return replace(bus, shown=bus.items[: self.k])


def _late(step: Step, bus: Bus) -> str | None:
    """Why a step comes too late, as an item named anew would bring back what a filter took away."""
    done = [one.tool for one in bus.trace if not one.failed and one.tool != "look-up"]
    if step.tool == "look-up" or not done or PRIORITY.index(step.tool) >= PRIORITY.index(done[-1]):
        return None
    return f"{step.tool} comes before {done[-1]}, which was done already"


def _said(error: Exception) -> str:
    """What went wrong, in a line for the page."""
    return (
        one_line(error.message, 300) if isinstance(error, TastemakerError) else f"{type(error).__name__} of the model"
    )


def slates(lists: Sequence[Bus]) -> Slates:
    """What was shown, as lists; scores are those of the ranking, or fall by one where there was none."""
    width = max((0 if bus.shown is None else len(bus.shown) for bus in lists), default=0)
    items = np.full((len(lists), width), -1, dtype=np.int32)
    scores = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for b, bus in enumerate(lists):
        if bus.shown is not None:
            n = len(bus.shown)
            items[b, :n] = bus.shown
            scores[b, :n] = -np.arange(n) if bus.scores is None else bus.scores[:n]
    return Slates(items, scores)
