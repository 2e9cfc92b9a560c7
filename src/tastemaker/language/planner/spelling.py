"""Names found by how they are spelt: to the letter, but for case, accents, hyphens and blanks; or nearly, by trigrams.

    names = NameIndex(["The Quiet Orchard", "Spider-Man"])
    names.exact("spiderman")                    # (1,)
    names.near("the quite orchard", 0.6)        # [(0, 0.78)]

Every name is read once; a question then costs a few looks into arrays, however many names there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*[^\W_]*|[^\W_]+(?:['’ʼ`´][^\W_]+)*|[$€£¥#&\"“”„«».,;:!?()…\n—–]")
_APOSTROPHES = re.compile("['’ʼ`´]")
LONGEST_NAME = 120  # characters of a name that are looked at
JOINED = 7  # letters from which on a name is known however it is cut into words


class Token(NamedTuple):
    """A word or a sign of a text: folded (lower case, no accents or apostrophes), as written, and where."""

    text: str
    raw: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.text[:1].isalnum()

    @property
    def capital(self) -> bool:
        return self.raw[:1].isupper()


def fold(word: str) -> str:
    """Lower case, without accents and apostrophes."""
    if word.isascii():
        return _APOSTROPHES.sub("", word.lower())
    parts = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", word))
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold()


def tokens(text: str) -> list[Token]:
    """Words, numbers and the signs that cut sentences; "&" is the word "and"."""
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        raw = match[0]
        folded = "and" if raw == "&" else fold(raw)
        if folded:
            found.append(Token(folded, raw, match.start(), match.end()))
    return found


def words(text: str) -> list[str]:
    """The folded words of a text, signs left out."""
    return [token.text for token in tokens(text) if token.is_word]


def singular(word: str) -> str:
    """An English noun without its plural ending; other words come back as they are, or so cut that it is harmless."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "zes", "ches", "shes")) else word[:-1]


class NameIndex:
    """An index of names, numbered by their place.

    Shapes: n names, P pairs of a trigram and a name
        _grams: [G] rising, the trigrams there are; _starts: [G + 1], where the names of each begin in _owners [P]
        _sizes: [n], different trigrams of each name
    """

    def __init__(self, names: Sequence[str], *, plurals: bool = False) -> None:
        cut = [words(name[:LONGEST_NAME]) for name in names]
        if plurals:
            cut = [[*name[:-1], singular(name[-1])] if name else name for name in cut]
        self.n = len(cut)
        self.plurals = plurals
        self.counts = np.array([len(name) for name in cut], dtype=np.int32)
        self.longest = int(self.counts.max(initial=0))
        self._keys: dict[str, list[int]] = {}
        for number, name in enumerate(cut):
            if name:
                self._keys.setdefault("".join(name), []).append(number)
        self._grams, self._starts, self._owners, self._sizes = _index([" ".join(name) for name in cut])

    def exact(self, name: Sequence[str]) -> list[int]:
        """Numbers of the names that these folded words write."""
        if self.plurals and name:
            name = [*name[:-1], singular(name[-1])]
        key = "".join(name)
        found = self._keys.get(key, [])
        if len(key) >= JOINED:
            return found
        return [number for number in found if self.counts[number] == len(name)]

    def near(self, name: Sequence[str], least: float, most: int = 5) -> list[tuple[int, float]]:
        """The names most like these folded words, with their likeness (Dice's, over trigrams), the best first."""
        grams = np.unique(_trigrams(np.frombuffer(f" {' '.join(name)} ".encode(), dtype=np.uint8)))
        place = np.searchsorted(self._grams, grams)
        place = place[place < len(self._grams)]
        grams_in = place[np.isin(self._grams[place], grams)] if len(place) else place
        if not len(grams_in):
            return []
        hits = np.concatenate([self._owners[self._starts[g] : self._starts[g + 1]] for g in grams_in.tolist()])
        likeness = 2.0 * np.bincount(hits, minlength=self.n) / (len(grams) + self._sizes)
        good = np.flatnonzero(likeness >= least)
        if len(good) > most:
            good = good[np.argpartition(-likeness[good], most)[:most]]
        order = good[np.lexsort((good, -likeness[good]))]
        return [(int(number), float(likeness[number])) for number in order]


def likeness(left: str, right: str) -> float:
    """Dice's coefficient of two folded texts over their trigrams."""
    grams = [set(_trigrams(np.frombuffer(f" {text} ".encode(), dtype=np.uint8)).tolist()) for text in (left, right)]
    total = len(grams[0]) + len(grams[1])
    return 2 * len(grams[0] & grams[1]) / total if total else 0.0


def one_slip(left: str, right: str) -> bool:
    """Whether a letter added, left out, changed or swapped with its neighbour turns one word into the other.

    Ref: Damerau, "A technique for computer detection and correction of spelling errors", CACM 1964.
    """
    if abs(len(left) - len(right)) > 1 or left == right:
        return left == right
    start = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    a, b = left[start:], right[start:]
    swapped = len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]


def _trigrams(content: NDArray[np.uint8]) -> NDArray[np.int64]:
    wide = content.astype(np.int64)
    return (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]


def _index(names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Trigrams, where their names begin, the names, and how many trigrams each name has; all names at once."""
    padded = [f" {name} ".encode() for name in names]
    sizes = np.array([len(name) for name in padded], dtype=np.int64)
    content = np.frombuffer(b"".join(padded), dtype=np.uint8)
    if len(content) < 3:
        return np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64), np.zeros(len(names), np.int64)
    owner = np.repeat(np.arange(len(names)), sizes)
    whole = owner[:-2] == owner[2:]
    pairs = np.unique((_trigrams(content)[whole] << 32) | owner[:-2][whole])
    grams, owners = pairs >> 32, pairs & 0xFFFFFFFF
    found, starts = np.unique(grams, return_index=True)
    return found, np.append(starts, len(grams)), owners, np.bincount(owners, minlength=len(names))
