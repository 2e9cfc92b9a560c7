"""English as people speak to a recommender: cues, comparisons, measures. No word here is about one kind of item.

A cue is a phrase and what it does to what is named after it: `CUES["loved"] == "like"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


ORDINARY = _words("""
    a able about above absolutely accept actually add after afternoon again against ago ah all almost alone along
    already alright also although always am amazing among an and another any anybody anyone anything anyway anywhere
    apart are arent around as ask asked at available away awesome awful back bad basically be beat beautiful became
    because been before began begin behind being believe below beside besides best better between beyond big bit
    bored boring both brilliant bring bunch busy but buy by bye came can cannot cant care certainly chat cheap
    cheaper check choice choose classic clear close come comes coming consider cool correct could couldnt couple
    cousin crap crazy cute daughter day days dear decent definitely definitively describe did didnt different
    directed do does doesnt doing done dont down dud dumb during each easy either else end enjoy enjoyable enjoyed
    enjoys enough entertaining especially etc even evening ever every everybody everyone everything exactly exceed
    excellent except expensive fact fair fairly fan fancy fantastic far fast favor favorite favorites favour
    favourite favourites feel feeling few find fine finish finished first for forget found four friend friends from
    full fun further gave generally get gets getting girl girls give given go goes going gone gonna good goodbye got
    gotta great greetings guess guy guys had half happen happy hard hardly has hasnt hate hated have havent having
    he hear heard hello help her here hes hey hi highly him his hmm hold home hope how however huge husband i id
    idea ideas if ill im in include incredible indeed instead interested interesting into is isnt it its itself ive
    just keep kid kids kind kinda kinds knew know known lame large last late lately later latest least leave left
    less let lets light like liked likes line list little live lol long longer look looked looking looks lot lots
    love loved lovely loves low mad made main make makes making man many matter may maybe me mean meh mention
    mentioned met might mind mine minute moment mood more morning most mostly mother much must my myself name named
    near nearly need never new newer next nice night no nobody none nope nor not nothing now number of off often oh
    ok okay old older on once one ones only open or other others otherwise our ours out over overrated own part pass
    past people perfect perhaps person pick picked place plan play played please plenty point popular possible
    possibly prefer preferably pretty probably problem put question quick quite rather read ready real really recent
    recently recommend recommendation recommendations recommended remember right said same saw say says scratch
    search see seeing seem seems seen send serious she short should shouldnt show similar since sir sister so sold
    some somebody someone something sometime sometimes somewhat somewhere son soon sorry sort sorts sound sounds
    spare start started starting still stop story stuff stupid such suggest suggested suggestion suggestions suit
    sure take taken talk talking tell terrible than thank thanks that thats the their them then there theres these
    they theyre thing things think thinking this those though thought three through till time times tired title
    titled to today together told tomorrow tonight too took top totally tried try trying twice two type types under
    understand unless until up upon us use used usually very want wanted wants was wasnt watch watched watching way
    we week weekend welcome well were what whatever whats when where whether which while who whole whom whose why
    wife will with within without woman wonder wonderful wont word words work works worse worst worth would wouldnt
    wow wrong yeah year years yep yes yesterday yet you young your youre yours yourself yup
""")
"""Words that alone are nobody's name: a name made of them needs a cue, quotation marks or capitals to be one."""

LINKING = _words("""
    & a an and at de du for from in la of on s the to van von vs with
""")
"""Words that a name in capitals may hold in small letters."""

