"""What a language model, or the planner that stands in for one, is asked to do in a conversation: typed questions.

A task is a name, what is given, and what is wanted; all of it plain data, so that it can be kept, played back,
counted and answered by rules alike.

Ref: plans over a shared set of candidates: Huang, Lian, Lei, Yao, Lian, Xie, "Recommender AI Agent: Integrating Large
Language Models for Interactive Recommendations", TOIS 2025, arXiv:2308.16505.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(_Plain):
    """Take as candidates the items the person named."""

    tool: Literal["store"] = "store"
    names: tuple[str, ...] = Field(min_length=1)


class LookUp(_Plain):
    """Read facts of items, named or found by a predicate, in the whole catalogue; candidates stay as they are.

    columns: which facts; none named: all of them.
    """

    tool: Literal["look-up"] = "look-up"
    where: str = ""
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class HardFilter(_Plain):
    """Keep the candidates for which a predicate over the catalogue holds: `year >= 1990 AND 'Comedy' = ANY(genres)`.

    The language is that of `tastemaker.data.predicate`.
    """

    tool: Literal["hard filter"] = "hard filter"
    where: str


class SoftFilter(_Plain):
    """Keep the candidates that are most like these items; share: of the whole catalogue that counts as alike."""

    tool: Literal["soft filter"] = "soft filter"
    like: tuple[str, ...] = Field(min_length=1)
    share: float = Field(default=0.05, gt=0, le=1)


class Ranking(_Plain):
    """Put candidates in order."""

    tool: Literal["ranking"] = "ranking"
    by: Literal["popularity", "similarity", "preference"] = "popularity"
    prefer: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


class Show(_Plain):
    """Show the first k candidates."""

    tool: Literal["map"] = "map"
    k: int = Field(5, ge=1, le=100)


Step: TypeAlias = Annotated[Named | LookUp | HardFilter | SoftFilter | Ranking | Show, Field(discriminator="tool")]


class Plan(_Plain):
    """Steps in the order of their tools; or no step, and an answer at once, as to a greeting or where to ask back."""

    steps: tuple[Step, ...] = ()
    answer: str = ""


class Turn(_Plain):
    """One message of a dialogue."""

    who: Literal["person", "system"]
    text: str


class Profile(_Plain):
    """What is known of a person over a longer time: titles, and wishes in words."""

    history: tuple[str, ...] = ()
    liked: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


class Column(_Plain):
    """A column of the catalogue: its type, and values or bounds that help to name it rightly."""

    name: str
    kind: Literal["text", "number", "flag", "list"]
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


class Demonstration(_Plain):
    request: str
    plan: Plan


class PlanAsked(_Plain):
    """The task "plan": wanted is a `Plan`."""

    text: str
    dialogue: tuple[Turn, ...] = ()
    profile: Profile = Profile()
    columns: tuple[Column, ...] = ()
    shown: tuple[str, ...] = ()  # titles of the last list, which "the first one" and "cheaper than that" refer to
    demonstrations: tuple[Demonstration, ...] = ()
    advice: str = ""  # of the critic, on the plan before


class StepDone(_Plain):
    """What a tool did, in words; the candidates themselves stay out of it."""

    tool: str
    input: str
    output: str
    failed: bool = False


class Shown(_Plain):
    """An item in a list, as told to whoever words the answer: its text is data, whatever it says."""

    number: int
    title: str
    facts: dict[str, str] = {}


class ReplyAsked(_Plain):
    """The task "reply": wanted is a `Reply`."""

    text: str
    dialogue: tuple[Turn, ...] = ()
    trace: tuple[StepDone, ...] = ()
    items: tuple[Shown, ...] = ()


class Reply(_Plain):
    """Words to the person. Items are put beside it by the system: what is named here is not what is shown."""

    text: str


class Judged(_Plain):
    """The task "critic": wanted is a `Verdict`."""

    text: str
    dialogue: tuple[Turn, ...] = ()
    trace: tuple[StepDone, ...] = ()
    items: tuple[Shown, ...] = ()
    reply: str = ""


class Verdict(_Plain):
    good: bool
    advice: str = ""


class ProfileAsked(_Plain):
    """The task "profile": wanted is a `Profile` that holds only what these turns add."""

    turns: tuple[Turn, ...]
    profile: Profile = Profile()


class StepAsked(PlanAsked):
    """The task "step", where a plan is made one step at a time: wanted is a `NextStep`."""

    trace: tuple[StepDone, ...] = ()


class NextStep(_Plain):
    """What to do next; none: nothing, and an answer at once where no list is wanted."""

    step: Step | None = None
    answer: str = ""


class PersonAsked(_Plain):
    """The task "person", to play one who looks for an item: wanted is a `PersonSays`.

    title, facts: of the item wanted; history: titles that the person chose before
    shown: titles of the last list, none of which is it
    again: how often an answer was not used, because it named the title
    """

    title: str
    facts: dict[str, str] = {}
    history: tuple[str, ...] = ()
    dialogue: tuple[Turn, ...] = ()
    shown: tuple[str, ...] = ()
    again: int = 0


class PersonSays(_Plain):
    text: str
