"""The vocabulary of the invented film world: genres, moods, roles, plots, places, names.

Every person, place and country is made up from syllables or plain nouns. What a word stands beside
(a genre, a mood) is what makes texts carry the attributes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Genre:
    """A genre's name, how one and several of its films are called, and the words its films draw on."""

    name: str
    one: str
    many: str
    nouns: tuple[str, ...]
    roles: tuple[str, ...]
    plots: tuple[str, ...]


def _genre(name: str, one: str, many: str, nouns: str, roles: str, plots: str) -> Genre:
    split = [tuple(part.strip() for part in text.split(",")) for text in (nouns, roles, plots)]
    return Genre(name, one, many, *split)


GENRES = (
    _genre(
        "adventure", "adventure", "adventures",
        "Compass, Rapids, Expedition, Summit, Caravan, Lagoon, Voyage, Canyon, Anchor, Trail, Monsoon, Horizon",
        "mapmaker, mountain guide, river pilot, stowaway",
        "follows half a map across two borders, races a storm to the last pass, brings a lost caravan home, "
        "crosses an ocean on a borrowed boat",
    ),
    _genre(
        "animation", "animated film", "animated films",
        "Kite, Paintbox, Marble, Puppet, Balloon, Crayon, Firefly, Clockwork, Teacup, Umbrella, Acorn, Origami",
        "toy fox, paper sailor, wind-up owl, small cloud",
        "comes to life after closing time, paints a door that opens, teaches a whole town to fly, "
        "looks for the colour that went missing",
    ),
    _genre(
        "comedy", "comedy", "comedies",
        "Wedding, Neighbour, Sofa, Mix-up, Picnic, Landlord, Casserole, Tuxedo, Roommate, Pancake, Reunion, Moustache",
        "best man, hotel clerk, dentist, driving instructor",
        "tells one small lie and must keep it up all week, rents the same flat to two families, "
        "is taken for somebody important, ruins a reception and tries to mend it before dinner",
    ),
    _genre(
        "crime", "crime film", "crime films",
        "Alibi, Heist, Ledger, Informant, Vault, Getaway, Witness, Dockyard, Racket, Fingerprint, Smuggler, Verdict",
        "safe-breaker, bookkeeper, night guard, pawnbroker",
        "agrees to one last job, keeps two sets of books for two bosses, hides the money from the whole crew, "
        "turns witness and runs out of friends",
    ),
    _genre(
        "documentary", "documentary", "documentaries",
        "Archive, River, Harvest, Glacier, Workshop, Census, Migration, Kitchen, Foundry, Reef, Atlas, Season",
        "beekeeper, glacier surveyor, boat builder, village teacher",
        "keeps a craft alive that nobody else remembers, records a year without rain, "
        "opens a family archive for the first time, counts what is left of a reef",
    ),
    _genre(
        "drama", "drama", "dramas",
        "Inheritance, Letter, Orchard, Silence, Distance, Daughter, House, Winter, Promise, Estuary, Tenant, Afternoon",
        "widow, piano tuner, estranged son, night nurse",
        "comes home to sell the house and stays, reads letters that were meant for a sister, "
        "looks after a father who no longer knows the name, waits for an answer that takes a winter",
    ),
    _genre(
        "family", "family film", "family films",
        "Holiday, Puppy, Treehouse, Grandmother, Attic, Campfire, Pony, Snowman, Cousin, Garden, Parade, Rowing-boat",
        "ten-year-old, grandfather, younger cousin, new kid",
        "hides a stray dog from the whole street, saves the summer fair, finds a door behind the wardrobe of an aunt, "
        "builds a raft and means it",
    ),
    _genre(
        "fantasy", "fantasy", "fantasies",
        "Dragon, Crown, Spell, Oracle, Thorn, Kingdom, Changeling, Rune, Wyvern, Enchanter, Grove, Moonstone",
        "apprentice witch, exiled prince, runesmith, dragon keeper",
        "breaks a spell that held the kingdom together, bargains with a forest, carries a crown that nobody may wear, "
        "learns the true name of the last dragon",
    ),
    _genre(
        "history", "period piece", "period pieces",
        "Regiment, Treaty, Empress, Manuscript, Siege, Cathedral, Courier, Rebellion, Dynasty, Harbour, Chronicle, "
        "Frigate",
        "court painter, royal courier, abbess, young lieutenant",
        "carries a treaty through enemy lines, paints a queen who may be gone by spring, holds a city for forty days, "
        "copies a book that was ordered burnt",
    ),
    _genre(
        "horror", "horror film", "horror films",
        "Cellar, Hollow, Whisper, Crypt, Marsh, Doll, Scarecrow, Harrow, Lullaby, Basement, Fog, Moth",
        "caretaker, night-shift radio host, young couple, sexton",
        "hears the cellar breathe, moves into a house that counts its guests, answers a voice in the fog, "
        "digs where the old map says not to",
    ),
    _genre(
        "music", "music film", "music films",
        "Song, Orchestra, Jukebox, Encore, Rhythm, Ballad, Choir, Cello, Melody, Backstage, Overture, Trumpet",
        "street singer, second violin, retired drummer, choir mistress",
        "finds a song that nobody signed, brings the old band together for a night, "
        "loses the voice a week before the premiere, plays the same ballad in forty towns",
    ),
    _genre(
        "mystery", "mystery", "mysteries",
        "Cipher, Portrait, Vanishing, Manor, Locket, Riddle, Detective, Clue, Passenger, Key, Mirror, Inspector",
        "retired inspector, crossword setter, lodger, librarian",
        "finds a guest too many at dinner, solves a cipher that was left in a will, "
        "looks for a passenger whom nobody remembers, notices that the portrait has changed",
    ),
    _genre(
        "romance", "romance", "romances",
        "Kiss, Balcony, Valentine, Letterbox, Waltz, Bouquet, Summer, Ribbon, Heart, Serenade, Sweetheart, Embrace",
        "florist, train conductor, dance teacher, pen friend",
        "falls for a voice on the telephone, misses the same train twice on purpose, "
        "writes love letters for somebody else, meets an old flame at the wrong wedding",
    ),
    _genre(
        "science fiction", "science fiction film", "science fiction films",
        "Orbit, Android, Signal, Colony, Nebula, Airlock, Quasar, Satellite, Clone, Paradox, Reactor, Eclipse",
        "station engineer, salvage pilot, android, radio astronomer",
        "answers a signal sent before there were radios, wakes eighty years too early, "
        "repairs a ship that does not want to leave, meets a copy who remembers more",
    ),
    _genre(
        "thriller", "thriller", "thrillers",
        "Ransom, Deadline, Pursuit, Stranger, Wiretap, Hostage, Checkpoint, Blackout, Plot, Target, Decoy, Bridge",
        "courier, interpreter, air traffic controller, bodyguard",
        "picks up the wrong suitcase, has until midnight to cross the city, hears a plan that nobody should hear, "
        "finds that the hunted one is the client",
    ),
    _genre(
        "western", "western", "westerns",
        "Saddle, Mustang, Prairie, Sheriff, Stagecoach, Outlaw, Ranch, Gulch, Rattlesnake, Homestead, Lasso, Sundown",
        "horse trader, travelling judge, ranch hand, deputy",
        "rides into a town without a well, defends a ranch against the railway, trails an outlaw who saved a life, "
        "drives a herd through a dry valley",
    ),
)  # fmt: skip