_CUES: Mapping[str, tuple[str, ...]] = {
    "not": _phrases("""
    not | no | without | except | excluding | never | nothing | avoid | skip | isnt | arent | dont | doesnt | other
    than | anything but | everything but | apart from | besides | rather than | instead of | less | minus | spare me
    | leave out | keep away from | none of | scratch | forget | forget about | drop | nor | neither | stop | cant
    stand | cannot stand | cant bear | cannot bear | sick of | tired of | bored of | bored with | enough of | fed up
    with | cant | cannot | wont | wouldnt | didnt | wasnt | hardly | allergic to | afraid of | scared of | stay away
    from | steer clear of | exclude | remove | ban | no more | not so into | had enough of | ive had enough of
"""),
    "dislike": _phrases("""
    hate | hates | hated | dislike | dislikes | disliked | despise | despised | loathe | detest | detested | couldnt
    stand | regret | regretted
"""),
    "like": _phrases("""
    like | likes | liked | love | loves | loved | enjoy | enjoys | enjoyed | enjoying | adore | adored | adores |
    favorite | favorites | favourite | favourites | fan of | fond of | similar to | similar | resembles | resembling
    | akin to | reminds me of | reminiscent of | along the lines of | in the style of | in the vein of | in the
    direction of | such as | as good as | comparable to | close to | obsessed with | appreciate | appreciated |
    admire | admired | admirer of | based on | in the spirit of | the likes of
"""),
    "seen": _phrases("""
    seen | watched | saw | already know | already have | already own | already got | already read | already played |
    already saw | already watched | have read | have played | ive read | ive played | ive owned | finished |
    rewatched | reread | bought | owned | been through | know by heart | i know | i own | i have got | caught | just
    read | just played | tried
"""),
    "named": _phrases("""
    called | named | titled | show me | find me | find | search for | look up | play | put on | buy | order | open |
    info on | information on | information about | details on | details of | details about | tell me about | tell me
    more about | heard of | know about | hear of
"""),
    "than": _phrases("""
    than
"""),
    "about": _phrases("""
    about | featuring | involving | set in | set on | dealing with | deals with | revolves around
"""),
    "wish": _phrases("""
    but | however | though | although | still | instead | rather | i want | i would like | id like | id love | i
    would love | im looking for | i am looking for | looking for | give me | i need | want to | wanna | would like |
    id prefer | i prefer | prefer | lets | let us | could you | can you | would you | do you have | how about | what
    about | only | nothing but | just | not only | feel like | feeling like | why not | no problem | no worries | no
    idea | not sure | never mind | nevermind | no thanks | no thank you | please | sounds like | looks like | seems
    like | i mean | anything like that | like that | like this | like these | like those | in the mood for | watch |
    see | recommend | suggest | dont mind | dont care | dont know | not bad | cant wait | couldnt be | wouldnt mind
"""),
}
CUES: Mapping[str, str] = {phrase: what for what, phrases in _CUES.items() for phrase in phrases}
"""Phrases and what they do: "not", "dislike", "like", "seen", "named", "than", "about"; "wish" begins afresh."""
LONGEST_CUE = max(phrase.count(" ") + 1 for phrase in CUES)

SENTENCE = frozenset({".", "!", "?", ";", "\n", "…"})
AFRESH = _words("""
    a an anything give i id ideally im just maybe more mostly only please preferably show some something
""")
"""Words that, after a comma or an "and", begin what is wanted, whatever was refused before."""

GOOD = _words("""
    amazing awesome brilliant enjoyed excellent fantastic favorite favourite fun funny great incredible liked loved
    lovely masterpiece perfect street superb wonderful
""")
BAD = _words("""
    annoying awful bad boring disappointing disliked dull garbage hated horrible lame meh overrated rubbish stupid
    terrible trash worst
""")
BAD_PHRASES = _phrases("""
    not my | not for me | nothing for me | did not like | didnt like | not a fan | not good | isnt my | isnt for me
    | dont like it | dont like that | not great | wasnt good | never again | not into
""")
SEEN_PHRASES = _phrases("""
    old news | by heart | already | seen it | watched it | saw it | know that | read it | played it
""")
LESS = _phrases("""
    less than | fewer than | no more than | not more than | at most | at the most | up to | under | below | beneath
    | maximum | max | within | not over | not above | smaller than | lower than | budget | spend | afford | cheaper
    than | limit | until | till | before | prior to | predate | predates | earlier than | pre | upto | inside | <
""")
MORE = _phrases("""
    more than | greater than | at least | no less than | not less than | over | above | minimum | min | exceed |
    exceeds | exceeding | beyond | past | higher than | bigger than | starting at | starting from | after | since |
    later than | post | upwards of | from at least | >
""")
AFTER_LESS = _phrases("""
    or less | or under | or below | or fewer | or cheaper | or shorter | or earlier | or older | tops | max |
    maximum | at most | at the most | and no more | and not more | and not one more | or lower | or before | is the
    most | is my limit | is all i | and under | and below | and earlier
""")
AFTER_MORE = _phrases("""
    or more | or over | or above | or later | or newer | or longer | or higher | or after | and up | and later | and
    above | and newer | onward | onwards | plus | at least | minimum | or better | or up | on
""")
INCLUSIVE = _words("""
    afford and at budget exceed exceeds from is least limit max maximum min minimum most no not on onward onwards or
    plus since spend till tops until up upto within
""")
ABOUT = _words("""
    about around roughly approximately circa approx near
""")


