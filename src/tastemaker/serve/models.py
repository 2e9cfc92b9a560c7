"""Bodies of requests and answers over HTTP: what they hold, how large they may be, an example of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

LONGEST_ID, LONGEST_TEXT, LONGEST_PREDICATE = 256, 4000, 1000
MOST_ITEMS, MOST_HISTORY, MOST_REQUESTS, MOST_EVENTS, DEEPEST = 2000, 1000, 256, 1000, 5000
MOST_DONE, MOST_REPLIES = 100, 20  # events and answers of a turn
MOST_LISTS, MOST_LINES, LONGEST_LINE = 32, 200, 300  # of a profile

Text = Annotated[StrictStr, Field(max_length=LONGEST_TEXT, pattern=r"^[^\x00]*$")]
Name = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00]+$")]
Whole = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Id = Name | Whole
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)] | Whole
Json = None | StrictBool | Number | Text
Ids = Annotated[list[Id], Field(max_length=MOST_ITEMS)]


class Body(BaseModel):
    """What all bodies share: an unknown field is an error, since it would be ignored."""

    model_config = ConfigDict(extra="forbid")


def example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


# -- questions


class Asker(Body):
    """For whom."""

    user: Id | None = Field(default=None, description="The user's id. An unknown one is a new user.")
    history: Annotated[list[Id], Field(max_length=MOST_HISTORY)] = Field(
        default=[], description="Items the user chose, oldest first, after what is stored of the user."
    )
    system: Name | None = Field(
        default=None, description="Which system or pipeline answers; default: the server's first."
    )
    session: Name | None = Field(default=None, description="The visit this belongs to.")


class RecommendBody(Asker):
    """A list for a user."""

    model_config = example(user="u42", k=3, where="year > 1990")
    k: StrictInt = Field(default=10, ge=1, le=500, description="Length of the list.")
    exclude: Ids = Field(default=[], description="Items that must not come.")
    candidates: Ids | None = Field(default=None, description="All that may come; default: the catalogue.")
    where: Annotated[StrictStr, Field(max_length=LONGEST_PREDICATE, pattern=r"^[^\x00]*$")] | None = Field(
        default=None, description="A condition on columns of the catalogue, as SQL."
    )
    seen: StrictBool = Field(default=False, description="Whether items of the history may come again.")
    query: Text | None = Field(default=None, description="What the user types, for systems that read it.")
    explain: StrictBool = Field(default=False, description="Give a reason with each item.")
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] | None = Field(
        default=None, description="Where chance begins, for systems that draw; default: anew each time."
    )
    cursor: Annotated[StrictStr, Field(max_length=1000)] | None = Field(
        default=None, description="`next` of the answer before: the list goes on there."
    )


class RecommendBatch(Body):
    """Lists for several users."""

    model_config = example(requests=[{"user": "u42"}, {"history": ["i7"], "k": 5}])
    requests: Annotated[list[RecommendBody], Field(min_length=1, max_length=MOST_REQUESTS)]


class ItemsBody(Asker):
    """Items that are looked at for a user."""

    model_config = example(user="u42", items=["i7", "i9"])
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)]


class SimilarBody(Body):
    """Items near an item."""

    model_config = example(item="i7", k=5)
    item: Id
    k: StrictInt = Field(default=10, ge=1, le=500)
    where: Annotated[StrictStr, Field(max_length=LONGEST_PREDICATE, pattern=r"^[^\x00]*$")] | None = None
    system: Name | None = None


class EventBody(Body):
    """Something a user did."""

    model_config = example(user="u42", item="i7", kind="like", slate="6512bd-00a1", position=1)
    kind: Annotated[StrictStr, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")] = Field(
        default="click", description="click, like, hide, undo, purchase, ..., or a word of your own."
    )
    user: Id | None = None
    item: Id | None = None
    value: Number | None = Field(default=None, description="A rating, a price, seconds.")
    slate: Name | None = Field(default=None, description="The list it answers, as `slate` of the answer named it.")
    position: Annotated[StrictInt, Field(ge=1, le=DEEPEST)] | None = Field(
        default=None, description="Place in the list, from 1."
    )
    session: Name | None = None
    query: Text | None = None
    time: Annotated[StrictInt, Field(ge=0, le=2**62)] | None = Field(
        default=None, description="Microseconds since 1970; default: now."
    )
    key: Annotated[StrictStr, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")] | None = Field(
        default=None, description="Names this event: sent twice, it counts once."
    )
    context: Annotated[dict[Name, Json], Field(max_length=32)] = Field(default={}, description="Columns of your own.")

    @model_validator(mode="after")
    def _somebody(self) -> EventBody:
        if self.user is None and self.session is None and self.slate is None:
            raise ValueError("an event names a user, a session or a slate")
        return self


class FeedbackBody(Body):
    """Events, one or several."""

    model_config = example(events=[{"user": "u42", "item": "i7", "kind": "like", "key": "a1"}])
    events: Annotated[list[EventBody], Field(min_length=1, max_length=MOST_EVENTS)]


# -- sessions


class Reply(Body):
    """An answer to what the system asked."""

    attribute: Name
    value: Name | None = None
    reply: Literal["yes", "no", "unknown"] = "yes"


class TurnBody(Body):
    """What the person said or did since the turn before; the first turn has no session yet."""

    session: Name | None = Field(default=None, description="As the answer before named it; none: a new session.")
    system: Name | None = Field(default=None, description="Who acts, in a new session; default: the first that can.")
    user: Id | None = None
    history: Annotated[list[Id], Field(max_length=MOST_HISTORY)] = []
    text: Text | None = None
    events: Annotated[list[EventBody], Field(max_length=MOST_DONE)] = []

    @property
    def replies(self) -> list[Reply]:
        """Answers to what was asked."""
        return []


class ActBody(TurnBody):
    """A turn of a session."""

    model_config = example(user="u42", text="something funny, and short")
    answer: Reply | None = None

    @property
    def replies(self) -> list[Reply]:
        return [] if self.answer is None else [self.answer]


class ChatBody(TurnBody):
    """A turn of a conversation."""

    model_config = example(user="u42", text="something funny, and short")
    answers: Annotated[list[Reply], Field(max_length=MOST_REPLIES)] = Field(
        default=[], description="To what was asked: one for each value that is spoken of."
    )

    @property
    def replies(self) -> list[Reply]:
        return self.answers


ProfileLine = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_LINE, pattern=r"^[^\x00]*$")]
ProfileLists = Annotated[
    dict[Name, Annotated[list[ProfileLine], Field(max_length=MOST_LINES)]], Field(max_length=MOST_LISTS)
]


class ProfileBody(Body):
    """A profile as it is to be; a list that is left out is emptied."""

    model_config = example(profile={"liked": ["Heat"], "unwanted": []}, turn=3)
    profile: ProfileLists
    turn: Whole | None = Field(default=None, description="`turn` as it was read: refused if there was another since.")
    user: Id | None = None


# -- answers


class Reason(BaseModel):
    text: str
    because_of: list[Id] = []
    source: str


class Listed(BaseModel):
    item: Id
    score: float
    rank: int
    title: str | None = None
    reason: Reason | None = None


class Recommended(BaseModel):
    """A list, and the name under which it is in the log: feedback refers to it."""

    slate: str
    system: str
    snapshot: str
    experiment: str | None = None
    arm: str | None = None
    items: list[Listed]
    next: str | None = Field(default=None, description="Cursor of the next page; null at the end.")


class RecommendedBatch(BaseModel):
    answers: list[Recommended | Problem]


class Scored(BaseModel):
    system: str
    snapshot: str
    items: list[Listed]


class Explained(BaseModel):
    system: str
    snapshot: str
    reasons: list[Reason | None]


class Ask(BaseModel):
    attribute: str
    values: list[str]


class Turn(BaseModel):
    """What the system does in a turn: it may say something, ask something and show a list, all at once."""

    session: str
    turn: int
    system: str
    snapshot: str
    text: str | None = None
    ask: Ask | None = None
    slate: str | None = None
    items: list[Listed] = []


class Step(BaseModel):
    """Something an agent did in its turn."""

    tool: str
    input: str
    output: str
    failed: bool


class Profile(BaseModel):
    """What a session knows of a person; `ended`: it could not be opened any more, and is gone as a whole."""

    session: str
    turn: int = Field(description="Rises with every turn, and every correction.")
    profile: dict[str, list[str]]
    ended: bool = False


class Ended(BaseModel):
    """A session is gone."""

    session: str


class Acknowledged(BaseModel):
    """All of it is safe on the disk."""

    stored: int
    doubled: int = Field(description="Events whose key was there before; they count once.")
    keys: list[str]


class Item(BaseModel):
    item: Id
    title: str | None = None
    columns: dict[str, Any] = {}


class Items(BaseModel):
    items: list[Item]
    total: int
    next: str | None = None


class User(BaseModel):
    user: Id
    known: bool = Field(description="Whether the system was fitted with this user.")
    history: list[Item] = Field(description="The latest choices, newest first.")
    hidden: list[Item] = []


class Users(BaseModel):
    users: list[Id]
    total: int
    next: str | None = None


class SystemInfo(BaseModel):
    """What is served under a name."""

    name: str
    system: str
    kind: Literal["system", "pipeline"]
    title: str
    snapshot: str
    opened: float
    capabilities: list[str]
    needs: list[str]
    users: int
    items: int
    columns: dict[str, str]
    about: dict[str, Any]


class Systems(BaseModel):
    default: str | None
    systems: list[SystemInfo]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str | None = None
    request: str | None = Field(default=None, description="Names this request in the server's log.")
    errors: list[dict[str, Any]] | None = None


RecommendedBatch.model_rebuild()