# A mood's name, then words for texts, then words for titles.
MOODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tense": (
        ("tense", "breathless", "nerve-racking"),
        ("Restless", "Narrow", "Breathless", "Brittle", "Looming", "Sudden"),
    ),
    "tender": (("tender", "gentle", "affectionate"), ("Gentle", "Faithful", "Soft", "Shy", "Velvet", "Patient")),
    "bleak": (("bleak", "desolate", "unforgiving"), ("Grey", "Frozen", "Barren", "Ashen", "Forsaken", "Leaden")),
    "playful": (("playful", "mischievous", "light-footed"), ("Merry", "Tumbling", "Cheeky", "Striped", "Dizzy", "Odd")),
    "dreamy": (("dreamy", "hazy", "floating"), ("Drowsy", "Silver", "Paper", "Floating", "Lilac", "Moonlit")),
    "gritty": (("gritty", "raw", "unvarnished"), ("Rusty", "Broken", "Gravel", "Bitter", "Scorched", "Crooked")),
    "warm": (("warm", "kind", "big-hearted"), ("Golden", "Sunlit", "Homespun", "Amber", "Honeyed", "Welcome")),
    "eerie": (("eerie", "uncanny", "haunting"), ("Hollow", "Pale", "Nameless", "Twilight", "Murmuring", "Hidden")),
    "epic": (("epic", "sweeping", "grand"), ("Great", "Iron", "Boundless", "Thundering", "Crimson", "Towering")),
    "wry": (("wry", "dry-witted", "deadpan"), ("Improper", "Modest", "Reluctant", "Sensible", "Secondhand", "Polite")),
    "quiet": (("quiet", "unhurried", "hushed"), ("Quiet", "Distant", "Slow", "Still", "Unspoken", "Sleeping")),
    "furious": (
        ("furious", "explosive", "relentless"),
        ("Wild", "Burning", "Howling", "Reckless", "Storming", "Blazing"),
    ),
}