@dataclass(frozen=True)
class Measure:
    """A thing that numbers say: how columns of it are called, what more and less of it is called, its units."""

    hints: frozenset[str]
    more: frozenset[str]
    less: frozenset[str]
    units: frozenset[str] = frozenset()
    asks: frozenset[str] = frozenset()


MEASURES: Mapping[str, Measure] = {
    "money": Measure(
        _words("price prices cost costs fee fare amount usd eur"),
        _words("expensive pricey pricier dearer costly costlier"),
        _words("cheap cheaper cheapest inexpensive affordable lowcost budget"),
        _words("$ € £ ¥ dollar euro pound buck usd eur gbp cent quid"),
        _words("much cost costs price expensive cheap"),
    ),
    "time": Measure(
        _words("year years date released release published publication premiere since"),
        _words("new newer newest recent modern latest later contemporary current"),
        _words("old older oldest vintage earlier retro dated ancient"),
        frozenset(),
        _words("when year date old new"),
    ),
    "length": Measure(
        _words("minutes minute duration runtime length mins hours pages page seconds"),
        _words("long longer longest lengthy"),
        _words("short shorter shortest brief briefer"),
        _words("minute min hour hr page second"),
        _words("long length duration runtime pages minutes short"),
    ),
    "rating": Measure(
        _words("rating ratings score stars star grade average"),
        _words("acclaimed"),
        frozenset(),
        _words("star point"),
        _words("rated rating score good"),
    ),
    "weight": Measure(
        _words("weight mass grams kg"), _words("heavy heavier heaviest"), _words("lighter lightweight lightest"),
        _words("kg kilo kilogram gram g lb ounce oz"), _words("heavy weigh weight"),
    ),
    "size": Measure(
        _words("size width height diameter area volume capacity"), _words("bigger biggest larger largest huge"),
        _words("smaller smallest compact tiny"), _words("cm mm inch metre meter litre liter foot"),
        _words("big large size"),
    ),
}  # fmt: skip
MEASURING = frozenset(
    word + ending
    for measure in MEASURES.values()
    for word in measure.more | measure.less | measure.units
    for ending in ("", "s")
)
"""Words of measures, with their plurals."""

SUPERLATIVES = _words("cheapest newest latest oldest longest shortest heaviest lightest biggest largest smallest")
PLAIN = _words("new old long short")  # so common that they are a wish only right before what is wished for


NUMBERS = {
    word: n for n, word in enumerate(_phrases("zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"))
}
NUMBERS |= {
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "ninety": 90,
    "hundred": 100,
}
DECADES = {
    "twenties": 1920,
    "thirties": 1930,
    "forties": 1940,
    "fifties": 1950,
    "sixties": 1960,
    "seventies": 1970,
    "eighties": 1980,
    "nineties": 1990,
    "noughties": 2000,
    "aughts": 2000,
}
ORDINALS = {
    "first": 0,
    "1st": 0,
    "second": 1,
    "2nd": 1,
    "third": 2,
    "3rd": 2,
    "fourth": 3,
    "4th": 3,
    "fifth": 4,
    "5th": 4,
    "sixth": 5,
    "seventh": 6,
    "eighth": 7,
    "ninth": 8,
    "tenth": 9,
    "last": -1,
    "former": 0,
}
AFTER_ORDINAL = _words("""
    and but i instead is item looks of on one ones or please seems sounds thing two was
""")
GREETINGS = _words("""
    afternoon evening greetings hello hey hi hiya howdy morning yo
""")
THANKS = _words("""
    appreciated cheers ta thank thanks thx
""")
BYES = _words("""
    bye cya farewell goodbye goodnight later
""")
HELP = _phrases("""
    help | what can you do | how does this work | how do you work | what can i ask | what can i say | how do i use |
    what do you do
""")
IDENTITY = _phrases("""
    who are you | what are you | are you a bot | are you human | are you a human | are you a robot | are you an ai |
    are you ai | are you real | are you a person | are you chatgpt | are you a real | are you a language model | are
    you a machine | your name | who made you | am i talking to | are you a computer | are you an llm | are you gpt
""")
RESET = _phrases("""
    start over | start again | forget everything | forget all that | from scratch | new search | reset | something
    completely different | something entirely different | start afresh
""")
ELSE = _phrases("""
    something else | anything else | others | more like | show more | more please | another | other ones | none of
    these | none of those | none of them | not those | not these | different ones | next | more of
""")
ACCEPT = _phrases("""
    that is it | thats it | thats the one | that is the one | i will take | ill take | sold | perfect | it is cheers
    | ill go with | i will go with | ill watch that | sounds good | that works | exactly what i wanted | great
    choice | you got it
""")
POPULAR = _words("""
    best bestseller bestselling famous hit known popular top trending
""")
QUESTIONS = _words("""
    are describe did does how is tell was what whats when where which who whos
""")
PLACES = _words("""
    address area city country location origin place region town
""")
KINDS = _words("""
    category genre kind sort style type
""")
PLOTS = _words("""
    about describe description happens plot story summary synopsis
""")
ASKS = _words("""
    already seen watched known
    another any anything else find idea ideas looking matter mind more next no ok okay others recommend
    recommendation recommendations recommended show something suggest suggestion suggestions sure surprise watch
    whatever yes
""")
"""Words of a message that asks for items and may say nothing of them."""

OPENINGS = _phrases("""
    do you know | can you tell me | could you tell me | tell me | and | so | well | ok | okay | please | i want to
    know | i wonder | hey | hi | but
""")
WISHES = _phrases("""
    what would you | what do you recommend | what can you | what should i | what else | what do you have | is there
    a | is there any | are there any | are there more | what about | how about | what other | what are some | which
    would you | what could | do you have | what is a good | whats a good | what do you suggest
""")
"""How questions begin that ask for items, not for facts."""

COUNT = _phrases("""
    how many | number of | count of | count the
""")
IRREGULAR = {
    "made": "make",
    "wrote": "write",
    "written": "write",
    "sang": "sing",
    "sung": "sing",
    "built": "build",
    "drew": "draw",
    "drawn": "draw",
    "taught": "teach",
    "sold": "sell",
    "ran": "run",
    "led": "lead",
    "acted": "act",
    "acts": "act",
    "starred": "star",
    "starring": "star",
    "stars": "star",
}
ENDINGS = _phrases("""
    inal | ical | ious | en | ance | ion | ing | ous | tic | ish | ist | ful | ies | al | ic | ed | er | ly | or | ce
    | y | e | s
""")
"""Endings that a word may lose and still be of one root: romance, romantic; history, historical."""


def roots(word: str, least: int = 4) -> set[str]:
    """What is left of a word without an ending, and the word itself."""
    cut = {word[: -len(end)] for end in ENDINGS if word.endswith(end) and len(word) - len(end) >= least}
    return cut | ({word} if len(word) >= least else set())