N_GENRES, N_MOODS = len(GENRES), len(MOODS)

PLACE_FIRST = (
    "Ember", "Thistle", "Larch", "Copper", "Heron", "Willow", "Slate", "Juniper", "Raven", "Barley", "Marigold",
    "Fennel", "Otter", "Saffron", "Bramble", "Cinder", "Poppy", "Kestrel", "Alder", "Pebble", "Linden", "Sorrel",
    "Wicker", "Bellow", "Clover", "Salt", "Tinder", "Mallow", "Plover", "Rowan", "Hazel", "Osprey",
)  # fmt: skip
PLACE_LAST = (
    "Cove", "Ridge", "Ferry", "Hollow", "Quay", "Falls", "Crossing", "Moor", "Station", "Bay", "Heights", "Mill",
)  # fmt: skip

FIRST_NAMES = (
    "Ilva", "Maro", "Sanni", "Teo", "Brisa", "Oskan", "Lioba", "Dario", "Neva", "Jorun", "Calla", "Emrik", "Padma",
    "Rafi", "Tove", "Zelia", "Anouk", "Bastian", "Ineko", "Yaro", "Mirela", "Kofi", "Selin", "Davor", "Amara",
    "Lenz", "Noor", "Petra", "Idris", "Runa", "Casimir", "Odalys", "Hanne", "Tariq", "Vesna", "Ewan", "Suri", "Milo",
    "Greta", "Anselm",
)  # fmt: skip
LAST_START = (
    "Tor", "Kel", "Var", "Bren", "Hal", "Mor", "Sel", "Dra", "Fen", "Gar", "Lin", "Nor", "Pel", "Quen", "Ras", "Ul",
    "Ves", "Wen", "Yar", "Zan", "Al", "Cor", "Est", "Jen", "Oster", "Tam", "Bel", "Ker", "Lor", "Mar",
)  # fmt: skip
LAST_END = (
    "ren", "dan", "evik", "holm", "mere", "quist", "stad", "wick", "anu", "ell", "ossa", "ini", "ander", "ov", "iden",
    "arro", "eska", "enko", "aly", "ette", "immen", "oya", "uin", "avar", "esh", "olu", "mont", "by", "aker", "ith",
)  # fmt: skip

COUNTRIES = ("Arvenia", "Belmora", "Corrin", "Dalvey", "Estmark", "Fenwold", "Galdria", "Hestia")
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
AGE_PHRASES = ("In their student years", "Around thirty", "Around forty", "Around fifty", "Past fifty-five")
NUMERALS = ("", " II", " III", " IV")
